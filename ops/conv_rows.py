"""CONV_2D in float32 with few channels (first layers, groups): input rows are staged, and windows read in place.

Input rows that some output rows see lie in scratch memory, with the padding around them (ops/conv_band.py). Tables say where
the window of each pixel begins, so that tiles are filled across the rows, and where its pieces lie from there. Images of a
single row (signals) go this way with any number of channels, in pieces of the row, and so do 1x1 convolutions of groups, of
which nothing needs to be staged.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import copy_bytes, fill_bytes
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target, row_pitch
from litejit.ops.conv_band import MOST_BYTES, band, make_stage, pieces, places, staged_row
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.gemm_f32 import panel_columns, segment_gemm_f32, segment_tiles
from litejit.ops.simd.tiles import grain, tiles
from litejit.ops.tails import RECORD, TAIL, finish, tail_params
from litejit.planner.graph import Node

ROWS = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "n", "groups", "group_bytes", "tile", "last_tile", "starts", "pieces", "length", "offsets", "scratch",
    "scratch_size", "pitch", "ldc", "rows", "row_chunks", "block", "columns", "column_chunks")), ("lo", "f4"), ("hi", "f4"),
    *TAIL], align=True)
FEW_CHANNELS = 16                     # of a group; fewer: the pieces of a window are worth the copy
SOME_CHANNELS = 32                    # fewer: they are where the rows of chunks fill nearly as few tiles as all pixels do
SPARE = 1.1                           # tiles of the rows over those of all pixels


def fits(cpu: Cpu, windows: Windows, n: int) -> bool:
    """Whether windows with n outputs per group are few pieces or short ones, for which rows are worth staging; or pixels."""
    signal = windows.kh == windows.out_height == windows.groups == windows.dw == 1
    if signal or _direct(windows) or windows.depth >= SOME_CHANNELS:
        return signal or _direct(windows)
    made = band(cpu, windows, n, "f32")
    if windows.dh > 1 and made.staged * made.pitch > MOST_BYTES:
        return False
    return windows.depth < FEW_CHANNELS or windows.images * made.tiles <= SPARE * -(-windows.m // tiles(cpu).f32[0])


def _direct(windows: Windows) -> bool:
    """Whether windows are pixels, side by side: nothing is staged."""
    return windows.kh * windows.kw * windows.sh * windows.sw == 1


def conv_rows_steps(node: Node, target: Target, x: Any, y: Any, panels: Packed | Scratch, n: int, windows: Windows,
                    bounds: tuple[float, float]) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w) + bias); panels: of w [groups, n, kh * kw * depth] and bias."""
    cpu, groups, (count, length) = target.cpu, windows.groups, pieces(windows)
    made, (tile, last_tile) = band(cpu, windows, n, "f32"), segment_tiles(cpu, n)
    row_chunks, columns = -(-windows.out_height // made.rows), windows.out_width
    if made.rows == 1:
        columns = _piece(cpu, windows, n)
    column_chunks, pixel = -(-windows.out_width // columns), windows.channels * 4
    pitch = windows.width * pixel if _direct(windows) else staged_row(windows, columns, 4)[1]
    size, chunks = 0 if _direct(windows) else made.staged * pitch, windows.images * row_chunks * column_chunks
    params = {**windows.params(), "x": x, "w": panels, "y": y, "n": n, "groups": groups, "tile": tile, "last_tile": last_tile,
              "starts": places((made.block, windows.sh * pitch), (columns, windows.sw * pixel)), "pieces": count,
              "length": length, "offsets": places((windows.kh, windows.dh * pitch), (count // windows.kh, windows.dw * pixel)),
              "group_bytes": -(-n // panel_columns(cpu)) * panel_columns(cpu) * (windows.k + 1) * 4,
              "scratch": Scratch(chunks * size), "scratch_size": size, "pitch": pitch, "ldc": row_pitch(node, groups * n),
              "rows": made.rows, "row_chunks": row_chunks, "block": made.block, "columns": columns,
              "column_chunks": column_chunks, "lo": bounds[0], "hi": bounds[1], **tail_params(node, chunks)}
    return [Step(node, conv_rows_f32, params, chunks, macs=groups * windows.m * n * windows.k)]


def _piece(cpu: Cpu, windows: Windows, n: int) -> int:
    """Columns of a chunk whose rows are single ones: rows are cut where there are too few of them."""
    wanted = min(MAX_CHUNKS, windows.m * windows.groups * n * windows.k // grain(cpu, "f32"))
    across, tile = max(1, wanted // max(1, windows.images * windows.out_height)), tiles(cpu).f32[0]
    return min(windows.out_width, max(1, -(-windows.out_width // (across * tile))) * tile)


# ---- kernels -------------------------------------------------------------------------------------

@device
def fill_pixels(p, row, pixel, count, _):
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
            here = staged
            if p.scratch_size == 0:
                here = p.x + ((image * p.height + first) * p.width + left) * p.channels * 4
            else:
                _stage_band(p, staged, image, first * p.sh - p.top, (count - 1) * p.sh + (p.kh - 1) * p.dh + 1,
                            left * p.sw - p.left, (columns - 1) * p.sw + (p.kw - 1) * p.dw + 1, 0)
            pixel, pixels = (image * p.out_height + first) * p.out_width + left, count * columns
            for group in range(p.groups):
                y = p.y + pixel * p.ldc + group * p.n * 4
                segment_gemm_f32(p.tile, p.last_tile, here + group * p.depth * 4, p.starts, p.pieces, p.offsets,
                                 p.w + group * p.group_bytes, y, p.ldc, pixels, p.length, p.n, p.lo, p.hi)
                finish(p.tail, p.record + begin * RECORD, y, p.ldc, pixels, p.n)
    return 0
