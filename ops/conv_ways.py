"""The two ways of convolutions of 8-bit codes, and which is the faster one: rows read in place, or windows gathered.

Rows that are read in place (ops/conv_rows_int8.py) lie in a band of staged input rows, and windows in pieces of them. What a
way takes is estimated in cycles of one output row with AVX-512 VNNI; only how the estimates compare counts. The constants were
fitted to measured ratios of the two ways, of 44 layers at random (Zen 4).
"""
from __future__ import annotations

import math

from litejit.compiler.cpu import Cpu
from litejit.ops.conv_band import MOST_BYTES, band, pieces
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.stage_int8 import k_group
from litejit.ops.simd.tiles import tile_shape

PIXEL, SUM, RUN = 12, 14, 3           # gathering: a pixel of a group, the sum of its window, a run of its window
ROW = 20                              # staging a row of the image
CALL, END = 30, 4                     # a tile, making codes of a register of sums


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
