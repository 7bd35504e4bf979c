"""CONV_2D of 8-bit codes whose pixels are no copies: first layers, others with few channels, groups, dilation.

The input rows that some output rows see are staged once, with the padding around them (ops/conv_int8.py stages the window of
every pixel). Every pixel of an output row begins a fixed step after the one before it, and its window lies in pieces at fixed
offsets from there: rows of the kernel, or taps where channels of other groups or pixels lie between. Ends in XNNPACK's codes.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress
from litejit.ops.base import Packed, Scratch, Step, Target, chunked
from litejit.ops.conv_costs import pieces
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.gemm_int8 import HEADER, SEGMENT_ARGUMENTS, SEGMENT_TILES
from litejit.ops.simd.stage_int8 import fill_staged, flip, k_group, stage, stage_bytes
from litejit.ops.simd.tiles import grain, int8_columns, int8_rows
from litejit.planner.graph import Node

ROWS = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "n", "groups", "tile", "half_tile", "pieces", "offsets", "steps", "scratch", "scratch_size", "terms",
    "pitch", "seen", "flip", "pad", "rows", "row_chunks", "block", "low", "high", "zero_point", "out_flip"))], align=True)
BAND_BYTES = 1 << 15                  # of input rows that stay in L1 while the panels of a group pass
LINE = 64                             # bytes of a cache line


def padded(cpu: Cpu, windows: Windows, weights: np.ndarray) -> np.ndarray:
    """Weights [..., k] with zeros behind every piece of a window, so that it fills whole groups of k."""
    (count, run), group = pieces(windows), k_group(cpu)
    cut = weights.reshape(*weights.shape[:-1], count, run)
    wide = np.zeros((*cut.shape[:-1], -(-run // group) * group), weights.dtype)
    wide[..., :run] = cut
    return wide.reshape(*weights.shape[:-1], -1)


def rows_step(node: Node, target: Target, windows: Windows, x_type: str, panels: Packed, n: int, pad: int,
              numbers: dict[str, int]) -> Step:
    """The step of a node with n outputs per group; panels: of `padded` weights; numbers: values of the fields from low on,
    row_factor, sum_zero."""
    cpu, y = target.cpu, node.out
    size, work = (1 if cpu.dot else 2), windows.out_width * windows.groups * n * windows.k
    count, run = pieces(windows)
    row_chunks, rows = chunked(windows.out_height, max(1, grain(cpu, "int8") // max(work, 1)))
    row_bytes = _seen(windows) * windows.channels * size
    pitch, halo = -(-row_bytes // 64) * 64 | 64, (windows.kh - 1) * windows.dh + 1
    touched = min(pitch, _seen(windows) * (-(-windows.depth * size // LINE) * LINE))     # by a group, of a row
    block = max(1, min(rows, (BAND_BYTES // touched - halo) // windows.sh + 1))
    chunk, chunks = ((block - 1) * windows.sh + halo) * pitch + 128, windows.images * row_chunks
    factor, zero = numbers.pop("row_factor"), numbers.pop("sum_zero")
    tile, half_tile = SEGMENT_TILES[factor != 0]
    return Step(node, conv_rows_int8, {
        **windows.params(), "x": node[0], "w": panels, "y": y, "n": n, "groups": windows.groups, "tile": tile,
        "half_tile": half_tile, "pieces": count, "offsets": _offsets(windows, pitch, size), "steps": -(-run // k_group(cpu)),
        "scratch": Scratch(chunks * chunk), "scratch_size": chunk, "pitch": pitch, "seen": _seen(windows), "pad": pad,
        "terms": _terms(cpu, windows, factor, zero) if factor else None, "flip": flip(cpu, x_type), "rows": rows,
        "row_chunks": row_chunks, "block": block, **numbers}, chunks, macs=windows.m * node[1].size)


def _seen(windows: Windows) -> int:
    """Pixels of an input row, and of the padding around it, that an output row sees."""
    return (windows.out_width - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1


def _offsets(windows: Windows, pitch: int, size: int) -> Packed:
    """Where the pieces of a window lie: int64 bytes from its first one on; size: bytes of a staged element."""
    tap = windows.dw * windows.channels * size
    columns = range(windows.kw if pieces(windows)[0] > windows.kh else 1)
    offsets = np.array([ky * windows.dh * pitch + kx * tap for ky in range(windows.kh) for kx in columns], np.int64)
    return Packed(("pieces", offsets.tobytes()), lambda: offsets)


def _terms(cpu: Cpu, windows: Windows, factor: int, zero: int) -> Packed:
    """What the tiles sum the rows with: see `emit_tile` in ops/simd/gemm_int8.py."""
    ones = padded(cpu, windows, np.ones(windows.k, np.int8)).reshape(pieces(windows)[0], -1)[0]
    terms = np.concatenate([np.array([factor, zero], np.int32), ones.view(np.int32)])
    return Packed(("row terms", terms.tobytes()), lambda: terms)


# ---- kernels -------------------------------------------------------------------------------------

_run = ByAddress(SEGMENT_ARGUMENTS)


@device
def stage_band(p, staged, image, first, count):
    """The input rows first .. first + count of an image as the windows see them: with the padding left and right."""
    size, x_row = stage_bytes(), p.width * p.channels
    whole, before = p.seen * p.channels, p.left * p.channels
    run = min(x_row, whole - before)
    for i in range(count):
        to, y = staged + i * p.pitch, first + i
        if y < 0 or y >= p.height:
            fill_staged(to, whole, p.pad, p.flip)
            continue
        if before > 0:
            fill_staged(to, before, p.pad, p.flip)
        stage(p.x + (image * p.height + y) * x_row, to + before * size, 1, 0, 0, run, p.flip)
        if before + run < whole:
            fill_staged(to + (before + run) * size, whole - before - run, p.pad, p.flip)


@device
def row_tiles(p, tile, here, step, panel, y, ldc, left):
    """The tiles of an output row and a panel."""
    for x in range(0, p.out_width, int8_rows()):
        _run(tile, here + x * step, step, panel, y + x * ldc, ldc, min(int8_rows(), p.out_width - x), p.steps, left,
             p.terms, p.low, p.high, p.zero_point, p.out_flip, p.pieces, p.offsets)


@kernel(ROWS)
def conv_rows_int8(p, begin, end):
    """A chunk is some output rows of an image."""
    staged, size, nr = p.scratch + begin * p.scratch_size, stage_bytes(), int8_columns()
    step, panel_size, ldc = p.sw * p.channels * size, (HEADER + p.pieces * p.steps) * nr * 4, p.groups * p.n
    panels = (p.n + nr - 1) // nr                                          # of a group
    for c in prange(begin, end):
        image, top = c // p.row_chunks, c % p.row_chunks * p.rows
        bottom = min(p.out_height, top + p.rows)
        for first in range(top, bottom, p.block):
            count = min(p.block, bottom - first)
            stage_band(p, staged, image, first * p.sh - p.top, (count - 1) * p.sh + (p.kh - 1) * p.dh + 1)
            for q in range(p.groups * panels):
                group, column = q // panels, q % panels * nr
                tile = p.tile if 2 * (p.n - column) > nr else p.half_tile
                for r in range(count):
                    y = p.y + (image * p.out_height + first + r) * p.out_width * ldc + group * p.n + column
                    row_tiles(p, tile, staged + r * p.sh * p.pitch + group * p.depth * size, step, p.w + q * panel_size, y, ldc,
                              p.n - column)
    return 0
