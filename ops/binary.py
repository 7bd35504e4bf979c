"""ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE POW FLOOR_DIV FLOOR_MOD of two broadcast tensors.

Here: what the operators have in common, floats, complex numbers and integers without quantisation. Quantised
arithmetic is in binary_quantised.py, quotients and powers in division.py and power.py.
"""
from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import device
from litejit.compiler.lazy import Device
from litejit.ops import binary_quantised as quantised
from litejit.ops.arithmetic import activation, float_range, integer_range
from litejit.ops.base import Operator, Step, Target
from litejit.ops.broadcast import (
    GRAIN,
    Kernels,
    broadcast_kernels,
    broadcast_rows,
    broadcast_steps,
    layout,
    prepare_broadcast,
)
from litejit.ops.division import checked_step, floor_div_f32, floor_div_int, floor_mod_f32, floor_mod_int, trunc_div_int
from litejit.ops.power import one_exponent_step, power_f32, power_int
from litejit.ops.simd.one_number import FORMULAS, one_number
from litejit.ops.streams import LOAD, STORE, inlined
from litejit.planner.graph import Node

FLOATS = ("f32", "f16", "bf16")
CLAMPED_FLOAT = layout(("low", "f4"), ("high", "f4"))
CLAMPED_INTEGER = layout(("low", "i8"), ("high", "i8"))
PLAIN = layout()
DELEGATED_ACTIVATIONS = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
_NARROW = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "i32": np.int32, "u32": np.uint32, "i64": np.int64}
_FOLDED = ("f32", "i32", "i64")
HEAVY = GRAIN // 8


class Binary(Operator):
    """An operator of two inputs of one type that broadcast.

    types: what the node may have; delegated: what XNNPACK takes; floats, whole: formulas of float32 and of integers;
    numpy: the same in NumPy, to fold constants; integers: (node) -> quantised steps, for the types `scaled`;
    refuses: what the second operand must not be (see division.py): "zero", "negative".
    """

    errors = {
        1: "Division by 0", 2: "POW does not support negative value for int32.",
        3: "data[i] != zero_point was not true."}

    def __init__(self, name: str, types: tuple[str, ...], floats: Device | None, whole: Device | None, *,
                 delegated: tuple[str, ...] = (), scaled: tuple[str, ...] = (),
                 integers: Callable[[Node, str], list[Step]] | None = None,
                 numpy: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None, clamps: bool = True,
                 refuses: str = "", grain: int = GRAIN) -> None:
        self.name, self.accepted, self.floats, self.whole = name, types, floats, whole
        self.delegated, self.scaled, self.integers, self.numpy = delegated, scaled, integers, numpy
        self.clamps, self.refuses, self.grain = clamps, refuses, grain

    def delegates(self, node: Node) -> bool:
        if node[0].type not in self.delegated or activation(node) not in DELEGATED_ACTIVATIONS:
            return False
        return not self.rescales(node) or quantised.delegates(node, self.name)

    def rescales(self, node: Node) -> bool:
        """Whether the node works on quantised codes with scales."""
        type = node[0].type
        return type in self.scaled and (type != "i16" or any(v.quantised for v in (node[0], node[1], node.out)))

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        a, b, out = node[0], node[1], node.out
        node.same_type(a, b)
        node.types(a, *self.accepted)
        if self.name != "MUL" or a.type != "i16" or out.type not in ("i8", "u8"):
            node.check(out.type == a.type, f"output->type != input->type: {a!r}, {out!r}")
        if self.rescales(node):
            quantised.check(node, self.name)
        return [prepare_broadcast(node, a, b)]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        a, b = node[0].data, node[1].data
        if self.numpy is None or a is None or b is None or node[0].type not in _FOLDED:
            return None
        if self.refuses and ((b == 0) if self.refuses == "zero" else (b < 0)).any():
            return None
        result = self.numpy(a, b)
        if not self.clamps:
            return [result]
        low, high = self.bounds(node)
        return [np.where(result < low, a.dtype.type(low), np.where(result > high, a.dtype.type(high), result))]

    def bounds(self, node: Node) -> tuple[Any, Any]:
        """What the result is clamped to, where it is not quantised."""
        type = node[0].type
        if type in FLOATS:
            return float_range(activation(node), node.xnn) if self.clamps else (-math.inf, math.inf)
        bits = 8 * node[0].itemsize
        return integer_range(activation(node) if self.clamps else "NONE", bits, type[0] == "i")

    def in_place(self, node: Node) -> tuple[int, ...]:
        return same_places(node)

    def takes_unsigned(self, node: Node, target: Target) -> bool:
        values = (node[0], node[1], node.out)
        alike = all(v.type == "i8" and v.data is None and v.dims == node.out.dims for v in values)
        return self.name in ("ADD", "SUB") and node.xnn and alike

    def steps(self, node: Node, target: Target) -> list[Step]:
        if self.rescales(node):
            return self.integers(node, self.name)  # type: ignore[misc]
        type = node[0].type
        checks = checked_step(node, self.refuses, 1 if self.refuses == "zero" else 2) if self.checks(type) else []
        if type == "c64":
            return broadcast_steps(node, complex_kernels(), {})
        formula = self.floats if type in FLOATS else self.whole
        low, high = self.bounds(node)
        return [*checks, *broadcast_steps(node, plain_kernels(self.name, type, formula), {"low": low, "high": high},
                                        grain=self.grain)]

    def checks(self, type: str) -> bool:
        """Whether the second operand is looked at before (floats divide by zero, but not in FLOOR_DIV)."""
        return bool(self.refuses) and (type not in FLOATS or self.name == "FLOOR_DIV")


