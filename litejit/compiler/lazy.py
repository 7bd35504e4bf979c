"""Declarations of compiled functions that cost nothing until they are compiled.

`kernel`, `device` and `micro_kernel` return `Lazy` objects. A function may name other lazies as globals or in its
closure; when it is compiled they are replaced by what Numba understands. Called as they are, they run as plain
Python, which is how tests look inside them.

A lazy's `fingerprint` covers all that makes its machine code: byte code, constants and the lazies it names.
"""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from litejit.compiler.cpu import target


class Lazy:
    """Something that becomes a Numba object when it is compiled."""

    __slots__ = ("_built", "_print", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._built: dict[str, Any] = {}            # by level: a build is for the level that was the target
        self._print: str | None = None

    def build(self) -> Any:
        """The Numba object (built once per process and CPU level)."""
        level = target().name
        if level not in self._built:
            self._built[level] = self._build()
        return self._built[level]

    def fingerprint(self) -> str:
        """A digest of everything that makes the code."""
        if self._print is None:
            self._print = self._fingerprint()
        return self._print

    def _build(self) -> Any:
        raise TypeError(f"{self.name} cannot be compiled")

    def _fingerprint(self) -> str:
        return digest([self.name])

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}>"


def digest(parts: list[str]) -> str:
    """Hex digest of a list of texts."""
    try:
        from _blake2 import blake2b  # hashlib costs 3 ms to import
    except ImportError:
        from hashlib import blake2b

    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


# ---- functions ---------------------------------------------------------------------------------


class _Prange(Lazy):
    """`prange` of a kernel: Numba's in a parallel build, `range` otherwise."""

    __slots__ = ()

    def _build(self) -> Any:
        return range

    def __call__(self, *bounds: int) -> range:
        return range(*bounds)


prange = _Prange("prange")


class Function(Lazy):
    """A Python function to be compiled, with its Numba options."""

    __slots__ = ("fastmath", "function")

    def __init__(self, function: Callable[..., Any], name: str, fastmath: frozenset[str]) -> None:
        super().__init__(name)
        self.function, self.fastmath = function, fastmath

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def resolved(self, **replace: Any) -> Callable[..., Any]:
        """The function with every lazy it names replaced by its Numba object (or by `replace[name]`)."""
        function = self.function
        space = dict(function.__globals__)
        for name, value in _globals(function.__code__, function.__globals__):
            if isinstance(value, Lazy):
                space[name] = replace.get(value.name) or value.build()
        cells = tuple(
            types.CellType((replace.get(v.name) or v.build()) if isinstance(v, Lazy) else v)
            for v in (cell.cell_contents for cell in function.__closure__ or ())
        )
        made = types.FunctionType(function.__code__, space, function.__name__, function.__defaults__, cells)
        made.__kwdefaults__ = function.__kwdefaults__
        made.__module__ = function.__module__
        return made

    def _fingerprint(self) -> str:
        return digest([self.name, ",".join(sorted(self.fastmath)), core_digest(), *code_parts(self.function)])


class Device(Function):
    """A helper that kernels call and LLVM inlines."""

    __slots__ = ()

    def _build(self) -> Any:
        from litejit.compiler.frontend import device_dispatcher

        return device_dispatcher(self.resolved(), self.fastmath)


class Kernel(Function):
    """A step kernel: `int64 k(params record, begin, end)` over chunks [begin, end).

    Native: `int32 lj_<name>(int64 *ret, void **exc, params *, int64 begin, int64 end)`; *ret is 0 or an error,
    code | position << 8. `home` is the module that declares it while it is imported; "" for a kernel made on demand.
    """

    __slots__ = ("home", "params", "symbol")

    def __init__(self, function: Callable[..., Any], name: str, fastmath: frozenset[str], params: np.dtype) -> None:
        super().__init__(function, name, fastmath)
        self.params, self.symbol, self.home = params, "lj_" + name, _being_imported()

    def _fingerprint(self) -> str:
        described: Any = self.params.fields
        fields = [f"{name}:{described[name][1]}:{described[name][0].str}{described[name][0].shape}" for name in described]
        return digest([super()._fingerprint(), *fields])


def _being_imported() -> str:
    """The module whose import is under way, "" where none is."""
    frame: types.FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    name = frame.f_globals["__name__"] if frame is not None else ""
    return "" if name == "__main__" else str(name)


KERNELS: dict[str, Kernel] = {}


def kernel(params: np.dtype, *, name: str | None = None, fastmath: tuple[str, ...] = ()) -> Callable[[Any], Kernel]:
    """Declare a kernel whose parameters are a record of `params` (a structured dtype, `align=True`).

    fastmath: LLVM's flags for the float operations of this kernel ("contract", "reassoc", ...); none by default.
    """

    def declare(function: Callable[..., Any]) -> Kernel:
        label = name or function.__name__
        made = Kernel(function, label, frozenset(fastmath), params)
        other = KERNELS.setdefault(label, made)
        if other is not made and other.function.__code__.co_filename != function.__code__.co_filename:
            raise ValueError(f"two kernels are called {label}")
        KERNELS[label] = made
        return made

    return declare


def device(function: Callable[..., Any] | None = None, *, fastmath: tuple[str, ...] = ()) -> Any:
    """Declare a helper of kernels: `@device` or `@device(fastmath=(...))`."""

    def declare(f: Callable[..., Any]) -> Device:
        return Device(f, f.__qualname__, frozenset(fastmath))

    return declare(function) if function is not None else declare


