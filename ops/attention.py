"""Attention heads: softmax(q @ k^T * scale + mask) @ v, what planner/fuse_attention.py makes of a chain of operators.

k and v of every head are packed into panels by a step in front. A chunk then takes some rows of q of one head: a few at a
time, their scores are computed into scratch memory that stays in the cache, made a softmax there, and multiplied by v.
Heads are found by strides, so that no transposed tensor is needed. The numbers are those of the separate operators.
"""
from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.ops.arithmetic import float_range
from litejit.ops.base import MAX_CHUNKS, Operator, Scratch, Step, Target
from litejit.ops.pack_panels import Places, pack_step, panels_size
from litejit.ops.simd.gemm_bf16 import gemm_bf16, stage_bf16, staged_pitch
from litejit.ops.simd.gemm_f32 import gemm_f32, row_block
from litejit.ops.simd.row_sweeps import SCORES
from litejit.ops.simd.tiles import grain, tile_shape
from litejit.planner.graph import Node

_OPERAND = ("outer", "head", "row")   # byte strides: of the batches of heads, of heads, of rows
ATTENTION = np.dtype([
    *((name, "i8") for name in ("q", "k", "v", "mask", "y", "scores", "heads", "m", "n", "depth", "width", "rows", "some",
                                "row_chunks", "pitch", "scratch", "k_bytes", "v_bytes", "block", "v_block")),
    *((f"{who}_{what}", "i8") for who in ("q", "mask", "y") for what in _OPERAND),
    ("scale", "f4"), ("lo", "f4"), ("hi", "f4")], align=True)
SCORE_BYTES = 8192                    # scores that are computed at a time, of two tiles at least


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
        k, k_bytes, pack_k = _packed(node, 1, target, o.k._replace(row=o.k.column, column=o.k.row), o.n, o.depth)
        v, v_bytes, pack_v = _packed(node, 2, target, o.v, o.width, o.n)
        chunk, some = _split(o, count, mr, grain(cpu, target.products))
        row_chunks, pitch, bounds = -(-o.m // chunk), 4 * (-(-o.n // 16) * 16), float_range("NONE", node.xnn)
        scratch = some * (pitch + (staged_pitch(max(o.depth, o.n)) if target.products == "bf16" else 0)) + 64
        params = {**o.q.fields("q"), **o.y.fields("y"), "q": node[0], "k": k, "v": v, "y": node.out, "k_bytes": k_bytes,
                  "v_bytes": v_bytes, "heads": o.heads, "m": o.m, "n": o.n, "depth": o.depth, "width": o.width, "rows": chunk,
                  "some": some, "row_chunks": row_chunks, "pitch": pitch, "scratch": scratch,
                  "scores": Scratch(count * row_chunks * scratch), "block": row_block(cpu, o.depth, some),
                  "v_block": row_block(cpu, o.n, some), "scale": 1.0 if o.scale is None else o.scale, "lo": bounds[0],
                  "hi": bounds[1]}
        if o.mask:
            params.update(mask=node[3], **o.mask.fields("mask"))
        how = "masked" if o.mask else "plain" if o.scale is None else "scaled"
        return [pack_k, pack_v, Step(node, attention(how, target.products), params, count * row_chunks,
                                     macs=count * o.m * o.n * (o.depth + o.width), products=target.products)]


def _packed(node: Node, which: int, target: Target, heads: Heads, columns: int, depth: int) -> tuple[Scratch, int, Step]:
    """(panels of every head of an input, bytes of a head, the step that packs them); heads: rows are along the depth."""
    o, (cpu, products) = node.options, (target.cpu, target.products)
    places = Places(4 * heads.row, 4 * heads.column, 4 * heads.head, 4 * heads.outer, o.heads)
    panels, step = pack_step(node, cpu, products, node[which], None, o.outer * o.heads, columns, depth, places)
    return panels, panels_size(cpu, columns, depth, products), step


def _split(o: Any, count: int, mr: int, least: int) -> tuple[int, int]:
    """(rows of a chunk, rows whose scores are computed at a time), in whole tiles; least: products worth a chunk."""
    wanted = min(max(1, MAX_CHUNKS // count), max(1, count * o.m * o.n * (o.depth + o.width) // least))
    tiles = -(-o.m // mr)
    chunk = -(-tiles // wanted)
    parts = -(-chunk // max(2, SCORE_BYTES // (4 * o.n * mr)))
    return chunk * mr, -(-chunk // parts) * mr


HEADS = Attention()


@device
def times_f32(a, lda, panels, c, ldc, m, k, n, block, lo, hi, staged):
    gemm_f32(a, lda, panels, c, ldc, m, k, n, block, lo, hi, 0)


@device
def times_bf16(a, lda, panels, c, ldc, m, k, n, block, lo, hi, staged):
    pitch = (2 * k + 63) // 64 * 64 | 64                                     # `staged_pitch`
    stage_bf16(a, staged, m, lda, pitch, 1, 0, 0, k)
    gemm_bf16(staged, pitch, panels, c, ldc, m, k, n, lo, hi, 0)


MULTIPLY = {"f32": times_f32, "bf16": times_bf16}


@cache
def attention(how: str, products: str) -> Kernel:
    """The kernel for scores that are plain, scaled, or scaled and masked, of products of a kind."""
    soften, times = SCORES[how], MULTIPLY[products]

    @kernel(ATTENTION, name=f"attention_{how}" + ("" if products == "f32" else f"_{products}"))
    def run(p, begin, end):
        for c in prange(begin, end):
            batch, first = c // p.row_chunks, c % p.row_chunks * p.rows
            outer, head = batch // p.heads, batch % p.heads
            q, y = p.q + outer * p.q_outer + head * p.q_head, p.y + outer * p.y_outer + head * p.y_head
            mask = p.mask + outer * p.mask_outer + head * p.mask_head
            k, v, scores = p.k + batch * p.k_bytes, p.v + batch * p.v_bytes, p.scores + c * p.scratch
            last, staged = min(p.m, first + p.rows), scores + p.some * p.pitch
            for r in range(first, last, p.some):
                m = min(p.some, last - r)
                times(q + r * p.q_row, p.q_row, k, scores, p.pitch, m, p.depth, p.n, p.block, p.lo, p.hi, staged)
                soften(scores, mask + r * p.mask_row, p.mask_row, m, p.n, p.pitch, p.scale)
                times(scores, p.pitch, v, y + r * p.y_row, p.y_row, m, p.n, p.width, p.v_block, p.lo, p.hi, staged)
        return 0
    return run
