"""CONV_2D on 8-bit activations: pixels are gathered into staged rows, which all panels of weights then pass.

One kernel; the ends are those of the tiles, which it calls by their addresses: XNNPACK's codes (i8 and u8), LiteRT's reference
codes (the fixed-point multiplier), and hybrid products (ops/conv_hybrid.py).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import load_f32, load_i32, store_f32, store_i32
from litejit.ops.arithmetic import fixed_point, quantize_multipliers
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target
from litejit.ops.conv_geometry import FIELDS, Windows, grid
from litejit.ops.conv_rows_int8 import padded, row_terms, rows_step
from litejit.ops.conv_ways import gathered, in_rows
from litejit.ops.simd.epilogues import fits_requant, range_of
from litejit.ops.simd.gemm_int8 import TILES, Kind, corrected_bias, make_gemm, pack_int8, panel_bytes, tile_params
from litejit.ops.simd.stage_int8 import (
    fill_staged,
    flip,
    k_group,
    stage,
    stage_block,
    stage_bytes,
    stage_pixels,
    staged_offset,
    staged_pitch,
    sum_terms,
)
from litejit.ops.simd.tiles import grain, tile_shape
from litejit.planner.graph import Node, Value

GATHER = [*FIELDS, ("x", "i8"), ("w", "i8"), ("y", "i8"), ("staged", "i8"), ("staged_size", "i8"), ("pitch", "i8"),
          ("flip", "i8"), ("pad", "i8"), ("n", "i8"), ("ldc", "i8"), ("group_bytes", "i8"), ("panel_bytes", "i8"),
          ("rows", "i8"), ("columns", "i8"), ("row_chunks", "i8"), ("column_chunks", "i8"), ("block", "i8")]
"""Fields of what gathers; `columns` is whole panels, `panel_bytes` the size of one per column."""
CONV = np.dtype([*GATHER, *TILES, *((name, "i8") for name in (
    "terms", "row_factor", "sum_zero", "factors", "offset", "low", "high", "zero_point", "out_flip"))], align=True)
"""factors: zero point (i32) and scale (f32) of each image, where those are made while running, and offset: from a code to
what is staged; else 0."""


class Weights:
    """Integer weights [groups, n, k] and bias [groups, n] of a convolution, as a CPU multiplies them.

    int16: uint8 weights less their zero point. int8: uint8 weights w become w - 128; what that leaves, (128 - zero point)
    times the sum of the row's activations, is added by the kernels: `row_factor`.
    """

    __slots__ = ("array", "bias", "groups", "key", "row_factor")

    def __init__(self, w: Value, bias: Value | None, groups: int, cpu: Cpu) -> None:
        o, wide = w.dims[0], k_group(cpu) == 2
        data = np.asarray(w.data).reshape(groups, o // groups, -1)
        self.row_factor, self.array = 0, data
        if w.type == "u8":
            self.row_factor = 0 if wide else 128 - w.zero_point
            data = data.astype(np.int16) - (w.zero_point if wide else 128)
            self.array = data if wide else data.astype(np.int8)
        self.bias = None if bias is None else np.asarray(bias.data).reshape(groups, -1)
        self.groups = groups
        self.key = (w.key, w.zero_point if w.type == "u8" else 0, None if bias is None else bias.key, groups)

    def first(self, group: int, offset: int) -> np.ndarray:
        """The accumulators' start: bias - offset * the sum of the real weights, without the term of the row."""
        return corrected_bias(self.array[group], None if self.bias is None else self.bias[group], offset)

    def fits(self, scales: np.ndarray) -> bool:
        """Whether vectors may requantise without clamping floats first."""
        flat = self.array.reshape(self.array.shape[0] * self.array.shape[1], -1)
        return fits_requant(flat, None if self.bias is None else self.bias.ravel(), scales, abs(self.row_factor))


