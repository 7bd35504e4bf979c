"""float32 depthwise convolution: the walk over output rows, in tiles of some columns of a row or two and all channels.

Tiles whose inputs all lie within the image's width share one table of addresses and move over it. What is left of a row has
tiles of its own, and so has the last one of an odd number of rows.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import load_i64, store_i64
from litejit.ops.base import Scratch, chunked
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.depthwise_rows import inner_columns
from litejit.ops.pixel_sums import SUMS, add_pixels, clear_sums
from litejit.ops.simd.depthwise_f32 import columns_f32, tile_columns, tile_rows
from litejit.ops.simd.tiles import grain
from litejit.ops.tails import RECORD, TAIL, finish

TAIL_BYTES = 1 << 17                  # of rows that are finished before a function or a sum runs over them
SHAPES = ((3, 1), (3, 2), (5, 1), (5, 2))          # (width, stride) of square kernels with micro-kernels of their own
TILED = [("lo", "f4"), ("hi", "f4"), *FIELDS, *((name, "i8") for name in ("w", "pad", "pixel", "wide", "made", "seen"))]
"""Fields that `make_block` reads: bounds, windows, packed weights, a row of zeros, bytes from pixel to pixel of the input, and
the tiles: `wide` columns and `made` rows, which see `seen` input rows."""
ROWS = np.dtype([*TILED, *((name, "i8") for name in ("x", "y", "table", "table_size", "rows")), *TAIL, *SUMS], align=True)


def tiled_params(cpu: Cpu, windows: Windows, w: Any, bounds: tuple[float, float], pixel: int) -> dict[str, Any]:
    """Values of the fields TILED; w: packed weights; pixel: bytes from pixel to pixel of the input."""
    width, _ = special(windows)
    made = tile_rows(cpu, width)
    return {**windows.params(), "w": w, "pad": zeros(windows.width * pixel), "pixel": pixel, "wide": tile_columns(cpu, width),
            "made": made, "seen": windows.kh + (made - 1) * windows.sh, "lo": bounds[0], "hi": bounds[1]}


def table_bytes(cpu: Cpu, windows: Windows) -> int:
    """Bytes of the tables of addresses of a tile: of what it sees, and of the rows."""
    width, _ = special(windows)
    across = (tile_columns(cpu, width) - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1
    return -(-(across + 1) * (windows.kh + (tile_rows(cpu, width) - 1) * windows.sh) * 8 // 64) * 64


def depthwise_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, bounds: tuple[float, float],
                     pixel: int) -> tuple[dict[str, Any], int]:
    """(values of the fields ROWS, chunks). A chunk is `rows` output rows."""
    work = windows.out_width * windows.channels * windows.kh * windows.kw
    least, made = max(1, grain(cpu, "depthwise_f32") // max(work, 1)), tile_rows(cpu, special(windows)[0])
    chunks, rows = chunked(windows.images * windows.out_height, -(-least // made) * made)
    size = table_bytes(cpu, windows)
    return {**tiled_params(cpu, windows, w, bounds, pixel), "x": x, "y": y, "table": Scratch(chunks * size), "table_size": size,
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
    tile, inner = columns_f32(width, stride), columns_f32(width, stride, inner=width > 0)
    less, half, single = (columns_f32(width, stride, part=part) if width else tile for part in ("less", "half", "row"))

    @device
    def row_table(p, source, ring, lines, row, rows):
        """lines[input row]: where the rows lie that `rows` output rows see; those outside of the image are zeros."""
        image, iy = row // p.out_height, row % p.out_height * p.sh - p.top
        wanted = p.kh + (rows - 1) * p.sh
        for ky in range(p.seen):
            y = iy + ky * p.dh
            line = image * p.height + y
            at = source + (line % ring if ring > 0 else line) * p.width * p.pixel
            store_i64(lines, ky, at if y >= 0 and y < p.height and ky < wanted else p.pad)

    @device
    def column_table(p, lines, table, ox, across):
        """table[input column][input row]: the addresses of what a tile of output columns from ox on sees."""
        for k in range(across):
            x = ox * p.sw - p.left + k
            inside = x >= 0 and x < p.width
            for ky in range(p.seen):
                store_i64(table, k * p.seen + ky, load_i64(lines, ky) + x * p.pixel if inside else p.pad)

    @device
    def tile_row(p, source, ring, table, row, rows, out):
        """`rows` output rows, the first one at out."""
        first, end = inner_columns(p)
        wide, step, pixel, below = p.wide, p.sw * p.pixel, p.channels * 4, p.out_width * p.channels * 4
        ox, across = 0, (wide - 1) * p.sw + (p.kw - 1) * p.dw + 1
        lines = table + across * p.seen * 8
        row_table(p, source, ring, lines, row, rows)
        while ox < p.out_width:
            columns, many, y = min(wide, p.out_width - ox), 1, out + ox * pixel
            inside = rows == p.made and ox >= first and ox + wide <= end
            column_table(p, lines, table, ox, 1 if inside and rows > 1 else across)
            if inside:
                many = (end - ox) // wide
                inner(table, many, step, p.w, y, pixel, below, p.channels, wide, p.lo, p.hi, p.kh, p.kw, p.sw, p.dw)
            elif rows < p.made:
                single(table, 1, 0, p.w, y, pixel, 0, p.channels, columns, p.lo, p.hi, p.kh, p.kw, p.sw, p.dw)
            elif 2 * columns <= wide:
                half(table, 1, 0, p.w, y, pixel, below, p.channels, columns, p.lo, p.hi, p.kh, p.kw, p.sw, p.dw)
            elif columns < wide:
                less(table, 1, 0, p.w, y, pixel, below, p.channels, columns, p.lo, p.hi, p.kh, p.kw, p.sw, p.dw)
            else:
                tile(table, 1, 0, p.w, y, pixel, below, p.channels, columns, p.lo, p.hi, p.kh, p.kw, p.sw, p.dw)
            ox += many * columns

    @device
    def block(p, source, ring, table, top, bottom, y):
        row = top
        while row < bottom:
            rows = min(p.made, bottom - row, p.out_height - row % p.out_height)         # of one image
            tile_row(p, source, ring, table, row, rows, y + (row - top) * p.out_width * p.channels * 4)
            row += rows
    return block


def _make(width: int, stride: int) -> Kernel:
    block = make_block(width, stride, ROWS.names or ())

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
