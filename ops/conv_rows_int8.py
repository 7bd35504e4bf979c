"""CONV_2D of 8-bit codes whose pixels are no copies: first layers, others with few channels, groups, dilation.

The input rows that some output rows see are staged once, with the padding around them (ops/conv_int8.py stages the window of
every pixel). Tables say where the window of each pixel begins, and at which offsets from there its pieces lie: rows of the
kernel, or taps where other channels or pixels lie between. Ends in XNNPACK's codes, or in floats (ops/conv_hybrid.py).
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress
from litejit.compiler.primitives import load_i32
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.conv_band import band, make_stage, pieces, places, value_bytes
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.gemm_int8 import SEGMENT_ARGUMENTS, Kind, panel_tiles
from litejit.ops.simd.stage_int8 import fill_staged, k_group, stage, stage_bytes
from litejit.ops.simd.tile_int8 import HEADER
from litejit.ops.simd.tiles import int8_columns, int8_rows
from litejit.planner.graph import Node

ROWS = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "n", "out_bytes", "groups", "tile", "last_tile", "starts", "pieces", "offsets", "steps", "scratch",
    "scratch_size", "pitch", "seen", "rows", "row_chunks", "block", "flip", "pad", "factors", "terms", "low", "high",
    "zero_point", "out_flip"))], align=True)
"""factors: zero point (i32, which is also the padding) and scale (f32) of each image, where those are made while running; else
0, and `terms` is what the tiles sum the windows with, if they do."""


def padded(cpu: Cpu, windows: Windows, weights: np.ndarray) -> np.ndarray:
    """Weights [..., k] with zeros behind every piece of a window, so that it fills whole groups of k."""
    (count, run), group = pieces(windows), k_group(cpu)
    cut = weights.reshape(*weights.shape[:-1], count, run)
    wide = np.zeros((*cut.shape[:-1], -(-run // group) * group), weights.dtype)
    wide[..., :run] = cut
    return wide.reshape(*weights.shape[:-1], -1)


def rows_step(node: Node, target: Target, windows: Windows, x: Any, panels: Packed, n: int, kind: Kind, numbers: dict[str, Any]
              ) -> Step:
    """The step of a node with n outputs per group; panels: of `padded` weights; kind: of the tiles; numbers: values of the
    fields from flip on."""
    cpu, made, (count, run) = target.cpu, band(target.cpu, windows, n), pieces(windows)
    row_chunks, pixel = -(-windows.out_height // made.rows), windows.channels * value_bytes(cpu, "int8")
    chunk, chunks = made.staged * made.pitch + 128, windows.images * row_chunks
    starts = places((made.block, windows.sh * made.pitch), (windows.out_width, windows.sw * pixel))
    taps = places((windows.kh, windows.dh * made.pitch), (count // windows.kh, windows.dw * pixel))
    return Step(node, conv_rows_int8, {
        **windows.params(), "x": x, "w": panels, "y": node.out, "n": n, "out_bytes": node.out.itemsize,
        "groups": windows.groups, **panel_tiles(cpu, kind, n), "starts": starts, "pieces": count, "offsets": taps,
        "steps": -(-run // k_group(cpu)), "scratch": Scratch(chunks * chunk), "scratch_size": chunk, "pitch": made.pitch,
        "seen": made.seen, "rows": made.rows, "row_chunks": row_chunks, "block": made.block, **numbers},
        chunks, macs=windows.m * node[1].size)


def row_terms(cpu: Cpu, windows: Windows, factor: int, zero: int) -> Packed:
    """What the tiles sum the windows with: see `emit_tile` in ops/simd/tile_int8.py."""
    ones = padded(cpu, windows, np.ones(windows.k, np.int8)).reshape(pieces(windows)[0], -1)[0]
    terms = np.concatenate([np.array([factor, zero], np.int32), ones.view(np.int32)])
    return Packed(("row terms", terms.tobytes()), lambda: terms)


# ---- kernels -------------------------------------------------------------------------------------

_run = ByAddress(SEGMENT_ARGUMENTS)


@device
def fill_pixels(p, row, pixel, count, pad):
    """Pad so many pixels of a staged row."""
    fill_staged(row + pixel * p.channels * stage_bytes(), count * p.channels, pad, p.flip)


@device
def copy_pixels(p, row, pixel, source, count):
    """Stage so many pixels of the input."""
    stage(p.x + source * p.channels, row + pixel * p.channels * stage_bytes(), 1, 0, 0, count * p.channels, p.flip)


_stage_band = make_stage(fill_pixels, copy_pixels)


@kernel(ROWS)
def conv_rows_int8(p, begin, end):
    """A chunk is some output rows of an image."""
    staged, size, nr = p.scratch + begin * p.scratch_size, stage_bytes(), int8_columns()
    panels, panel_size = (p.n + nr - 1) // nr, (HEADER + p.pieces * p.steps) * nr * 4        # panels of a group
    mr, ldc = int8_rows(), p.groups * p.n * p.out_bytes
    for c in prange(begin, end):
        image, top = c // p.row_chunks, c % p.row_chunks * p.rows
        bottom, pad, terms = min(p.out_height, top + p.rows), p.pad, p.terms
        if p.factors != 0:
            pad, terms = np.int64(load_i32(p.factors, 2 * image)), p.factors + 8 * image
        for first in range(top, bottom, p.block):
            count = min(p.block, bottom - first)
            rows = (count - 1) * p.sh + (p.kh - 1) * p.dh + 1
            _stage_band(p, staged, image, first * p.sh - p.top, rows, -p.left, p.seen, pad)
            for q in range(p.groups * panels):
                group, left = q // panels, p.n - q % panels * nr
                tile = p.tile if left >= nr else p.last_tile
                y = p.y + (image * p.out_height + first) * p.out_width * ldc + (group * p.n + p.n - left) * p.out_bytes
                here, panel, pixels = staged + group * p.depth * size, p.w + q * panel_size, count * p.out_width
                whole = pixels // mr * mr
                if whole > 0:
                    _run(tile, here, p.starts, panel, y, ldc, whole, p.steps, left, terms, p.low, p.high, p.zero_point,
                         p.out_flip, p.pieces, p.offsets)
                if whole < pixels:
                    _run(tile, here, p.starts + 8 * whole, panel, y + whole * ldc, ldc, pixels - whole, p.steps, left, terms,
                         p.low, p.high, p.zero_point, p.out_flip, p.pieces, p.offsets)
    return 0
