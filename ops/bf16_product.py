"""Kernels of float32 matrix products in bfloat16: chunks as in ops/float_product.py, whose rows are staged first.

They run where `Target.products` is "bf16".
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import copy_bytes, load_f32, load_i64
from litejit.ops.base import Scratch, Step, chunked
from litejit.ops.simd.gemm_bf16 import gemm_bf16, gemv_bf16, pair_rows_bf16, stage_bf16, stage_block, staged_pitch
from litejit.ops.simd.tiles import f32_columns
from litejit.ops.tails import RECORD, TAIL, finish
from litejit.planner.graph import Node

PRODUCT = np.dtype([("x", "i8"), ("panels", "i8"), ("y", "i8"), ("offsets", "i8"), ("m", "i8"), ("n", "i8"), ("k", "i8"),
                    ("lda", "i8"), ("ldc", "i8"), ("rows", "i8"), ("columns", "i8"), ("row_chunks", "i8"),
                    ("column_chunks", "i8"), ("block", "i8"), ("staged", "i8"), ("staged_size", "i8"), ("pitch", "i8"),
                    ("ready", "i8"), ("other", "i8"), ("lo", "f4"), ("hi", "f4"), *TAIL], align=True)
STAGE = np.dtype([("x", "i8"), ("y", "i8"), ("k", "i8"), ("pitch", "i8"), ("total", "i8"), ("block", "i8")], align=True)
SCALE = np.dtype([*((name, "i8") for name in ("source", "scale", "panels", "k", "count", "block")), ("factor", "f4")],
                 align=True)
ONE = np.float32(1)
ELEMENTS = 1 << 14                    # that are worth a chunk of staging


def product_rows(node: Node, cpu: Cpu, x: Any, x_at: Sequence[int], sizes: tuple[int, int, int], cut: tuple[int, int, int]
                 ) -> tuple[dict[str, Any], list[int], list[Step]]:
    """How a product reads its left side: (parameters, bytes from x to each batch's rows, steps in front).

    sizes: m, n, k; cut: rows and columns of a chunk, chunks. Rows that several chunks use are staged by a step in front.
    """
    (m, n, k), (rows, columns, chunks) = sizes, cut
    block, pitch = min(stage_block(cpu, k, rows), rows), staged_pitch(k)
    if m > 1 and columns < n and all(a % k == 0 for a in x_at):
        total = max(x_at) // k + m
        staged = Scratch(total * pitch + 64)
        parts, each = chunked(total, max(1, ELEMENTS // k))
        step = Step(node, stage_rows_bf16, {"x": x, "y": staged, "k": k, "pitch": pitch, "total": total, "block": each}, parts)
        return ({"x": staged, "lda": pitch, "block": block, "staged": None, "staged_size": 0, "pitch": pitch, "ready": 1},
                [a // k * pitch for a in x_at], [step])
    size = block * pitch + 64
    return ({"x": x, "lda": 4 * k, "block": block, "staged": Scratch(chunks * size), "staged_size": size, "pitch": pitch,
             "ready": 0}, [4 * a for a in x_at], [])


@kernel(STAGE)
def stage_rows_bf16(p, begin, end):
    """A chunk is some rows."""
    for c in prange(begin, end):
        row = c * p.block
        stage_bf16(p.x + 4 * row * p.k, p.y + row * p.pitch, min(p.block, p.total - row), 4 * p.k, p.pitch, 1, 0, 0, p.k)
    return 0


@kernel(PRODUCT)
def product_bf16(p, begin, end):
    """Products of some rows, with a tail (ops/tails.py)."""
    staged, other = p.staged + begin * p.staged_size, p.other - p.y if p.other != 0 else 0
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        batch = c // (p.column_chunks * p.row_chunks)
        x = p.x + load_i64(p.offsets, 2 * batch)
        panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * (1 + (p.k + 1) // 2) * 4
        last, columns = min(p.m, row + p.rows), min(p.columns, p.n - column)
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            y = p.y + (batch * p.m + first) * p.ldc + column * 4
            here = x + first * p.lda
            if p.ready == 0:
                stage_bf16(here, staged, count, p.lda, p.pitch, 1, 0, 0, p.k)
                here = staged
            gemm_bf16(here, p.pitch, panels, y, p.ldc, count, p.k, columns, p.lo, p.hi, other)
            finish(p.tail, p.record + begin * RECORD, y, p.ldc, count, columns)
    return 0


@kernel(PRODUCT)
def product_bf16_row(p, begin, end):
    """Products of single rows, with a function as a tail."""
    staged = p.staged + begin * p.staged_size
    for c in prange(begin, end):
        column, batch = c % p.column_chunks * p.columns, c // p.column_chunks
        panels = p.panels + load_i64(p.offsets, 2 * batch + 1) + column * (1 + (p.k + 1) // 2) * 4
        y, columns = p.y + batch * p.ldc + column * 4, min(p.columns, p.n - column)
        stage_bf16(p.x + load_i64(p.offsets, 2 * batch), staged, 1, 0, 0, 1, 0, 0, p.k)
        gemv_bf16(staged, panels, y, p.k, columns, p.lo, p.hi)
        finish(p.tail, p.record + begin * RECORD, y, p.ldc, 1, columns)
    return 0


@kernel(SCALE)
def scale_panels_bf16(p, begin, end):
    """Panels of float32 ones, row i of the weights times scale[i] * factor; a chunk is some of them."""
    nr = f32_columns()
    size = (1 + (p.k + 1) // 2) * nr * 4
    for c in prange(begin, end):
        for q in range(c * p.block, min(p.count, (c + 1) * p.block)):
            source, to = p.source + q * (p.k + 1) * nr * 4, p.panels + q * size
            copy_bytes(to, source, 4 * nr)
            for i in range(0, p.k, 2):
                both = i + 1 < p.k
                row, other = source + (i + 1) * nr * 4, i + 1 if both else i
                pair_rows_bf16(row, source + (other + 1) * nr * 4, to + (1 + i // 2) * nr * 4, 1, 0, 0, nr, -1 if both else 0,
                               load_f32(p.scale, i) * p.factor, load_f32(p.scale, other) * p.factor)
    return 0
