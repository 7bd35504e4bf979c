"""Depthwise convolutions together with the 1x1 convolutions around them, row by row: what is between stays in the cache.

A node of the planner's rule "separable" holds up to three nodes: `expand` (1x1), `depthwise`, `project` (1x1). A chunk is
some output rows. For a group of them the input rows that are missing are expanded into a ring of rows, the depthwise
convolution makes its rows from the ring, and the projection takes those. Every product is the one that the node would make
on its own: the numbers are the same. Chunks expand the rows that they share with a neighbour once each.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.ops.arithmetic import activation, float_range
from litejit.ops.base import MAX_CHUNKS, Operator, Packed, Scratch, Step, Target
from litejit.ops.depthwise import wide_windows
from litejit.ops.depthwise_f32 import float_params, packed_weights, tile_shape
from litejit.ops.depthwise_tiles import TILED, band, make_block, table_bytes
from litejit.ops.float_product import Matrix
from litejit.ops.pixel_sums import SUMS, add_pixels, clear_sums, mean_steps, sums_params
from litejit.ops.simd.gemm_bf16 import gemm_bf16, stage_bf16, staged_pitch
from litejit.ops.simd.gemm_f32 import gemm_f32
from litejit.ops.simd.tiles import grain
from litejit.ops.tails import RECORD, finish, residual, tail_params
from litejit.planner.graph import Node

SEPARABLE = np.dtype([*TILED, *((name, "i8") for name in (
    "x", "y", "other", "expand", "inputs", "project", "n", "ring", "scratch", "scratch_size", "ring_at", "middle_at",
    "staged_at", "expand_pitch", "project_pitch", "rows", "group", "first", "second", "record")),
    *SUMS, *((name, "f4") for name in ("expand_lo", "expand_hi", "project_lo", "project_hi"))], align=True)
PIXELS = 48                           # of a group of output rows: enough for the tiles of the GEMM
EXPANDING_CHUNKS = 4                  # where chunks expand some rows twice


class Separable(Operator):
    """Inputs: of the first node, and what the last one adds. Options: expand, depthwise, project (nodes or None)."""

    def steps(self, node: Node, target: Target) -> list[Step]:
        expand, depthwise, project = (getattr(node.options, name) for name in ("expand", "depthwise", "project"))
        cpu, windows = target.cpu, wide_windows(depthwise)
        w, bias = depthwise[1], depthwise.optional(2)
        params = float_params(cpu, windows, packed_weights(cpu, windows, w, bias), _bounds(depthwise),
                              4 * windows.channels)
        pixel, taps = 4 * windows.channels, windows.kh * windows.kw
        macs = windows.m * windows.channels * taps
        params.update(x=node[0], y=node.out, other=None, expand=None, project=None)
        if expand is not None:
            params.update(expand=_panels(expand, target), inputs=expand[0].dims[3])
            params.update(zip(("expand_lo", "expand_hi"), _bounds(expand)))
            macs += expand.out.size * expand[0].dims[3]
        if project is not None:
            fields = residual(project, _bounds(project))
            params.update(project=_panels(project, target), n=project.out.dims[3], other=fields["other"],
                          project_lo=fields["lo"], project_hi=fields["hi"])
            macs += project.out.size * windows.channels
        most = EXPANDING_CHUNKS if expand is not None else MAX_CHUNKS
        together = band(windows, params["made"])
        rows = -(-windows.out_height // min(most, windows.out_height, max(1, macs // grain(cpu, "f32"))))
        rows = min(windows.out_height, -(-rows // together) * together)
        chunks = -(-windows.out_height // rows)
        group = min(rows, -(-PIXELS // (windows.out_width * together)) * together)
        ring = (group - 1) * windows.sh + (windows.kh - 1) * windows.dh + 1 if expand is not None else 0
        ring_at = table_bytes(windows, tile_shape(cpu, windows))
        middle_at = _lines(ring_at + ring * windows.width * pixel + 64)
        staged_at = _lines(middle_at + (group * windows.out_width * pixel + 64 if project is not None else 0))
        pitches = staged_pitch(params.get("inputs", 0)), staged_pitch(windows.channels)
        size = staged_at
        if target.products == "bf16":
            size += max(windows.width * pitches[0], group * windows.out_width * pitches[1]) + 64
        first, second = tail_params(expand, chunks) if expand is not None else {}, tail_params(depthwise, chunks)
        params.update(first=first.get("tail"), second=second["tail"], record=first.get("record") or second["record"])
        params.update(ring=ring, ring_at=ring_at, middle_at=middle_at, staged_at=staged_at, expand_pitch=pitches[0],
                      project_pitch=pitches[1], rows=rows, group=group, scratch=Scratch(chunks * _lines(size)),
                      scratch_size=_lines(size), **sums_params(node, chunks, windows.channels))
        step = Step(node, _KERNELS[target.products], params, chunks, macs=macs, products=target.products)
        return [step, *mean_steps(node, params, chunks)]


def _bounds(node: Node) -> tuple[float, float]:
    return float_range(activation(node), node.xnn)


def _lines(nbytes: int) -> int:
    """Bytes of whole cache lines."""
    return -(-nbytes // 64) * 64


def _panels(node: Node, target: Target) -> Packed:
    """Packed weights and bias of a 1x1 convolution."""
    w, bias = node[1], node.optional(2)
    matrix = Matrix(w, columns=w.dims[0], depth=w.dims[3], transposed=True)
    made, _ = matrix.pack(node, bias, target.cpu, target.products)
    assert isinstance(made, Packed)
    return made


FUSED: dict[str, Operator] = {"SEPARABLE": Separable()}


# ---- kernels -------------------------------------------------------------------------------------

@device
def product_f32(x, lda, panels, y, ldc, m, k, n, lo, hi, other, staged, pitch):
    """y = clamp(x @ panels + bias + other), m rows."""
    gemm_f32(x, lda, panels, y, ldc, m, k, n, m, lo, hi, other)


@device
def product_bf16(x, lda, panels, y, ldc, m, k, n, lo, hi, other, staged, pitch):
    """The same of bfloat16 numbers; staged: memory for the rows, `pitch` bytes each."""
    stage_bf16(x, staged, m, lda, pitch, 1, 0, 0, k)
    gemm_bf16(staged, pitch, panels, y, ldc, m, k, n, lo, hi, other)


PRODUCTS = {"f32": product_f32, "bf16": product_bf16}


def _make(products: str) -> Kernel:
    """The kernel for products of a type."""
    block, product = make_block(SEPARABLE.names or ()), PRODUCTS[products]

    @kernel(SEPARABLE, name=f"separable_{products}")
    def separable(p, begin, end):
        """A chunk is some output rows."""
        table = p.scratch + begin * p.scratch_size
        ring, middle, staged, record = table + p.ring_at, table + p.middle_at, table + p.staged_at, p.record + begin * RECORD
        pixel, row_bytes, out_bytes = p.channels * 4, p.width * p.channels * 4, p.out_width * p.channels * 4
        other = p.other - p.y if p.other != 0 else 0
        for c in prange(begin, end):
            last, done = min(p.out_height, (c + 1) * p.rows), 0
            sums = p.sums + c * p.sums_pitch if p.sums != 0 else 0
            clear_sums(sums, p.pad, p.channels)
            for top in range(c * p.rows, last, p.group):
                bottom = min(last, top + p.group)
                if p.expand != 0:
                    need = min(p.height, (bottom - 1) * p.sh - p.top + (p.kh - 1) * p.dh + 1)
                    done = max(done, top * p.sh - p.top)
                    for y in range(done, need):
                        at = ring + y % p.ring * row_bytes
                        product(p.x + y * p.width * p.inputs * 4, p.inputs * 4, p.expand, at, pixel, p.width, p.inputs,
                                p.channels, p.expand_lo, p.expand_hi, 0, staged, p.expand_pitch)
                        finish(p.first, record, at, pixel, p.width, p.channels)
                    done = max(done, need)
                to = middle if p.project != 0 else p.y + top * out_bytes
                block(p, ring if p.expand != 0 else p.x, p.ring, table, top, bottom, to)
                finish(p.second, record, to, pixel, (bottom - top) * p.out_width, p.channels)
                add_pixels(sums, to, (bottom - top) * p.out_width, p.channels)
                if p.project != 0:
                    m = (bottom - top) * p.out_width
                    product(middle, pixel, p.project, p.y + top * p.out_width * p.n * 4, p.n * 4, m, p.channels, p.n,
                            p.project_lo, p.project_hi, other, staged, p.project_pitch)
        return 0
    return separable


_KERNELS = {products: _make(products) for products in PRODUCTS}
