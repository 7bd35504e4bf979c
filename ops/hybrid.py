"""Quantisation of float32 rows to int8 while running, for products with integer weights (hybrid, dynamic range).

Each row gets a zero point and a scale of its own, 8 bytes in a table of terms: int32 zero point, float32 scale;
real = scale * (code - zero_point). XNNPACK's way is asymmetric; LiteRT's kernels have a symmetric and an asymmetric one.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import (
    load_f32,
    load_i8,
    rint_f32,
    round_f32,
    round_f64,
    store_f32,
    store_i8,
    store_i16,
    store_i32,
    store_u8,
    trunc_f32,
)
from litejit.ops import streams
from litejit.ops.base import MAX_CHUNKS, Scratch, Step, chunked
from litejit.ops.simd.row_codes import quantise_xnn
from litejit.ops.simd.row_codes import row_range as vector_range
from litejit.ops.simd.stage_int8 import staged_pitch
from litejit.planner.graph import Node

ROWS = np.dtype([("x", "i8"), ("q", "i8"), ("terms", "i8"), ("rows", "i8"), ("depth", "i8"), ("inner", "i8"),
                 ("x_outer", "i8"), ("x_row", "i8"), ("x_step", "i8"), ("pitch", "i8"), ("offset", "i8"), ("wide", "i8"),
                 ("block", "i8"), ("parts", "i8"), ("part", "i8"), ("ranges", "i8"), ("mirrored", "i8")], align=True)
"""A chunk is `block` rows, or one of the `parts` of a row, `part` elements each, whose ranges are at `ranges`."""
GRAIN = 1 << 14                        # elements worth a chunk

F32_HALF, F32_127, F32_128, F32_255 = (np.float32(v) for v in (0.5, 127.0, 128.0, 255.0))
F32_0, F32_1, F32_I16 = np.float32(0.0), np.float32(1.0), np.float32(32767.0)


class Rows:
    """Quantised rows in scratch memory: codes, `pitch` bytes from row to row, terms, and the steps that make both."""

    __slots__ = ("codes", "pitch", "steps", "terms")

    def __init__(self, codes: Scratch, terms: Scratch, pitch: int, steps: list[Step]) -> None:
        self.codes, self.terms, self.pitch, self.steps = codes, terms, pitch, steps


def quantise_rows(node: Node, x: Any, rows: int, depth: int, how: str, *, staged: Cpu | None = None, offset: int = 0,
                  mirrored: int = 0, inner: int = 0, x_outer: int = 0, x_row: int = -1, x_step: int = 1) -> Rows:
    """Quantise `rows` rows of `depth` float32 values of x.

    how: "xnn", "symmetric" or "asymmetric". Codes are int8, rows without gaps; or with `staged` ("xnn" only) as the int8
    GEMM of a CPU wants rows staged. offset: added to the zero points in the terms, as staging moves the codes. mirrored
    ("symmetric" only): as many codes of a row, the first ones, follow it once more, without their signs. Row r begins at
    element (r // inner) * x_outer + (r % inner) * x_row of x. Few long rows ("asymmetric" only) are cut into parts.
    """
    pitch = depth + mirrored if staged is None else staged_pitch(staged, depth)
    codes, terms = Scratch(rows * pitch + 64), Scratch(rows * 8)
    chunks, block = chunked(rows, max(1, GRAIN // max(depth, 1)))
    params = {
        "x": x, "q": codes, "terms": terms, "rows": rows, "depth": depth, "inner": inner or rows, "x_outer": x_outer,
        "x_row": depth if x_row < 0 else x_row, "x_step": x_step, "pitch": pitch, "block": block,
        "offset": offset, "wide": staged is not None and not staged.dot, "parts": 1, "part": depth, "ranges": None,
        "mirrored": mirrored}
    steps = []
    if how == "asymmetric" and x_step == 1 and 0 < rows < MAX_CHUNKS:
        parts, part = chunked(depth, GRAIN, MAX_CHUNKS // rows)
        if parts > 1:
            chunks = rows * parts
            params.update(block=1, parts=parts, part=part, ranges=Scratch(8 * chunks))
            steps.append(Step(node, part_ranges, params, chunks, touched=rows * depth * 4))
    steps.append(Step(node, KERNELS[how], params, chunks, touched=rows * depth * 5))
    return Rows(codes, terms, pitch, steps)


@device
def row_range(x, step, depth):
    """(least, most) of a row and zero."""
    low, high = F32_0, F32_0
    if step == 1:
        for i in range(depth):
            v = load_f32(x, i)
            low = v if v < low else low
            high = v if v > high else high
    else:
        for i in range(depth):
            v = load_f32(x, i * step)
            low = v if v < low else low
            high = v if v > high else high
    return low, high


@device
def row_at(p, r):
    """The address of row r; there is no division where all rows lie in one matrix."""
    if r < p.inner:
        return p.x + 4 * r * p.x_row
    return p.x + 4 * (r // p.inner * p.x_outer + r % p.inner * p.x_row)


@device
def code_xnn(v, scale, zero, offset):
    """XNNPACK's code of a value, plus the offset."""
    v = rint_f32(min(v * scale, F32_I16)) + zero
    return np.int32(min(max(v, -F32_128), F32_127) + offset)


@kernel(ROWS, fastmath=("nnan", "nsz"))
def quantise_rows_xnn(p, begin, end):
    """XNNPACK's dynamic quantisation (qd8)."""
    depth, step, offset = p.depth, p.x_step, np.float32(p.offset)
    for c in prange(begin, end):
        r, last = c * p.block, min(p.rows, (c + 1) * p.block)
        while r < last:
            count = min(last - r, p.inner - r % p.inner) if step == 1 else 1        # rows of one matrix
            x, q, term = row_at(p, r), p.q + r * p.pitch, p.terms + 8 * r
            r += count
            if step == 1:
                quantise_xnn(x, 4 * p.x_row, q, p.pitch, term, count, depth, p.offset, p.wide)
                continue
            low, high = row_range(x, step, depth)
            scale = F32_1 if low == high else F32_255 / (high - low)
            least, most = low * scale, high * scale
            zero = -F32_128 - least if (least - F32_128) + (most + F32_127) > F32_0 else F32_127 - most
            zero = rint_f32(min(max(zero, -F32_128), F32_127))
            store_i32(term, 0, np.int32(zero + offset))
            store_f32(term, 1, F32_1 / scale)
            for i in range(depth):
                code = code_xnn(load_f32(x, i * step), scale, zero, offset)
                if p.wide != 0:
                    store_i16(q, i, np.int16(code))
                else:
                    store_u8(q, i, np.uint8(code))
    return 0


@device
def nearest(v, i, body):
    """As LiteRT's helpers round: whole blocks of 8 by adding a half and cutting off, the rest of a row exactly."""
    if i < body:
        return trunc_f32(v + (F32_HALF if v >= F32_0 else -F32_HALF))
    return round_f32(v)


@kernel(ROWS)
def quantise_rows_symmetric(p, begin, end):
    """LiteRT's symmetric quantisation: codes within +-127, zero point 0."""
    depth, step = p.depth, p.x_step
    body = depth - depth % 8
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            x, q = row_at(p, r), p.q + r * p.pitch
            low, high = row_range(x, step, depth)
            most = max(-low, high)
            inverse = F32_127 / most if most > F32_0 else F32_0
            store_i32(p.terms, 2 * r, np.int32(p.offset))
            store_f32(p.terms, 2 * r + 1, most / F32_127 if most > F32_0 else F32_1)
            for i in range(depth):
                v = nearest(load_f32(x, i * step) * inverse, i, body)
                store_i8(q, i, np.int8(min(max(v, -F32_127), F32_127)))
            for i in range(p.mirrored):
                code = load_i8(q, i)
                store_i8(q, depth + i, -code if code < 0 else code)
    return 0


_stream_f32, _store_i8 = streams.LOAD["f32"], streams.STORE["i8"]


@kernel(ROWS)
def quantise_rows_asymmetric(p, begin, end):
    """LiteRT's asymmetric quantisation: the zero point comes from the end of the range with the smaller error."""
    depth, step = p.depth, p.x_step
    body = depth - depth % 8
    for c in prange(begin, end):
        first = c % p.parts * p.part
        last = min(depth, first + p.part)
        for r in range(c // p.parts * p.block, min(p.rows, (c // p.parts + 1) * p.block)):
            x, q = row_at(p, r), p.q + r * p.pitch
            low, high = F32_0, F32_0
            if p.parts > 1:
                for i in range(r * p.parts, (r + 1) * p.parts):
                    low, high = min(low, load_f32(p.ranges, 2 * i)), max(high, load_f32(p.ranges, 2 * i + 1))
            elif step == 1:
                vector_range(x, depth, p.terms + 8 * r)
                low, high = load_f32(p.terms, 2 * r), load_f32(p.terms, 2 * r + 1)
            else:
                low, high = row_range(x, step, depth)
            scale, zero = np.float64(1.0), 0.0
            if low != high:
                scale = np.float64(high - low) / 255.0
                a, b = np.float64(low) / scale, np.float64(high) / scale
                zero = -128.0 - a if 128.0 + abs(a) < 127.0 + abs(b) else 127.0 - b
                zero = min(max(round_f64(zero), -128.0), 127.0)
            short = np.float32(scale)
            inverse = F32_0 if short == F32_0 else np.float32(1.0 / np.float64(short))
            if first == 0:
                store_i32(p.terms, 2 * r, np.int32(zero) + np.int32(p.offset))
                store_f32(p.terms, 2 * r + 1, short)
            offset, done = np.float32(zero), first
            if step == 1:
                done = min(body, last)
                for i in range(first, done):
                    v = _stream_f32(x, i) * inverse
                    v = trunc_f32(v + (F32_HALF if v >= F32_0 else -F32_HALF)) + offset
                    _store_i8(q, i, np.int8(min(max(v, -F32_128), F32_127)))
            for i in range(done, last):
                v = nearest(load_f32(x, i * step) * inverse, i, body) + offset
                store_i8(q, i, np.int8(min(max(v, -F32_128), F32_127)))
    return 0


@kernel(ROWS)
def part_ranges(p, begin, end):
    """The least and the largest of zero and the values of each part of a row."""
    for c in prange(begin, end):
        first = c % p.parts * p.part
        vector_range(row_at(p, c // p.parts) + 4 * first, min(p.part, p.depth - first), p.ranges + 8 * c)
    return 0


KERNELS = {"xnn": quantise_rows_xnn, "symmetric": quantise_rows_symmetric, "asymmetric": quantise_rows_asymmetric}
