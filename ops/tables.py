"""Quantised operators of one input as tables: every code's result is computed once, while planning, in NumPy.

A table is indexed by the bits of a code (int8 -1 is entry 255), so one kernel per size of element serves all
operators: 256 entries for 8 bits, 65,536 for 16 bits. The functions that fill tables are the formulas of LiteRT's
reference kernels and of XNNPACK, element by element.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.ops.base import Packed, Step, chunked
from litejit.ops.simd.lookup import lookup8
from litejit.ops.streams import LOAD, STORE
from litejit.planner.graph import Q_RANGE, Node, PrepareError, Value

LOOKUP = np.dtype([("x", "i8"), ("y", "i8"), ("table", "i8"), ("n", "i8"), ("block", "i8"),
                   ("least", "i8")], align=True)
GRAIN = 32768
f32 = np.float32
Fill = Callable[[Node, np.ndarray], np.ndarray]


def check_codes(node: Node, *values: Value) -> None:
    """Refuse the node unless the values have one usable scale and zero point each."""
    for value in values:
        if not value.quantised or value.per_channel:
            node.fail(f"{value!r} needs quantization parameters for the whole tensor "
                      "(quantization.type != kTfLiteAffineQuantization)")
        if not 0 < float(value.scale) < np.inf or abs(value.zero_point) >= 1 << 31:
            node.fail(f"{value!r} has no usable quantization: scale {value.scale}, zero point {value.zero_point}")


# ---- filling ---------------------------------------------------------------------------------------

def codes(value: Value) -> np.ndarray:
    """All codes of a quantised type in the order of their bits, int64."""
    bits = 8 * value.itemsize
    every = np.arange(1 << bits, dtype=f"u{value.itemsize}")
    return every.view(value.dtype).astype(np.int64)


def to_codes(numbers: np.ndarray, value: Value) -> np.ndarray:
    """Integral numbers (floats or integers) saturated to the value's type."""
    low, high = Q_RANGE[value.type]
    return np.clip(np.nan_to_num(numbers, nan=0.0), low, high).astype(value.dtype)


def round_away(x: np.ndarray) -> np.ndarray:
    """Nearest integers of floats, halves away from zero, in the floats' own type."""
    whole = np.trunc(x)
    return np.where(np.isfinite(x), whole + np.where(np.abs(x - whole) >= 0.5, np.sign(x), 0), x).astype(x.dtype)


