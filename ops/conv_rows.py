"""CONV_2D in float32 with few input channels (first layers): a row of the kernel is one run of inputs.

The input rows that some output rows see are staged in scratch memory, with the padding around them (ops/conv_band.py); a table
says where the window of each pixel begins, so that tiles are filled across the rows. Images of a single row (signals) go this
way with any number of channels, in pieces of the row.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import copy_bytes, fill_bytes
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target, row_pitch
from litejit.ops.conv_band import band, make_stage, places, staged_row
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.gemm_f32 import segment_gemm_f32, segment_tiles
from litejit.ops.simd.tiles import grain, tiles
from litejit.ops.tails import RECORD, TAIL, finish, tail_params
from litejit.planner.graph import Node

ROWS = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "n", "tile", "last_tile", "starts", "scratch", "scratch_size", "pitch", "ldc", "rows", "row_chunks", "block",
    "columns", "column_chunks")), ("lo", "f4"), ("hi", "f4"), *TAIL], align=True)
FEW_CHANNELS = 16                     # fewer: the runs of whole kernel rows are worth the copy
SOME_CHANNELS = 32                    # fewer: they are where the rows of chunks fill nearly as few tiles as all pixels do
SPARE = 1.1                           # tiles of the rows over those of all pixels


def fits(cpu: Cpu, windows: Windows, n: int) -> bool:
    """Whether a row of the kernel is one run of inputs, and the channels are few or there is but one row."""
    if windows.dw > 1 or windows.groups > 1:
        return False
    if windows.depth < FEW_CHANNELS or windows.kh == windows.out_height == 1:
        return True
    return windows.depth < SOME_CHANNELS and (
        windows.images * band(cpu, windows, n, "f32").tiles <= SPARE * -(-windows.m // tiles(cpu).f32[0]))


def conv_rows_steps(node: Node, target: Target, x: Any, y: Any, panels: Packed | Scratch, n: int, windows: Windows,
                    bounds: tuple[float, float]) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w) + bias); panels: of w [O, kh * kw * C] and bias."""
    made, (tile, last_tile) = band(target.cpu, windows, n, "f32"), segment_tiles(target.cpu, n)
    row_chunks, columns = -(-windows.out_height // made.rows), windows.out_width
    if made.rows == 1:
        columns = _piece(target.cpu, windows, n)
    column_chunks, pitch = -(-windows.out_width // columns), staged_row(windows, columns, 4)[1]
    size, chunks = made.staged * pitch, windows.images * row_chunks * column_chunks
    starts = places((made.block, windows.sh * pitch), (columns, windows.sw * windows.channels * 4))
    params = {**windows.params(), "x": x, "w": panels, "y": y, "n": n, "tile": tile, "last_tile": last_tile, "starts": starts,
              "scratch": Scratch(chunks * size), "scratch_size": size, "pitch": pitch, "ldc": row_pitch(node, n),
              "rows": made.rows, "row_chunks": row_chunks, "block": made.block, "columns": columns,
              "column_chunks": column_chunks, "lo": bounds[0], "hi": bounds[1], **tail_params(node, chunks)}
    return [Step(node, conv_rows_f32, params, chunks, macs=windows.m * n * windows.k)]


def _piece(cpu: Cpu, windows: Windows, n: int) -> int:
    """Columns of a chunk whose rows are single ones: rows are cut where there are too few of them."""
    wanted = min(MAX_CHUNKS, windows.m * n * windows.k // grain(cpu, "f32"))
    across, tile = max(1, wanted // max(1, windows.images * windows.out_height)), tiles(cpu).f32[0]
    return min(windows.out_width, max(1, -(-windows.out_width // (across * tile))) * tile)


# ---- kernels -------------------------------------------------------------------------------------

@device
def fill_pixels(p, row, pixel, count):
    """Zeros in so many pixels of a staged row."""
    fill_bytes(row + pixel * p.channels * 4, 0, count * p.channels * 4)


@device
def copy_pixels(p, row, pixel, source, count):
    """Stage so many pixels of the input."""
    copy_bytes(row + pixel * p.channels * 4, p.x + source * p.channels * 4, count * p.channels * 4)


_stage_band = make_stage(fill_pixels, copy_pixels)


@kernel(ROWS)
def conv_rows_f32(p, begin, end):
    """A chunk is some output rows of an image, or a part of one."""
    staged = p.scratch + begin * p.scratch_size
    for c in prange(begin, end):
        left, down = c % p.column_chunks * p.columns, c // p.column_chunks
        image, top = down // p.row_chunks, down % p.row_chunks * p.rows
        bottom, columns = min(p.out_height, top + p.rows), min(p.columns, p.out_width - left)
        for first in range(top, bottom, p.block):
            count = min(p.block, bottom - first)
            _stage_band(p, staged, image, first * p.sh - p.top, (count - 1) * p.sh + (p.kh - 1) * p.dh + 1,
                        left * p.sw - p.left, (columns - 1) * p.sw + p.kw)
            y, pixels = p.y + ((image * p.out_height + first) * p.out_width + left) * p.ldc, count * columns
            segment_gemm_f32(p.tile, p.last_tile, staged, p.starts, p.kh, p.dh * p.pitch, p.w, y, p.ldc, pixels,
                             p.kw * p.channels, p.n, p.lo, p.hi)
            finish(p.tail, p.record + begin * RECORD, y, p.ldc, pixels, p.n)
    return 0
