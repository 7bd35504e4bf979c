"""Assembly of micro-kernels for any CPU level, also for those that this machine cannot execute: to look at, and for tests.

    print(assembly(micro, LEVELS["neondot"]))

A module of one function, on LLVM's target machine of the level, optimised as Numba optimises kernels.
"""
from __future__ import annotations

import functools
from typing import Any

from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel

TRIPLES = {"x86_64": "x86_64-unknown-linux-gnu", "aarch64": "aarch64-unknown-linux-gnu"}     # by architecture


def assembly(micro: MicroKernel, cpu: Cpu) -> str:
    """Text of a micro-kernel's machine code for a level, in the assembler's AT&T syntax on x86.

    Raises RuntimeError where LLVM was built without the level's architecture.
    """
    from litejit.compiler.codegen import optimised

    machine = _machine(cpu)
    return str(machine.emit_assembly(optimised(micro, cpu, machine)))


@functools.cache
def _machine(cpu: Cpu) -> Any:
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    triple = TRIPLES.get(cpu.arch) or binding.get_process_triple()
    return binding.Target.from_triple(triple).create_target_machine(
        cpu=cpu.llvm_cpu, features=cpu.llvm_features, opt=3, reloc="pic", codemodel="small")
