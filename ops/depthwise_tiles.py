"""The walk over the output rows of a depthwise convolution, in tiles of some columns of a row or two and all channels.

Tiles whose inputs all lie within the image's width share one table of addresses and move over it. What is left of a row has
tiles of its own, and so has the last one of an odd number of rows. For float32 (ops/depthwise_f32.py), and for codes where the
CPU has dot products (ops/depthwise_dot.py); others are walked in ops/depthwise_rows.py.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from litejit.compiler import device
from litejit.compiler.lazy import MicroKernel
from litejit.compiler.primitives import load_i64, store_i64
from litejit.ops.base import Scratch, chunked
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.depthwise_rows import inner_columns

SHAPES = ((3, 1), (3, 2), (5, 1), (5, 2))          # (width, stride) of square kernels with micro-kernels of their own
PARTS = ("whole", "inner", "less", "half", "row")
TILED = [*FIELDS, *((name, "i8") for name in ("w", "pad", "pixel", "wide", "made", "seen"))]
"""Fields that `make_block` reads: windows, packed weights, a row of padding, bytes from pixel to pixel of the input, and the
tiles: `wide` columns and `made` rows, which see `seen` input rows."""
WALK = [(name, "i8") for name in ("x", "y", "table", "table_size", "rows")]
"""Fields of a kernel of its own: a chunk is `rows` output rows."""


def special(windows: Windows) -> tuple[int, int]:
    """(width, stride) of the micro-kernels made for these windows; (0, 1): those for any."""
    shape = windows.kw, windows.sw
    fits = (windows.kh, windows.sh, windows.dh, windows.dw) == (*shape, 1, 1) and shape in SHAPES
    return shape if fits else (0, 1)


def tiled_params(windows: Windows, shape: tuple[int, int], w: Any, pad: Any, pixel: int) -> dict[str, Any]:
    """Values of the fields TILED; shape: (rows, columns) of a tile."""
    return {**windows.params(), "w": w, "pad": pad, "pixel": pixel, "wide": shape[1], "made": shape[0],
            "seen": windows.kh + (shape[0] - 1) * windows.sh}


def table_bytes(windows: Windows, shape: tuple[int, int]) -> int:
    """Bytes of the tables of addresses of a tile: of what it sees, and of the rows."""
    across = (shape[1] - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1
    return -(-(across + 1) * (windows.kh + (shape[0] - 1) * windows.sh) * 8 // 64) * 64


def walk_params(windows: Windows, shape: tuple[int, int], x: Any, y: Any, grain: int) -> tuple[dict[str, Any], int]:
    """(values of the fields WALK, chunks); grain: multiply-accumulates that are worth a chunk."""
    work, made = windows.out_width * windows.channels * windows.kh * windows.kw, shape[0]
    least = max(1, grain // max(work, 1))
    chunks, rows = chunked(windows.images * windows.out_height, -(-least // made) * made)
    size = table_bytes(windows, shape)
    return {"x": x, "y": y, "table": Scratch(chunks * size), "table_size": size, "rows": rows}, chunks


def make_block(parts: Mapping[str, MicroKernel], caller: Callable[[MicroKernel], Any], out_size: int,
               by_columns: bool = False) -> Any:
    """Device function (p, source, ring, table, top, bottom, y): the output rows top .. bottom, the first one at y.

    parts: the micro-kernels "whole", of tiles that are "inner" and follow each other, of a column "less", of "half" of the
    columns, and of one "row"; caller: makes of each a device function (p, table, tiles, step, y, bytes to the second row,
    columns).
    out_size: bytes of an output; by_columns: what is not inner is made column by column. source: the input; ring: how many of
    its rows are there, one after the other and over again; 0: all of them. A new one for every parameter record: Numba mixes
    records up that share a device function.
    """
    tile, inner, less, half, single = (caller(parts[name]) for name in PARTS)

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
            x = ox * p.sw - p.left + k
            inside = x >= 0 and x < p.width
            for ky in range(p.seen):
                store_i64(table, k * p.seen + ky, load_i64(lines, ky) + x * p.pixel if inside else p.pad)

    @device
    def tile_row(p, source, ring, table, row, rows, out):
        """`rows` output rows, the first one at out."""
        first, end = inner_columns(p)
        wide, step, below = p.wide, p.sw * p.pixel, p.out_width * p.channels * out_size
        ox, across = 0, (wide - 1) * p.sw + (p.kw - 1) * p.dw + 1
        lines = table + across * p.seen * 8
        row_table(p, source, ring, lines, row, rows)
        while ox < p.out_width:
            inside = rows == p.made and ox >= first and ox + wide <= end
            columns = 1 if by_columns and not inside else min(wide, p.out_width - ox)
            many, y = 1, out + ox * p.channels * out_size
            around = (p.kw - 1) * p.dw + 1 if by_columns else across
            column_table(p, lines, table, ox, 1 if inside and (by_columns or p.made > 1) else around)
            if inside:
                many = (end - ox) // wide
                inner(p, table, many, step, y, below, wide)
            elif rows < p.made:
                single(p, table, 1, 0, y, 0, columns)
            elif 2 * columns <= wide:
                half(p, table, 1, 0, y, below, columns)
            elif columns < wide:
                less(p, table, 1, 0, y, below, columns)
            else:
                tile(p, table, 1, 0, y, below, columns)
            ox += many * columns

    @device
    def block(p, source, ring, table, top, bottom, y):
        row = top
        while row < bottom:
            rows = min(p.made, bottom - row, p.out_height - row % p.out_height)         # of one image
            tile_row(p, source, ring, table, row, rows, y + (row - top) * p.out_width * p.channels * out_size)
            row += rows
    return block
