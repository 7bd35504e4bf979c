"""CONV_2D of float32 activations and integer weights: images (or pixels) are quantised while running, then convolved.

XNNPACK quantises each image, or each pixel where the kernel is 1 x 1 with stride 1 (a product of rows); LiteRT's kernels
quantise each image, asymmetrically where the weights have a scale per channel, else symmetrically. Weights of 4 and 2 bits
are bytes by now.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_f32, load_i32, store_f32
from litejit.ops import packed_product
from litejit.ops.base import Packed, Step, Target, chunked
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_groups import merged
from litejit.ops.conv_int8 import conv_int8, gather_params
from litejit.ops.conv_rows_int8 import padded, rows_step
from litejit.ops.conv_ways import gathered, in_rows
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import HYBRID_XNN, Layout, Rounding
from litejit.ops.simd.gemm_int8 import Kind, float_bits, pack_int8, tile_params
from litejit.ops.simd.stage_int8 import staged_offset
from litejit.planner.graph import Node, Value

SCALE = np.dtype([*((name, "i8") for name in ("y", "factors", "m", "pixels", "n", "rows", "per_channel", "scales", "bias")),
                  ("lo", "f4"), ("hi", "f4")], align=True)
GRAIN = 1 << 15                       # outputs worth a chunk


def hybrid_steps(node: Node, target: Target, w: Value, bias: Value | None, windows: Windows, scales: np.ndarray,
                 bounds: tuple[float, float]) -> list[Step]:
    """Steps of a hybrid convolution; scales of the weights, one or one per channel."""
    x, y, cpu = node[0], node.out, target.cpu
    per_channel = len(scales) > 1
    how = "xnn" if node.xnn else "asymmetric" if per_channel else "symmetric"
    o, images = w.dims[0], windows.images
    if node.xnn and windows.pointwise:
        rounding = Rounding(HYBRID_XNN, scales, 0, bounds)
        return packed_product.hybrid_steps(node, target, x, y, w, bias, rounding, Layout(windows.m, o, windows.k))
    w, windows = merged(cpu, w, windows, 0, in_place=node.xnn)
    groups, n = windows.groups, o // windows.groups
    in_place = node.xnn and in_rows(cpu, windows, n, False) < gathered(cpu, windows, n, False)
    offset = staged_offset(cpu, "i8")
    made = quantise_rows(node, x, images, x.size // max(images, 1), how, offset=offset if in_place else 0)
    scale = np.ascontiguousarray(np.broadcast_to(scales.astype(np.float32), (o,)))
    offsets = np.zeros(o, np.float32) if bias is None else np.asarray(bias.data, np.float32).reshape(o)
    data = np.asarray(w.data).view(np.int8).reshape(groups, n, -1)

    def build() -> np.ndarray:
        rows = padded(cpu, windows, data) if in_place else data
        return np.stack([pack_int8(cpu, one, -one.sum(axis=1, dtype=np.int64), part, shift) for one, part, shift in
                         zip(rows, scale.reshape(groups, n), offsets.reshape(groups, n))])
    key = (w.key, None if bias is None else bias.key, "conv hybrid", in_place, cpu.name, groups, scale.tobytes())
    low, high = (float_bits(bound) for bound in bounds)
    if in_place:
        kind, numbers = Kind("f32", hybrid=True, segments=True), {"factors": made.terms, "low": low, "high": high}
        return [*made.steps, rows_step(node, target, windows, made.codes, Packed(key, build), n, kind, numbers)]
    tiles = tile_params(cpu, n, "f32") if node.xnn else tile_params(cpu, n, "i32", hybrid=True)
    params, chunks = gather_params(target, windows, made.codes, "i8", n, tiles=tiles, panels=Packed(key, build), pad=0)
    params.update(y=y, factors=made.terms, offset=offset, low=low, high=high)
    steps = [*made.steps, Step(node, conv_int8, params, chunks, macs=windows.m * node[1].size)]
    if node.xnn:
        return steps
    chunks, each = chunked(windows.m, max(1, GRAIN // max(1, o)))
    return [*steps, Step(node, scale_pixels, {
        "y": y, "factors": made.terms, "m": windows.m, "pixels": windows.out_height * windows.out_width, "n": o,
        "rows": each, "per_channel": int(per_channel), "scales": Packed(("conv hybrid scales", scale.tobytes()), lambda: scale),
        "bias": Packed(("conv hybrid bias", offsets.tobytes()), lambda: offsets), "lo": bounds[0], "hi": bounds[1]}, chunks)]


# ---- kernels -------------------------------------------------------------------------------------

@kernel(SCALE)
def scale_pixels(p, begin, end):
    """LiteRT's kernels: exact accumulators become float32 in place, in the order of the reference.

    acc * (scale * w_scale) + bias for one scale, (acc * w_scale) * scale + bias for one per channel. A chunk is some pixels.
    """
    for c in prange(begin, end):
        for row in range(c * p.rows, min(p.m, (c + 1) * p.rows)):
            y, scale = p.y + row * p.n * 4, load_f32(p.factors, row // p.pixels * 2 + 1)
            for j in range(p.n):
                value, own = np.float32(load_i32(y, j)), load_f32(p.scales, j)
                value = (value * own) * scale if p.per_channel != 0 else value * (scale * own)
                store_f32(y, j, min(max(value + load_f32(p.bias, j), p.lo), p.hi))
    return 0
