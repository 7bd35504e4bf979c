"""float32 depthwise convolution: the walk over output rows, in tiles of some columns of a row or two and all channels.

Whole rows are made, of so many channels that the inputs of a tile stay in the L1 cache. Tiles whose inputs all lie within the
image's width share one table of addresses and move over it.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import store_i64
from litejit.ops.base import Scratch, chunked
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.depthwise_rows import inner_columns
from litejit.ops.simd.depthwise_f32 import columns_f32, tile_columns, tile_rows
from litejit.ops.simd.tiles import grain
from litejit.ops.tails import RECORD, TAIL, finish

TAIL_BYTES = 1 << 17                  # of rows that are finished before a function runs over them
TILE_BYTES = 36 << 10                 # of inputs of a row of tiles' outputs, for all channels of a block
SHAPES = ((3, 1), (3, 2), (5, 1), (5, 2))          # (width, stride) of square kernels with micro-kernels of their own
TILED = [("lo", "f4"), ("hi", "f4"), *FIELDS, *((name, "i8") for name in (
    "w", "pad", "channel_block", "block_bytes", "wide", "made", "seen"))]
"""Fields that `make_block` reads: bounds, windows, packed weights, a row of zeros, and how a row is cut: blocks of
`channel_block` channels, whose weights are `block_bytes`, in tiles of `wide` columns and `made` rows, which see `seen` input
rows."""
ROWS = np.dtype([*TILED, *((name, "i8") for name in ("x", "y", "table", "table_size", "rows")), *TAIL], align=True)


def tiled_params(cpu: Cpu, windows: Windows, w: Any, bounds: tuple[float, float]) -> dict[str, Any]:
    """Values of the fields TILED; w: packed weights."""
    lanes, wide, made = cpu.lanes, tile_columns(cpu, special(windows)[0]), tile_rows(cpu, special(windows)[0])
    across = (wide - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1
    vectors = -(-windows.channels // lanes)
    most = max(1, TILE_BYTES // (4 * windows.kh * across * lanes))          # vectors of channels that a block may have
    block = -(-vectors // -(-vectors // most)) * lanes
    return {**windows.params(), "w": w, "pad": zeros(windows.width * windows.channels * 4), "channel_block": block,
            "block_bytes": block * (windows.kh * windows.kw + 1) * 4, "wide": wide, "made": made,
            "seen": windows.kh + (made - 1) * windows.sh, "lo": bounds[0], "hi": bounds[1]}


def table_bytes(cpu: Cpu, windows: Windows) -> int:
    """Bytes of the table of addresses of a tile, and of a row for what nobody wants behind it."""
    width, _ = special(windows)
    across = (tile_columns(cpu, width) - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1
    rows = tile_rows(cpu, width)
    row = windows.out_width * windows.channels * 4 + 64 if rows > 1 else 0
    return -(-(across * (windows.kh + (rows - 1) * windows.sh) * 8 + row) // 64) * 64


def depthwise_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, bounds: tuple[float, float]
                     ) -> tuple[dict[str, Any], int]:
    """(values of the fields ROWS, chunks). A chunk is `rows` output rows."""
    work = windows.out_width * windows.channels * windows.kh * windows.kw
    least, made = max(1, grain(cpu, "depthwise_f32") // max(work, 1)), tile_rows(cpu, special(windows)[0])
    chunks, rows = chunked(windows.images * windows.out_height, -(-least // made) * made)
    size = table_bytes(cpu, windows)
    return {**tiled_params(cpu, windows, w, bounds), "x": x, "y": y, "table": Scratch(chunks * size), "table_size": size,
            "rows": rows}, chunks


def special(windows: Windows) -> tuple[int, int]:
    """(width, stride) of the kernel made for these windows; (0, 1): the one for any."""
    shape = windows.kw, windows.sw
    return shape if windows.dw == 1 and windows.kh == windows.kw and shape in SHAPES else (0, 1)


def depthwise_kernel(windows: Windows) -> Kernel:
    """The kernel for a shape of windows."""
    return _KERNELS[special(windows)]


# ---- kernels -------------------------------------------------------------------------------------

@cache
def make_block(width: int, stride: int, record: tuple[str, ...]) -> Any:
    """Device function (p, source, ring, table, top, bottom, y): the output rows top .. bottom, the first one at y.

    source: the input; ring: how many of its rows are there, one after the other and over again; 0: all of them. `record`: the
    names of the parameter record, which has the fields TILED (Numba mixes records up that share a device function).
    """
    tile, inner_tile = columns_f32(width, stride), columns_f32(width, stride, width > 0)

    @device
    def column_table(p, source, ring, table, row, ox, rows):
        """table[input column][input row]: the addresses of what a tile of `rows` output rows and columns from ox on sees."""
        pixel = p.channels * 4
        image, iy, ix = row // p.out_height, row % p.out_height * p.sh - p.top, ox * p.sw - p.left
        across = (p.wide - 1) * p.sw + (p.kw - 1) * p.dw + 1
        wanted = p.kh + (rows - 1) * p.sh
        for ky in range(p.seen):
            y = iy + ky * p.dh
            line = image * p.height + y
            here = source + ((line % ring if ring > 0 else line) * p.width + ix) * pixel
            inside = y >= 0 and y < p.height and ky < wanted
            for k in range(across):
                x = ix + k
                store_i64(table, k * p.seen + ky, here + k * pixel if inside and x >= 0 and x < p.width else p.pad)

    @device
    def tile_row(p, source, ring, table, row, rows, out, below, moved, weights, channels):
        """`rows` output rows of some channels, `moved` bytes from the first one on; the second row is written `below` bytes
        after the first."""
        first, end = inner_columns(p)
        wide, pixel = p.wide, p.channels * 4
        ox = 0
        while ox < p.out_width:
            column_table(p, source, ring, table, row, ox, rows)
            if ox >= first and ox + wide <= end:
                many = (end - ox) // wide
                inner_tile(table, many, moved, p.sw * pixel, weights, out + ox * pixel, pixel, below, channels, wide, p.lo,
                           p.hi, p.kh, p.kw, p.sw, p.dw)
                ox += many * wide
            else:
                tile(table, 1, moved, p.sw * pixel, weights, out + ox * pixel, pixel, below, channels,
                     min(wide, p.out_width - ox), p.lo, p.hi, p.kh, p.kw, p.sw, p.dw)
                ox += wide

    @device
    def block(p, source, ring, table, top, bottom, y):
        row_bytes = p.out_width * p.channels * 4
        sink = table + ((p.wide - 1) * p.sw + (p.kw - 1) * p.dw + 1) * p.seen * 8
        for channel in range(0, p.channels, p.channel_block):
            weights, channels = p.w + channel // p.channel_block * p.block_bytes, min(p.channel_block, p.channels - channel)
            row = top
            while row < bottom:
                rows = min(p.made, bottom - row, p.out_height - row % p.out_height)     # of one image
                out = y + (row - top) * row_bytes + channel * 4
                tile_row(p, source, ring, table, row, rows, out, row_bytes if rows == p.made else sink - out, channel * 4,
                         weights, channels)
                row += rows
    return block


def _make(width: int, stride: int) -> Kernel:
    block = make_block(width, stride, ROWS.names or ())

    @kernel(ROWS, name=f"depthwise_f32{shape_mark(width, stride)}")
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table, row_bytes = p.table + begin * p.table_size, p.out_width * p.channels * 4
        group = p.rows if p.tail == 0 else max(1, TAIL_BYTES // row_bytes)
        for c in prange(begin, end):
            bottom = min(p.m // p.out_width, (c + 1) * p.rows)
            for top in range(c * p.rows, bottom, group):
                count, y = min(group, bottom - top), p.y + top * row_bytes
                block(p, p.x, 0, table, top, top + count, y)
                finish(p.tail, p.record + begin * RECORD, y, p.channels * 4, count * p.out_width, p.channels)
        return 0
    return depthwise


def shape_mark(width: int, stride: int) -> str:
    """What a shape adds to the name of a kernel."""
    return f"_{width}s{stride}" if width else ""


_KERNELS = {shape: _make(*shape) for shape in ((0, 1), *SHAPES)}
