"""Exact integer matrix products of any layout: an accumulator for each output, then one of LiteRT's roundings.

y[b, m, n] = round(sum_k (x[b, m, k] - x_zero) * (w[b, n, k] - w_zero) + bias[n]). Types, strides and the rounding are
run-time parameters where they do not touch the inner loop, so few kernels serve FULLY_CONNECTED, BATCH_MATMUL and
TRANSPOSE_CONV in all their types. Products with constant int8 weights have faster kernels in ops/packed_product.py and
ops/product_16x8.py; here is what these leave: weights made while running, rare combinations.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import (
    fma_f32,
    load_f32,
    load_f64,
    load_i8,
    load_i16,
    load_i32,
    load_i64,
    load_u8,
    rint_f32,
    round_f64,
    store_f32,
    store_i8,
    store_i16,
    store_i32,
    store_i64,
)
from litejit.ops.arithmetic import mbqm, mbqm64, quantize_multiplier, saturate, wrap32
from litejit.ops.base import Packed, Step, chunked
from litejit.planner.graph import Node, Value

# how an accumulator becomes an output
XNN, DOUBLE, FIXED, FIXED64, RAW, HYBRID_XNN, HYBRID, HYBRID_SIGN = range(8)
OUTPUT_CODES = {"i8": 0, "u8": 0, "i16": 1, "i32": 2, "i64": 3, "f32": 4}
GRAIN = 1 << 17                       # multiply-accumulates worth a chunk

ROUNDING = [("table", "i8"), ("bias", "i8"), ("y", "i8"), ("rounding", "i8"), ("code", "i8"), ("y_zero", "i8"),
            ("low", "i8"), ("high", "i8"), ("least", "f4"), ("most", "f4")]
PRODUCT = np.dtype([*ROUNDING, ("x", "i8"), ("w", "i8"), ("terms", "i8"), ("offsets", "i8"), ("m", "i8"), ("n", "i8"),
                    ("k", "i8"), ("x_row", "i8"), ("x_step", "i8"), ("w_column", "i8"), ("w_step", "i8"), ("x_zero", "i8"),
                    ("w_zero", "i8"), ("total", "i8"), ("block", "i8")], align=True)


class Rounding:
    """The output side of a product, as parameters of a kernel.

    kind: XNN (float32 scales), DOUBLE (float64 scales), FIXED or FIXED64 (multiplier and shift), RAW (the accumulator),
    HYBRID_XNN, HYBRID (float32 scales of the weights, float32 output, float32 bias); HYBRID_SIGN: HYBRID as LiteRT's
    SSE kernel has it, which turns the sign of x * -128 for negative x, but for the last k % 16 of a row;
    scales: one real number per column, or one for all; bounds: codes, or floats of a hybrid product.
    """

    __slots__ = ("bounds", "kind", "scales", "y_zero")

    def __init__(self, kind: int, scales: Any, y_zero: int, bounds: tuple[float, float]) -> None:
        self.kind, self.y_zero, self.bounds = kind, int(y_zero), bounds
        self.scales = np.atleast_1d(np.asarray(scales, np.float64))

    def table(self, columns: int) -> Packed:
        """Eight bytes per column: a float64, or int32 multiplier and shift."""
        kind, scales = self.kind, np.ascontiguousarray(np.broadcast_to(self.scales, (columns,)))

        def build() -> np.ndarray:
            if kind in (FIXED, FIXED64):
                return np.array([quantize_multiplier(s) for s in scales], np.int32)
            return scales
        return Packed(("rounding", kind in (FIXED, FIXED64), scales.tobytes()), build)

    def params(self, y: Value, columns: int, bias: Value | None) -> dict[str, Any]:
        """Fields of ROUNDING."""
        low, high = self.bounds
        real = self.kind >= HYBRID_XNN
        return {"table": self.table(columns), "bias": wide_bias(bias) if not real else bias, "y": y,
                "rounding": self.kind, "code": OUTPUT_CODES[y.type], "y_zero": self.y_zero,
                "low": 0 if real else low, "high": 0 if real else high,
                "least": low - (0 if real else self.y_zero), "most": high - (0 if real else self.y_zero)}


def wide_bias(bias: Value | None) -> Packed | None:
    """A constant integer bias as int64."""
    if bias is None:
        return None
    data = bias.data
    assert data is not None
    return Packed((bias.key, "int64"), lambda: np.asarray(data, np.int64))


@device
def rounded(acc, column, p):
    """The code of an accumulator that has its bias already."""
    if p.rounding == XNN:
        v = np.float32(np.int32(acc)) * np.float32(load_f64(p.table, column))
        v = min(max(v, p.least), p.most)
        return np.int64(rint_f32(v)) + p.y_zero
    if p.rounding == DOUBLE:
        v = round_f64(np.float64(acc) * load_f64(p.table, column)) + p.y_zero
        return np.int64(min(max(v, np.float64(p.low)), np.float64(p.high)))
    if p.rounding == RAW:
        return np.int64(acc)
    multiplier, shift = np.int64(load_i32(p.table, 2 * column)), np.int64(load_i32(p.table, 2 * column + 1))
    code = mbqm(wrap32(acc), multiplier, shift) if p.rounding == FIXED else mbqm64(acc, multiplier, shift)
    return saturate(code + p.y_zero, p.low, p.high)


@device
def store_code(p, i, code):
    """Write an integer output."""
    if p.code == 0:
        store_i8(p.y, i, np.int8(code))
    elif p.code == 1:
        store_i16(p.y, i, np.int16(code))
    elif p.code == 2:
        store_i32(p.y, i, np.int32(code))
    else:
        store_i64(p.y, i, code)


@device
def finish(acc, row, column, i, p):
    """Round an accumulator and write output i. Hybrid products take the row's scale from p.terms."""
    if p.rounding < HYBRID_XNN:
        if p.bias != 0:
            acc += load_i64(p.bias, column)
        store_code(p, i, rounded(acc if p.code != 0 else wrap32(acc), column, p))
    else:
        bias = load_f32(p.bias, column) if p.bias != 0 else np.float32(0)
        scale, weight = load_f32(p.terms, 2 * row + 1), np.float32(load_f64(p.table, column))
        x = np.float32(np.int32(acc))
        v = fma_f32(x * scale, weight, bias) if p.rounding == HYBRID_XNN else x * (scale * weight) + bias
        v = p.least if v < p.least else v
        store_f32(p.y, i, p.most if v > p.most else v)


