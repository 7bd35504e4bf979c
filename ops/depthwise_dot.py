"""Depthwise convolution of 8-bit codes by dot products of bytes: kernels of the walk in ops/depthwise_tiles.py."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_tiles import PARTS, SHAPES, TILED, WALK, make_block, special, tiled_params, walk_params
from litejit.ops.simd.depthwise_dot import TWO_ROWS, columns_dot, dot_shape, has_dot_tiles
from litejit.ops.simd.tiles import grain

CODES = np.dtype([*TILED, *WALK, *((name, "i8") for name in ("low", "high", "zero_point"))], align=True)
CHANNELS = 24                         # with fewer most of half a register is idle


def suits(cpu: Cpu, windows: Windows, weights: np.ndarray) -> bool:
    """Whether there are tiles for windows and weights [taps, channels]."""
    fits = special(windows) in SHAPES and windows.channels >= CHANNELS and has_dot_tiles(cpu)
    return fits and weights.min() >= -128 and weights.max() <= 127


def dot_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, pad: Any) -> tuple[dict[str, Any], int]:
    """(values of the fields CODES but for bounds and zero point, chunks)."""
    shape = dot_shape(cpu, *special(windows))
    walk, chunks = walk_params(windows, shape, x, y, grain(cpu, "depthwise_int8"))
    return {**tiled_params(windows, shape, w, pad, windows.channels), **walk}, chunks


def dot_kernel(type: str, windows: Windows) -> Kernel:
    """The kernel for codes of `type` "i8" or "u8" and a shape of windows."""
    return _KERNELS[type, special(windows)]


# ---- kernels -------------------------------------------------------------------------------------

def _make(type: str, width: int, stride: int) -> Kernel:
    def caller(tile: Any) -> Any:
        @device
        def run(p, table, tiles, step, y, below, columns):
            tile(table, tiles, step, p.w, y, p.channels, below, p.channels, columns, p.low, p.high, p.zero_point)
        return run
    part_of = {"less": "whole", "row": "row" if (width, stride) == TWO_ROWS else "whole"}
    block = make_block({part: columns_dot(type, width, stride, part_of.get(part, part)) for part in PARTS}, caller, 1)

    @kernel(CODES, name=f"depthwise_codes_{type}_{width}s{stride}")
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table, row_bytes = p.table + begin * p.table_size, p.out_width * p.channels
        for c in prange(begin, end):
            top, bottom = c * p.rows, min(p.m // p.out_width, (c + 1) * p.rows)
            block(p, p.x, 0, table, top, bottom, p.y + top * row_bytes)
        return 0
    return depthwise


_KERNELS = {(type, shape): _make(type, *shape) for type in ("i8", "u8") for shape in SHAPES}
