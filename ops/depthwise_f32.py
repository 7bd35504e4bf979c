"""float32 depthwise convolution: kernels of the walk in ops/depthwise_tiles.py, with functions and sums behind the rows."""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_tiles import PARTS, SHAPES, TILED, WALK, make_block, special, tiled_params, walk_params
from litejit.ops.pixel_sums import SUMS, add_pixels, clear_sums
from litejit.ops.simd.depthwise_f32 import columns_f32, part_shape
from litejit.ops.simd.tiles import grain
from litejit.ops.tails import RECORD, TAIL, finish

TAIL_BYTES = 1 << 17                  # of rows that are finished before a function or a sum runs over them
FLOATS = [("lo", "f4"), ("hi", "f4"), *TILED]
"""Fields that `float_block` reads: TILED, and bounds."""
ROWS = np.dtype([*FLOATS, *WALK, *TAIL, *SUMS], align=True)


def float_params(cpu: Cpu, windows: Windows, w: Any, bounds: tuple[float, float], pixel: int) -> dict[str, Any]:
    """Values of the fields FLOATS; w: packed weights; pixel: bytes from pixel to pixel of the input."""
    return {**tiled_params(windows, tile_shape(cpu, windows), w, zeros(windows.width * pixel), pixel), "lo": bounds[0],
            "hi": bounds[1]}


def tile_shape(cpu: Cpu, windows: Windows) -> tuple[int, int]:
    """(rows, columns) of a tile."""
    return part_shape(cpu, special(windows)[0], "whole")


def depthwise_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, bounds: tuple[float, float],
                     pixel: int) -> tuple[dict[str, Any], int]:
    """(values of the fields ROWS but for TAIL and SUMS, chunks)."""
    walk, chunks = walk_params(windows, tile_shape(cpu, windows), x, y, grain(cpu, "depthwise_f32"))
    return {**float_params(cpu, windows, w, bounds, pixel), **walk}, chunks


def depthwise_kernel(windows: Windows) -> Kernel:
    """The kernel for a shape of windows."""
    return _KERNELS[special(windows)]


# ---- kernels -------------------------------------------------------------------------------------

@cache
def float_block(width: int, stride: int, record: tuple[str, ...]) -> Any:
    """`make_block` for kernels of a width and stride (0, 1: any) and a parameter record with these names."""
    def caller(tile: Any) -> Any:
        @device
        def run(p, table, tiles, step, y, below, columns):
            tile(table, tiles, step, p.w, y, p.channels * 4, below, p.channels, columns, p.lo, p.hi, p.kh, p.kw, p.sw, p.dw)
        return run
    return make_block({part: columns_f32(width, stride, part) for part in PARTS}, caller, 4)


def _make(width: int, stride: int) -> Kernel:
    block = float_block(width, stride, ROWS.names or ())

    @kernel(ROWS, name=f"depthwise_f32{shape_mark(width, stride)}")
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table, row_bytes = p.table + begin * p.table_size, p.out_width * p.channels * 4
        group = p.rows if p.tail == 0 and p.sums == 0 else max(1, TAIL_BYTES // (row_bytes * p.made)) * p.made
        for c in prange(begin, end):
            sums = p.sums + c * p.sums_pitch if p.sums != 0 else 0
            clear_sums(sums, p.pad, p.channels)
            bottom = min(p.m // p.out_width, (c + 1) * p.rows)
            for top in range(c * p.rows, bottom, group):
                count, y = min(group, bottom - top), p.y + top * row_bytes
                block(p, p.x, 0, table, top, top + count, y)
                finish(p.tail, p.record + begin * RECORD, y, p.channels * 4, count * p.out_width, p.channels)
                add_pixels(sums, y, count * p.out_width, p.channels)
        return 0
    return depthwise


def shape_mark(width: int, stride: int) -> str:
    """What a shape adds to the name of a kernel."""
    return f"_{width}s{stride}" if width else ""


_KERNELS = {shape: _make(*shape) for shape in ((0, 1), *SHAPES)}
