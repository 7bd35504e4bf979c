"""SOFTMAX and LOG_SOFTMAX of codes, along the last axis, in LiteRT's reference fixed-point arithmetic.

A code differs from the largest of its row in at most 256 (65,536) ways, so exponentials are tables made while planning.
uint8 rows are int8 rows with the top bit flipped: one kernel per size of output does both.
"""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import bits_f32
from litejit.ops.arithmetic import (
    I32_MAX,
    I32_MIN,
    exp_on_negative,
    mbqm,
    one_over_one_plus_x,
    quantize_multiplier,
    rdivpot,
    saturate,
    srdhm,
    wrap32,
)
from litejit.ops.base import Packed, Step, chunked
from litejit.ops.streams import LOAD, STORE
from litejit.ops.tables import interpolate, interpolation_points
from litejit.ops.tables import mbqm as mbqm_of_codes
from litejit.planner.graph import Node

ROWS = np.dtype([
    ("x", "i8"), ("y", "i8"), ("rows", "i8"), ("depth", "i8"), ("block", "i8"), ("flip", "i8"), ("table", "i8"),
    ("inverses", "i8"), ("least", "i8"), ("multiplier", "i8"), ("shift", "i8")], align=True)
GRAIN = 8192
INTEGER_BITS = 26                     # differences are Q5.26


# ---- while planning --------------------------------------------------------------------------------

