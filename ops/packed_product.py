"""Fast 8-bit products: packed weights and the CPU's dot product instructions.

XNNPACK's codes (int8 -> int8, uint8 -> uint8) are rounded inside the tiles of ops/simd/gemm_int8.py; LiteRT's other
roundings work on rows of accumulators. Hybrid products start from rows that a step in front has quantised and staged. One
row is a product of a vector, bound by reading the weights.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import (bits_f32, fill_bytes, load_i8, load_i16, load_i32, load_i64, load_u8, store_f32,
                                         store_i16, store_i32)
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.float_product import split, turned
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import Layout, Rounding, product_step
from litejit.ops.simd.epilogues import fits_requant
from litejit.ops.simd.gemm_int8 import (HEADER, corrected_bias, flip, make_gemm, pack_int8, panel_bytes, stage_block, stage_bytes,
                                        stage_rows, staged_offset, staged_pitch)
from litejit.ops.simd.gemv_int8 import int8_group, make_gemv
from litejit.ops.simd.moves import TRANSPOSE
from litejit.ops.simd.tiles import int8_columns, tile_shape
from litejit.planner.graph import Node, Value

GRID = [("x", "i8"), ("panels", "i8"), ("y", "i8"), ("offsets", "i8"), ("m", "i8"), ("n", "i8"), ("k", "i8"), ("pitch", "i8"),
        ("ldc", "i8"), ("rows", "i8"), ("columns", "i8"), ("row_chunks", "i8"), ("column_chunks", "i8"), ("column_bytes", "i8"),
        ("block", "i8"), ("terms", "i8")]
CODES = np.dtype([*GRID, ("staged", "i8"), ("staged_size", "i8"), ("flip", "i8"), ("row_factor", "i8"), ("sum_zero", "i8"),
                  ("low", "i8"), ("high", "i8"), ("zero_point", "i8"), ("out_flip", "i8")], align=True)
HYBRID = np.dtype([*GRID, ("lo", "f4"), ("hi", "f4")], align=True)
PACK = np.dtype([("w", "i8"), ("panels", "i8"), ("n", "i8"), ("k", "i8"), ("batch", "i8"), ("w_step", "i8"),
                 ("w_column", "i8"), ("per_matrix", "i8"), ("panel_bytes", "i8"), ("offset", "i8"), ("scale", "f4")], align=True)
GRAIN = 1 << 21                       # multiply-accumulates worth a chunk


def grid(target: Target, m: int, n: int, k: int, batches: int) -> tuple[dict[str, int], int]:
    """(sizes and chunks as fields of GRID, number of chunks)."""
    mr, nr = tile_shape(target.cpu, "int8")
    rows, columns = split(m, n, k, batches, mr, 2 * nr, GRAIN)
    row_chunks, column_chunks = -(-m // rows), -(-n // columns)
    return {"m": m, "n": n, "k": k, "pitch": staged_pitch(target.cpu, k), "rows": rows, "columns": columns,
            "row_chunks": row_chunks, "column_chunks": column_chunks, "column_bytes": panel_bytes(target.cpu, k) // nr,
            "block": min(stage_block(target.cpu, k), -(-rows // mr) * mr)}, batches * row_chunks * column_chunks


def _pairs(firsts: Any, seconds: Any) -> Packed:
    pairs = tuple((int(a), int(b)) for a, b in zip(firsts, seconds))
    return Packed(("offsets", pairs), lambda: np.array(pairs, np.int64))


def _matrix_bytes(target: Target, n: int, k: int) -> int:
    return -(-n // tile_shape(target.cpu, "int8")[1]) * panel_bytes(target.cpu, k)


# ---- codes --------------------------------------------------------------------------------------

def quantised_steps(node: Node, target: Target, x: Value, y: Value, w: Value, bias: Value | None, rounding: Rounding,
                    w_zero: int = 0, layout: Layout | None = None) -> list[Step]:
    """Steps of an int8 or uint8 product with the same type of output. w [n, k], or matrices as `layout` says."""
    layout = layout or Layout(x.size // w.dims[1], *w.dims)
    cpu, m, n, k = target.cpu, layout.m, layout.n, layout.k
    offset, row_factor = x.zero_point + staged_offset(cpu, x.type), 128 - w_zero if w.type == "u8" else 0
    scales = np.ascontiguousarray(np.broadcast_to(rounding.scales, (n,)), np.float32)
    weights = _matrices(w, layout)
    if not _fits(weights, bias, scales, row_factor, k):
        return [product_step(node, x, w, y, bias, layout, rounding, x.zero_point, w_zero)]
    steps: list[Step] = []
    if weights is not None:
        panels: Any = _panels(target, w, weights, bias, scales, offset, layout)
    else:
        panels, step = _pack(node, target, w, layout, offset, scales[0])
        steps.append(step)
    source: Any = x
    if layout.x_step != 1:
        source, step = turned(node, x, x.size // (m * k), k, m, size=1)
        steps.append(step)
    low, high = rounding.bounds
    shift, size = 128 if y.type == "u8" else 0, _matrix_bytes(target, n, k)
    fields, chunks = grid(target, m, n, k, len(layout.x_at))
    staged_size = fields["block"] * fields["pitch"] + 64
    params = {**fields, "x": source, "panels": panels, "y": y, "ldc": n, "staged": Scratch(chunks * staged_size),
              "offsets": _pairs(layout.x_at, (i // (n * k) * size for i in layout.w_at)),
              "staged_size": staged_size, "flip": flip(cpu, x.type), "terms": Scratch(chunks * fields["block"] * 8),
              "row_factor": row_factor, "sum_zero": k * offset, "low": low - shift, "high": high - shift,
              "zero_point": y.zero_point - shift, "out_flip": 0x80 if shift else 0}
    made = CODE_KERNELS[row_factor != 0, m == 1]
    return [*steps, Step(node, made, params, chunks, macs=len(layout.x_at) * m * n * k)]


def _matrices(w: Value, layout: Layout) -> np.ndarray | None:
    """Constant weights as int8 [matrices, n, k]; uint8 ones less 128."""
    if w.data is None:
        return None
    data = np.asarray(w.data)
    if w.type == "u8":
        data = (data.astype(np.int16) - 128).astype(np.int8)
    if layout.w_step != 1:
        return np.ascontiguousarray(data.reshape(-1, layout.k, layout.n).transpose(0, 2, 1))
    return data.reshape(-1, layout.n, layout.k)


def _fits(weights: np.ndarray | None, bias: Value | None, scales: np.ndarray, row_factor: int, k: int) -> bool:
    """Whether vectors may requantise (ops/simd/epilogues.py)."""
    if weights is None:
        most = 255.0 * 128.0 * k
        return most < 2.0**31 and most * float(scales.max()) < 2.0**31
    b = None if bias is None else np.asarray(bias.data).ravel()
    flat = weights if not row_factor else np.abs(weights.astype(np.int16)) + abs(row_factor)
    return all(fits_requant(one, b, scales) for one in flat)


def _panels(target: Target, w: Value, weights: np.ndarray, bias: Value | None, scales: np.ndarray, offset: int,
            layout: Layout) -> Packed:
    b = None if bias is None else np.asarray(bias.data).ravel()
    key = (w.key, None if bias is None else bias.key, "panels int8", target.cpu.name, offset, layout.w_step == 1, scales.tobytes())
    return Packed(key, lambda: np.concatenate(
        [pack_int8(target.cpu, one, corrected_bias(one, b, offset), scales).reshape(-1) for one in weights]))


def _pack(node: Node, target: Target, w: Value, layout: Layout, offset: int, scale: np.float32) -> tuple[Scratch, Step]:
    """Panels of int8 matrices that are known only while running."""
    n, k = layout.n, layout.k
    nr = tile_shape(target.cpu, "int8")[1]
    count, per_matrix = w.size // (n * k), -(-n // nr)
    panels = Scratch(count * _matrix_bytes(target, n, k) + 64)
    params = {"w": w, "panels": panels, "n": n, "k": k, "batch": n * k, "w_step": layout.w_step, "w_column": layout.w_column,
              "per_matrix": per_matrix, "panel_bytes": panel_bytes(target.cpu, k), "offset": offset, "scale": scale}
    return panels, Step(node, pack_panels_int8, params, count * per_matrix)


# ---- hybrid -------------------------------------------------------------------------------------

def hybrid_steps(node: Node, target: Target, x: Value, y: Value, w: Value, bias: Value | None, rounding: Rounding,
                 layout: Layout | None = None, rows: int = 0, lie: dict[str, Any] | None = None) -> list[Step]:
    """Steps of a float32 x int8 product with constant weights: rows quantised, then multiplied.

    rows, lie: how many rows x has and where they begin (`quantise_rows`); layout.x_at counts them in elements.
    """
    layout = layout or Layout(x.size // w.dims[1], *w.dims)
    cpu, m, n, k = target.cpu, layout.m, layout.n, layout.k
    made = quantise_rows(node, x, rows or m, k, "xnn", staged=cpu, **(lie or {}))
    weights, scales = _matrices(w, layout), np.ascontiguousarray(np.broadcast_to(rounding.scales, (n,)), np.float32)
    assert weights is not None
    b = np.zeros(n, np.float32) if bias is None else np.asarray(bias.data, np.float32).ravel()
    key = (w.key, None if bias is None else bias.key, "panels hybrid", cpu.name, layout.w_step == 1, scales.tobytes())
    panels = Packed(key, lambda: np.concatenate(
        [pack_int8(cpu, one, -one.sum(axis=1, dtype=np.int64), scales, b).reshape(-1) for one in weights]))
    size, (low, high) = _matrix_bytes(target, n, k), rounding.bounds
    fields, chunks = grid(target, m, n, k, len(layout.x_at))
    params = {**fields, "x": made.codes, "panels": panels, "y": y, "ldc": 4 * n, "terms": made.terms, "lo": low, "hi": high,
              "offsets": _pairs((i // k for i in layout.x_at), (i // (n * k) * size for i in layout.w_at))}
    return [made.step, Step(node, product_qd8_row if m == 1 else product_qd8, params, chunks,
                            macs=len(layout.x_at) * m * n * k)]


# ---- kernels ------------------------------------------------------------------------------------

@device
def sum_rows(p, staged, count, terms):
    """Terms of staged rows: row_factor * (sum - sum_zero), 8 bytes apart."""
    for i in range(count):
        row, total = staged + i * p.pitch, 0
        if stage_bytes() == 2:
            for j in range(p.k):
                total += load_i16(row, j)
        elif p.flip == 0:
            for j in range(p.k):
                total += load_u8(row, j)
        else:
            for j in range(p.k):
                total += load_i8(row, j)
        store_i32(terms, 2 * i, np.int32(p.row_factor * (total - p.sum_zero)))


def _code_kernel(rows: bool, vector: bool) -> Kernel:
    gemm = make_gemv("code", rows) if vector else make_gemm("code", rows=rows)
    name = f"product_codes{'_terms' if rows else ''}{'_row' if vector else ''}"

    if vector:
        @kernel(CODES, name=name)
        def product(p, begin, end):
            """A chunk is some columns of one row."""
            staged, terms = p.staged + begin * p.staged_size, p.terms + begin * p.block * 8
            for c in prange(begin, end):
                column, batch = c % p.column_chunks * p.columns, c // p.column_chunks
                stage_rows(p.x + load_i64(p.offsets, 2 * batch), 0, 1, p.k, staged, p.pitch, p.flip)
                if rows:
                    sum_rows(p, staged, 1, terms)
                gemm(staged, p.panels + load_i64(p.offsets, 2 * batch + 1) + column * p.column_bytes,
                     p.y + batch * p.ldc + column, p.k, min(p.columns, p.n - column), terms, p.low, p.high, p.zero_point,
                     p.out_flip)
            return 0
        return product

    @kernel(CODES, name=name)
    def products(p, begin, end):
        """A chunk is a block of rows and columns of one batch."""
        staged, terms = p.staged + begin * p.staged_size, p.terms + begin * p.block * 8
        for c in prange(begin, end):
            column = c % p.column_chunks * p.columns
            row = c // p.column_chunks % p.row_chunks * p.rows
            batch = c // (p.column_chunks * p.row_chunks)
            x = p.x + load_i64(p.offsets, 2 * batch)
            panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * p.column_bytes
            last = min(p.m, row + p.rows)
            for first in range(row, last, p.block):
                count = min(p.block, last - first)
                stage_rows(x + first * p.k, p.k, count, p.k, staged, p.pitch, p.flip)
                if rows:
                    sum_rows(p, staged, count, terms)
                gemm(staged, p.pitch, panels, p.y + (batch * p.m + first) * p.ldc + column, p.ldc, count, p.k,
                     min(p.columns, p.n - column), terms, p.low, p.high, p.zero_point, p.out_flip)
        return 0
    return products


CODE_KERNELS = {(rows, vector): _code_kernel(rows, vector) for rows in (False, True) for vector in (False, True)}
_gemm_f32, _gemv_f32, _transpose = make_gemm("f32"), make_gemv("f32"), TRANSPOSE[4]


@kernel(HYBRID)
def product_qd8(p, begin, end):
    lo, hi = np.int64(bits_f32(p.lo)), np.int64(bits_f32(p.hi))
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        batch = c // (p.column_chunks * p.row_chunks)
        panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * p.column_bytes
        last = min(p.m, row + p.rows)
        for first in range(row, last, p.block):
            source = load_i64(p.offsets, 2 * batch) + first
            _gemm_f32(p.x + source * p.pitch, p.pitch, panels, p.y + (batch * p.m + first) * p.ldc + column * 4, p.ldc,
                      min(p.block, last - first), p.k, min(p.columns, p.n - column), p.terms + source * 8, lo, hi, 0, 0)
    return 0


@kernel(HYBRID)
def product_qd8_row(p, begin, end):
    lo, hi = np.int64(bits_f32(p.lo)), np.int64(bits_f32(p.hi))
    for c in prange(begin, end):
        column, batch = c % p.column_chunks * p.columns, c // p.column_chunks
        source = load_i64(p.offsets, 2 * batch)
        _gemv_f32(p.x + source * p.pitch, p.panels + load_i64(p.offsets, 2 * batch + 1) + column * p.column_bytes,
                  p.y + batch * p.ldc + column * 4, p.k, min(p.columns, p.n - column), p.terms + source * 8, lo, hi, 0, 0)
    return 0


@kernel(PACK)
def pack_panels_int8(p, begin, end):
    """A chunk is a panel; its first numbers are -offset * column sums, the second the scale."""
    nr, n, k, group = int8_columns(), p.n, p.k, int8_group()
    for c in prange(begin, end):
        column = c % p.per_matrix * nr
        w = p.w + c // p.per_matrix * p.batch + column * p.w_column
        panel, width = p.panels + c * p.panel_bytes, min(nr, n - column)
        weights, whole = panel + HEADER * nr * 4, k // group
        if width < nr or k % group != 0:
            fill_bytes(panel, 0, p.panel_bytes)
        for j in range(nr):
            store_i32(panel, j, np.int32(0))
            store_f32(panel, nr + j, p.scale)
        if group == 2:
            for i in range(k):
                for j in range(width):
                    v = load_i8(w, i * p.w_step + j * p.w_column)
                    store_i16(weights, (i // 2 * nr + j) * 2 + i % 2, np.int16(v))
                    store_i32(panel, j, np.int32(load_i32(panel, j) + v))
        elif p.w_column == 1:
            for g in range(whole + (k % group != 0)):
                here, step = w + 4 * g * p.w_step, p.w_step
                two, three, four = 4 * g + 1 < k, 4 * g + 2 < k, 4 * g + 3 < k
                if four:
                    for j in range(width):
                        pack_four(panel, weights + g * nr * 4, j, load_i8(here, j), load_i8(here + step, j),
                                  load_i8(here + 2 * step, j), load_i8(here + 3 * step, j))
                else:
                    for j in range(width):
                        pack_four(panel, weights + g * nr * 4, j, load_i8(here, j), load_i8(here + step, j) if two else 0,
                                  load_i8(here + 2 * step, j) if three else 0, 0)
        else:
            _transpose(weights, w, nr * 4, p.w_column, width, whole)
            for j in range(width):
                here, total = w + j * p.w_column, np.int32(0)
                for i in range(k):
                    total = np.int32(total + load_i8(here, i))
                store_i32(panel, j, total)
                if k % 4 != 0:
                    at = 4 * whole
                    store_i32(weights + whole * nr * 4, j, np.int32(
                        (load_i8(here, at) & 255) | (((load_i8(here, at + 1) & 255) << 8) if at + 1 < k else 0)
                        | (((load_i8(here, at + 2) & 255) << 16) if at + 2 < k else 0)))
        for j in range(nr):
            store_i32(panel, j, np.int32(load_i32(panel, j) * -p.offset))
    return 0


@device
def pack_four(sums, weights, j, a, b, c, d):
    """Lane j of a group of four weights, and its column's sum."""
    store_i32(weights, j, np.int32((a & 255) | ((b & 255) << 8) | ((c & 255) << 16) | ((d & 255) << 24)))
    store_i32(sums, j, np.int32(load_i32(sums, j) + a + b + c + d))
