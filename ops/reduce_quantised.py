"""Quantised sums, means and products: exact sums rescaled in one of three ways, products rescaled step by step.

The ways: the reference kernels' fixed point, XNNPACK's float32 rounded to even, and the float32 rounded away from zero
of LiteRT's optimised SUM. The last one stands in for the reference SUM of int16, which is garbage there, and outside of
mode "ref" of int8, which handles its bytes as unsigned.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import STORE, load_i32, rint_f32, store_i32
from litejit.ops import streams
from litejit.ops.arithmetic import (
    mbqm,
    mbqm64,
    quantize_multiplier,
    round_away_f32,
    round_half_away,
    saturate,
    short_multiplier,
    wrap32,
)
from litejit.ops.base import Step
from litejit.ops.reduce_loops import LOOP, Geometry, columns, columns_params, rows_params, runs, strided
from litejit.ops.simd import reductions
from litejit.planner.graph import Q_RANGE, Node, Value

FIXED, EVEN, AWAY = 0, 1, 2           # ways to rescale
MOST_SHORTS = 1 << 16                 # int16 codes whose sum fits 32 bits
CODES = np.dtype([*LOOP, ("how", "i8"), ("offset", "i8"), ("multiplier", "i8"), ("shift", "i8"), ("zero", "i8"),
                  ("low", "i8"), ("high", "i8"), ("scale", "f4"), ("bias", "f4"), ("least", "f4"), ("most", "f4")],
                 align=True)


def quantised_step(node: Node, what: str, shape: Geometry, reference: bool) -> Step:
    """The step of a "sum", "mean" or "prod" of an i8, u8 or i16 tensor; `reference`: LiteRT's reference kernels."""
    x, out = node[0], node.out
    type = x.type
    if what == "sum" and type == "i8" and reference:
        type = "u8"                   # their SUM takes the bytes of int8 for uint8, in and out
    if what == "prod":
        params, kernel = _product(x, out, shape.depth), product_kernel(type)
    else:
        params = _rescaling(node, what, shape.depth, type, reference)
        strided = type == "i16" and (shape.columns or shape.depth > MOST_SHORTS)
        kernel = sum_kernel(type, "strided" if strided else "columns" if shape.columns else "runs")
    params["low"], params["high"] = Q_RANGE[type]
    params["least"], params["most"] = (float(v) for v in Q_RANGE[type])
    if what != "prod" and type != "i16" and shape.columns:
        fields, chunks = columns_params(shape, 0, "uint8")
    else:
        fields, chunks = rows_params(shape)
    return Step(node, kernel, {"x": x, "y": out, **fields, **params}, chunks)


def _parameters(value: Value) -> tuple[np.float32, int]:
    return (value.scale, value.zero_point) if value.quantised else (np.float32(1), 0)


def _rescaling(node: Node, what: str, n: int, type: str, reference: bool) -> dict[str, Any]:
    """Fields of CODES for a sum or mean of n elements."""
    (si, zi), (so, zo) = _parameters(node[0]), _parameters(node.out)
    params: dict[str, Any] = {"how": FIXED, "offset": -zi * n, "multiplier": 0, "shift": 0, "zero": zo, "scale": 0.0,
                              "bias": 0.0}
    with np.errstate(all="ignore"):
        ratio = np.float32(si) / np.float32(so)
        if n == 0:                    # nothing to add: kernels leave code 0, but for the optimised SUM
            params["zero"] = zo if what == "sum" and not reference else 0
        elif node.xnn:
            scale = ratio if what == "sum" else ratio * (np.float32(1) / np.float32(n))
            params.update(how=EVEN, scale=float(scale), bias=float(np.float32(zo) - np.float32(n * zi) * scale))
        elif what == "sum" and (type == "i16" or type == "i8"):
            params.update(how=AWAY, scale=float(ratio), bias=float(np.float32(-zi) * ratio * np.float32(n)))
        else:
            multiplier, shift = quantize_multiplier(float(si) / float(so))
            if what == "mean":
                k = min(n.bit_length() - 1, 32, 31 + shift)
                multiplier, shift = (multiplier << k) // n, shift - k
            params.update(multiplier=multiplier, shift=shift)
    return params


