"""Fast 8-bit products: packed weights and the CPU's dot product instructions.

8-bit codes are rounded inside the tiles of ops/simd/tile_int8.py, in XNNPACK's and LiteRT's ways; other outputs work on
rows of accumulators. Hybrid products start from rows that a step in front has quantised and staged. One
row is a product of a vector, bound by reading the weights.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import (
    load_f64,
    load_i32,
    load_i64,
    rint_f32,
    round_f64,
    store_i8,
)
from litejit.ops.arithmetic import fixed_point, mbqm, saturate
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.float_product import split, turned
from litejit.ops.hybrid import quantise_rows
from litejit.ops.int8_panels import RightSide
from litejit.ops.integer_product import (
    DOUBLE,
    FIXED,
    HYBRID_SIGN,
    ROUNDING,
    XNN,
    Layout,
    Rounding,
    product_step,
    rounded,
    store_code,
)
from litejit.ops.simd.epilogues import range_of
from litejit.ops.simd.gemm_int8 import TILES, float_bits, make_gemm, pack_int8, panel_bytes, tile_params
from litejit.ops.simd.gemv_int8 import VECTOR, make_gemv, vector_params
from litejit.ops.simd.stage_int8 import flip, stage_block, stage_rows, staged_offset, staged_pitch, sum_terms
from litejit.ops.simd.tiles import grain, tile_shape
from litejit.planner.graph import Node, Value

GRID = [(name, "i8") for name in (
    "x", "panels", "offsets", "m", "n", "k", "pitch", "ldc", "rows", "columns", "row_chunks", "column_chunks", "column_bytes",
    "block", "terms", "staged", "staged_size", "flip", "row_factor", "sum_zero")]
ENDS = [(name, "i8") for name in ("y", "ready", "low", "high", "zero_point", "out_flip")]
"""Fields of products that end in the tiles; ready: STAGED, or TERMS, where `x` is rows that follow each other."""
CODES, STAGED, TERMS, IN_PLACE = range(4)    # x is codes; staged rows with `terms`, those of all rows; codes with such terms;
                                             # codes that the tiles read as they lie
PRODUCT = np.dtype([*GRID, *TILES, *ENDS], align=True)
ROW = np.dtype([*GRID, *VECTOR, *ENDS], align=True)
ROUNDED = np.dtype([*GRID, *TILES, *ROUNDING, ("acc", "i8")], align=True)
ACCUMULATORS = 1 << 14                # that a chunk keeps


def grid(target: Target, m: int, n: int, k: int, batches: int, narrow: int = 0, tile_rows: int = 0
         ) -> tuple[dict[str, int], int]:
    """(sizes and chunks as fields of GRID, number of chunks). narrow: of panels; tile_rows: where not those of the level."""
    most, nr = tile_shape(target.cpu, "int8")
    mr = tile_rows or most
    rows, columns = split(m, n, k, batches, mr, 2 * nr, grain(target.cpu, "int8"))
    row_chunks, column_chunks = -(-m // rows), -(-n // columns)
    return {"m": m, "n": n, "k": k, "pitch": staged_pitch(target.cpu, k), "rows": rows, "columns": columns,
            "row_chunks": row_chunks, "column_chunks": column_chunks,
            "column_bytes": panel_bytes(target.cpu, k, narrow=narrow) // nr,
            "block": min(stage_block(target.cpu, k), -(-rows // mr) * mr)}, batches * row_chunks * column_chunks


def pairs(firsts: Any, seconds: Any) -> Packed:
    """The field `offsets`: where the rows and the panels of each batch begin."""
    numbers = tuple((int(a), int(b)) for a, b in zip(firsts, seconds))
    return Packed(("offsets", numbers), lambda: np.array(numbers, np.int64))


# ---- codes --------------------------------------------------------------------------------------

def quantised_steps(node: Node, target: Target, x: Value, y: Value, w: Value, bias: Value | None, rounding: Rounding,
                    w_zero: int = 0, layout: Layout | None = None, source: Any = None) -> list[Step]:
    """Steps of a product of int8, or of uint8, matrices with constant bias; w is [n, k], or lies as `layout` says.

    source: where the codes of x lie, if not in x.
    """
    layout = layout or Layout(x.size // w.dims[1], w.dims[0], w.dims[1])
    cpu, m, n, k = target.cpu, layout.m, layout.n, layout.k
    right, offset = RightSide(w, w_zero, bias, layout, cpu), x.zero_point + staged_offset(cpu, x.type)
    end, numbers = _end(rounding, right, y, n)
    source = x if source is None else source
    if rounding.kind == XNN and not end:
        return [product_step(node, source, w, y, bias, layout, rounding, x.zero_point, w_zero, x.type)]
    narrow = right.narrow if m == 1 and end == "code" else 0
    panels, steps = right.panels(node, bias, offset, numbers, narrow)
    if layout.x_step != 1:
        source, step = turned(node, source, x.size // (m * k), k, m, size=1)
        steps.append(step)
    fields, chunks = grid(target, m, n, k, len(layout.x_at), narrow)
    if not end:
        mr = tile_shape(cpu, "int8")[0]
        fields["block"] = min(fields["block"], max(1, ACCUMULATORS // fields["columns"] // mr) * mr)
    staged_size = fields["block"] * fields["pitch"] + 64
    params = {**fields, "x": source, "panels": panels, "staged": Scratch(chunks * staged_size), "staged_size": staged_size,
              "offsets": pairs(layout.x_at, (i // (n * k) * right.matrix_bytes(narrow) for i in layout.w_at)),
              "flip": flip(cpu, x.type),
              "terms": Scratch(chunks * fields["block"] * 8), "row_factor": right.row_factor, "sum_zero": k * offset}
    if not end:
        params.update(tile_params(cpu, n, "i32", rows=True))
        params.update(rounding.params(y, n, None), ldc=n, acc=Scratch(chunks * fields["block"] * fields["columns"] * 4 + 64))
        return [*steps, Step(node, product_rounded, params, chunks, macs=len(layout.x_at) * m * n * k)]
    (low, high), shift = rounding.bounds, 128 if y.type == "u8" else 0       # uint8 codes are made as int8 ones
    params.update(y=y, ldc=n, low=low - shift, high=high - shift, zero_point=y.zero_point - shift,
                  out_flip=0x80 if shift else 0)
    codes = range_of(int(low) - shift, int(high) - shift, y.zero_point - shift) if end == "code" else ""
    row, sums = end == "code" and m == 1, end != "code" or right.row_factor != 0
    if row:
        params.update(vector_params(cpu, end, right.row_factor != 0, narrow))
    elif not sums and cpu.dot == "vnni":
        params.update(tile_params(cpu, n, end, signed=x.type == "i8", range_=codes), ready=IN_PLACE, pitch=k, staged=None)
    else:
        params.update(tile_params(cpu, n, end, rows=sums, range_=codes))
    return [*steps, Step(node, product_int8_row if row else product_int8, params, chunks, macs=len(layout.x_at) * m * n * k)]


def _end(rounding: Rounding, right: RightSide, y: Value, n: int) -> tuple[str, tuple[np.ndarray, ...]]:
    """(the end of the tiles, or "" where accumulators are rounded in memory; the columns' second and third numbers)."""
    kind, scales = rounding.kind, np.ascontiguousarray(np.broadcast_to(rounding.scales, (n,)))
    if kind == XNN:
        return ("code", (scales.astype(np.float32),)) if right.fits(scales.astype(np.float32)) else ("", ())
    if y.type in ("i8", "u8"):
        if kind == FIXED:
            return "fixed", fixed_point(scales, n)
        if kind == DOUBLE and right.fits(scales):
            return "double", (scales,)
    return "", ()


# ---- hybrid -------------------------------------------------------------------------------------

def hybrid_steps(node: Node, target: Target, x: Value, y: Value, w: Value, bias: Value | None, rounding: Rounding,
                 layout: Layout | None = None, rows: int = 0, lie: dict[str, Any] | None = None, how: str = "xnn"
                 ) -> list[Step]:
    """Steps of a float32 x int8 product with constant weights: rows quantised, then multiplied.

    rows, lie: how many rows x has and where they begin; layout.x_at counts them in elements; how: see `quantise_rows`.
    HYBRID_SIGN goes with "symmetric".
    """
    layout = layout or Layout(x.size // w.dims[1], w.dims[0], w.dims[1])
    cpu, m, n, xnn = target.cpu, layout.m, layout.n, how == "xnn"
    mirrored = layout.k - layout.k % 16 if rounding.kind == HYBRID_SIGN else 0
    k, end = layout.k + mirrored, "f32" if xnn else "real"
    made = quantise_rows(node, x, rows or m, layout.k, how, staged=cpu if xnn else None, offset=staged_offset(cpu, "i8"),
                         mirrored=mirrored, **(lie or {}))
    scales = np.ascontiguousarray(np.broadcast_to(rounding.scales, (n,)), np.float32)
    right = RightSide(signed(w), 0, None, layout, cpu)
    data = right.data
    assert data is not None
    b = np.zeros(n, np.float32) if bias is None else np.asarray(bias.data, np.float32).ravel()
    narrow = (8 if mirrored else right.narrow) if m == 1 else 0

    def build() -> np.ndarray:
        weights = with_signs(data, mirrored) if mirrored else data
        return np.concatenate([pack_int8(cpu, one, -one.sum(axis=1, dtype=np.int64), scales, b, narrow=narrow).reshape(-1)
                               for one in weights])
    panels = Packed((*right.key(bias), "panels hybrid", narrow, mirrored, scales.tobytes()), build)
    size = -(-n // tile_shape(cpu, "int8")[1]) * panel_bytes(cpu, k, narrow=narrow)
    fields, chunks = grid(target, m, n, k, len(layout.x_at), narrow)
    low, high = rounding.bounds
    products = vector_params(cpu, end, narrow=narrow) if narrow else tile_params(cpu, n, end)
    params = {**fields, **products, "x": made.codes, "panels": panels, "y": y, "ldc": 4 * n, "terms": made.terms,
              "ready": STAGED if xnn else TERMS, "low": float_bits(low), "high": float_bits(high),
              "offsets": pairs((i // layout.k for i in layout.x_at), (i // (n * layout.k) * size for i in layout.w_at))}
    if not xnn:
        staged_size = fields["block"] * fields["pitch"] + 64
        params.update(staged=Scratch(chunks * staged_size), staged_size=staged_size, flip=flip(cpu, "i8"))
    return [*made.steps, Step(node, product_int8_row if narrow else product_int8, params, chunks,
                              macs=len(layout.x_at) * m * n * layout.k)]


def signed(w: Value) -> Value:
    """Weights whose bytes are int8: LiteRT reads those of uint8 so in hybrid products."""
    if w.type != "u8" or w.data is None:
        return w
    return w.derived("int8", np.asarray(w.data).reshape(w.dims).view(np.int8), "i8")


def with_signs(weights: np.ndarray, count: int) -> np.ndarray:
    """Weights [matrices, n, k] for rows whose first `count` codes are followed by the same ones without a sign.

    LiteRT's SSE kernel multiplies those with -128 where the weight is -128.
    """
    lowest = weights[:, :, :count] == -128
    rest = np.zeros((*weights.shape[:2], weights.shape[2] - count), bool)
    return np.concatenate([np.where(np.concatenate([lowest, rest], axis=2), 0, weights), np.where(lowest, -128, 0)],
                          axis=2).astype(np.int8)


# ---- kernels ------------------------------------------------------------------------------------

_gemm, _gemm_acc, _gemv = make_gemm(), make_gemm(), make_gemv()


@kernel(PRODUCT)
def product_int8(p, begin, end):
    """A chunk is a block of rows and columns of one batch."""
    own, own_terms = p.staged + begin * p.staged_size, p.terms + begin * p.block * 8
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        batch = c // (p.column_chunks * p.row_chunks)
        source = load_i64(p.offsets, 2 * batch)
        panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * p.column_bytes
        last = min(p.m, row + p.rows)
        for first in range(row, last, p.block):
            count, staged, terms = min(p.block, last - first), own, own_terms
            if p.ready == STAGED or p.ready == TERMS:
                terms = p.terms + (source + first) * 8
            if p.ready == STAGED:
                staged = p.x + (source + first) * p.pitch
            elif p.ready == IN_PLACE:
                staged = p.x + source + first * p.pitch
            else:
                at = source + first * p.k if p.ready == CODES else (source + first) * p.k
                stage_rows(p.x + at, p.k, count, p.k, staged, p.pitch, p.flip)
                if p.ready == CODES and p.term_bytes != 0:
                    sum_terms(staged, p.pitch, count, p.k, terms, p.row_factor, p.sum_zero)
            _gemm(p, staged, p.pitch, panels, p.y + (batch * p.m + first) * p.ldc + column * p.out_bytes, p.ldc, count, p.k,
                  min(p.columns, p.n - column), terms, p.low, p.high, p.zero_point, p.out_flip)
    return 0


@kernel(ROW)
def product_int8_row(p, begin, end):
    """A chunk is some columns of one row."""
    own, own_terms = p.staged + begin * p.staged_size, p.terms + begin * p.block * 8
    for c in prange(begin, end):
        column, batch = 0, c
        if p.column_chunks > 1:                                    # a division counts in networks of tiny layers
            column, batch = c % p.column_chunks * p.columns, c // p.column_chunks
        source, staged, terms = load_i64(p.offsets, 2 * batch), own, own_terms
        if p.ready != CODES:
            terms = p.terms + source * 8
        if p.ready == STAGED:
            staged = p.x + source * p.pitch
        else:
            stage_rows(p.x + source * (1 if p.ready == CODES else p.k), 0, 1, p.k, staged, p.pitch, p.flip)
            if p.ready == CODES and p.term_bytes != 0:
                sum_terms(staged, p.pitch, 1, p.k, terms, p.row_factor, p.sum_zero)
        _gemv(p, staged, p.panels + load_i64(p.offsets, 2 * batch + 1) + column * p.column_bytes,
              p.y + batch * p.ldc + column * p.out_bytes, p.k, min(p.columns, p.n - column), terms, p.low, p.high, p.zero_point,
              p.out_flip)
    return 0


@device
def round_row(acc, at, column, n, p):
    """Outputs at .. at + n of a row of accumulators that begins with `column`."""
    if p.rounding == FIXED and p.code == 0:
        for j in range(n):
            multiplier, shift = load_i32(p.table, 2 * (column + j)), load_i32(p.table, 2 * (column + j) + 1)
            store_i8(p.y, at + j, np.int8(saturate(mbqm(load_i32(acc, j), multiplier, shift) + p.y_zero, p.low, p.high)))
    elif p.rounding == DOUBLE and p.code == 0:
        low, high, zero = np.float64(p.low), np.float64(p.high), np.float64(p.y_zero)
        for j in range(n):
            v = round_f64(np.float64(load_i32(acc, j)) * load_f64(p.table, column + j)) + zero
            store_i8(p.y, at + j, np.int8(np.int32(min(max(v, low), high))))
    elif p.rounding == XNN and p.code == 0:
        for j in range(n):
            v = np.float32(load_i32(acc, j)) * np.float32(load_f64(p.table, column + j))
            v = min(max(v, p.least), p.most)
            store_i8(p.y, at + j, np.int8(np.int32(rint_f32(v)) + p.y_zero))
    else:
        for j in range(n):
            store_code(p, at + j, rounded(np.int64(load_i32(acc, j)), column + j, p))


@kernel(ROUNDED)
def product_rounded(p, begin, end):
    """A chunk is a block of rows and columns of one batch; accumulators first, then their codes."""
    staged, terms = p.staged + begin * p.staged_size, p.terms + begin * p.block * 8
    acc = p.acc + begin * p.block * p.columns * 4
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        batch = c // (p.column_chunks * p.row_chunks)
        x = p.x + load_i64(p.offsets, 2 * batch)
        panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * p.column_bytes
        last, n = min(p.m, row + p.rows), min(p.columns, p.n - column)
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            stage_rows(x + first * p.k, p.k, count, p.k, staged, p.pitch, p.flip)
            sum_terms(staged, p.pitch, count, p.k, terms, p.row_factor, p.sum_zero)
            _gemm_acc(p, staged, p.pitch, panels, acc, n * 4, count, p.k, n, terms, 0, 0, 0, 0)
            for i in range(count):
                round_row(acc + i * n * 4, (batch * p.m + first + i) * p.ldc + column, column, n, p)
    return 0