# ---- inner products -----------------------------------------------------------------------------

def _dot(load_x: Any, load_w: Any, wide: bool) -> Any:
    """sum of (x - x_zero) * (w - w_zero) over k; `wide`: in 64 bits, else modulo 2**32."""
    @device
    def dot32(x, x_step, w, w_step, k, x_zero, w_zero):
        acc = np.int32(0)
        if x_step == 1 and w_step == 1:
            for i in range(k):
                a, b = np.int32(load_x(x, i) - x_zero), np.int32(load_w(w, i) - w_zero)
                acc = np.int32(acc + np.int32(a * b))
        else:
            for i in range(k):
                a, b = np.int32(load_x(x, i * x_step) - x_zero), np.int32(load_w(w, i * w_step) - w_zero)
                acc = np.int32(acc + np.int32(a * b))
        return np.int64(acc)

    @device
    def dot64(x, x_step, w, w_step, k, x_zero, w_zero):
        acc = np.int64(0)
        if x_step == 1 and w_step == 1:
            for i in range(k):
                acc += np.int64(np.int32(np.int32(load_x(x, i)) * np.int32(load_w(w, i))))
        else:
            for i in range(k):
                acc += np.int64(np.int32(load_x(x, i * x_step) * load_w(w, i * w_step)))
        return acc
    return dot64 if wide else dot32


@device
def turned_signs(x, w, k):
    """What LiteRT's SSE inner product adds to the true one: weights of -128 act with the wrong sign on negative x."""
    extra = np.int64(0)
    for i in range(k):
        if load_i8(w, i) == -128 and load_i8(x, i) < 0:
            extra += 256 * np.int64(load_i8(x, i))
    return extra


