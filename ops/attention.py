"""Attention heads: softmax(q @ k^T * scale + mask) @ v, what planner/fuse_attention.py makes of a chain of operators.

k and v of every head are packed into panels by a step in front. A chunk then takes some rows of q of one head: a few at a
time, their scores are computed into scratch memory that stays in the cache, made a softmax there, and multiplied by v.
Heads are found by strides, so that no transposed tensor is needed. The numbers are those of the separate operators.
"""
from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import fill_bytes
from litejit.ops.arithmetic import float_range
from litejit.ops.base import MAX_CHUNKS, Operator, Scratch, Step, Target
from litejit.ops.simd.gemm_f32 import gemm_f32, panel_columns, row_block
from litejit.ops.simd.moves import TRANSPOSE, rows
from litejit.ops.simd.row_sweeps import SCORES
from litejit.ops.simd.tiles import grain, tile_shape
from litejit.planner.graph import Node

_OPERAND = ("outer", "head", "row")   # byte strides: of the batches of heads, of heads, of rows
ATTENTION = np.dtype([
    *((name, "i8") for name in ("q", "k", "v", "mask", "y", "scores", "heads", "m", "n", "depth", "width", "rows", "some",
                                "row_chunks", "pitch", "scratch", "k_bytes", "v_bytes", "block", "v_block")),
    *((f"{who}_{what}", "i8") for who in ("q", "mask", "y") for what in _OPERAND),
    ("scale", "f4"), ("lo", "f4"), ("hi", "f4")], align=True)
PACK = np.dtype([(name, "i8") for name in (
    "w", "panels", "heads", "columns", "depth", "nr", "bytes", "width", "chunks", "outer", "head", "across", "along")],
    align=True)
SCORE_BYTES = 8192                    # scores that are computed at a time, of two tiles at least
PACK_PANELS = 4                       # panels that a chunk packs
_transpose = TRANSPOSE[4]


class Heads(NamedTuple):
    """How a tensor holds matrices [outer, heads, rows, columns]: strides in elements of its memory."""

    outer: int
    head: int
    row: int
    column: int = 1

    def fields(self, name: str) -> dict[str, int]:
        """As parameters, in bytes."""
        return {f"{name}_outer": 4 * self.outer, f"{name}_head": 4 * self.head, f"{name}_row": 4 * self.row}


