"""From functions to relocatable object code: compile for a CPU level, optimise, keep one symbol, emit.

The functions are compiled in a context of their own (frontend.py) whose target machine is the level's (position
independent, small code model), so that Numba neither generates code for its own JIT nor looks at the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litejit.compiler.cpu import Cpu, compiling_for, target
from litejit.compiler.frontend import library_of, target_of
from litejit.compiler.lazy import MICRO, MICRO_KERNELS, ByAddress, Kernel, Linked, MicroKernel
from litejit.compiler.primitives import Primitive

# isort: split
# frontend.py comes first: it sets what Numba reads when it is imported
from llvmlite import binding, ir
from numba import types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic


def emit_module(
    function: Callable[..., Any],
    argument_types: tuple[Any, ...],
    symbol: str,
    cpu: Cpu | None = None,
    fastmath: frozenset[str] = frozenset(),
    result: Any = None,
) -> Any:
    """The optimised LLVM module of one function, `symbol` its only exported name."""
    cpu = cpu or target()
    with global_compiler_lock:
        library, name = library_of(function, argument_types, types.int64 if result is None else result, cpu, fastmath)
        module = binding.parse_bitcode(library._final_module.as_bitcode())
    module.get_function(name).name = symbol
    optimise(module, machine(cpu))
    for micro in [f.name for f in module.functions if f.is_declaration and f.name.startswith(MICRO)]:
        module.link_in(binding.parse_bitcode(micro_kernel_body(MICRO_KERNELS[micro.removeprefix(MICRO)], cpu)))
    for defined in module.functions:
        if not defined.is_declaration and defined.name != symbol:
            defined.linkage = "internal"
    return module


def emit_object(
    function: Callable[..., Any],
    argument_types: tuple[Any, ...],
    symbol: str,
    cpu: Cpu | None = None,
    fastmath: frozenset[str] = frozenset(),
    result: Any = None,
) -> bytes:
    """Object code of `int32 symbol(result*, exc**, arguments...)`; argument types are Numba's, the result int64."""
    cpu = cpu or target()
    module = emit_module(function, argument_types, symbol, cpu, fastmath, result)
    return machine(cpu).emit_object(module)


def machine(cpu: Cpu) -> Any:
    """LLVM's target machine of a CPU level."""
    return target_of(cpu).target_context.codegen()._tm


def record_type(kernel: Kernel) -> Any:
    """Numba's type of a kernel's parameters."""
    from numba.np.numpy_support import from_dtype

    return from_dtype(kernel.params)


def kernel_object(kernel: Linked, cpu: Cpu | None = None) -> bytes:
    """Object code of a kernel or micro-kernel."""
    with global_compiler_lock:
        if isinstance(kernel, MicroKernel):
            return micro_kernel_object(kernel, cpu or target())
        return emit_object(
            kernel.resolved(), (record_type(kernel), types.int64, types.int64), kernel.symbol, cpu, kernel.fastmath
        )


def kernel_assembly(kernel: Kernel, cpu: Cpu | None = None) -> str:
    """Assembly of a kernel, to look at: for any level of this machine's architecture, see `compiling_for`."""
    cpu = cpu or target()
    with global_compiler_lock, compiling_for(cpu):
        module = emit_module(
            kernel.resolved(), (record_type(kernel), types.int64, types.int64), kernel.symbol, cpu, kernel.fastmath
        )
        return machine(cpu).emit_assembly(module)


# ---- intrinsics ----------------------------------------------------------------------------------


def primitive_intrinsic(primitive: Primitive) -> Any:
    """Numba's @intrinsic of a primitive."""
    signature = getattr(types, primitive.result)(*[getattr(types, name) for name in primitive.args])

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = primitive.emit(ir, builder, args)
        return context.get_dummy_value() if value is None else value

    return _intrinsic(primitive.name, len(primitive.args), signature, generate)


_LETTERS = {"p": types.int64, "i": types.int64, "f": types.float32, "d": types.float64}