class Power(Binary):
    """POW; squares of floats, the most common case, are products."""

    def steps(self, node: Node, target: Target) -> list[Step]:
        exponent = node[1].data
        if node[0].type == "i32" and node[1].size == 1:
            return [*checked_step(node, self.refuses, 2), one_exponent_step(node)]
        if node[0].type == "f32" and exponent is not None and exponent.size == 1 and exponent.reshape(-1)[0] == 2:
            low, high = self.bounds(node)
            return broadcast_steps(node, plain_kernels("MUL", "f32", mul), {"low": low, "high": high},
                                   (node[0], node[0]))
        return super().steps(node, target)


def same_places(node: Node) -> tuple[int, ...]:
    """Inputs that are read exactly where the output is written: same shape, same bytes per element."""
    out = node.out
    return tuple(i for i, v in enumerate(node.inputs)
                 if v is not None and v.itemsize == out.itemsize and v.shape == out.shape)


# ---- kernels ---------------------------------------------------------------------------------------

@device
def float_bounds(p):
    return p.low, p.high


@device
def no_constants(p):
    return 0


@functools.cache
def plain_kernels(name: str, type: str, formula: Device) -> Kernels:
    """clamp(formula(a, b)) on floats (computed in float32) or integers (the low bits of the result)."""
    label = f"{name.lower()}_{type}"
    if type in FLOATS:
        @device
        def clamped_float(k, x, y):
            return min(max(formula(x, y), k[0]), k[1])
        if type == "f32" and name in FORMULAS:
            return rows_kernels(name, clamped_float)
        return broadcast_kernels(label, CLAMPED_FLOAT, LOAD[type], STORE[type], float_bounds, clamped_float)
    narrow = _NARROW[type]

    @device
    def integer_bounds(p):
        return narrow(p.low), narrow(p.high)

    @device
    def clamped_integer(k, x, y):
        return min(max(narrow(formula(x, y)), k[0]), k[1])
    return broadcast_kernels(label, CLAMPED_INTEGER, LOAD[type], STORE[type], integer_bounds, clamped_integer)


def rows_kernels(name: str, formula: Device) -> Kernels:
    """The same of float32; rows with one number for an operand are generated vectors."""
    load, store = LOAD["f32"], STORE["f32"]
    by_one, of_one, clamped = one_number(name, False), one_number(name, True), inlined(formula)

    @device
    def run(p, at, ia, ib, rows, n):
        y, a, b, a1, b1, low, high = p.y, p.a, p.b, p.a1, p.b1, p.low, p.high
        if p.b0 == 0:
            by_one(a + 4 * ia, a1, b + 4 * ib, b1, y + 4 * at, rows, n, low, high)
        elif p.a0 == 0:
            of_one(b + 4 * ib, b1, a + 4 * ia, a1, y + 4 * at, rows, n, low, high)
        else:
            for r in range(rows):
                to, left, right = at + r * n, ia + r * a1, ib + r * b1
                for i in range(n):
                    store(y, to + i, clamped((low, high), load(a, left + i), load(b, right + i)))
    flat = broadcast_kernels(f"{name.lower()}_f32", CLAMPED_FLOAT, load, store, float_bounds, formula).flat
    return Kernels(flat, broadcast_rows(f"{name.lower()}_f32_rows", CLAMPED_FLOAT, run), narrow=32)


