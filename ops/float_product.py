"""float32 matrix products on packed panels: y[b, m, n] = clamp(sum_k x[b, m, k] * w[b, k, n] + bias[n]).

Constant right sides are packed once per model, others by a step in front of the product. One row is a product of a vector
(bound by reading the panels), more rows use the tiles of ops/simd/gemm_f32.py, or of gemm_bf16.py where the target asks for
products of bfloat16 (`KINDS`). float16 nodes are widened and narrowed.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import load_f16, load_f32, load_i64, store_f16, store_f32
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target, chunked, row_pitch
from litejit.ops.bf16_product import product_bf16, product_bf16_row, product_rows, scale_panels_bf16
from litejit.ops.pack_panels import Places, pack_step, panels_size
from litejit.ops.simd.gemm_bf16 import pack_bf16
from litejit.ops.simd.gemm_f32 import gemm_f32, gemv_f32, pack_f32, panel_columns, row_block, scale_panel_f32
from litejit.ops.simd.moves import TRANSPOSE
from litejit.ops.simd.tiles import f32_columns, grain, tile_shape
from litejit.ops.tails import RECORD, TAIL, finish, residual, tail_params
from litejit.planner.constants import joined
from litejit.planner.graph import Node, Value

PRODUCT = np.dtype([("x", "i8"), ("panels", "i8"), ("y", "i8"), ("offsets", "i8"), ("m", "i8"), ("n", "i8"), ("k", "i8"),
                    ("lda", "i8"), ("ldc", "i8"), ("rows", "i8"), ("columns", "i8"), ("row_chunks", "i8"),
                    ("column_chunks", "i8"), ("block", "i8"), ("other", "i8"), ("lo", "f4"), ("hi", "f4"), *TAIL], align=True)
SCALE = np.dtype([*((name, "i8") for name in ("source", "scale", "panels", "k", "count", "block")), ("factor", "f4")],
                 align=True)
TURN = np.dtype([("x", "i8"), ("y", "i8"), ("rows", "i8"), ("columns", "i8")], align=True)
CONVERT = np.dtype([("x", "i8"), ("y", "i8"), ("total", "i8"), ("block", "i8")], align=True)
_transpose, _transpose_bytes = TRANSPOSE[4], TRANSPOSE[1]


class Scale(NamedTuple):
    """What the rows of a right side are multiplied with while running: `by` [depth] times `factor`."""

    by: Value
    factor: float = 1.0


class Matrix:
    """The right side of a product: `count` matrices of depth x columns in `value` (columns x depth if transposed)."""

    __slots__ = ("columns", "count", "data", "depth", "key", "transposed", "value")

    def __init__(self, value: Value, columns: int, depth: int, transposed: bool = False, count: int = 1) -> None:
        self.value, self.columns, self.depth, self.transposed, self.count = value, columns, depth, transposed, count
        self.data = value.data
        self.key: Any = (value.key, transposed, count)

    def panel_bytes(self, cpu: Cpu, products: str = "f32") -> int:
        """Bytes of the panels of one matrix."""
        return panels_size(cpu, self.columns, self.depth, products)

    def pack(self, node: Node, bias: Value | None, cpu: Cpu, products: str = "f32") -> tuple[Packed | Scratch, list[Step]]:
        """The panels for a kind of products, and the steps that make them while running."""
        if self.data is not None and (bias is None or bias.data is not None):
            return self._constant(bias, cpu, products), []
        along, across = (4, 4 * self.depth) if self.transposed else (4 * self.columns, 4)
        panels, step = pack_step(node, cpu, products, self.value, bias, self.count, self.columns, self.depth,
                                 Places(along, across, head=0, outer=4 * self.columns * self.depth))
        return panels, [step]

    def scaled(self, node: Node, bias: Value | None, cpu: Cpu, scale: Scale,
               products: str = "f32") -> tuple[Scratch, list[Step]]:
        """Panels of one constant matrix with its rows scaled, and the step that makes them of float32 ones."""
        source, panels, nr = self._constant(bias, cpu, "f32"), Scratch(self.panel_bytes(cpu, products)), panel_columns(cpu)
        count = -(-self.columns // nr)
        chunks, block = chunked(count, max(1, (1 << 14) // (self.depth * nr)))
        params = {"source": source, "scale": scale.by, "panels": panels, "k": self.depth, "count": count, "block": block,
                  "factor": scale.factor}
        return panels, [Step(node, KINDS[products].scale_panels, params, chunks)]

    def _constant(self, bias: Value | None, cpu: Cpu, products: str) -> Packed:
        data, shape, pack = self.data, (self.count, self.columns, self.depth), KINDS[products].pack

        def build() -> np.ndarray:
            w = np.asarray(data, np.float32)
            w = w.reshape(shape) if self.transposed else w.reshape(shape[0], shape[2], shape[1]).transpose(0, 2, 1)
            b = np.zeros(shape[1], np.float32) if bias is None else np.asarray(bias.data, np.float32).ravel()
            return joined(pack(cpu, one, b) for one in w)
        return Packed((self.key, None if bias is None else bias.key, f"panels {products}", panel_columns(cpu)), build)


def split(m: int, n: int, k: int, batches: int, tile: int, nr: int, grain: int) -> tuple[int, int]:
    """(rows, columns) of a chunk: whole tiles; by rows where there are enough of them, else by columns."""
    most = max(1, MAX_CHUNKS // batches)
    grain = grain if m > 1 else grain // 4              # one row is bound by memory
    wanted = min(most, max(1, m * n * k // grain))
    if m >= 2 * tile:
        total = -(-m // tile)
        return -(-total // wanted) * tile, n
    panels = -(-n // nr)
    return m, -(-panels // wanted) * nr


def partition(m: int, n: int, k: int, batches: int, cpu: Cpu, products: str = "f32") -> tuple[int, int]:
    """(rows, columns) of a chunk: whole tiles, cut so that the chunks together read the least.

    A chunk reads its rows of the left side and its panels of the right side; every further cut across reads one of them again.
    """
    tile, nr = tile_shape(cpu, "f32")
    least = grain(cpu, products) // (1 if m > 1 else 4)        # one row is bound by memory
    wanted = min(max(1, MAX_CHUNKS // batches), max(1, m * n * k // least))
    tiles_down, tiles_across = -(-m // tile), -(-n // nr)
    cuts = [(min(down, tiles_down), min(-(-wanted // down), tiles_across)) for down in range(1, wanted + 1)]
    most = max(down * across for down, across in cuts)
    down, across = min((c for c in cuts if c[0] * c[1] >= min(wanted, most)), key=lambda c: n * c[0] + m * c[1])
    return -(-tiles_down // down) * tile, -(-tiles_across // across) * nr


def float_steps(node: Node, target: Target, x: Any, y: Any, matrix: Matrix, bias: Value | None, *,
                bounds: tuple[float, float], m: int = 0, x_at: Sequence[int] = (0,), w_at: Sequence[int] = (0,)) -> list[Step]:
    """Steps of y[b] = x[b] @ matrices[w_at[b]] + bias, x[b] beginning at element x_at[b]; m rows in each."""
    n, k, cpu, kind = matrix.columns, matrix.depth, target.cpu, KINDS[target.products]
    m = m or x.size // k
    if m == 1 and len(x_at) > 1 and len(set(w_at)) == 1 and x_at == tuple(range(0, len(x_at) * k, k)):
        m, x_at, w_at = len(x_at), (0,), w_at[:1]
    if node.scale is None:
        panels, steps = matrix.pack(node, bias, cpu, target.products)
    else:
        panels, steps = matrix.scaled(node, bias, cpu, node.scale, target.products)
    size = matrix.panel_bytes(cpu, target.products)
    rows, columns = partition(m, n, k, len(x_at), cpu, target.products)
    row_chunks, column_chunks = -(-m // rows), -(-n // columns)
    chunks = len(x_at) * row_chunks * column_chunks
    read, places, more = kind.rows(node, cpu, x, x_at, (m, n, k), (rows, columns, chunks))
    pairs = tuple((a, size * b) for a, b in zip(places, w_at))
    params = {**read, "panels": panels, "y": y, "m": m, "n": n, "k": k, "ldc": row_pitch(node, n), "rows": rows,
              "columns": columns, "row_chunks": row_chunks, "column_chunks": column_chunks, **residual(node, bounds),
              **tail_params(node, chunks), "offsets": Packed(("offsets", pairs), lambda: np.array(pairs, np.int64))}
    touched = 4 * m * (k * len(set(x_at)) + n * len(x_at)) + size * len(set(w_at))
    return [*steps, *more, Step(node, kind.row if m == 1 else kind.product, params, chunks,
                         macs=len(x_at) * m * n * k, touched=touched, products=target.products)]


def takes_pitch(node: Node, target: Target) -> bool:
    """Whether a node is a float32 product whose rows may lie apart: what a residual tail adds would have to lie as they do."""
    plain = node[0].type == node[1].type == "f32" and target.mode != "ref"
    return plain and (node.tail is None or node.tail.other is None)


def rows_as_they_lie(node: Node, cpu: Cpu, x: Any, x_at: Sequence[int], sizes: tuple[int, int, int],
                     cut: tuple[int, int, int]) -> tuple[dict[str, Any], list[int], list[Step]]:
    """`product_rows` of ops/bf16_product.py for float32 products, which take the rows from where they are."""
    k = sizes[2]
    return {"x": x, "lda": 4 * k, "block": row_block(cpu, k, cut[0])}, [4 * a for a in x_at], []


def turned(node: Node, x: Any, count: int, rows: int, columns: int, size: int = 4) -> tuple[Scratch, Step]:
    """`count` matrices rows x columns of x (elements of 4 or 1 bytes), transposed into scratch memory."""
    made = Scratch(size * count * rows * columns)
    kind = transpose_words if size == 4 else transpose_bytes
    return made, Step(node, kind, {"x": x, "y": made, "rows": rows, "columns": columns}, count)


def convert(node: Node, kind: Any, x: Any, y: Any, total: int) -> Step:
    """The step `kind` (widen_f16 or narrow_f16) on `total` elements."""
    chunks, block = chunked(total, 1 << 15)
    return Step(node, kind, {"x": x, "y": y, "total": total, "block": block}, chunks)


def half_steps(node: Node, target: Target, x: Value, y: Value, matrix: Matrix, bias: Value | None,
               bounds: tuple[float, float], turn: tuple[int, int, int] | None = None, **batches: Any) -> list[Step]:
    """A product of float16 tensors: computed in float32, rounded once; `turn`: x is to be `turned` first."""
    target = target.exact()
    wide_x, wide_y = Scratch(4 * x.size), Scratch(4 * y.size)
    steps = [convert(node, widen_f16, x, wide_x, x.size)]
    if turn is not None:
        wide_x, step = turned(node, wide_x, *turn)
        steps.append(step)
    if matrix.data is None:
        wide_w = Scratch(4 * matrix.value.size)
        steps.append(convert(node, widen_f16, matrix.value, wide_w, matrix.value.size))
        matrix.value = wide_w                                             # type: ignore[assignment]
    batches.setdefault("m", x.size // matrix.depth)
    steps += float_steps(node, target, wide_x, wide_y, matrix, bias, bounds=bounds, **batches)
    return [*steps, convert(node, narrow_f16, wide_y, y, y.size)]


@kernel(PRODUCT)
def product_f32(p, begin, end):
    """Products of some rows, with a tail (ops/tails.py)."""
    other = p.other - p.y if p.other != 0 else 0
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        batch = c // (p.column_chunks * p.row_chunks)
        x = p.x + load_i64(p.offsets, 2 * batch)
        panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * (p.k + 1) * 4
        last, columns = min(p.m, row + p.rows), min(p.columns, p.n - column)
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            y = p.y + (batch * p.m + first) * p.ldc + column * 4
            gemm_f32(x + first * p.lda, p.lda, panels, y, p.ldc, count, p.k, columns, count, p.lo, p.hi, other)
            finish(p.tail, p.record + begin * RECORD, y, p.ldc, count, columns)
    return 0


@kernel(PRODUCT)
def product_f32_row(p, begin, end):
    """Products of single rows, with a function as a tail."""
    for c in prange(begin, end):
        column, batch = c % p.column_chunks * p.columns, c // p.column_chunks
        panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * (p.k + 1) * 4
        y, columns = p.y + batch * p.ldc + column * 4, min(p.columns, p.n - column)
        gemv_f32(p.x + load_i64(p.offsets, 2 * batch), panels, y, p.k, columns, p.lo, p.hi)
        finish(p.tail, p.record + begin * RECORD, y, p.ldc, 1, columns)
    return 0


@kernel(SCALE)
def scale_panels_f32(p, begin, end):
    """A chunk is some panels."""
    size = (p.k + 1) * f32_columns() * 4
    for c in prange(begin, end):
        for q in range(c * p.block, min(p.count, (c + 1) * p.block)):
            scale_panel_f32(p.source + q * size, p.scale, p.panels + q * size, p.k, p.factor)
    return 0


@kernel(TURN)
def transpose_words(p, begin, end):
    """A chunk is a matrix."""
    size = 4 * p.rows * p.columns
    for c in prange(begin, end):
        _transpose(p.y + c * size, p.x + c * size, 4 * p.rows, 4 * p.columns, p.rows, p.columns)
    return 0


@kernel(TURN)
def transpose_bytes(p, begin, end):
    """A chunk is a matrix."""
    size = p.rows * p.columns
    for c in prange(begin, end):
        _transpose_bytes(p.y + c * size, p.x + c * size, p.rows, p.columns, p.rows, p.columns)
    return 0


@kernel(CONVERT)
def widen_f16(p, begin, end):
    for c in prange(begin, end):
        for i in range(c * p.block, min(p.total, (c + 1) * p.block)):
            store_f32(p.y, i, load_f16(p.x, i))
    return 0


@kernel(CONVERT)
def narrow_f16(p, begin, end):
    for c in prange(begin, end):
        for i in range(c * p.block, min(p.total, (c + 1) * p.block)):
            store_f16(p.y, i, load_f32(p.x, i))
    return 0


# ---- kinds of products -----------------------------------------------------------------------------

class Kind(NamedTuple):
    """What float32 products are made of: packing, kernels, and how these read the left side."""

    pack: Callable[..., np.ndarray]                      # (cpu, weights [n, k], bias [n] or None) -> panels
    scale_panels: Kernel                                 # of float32 panels, with other factors of the rows
    product: Kernel                                      # of some rows
    row: Kernel                                          # of a single row
    rows: Callable[..., tuple[dict[str, Any], list[int], list[Step]]]        # as bf16_product.product_rows


KINDS = {
    "f32": Kind(pack_f32, scale_panels_f32, product_f32, product_f32_row, rows_as_they_lie),
    "bf16": Kind(pack_bf16, scale_panels_bf16, product_bf16, product_bf16_row, product_rows),
}