def _product(x: Value, out: Value, n: int) -> dict[str, Any]:
    """Fields of CODES for a product of n elements; `offset` is the input's zero point, `how` the code of 1.0."""
    (si, zi), (so, zo) = _parameters(x), _parameters(out)
    low, high = Q_RANGE[out.type]
    one = min(max(zo + round_half_away(min(1 / max(float(so), 1e-9), 1e9)), low), high)
    multiplier, shift = quantize_multiplier(float(si) / float(so) ** (1.0 / max(n, 1)))
    return {"how": one, "offset": zi, "multiplier": multiplier, "shift": shift, "zero": zo, "scale": 0.0, "bias": 0.0}


# ---- kernels ---------------------------------------------------------------------------------------

NOTHING = np.int64(1 << 40)           # accumulator of a product before its first element
ZERO, BOUND = np.int64(0), np.float32(1e9)
NARROW: dict[str, Any] = {"i8": np.int8, "u8": np.uint8, "i16": np.int16}


@device
def fixed(total, offset, multiplier, shift, zero, low, high):
    """Code of a sum, in fixed point."""
    return saturate(mbqm(wrap32(total + offset), multiplier, shift) + zero, low, high)


@device
def even(total, scale, bias, least, most):
    """Code of a sum, in float32 rounded to even."""
    value = np.float32(total) * scale + bias
    value = value if value > least else least
    return np.int32(rint_f32(value if value < most else most))


@device
def away(total, scale, bias, zero, low, high):
    """Code of a sum, in float32 rounded away from zero."""
    value = np.float32(total) * scale + bias
    value = BOUND if value > BOUND else value
    return saturate(round_away_f32(-BOUND if value < -BOUND else value) + zero, low, high)


@device
def add(acc, x):
    return np.int32(acc + x)


@device
def add_wide(p, acc, x):
    return acc + x


@device
def times(p, acc, x):
    """mbqm64(acc * (x - offset)); few of the operations wait for the element before."""
    value = x - p.offset
    factor = value * short_multiplier(p.multiplier)
    return value if acc == NOTHING else np.int64(np.int32((acc * factor + (1 << (14 - p.shift))) >> (15 - p.shift)))


@cache
def sum_kernel(type: str, walk: str) -> Kernel:
    """The kernel of sums and means over "columns", "runs", or "strided" elements."""
    store, narrow = streams.STORE[type], NARROW[type]
    name = f"reduce_codes_{type}_{walk}"
    if walk == "strided":
        @device
        def finish(p, u, acc):
            if p.how == EVEN:
                store(p.y, u, narrow(even(acc, p.scale, p.bias, p.least, p.most)))
            elif p.how == AWAY:
                store(p.y, u, narrow(away(acc, p.scale, p.bias, p.zero, p.low, p.high)))
            else:
                store(p.y, u, narrow(fixed(acc, p.offset, p.multiplier, p.shift, p.zero, p.low, p.high)))
        return strided(name, CODES, streams.LOAD[type], "i64", ZERO, add_wide, finish)

    @device
    def finish_all(p, acc, to, n):
        y, scale, bias, zero, low, high = p.y, p.scale, p.bias, p.zero, p.low, p.high
        if p.how == EVEN:
            least, most = p.least, p.most
            for i in range(n):
                store(y, to + i, narrow(even(load_i32(acc, i), scale, bias, least, most)))
        elif p.how == FIXED:
            offset, multiplier, shift = p.offset, p.multiplier, p.shift
            for i in range(n):
                store(y, to + i, narrow(fixed(load_i32(acc, i), offset, multiplier, shift, zero, low, high)))
        else:
            for i in range(n):
                store(y, to + i, narrow(away(load_i32(acc, i), scale, bias, zero, low, high)))
    if walk == "columns":
        return columns(name, CODES, 1, 4, reductions.columns("sum", type), load_i32, store_i32, add, finish_all)
    size = reductions.RUN_SIZE[type]
    return runs(name, CODES, size, 4, reductions.runs("sum", type), load_i32, store_i32, np.int32(0), add, finish_all)


@cache
def product_kernel(type: str) -> Kernel:
    """The kernel of products."""
    store, narrow = STORE[type], NARROW[type]

    @device
    def finish(p, u, acc):
        code = saturate(wrap32(mbqm64(wrap32(acc), p.multiplier, p.shift) + p.zero), p.low, p.high)
        store(p.y, u, narrow(p.how if acc == NOTHING else code))
    return strided(f"reduce_prod_codes_{type}", CODES, streams.LOAD[type], "i64", NOTHING, times, finish)
