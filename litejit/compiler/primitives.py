"""Typed loads and stores at addresses, bit casts and single instructions, for kernels.

`load_f32(base, i)` reads the i-th float32 from address `base`; `store_f32(base, i, value)` writes it. Narrow integers
come back as their own type (arithmetic on them is 64-bit in Numba). float16 and bfloat16 are read as float32 and
rounded to nearest even when stored. Indexing arrays with signed variables makes LLVM gather; these do not.
Each has a plain Python meaning, used when a kernel runs as Python.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler.cpu import target
from litejit.compiler.lazy import Lazy, code_parts, digest


class Primitive(Lazy):
    """An @intrinsic made of `emit(ir, builder, args) -> value or None`; result and arguments are Numba type names."""

    __slots__ = ("args", "emit", "python", "result")

    def __init__(
        self, name: str, result: str, args: tuple[str, ...], emit: Callable[..., Any], python: Callable[..., Any]
    ) -> None:
        super().__init__(name)
        self.result, self.args, self.emit, self.python = result, args, emit, python

    def __call__(self, *args: Any) -> Any:
        return self.python(*args)

    def _fingerprint(self) -> str:
        return digest([self.name, self.result, *self.args, *code_parts(self.emit)])

    def _build(self) -> Any:
        from litejit.compiler.codegen import primitive_intrinsic

        return primitive_intrinsic(self)


# ---- loads and stores: name -> (Numba type, LLVM type, bytes, ctypes type) ------------------------

_SCALARS: dict[str, tuple[str, str, int, Any]] = {
    "f32": ("float32", "float", 4, ctypes.c_float),
    "f64": ("float64", "double", 8, ctypes.c_double),
    "i8": ("int8", "i8", 1, ctypes.c_int8),
    "u8": ("uint8", "i8", 1, ctypes.c_uint8),
    "i16": ("int16", "i16", 2, ctypes.c_int16),
    "u16": ("uint16", "i16", 2, ctypes.c_uint16),
    "i32": ("int32", "i32", 4, ctypes.c_int32),
    "u32": ("uint32", "i32", 4, ctypes.c_uint32),
    "i64": ("int64", "i64", 8, ctypes.c_int64),
    "u64": ("uint64", "i64", 8, ctypes.c_uint64),
}


def _llvm(ir: Any, name: str) -> Any:
    plain = {"float": ir.FloatType, "double": ir.DoubleType, "half": ir.HalfType}
    return plain[name]() if name in plain else ir.IntType(int(name[1:]))


def _place(ir: Any, b: Any, base: Any, index: Any, ty: Any) -> Any:
    return b.gep(b.inttoptr(base, ir.PointerType()), [index], source_etype=ty)


def _load(scalar: str) -> Primitive:
    numba_type, llvm_type, size, c = _SCALARS[scalar]

    def emit(ir: Any, b: Any, a: Any) -> Any:
        ty = _llvm(ir, llvm_type)
        return b.load(_place(ir, b, a[0], a[1], ty), typ=ty, align=size)

    as_numpy = getattr(np, numba_type)
    return Primitive(
        f"load_{scalar}",
        numba_type,
        ("int64", "int64"),
        emit,
        lambda base, i: as_numpy(c.from_address(int(base) + size * int(i)).value),
    )


def _store(scalar: str) -> Primitive:
    numba_type, llvm_type, size, c = _SCALARS[scalar]

    def emit(ir: Any, b: Any, a: Any) -> None:
        ty = _llvm(ir, llvm_type)
        b.store(a[2], _place(ir, b, a[0], a[1], ty), align=size)

    def python(base: int, i: int, value: Any) -> None:
        c.from_address(int(base) + size * int(i)).value = float(value) if scalar[0] == "f" else int(value)

    return Primitive(f"store_{scalar}", "void", ("int64", "int64", numba_type), emit, python)


load_f32, store_f32 = _load("f32"), _store("f32")
load_f64, store_f64 = _load("f64"), _store("f64")
load_i8, store_i8 = _load("i8"), _store("i8")
load_u8, store_u8 = _load("u8"), _store("u8")
load_i16, store_i16 = _load("i16"), _store("i16")
load_u16, store_u16 = _load("u16"), _store("u16")
load_i32, store_i32 = _load("i32"), _store("i32")
load_u32, store_u32 = _load("u32"), _store("u32")
load_i64, store_i64 = _load("i64"), _store("i64")
load_u64, store_u64 = _load("u64"), _store("u64")


def _has_f16() -> bool:
    """Whether the target converts float16 itself; elsewhere LLVM would call a function that nobody links."""
    cpu = target()
    return cpu.arch == "aarch64" or "f16c" in cpu.needs


def _emit_load_f16(ir: Any, b: Any, a: Any) -> Any:
    if _has_f16():
        half = ir.HalfType()
        return b.fpext(b.load(_place(ir, b, a[0], a[1], half), typ=half, align=2), ir.FloatType())
    i16, i32, f32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
    bits = b.zext(b.load(_place(ir, b, a[0], a[1], i16), typ=i16, align=2), i32)
    low = b.shl(b.and_(bits, i32(0x7FFF)), i32(13))
    scaled = b.bitcast(b.fmul(b.bitcast(low, f32), ir.Constant(f32, 2.0**112)), i32)
    special = b.icmp_unsigned(">=", low, i32(0x7C00 << 13))
    magnitude = b.select(special, b.or_(low, i32(0x7F800000)), scaled)
    return b.bitcast(b.or_(magnitude, b.shl(b.and_(bits, i32(0x8000)), i32(16))), f32)


def _emit_store_f16(ir: Any, b: Any, a: Any) -> None:
    if _has_f16():
        half = ir.HalfType()
        b.store(b.fptrunc(a[2], half), _place(ir, b, a[0], a[1], half), align=2)
        return
    i16, i32, f32 = ir.IntType(16), ir.IntType(32), ir.FloatType()
    bits = b.bitcast(a[2], i32)
    x = b.and_(bits, i32(0x7FFFFFFF))
    odd = b.and_(b.lshr(x, i32(13)), i32(1))
    normal = b.lshr(b.add(b.add(x, i32(((15 - 127) << 23) + 0xFFF)), odd), i32(13))
    small = b.sub(b.bitcast(b.fadd(b.bitcast(x, f32), ir.Constant(f32, 0.5)), i32), i32(0x3F000000))
    large = b.select(b.icmp_unsigned(">", x, i32(0x7F800000)), i32(0x7E00), i32(0x7C00))
    value = b.select(b.icmp_unsigned("<", x, i32(0x38800000)), small, normal)
    value = b.select(b.icmp_unsigned(">=", x, i32(0x47800000)), large, value)
    value = b.or_(value, b.lshr(b.and_(bits, i32(0x80000000)), i32(16)))
    b.store(b.trunc(value, i16), _place(ir, b, a[0], a[1], i16), align=2)


def _emit_load_bf16(ir: Any, b: Any, a: Any) -> Any:
    i16, i32 = ir.IntType(16), ir.IntType(32)
    bits = b.zext(b.load(_place(ir, b, a[0], a[1], i16), typ=i16, align=2), i32)
    return b.bitcast(b.shl(bits, i32(16)), ir.FloatType())


def _emit_store_bf16(ir: Any, b: Any, a: Any) -> None:
    i16, i32 = ir.IntType(16), ir.IntType(32)
    bits = b.bitcast(a[2], i32)
    odd = b.and_(b.lshr(bits, i32(16)), i32(1))
    rounded = b.lshr(b.add(bits, b.add(odd, i32(0x7FFF))), i32(16))
    quiet = b.or_(b.lshr(bits, i32(16)), i32(0x40))
    value = b.select(b.fcmp_unordered("uno", a[2], a[2]), quiet, rounded)
    b.store(b.trunc(value, i16), _place(ir, b, a[0], a[1], i16), align=2)


def _bits16(base: int, i: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint16 * 1).from_address(int(base) + 2 * int(i)))


def _python_store_bf16(base: int, i: int, value: Any) -> None:
    import ml_dtypes

    _bits16(base, i)[0] = np.float32(value).astype(ml_dtypes.bfloat16).view(np.uint16)


load_f16 = Primitive(
    "load_f16",
    "float32",
    ("int64", "int64"),
    _emit_load_f16,
    lambda base, i: np.float32(_bits16(base, i).view(np.float16)[0]),
)
store_f16 = Primitive(
    "store_f16",
    "void",
    ("int64", "int64", "float32"),
    _emit_store_f16,
    lambda base, i, v: _bits16(base, i).view(np.float16).__setitem__(0, np.float16(v)),
)
load_bf16 = Primitive(
    "load_bf16",
    "float32",
    ("int64", "int64"),
    _emit_load_bf16,
    lambda base, i: (_bits16(base, i).astype(np.uint32) << 16).view(np.float32)[0],
)
store_bf16 = Primitive("store_bf16", "void", ("int64", "int64", "float32"), _emit_store_bf16, _python_store_bf16)

LOAD = {
    "f32": load_f32,
    "f64": load_f64,
    "i8": load_i8,
    "u8": load_u8,
    "i16": load_i16,
    "u16": load_u16,
    "i32": load_i32,
    "u32": load_u32,
    "i64": load_i64,
    "u64": load_u64,
    "f16": load_f16,
    "bf16": load_bf16,
}
STORE = {
    "f32": store_f32,
    "f64": store_f64,
    "i8": store_i8,
    "u8": store_u8,
    "i16": store_i16,
    "u16": store_u16,
    "i32": store_i32,
    "u32": store_u32,
    "i64": store_i64,
    "u64": store_u64,
    "f16": store_f16,
    "bf16": store_bf16,
}


# ---- blocks of bytes ------------------------------------------------------------------------------


def _intrinsic(ir: Any, b: Any, name: str, result: Any, args: list[Any]) -> Any:
    fn = b.module.globals.get(name) or ir.Function(b.module, ir.FunctionType(result, [x.type for x in args]), name)
    return b.call(fn, args)


def _emit_copy(ir: Any, b: Any, a: Any) -> None:
    p = ir.PointerType()
    _intrinsic(
        ir,
        b,
        "llvm.memcpy.p0.p0.i64",
        ir.VoidType(),
        [b.inttoptr(a[0], p), b.inttoptr(a[1], p), a[2], ir.IntType(1)(0)],
    )


def _emit_fill(ir: Any, b: Any, a: Any) -> None:
    _intrinsic(
        ir,
        b,
        "llvm.memset.p0.i64",
        ir.VoidType(),
        [b.inttoptr(a[0], ir.PointerType()), b.trunc(a[1], ir.IntType(8)), a[2], ir.IntType(1)(0)],
    )


copy_bytes = Primitive(
    "copy_bytes",
    "void",
    ("int64", "int64", "int64"),
    _emit_copy,
    lambda to, source, n: ctypes.memmove(int(to), int(source), int(n)),
)
fill_bytes = Primitive(
    "fill_bytes",
    "void",
    ("int64", "int64", "int64"),
    _emit_fill,
    lambda to, value, n: ctypes.memset(int(to), int(value) & 255, int(n)),
)


# ---- floats --------------------------------------------------------------------------------------


def _unary_float(name: str, llvm_name: str, python: Callable[[float], float]) -> Primitive:
    def emit(ir: Any, b: Any, a: Any) -> Any:
        return _intrinsic(ir, b, f"llvm.{llvm_name}.f32", ir.FloatType(), [a[0]])

    return Primitive(name, "float32", ("float32",), emit, lambda x: np.float32(python(float(x))))


def _round_even(x: float) -> float:
    return float(np.rint(x))


rint_f32 = _unary_float("rint_f32", "nearbyint", _round_even)  # halves to even
round_f32 = _unary_float(
    "round_f32", "round", lambda x: math.copysign(math.floor(abs(x) + 0.5), x) if math.isfinite(x) else x
)  # halves away from zero
trunc_f32 = _unary_float("trunc_f32", "trunc", lambda x: float(np.trunc(x)))
floor_f32 = _unary_float("floor_f32", "floor", lambda x: float(np.floor(x)))
ceil_f32 = _unary_float("ceil_f32", "ceil", lambda x: float(np.ceil(x)))
sqrt_f32 = _unary_float("sqrt_f32", "sqrt", lambda x: math.sqrt(x) if x >= 0 else math.nan)
abs_f32 = _unary_float("abs_f32", "fabs", abs)
round_f64 = Primitive(
    "round_f64",
    "float64",
    ("float64",),
    lambda ir, b, a: _intrinsic(ir, b, "llvm.round.f64", ir.DoubleType(), [a[0]]),
    lambda x: math.copysign(math.floor(abs(x) + 0.5), x) if math.isfinite(x) else x,
)
fma_f32 = Primitive(
    "fma_f32",
    "float32",
    ("float32", "float32", "float32"),
    lambda ir, b, a: _intrinsic(ir, b, "llvm.fma.f32", ir.FloatType(), list(a)),
    lambda x, y, z: np.float32(np.float64(x) * np.float64(y) + np.float64(z)),
)
bits_f32 = Primitive(
    "bits_f32",
    "int32",
    ("float32",),
    lambda ir, b, a: b.bitcast(a[0], ir.IntType(32)),
    lambda x: np.float32(x).view(np.int32),
)
float_bits = Primitive(
    "float_bits",
    "float32",
    ("int32",),
    lambda ir, b, a: b.bitcast(a[0], ir.FloatType()),
    lambda x: np.int32(x).view(np.float32),
)
