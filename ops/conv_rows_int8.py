"""CONV_2D of 8-bit codes whose pixels are no copies: first layers, and others with few channels.

The input rows that some output rows see are staged once, with the padding around them (ops/conv_int8.py stages the window of
every pixel). A row of the kernel is one run of them, and every pixel of an output row begins a fixed step after the one before
it, so that the tiles of the GEMM take the rows of the kernel as pieces. Ends in XNNPACK's codes.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress
from litejit.ops.base import Packed, Scratch, Step, Target, chunked
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.gemm_int8 import HEADER, SEGMENT_ARGUMENTS, SEGMENT_TILES
from litejit.ops.simd.stage_int8 import fill_staged, flip, k_group, stage, stage_bytes
from litejit.ops.simd.tiles import grain, int8_columns, int8_rows, tile_shape
from litejit.planner.graph import Node

ROWS = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "n", "tile", "half_tile", "groups", "scratch", "scratch_size", "terms", "pitch", "flip", "pad", "rows",
    "row_chunks", "block", "low", "high", "zero_point", "out_flip"))], align=True)
BAND_BYTES = 1 << 15                  # of input rows that stay in L1 while all panels pass
GATHERED, SUM, RUN, STAGED = 12, 14, 6, 40    # estimated cycles: of a pixel in ops/conv_int8.py, its sum, its run; a staged row


def fits(cpu: Cpu, windows: Windows, n: int, sums: bool) -> bool:
    """Whether it should be faster than staged pixels, by cycles of an output row with AVX-512 VNNI; sums: they are needed."""
    if windows.groups > 1 or windows.dw > 1 or windows.kh * windows.kw == 1 or windows.m == 0:
        return False
    if sums and cpu.vbytes < 64:                            # their registers would be missing elsewhere
        return False
    (mr, nr), run = tile_shape(cpu, "int8"), windows.kw * windows.depth
    vectors, width = -(-n // (nr // 2)), windows.out_width
    group, lanes = k_group(cpu), cpu.vbytes if cpu.dot else cpu.vbytes // 2
    each = vectors + -(-n // nr) if sums else vectors
    tiles = each * (-(-width // mr) * mr) * windows.kh * -(-run // group)
    staged = min(windows.sh, windows.kh) * (STAGED + 2 * -(-windows.width * windows.channels // lanes))
    gathered = width * ((GATHERED + SUM if sums else GATHERED) + windows.kh * (RUN + 2 * -(-run // lanes)))
    return tiles + staged < gathered + vectors * width * -(-windows.k // group)


def padded(cpu: Cpu, windows: Windows, weights: np.ndarray) -> np.ndarray:
    """Weights [..., k] with zeros behind every row of the kernel, so that it fills whole groups of k."""
    run, group = windows.kw * windows.depth, k_group(cpu)
    rows = weights.reshape(*weights.shape[:-1], windows.kh, run)
    wide = np.zeros((*rows.shape[:-1], -(-run // group) * group), weights.dtype)
    wide[..., :run] = rows
    return wide.reshape(*weights.shape[:-1], -1)


def rows_step(node: Node, target: Target, windows: Windows, x_type: str, panels: Packed, n: int, pad: int,
              numbers: dict[str, int]) -> Step:
    """The step of a node; panels: of `padded` weights; numbers: values of the fields from low on, row_factor, sum_zero."""
    cpu, y = target.cpu, node.out
    size, work = (1 if cpu.dot else 2), windows.out_width * n * windows.k
    row_chunks, rows = chunked(windows.out_height, max(1, grain(cpu, "int8") // max(work, 1)))
    row_bytes = ((windows.out_width - 1) * windows.sw + windows.kw) * windows.channels * size
    pitch, halo = -(-row_bytes // 64) * 64 | 64, (windows.kh - 1) * windows.dh + 1
    block = max(1, min(rows, (BAND_BYTES // pitch - halo) // windows.sh + 1))
    chunk, chunks = ((block - 1) * windows.sh + halo) * pitch + 128, windows.images * row_chunks
    factor, zero = numbers.pop("row_factor"), numbers.pop("sum_zero")
    tile, half_tile = SEGMENT_TILES[factor != 0]
    return Step(node, conv_rows_int8, {
        **windows.params(), "x": node[0], "w": panels, "y": y, "n": n, "tile": tile, "half_tile": half_tile,
        "groups": -(-windows.kw * windows.depth // k_group(cpu)), "scratch": Scratch(chunks * chunk), "scratch_size": chunk,
        "terms": _terms(cpu, windows, factor, zero) if factor else None, "pitch": pitch, "flip": flip(cpu, x_type), "pad": pad,
        "rows": rows, "row_chunks": row_chunks, "block": block, **numbers}, chunks, macs=windows.m * node[1].size)


def _terms(cpu: Cpu, windows: Windows, factor: int, zero: int) -> Packed:
    """What the tiles sum the rows with: see `emit_tile` in ops/simd/gemm_int8.py."""
    ones = padded(cpu, windows, np.ones(windows.k, np.int8)).reshape(windows.kh, -1)[0]
    terms = np.concatenate([np.array([factor, zero], np.int32), ones.view(np.int32)])
    return Packed(("row terms", terms.tobytes()), lambda: terms)


# ---- kernels -------------------------------------------------------------------------------------

_run = ByAddress(SEGMENT_ARGUMENTS)


@device
def stage_band(p, staged, image, first, count):
    """The input rows first .. first + count of an image as the windows see them: with the padding left and right."""
    size, x_row = stage_bytes(), p.width * p.channels
    whole, before = ((p.out_width - 1) * p.sw + p.kw) * p.channels, p.left * p.channels
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
def row_tiles(p, tile, here, step, panel, y, left):
    """The tiles of an output row and a panel."""
    for x in range(0, p.out_width, int8_rows()):
        _run(tile, here + x * step, step, panel, y + x * p.n, p.n, min(int8_rows(), p.out_width - x), p.groups, left,
             p.terms, p.low, p.high, p.zero_point, p.out_flip, p.kh, p.dh * p.pitch)


@kernel(ROWS)
def conv_rows_int8(p, begin, end):
    """A chunk is some output rows of an image."""
    staged, size, nr = p.scratch + begin * p.scratch_size, stage_bytes(), int8_columns()
    step, panel_size = p.sw * p.channels * size, (HEADER + p.kh * p.groups) * nr * 4
    for c in prange(begin, end):
        image, top = c // p.row_chunks, c % p.row_chunks * p.rows
        bottom = min(p.out_height, top + p.rows)
        for first in range(top, bottom, p.block):
            count = min(p.block, bottom - first)
            stage_band(p, staged, image, first * p.sh - p.top, (count - 1) * p.sh + (p.kh - 1) * p.dh + 1)
            for q in range((p.n + nr - 1) // nr):
                left = p.n - q * nr
                tile = p.tile if 2 * left > nr else p.half_tile
                for r in range(count):
                    y = p.y + (image * p.out_height + first + r) * p.out_width * p.n + q * nr
                    row_tiles(p, tile, staged + r * p.sh * p.pitch, step, p.w + q * panel_size, y, left)
    return 0
