"""Walking over the output rows of a depthwise convolution: tables of tap addresses, columns inside and at the borders."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu, target
from litejit.compiler.lazy import ByAddress
from litejit.compiler.primitives import Primitive, store_i64
from litejit.ops.base import Packed, Scratch, Step, chunked
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.repeats import REPEAT, REPEAT_ARGUMENTS, picks
from litejit.ops.simd.tiles import grain, tiles
from litejit.planner.constants import SLACK
from litejit.planner.graph import Node

ROWS = [*FIELDS, ("x", "i8"), ("w", "i8"), ("y", "i8"), ("pad", "i8"), ("table", "i8"), ("table_size", "i8"), ("rows", "i8"),
        ("strip", "i8"), ("channel_block", "i8"), ("block_bytes", "i8"), ("tap_row", "i8"), ("tap_column", "i8")]
"""Fields of every depthwise kernel; pad: a row of padding of width * channels elements; rows: output rows of a chunk, made
in strips of `strip` columns and `channel_block` channels, whose weights are `block_bytes`. Tap (ky, kx) is number
ky * tap_row + kx * tap_column of the table."""
EXPAND = np.dtype([(name, "i8") for name in ("repeat", "x", "y", "table", "total", "times", "size", "block")], align=True)
EXPAND_BYTES = 1 << 17                # of repeated channels that are worth a chunk
STRIP_BYTES = 36 << 10                # of input rows that should stay in L1
WEIGHT_BYTES = 24 << 10               # of weights that should

tile_columns = Primitive("depthwise_columns", "int64", (), lambda ir, b, args: ir.IntType(64)(tiles(target()).depthwise),
                         lambda: tiles(target()).depthwise)


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def row_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, pad: Any, size: int, vectors: tuple[int, int],
               by_columns: bool = False) -> tuple[dict[str, Any], int]:
    """(values of the fields ROWS, chunks). size: bytes of an input element; vectors: channels of a block of packed weights,
    and its bytes; by_columns: the taps of a column follow each other, not those of a row."""
    taps, (lanes, nbytes) = windows.kh * windows.kw, vectors
    wide, column, count = tiles(cpu).depthwise, windows.kh * size, ceil(windows.channels, lanes)
    inputs = column * ((wide - 1) * windows.sw + windows.kw) * lanes
    most = max(1, min(STRIP_BYTES // inputs, WEIGHT_BYTES // nbytes))               # blocks that a strip may have
    block = ceil(count, ceil(count, most)) * lanes
    strip = max(1, STRIP_BYTES // (column * block * windows.sw) // wide) * wide
    work = windows.out_width * windows.channels * taps
    chunks, rows = chunked(windows.images * windows.out_height, max(1, grain(cpu, "depthwise_int8") // max(work, 1)))
    size = -(-(taps + 1) * 8 // 64) * 128
    return {**windows.params(), "x": x, "w": w, "y": y, "pad": pad, "table": Scratch(chunks * size), "table_size": size,
            "tap_row": 1 if by_columns else windows.kw, "tap_column": windows.kh if by_columns else 1,
            "rows": rows, "strip": strip, "channel_block": block, "block_bytes": block // lanes * nbytes}, chunks


def expanded(node: Node, cpu: Cpu, x: Any, size: int, itemsize: int, times: int) -> tuple[Scratch, Step]:
    """Every element of x repeated: a channel multiplier as plain channels."""
    made = Scratch((size * itemsize + SLACK) * times)
    table = Packed(("picks", cpu.name, itemsize, times), lambda: picks(cpu, itemsize, times))
    chunks, block = chunked(size, ceil(EXPAND_BYTES, itemsize * times * SLACK) * SLACK)
    return made, Step(node, repeat_channels, {"repeat": REPEAT[itemsize], "x": x, "y": made, "table": table, "total": size,
                                              "times": times, "size": itemsize, "block": block}, chunks)


_repeat = ByAddress(REPEAT_ARGUMENTS)


@kernel(EXPAND)
def repeat_channels(p, begin, end):
    """A chunk is `block` elements: whole registers, so that only the last one writes behind its end."""
    for c in prange(begin, end):
        first = c * p.block
        _repeat(p.repeat, p.y + first * p.times * p.size, p.x + first * p.size, p.table, min(p.total - first, p.block), p.times)
    return 0


@device
def row_taps(p, table, row, size, pad):
    """Put the addresses of the taps of output column 0 of an output row into the table.

    Rows outside of the image are the padding. Columns outside are not looked at: `column_taps` does the borders.
    """
    pixel = p.channels * size
    image, iy = row // p.out_height, row % p.out_height * p.sh - p.top
    for ky in range(p.kh):
        y = iy + ky * p.dh
        inside = y >= 0 and y < p.height
        start = p.x + (image * p.height + y) * p.width * pixel if inside else pad
        for kx in range(p.kw):
            store_i64(table, ky * p.tap_row + kx * p.tap_column, start + (kx * p.dw - p.left) * pixel)
    store_i64(table, p.kh * p.kw, pad)


@device
def column_taps(p, table, row, ox, size, pad):
    """The addresses of the taps of one output pixel, with those outside of the image at the padding."""
    pixel = p.channels * size
    image, iy, ix = row // p.out_height, row % p.out_height * p.sh - p.top, ox * p.sw - p.left
    for ky in range(p.kh):
        y = iy + ky * p.dh
        start = p.x + (image * p.height + y) * p.width * pixel
        for kx in range(p.kw):
            x = ix + kx * p.dw
            inside = y >= 0 and y < p.height and x >= 0 and x < p.width
            store_i64(table, ky * p.tap_row + kx * p.tap_column, start + x * pixel if inside else pad)
    store_i64(table, p.kh * p.kw, pad)


@device
def inner_columns(p):
    """(first, end) of the output columns whose taps are all within the image's width."""
    first = min(p.out_width, (p.left + p.sw - 1) // p.sw)
    room = p.width + p.left - (p.kw - 1) * p.dw - 1
    end = room // p.sw + 1 if room >= 0 else 0
    return first, max(first, min(p.out_width, end))


def make_rows(tile: Any, single: Any, size: int, out_size: int) -> Any:
    """Device function (p, table, top, bottom, y, pad, taps, lo, hi, zero_point): the output rows top .. bottom, the first at y.

    tile and single: micro-kernels; `taps` is what they count; elements of `size` bytes in, `out_size` out. Rows are made in
    vertical strips of some columns and channels, so that the input rows that they share stay in the L1 cache.
    """
    @device
    def depthwise_rows(p, table, top, bottom, y, pad, taps, lo, hi, zero_point):
        first, end = inner_columns(p)
        pixel, out_pixel, wide = p.channels * size, p.channels * out_size, tile_columns()
        step, strip = p.sw * pixel, p.strip if end > first else 1
        for channel in range(0, p.channels, p.channel_block):
            weights, moved = p.w + channel // p.channel_block * p.block_bytes, channel * size
            channels = min(p.channel_block, p.channels - channel)
            for left in range(first, max(end, first + 1), strip):
                right = min(end, left + strip)
                count = (right - left) // wide
                inner = left + count * wide
                for row in range(top, bottom):
                    to = y + (row - top) * p.out_width * out_pixel + channel * out_size
                    for ox in range(0, first if left == first else 0):
                        column_taps(p, table, row, ox, size, pad)
                        single(table, taps, 1, moved, 0, weights, to + ox * out_pixel, 0, channels, lo, hi, zero_point)
                    for ox in range(end if right == end else p.out_width, p.out_width):
                        column_taps(p, table, row, ox, size, pad)
                        single(table, taps, 1, moved, 0, weights, to + ox * out_pixel, 0, channels, lo, hi, zero_point)
                    row_taps(p, table, row, size, pad)
                    tile(table, taps, count, left * step + moved, step, weights, to + left * out_pixel, out_pixel, channels,
                         lo, hi, zero_point)
                    single(table, taps, right - inner, inner * step + moved, step, weights, to + inner * out_pixel, out_pixel,
                           channels, lo, hi, zero_point)
    return depthwise_rows
