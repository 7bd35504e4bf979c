"""Bands: input rows of a convolution that are staged with the padding around them, so that windows are read in place.

The window of an output pixel is some pieces of the staged rows, at the same offsets from its beginning for all pixels. A band
serves some output rows at once; their pixels follow each other in the output, and fill tiles across the rows.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device
from litejit.compiler.cpu import Cpu
from litejit.ops.base import MAX_CHUNKS, Packed
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.tiles import grain, tile_shape

BAND_BYTES = 1 << 15                  # of input rows that stay in L1 while the panels of a group pass
MOST_BYTES = 1 << 18                  # of a band, which every chunk has: dilation may put much between the rows of a window
MORE = 64                             # rows that a chunk may have beside those that are worth one
LINE = 64                             # bytes of a cache line


class Band(NamedTuple):
    """Staged input rows of `seen` pixels, `pitch` bytes apart, `staged` of them: for `block` of the `rows` of a chunk.

    tiles: how many tiles of pixels an image has then.
    """

    seen: int
    pitch: int
    staged: int
    block: int
    rows: int
    tiles: int


def value_bytes(cpu: Cpu, kind: str) -> int:
    """Bytes of a staged value of the "f32" or "int8" tiles."""
    return 4 if kind == "f32" else 1 if cpu.dot else 2


def pieces(windows: Windows) -> tuple[int, int]:
    """(runs of memory that a window is made of, values in one)."""
    if windows.groups == windows.dw == 1:
        return windows.kh, windows.kw * windows.depth
    return windows.kh * windows.kw, windows.depth


def staged_row(windows: Windows, columns: int, size: int) -> tuple[int, int]:
    """(pixels that so many output columns see, bytes from row to row of them: an odd number of cache lines)."""
    seen = (columns - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1
    return seen, -(-seen * windows.channels * size // LINE) * LINE | LINE


def band(cpu: Cpu, windows: Windows, n: int, kind: str = "int8") -> Band:
    """The band of windows with n outputs per group for tiles of a kind, "f32" or "int8"."""
    mr, size, height, width = tile_shape(cpu, kind)[0], value_bytes(cpu, kind), windows.out_height, windows.out_width
    seen, pitch = staged_row(windows, width, size)
    touched = min(pitch, seen * (-(-windows.depth * size // LINE) * LINE))         # of a row, by a group
    halo = (windows.kh - 1) * windows.dh + 1
    most = max(1, (BAND_BYTES // touched - halo) // windows.sh + 1)

    def tiles(rows: int) -> int:
        """What is left over of a block of rows fills no tile."""
        blocks, rest = divmod(rows, most)
        return blocks * -(-most * width // mr) + -(-rest * width // mr)

    def of_image(rows: int) -> int:
        return height // rows * tiles(rows) + tiles(height % rows)
    worth = max(1, grain(cpu, kind) // max(1, width * windows.groups * n * windows.k), -(-height // MAX_CHUNKS))
    least = min(worth, height)
    rows = min(range(least, max(least, min(least + MORE, -(-height // 4))) + 1), key=of_image)
    block = min(rows, most)
    return Band(seen, pitch, (block - 1) * windows.sh + halo, block, rows, of_image(rows))


def places(down: tuple[int, int], across: tuple[int, int]) -> Packed:
    """int64 bytes of places below and beside each other; each axis: (how many, bytes from one to the next)."""
    offsets = np.add.outer(np.arange(down[0]) * down[1], np.arange(across[0]) * across[1]).astype(np.int64)
    return Packed(("places", down, across), lambda: offsets)


def make_stage(fill: Any, copy: Any) -> Any:
    """Device function (p, staged, image, first, count, left, seen, pad): the input rows first .. first + count of an image,
    `seen` pixels from column `left` on, with the padding around them; one for every parameter record (Numba mixes them up).

    fill(p, row, pixel, count, pad) pads pixels of a staged row; copy(p, row, pixel, source, count) stages those of the input
    from number `source` on.
    """
    @device
    def stage_band(p, staged, image, first, count, left, seen, pad):
        before = max(0, min(-left, seen))
        run = max(0, min(p.width, left + seen) - max(left, 0))
        for i in range(count):
            row, y = staged + i * p.pitch, first + i
            if y < 0 or y >= p.height:
                fill(p, row, 0, seen, pad)
                continue
            if before > 0:
                fill(p, row, 0, before, pad)
            copy(p, row, before, (image * p.height + y) * p.width + max(left, 0), run)
            if before + run < seen:
                fill(p, row, before + run, seen - before - run, pad)
    return stage_band
