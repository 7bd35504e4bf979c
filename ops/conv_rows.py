"""CONV_2D in float32 with few input channels (first layers): a row of the kernel is one run of inputs.

The input rows that a chunk needs are copied once into scratch memory, with the padding around them; then every pixel of an
output row begins a fixed step after the one before it, and the tiles of the GEMM need no table of addresses. Images of a single
row (signals) go this way with any number of channels, in pieces of the row.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import copy_bytes, fill_bytes
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target, chunked, row_pitch
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.gemm_f32 import segment_gemm_f32
from litejit.ops.simd.tiles import grain, tiles
from litejit.ops.tails import RECORD, TAIL, finish, tail_params
from litejit.planner.graph import Node

ROWS = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "n", "scratch", "scratch_size", "pitch", "ldc", "rows", "row_chunks", "columns", "column_chunks")),
    ("lo", "f4"), ("hi", "f4"), *TAIL], align=True)
FEW_CHANNELS = 16                     # fewer: the runs of whole kernel rows are worth the copy


def fits(windows: Windows) -> bool:
    """Whether a row of the kernel is one run of inputs, and the channels are few or there is but one row."""
    few = windows.depth < FEW_CHANNELS or windows.kh == windows.out_height == 1
    return few and windows.dw == 1 and windows.groups == 1


def conv_rows_steps(node: Node, target: Target, x: Any, y: Any, panels: Packed | Scratch, n: int, windows: Windows,
                    bounds: tuple[float, float]) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w) + bias); panels: of w [O, kh * kw * C] and bias."""
    row_chunks, rows, column_chunks, columns = _cut(target.cpu, windows, n)
    pixels = (columns - 1) * windows.sw + windows.kw
    pitch = -(-pixels * windows.channels * 4 // 64) * 64 | 64              # an odd number of cache lines
    size = ((rows - 1) * windows.sh + (windows.kh - 1) * windows.dh + 1) * pitch + 64
    chunks = windows.images * row_chunks * column_chunks
    params = {**windows.params(), "x": x, "w": panels, "y": y, "n": n, "scratch": Scratch(chunks * size), "scratch_size": size,
              "pitch": pitch, "ldc": row_pitch(node, n), "rows": rows, "row_chunks": row_chunks, "columns": columns,
              "column_chunks": column_chunks, "lo": bounds[0], "hi": bounds[1], **tail_params(node, chunks)}
    return [Step(node, conv_rows_f32, params, chunks, macs=windows.m * n * windows.k)]


def _cut(cpu: Cpu, windows: Windows, n: int) -> tuple[int, int, int, int]:
    """(chunks down an image, rows of one, chunks along a row, columns of one): rows are cut where there are too few of them."""
    work = max(1, windows.out_width * n * windows.k)
    row_chunks, rows = chunked(windows.out_height, max(1, grain(cpu, "f32") // work))
    wanted = min(MAX_CHUNKS, windows.m * n * windows.k // grain(cpu, "f32"))
    across, tile = max(1, wanted // max(1, windows.images * row_chunks)) if rows == 1 else 1, tiles(cpu).f32[0]
    columns = max(1, -(-windows.out_width // (across * tile))) * tile
    return row_chunks, rows, -(-windows.out_width // columns), columns


# ---- kernels -------------------------------------------------------------------------------------

@device
def stage(p, image, first, count, column, pixels, to):
    """The input rows first .. first + count of an image, `pixels` from a column on: with the padding left and right."""
    pixel = p.channels * 4
    before = max(0, min(-column, pixels)) * pixel
    run = max(0, min(p.width, column + pixels) - max(column, 0)) * pixel
    for i in range(count):
        row, y = to + i * p.pitch, first + i
        if y < 0 or y >= p.height:
            fill_bytes(row, 0, p.pitch)
        else:
            fill_bytes(row, 0, before)
            copy_bytes(row + before, p.x + ((image * p.height + y) * p.width + max(column, 0)) * pixel, run)
            fill_bytes(row + before + run, 0, p.pitch - before - run)


@kernel(ROWS)
def conv_rows_f32(p, begin, end):
    """A chunk is some output rows of an image, or a part of one."""
    staged = p.scratch + begin * p.scratch_size
    step = p.sw * p.channels * 4
    for c in prange(begin, end):
        left, down = c % p.column_chunks * p.columns, c // p.column_chunks
        image, top = down // p.row_chunks, down % p.row_chunks * p.rows
        bottom, count = min(p.out_height, top + p.rows), min(p.columns, p.out_width - left)
        stage(p, image, top * p.sh - p.top, (bottom - 1 - top) * p.sh + (p.kh - 1) * p.dh + 1, left * p.sw - p.left,
              (count - 1) * p.sw + p.kw, staged)
        for row in range(top, bottom):
            y = p.y + ((image * p.out_height + row) * p.out_width + left) * p.ldc
            segment_gemm_f32(staged + (row - top) * p.sh * p.pitch, step, p.kh, p.dh * p.pitch, p.w, y, p.ldc, count,
                             p.kw * p.channels, p.n, p.lo, p.hi)
            finish(p.tail, p.record + begin * RECORD, y, p.ldc, count, p.n)
    return 0