def by_function(node: Node, q: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Codes of function(real value of q), in float32: with XNNPACK's rounding or the reference kernels'."""
    x, y = node[0], node.out
    inverse, zero = f32(1) / y.scale, f32(y.zero_point)
    if node.xnn:
        real = (q.astype(f32) - f32(x.zero_point)) * x.scale
        return to_codes(np.rint(function(real) * inverse + zero), y)
    real = x.scale * (q - x.zero_point).astype(f32)
    return to_codes(np.trunc(round_away(function(real) * inverse) + zero), y)


def by_interpolation(node: Node, q: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """int16 codes of a function that LiteRT interpolates between 513 points, float32."""
    x, y = node[0], node.out
    points = interpolation_points(x.scale, x.zero_point, y.scale, y.zero_point, function, f32)
    return interpolate(q, points).astype(np.int16)


def interpolation_points(in_scale: Any, in_zero: int, out_scale: Any, out_zero: int,
                         function: Callable[[np.ndarray], np.ndarray], T: Any) -> np.ndarray:
    """513 samples of a function over the int16 codes of its argument, corrected by half the error between samples."""
    first, last = T(in_scale) * T(-32768 - in_zero), T(in_scale) * T(32767 - in_zero)
    out_first, out_last = T(out_scale) * T(-32768 - out_zero), T(out_scale) * T(32767 - out_zero)
    step = (last - first) / T(512)
    inverse = T(65536) / (out_last - out_first)
    i = np.arange(512).astype(T)
    here, between, after = (function(v) for v in (first + i * step, first + i * step + step / T(2),
                                                  first + (i + T(1)) * step))
    sample = round_away(here * inverse)
    error = round_away((after * inverse + sample) / T(2)) - round_away(between * inverse)
    points = np.append(sample - round_away(error / T(2)), round_away(function(np.array([last], T)) * inverse))
    return np.clip(np.nan_to_num(points, nan=0.0), -32768, 32767).astype(np.int64)


def interpolate(q: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Codes between the points of `interpolation_points`, with int16 arithmetic."""
    i, offset = 256 + (q >> 7), q & 0x7F
    base = points[i]
    slope = (points[i + 1] - base).astype(np.int16).astype(np.int64)
    return (base + ((slope * offset + 64) >> 7)).astype(np.int16).astype(np.int64)


# ---- fixed point in NumPy (see arithmetic.py for the meaning) -------------------------------------------

def srdhm(a: Any, b: Any) -> np.ndarray:
    return np.minimum((np.asarray(a, np.int64) * b + (1 << 30)) >> 31, (1 << 31) - 1)


def rdivpot(x: Any, exponent: int) -> np.ndarray:
    x = np.asarray(x, np.int64)
    half = (1 << exponent) >> 1
    return (x + half - ((x < 0) & (half != 0))) >> exponent


def mbqm(x: np.ndarray, multiplier: int, shift: int) -> np.ndarray:
    high = (x << max(shift, 0)).astype(np.int32).astype(np.int64) * multiplier + (1 << 30) >> 31
    return rdivpot(high, max(-shift, 0))


# ---- using -----------------------------------------------------------------------------------------

def table_of(node: Node, fill: Fill) -> np.ndarray:
    """The table of a node. Raises PrepareError where the scales are too far apart."""
    try:
        with np.errstate(all="ignore"):
            return np.ascontiguousarray(fill(node, codes(node[0])), node.out.dtype)
    except (OverflowError, ValueError, ZeroDivisionError) as error:
        raise PrepareError(f"{node.describe()}: quantization scales {node[0].scale} and {node.out.scale} are too far "
                           f"apart ({error})") from error


def fold_table(node: Node, fill: Fill) -> np.ndarray:
    """The output of a node whose input is constant."""
    data = np.ascontiguousarray(node.constant(0))
    return table_of(node, fill)[data.view(f"u{data.dtype.itemsize}")]


def lookup_steps(node: Node, fill: Fill, *key: Any, least: int | None = None) -> list[Step]:
    """The output as the table that `fill` makes; codes below `least` are error 1.

    key: what the contents depend on besides the operator, its options and the types and scales of the node.
    """
    x, y = node[0], node.out
    options = node.options
    settings = [str(getattr(options, name, None)) for name in ("alpha", "approximate")]
    name = ("table", node.op, *settings, x.type, float(x.scale), x.zero_point, y.type, float(y.scale),
            y.zero_point, *key)
    table = Packed(name, lambda: table_of(node, fill))
    chunks, block = chunked(y.size, GRAIN)
    run = lookup(x.itemsize, y.itemsize) if least is None else lookup_checked(x.type)
    return [Step(node, run, {"x": x, "y": y, "table": table, "n": y.size, "block": block, "least": least or 0}, chunks)]


@functools.cache
def lookup(source: int, target: int) -> Kernel:
    """The kernel y = table[bits of x] for elements of `source` and `target` bytes."""
    if source == target == 1:
        return lookup_bytes
    load, entry, store = LOAD[f"u{8 * source}"], LOAD[f"u{8 * target}"], STORE[f"u{8 * target}"]

    @kernel(LOOKUP, name=f"lookup_{8 * source}_{8 * target}")
    def run(p, begin, end):
        x, y, table, n, block = p.x, p.y, p.table, p.n, p.block
        for c in prange(begin, end):
            for i in range(c * block, min(n, (c + 1) * block)):
                store(y, i, entry(table, np.int64(load(x, i))))
        return 0
    return run


@kernel(LOOKUP, name="lookup_8_8")
def lookup_bytes(p, begin, end):
    for c in prange(begin, end):
        first = c * p.block
        lookup8(p.x + first, p.y + first, p.table, min(p.block, p.n - first))
    return 0


@functools.cache
def lookup_checked(type: str) -> Kernel:
    """`lookup` of signed codes that must not be below `least`."""
    bits = int(type[1:])
    signed, load, store = LOAD[type], LOAD[f"u{bits}"], STORE[f"u{bits}"]

    @kernel(LOOKUP, name=f"lookup_checked_{type}")
    def run(p, begin, end):
        x, y, table, n, block, least = p.x, p.y, p.table, p.n, p.block, p.least
        for c in prange(begin, end):
            for i in range(c * block, min(n, (c + 1) * block)):
                if signed(x, i) < least:
                    return 1 | i << 8
                store(y, i, load(table, np.int64(load(x, i))))
        return 0
    return run
