"""CONV_2D of float32 in bfloat16: pixels are gathered into staged rows, rounded once, which all panels of weights then pass.

It runs where `Target.products` is "bf16", unless Winograd's tiles are faster (ops/conv_winograd.py).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import fill_bytes, store_i16
from litejit.ops.base import MAX_CHUNKS, Scratch, Step, Target, row_pitch
from litejit.ops.conv_f32 import conv_panels
from litejit.ops.conv_geometry import FIELDS, Windows, grid
from litejit.ops.simd.gemm_bf16 import column_bytes, gemm_bf16, stage_bf16, stage_block, staged_pitch
from litejit.ops.simd.tiles import grain, tile_shape
from litejit.ops.tails import RECORD, TAIL, finish, tail_params
from litejit.planner.graph import Node, Value

CONV = np.dtype([*FIELDS, ("x", "i8"), ("w", "i8"), ("y", "i8"), ("staged", "i8"), ("staged_size", "i8"), ("pitch", "i8"),
                 ("n", "i8"), ("ldc", "i8"), ("column_bytes", "i8"), ("group_bytes", "i8"), ("rows", "i8"), ("columns", "i8"),
                 ("row_chunks", "i8"), ("column_chunks", "i8"), ("block", "i8"), ("lo", "f4"), ("hi", "f4"), *TAIL], align=True)
SHARED_PANELS = 4                     # at least so many use the rows that a chunk gathers


def conv_bf16_steps(node: Node, target: Target, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows,
                    bounds: tuple[float, float]) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w [O, kh, kw, depth]) + bias)."""
    cpu, groups, k, m = target.cpu, windows.groups, windows.k, windows.m
    n = w.dims[0] // groups
    panels, steps = conv_panels(node, target, w, bias, groups, n, k)
    mr, nr = tile_shape(cpu, "f32")
    rows, columns = grid(m, n, k, mr, SHARED_PANELS * nr, grain=grain(cpu, "bf16"), most=MAX_CHUNKS, by_columns=False)
    row_chunks, column_chunks = -(-m // rows), -(-n // columns)
    block, pitch, chunks = min(stage_block(cpu, k, rows), rows), staged_pitch(k), groups * row_chunks * column_chunks
    size = block * pitch + 64
    params = {
        **windows.params(), "x": x, "w": panels, "y": y, "staged": Scratch(chunks * size), "staged_size": size, "pitch": pitch,
        "n": n, "ldc": row_pitch(node, groups * n), "column_bytes": column_bytes(k),
        "group_bytes": -(-n // nr) * nr * column_bytes(k), "rows": rows, "columns": columns,
        "row_chunks": row_chunks, "column_chunks": column_chunks, "block": block,
        "lo": bounds[0], "hi": bounds[1], **tail_params(node, chunks)}
    touched = 4 * (windows.images * windows.height * windows.width * windows.channels + m * groups * n)
    return [*steps, Step(node, conv_bf16, params, chunks, macs=groups * m * n * k, products="bf16",
                         touched=touched + groups * params["group_bytes"])]


@device
def gather_bf16(p, group, staged, first, count):
    """Stage the pixels first .. first + count: each a row of kh * kw * depth elements, zeros outside of the image."""
    pixel, whole, run = p.channels * 4, p.dw == 1 and p.depth == p.channels, p.kw * p.depth
    x_row, i = p.width * pixel, 0
    ox, r = first % p.out_width, first // p.out_width
    oy, image = r % p.out_height, r // p.out_height
    while i < count:
        iy, ix, to, made = oy * p.sh - p.top, ox * p.sw - p.left, staged + i * p.pitch, 1
        source = p.x + (image * p.height + iy) * x_row + ix * pixel + group * p.depth * 4
        if whole and ix >= 0 and ix + p.kw <= p.width and iy >= 0 and iy + (p.kh - 1) * p.dh < p.height:
            made = min(count - i, p.out_width - ox, (p.width - p.kw - ix) // p.sw + 1)      # until the right border
            stage_bf16(source, to, made, p.sw * pixel, p.pitch, p.kh, p.dh * x_row, 2 * run, run)
        else:
            gather_border_bf16(p, source, to, iy, ix, whole)
        i += made
        ox += made
        if ox == p.out_width:
            ox, oy = 0, oy + 1
        if oy == p.out_height:
            oy, image = 0, image + 1


@device
def gather_border_bf16(p, source, to, iy, ix, whole):
    """Stage one pixel, some taps of which may lie outside of the image."""
    x_row, pixel, piece = p.width * p.channels * 4, p.dw * p.channels * 4, 2 * p.depth
    low = 0 if ix >= 0 else min(p.kw, (-ix + p.dw - 1) // p.dw)              # taps within the image: low <= kx < high
    high = max(low, min(p.kw, (p.width - ix + p.dw - 1) // p.dw))
    for ky in range(p.kh):
        y, here = iy + ky * p.dh, to + ky * p.kw * piece
        if y < 0 or y >= p.height or low >= high:
            fill_bytes(here, 0, p.kw * piece)
            continue
        fill_bytes(here, 0, low * piece)
        at = source + ky * p.dh * x_row + low * pixel
        if whole:
            stage_bf16(at, here + low * piece, 1, 0, 0, 1, 0, 0, (high - low) * p.depth)
        else:
            stage_bf16(at, here + low * piece, 1, 0, 0, high - low, pixel, piece, p.depth)
        fill_bytes(here + high * piece, 0, (p.kw - high) * piece)
    store_i16(to, p.kh * p.kw * p.depth, np.int16(0))                        # the other half of an odd k's last pair


@kernel(CONV)
def conv_bf16(p, begin, end):
    """A chunk is a block of pixels and some columns of one group."""
    staged, k = p.staged + begin * p.staged_size, p.kh * p.kw * p.depth
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        group = c // (p.column_chunks * p.row_chunks)
        last, columns = min(p.m, row + p.rows), min(p.columns, p.n - column)
        panels = p.w + group * p.group_bytes + column * p.column_bytes
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            y = p.y + first * p.ldc + (group * p.n + column) * 4
            gather_bf16(p, group, staged, first, count)
            gemm_bf16(staged, p.pitch, panels, y, p.ldc, count, k, columns, p.lo, p.hi, 0)
            finish(p.tail, p.record + begin * RECORD, y, p.ldc, count, columns)
    return 0
