"""Depthwise convolutions in tiles of some columns of an output row or two and all channels: the walk over the rows.

Tiles whose inputs all lie within the image's width share one table of addresses and move over it. What is left of a row has
tiles of its own, and so has the last one of an odd number of rows. A convolution with dilation is several without one, whose
columns and rows lie between each other's, and is made as such. One kernel walks for float32 (ops/depthwise_f32.py), and,
where the CPU has dot products, for codes and hybrid products (ops/depthwise_dot.py; others are walked in
ops/depthwise_rows.py): the tiles are micro-kernels that it calls by their addresses, so that it is compiled once.
"""
from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import ByAddress, MicroKernel
from litejit.compiler.primitives import load_i64, store_i64
from litejit.ops.base import Scratch, chunked
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.depthwise_rows import inner_columns
from litejit.ops.pixel_sums import SUMS, add_pixels, clear_sums
from litejit.ops.simd.depthwise_f32 import TILE_ARGUMENTS
from litejit.ops.tails import RECORD, TAIL, finish

SHAPES = ((3, 1), (3, 2), (5, 1), (5, 2))          # (width, stride) of square kernels with micro-kernels of their own
PARTS = ("whole", "inner", "less", "half", "row")
TILED = [*FIELDS, *((name, "i8") for name in (
    "w", "terms", "pad", "pixel", "out_pixel", "wide", "made", "seen", "columns_apart", "rows_apart", "taps_apart",
    "by_columns", *PARTS)), ("lo", "f4"), ("hi", "f4")]
"""Fields that `make_block` reads: windows, packed weights and what else the tiles read, a row of padding, bytes from pixel to
pixel of the input and of the output; the tiles: `wide` columns and `made` rows (one or two), which see `seen` input rows, how
far `apart` their columns and rows are in the image, and the taps among their input columns, whether what is not inner is made
column by column, and the parts' micro-kernels: of tiles that are "inner" and follow each other, of a column "less", of "half"
of the columns, of one "row"; bounds of the outputs."""
WALK = np.dtype([*TILED, *((name, "i8") for name in ("x", "y", "table", "table_size", "rows")), *TAIL, *SUMS], align=True)
TAIL_BYTES = 1 << 17                  # of rows that are finished before a function or a sum runs over them


def special(windows: Windows) -> tuple[int, int]:
    """(width, stride) of the micro-kernels made for these windows; (0, 1): those for any."""
    shape = windows.kw, windows.sw
    fits = (windows.kh, windows.sh) == shape and shape in SHAPES and (windows.sw == 1 or (windows.dh, windows.dw) == (1, 1))
    return shape if fits else (0, 1)


def apart(windows: Windows) -> tuple[int, int]:
    """(rows, columns) of the image from one that a tile has to the next."""
    return (windows.dh, windows.dw) if special(windows) in SHAPES else (1, 1)


def band(windows: Windows, made: int) -> int:
    """Output rows, or the least number of them, that are whole tiles of `made` rows."""
    return min(windows.out_height, made * apart(windows)[0]) if made > 1 else 1


