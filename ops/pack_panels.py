"""Right sides of float32 products that are no constants: packed into panels by a step in front of the product.

A matrix k x n may lie anywhere by two strides, and matrices come in groups (batches of heads) by two more. The panels are
those of ops/simd/gemm_f32.py or, for products of bfloat16, of ops/simd/gemm_bf16.py.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import fill_bytes, load_f32, store_f32
from litejit.ops.base import Scratch, Step, chunked
from litejit.ops.simd.gemm_bf16 import pair_rows_bf16, stage_bf16
from litejit.ops.simd.gemm_f32 import panel_columns
from litejit.ops.simd.moves import TRANSPOSE, rows
from litejit.planner.graph import Node

PACK = np.dtype([(name, "i8") for name in (
    "w", "bias", "panels", "n", "k", "nr", "heads", "outer", "head", "along", "across", "per_matrix", "total", "block", "size",
    "staged", "staged_size")], align=True)
WORDS = 1 << 12                       # of panels that are worth a chunk
PIECE = 256                           # values of k of a column that are rounded at a time
PIECE_PITCH = 2 * PIECE + 64          # bytes from one of these columns to the next: an odd number of cache lines
GROUP = {"f32": 1, "bf16": 2}         # values of k in a word of a panel
ONE, F32_0 = np.float32(1), np.float32(0)
_transpose = TRANSPOSE[4]


class Places(NamedTuple):
    """Where matrices lie, in bytes: from one value of k, column, head, and group of `heads` matrices to the next one."""

    along: int
    across: int
    head: int = 0
    outer: int = 0
    heads: int = 1


def panels_size(cpu: Cpu, n: int, k: int, products: str) -> int:
    """Bytes of the panels of a matrix k x n."""
    nr = panel_columns(cpu)
    return -(-n // nr) * (1 + -(-k // GROUP[products])) * nr * 4


def pack_step(node: Node, cpu: Cpu, products: str, w: Any, bias: Any, count: int, n: int, k: int, places: Places
              ) -> tuple[Scratch, Step]:
    """The panels of `count` matrices k x n of w with a bias [n] or None, and the step that packs them."""
    nr, each = panel_columns(cpu), panels_size(cpu, n, k, products)
    per_matrix, panels, staging = -(-n // nr), Scratch(count * each), nr * PIECE_PITCH + 64
    size = each // max(1, per_matrix)
    chunks, block = chunked(count * per_matrix, max(1, 4 * WORDS // size))
    params = {"w": w, "bias": bias, "panels": panels, "n": n, "k": k, "nr": nr, **places._asdict(), "per_matrix": per_matrix,
              "total": count * per_matrix, "block": block, "size": size,
              "staged": None if products == "f32" else Scratch(chunks * staging), "staged_size": staging}
    return panels, Step(node, PACKERS[products], params, chunks, touched=4 * count * n * k + count * each)


@device
def begin_panel(p, q):
    """Put the bias into panel q, zeros where no columns are left: (where its matrix has the first column, columns, panel)."""
    batch, column = q // p.per_matrix, q % p.per_matrix * p.nr
    w = p.w + batch // p.heads * p.outer + batch % p.heads * p.head + column * p.across
    panel, width = p.panels + q * p.size, min(p.nr, p.n - column)
    fill_bytes(panel, 0, 4 * p.nr if width == p.nr else p.size)
    if p.bias != 0:
        for j in range(width):
            store_f32(panel, j, load_f32(p.bias, column + j))
    return w, width, panel + 4 * p.nr


@kernel(PACK)
def pack_panels_f32(p, begin, end):
    """A chunk is some panels."""
    for c in prange(begin, end):
        for q in range(c * p.block, min(p.total, (c + 1) * p.block)):
            w, width, panel = begin_panel(p, q)
            if p.across == 4:
                rows(panel, w, 4 * p.nr, p.along, p.k, 4 * width)
            else:
                _transpose(panel, w, 4 * p.nr, p.across, width, p.k)
    return 0


@kernel(PACK)
def pack_panels_bf16(p, begin, end):
    """A chunk is some panels."""
    k, line, staged = p.k, 4 * p.nr, p.staged + begin * p.staged_size
    for c in prange(begin, end):
        for q in range(c * p.block, min(p.total, (c + 1) * p.block)):
            w, width, panel = begin_panel(p, q)
            if p.across == 4:
                pair_rows_bf16(w, w + p.along, panel, k // 2, 2 * p.along, line, width, -1, ONE, ONE)
                if k % 2 != 0:
                    last = w + (k - 1) * p.along
                    pair_rows_bf16(last, last, panel + k // 2 * line, 1, 0, 0, width, 0, ONE, ONE)
            else:
                for first in range(0, k, PIECE):
                    count = min(PIECE, k - first)
                    stage_bf16(w + 4 * first, staged, width, p.across, PIECE_PITCH, 1, 0, 0, count)
                    _transpose(panel + first // 2 * line, staged, line, PIECE_PITCH, width, (count + 1) // 2)
    return 0


PACKERS = {"f32": pack_panels_f32, "bf16": pack_panels_bf16}
