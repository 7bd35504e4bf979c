"""The two ways of convolutions of 8-bit codes, and which is the faster one: rows read in place, or windows gathered.

Rows that are read in place (ops/conv_rows_int8.py) lie in a band of staged input rows, and windows in pieces of them. What a
way takes is estimated in cycles of one output row with AVX-512 VNNI; only how the estimates compare counts. The constants were
fitted to measured ratios of the two ways, of 44 layers at random (Zen 4).
"""
from __future__ import annotations

import math
from typing import NamedTuple

from litejit.compiler.cpu import Cpu
from litejit.ops.base import MAX_CHUNKS
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.stage_int8 import k_group
from litejit.ops.simd.tiles import grain, tile_shape

BAND_BYTES = 1 << 15                  # of input rows that stay in L1 while the panels of a group pass
MOST_BYTES = 1 << 18                  # of a band, which every chunk has: dilation may put much between the rows of a window
MORE = 64                             # rows that a chunk may have beside those that are worth one
LINE = 64                             # bytes of a cache line
PIXEL, SUM, RUN = 12, 14, 3           # gathering: a pixel of a group, the sum of its window, a run of its window
ROW = 20                              # staging a row of the image
CALL, END = 30, 4                     # a tile, making codes of a register of sums


# ---- layout --------------------------------------------------------------------------------------

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


def pieces(windows: Windows) -> tuple[int, int]:
    """(runs of memory that a window is made of, values in one)."""
    if windows.groups == windows.dw == 1:
        return windows.kh, windows.kw * windows.depth
    return windows.kh * windows.kw, windows.depth


def band(cpu: Cpu, windows: Windows, n: int) -> Band:
    """The band of windows with n outputs per group."""
    mr, size, height, width = tile_shape(cpu, "int8")[0], 1 if cpu.dot else 2, windows.out_height, windows.out_width
    seen = (width - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1
    pitch = -(-seen * windows.channels * size // LINE) * LINE | LINE
    touched = min(pitch, seen * (-(-windows.depth * size // LINE) * LINE))         # of a row, by a group
    halo = (windows.kh - 1) * windows.dh + 1
    most = max(1, (BAND_BYTES // touched - halo) // windows.sh + 1)

    def tiles(rows: int) -> int:
        """What is left over of a block of rows fills no tile."""
        blocks, rest = divmod(rows, most)
        return blocks * -(-most * width // mr) + -(-rest * width // mr)

    def of_image(rows: int) -> int:
        return height // rows * tiles(rows) + tiles(height % rows)
    worth = max(1, grain(cpu, "int8") // max(1, width * windows.groups * n * windows.k), -(-height // MAX_CHUNKS))
    least = min(worth, height)
    rows = min(range(least, max(least, min(least + MORE, -(-height // 4))) + 1), key=of_image)
    block = min(rows, most)
    return Band(seen, pitch, (block - 1) * windows.sh + halo, block, rows, of_image(rows))


# ---- estimates -----------------------------------------------------------------------------------

def gathered(cpu: Cpu, windows: Windows, n: int, sums: bool) -> float:
    """n: outputs of a group; sums: those of the windows are needed."""
    (mr, nr), (count, run) = tile_shape(cpu, "int8"), pieces(windows)
    pixel = PIXEL + sums * SUM + count * (RUN + 2 * -(-run // _staged_lanes(cpu)))
    products = -(-n // (nr // 2)) * (END + -(-windows.k // k_group(cpu)))
    return windows.groups * windows.out_width * (pixel + products + CALL / mr * -(-n // nr))


def in_rows(cpu: Cpu, windows: Windows, n: int, sums: bool) -> float:
    """As `gathered`; infinite where ops/conv_rows_int8.py cannot compute it, or has nothing to gain."""
    if windows.kh * windows.kw == 1 or windows.m == 0 or (sums and cpu.vbytes < 64):      # registers for sums are missing there
        return math.inf
    (mr, nr), (count, run), made = tile_shape(cpu, "int8"), pieces(windows), band(cpu, windows, n)
    if made.staged * made.pitch > MOST_BYTES:
        return math.inf
    panels, steps = -(-n // nr), count * -(-run // k_group(cpu))
    tile = panels * (CALL + sums * mr * steps) + mr * -(-n // (nr // 2)) * (END + steps)
    row = ROW + 2 * -(-windows.width * windows.channels // _staged_lanes(cpu))
    return made.staged / made.block * row + windows.groups * made.tiles / windows.out_height * tile


def _staged_lanes(cpu: Cpu) -> int:
    return cpu.vbytes if cpu.dot else cpu.vbytes // 2
