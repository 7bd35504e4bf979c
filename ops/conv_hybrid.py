"""CONV_2D of float32 activations and integer weights: images (or pixels) are quantised while running, then convolved.

XNNPACK quantises each image, or each pixel where the kernel is 1 x 1 with stride 1 (a product of rows); LiteRT's kernels
quantise each image, asymmetrically where the weights have a scale per channel, else symmetrically. Weights of 4 and 2 bits
are bytes by now.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import bits_f32, load_f32, load_i32, store_f32, store_i32
from litejit.ops import packed_product
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_int8 import GATHER, gather, gather_params
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import HYBRID_XNN, Layout, Rounding
from litejit.ops.simd.gemm_int8 import make_gemm, pack_int8, staged_offset
from litejit.planner.graph import Node, Value

HYBRID = np.dtype([("terms", "i8"), ("factors", "i8"), ("pixels", "i8"), ("offset", "i8"), ("lo", "f4"), ("hi", "f4"),
                   ("scales", "i8"), ("bias", "i8"), ("acc", "i8"), ("per_channel", "i8"), *GATHER], align=True)


def hybrid_steps(node: Node, target: Target, w: Value, bias: Value | None, windows: Windows, scales: np.ndarray,
                 bounds: tuple[float, float]) -> list[Step]:
    """Steps of a hybrid convolution; scales of the weights, one or one per channel."""
    x, y, cpu, groups = node[0], node.out, target.cpu, windows.groups
    per_channel = len(scales) > 1
    how = "xnn" if node.xnn else "asymmetric" if per_channel else "symmetric"
    o, images = w.dims[0], windows.images
    if node.xnn and windows.pointwise:
        rounding = Rounding(HYBRID_XNN, scales, 0, bounds)
        return packed_product.hybrid_steps(node, target, x, y, w, bias, rounding, Layout(windows.m, o, windows.k))
    made = quantise_rows(node, x, images, x.size // max(images, 1), how)
    n = o // groups
    scale = np.ascontiguousarray(np.broadcast_to(scales.astype(np.float32), (o,)))
    offsets = np.zeros(o, np.float32) if bias is None else np.asarray(bias.data, np.float32).reshape(o)
    data = np.asarray(w.data).view(np.int8).reshape(groups, n, -1)

    def build() -> np.ndarray:
        return np.stack([pack_int8(cpu, one, -one.sum(axis=1, dtype=np.int64), part, shift) for one, part, shift in
                         zip(data, scale.reshape(groups, n), offsets.reshape(groups, n))])
    key = (w.key, None if bias is None else bias.key, "conv hybrid", cpu.name, groups, scale.tobytes())
    params, chunks = gather_params(target, windows, made.codes, "i8", n, out_bytes=4, panels=Packed(key, build), pad=0)
    params.update(y=y, factors=made.terms, pixels=windows.out_height * windows.out_width,
                  terms=Scratch(chunks * params["block"] * 8), offset=staged_offset(cpu, "i8"), lo=bounds[0], hi=bounds[1],
                  per_channel=int(per_channel))
    if node.xnn:
        return [*made.steps, Step(node, conv_qd8, params, chunks, macs=windows.m * windows.k * o)]
    params.update(scales=Packed(("conv hybrid scales", scale.tobytes()), lambda: scale),
                  bias=Packed(("conv hybrid bias", offsets.tobytes()), lambda: offsets),
                  acc=Scratch(chunks * params["block"] * params["columns"] * 4 + 64))
    return [*made.steps, Step(node, conv_hybrid, params, chunks, macs=windows.m * windows.k * o)]


_gemm_hybrid, _gemm_raw = make_gemm("f32"), make_gemm("i32", hybrid=True)


@device
def stage_block(p, group, staged, terms, first, count):
    """Stage pixels, padded with the zero point of their image, and make the terms of their rows.

    A staged row is code + offset: its zero point in the products is zero point + offset. terms: that, and the scale.
    """
    image = p.out_height * p.out_width
    top = first
    while top < first + count:
        last = min(first + count, (top // image + 1) * image)
        zero = load_i32(p.factors, top // p.pixels * 2)
        gather(p, group, staged + (top - first) * p.pitch, top, last - top, zero)
        for r in range(top, last):
            at = r // p.pixels * 2
            store_i32(terms, (r - first) * 2, load_i32(p.factors, at) + np.int32(p.offset))
            store_f32(terms, (r - first) * 2 + 1, load_f32(p.factors, at + 1))
        top = last


@kernel(HYBRID)
def conv_qd8(p, begin, end):
    """XNNPACK's: f32(acc) * scale of the row, then one fused multiply-add with the channel's scale and bias."""
    staged, k = p.staged + begin * p.staged_size, p.kh * p.kw * p.depth
    terms, lo, hi = p.terms + begin * p.block * 8, np.int64(bits_f32(p.lo)), np.int64(bits_f32(p.hi))
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        group = c // (p.column_chunks * p.row_chunks)
        last = min(p.m, row + p.rows)
        panels = p.w + group * p.group_bytes + column * p.panel_bytes
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            stage_block(p, group, staged, terms, first, count)
            _gemm_hybrid(staged, p.pitch, panels, p.y + first * p.ldc + (group * p.n + column) * 4, p.ldc, count, k,
                         min(p.columns, p.n - column), terms, lo, hi, 0, 0)
    return 0


@kernel(HYBRID)
def conv_hybrid(p, begin, end):
    """LiteRT's kernels: exact accumulators, scaled in float32 in the order of the reference."""
    staged, k = p.staged + begin * p.staged_size, p.kh * p.kw * p.depth
    terms, acc = p.terms + begin * p.block * 8, p.acc + begin * p.block * p.columns * 4
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        group = c // (p.column_chunks * p.row_chunks)
        last, n = min(p.m, row + p.rows), min(p.columns, p.n - column)
        panels = p.w + group * p.group_bytes + column * p.panel_bytes
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            stage_block(p, group, staged, terms, first, count)
            _gemm_raw(staged, p.pitch, panels, acc, n * 4, count, k, n, terms, 0, 0, 0, 0)
            channel = group * p.n + column
            for i in range(count):
                scaled_row(p, acc + i * n * 4, load_f32(terms, 2 * i + 1), channel, p.y + (first + i) * p.ldc + channel * 4, n)
    return 0


@device
def scaled_row(p, acc, scale, channel, y, n):
    """n outputs: acc * (scale * w_scale) + bias for one scale, (acc * w_scale) * scale + bias for one per channel."""
    scales, bias = p.scales + channel * 4, p.bias + channel * 4
    for j in range(n):
        value = np.float32(load_i32(acc, j))
        own = load_f32(scales, j)
        value = (value * own) * scale if p.per_channel != 0 else value * (scale * own)
        store_f32(y, j, min(max(value + load_f32(bias, j), p.lo), p.hi))
