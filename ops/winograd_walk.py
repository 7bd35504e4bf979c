"""Winograd's convolutions block by block of tiles: what the kernels for float32, bfloat16 and codes share.

A block of tiles at a time: input transform, a matrix product for each of the (m + 2)**2 points, output transform; panel by
panel, so that the products stay in the cache. Where there are few tiles all of them are transformed by a step in front and
the chunks share them.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import store_i64
from litejit.ops.base import MAX_CHUNKS, Scratch
from litejit.ops.conv_geometry import FIELDS, Windows

WALK = [*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "v", "size", "scratch", "scratch_size", "sums_at", "sink_at", "v_at", "n", "tiles_x", "tiles_y", "tiles",
    "block", "rows", "panels", "row_chunks", "column_chunks", "pitch", "v_step", "sums_step", "point_bytes",
    "input", "output"))]
"""Fields of every kernel of this kind; size: of a tile of inputs, along a side; pitch: bytes of a tile's transformed inputs at
a point; point_bytes: of a panel of weights at a point; w: [panel][point] of those; input, output: micro-kernels."""
BLOCK_BYTES = 1 << 18                 # transformed inputs of a block, in L2 beside the weights that pass
SHARED_BYTES = 1 << 21                # transformed inputs of a layer that are made by a step of their own
SCRATCH_BYTES = 1 << 22               # transformed inputs of all chunks, where they have their own
TABLE_BYTES = 320                     # of 6 x 6 addresses


def suits(windows: Windows) -> bool:
    """Whether Winograd's tiles can compute these windows: 3 x 3, stride 1."""
    shape = (windows.kh, windows.kw, windows.sh, windows.sw, windows.dh, windows.dw, windows.groups)
    return shape == (3, 3, 1, 1, 1, 1, 1) and windows.m > 0


def tile_count(windows: Windows, m: int) -> int:
    """The tiles of m x m outputs."""
    return windows.images * -(-windows.out_height // m) * -(-windows.out_width // m)


def divide(windows: Windows, n: int, m: int, nr: int, pitch: int, tile: tuple[int, int], least: int
           ) -> tuple[dict[str, Any], int, tuple[dict[str, Any], int] | None]:
    """(fields of a kernel of products in tiles of m x m, its chunks, the same of the step of the inputs if there is one).

    nr: columns of a panel; tile: most and fewest rows of the GEMM's tiles; least: multiply-accumulates worth a chunk.
    """
    tall, short = tile
    k, points = windows.depth, (m + 2) ** 2
    tiles_y, tiles_x = -(-windows.out_height // m), -(-windows.out_width // m)
    count, panels = tile_count(windows, m), -(-n // nr)
    block = min(count, max(2 * tall, BLOCK_BYTES // (points * pitch) // short * short))
    blocks = -(-count // block)
    shared = blocks < MAX_CHUNKS and points * count * pitch <= SHARED_BYTES
    wanted = max(1, min(MAX_CHUNKS, points * count * k * n // least))
    row_chunks = min(wanted, blocks, blocks if shared else max(2, SCRATCH_BYTES // (points * block * pitch)))
    rows = -(-blocks // row_chunks) * block
    row_chunks = -(-count // rows)
    per_chunk = -(-panels // max(1, min(panels, wanted // row_chunks))) if shared else panels
    column_chunks = -(-panels // per_chunk)
    chunks = row_chunks * column_chunks
    v_step, sums_step = _odd((count if shared else block) * pitch), _odd(block * nr * 4)
    sums_at = 2 * TABLE_BYTES + 64                                  # addresses of inputs, of outputs; the check
    sink_at = sums_at + points * sums_step
    v_at = sink_at + 4 * nr
    size = v_at + (0 if shared else points * v_step)
    every = Scratch(points * v_step) if shared else None
    place = {**windows.params(), "v": every, "tiles_x": tiles_x, "tiles_y": tiles_y, "tiles": count, "pitch": pitch,
             "v_step": v_step, "size": m + 2}
    fields = {**place, "scratch": Scratch(chunks * size), "scratch_size": size, "sums_at": sums_at, "sink_at": sink_at,
              "v_at": v_at, "n": n, "block": block, "rows": rows, "panels": per_chunk, "row_chunks": row_chunks,
              "column_chunks": column_chunks, "sums_step": sums_step}
    if not shared:
        return fields, chunks, None
    parts = max(1, min(MAX_CHUNKS, points * count * k * 16 // least))
    rows = -(-count // parts)
    parts = -(-count // rows)
    place.update(scratch=Scratch(parts * TABLE_BYTES), scratch_size=TABLE_BYTES, rows=rows)
    return fields, chunks, (place, parts)


def _odd(nbytes: int) -> int:
    """An odd number of cache lines: the points of a tile do not fall on each other in the cache."""
    return 64 * (-(-nbytes // 64) | 1)


# ---- kernels ---------------------------------------------------------------------------------------

@device
def addresses(table, size, image, top, left, height, width, pixel, outside):
    """Addresses of the size x size pixels from (top, left) on; `outside` for those outside of the image."""
    at = 0
    for y in range(top, top + size):
        here = image + (y * width + left) * pixel
        for x in range(left, left + size):
            inside = y >= 0 and y < height and x >= 0 and x < width
            store_i64(table, at, here if inside else outside)
            here += pixel
            at += 1


def make_inputs(name: str, record: np.dtype, inputs: Any) -> Kernel:
    """The kernel of the step in front; device function inputs(p, table, first, count, v) transforms tiles."""
    @kernel(record, name=name)
    def all_inputs(p, begin, end):
        """A chunk is some tiles."""
        table = p.scratch + begin * p.scratch_size
        for c in prange(begin, end):
            first = c * p.rows
            inputs(p, table, first, min(p.rows, p.tiles - first), p.v + first * p.pitch)
        return 0
    return all_inputs


def make_products(name: str, record: np.dtype, width: Any, inputs: Any, product: Any, outputs: Any) -> Kernel:
    """The kernel of products and outputs.

    width(): the columns of a panel. Device functions: inputs as above; product(p, v, w, sums, count, columns) is the product
    of a point; outputs(p, scratch, first, count, q) transforms what panel q gave.
    """
    @kernel(record, name=name)
    def winograd(p, begin, end):
        """A chunk is some blocks of tiles, and some panels of columns where the transformed inputs are there."""
        nr, points = width(), p.size * p.size
        scratch = p.scratch + begin * p.scratch_size
        sums = scratch + p.sums_at
        for c in prange(begin, end):
            panel = c % p.column_chunks * p.panels
            columns = min(p.n, (panel + p.panels) * nr)
            row = c // p.column_chunks * p.rows
            last = min(p.tiles, row + p.rows)
            for first in range(row, last, p.block):
                count = min(p.block, last - first)
                v = p.v + first * p.pitch
                if p.v == 0:
                    v = scratch + p.v_at
                    inputs(p, scratch, first, count, v)
                for q in range(panel, (columns + nr - 1) // nr):
                    for t in range(points):
                        product(p, v + t * p.v_step, p.w + (q * points + t) * p.point_bytes, sums + t * p.sums_step, count,
                                min(nr, p.n - q * nr))
                    outputs(p, scratch, first, count, q)
        return 0
    return winograd