@functools.cache
def complex_kernels() -> Kernels:
    """Products of complex numbers of two float32."""
    load, store = LOAD["f32"], STORE["f32"]

    @device
    def load_c64(base, i):
        return load(base, 2 * i), load(base, 2 * i + 1)

    @device
    def store_c64(base, i, z):
        store(base, 2 * i, z[0])
        store(base, 2 * i + 1, z[1])

    @device
    def product(k, x, y):
        return x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]
    return broadcast_kernels("mul_c64", PLAIN, load_c64, store_c64, no_constants, product)


@device
def add(x, y):
    return x + y


@device
def sub(x, y):
    return x - y


@device
def mul(x, y):
    return x * y


@device
def div(x, y):
    return x / y


@device
def maximum(x, y):
    """The larger one; the second where either is NaN."""
    return x if x > y else y


@device
def minimum(x, y):
    """The smaller one; the second where either is NaN."""
    return x if x < y else y


@device
def squared_difference(x, y):
    return (x - y) * (x - y)


def _trunc_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    quotient: np.ndarray = a / b
    return quotient if a.dtype.kind == "f" else np.trunc(quotient).astype(np.int64).astype(a.dtype)


def _floor_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    quotient: np.ndarray = np.floor(a.astype(np.float64) / b) if a.dtype.kind == "f" else a // b
    return quotient.astype(a.dtype)


_F = ("f32", "f16")
_SCALED = ("i8", "u8", "i16")
_ORDERED = ("f32", "f16", "bf16", "i8", "u8", "i16", "i32", "i64")

OPERATORS: dict[str, Operator] = {op.name: op for op in (
    Binary("ADD", (*_F, *_SCALED, "i32", "i64"), add, add, delegated=(*_F, "i8", "u8"), scaled=_SCALED,
           integers=quantised.sum_steps, numpy=np.add),
    Binary("SUB", (*_F, *_SCALED, "i32", "i64"), sub, sub, delegated=(*_F, "i8", "u8"), scaled=_SCALED,
           integers=quantised.sum_steps, numpy=np.subtract),
    Binary("MUL", (*_F, *_SCALED, "i32", "u32", "i64", "c64"), mul, mul, delegated=(*_F, "i8", "u8"), scaled=_SCALED,
           integers=quantised.product_steps, numpy=np.multiply),
    Binary("DIV", (*_F, *_SCALED, "i32"), div, trunc_div_int, delegated=_F, scaled=_SCALED,
           integers=quantised.quotient_steps, numpy=_trunc_div, refuses="zero"),
    Binary("MAXIMUM", _ORDERED, maximum, maximum, delegated=_F, numpy=lambda a, b: np.where(a > b, a, b), clamps=False),
    Binary("MINIMUM", _ORDERED, minimum, minimum, delegated=_F, numpy=lambda a, b: np.where(a < b, a, b), clamps=False),
    Binary("SQUARED_DIFFERENCE", (*_F, "i8", "i32"), squared_difference, squared_difference, delegated=_F,
           scaled=("i8",), integers=quantised.squared_difference_steps, numpy=lambda a, b: (a - b) * (a - b),
           clamps=False),
    Power("POW", ("f32", "i32"), power_f32, power_int, clamps=False, refuses="negative", grain=HEAVY),
    Binary("FLOOR_DIV", ("f32", "i8", "i16", "i32"), floor_div_f32, floor_div_int, numpy=_floor_div, clamps=False,
           refuses="zero"),
    Binary("FLOOR_MOD", ("f32", "i8", "i16", "i32", "i64"), floor_mod_f32, floor_mod_int, clamps=False,
           refuses="zero", grain=HEAVY),
)}
