"""ABS, NEG, EXP, LOG, SQRT, RSQRT, SQUARE, SIN, COS, FLOOR, CEIL, ROUND, SIGN."""
from __future__ import annotations

import functools

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import abs_f32, bits_f32, ceil_f32, floor_f32, rint_f32, sqrt_f32
from litejit.ops.arithmetic import quantize_multiplier, srdhm
from litejit.ops.base import Operator, Packed, Step, Target
from litejit.ops.elementwise import Elementwise, map_step
from litejit.ops.streams import LOAD, STORE
from litejit.ops.tables import by_function, by_interpolation, check_codes, f32, lookup_steps, mbqm, to_codes
from litejit.ops.vector_math import (
    NAN,
    ONE,
    TRIG_LIMIT,
    ZERO,
    cos_f32,
    exp_f32,
    log_f32,
    rsqrt_f32,
    sin_f32,
    sin_large,
    trig_table,
)
from litejit.planner.graph import QUANTISED, Node

TRIG = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8"), ("block", "i8"), ("table", "i8")], align=True)
NEGATIVE = "only defined for positive values"


class Absolute(Elementwise):
    """ABS: int16 without quantisation is plain."""

    def tabulated(self, node: Node) -> bool:
        return node[0].type in QUANTISED and node[0].quantised

    def check(self, node: Node) -> None:
        if node[0].type == "i8" or self.tabulated(node):
            check_codes(node, node[0], node.out)


class Root(Elementwise):
    """SQRT, RSQRT: negative codes are an error while running."""

    errors = {1: NEGATIVE}

    def fold(self, node: Node) -> list[np.ndarray] | None:
        return None if node[0].type in QUANTISED else super().fold(node)

    def steps(self, node: Node, target: Target) -> list[Step]:
        if not self.tabulated(node):
            return super().steps(node, target)
        return lookup_steps(node, self.table, least=node[0].zero_point)


class Trigonometric(Elementwise):
    """SIN, COS: exact also where the argument is large."""

    def steps(self, node: Node, target: Target) -> list[Step]:
        table = Packed(("trig table",), trig_table)
        return [map_step(node, trig_map(self.name, node[0].type), node[0], node.out, table=table)]


# ---- tables ----------------------------------------------------------------------------------------

def abs_codes(node: Node, q: np.ndarray) -> np.ndarray:
    """|real value|, rescaled where the scales differ."""
    x, y = node[0], node.out
    v = np.abs(q - x.zero_point)
    if x.scale != y.scale:
        v = mbqm(v, *quantize_multiplier(float(x.scale / y.scale)))
    return to_codes(v + y.zero_point, y)


def exp_codes(node: Node, q: np.ndarray) -> np.ndarray:
    return _by_type(node, q, lambda v: np.exp(v.astype(np.float64)).astype(f32))


def log_codes(node: Node, q: np.ndarray) -> np.ndarray:
    """Logarithm; numbers without one give the lowest code."""
    lowest = f32(node.out.scale * f32((-128 if node.out.type == "i8" else -32768) - node.out.zero_point))
    return _by_type(node, q, lambda v: np.where(v > 0, np.log(np.maximum(v, f32(1e-45)).astype(np.float64)), lowest
                                                ).astype(f32))


def sqrt_codes(node: Node, q: np.ndarray) -> np.ndarray:
    """Square root in float32, truncated."""
    x, y = node[0], node.out
    root = np.sqrt(np.maximum(x.scale * (q - x.zero_point).astype(f32), f32(0)))
    return to_codes(np.trunc(root / y.scale).astype(np.int64) + y.zero_point, y)


def rsqrt_codes(node: Node, q: np.ndarray) -> np.ndarray:
    """1 / sqrt in fixed point (int8) or by interpolation (int16); 0 gives the highest code."""
    x, y = node[0], node.out
    if x.type == "i16":
        highest = f32(y.scale * f32(32767 - y.zero_point))
        return by_interpolation(node, q, lambda v: np.where(
            v > 0, f32(1) / np.sqrt(np.maximum(v, f32(1e-38))), highest).astype(f32))
    multiplier, shift = quantize_multiplier(1.0 / float(np.sqrt(x.scale) * y.scale))
    made = np.full(q.shape, 127, np.int64)
    for v in range(1, 128 - x.zero_point):
        inverse, inverse_shift = inverse_square_root(v)
        digit = mbqm(np.array(1), inverse, inverse_shift + 20)
        made[q == v + x.zero_point] = mbqm(digit, multiplier, shift - 20) + y.zero_point
    return to_codes(made, y)


