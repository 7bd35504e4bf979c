"""CONV_2D in float32: GEMM tiles that find the input through a table of addresses, so that nothing is copied.

A tap of the kernel is a segment of the products of a pixel; the table has the address of every segment of every pixel of a
tile. Padding points at zeros. Where there are few channels, conv_rows.py does it.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import store_i64
from litejit.ops import conv_rows
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target, row_pitch
from litejit.ops.conv_geometry import FIELDS, Windows, grid
from litejit.ops.float_product import KINDS, Matrix
from litejit.ops.simd.gemm_f32 import panel_columns, row_block, table_gemm_f32
from litejit.ops.simd.tiles import f32_rows, grain, tiles
from litejit.ops.tails import RECORD, TAIL, finish, tail_params
from litejit.planner.constants import joined
from litejit.planner.graph import Node, Value

CONV = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "zeros", "scratch", "scratch_size", "segments", "length", "n", "ldc", "groups", "group_bytes", "rows",
    "columns", "row_chunks", "column_chunks", "block")), ("lo", "f4"), ("hi", "f4"), *TAIL], align=True)


def conv_f32_steps(node: Node, target: Target, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows,
                   bounds: tuple[float, float]) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w [O, kh, kw, depth]) + bias)."""
    cpu, groups, k, m = target.cpu, windows.groups, windows.k, windows.m
    n = w.dims[0] // groups
    panels, steps = conv_panels(node, target, w, bias, groups, n, k)
    if conv_rows.fits(cpu, windows, n):
        return [*steps, *conv_rows.conv_rows_steps(node, target, x, y, panels, n, windows, bounds)]
    segments, length = windows.kh * windows.kw, windows.depth
    mr, nr = tiles(cpu).f32[0], panel_columns(cpu)
    rows, columns = grid(m, n, k * groups, mr, nr, grain=grain(cpu, "f32"), most=MAX_CHUNKS,
                         by_columns=n * k > m * windows.depth)
    row_chunks, column_chunks = -(-m // rows), -(-n // columns)
    own = windows.channels * min(windows.sh, windows.kh) * min(windows.sw, windows.kw)          # inputs that a pixel adds
    block = min(row_block(cpu, own), rows)
    size = -(-block * segments * 8 // 64) * 64
    chunks = row_chunks * column_chunks
    params = {
        **windows.params(), "x": x, "w": panels, "y": y, "zeros": zeros(windows.channels * 4),
        "scratch": Scratch(chunks * size), "scratch_size": size, "segments": segments, "length": length, "n": n,
        "ldc": row_pitch(node, groups * n), "groups": groups, "group_bytes": -(-n // nr) * nr * (k + 1) * 4, "rows": rows,
        "columns": columns, "row_chunks": row_chunks, "column_chunks": column_chunks, "block": block,
        "lo": bounds[0], "hi": bounds[1], **tail_params(node, chunks)}
    return [*steps, Step(node, conv_f32, params, chunks, macs=groups * m * n * k)]


def zeros(nbytes: int) -> Packed:
    """Zeros in a power of two of bytes, so that nodes share them."""
    size = 1 << max(6, (nbytes - 1).bit_length())
    return Packed(("zeros", size), lambda: np.zeros(size, np.uint8))


def conv_panels(node: Node, target: Target, w: Value, bias: Value | None, groups: int, n: int,
                k: int) -> tuple[Packed | Scratch, list[Step]]:
    """Panels of all groups' weights for the target's kind of products, and the steps that make them while running."""
    cpu, products = target.cpu, target.products
    if w.data is None or (bias is not None and bias.data is None):
        node.check(groups == 1, "grouped CONV_2D needs constant weights and bias")
        return Matrix(w, columns=n, depth=k, transposed=True).pack(node, bias, cpu, products)
    data, b, pack = w.data, None if bias is None else bias.data, KINDS[products].pack

    def build() -> np.ndarray:
        flat = np.asarray(data, np.float32).reshape(groups, n, k)
        return joined(pack(cpu, one, None if b is None else b.reshape(groups, n)[g]) for g, one in enumerate(flat))
    key = (w.key, None if bias is None else bias.key, f"conv {products}", groups, panel_columns(cpu))
    return Packed(key, build), []


@device
def tap_table(p, table, first, count):
    """Addresses of all taps of the pixels first .. first + count, whole tiles: table[tile][tap][row], of the first group."""
    mr, pixel = f32_rows(), p.channels * 4
    row_bytes, tile_size = p.width * pixel, p.segments * f32_rows()
    ox, r = first % p.out_width, first // p.out_width
    oy, image = r % p.out_height, r // p.out_height
    row, at = 0, 0
    for i in range(0, (count + mr - 1) // mr * mr):
        iy, ix = oy * p.sh - p.top, ox * p.sw - p.left
        here = p.x + (image * p.height + iy) * row_bytes + ix * pixel
        to = at + row
        if iy >= 0 and iy + (p.kh - 1) * p.dh < p.height and ix >= 0 and ix + (p.kw - 1) * p.dw < p.width:
            for _ in range(p.kh):
                for kx in range(p.kw):
                    store_i64(table, to, here + kx * p.dw * pixel)
                    to += mr
                here += p.dh * row_bytes
        else:
            for ky in range(p.kh):
                y = iy + ky * p.dh
                for kx in range(p.kw):
                    x = ix + kx * p.dw
                    inside = y >= 0 and y < p.height and x >= 0 and x < p.width
                    store_i64(table, to, here + ky * p.dh * row_bytes + kx * p.dw * pixel if inside else p.zeros)
                    to += mr
        row += 1
        if row == mr:
            row, at = 0, at + tile_size
        if i + 1 < count:                                     # rows of the last tile that are too many repeat the last one
            ox += 1
            if ox == p.out_width:
                ox, oy = 0, oy + 1
            if oy == p.out_height:
                oy, image = 0, image + 1


@kernel(CONV)
def conv_f32(p, begin, end):
    """A chunk is a block of pixels and columns of every group."""
    scratch = p.scratch + begin * p.scratch_size
    k = p.segments * p.length
    for c in prange(begin, end):
        column, row = c % p.column_chunks * p.columns, c // p.column_chunks * p.rows
        last, columns = min(p.m, row + p.rows), min(p.columns, p.n - column)
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            tap_table(p, scratch, first, count)
            for group in range(p.groups):
                panels = p.w + group * p.group_bytes + column * (k + 1) * 4
                y = p.y + (group * p.n + column) * 4 + first * p.ldc
                table_gemm_f32(scratch, p.segments, group * p.depth * 4, panels, y, p.ldc, count, p.length, columns, p.lo, p.hi)
                finish(p.tail, p.record + begin * RECORD, y, p.ldc, count, columns)
    return 0