DOTS = {("i8", "i8"): _dot(load_i8, load_i8, False), ("u8", "u8"): _dot(load_u8, load_u8, False),
        ("i16", "i8"): _dot(load_i16, load_i8, True), ("i16", "i16"): _dot(load_i16, load_i16, True)}
SIZES = {"i8": 1, "u8": 1, "i4": 1, "i2": 1, "i16": 2, "f32": 4}


def _product(types: tuple[str, str]) -> Kernel:
    dot, x_size, w_size = DOTS[types], SIZES[types[0]], SIZES[types[1]]

    @kernel(PRODUCT, name="product_" + "_".join(types))
    def product(p, begin, end):
        m, n, step = p.m, p.n, max(p.x_row, 1)
        for c in prange(begin, end):
            first, stop = c * p.block, min(p.total, (c + 1) * p.block)
            while first < stop:
                row = first // n
                column, last = first - row * n, min(n, stop - row * n)
                batch = row // m
                place = load_i64(p.offsets, 2 * batch) + (row - batch * m) * p.x_row
                w = p.w + w_size * load_i64(p.offsets, 2 * batch + 1)
                zero = p.x_zero if p.rounding < HYBRID_XNN else np.int64(load_i32(p.terms, 2 * (place // step)))
                for j in range(column, last):
                    at = w + w_size * j * p.w_column
                    acc = dot(p.x + x_size * place, p.x_step, at, p.w_step, p.k, zero, p.w_zero)
                    if p.rounding == HYBRID_SIGN:
                        acc += turned_signs(p.x + place, at, p.k - p.k % 16)
                    finish(acc, place // step, j, row * n + j, p)
                first = row * n + last
        return 0
    return product


KERNELS = {types: _product(types) for types in DOTS}


class Layout:
    """Where the two sides of a product lie, in elements: x[b, m, k] at x_at[b] + m * x_row + k * x_step, likewise w."""

    __slots__ = ("k", "m", "n", "w_at", "w_column", "w_step", "x_at", "x_row", "x_step")

    def __init__(self, m: int, n: int, k: int, x_at: Sequence[int] = (0,), w_at: Sequence[int] = (0,), x_row: int = -1,
                 x_step: int = 1, w_column: int = -1, w_step: int = 1) -> None:
        self.m, self.n, self.k, self.x_at, self.w_at = m, n, k, tuple(x_at), tuple(w_at)
        self.x_row, self.w_column = k if x_row < 0 else x_row, k if w_column < 0 else w_column
        self.x_step, self.w_step = x_step, w_step

    def offsets(self) -> Packed:
        """int64 pairs (offset of x, offset of w), one per batch."""
        pairs = tuple(zip(self.x_at, self.w_at))
        return Packed(("offsets", pairs), lambda: np.array(pairs, np.int64))


def product_step(node: Node, x: Any, w: Value, y: Value, bias: Value | None, layout: Layout, rounding: Rounding,
                 x_zero: int = 0, w_zero: int = 0, x_type: str = "", terms: Any = None, w_place: Any = None) -> Step:
    """The step of a product; `x` may be a Scratch of type `x_type`, with the rows' terms where it was quantised. w_place: where
    w lies, if it was moved."""
    types = (x_type or x.type, w.type if w.type == "i16" or (x_type or x.type) == "u8" else "i8")
    total = len(layout.x_at) * layout.m * layout.n
    chunks, block = chunked(total, max(1, GRAIN // max(layout.k, 1)))
    params = {**rounding.params(y, layout.n, bias), "x": x, "w": w_place or w, "terms": terms, "offsets": layout.offsets(),
              "m": layout.m, "n": layout.n, "k": layout.k, "x_row": layout.x_row, "x_step": layout.x_step,
              "w_column": layout.w_column, "w_step": layout.w_step, "x_zero": x_zero, "w_zero": w_zero, "total": total,
              "block": block}
    return Step(node, KERNELS[types], params, chunks, macs=total * layout.k)
