"""Numba's front end on litejit's targets: from a Python function to an LLVM module of its own, not optimised yet.

A cold start is mostly Numba typing and lowering small functions of plain numbers. Two things here shorten that by a quarter
(the machine code of kernels stays the same): the list of passes leaves out what such functions have no use for, and
the typing context remembers how operators on numbers are typed. What the short list cannot compile goes through all passes.
"""
from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from litejit.compiler.cpu import Cpu, target

os.environ.setdefault("NUMBA_DISABLE_INTEL_SVML", "1")  # objects would ask for a library that is rarely there

from numba.core import compiler, types, typing, untyped_passes
from numba.core import typed_passes as typed
from numba.core.codegen import AOTCodeLibrary, AOTCPUCodegen
from numba.core.compiler_machinery import PassManager
from numba.core.cpu_options import FastMathOptions
from numba.core.registry import CPUDispatcher, CPUTarget, cpu_target

SHORT = (
    untyped_passes.TranslateByteCode, untyped_passes.FixupArgs, untyped_passes.IRProcessing,
    untyped_passes.RewriteSemanticConstants, untyped_passes.DeadBranchPrune, untyped_passes.GenericRewrites,
    untyped_passes.ReconstructSSA, typed.NopythonTypeInference, typed.PreLowerStripPhis, typed.IRLegalization,
    typed.NativeLowering, typed.NoPythonBackend)
"""Passes of functions without closures, comprehensions, `with` and expressions of arrays."""
_targets: dict[str, Target] = {}


class Passes(compiler.CompilerBase):
    """The short list of passes; Numba's own one for what that refuses."""

    def define_pipelines(self) -> list[Any]:
        short = PassManager("litejit")
        for one in SHORT:
            short.add_pass(one, one.__name__)
        short.finalize()
        return [short, compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)]


class _Typing(typing.Context):
    """Numba's typing context, with its registries, that remembers the signatures of operators on numbers.

    Numba asks every declaration of an operator anew for each of its uses. Functions that are compiled where they are used
    (min, max) are left to it: their code depends on the flags of the caller.
    """

    def __init__(self, shared: Any) -> None:
        self.__dict__ = shared.__dict__
        self.remembered: dict[Any, Any] = {}

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        known = getattr(getattr(func, "typing_key", None), "__module__", "") == "_operator" and not kws
        if not known or not all(isinstance(one, (types.Number, types.Boolean)) for one in args):
            return super().resolve_function_type(func, args, kws)
        if (func, args) not in self.remembered:
            self.remembered[func, args] = super().resolve_function_type(func, args, kws)
        return self.remembered[func, args]


class _Library(AOTCodeLibrary):
    """Numba's library of a function, left as it is: the kernel is optimised once, when all that it calls is in its module."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def get_pointer_to_function(self, name: str) -> int:
        return 1  # never called: Numba only asks whether it exists


class _Codegen(AOTCPUCodegen):
    """Numba's code generator on the target machine of a CPU level."""

    _library_class = _Library

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        super().__init__("litejit")

    def _customize_tm_options(self, options: dict[str, Any]) -> None:
        options.update(cpu=self._cpu.llvm_cpu, features=self._cpu.llvm_features, reloc="pic", codemodel="small")

    def set_env(self, name: str, env: Any) -> None:
        pass


class Target(CPUTarget):
    """Numba's description of a target, with a code generator for one CPU level."""

    def __init__(self, cpu: Cpu) -> None:
        super().__init__("cpu")
        self._typing = _Typing(cpu_target.typing_context)
        self._context = cpu_target.target_context.subtarget(_internal_codegen=_Codegen(cpu), typing_context=self._typing)

    @property
    def target_context(self) -> Any:
        return self._context

    @property
    def typing_context(self) -> Any:
        return self._typing


def target_of(cpu: Cpu) -> Target:
    """The target of a CPU level."""
    if cpu.name not in _targets:
        cpu_target.typing_context.refresh()
        cpu_target.target_context.refresh()
        _targets[cpu.name] = Target(cpu)
    return _targets[cpu.name]


def device_dispatcher(function: Callable[..., Any], fastmath: frozenset[str]) -> Any:
    """What `numba.njit` makes of a device function, compiled for our target instead of Numba's."""

    class Dispatcher(CPUDispatcher):
        targetdescr = target_of(target())

    options = {
        "nopython": True,
        "no_cpython_wrapper": True,
        "no_cfunc_wrapper": True,
        "error_model": "numpy",
        "nogil": True,
    }
    if fastmath:
        options["fastmath"] = set(fastmath)
    return Dispatcher(function, targetoptions=options, pipeline_class=Passes)


def library_of(function: Callable[..., Any], argument_types: tuple[Any, ...], result: Any, cpu: Cpu, fastmath: frozenset[str]
               ) -> tuple[Any, str]:
    """(Numba's library of a function and all that it calls, the function's name in it), not optimised."""
    described = target_of(cpu)
    compiled = compiler.compile_extra(described.typing_context, described.target_context, function, argument_types, result,
                                      _flags(fastmath), {}, pipeline_class=Passes)
    compiled.library._ensure_finalized()
    return compiled.library, compiled.fndesc.llvm_func_name


def _flags(fastmath: frozenset[str]) -> Any:
    flags = compiler.Flags()
    flags.no_compile = True
    flags.no_cpython_wrapper = True
    flags.no_cfunc_wrapper = True
    flags.error_model = "numpy"
    flags.nrt = False
    if fastmath:
        flags.fastmath = FastMathOptions(set(fastmath))
    return flags