# ---- generated micro-kernels ---------------------------------------------------------------------


class MicroKernel(Lazy):
    """A generated LLVM function (noinline, noalias pointers), called from kernels like a device function.

    args: one letter per argument: p address, i int64, f float32, d float64. `emit(v, *args)` writes the body with the
    vector builder `v`; `name` says everything that parameterises it. `twin` is its plain Python meaning.
    As a parameter of a step it is its address: kernels that call it so (`ByAddress`) are compiled without it.
    """

    __slots__ = ("args", "emit", "home", "symbol", "twin")

    def __init__(self, name: str, args: str, emit: Callable[..., Any], twin: Callable[..., Any] | None) -> None:
        super().__init__(name)
        self.args, self.emit, self.twin = args, emit, twin
        self.symbol, self.home = MICRO + name, _being_imported()

    def __call__(self, *args: Any) -> Any:
        if self.twin is None:
            raise TypeError(f"micro-kernel {self.name} has no Python twin")
        return self.twin(*args)

    def _build(self) -> Any:
        from litejit.compiler.codegen import micro_kernel_intrinsic

        return micro_kernel_intrinsic(self)

    def _fingerprint(self) -> str:
        return digest([self.name, self.args, core_digest(), simd_digest()])


MICRO = "micro."                      # begins the symbols of micro-kernels
MICRO_KERNELS: dict[str, MicroKernel] = {}
Linked = Kernel | MicroKernel
"""What is compiled to object code of its own."""


def micro_kernel(name: str, args: str, emit: Callable[..., Any], twin: Callable[..., Any] | None = None) -> MicroKernel:
    """The micro-kernel `name` (one object per name)."""
    if name not in MICRO_KERNELS:
        MICRO_KERNELS[name] = MicroKernel(name, args, emit, twin)
    return MICRO_KERNELS[name]


def linked(symbol: str) -> Linked | None:
    """The kernel or micro-kernel with a symbol."""
    table: dict[str, Any] = MICRO_KERNELS if symbol.startswith(MICRO) else KERNELS
    return table.get(symbol.removeprefix(MICRO).removeprefix("lj_"))


class ByAddress(Lazy):
    """The call of a micro-kernel that has these arguments: (address, *arguments)."""

    __slots__ = ("args",)

    def __init__(self, args: str) -> None:
        super().__init__("by_address_" + args)
        self.args = args

    def __call__(self, *args: Any) -> Any:
        raise TypeError(f"{self.name} has no meaning in plain Python")

    def _build(self) -> Any:
        from litejit.compiler.codegen import by_address_intrinsic

        return by_address_intrinsic(self)

    def _fingerprint(self) -> str:
        return digest([self.name, core_digest()])


# ---- fingerprints ------------------------------------------------------------------------------

_digests: dict[str, str] = {}


def _files_digest(key: str, paths: Callable[[], list[str]]) -> str:
    if key not in _digests:
        texts = []
        for path in paths():
            with open(path, encoding="utf-8") as file:
                texts.append(file.read())
        _digests[key] = digest(texts)
    return _digests[key]


def core_digest() -> str:
    """Digest of the sources that take part in every compilation."""
    here = os.path.dirname(__file__)
    names = "codegen.py", "frontend.py", "primitives.py", "cpu.py"
    return _files_digest("core", lambda: [os.path.join(here, name) for name in names])


def system_digest() -> str:
    """Digest of what links and drives kernels: the linker, the run-time system, the fused function."""
    here = os.path.dirname(__file__)
    names = sorted(os.path.join(here, n) for n in os.listdir(here) if n.endswith(".py"))
    return _files_digest("system", lambda: [*names, os.path.join(os.path.dirname(here), "fusion", "driver.py")])


def simd_digest() -> str:
    """Digest of the generators of micro-kernels."""
    folder = os.path.join(os.path.dirname(os.path.dirname(__file__)), "ops", "simd")
    return _files_digest(
        "simd", lambda: sorted(os.path.join(folder, n) for n in os.listdir(folder) if n.endswith(".py"))
    )


def _globals(code: types.CodeType, space: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(name, value) of the globals that a code object, or one nested in it, names."""
    for name in code.co_names:
        if name in space:
            yield name, space[name]
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals(constant, space)


def code_parts(function: Callable[..., Any]) -> list[str]:
    """Texts that tell a function's code apart: byte code, constants, and what it names."""
    code = function.__code__
    parts = [*_code_texts(code)]
    parts += [
        f"{name}={_value_text(value)}" for name, value in sorted(dict(_globals(code, function.__globals__)).items())
    ]
    parts += [_value_text(cell.cell_contents) for cell in function.__closure__ or ()]
    parts.append(_value_text(function.__defaults__))
    return parts


def _code_texts(code: types.CodeType) -> Iterator[str]:
    yield code.co_code.hex()
    yield " ".join(code.co_names + code.co_varnames + code.co_freevars)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code_texts(constant)
        else:
            yield repr(constant)


def _value_text(value: Any) -> str:
    if isinstance(value, Lazy):
        return value.fingerprint()
    if isinstance(value, np.ndarray):
        return f"{value.dtype.str}{value.shape}{value.tobytes().hex()}"
    if isinstance(value, (types.ModuleType, types.FunctionType, type)):
        return value.__name__
    return repr(value)