def _by_type(node: Node, q: np.ndarray, function) -> np.ndarray:  # type: ignore[no-untyped-def]
    return (by_interpolation if node[0].type == "i16" else by_function)(node, q, function)


@device
def inverse_square_root(v):
    """1 / sqrt(v) of an integer v >= 0 as (multiplier, shift), by five Newton steps in Q3.28."""
    if v <= 1:
        return 2147483647, 0
    right = 11
    while v >= 1 << 29:
        v //= 4
        right += 1
    while v < 1 << 27:
        v <<= 2
        right -= 1
    half = (v >> 1) + 1 >> 1
    x = 1 << 28
    for _ in range(5):
        cube = min(srdhm(srdhm(x, x), x) << 6, 2147483647)
        x = min((srdhm((1 << 28) + (1 << 27), x) - srdhm(half, cube)) << 3, 2147483647)
    x = srdhm(x, 1518500250)
    if right < 0:
        x <<= -right
        right = 0
    return x, -right


# ---- formulas --------------------------------------------------------------------------------------

@device
def negative(x):
    return -x


@device
def absolute(x):
    return -x if x < 0 else x


@device
def square(x):
    return x * x


@device
def sign_f32(x):
    """-1, 0, 1; NaN stays NaN."""
    y = ONE if x > ZERO else ZERO
    y = -ONE if x < ZERO else y
    return NAN if x != x else y


@device
def sign(x):
    return x if x != x else (1 if x > 0 else 0) - (1 if x < 0 else 0)


@functools.cache
def trig_map(name: str, type: str) -> Kernel:
    """sin or cos of the elements; blocks that hold a large argument take the exact reduction."""
    load, store = LOAD[type], STORE[type]
    formula, turn = (cos_f32, 1) if name == "cos" else (sin_f32, 0)
    limit = int(np.float32(TRIG_LIMIT).view(np.int32))

    @kernel(TRIG, name=f"map_{name}_{type}")
    def run(p, begin, end):
        x, y, n, block, table = p.x, p.y, p.n, p.block, p.table
        for c in prange(begin, end):
            first, last = c * block, min(n, (c + 1) * block)
            most = np.int32(0)
            for i in range(first, last):
                most = max(most, bits_f32(abs_f32(load(x, i))))
            if most <= limit:
                for i in range(first, last):
                    store(y, i, formula(load(x, i)))
            else:
                for i in range(first, last):
                    store(y, i, sin_large(load(x, i), turn, table))
        return 0
    return run


_QUANTISED = ("i8", "i16")
_WIDE = ("f32", "f16", "bf16")
OPERATORS: dict[str, Operator] = {
    "ABS": Absolute("abs", ("f32", "f16", "i8", "i16", "i32"), abs_f32, table=abs_codes, whole=absolute, numpy=np.abs),
    "NEG": Elementwise("neg", (*_WIDE, "i8", "i16", "i32", "i64"), negative, whole=negative, numpy=np.negative),
    "EXP": Elementwise("exp", ("f32", "f16", *_QUANTISED), exp_f32, table=exp_codes, numpy=np.exp),
    "LOG": Elementwise("log", ("f32", "f16", *_QUANTISED), log_f32, table=log_codes, numpy=np.log),
    "SQRT": Root("sqrt", ("f32", "f16", *_QUANTISED), sqrt_f32, table=sqrt_codes, numpy=np.sqrt),
    "RSQRT": Root("rsqrt", ("f32", "f16", *_QUANTISED), rsqrt_f32, table=rsqrt_codes,
                  numpy=lambda x: np.float32(1) / np.sqrt(x)),
    "SQUARE": Elementwise("square", ("f32", "f16"), square, numpy=np.square),
    "SIN": Trigonometric("sin", ("f32", "f16"), numpy=np.sin),
    "COS": Trigonometric("cos", ("f32", "f16"), numpy=np.cos),
    "FLOOR": Elementwise("floor", _WIDE, floor_f32, numpy=np.floor),
    "CEIL": Elementwise("ceil", ("f32", "f16"), ceil_f32, numpy=np.ceil),
    "ROUND": Elementwise("round", _WIDE, rint_f32, numpy=np.rint),
    "SIGN": Elementwise("sign", ("f32", "f64", "i32"), sign_f32, whole=sign, numpy=np.sign, delegated=()),
}
