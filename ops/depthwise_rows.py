"""Walking over the output rows of a depthwise convolution: tables of tap addresses, columns inside and at the borders."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import target
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import LOAD, STORE, Primitive, store_i64
from litejit.ops.base import Scratch, Step, chunked
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.tiles import tiles
from litejit.planner.graph import Node

ROWS = [*FIELDS, ("x", "i8"), ("w", "i8"), ("y", "i8"), ("pad", "i8"), ("table", "i8"), ("table_size", "i8"), ("rows", "i8")]
"""Fields of every depthwise kernel; pad: a row of padding of width * channels elements, rows: output rows of a chunk."""
EXPAND = np.dtype([("x", "i8"), ("y", "i8"), ("total", "i8"), ("times", "i8"), ("block", "i8")], align=True)
GRAIN = 1 << 15                       # outputs times taps worth a chunk

tile_columns = Primitive("depthwise_columns", "int64", (), lambda ir, b, args: ir.IntType(64)(tiles(target()).depthwise),
                         lambda: tiles(target()).depthwise)


def row_params(windows: Windows, x: Any, w: Any, y: Any, pad: Any) -> tuple[dict[str, Any], int]:
    """(values of the fields ROWS, chunks)."""
    taps = windows.kh * windows.kw
    work = windows.out_width * windows.channels * taps
    chunks, rows = chunked(windows.images * windows.out_height, max(1, GRAIN // max(work, 1)))
    size = -(-(taps + 1) * 8 // 64) * 128
    return {**windows.params(), "x": x, "w": w, "y": y, "pad": pad, "table": Scratch(chunks * size), "table_size": size,
            "rows": rows}, chunks


def expanded(node: Node, x: Any, size: int, itemsize: int, times: int) -> tuple[Scratch, Step]:
    """Every element of x repeated: a channel multiplier as plain channels."""
    made = Scratch(size * times * itemsize + 64)
    chunks, block = chunked(size, max(1, (1 << 14) // times))
    return made, Step(node, EXPANDERS[itemsize], {"x": x, "y": made, "total": size, "times": times, "block": block}, chunks)


def _expander(size: int, type: str) -> Kernel:
    load, store = LOAD[type], STORE[type]

    @kernel(EXPAND, name=f"repeat_channels_{8 * size}")
    def repeat(p, begin, end):
        for c in prange(begin, end):
            for i in range(c * p.block, min(p.total, (c + 1) * p.block)):
                value = load(p.x, i)
                for k in range(p.times):
                    store(p.y, i * p.times + k, value)
        return 0
    return repeat


EXPANDERS = {size: _expander(size, type) for size, type in ((1, "u8"), (2, "u16"), (4, "u32"))}


@device
def row_taps(p, table, row, size, pad):
    """Put the addresses of the taps of output column 0 of an output row into the table.

    Rows outside of the image are those of `pad`. Columns outside are not looked at: `column_taps` does the borders.
    """
    at, pixel = 0, p.channels * size
    image, iy = row // p.out_height, row % p.out_height * p.sh - p.top
    for ky in range(p.kh):
        y = iy + ky * p.dh
        inside = 0 <= y and y < p.height
        start = p.x + (image * p.height + y) * p.width * pixel if inside else pad
        for kx in range(p.kw):
            store_i64(table, at, start + (kx * p.dw - p.left) * pixel)
            at += 1
    store_i64(table, at, pad)


@device
def column_taps(p, table, row, ox, size, pad):
    """The addresses of the taps of one output pixel, with those outside of the image at `pad`."""
    at, pixel = 0, p.channels * size
    image, iy, ix = row // p.out_height, row % p.out_height * p.sh - p.top, ox * p.sw - p.left
    for ky in range(p.kh):
        y = iy + ky * p.dh
        start = p.x + (image * p.height + y) * p.width * pixel
        for kx in range(p.kw):
            x = ix + kx * p.dw
            inside = 0 <= y and y < p.height and 0 <= x and x < p.width
            store_i64(table, at, start + x * pixel if inside else pad)
            at += 1
    store_i64(table, at, pad)


@device
def inner_columns(p):
    """(first, end) of the output columns whose taps are all within the image's width."""
    first = min(p.out_width, (p.left + p.sw - 1) // p.sw)
    room = p.width + p.left - (p.kw - 1) * p.dw - 1
    end = room // p.sw + 1 if room >= 0 else 0
    return first, max(first, min(p.out_width, end))


def make_row(tile: Any, single: Any, size: int, out_size: int) -> Any:
    """Device function (p, table, row, weights, y, pad, taps, lo, hi, *more): one output row at y; elements of `size` bytes
    in, `out_size` out. tile and single: micro-kernels; `taps` is what they count."""
    @device
    def depthwise_row(p, table, row, weights, y, pad, taps, lo, hi, zero_point):
        first, end = inner_columns(p)
        pixel, out_pixel, channels, wide = p.channels * size, p.channels * out_size, p.channels, tile_columns()
        for ox in range(p.out_width):
            if ox < first or ox >= end:
                column_taps(p, table, row, ox, size, pad)
                single(table, taps, 1, 0, 0, weights, y + ox * out_pixel, 0, channels, lo, hi, zero_point)
        row_taps(p, table, row, size, pad)
        step = p.sw * pixel
        count = (end - first) // wide
        inner = first + count * wide
        tile(table, taps, count, first * step, step, weights, y + first * out_pixel, out_pixel, channels, lo, hi, zero_point)
        single(table, taps, end - inner, inner * step, step, weights, y + inner * out_pixel, out_pixel, channels, lo, hi,
               zero_point)
    return depthwise_row
