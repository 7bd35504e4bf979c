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
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import fill_bytes
from litejit.ops.arithmetic import float_range
from litejit.ops.base import MAX_CHUNKS, Operator, Scratch, Step, Target
from litejit.ops.simd.gemm_f32 import gemm_f32, panel_columns, row_block
from litejit.ops.simd.moves import TRANSPOSE, rows
from litejit.ops.simd.row_sweeps import SCORES
from litejit.ops.simd.tiles import tile_shape
from litejit.planner.graph import Node

_OPERAND = ("outer", "head", "row")   # byte strides: of the batches of heads, of heads, of rows
ATTENTION = np.dtype([
    *((name, "i8") for name in ("q", "k", "v", "mask", "y", "scores", "heads", "m", "n", "depth", "width", "rows", "some",
                                "row_chunks", "pitch", "scratch", "k_bytes", "v_bytes", "block", "v_block")),
    *((f"{who}_{what}", "i8") for who in ("q", "mask", "y") for what in _OPERAND),
    ("scale", "f4"), ("lo", "f4"), ("hi", "f4")], align=True)
PACK = np.dtype([(name, "i8") for name in (
    "k", "v", "k_panels", "v_panels", "heads", "n", "depth", "width", "nr", "k_bytes", "v_bytes", "k_column", "k_step",
    "v_column", "v_step", "k_outer", "k_head", "v_outer", "v_head")], align=True)
GRAIN = 1 << 19                       # multiply-accumulates worth a chunk
SCORE_BYTES = 12288 << 15                 # scores that are computed at a time
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
        count, nr, mr = o.outer * o.heads, panel_columns(cpu), tile_shape(cpu, "f32")[0]
        k_bytes, v_bytes = (-(-columns // nr) * (depth + 1) * nr * 4 for columns, depth in ((o.n, o.depth), (o.width, o.n)))
        k_panels, v_panels = Scratch(count * k_bytes), Scratch(count * v_bytes)
        shared: dict[str, Any] = {"heads": o.heads, "n": o.n, "depth": o.depth, "width": o.width, "k_bytes": k_bytes,
                                  "v_bytes": v_bytes}
        pack = {**shared, "k": node[1], "v": node[2], "k_panels": k_panels, "v_panels": v_panels, "nr": nr}
        for name, h in (("k", o.k), ("v", o.v)):
            outer, head, row, column = (4 * stride for stride in h)
            # the columns of k's panels are its rows
            across, along = (row, column) if name == "k" else (column, row)
            pack.update({f"{name}_outer": outer, f"{name}_head": head, f"{name}_column": across, f"{name}_step": along})
        chunk, some = _split(o, count, mr)
        row_chunks = -(-o.m // chunk)
        pitch = 4 * (-(-o.n // 16) * 16)
        how = "masked" if o.mask else "plain" if o.scale is None else "scaled"
        bounds = float_range("NONE", node.xnn)
        params = {**shared, **o.q.fields("q"), **o.y.fields("y"), "q": node[0], "k": k_panels, "v": v_panels, "y": node.out,
                  "m": o.m, "rows": chunk, "some": some, "row_chunks": row_chunks, "pitch": pitch, "scratch": some * pitch,
                  "scores": Scratch(count * row_chunks * some * pitch), "block": row_block(cpu, o.depth, some),
                  "v_block": row_block(cpu, o.n, some), "scale": 1.0 if o.scale is None else o.scale, "lo": bounds[0],
                  "hi": bounds[1]}
        if o.mask:
            params.update(mask=node[3], **o.mask.fields("mask"))
        return [Step(node, pack_heads, pack, 2 * count),
                Step(node, attention(how), params, count * row_chunks, macs=count * o.m * o.n * (o.depth + o.width))]


def _split(o: Any, count: int, mr: int) -> tuple[int, int]:
    """(rows of a chunk, rows whose scores are computed at a time), in whole tiles."""
    wanted = min(max(1, MAX_CHUNKS // count), max(1, count * o.m * o.n * (o.depth + o.width) // GRAIN))
    tiles = -(-o.m // mr)
    chunk = -(-tiles // wanted)
    parts = -(-chunk // max(1, SCORE_BYTES // (4 * o.n * mr)))
    return chunk * mr, -(-chunk // parts) * mr


HEADS = Attention()


@kernel(PACK)
def pack_heads(p, begin, end):
    """A chunk is the k or the v of a head."""
    nr = p.nr
    for c in prange(begin, end):
        batch, which = c // 2, c % 2
        if which == 0:
            w = p.k + batch // p.heads * p.k_outer + batch % p.heads * p.k_head
            panel, columns, depth, across, along = p.k_panels + batch * p.k_bytes, p.n, p.depth, p.k_column, p.k_step
        else:
            w = p.v + batch // p.heads * p.v_outer + batch % p.heads * p.v_head
            panel, columns, depth, across, along = p.v_panels + batch * p.v_bytes, p.width, p.n, p.v_column, p.v_step
        for column in range(0, columns, nr):
            width = min(nr, columns - column)
            fill_bytes(panel, 0, 4 * nr if width == nr else 4 * nr * (depth + 1))
            if across == 4:
                rows(panel + 4 * nr, w + 4 * column, 4 * nr, along, depth, 4 * width)
            else:
                _transpose(panel + 4 * nr, w + column * across, 4 * nr, across, width, depth)
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
                gemm_f32(q + r * p.q_row, p.q_row, k, scores, p.pitch, m, p.depth, p.n, p.block, p.lo, p.hi)
                soften(scores, mask + r * p.mask_row, p.mask_row, m, p.n, p.pitch, p.scale)
                gemm_f32(scores, p.pitch, v, y + r * p.y_row, p.y_row, m, p.n, p.width, p.v_block, p.lo, p.hi)
        return 0
    return run
