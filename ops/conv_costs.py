"""What a convolution of 8-bit codes takes, estimated: in rows read in place, or with the window of every pixel gathered.

Cycles of one output row with AVX-512 VNNI, for choices between ways and between numbers of groups: only how they compare
counts. The constants were fitted to measured ratios of the two ways, of 44 layers at random (Zen 4).
"""
from __future__ import annotations

import math

from litejit.compiler.cpu import Cpu
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.stage_int8 import k_group
from litejit.ops.simd.tiles import tile_shape

PIXEL, SUM, RUN = 12, 14, 3           # gathering: a pixel of a group, the sum of its window, a run of its window
ROW = 20                              # staging a row of the image
CALL, END = 30, 4                     # a tile, making codes of a register of sums


def pieces(windows: Windows) -> tuple[int, int]:
    """(runs of memory that a window is made of, values in one)."""
    if windows.groups == windows.dw == 1:
        return windows.kh, windows.kw * windows.depth
    return windows.kh * windows.kw, windows.depth


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
    (mr, nr), (count, run) = tile_shape(cpu, "int8"), pieces(windows)
    panels, steps = -(-n // nr), count * -(-run // k_group(cpu))
    tile = panels * (CALL + sums * mr * steps) + mr * -(-n // (nr // 2)) * (END + steps)
    staged = min(windows.sh, windows.kh) * (ROW + 2 * -(-windows.width * windows.channels // _staged_lanes(cpu)))
    return staged + windows.groups * -(-windows.out_width // mr) * tile


def _staged_lanes(cpu: Cpu) -> int:
    return cpu.vbytes if cpu.dot else cpu.vbytes // 2