class Attention(Operator):
    """Inputs q, k, v, and a mask if there is one, all float32.

    Options: outer, heads, m, n, depth, width (outer * heads pairs of q [m, depth], k [n, depth], v [n, width]); q, k, v, y
    and mask, the Heads of these tensors; scale (None: 1).
    """

    def steps(self, node: Node, target: Target) -> list[Step]:
        o, cpu = node.options, target.cpu
        count, mr = o.outer * o.heads, tile_shape(cpu, "f32")[0]
        # the columns of k's panels are its rows
        k, k_bytes, pack_k = _packed(node, 1, cpu, o.k._replace(row=o.k.column, column=o.k.row), o.n, o.depth)
        v, v_bytes, pack_v = _packed(node, 2, cpu, o.v, o.width, o.n)
        chunk, some = _split(o, count, mr, grain(cpu, "f32"))
        row_chunks, pitch, bounds = -(-o.m // chunk), 4 * (-(-o.n // 16) * 16), float_range("NONE", node.xnn)
        params = {**o.q.fields("q"), **o.y.fields("y"), "q": node[0], "k": k, "v": v, "y": node.out, "k_bytes": k_bytes,
                  "v_bytes": v_bytes, "heads": o.heads, "m": o.m, "n": o.n, "depth": o.depth, "width": o.width, "rows": chunk,
                  "some": some, "row_chunks": row_chunks, "pitch": pitch, "scratch": some * pitch,
                  "scores": Scratch(count * row_chunks * some * pitch), "block": row_block(cpu, o.depth, some),
                  "v_block": row_block(cpu, o.n, some), "scale": 1.0 if o.scale is None else o.scale, "lo": bounds[0],
                  "hi": bounds[1]}
        if o.mask:
            params.update(mask=node[3], **o.mask.fields("mask"))
        how = "masked" if o.mask else "plain" if o.scale is None else "scaled"
        return [pack_k, pack_v, Step(node, attention(how), params, count * row_chunks,
                                     macs=count * o.m * o.n * (o.depth + o.width))]


def _packed(node: Node, which: int, cpu: Cpu, heads: Heads, columns: int, depth: int) -> tuple[Scratch, int, Step]:
    """(panels of every head of an input, bytes of a head, the step that packs them); heads: rows are along the depth."""
    o, nr = node.options, panel_columns(cpu)
    total, count = -(-columns // nr), o.outer * o.heads
    size, chunks = total * (depth + 1) * nr * 4, -(-total // PACK_PANELS)
    panels = Scratch(count * size)
    return panels, size, Step(node, pack_heads, {
        "w": node[which], "panels": panels, "heads": o.heads, "columns": columns, "depth": depth, "nr": nr, "bytes": size,
        "width": PACK_PANELS * nr, "chunks": chunks, "outer": 4 * heads.outer, "head": 4 * heads.head,
        "along": 4 * heads.row, "across": 4 * heads.column}, count * chunks, touched=4 * count * columns * depth + count * size)


def _split(o: Any, count: int, mr: int, least: int) -> tuple[int, int]:
    """(rows of a chunk, rows whose scores are computed at a time), in whole tiles; least: products worth a chunk."""
    wanted = min(max(1, MAX_CHUNKS // count), max(1, count * o.m * o.n * (o.depth + o.width) // least))
    tiles = -(-o.m // mr)
    chunk = -(-tiles // wanted)
    parts = -(-chunk // max(2, SCORE_BYTES // (4 * o.n * mr)))
    return chunk * mr, -(-chunk // parts) * mr


HEADS = Attention()


@kernel(PACK)
def pack_heads(p, begin, end):
    """A chunk is some panels of a head."""
    nr, depth = p.nr, p.depth
    for c in prange(begin, end):
        batch, first = c // p.chunks, c % p.chunks * p.width
        w = p.w + batch // p.heads * p.outer + batch % p.heads * p.head
        panel = p.panels + batch * p.bytes + 4 * first * (depth + 1)
        for column in range(first, min(p.columns, first + p.width), nr):
            width = min(nr, p.columns - column)
            fill_bytes(panel, 0, 4 * nr if width == nr else 4 * nr * (depth + 1))
            if p.across == 4:
                rows(panel + 4 * nr, w + 4 * column, 4 * nr, p.along, depth, 4 * width)
            else:
                _transpose(panel + 4 * nr, w + column * p.across, 4 * nr, p.across, width, depth)
            panel += 4 * nr * (depth + 1)
    return 0


@cache
def attention(how: str) -> Kernel:
    """The kernel for scores that are plain, scaled, or scaled and masked."""
    soften = SCORES[how]

    @kernel(ATTENTION, name=f"attention_{how}")
    def run(p, begin, end):
        for c in prange(begin, end):
            batch, first = c // p.row_chunks, c % p.row_chunks * p.rows
            outer, head = batch // p.heads, batch % p.heads
            q, y = p.q + outer * p.q_outer + head * p.q_head, p.y + outer * p.y_outer + head * p.y_head
            mask = p.mask + outer * p.mask_outer + head * p.mask_head
            k, v, scores = p.k + batch * p.k_bytes, p.v + batch * p.v_bytes, p.scores + c * p.scratch
            last = min(p.m, first + p.rows)
            for r in range(first, last, p.some):
                m = min(p.some, last - r)
                gemm_f32(q + r * p.q_row, p.q_row, k, scores, p.pitch, m, p.depth, p.n, p.block, p.lo, p.hi, 0)
                soften(scores, mask + r * p.mask_row, p.mask_row, m, p.n, p.pitch, p.scale)
                gemm_f32(scores, p.pitch, v, y + r * p.y_row, p.y_row, m, p.n, p.width, p.v_block, p.lo, p.hi, 0)
        return 0
    return run