def gather_params(target: Target, windows: Windows, x: Any, x_type: str, n: int, *, tiles: dict[str, Any], panels: Any,
                  pad: int) -> tuple[dict[str, Any], int]:
    """(values of the fields GATHER but y, of TILES, and memory for terms; number of chunks) of an 8-bit convolution to n
    columns per group; tiles: `tile_params`."""
    cpu, k, m, groups = target.cpu, windows.k, windows.m, windows.groups
    mr, nr = tile_shape(cpu, "int8")
    rows, columns = grid(m, n, k, mr, 4 * nr, grain=grain(cpu, "int8"), most=MAX_CHUNKS, by_columns=False)
    block = min(stage_block(cpu, k), rows, -(-m // mr) * mr)
    pitch, row_chunks, column_chunks = staged_pitch(cpu, k), -(-m // rows), -(-n // columns)
    size, chunks = block * pitch + 64, groups * row_chunks * column_chunks
    return {
        **windows.params(), **tiles, "terms": Scratch(chunks * block * 8), "x": x, "w": panels,
        "staged": Scratch(chunks * size), "staged_size": size, "pitch": pitch,
        "flip": flip(cpu, x_type), "pad": pad, "n": n, "ldc": groups * n * tiles["out_bytes"],
        "group_bytes": -(-n // nr) * panel_bytes(cpu, k), "panel_bytes": panel_bytes(cpu, k) // nr, "rows": rows,
        "columns": columns, "row_chunks": row_chunks, "column_chunks": column_chunks, "block": block}, chunks


def panels_of(target: Target, weights: Weights, offset: int, numbers: tuple[np.ndarray, ...],
              windows: Windows | None = None) -> Packed:
    """All groups' panels; numbers: the second and the third ones of the columns [groups, n]; windows: for conv_rows_int8.py."""
    cpu = target.cpu

    def build() -> np.ndarray:
        array = weights.array if windows is None else padded(cpu, windows, weights.array)
        return np.stack([pack_int8(cpu, array[g], weights.first(g, offset), *(one[g] for one in numbers))
                         for g in range(weights.groups)])
    kind = "conv int8" if windows is None else "conv rows"
    return Packed((weights.key, kind, cpu.name, offset, *((one.dtype.char, one.tobytes()) for one in numbers)), build)


def codes_steps(node: Node, target: Target, weights: Weights, windows: Windows, scales: np.ndarray, bounds: tuple[int, int]
                ) -> list[Step]:
    """XNNPACK's: codes of i8 or u8 with float32 scales [O]."""
    wide = np.ascontiguousarray(np.broadcast_to(scales.astype(np.float32), (node.out.dims[3],)))
    return [_codes_step(node, target, weights, windows, bounds, "code", wide)]


def _codes_step(node: Node, target: Target, weights: Weights, windows: Windows, bounds: tuple[int, int], end: str,
                *numbers: np.ndarray) -> Step:
    """The step whose tiles end in codes; numbers [O]: the second and the third ones of the panels."""
    x, y, cpu = node[0], node.out, target.cpu
    n, offset = weights.array.shape[1], x.zero_point + staged_offset(cpu, x.type)
    shift = 128 if y.type == "u8" else 0                               # u8 codes are made as i8 ones
    sums = weights.row_factor != 0
    in_place = end == "code" and in_rows(cpu, windows, n, sums) < gathered(cpu, windows, n, sums)
    panels = panels_of(target, weights, offset, tuple(one.reshape(weights.groups, n) for one in numbers),
                       windows if in_place else None)
    last = {"low": bounds[0] - shift, "high": bounds[1] - shift, "zero_point": y.zero_point - shift,
            "out_flip": 0x80 if shift else 0}
    codes = range_of(last["low"], last["high"], last["zero_point"]) if end == "code" else ""
    if in_place:
        terms = row_terms(cpu, windows, weights.row_factor, windows.k * offset) if sums else None
        return rows_step(node, target, windows, x, panels, n, Kind(end, rows=sums, segments=True, range=codes), {
            "flip": flip(cpu, x.type), "pad": x.zero_point, "terms": terms, **last})
    tiles = tile_params(cpu, n, end, rows=end != "code" or sums, range_=codes)
    params, chunks = gather_params(target, windows, x, x.type, n, tiles=tiles, panels=panels, pad=x.zero_point)
    params.update(y=y, row_factor=weights.row_factor, sum_zero=windows.k * offset, **last)
    return Step(node, conv_int8, params, chunks, macs=windows.m * node[1].size)


def fixed_steps(node: Node, target: Target, weights: Weights, windows: Windows, reals: np.ndarray, bounds: tuple[int, int]
                ) -> list[Step]:
    """LiteRT's reference: codes of i8 or u8 with fixed-point multipliers of the real scales [O] or [1]."""
    multiplier, shift = fixed_point(reals, node.out.dims[3])
    return [_codes_step(node, target, weights, windows, bounds, "fixed", multiplier, shift)]


def multipliers(reals: np.ndarray, count: int) -> Packed:
    """int32 pairs (multiplier, shift) of real scales, one for each of `count` channels."""
    wide = np.ascontiguousarray(np.broadcast_to(np.asarray(reals, np.float64), (count,)))
    return Packed(("multipliers", wide.tobytes()),
                  lambda: np.ascontiguousarray(np.stack(quantize_multipliers(wide), axis=1).astype(np.int32)))


# ---- device functions --------------------------------------------------------------------------

@device
def gather(p, group, staged, first, count, pad):
    """Stage the pixels first .. first + count: each a row of kh * kw * depth elements, taps outside the code `pad`."""
    if p.kh * p.kw * p.sh * p.sw == 1 and p.depth == p.channels:
        stage(p.x + first * p.depth, staged, count, p.depth, p.pitch, p.depth, p.flip)
        return
    x_row, whole = p.width * p.channels, p.dw == 1 and p.depth == p.channels
    runs, run = (1, p.kw * p.depth) if whole else (p.kw, p.depth)          # pieces of a row of the kernel, and their elements
    run_bytes = run * stage_bytes()
    low = (p.left + p.sw - 1) // p.sw                      # columns low <= ox < high see no border on the left and right
    room = p.width + p.left - (p.kw - 1) * p.dw - 1
    high = room // p.sw + 1 if room >= 0 else 0
    ox, r = first % p.out_width, first // p.out_width
    oy, image = r % p.out_height, r // p.out_height
    i = 0
    while i < count:
        iy, ix, to = oy * p.sh - p.top, ox * p.sw - p.left, staged + i * p.pitch
        source = p.x + (image * p.height + iy) * x_row + ix * p.channels + group * p.depth
        pixels = 1
        if ox >= low and ox < high and iy >= 0 and iy + (p.kh - 1) * p.dh < p.height:
            pixels = min(count - i, high - ox)
            stage_pixels(source, to, pixels, p.sw * p.channels, p.pitch, p.kh, p.dh * x_row, runs, p.dw * p.channels, run_bytes,
                         run, p.flip)
        else:
            gather_border(p, source, to, iy, ix, whole, pad)
        i += pixels
        ox += pixels
        if ox >= p.out_width:
            ox, oy = 0, oy + 1
        if oy == p.out_height:
            oy, image = 0, image + 1


@device
def gather_border(p, source, to, iy, ix, whole, pad):
    """Stage one pixel, some taps of which may lie outside of the image."""
    size, x_row = stage_bytes(), p.width * p.channels
    low = 0 if ix >= 0 else min(p.kw, (-ix + p.dw - 1) // p.dw)              # taps within the image: low <= kx < high
    high = max(low, min(p.kw, (p.width - ix + p.dw - 1) // p.dw))
    piece = p.depth * size
    for ky in range(p.kh):
        y = iy + ky * p.dh
        here = to + ky * p.kw * piece
        if y < 0 or y >= p.height or low >= high:
            fill_staged(here, p.kw * p.depth, pad, p.flip)
            continue
        if low > 0:
            fill_staged(here, low * p.depth, pad, p.flip)
        at = source + ky * p.dh * x_row + low * p.dw * p.channels
        if whole:
            stage(at, here + low * piece, 1, 0, 0, (high - low) * p.depth, p.flip)
        else:
            stage(at, here + low * piece, high - low, p.dw * p.channels, piece, p.depth, p.flip)
        if high < p.kw:
            fill_staged(here + high * piece, (p.kw - high) * p.depth, pad, p.flip)


@device
def stage_images(p, group, staged, terms, first, count):
    """`gather` where every image has a zero point of its own, and the terms of the rows.

    A staged row is code + offset: its zero point in the products is zero point + offset. terms: that, and the scale.
    """
    image, top = p.out_height * p.out_width, first
    while top < first + count:
        at = top // image * 2
        last = min(first + count, (top // image + 1) * image)
        zero, scale = load_i32(p.factors, at), load_f32(p.factors, at + 1)
        gather(p, group, staged + (top - first) * p.pitch, top, last - top, zero)
        for r in range(top - first, last - first):
            store_i32(terms, 2 * r, zero + np.int32(p.offset))
            store_f32(terms, 2 * r + 1, scale)
        top = last


# ---- kernels -------------------------------------------------------------------------------------

_gemm = make_gemm()


@kernel(CONV)
def conv_int8(p, begin, end):
    """A chunk is a block of pixels and some columns of one group."""
    staged, k, terms = p.staged + begin * p.staged_size, p.kh * p.kw * p.depth, p.terms + begin * p.block * 8
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        group = c // (p.column_chunks * p.row_chunks)
        last = min(p.m, row + p.rows)
        panels = p.w + group * p.group_bytes + column * p.panel_bytes
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            if p.factors != 0:
                stage_images(p, group, staged, terms, first, count)
            else:
                gather(p, group, staged, first, count, p.pad)
                if p.term_bytes != 0:
                    sum_terms(staged, p.pitch, count, k, terms, p.row_factor, p.sum_zero)
            _gemm(p, staged, p.pitch, panels, p.y + first * p.ldc + (group * p.n + column) * p.out_bytes, p.ldc, count, k,
                  min(p.columns, p.n - column), terms, p.low, p.high, p.zero_point, p.out_flip)
    return 0