def _row_params(node: Node, **more: Any) -> tuple[dict[str, Any], int]:
    depth = node[0].dims[-1]
    rows = node[0].size // depth
    chunks, block = chunked(rows, max(1, GRAIN // depth))
    flip = 0x80 if node[0].type == "i8" else 0
    return {"x": node[0], "y": node.out, "rows": rows, "depth": depth, "block": block, "flip": flip, **more}, chunks


def input_multiplier(factor: float) -> tuple[int, int, int]:
    """(multiplier, shift, lowest difference that counts) of differences in steps of `factor`."""
    multiplier, shift = quantize_multiplier(min(factor * (1 << INTEGER_BITS), float((1 << 31) - 1)))
    shift = max(shift, 0)
    return multiplier, shift, -math.floor(31.0 * (1 << INTEGER_BITS) / (1 << shift))


def exponentials(factor: float) -> np.ndarray:
    """int32[2, 256]: exp(-d * factor) as fractions of 2**31, 0 beyond the lowest difference; -d * factor in Q5.26."""
    multiplier, shift, lowest = input_multiplier(factor)
    table = np.zeros((2, 256), np.int32)
    for d in range(256):
        if -d >= lowest:
            table[1, d] = srdhm(wrap32(-d << shift), multiplier)
            table[0, d] = exp_on_negative(int(table[1, d]), 5)
        else:
            table[1, d] = mbqm(-d, multiplier, shift)
    return table


def softmax_steps(node: Node, beta: float) -> list[Step]:
    """SOFTMAX of int8 or uint8."""
    factor = float(np.float32(beta)) * float(node[0].scale)
    table = Packed(("exponentials", factor), lambda: exponentials(factor))
    params, chunks = _row_params(node, table=table)
    return [Step(node, softmax_codes("i16" if node.out.type == "i16" else "u8"), params, chunks)]


def log_softmax_steps(node: Node) -> list[Step]:
    """LOG_SOFTMAX of int8 or uint8."""
    factor = float(node[0].scale)
    multiplier, shift, lowest = input_multiplier(factor)
    back, back_shift = quantize_multiplier((1 << (31 - shift)) / float(multiplier))
    table = Packed(("exponentials", factor), lambda: exponentials(factor))
    params, chunks = _row_params(node, table=table, least=lowest, multiplier=back, shift=back_shift)
    return [Step(node, log_softmax_codes, params, chunks)]


def softmax_int16_steps(node: Node, beta: float) -> list[Step]:
    """SOFTMAX of int16: exponentials and the reciprocal are interpolated between 513 points."""
    factor = float(np.float32(node[0].scale) * np.float32(beta)) / (10.0 / 65535.0)

    def falling() -> np.ndarray:
        points = interpolation_points(10.0 / 65535, 32767, 2.0 / 65535, 0, np.exp, np.float64)
        d = mbqm_of_codes(-np.arange(1 << 16), *quantize_multiplier(factor))
        return interpolate(np.clip(d + 32767, -32768, 32767), points).astype(np.int16)

    def inverses() -> np.ndarray:
        points = interpolation_points(1.0 / 65535, -32768, 2.0 / 65535, 0, lambda v: 1.0 / (1.0 + v), np.float64)
        return interpolate(np.arange(-32768, 32768), points).astype(np.int16)
    params, chunks = _row_params(node, table=Packed(("falling exponentials", factor), falling),
                                 inverses=Packed(("inverses of 1 + x",), inverses))
    return [Step(node, softmax_int16, params, chunks)]


# ---- kernels ---------------------------------------------------------------------------------------

_load_u8, _load_i16, _load_i32, _store_u8, _store_i16 = LOAD["u8"], LOAD["i16"], LOAD["i32"], STORE["u8"], STORE["i16"]


@device
def leading_zeros(v):
    """Of a positive number of 31 bits: the exponent of a float with v's top bit and none that carries into it."""
    return 158 - (np.int64(bits_f32(np.float32(v & ~(v >> 1)))) >> 23)


@device
def row_of_codes(x, first, last, flip, table):
    """(largest code, sum of the exponentials in Q12.19) of a row."""
    most = np.uint8(0)
    for i in range(first, last):
        most = max(most, np.uint8(_load_u8(x, i) ^ flip))
    total = np.int64(0)
    for i in range(first, last):
        e = _load_i32(table, np.int64(most) - np.int64(np.uint8(_load_u8(x, i) ^ flip)))
        total += (np.int64(e) + (1 << 11)) >> 12
    return np.int64(most), total


@functools.cache
def softmax_codes(target: str) -> Kernel:
    """8-bit rows to 8-bit codes (flipped like the input), or to int16."""
    store, bits, low = STORE[target], (16 if target == "i16" else 8), (-32768 if target == "i16" else 0)
    integer = np.int16 if target == "i16" else np.uint8
    most_code = (1 << bits) - 1

    @kernel(ROWS, name=f"softmax_codes_{target}")
    def run(p, begin, end):
        x, y, depth, table = p.x, p.y, p.depth, p.table
        flip = np.uint8(p.flip)
        for c in prange(begin, end):
            for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
                first, last = r * depth, (r + 1) * depth
                most, total = row_of_codes(x, first, last, flip, table)
                zeros = leading_zeros(total)
                inverse = one_over_one_plus_x((total << zeros) - (1 << 31))
                shift = 43 - zeros - bits
                for i in range(first, last):
                    e = np.int64(_load_i32(table, most - np.int64(np.uint8(_load_u8(x, i) ^ flip))))
                    share = min(((inverse * e + (1 << 30) >> 31) + (1 << shift - 1)) >> shift, most_code)
                    if bits == 16:
                        store(y, i, integer(share + low))
                    else:
                        store(y, i, integer(share ^ flip))
        return 0
    return run


@kernel(ROWS)
def softmax_int16(p, begin, end):
    """int16 rows to codes in steps of 1 / 32768."""
    x, y, depth, table = p.x, p.y, p.depth, p.table
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            first, last = r * depth, (r + 1) * depth
            most = np.int16(-32768)
            for i in range(first, last):
                most = max(most, _load_i16(x, i))
            total = np.int64(0)
            for i in range(first, last):
                total += np.int64(_load_i16(table, np.int64(most) - np.int64(_load_i16(x, i))))
            zeros = leading_zeros(total)
            excess = ((total << (zeros - 1)) + (1 << 13)) >> 14             # of the scaled sum over 1, plus 2^16
            inverse = np.int64(_load_i16(p.inverses, saturate(excess - (1 << 16) - (1 << 15), -32768, 32767) + 32768))
            shift = 31 - zeros
            for i in range(first, last):
                e = np.int64(_load_i16(table, np.int64(most) - np.int64(_load_i16(x, i))))
                _store_i16(y, i, np.int16(saturate((e * inverse + (1 << shift - 1)) >> shift, 0, 32767)))
    return 0


@device
def saturating_shift(v, left):
    return saturate(v << left, I32_MIN, I32_MAX)


@device
def log_of_sum(v):
    """log(v), v >= 1 in Q12.19, as Q5.26: a rational function around 2**-1/4 of the mantissa (gemmlowp).

    The mantissa is v's, or that of v * sqrt(1/2), whichever is nearer.
    """
    sqrt_half = 1518500250
    zeros = leading_zeros(v)
    mantissa = saturating_shift(srdhm(saturating_shift(v, zeros - 1), sqrt_half), 1)
    exponent = saturate(((12 - zeros) << 25) + (1 << 23), I32_MIN, I32_MAX)
    zeros = leading_zeros(srdhm(v, sqrt_half)) - 1
    exponent = max(exponent, saturate(((12 - zeros) << 25) - (1 << 23), I32_MIN, I32_MAX))
    mantissa = min(mantissa, saturating_shift(v, zeros))
    center = 1805811301
    total = mantissa + center
    middle = (total + 1) >> 1
    q = wrap32(2 * (mantissa - center))
    square = srdhm(q, q)
    numerator = wrap32(srdhm(q, mantissa) + srdhm(srdhm(q, square), 117049297))
    denominator = wrap32(srdhm(middle, wrap32(1057819769 + q + srdhm(127690142, square))) + srdhm(638450708, q))
    fraction = srdhm(rdivpot(numerator, 6), one_over_one_plus_x(denominator))
    return saturating_shift(wrap32(srdhm(exponent, 1488522236) + fraction), 1)


@kernel(ROWS)
def log_softmax_codes(p, begin, end):
    """8-bit rows to codes of -d * scale - log(sum), in steps of 1 / 16."""
    x, y, depth, table = p.x, p.y, p.depth, p.table
    flip = np.uint8(p.flip)
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            first, last = r * depth, (r + 1) * depth
            most, total = row_of_codes(x, first, last, flip, table)
            log_total = log_of_sum(total)
            lowest = max(p.least - 1, mbqm(wrap32(log_total + I32_MIN), p.multiplier, p.shift))
            for i in range(first, last):
                d = np.int64(np.uint8(_load_u8(x, i) ^ flip)) - most
                code = saturate(rdivpot(np.int64(_load_i32(table, 256 - d)) - log_total, 22) + 255, 0, 255)
                _store_u8(y, i, np.uint8((code if d > lowest else 0) ^ flip))
    return 0