def micro_kernel_intrinsic(micro: MicroKernel) -> Any:
    """Numba's @intrinsic that calls a generated function of its own inside the module."""
    signature = types.void(*[_LETTERS[letter] for letter in micro.args])

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.call(declare_micro_kernel(builder.module, micro), _arguments(builder, micro.args, args))
        return context.get_dummy_value()

    return _intrinsic(
        "micro_" + "".join(c if c.isalnum() else "_" for c in micro.name), len(micro.args), signature, generate
    )


def by_address_intrinsic(call: ByAddress) -> Any:
    """Numba's @intrinsic that calls the micro-kernel whose address is the first argument."""
    signature = types.void(types.int64, *[_LETTERS[letter] for letter in call.args])

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        function = builder.inttoptr(args[0], _function_type(call.args).as_pointer())
        builder.call(function, _arguments(builder, call.args, args[1:]))
        return context.get_dummy_value()

    return _intrinsic(call.name, 1 + len(call.args), signature, generate)


def _arguments(builder: Any, letters: str, args: Any) -> list[Any]:
    """Arguments of a micro-kernel: addresses are pointers there."""
    return [builder.inttoptr(x, ir.PointerType()) if letter == "p" else x for x, letter in zip(args, letters)]


def _function_type(letters: str) -> Any:
    plain = {"p": ir.PointerType(), "i": ir.IntType(64), "f": ir.FloatType(), "d": ir.DoubleType()}
    return ir.FunctionType(ir.VoidType(), [plain[letter] for letter in letters])


_bodies: dict[tuple[str, str], bytes] = {}


def declare_micro_kernel(module: Any, micro: MicroKernel) -> Any:
    """The LLVM function of a micro-kernel in `module`, without its body.

    Numba optimises a module once for every function that is inlined into it; the bodies come in when that is over.
    """
    if micro.symbol in module.globals:
        return module.globals[micro.symbol]
    function = ir.Function(module, _function_type(micro.args), micro.symbol)
    for attribute in ("noinline", "nounwind"):
        function.attributes.add(attribute)
    for argument, letter in zip(function.args, micro.args):
        if letter == "p":
            argument.add_attribute("noalias")
    return function


def define_micro_kernel(module: Any, micro: MicroKernel, cpu: Cpu) -> Any:
    """The LLVM function of a micro-kernel in `module`."""
    from litejit.ops.simd.vec import Vec

    function = declare_micro_kernel(module, micro)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    micro.emit(Vec(builder, cpu), *function.args)
    builder.ret_void()
    return function


def micro_kernel_object(micro: MicroKernel, cpu: Cpu) -> bytes:
    """Object code of a micro-kernel that is called by its address."""
    described = machine(cpu)
    return bytes(described.emit_object(optimised(micro, cpu, described)))


def micro_kernel_body(micro: MicroKernel, cpu: Cpu) -> bytes:
    """Bitcode of a module with a micro-kernel, optimised once per process and level."""
    key = micro.name, cpu.name
    if key not in _bodies:
        _bodies[key] = optimised(micro, cpu, machine(cpu)).as_bitcode()
    return _bodies[key]


def optimised(micro: MicroKernel, cpu: Cpu, machine: Any) -> Any:
    """The module of a micro-kernel, optimised for a target machine."""
    made = ir.Module(micro.name)
    made.triple = machine.triple
    define_micro_kernel(made, micro, cpu)
    module = binding.parse_assembly(str(made))
    module.data_layout = str(machine.target_data)
    module.verify()
    optimise(module, machine)
    return module


def optimise(module: Any, machine: Any) -> None:
    """LLVM's passes of level 3 for a target machine."""
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    passes = binding.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)


def _intrinsic(name: str, count: int, signature: Any, generate: Callable[..., Any]) -> Any:
    """An @intrinsic of `count` arguments; Numba reads the number of arguments off the function's own signature."""
    names = ", ".join(f"a{i}" for i in range(count))
    space: dict[str, Any] = {"signature": signature, "generate": generate}
    exec(f"def {name}(typing, {names}):\n    return signature, generate", space)
    return intrinsic(space[name])