def tiled_params(windows: Windows, parts: Mapping[str, MicroKernel], shape: tuple[int, int], w: Any, pad: Any,
                 pixel: tuple[int, int], bounds: tuple[float, float]) -> dict[str, Any]:
    """Values of the fields TILED but `terms` and `by_columns`; shape: (rows, columns) of a tile; pixel: bytes from one to the
    next in the input and the output."""
    made, (rows_apart, columns_apart) = shape[0], apart(windows)
    return {**windows.params(), **parts, "w": w, "pad": pad, "pixel": pixel[0], "out_pixel": pixel[1], "wide": shape[1],
            "made": made, "seen": windows.kh + (made - 1) * windows.sh, "rows_apart": rows_apart,
            "columns_apart": columns_apart, "taps_apart": windows.dw // columns_apart, "lo": bounds[0], "hi": bounds[1]}


def table_bytes(windows: Windows, shape: tuple[int, int]) -> int:
    """Bytes of the tables of addresses of a tile: of what it sees, and of the rows."""
    across = (shape[1] - 1) * windows.sw + (windows.kw - 1) * (windows.dw // apart(windows)[1]) + 1
    return -(-(across + 1) * (windows.kh + (shape[0] - 1) * windows.sh) * 8 // 64) * 64


def walk_params(windows: Windows, shape: tuple[int, int], x: Any, y: Any, grain: int) -> tuple[dict[str, Any], int]:
    """(x, y and the fields of WALK that divide the work, chunks); grain: multiply-accumulates that are worth a chunk."""
    work, together = windows.out_width * windows.channels * windows.kh * windows.kw, band(windows, shape[0])
    least = max(1, grain // max(work, 1))
    chunks, rows = chunked(windows.images * windows.out_height, -(-least // together) * together)
    size = table_bytes(windows, shape)
    return {"x": x, "y": y, "table": Scratch(chunks * size), "table_size": size, "rows": rows}, chunks


# ---- kernels -------------------------------------------------------------------------------------

_tile = ByAddress(TILE_ARGUMENTS)


def make_tables() -> tuple[Any, Any]:
    """Device functions that fill the tables of addresses, for one parameter record (see `make_block`)."""

    @device
    def row_table(p, source, ring, lines, row, rows):
        """lines[input row]: where the rows lie that `rows` output rows see; those outside of the image are padding."""
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
            x = ox * p.sw - p.left + k * p.columns_apart
            inside = x >= 0 and x < p.width
            for ky in range(p.seen):
                store_i64(table, k * p.seen + ky, load_i64(lines, ky) + x * p.pixel if inside else p.pad)
    return row_table, column_table


@cache
def make_block(record: tuple[str, ...]) -> Any:
    """Device function (p, source, ring, table, top, bottom, y): the output rows top .. bottom, the first one at y.

    source: the input; ring: how many of its rows are there, one after the other and over again; 0: all of them. One for every
    parameter record, with fields of these names: Numba mixes records up that share a device function.
    """
    row_table, column_table = make_tables()

    @device
    def run(p, tile, table, tiles, step, y, columns):
        _tile(tile, table, tiles, step, p.w, y, p.columns_apart * p.out_pixel, p.rows_apart * p.out_width * p.out_pixel,
              p.channels, columns, p.lo, p.hi, p.kh, p.kw, p.sw, p.taps_apart, p.terms)

    @device
    def tile_columns(p, lines, table, ox, rows, out):
        """The columns ox, ox + columns_apart ... of `rows` output rows, the first one at out."""
        first, end = inner_columns(p)
        wide, apart, seen = p.wide, p.columns_apart, (p.kw - 1) * p.taps_apart + 1
        around, last = seen if p.by_columns != 0 else (wide - 1) * p.sw + seen, (wide - 1) * apart
        while ox < p.out_width:
            inside, columns = rows == p.made and ox >= first and ox + last < end, wide
            if p.by_columns != 0 and not inside:
                columns = 1
            elif ox + last >= p.out_width:
                columns = (p.out_width - ox + apart - 1) // apart
            many, y = 1, out + ox * p.out_pixel
            column_table(p, lines, table, ox, 1 if inside and (p.by_columns != 0 or p.made > 1) else around)
            if inside:
                many = (end - ox + apart - 1) // (apart * wide)
                run(p, p.inner, table, many, p.sw * apart * p.pixel, y, wide)
            else:
                few = p.half if 2 * columns <= wide else p.less if columns < wide else p.whole
                run(p, p.row if rows < p.made else few, table, 1, 0, y, columns)
            ox += many * columns * apart

    @device
    def tile_row(p, source, ring, table, row, rows, out):
        """`rows` output rows, `rows_apart` from one to the next, the first one at out."""
        lines = table + ((p.wide - 1) * p.sw + (p.kw - 1) * p.taps_apart + 1) * p.seen * 8
        row_table(p, source, ring, lines, row, rows)
        for ox in range(min(p.columns_apart, p.out_width)):
            tile_columns(p, lines, table, ox, rows, out)

    @device
    def block(p, source, ring, table, top, bottom, y):
        row = top
        while row < bottom:
            end = row + min(p.made * p.rows_apart, bottom - row, p.out_height - row % p.out_height)      # of one image
            for first in range(row, min(row + p.rows_apart, end)):
                rows = p.made if first + (p.made - 1) * p.rows_apart < end else 1
                tile_row(p, source, ring, table, first, rows, y + (first - top) * p.out_width * p.out_pixel)
            row = end
    return block


_block = make_block(WALK.names or ())


@kernel(WALK)
def depthwise_tiles(p, begin, end):
    """A chunk is some output rows."""
    table, row_bytes = p.table + begin * p.table_size, p.out_width * p.out_pixel
    together = p.made * p.rows_apart
    group = p.rows if p.tail == 0 and p.sums == 0 else max(1, TAIL_BYTES // (row_bytes * together)) * together
    for c in prange(begin, end):
        sums = p.sums + c * p.sums_pitch if p.sums != 0 else 0
        clear_sums(sums, p.pad, p.channels)
        bottom = min(p.m // p.out_width, (c + 1) * p.rows)
        for top in range(c * p.rows, bottom, group):
            count, y = min(group, bottom - top), p.y + top * row_bytes
            _block(p, p.x, 0, table, top, top + count, y)
            finish(p.tail, p.record + begin * RECORD, y, p.out_pixel, count * p.out_width, p.channels)
            add_pixels(sums, y, count * p.out_width, p.channels)
    return 0
