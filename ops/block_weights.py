"""FULLY_CONNECTED on int4 weights with a scale for every block of a row (BlockwiseQuantization).

The scales are a float16 tensor [O, I / block] that only the weights' quantisation names. XNNPACK (its qb4w kernels)
quantises the rows of x, scales the integer sum of each block, then applies the row's factor and the bias; it rounds the
scales of blocks of 32 and more to bfloat16. LiteRT's reference kernel knows nothing of blocks and
returns the bias, as for weights without a scale.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_f32, load_i8, load_i32, store_f32
from litejit.ops.arithmetic import activation, float_range
from litejit.ops.base import Packed, Step, Target, chunked
from litejit.ops.hybrid import quantise_rows
from litejit.planner.graph import Node, Value

BLOCKS = np.dtype([("x", "i8"), ("terms", "i8"), ("w", "i8"), ("scales", "i8"), ("bias", "i8"), ("y", "i8"), ("n", "i8"),
                   ("k", "i8"), ("size", "i8"), ("total", "i8"), ("block", "i8"), ("lo", "f4"), ("hi", "f4")], align=True)
F32_0 = np.float32(0)


def of(w: Value) -> Any:
    """The BlockwiseQuantization of weights, or None."""
    quantization = getattr(w.spec, "quantization", None)
    details = None if quantization is None else quantization.details
    return details if details is not None and hasattr(details, "block_size") else None


def scale_tensor(w: Value) -> Any:
    """The Model's tensor that holds the scales."""
    model = w.spec._model
    return model.subgraphs[w.subgraph].tensors[of(w).scales]


def steps(node: Node, target: Target) -> list[Step]:
    """Rows quantised, then multiplied block by block."""
    x, w, bias, y = node[0], node[1], node.optional(2), node.out
    n, k = w.dims
    size, tensor = int(of(w).block_size), scale_tensor(w)
    node.check(size > 0 and k % size == 0 and tensor.data is not None,
               lambda: f"blocks of {size} weights with scales {tensor!r} do not divide rows of {k}")
    rows = quantise_rows(node, x, x.size // k, k, "xnn")
    total = x.size // k * n
    chunks, block = chunked(total, max(1, (1 << 16) // k))
    low, high = float_range(activation(node), node.xnn)
    scales = _scales(tensor, w, n * k // size, size % 32 == 0)
    params = {"x": rows.codes, "terms": rows.terms, "w": w, "scales": scales, "bias": bias, "y": y,
              "n": n, "k": k, "size": size, "total": total, "block": block, "lo": low, "hi": high}
    return [*rows.steps, Step(node, block_product, params, chunks, macs=total * k)]


def _scales(tensor: Any, w: Value, count: int, short: bool) -> Packed:
    def build() -> np.ndarray:
        scales = np.asarray(tensor.data).view(np.float16)[:count].astype(np.float32)
        if not short:
            return scales
        bits = scales.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
    return Packed((w.key, "block scales", tensor.buffer), build)


@kernel(BLOCKS)
def block_product(p, begin, end):
    n, k, size = p.n, p.k, p.size
    for c in prange(begin, end):
        for i in range(c * p.block, min(p.total, (c + 1) * p.block)):
            row, column = i // n, i % n
            x, w, scales = p.x + row * k, p.w + column * k, p.scales + column * (k // size) * 4
            zero = np.int64(load_i32(p.terms, 2 * row))
            total = F32_0
            for b in range(k // size):
                acc = np.int32(0)
                for j in range(b * size, (b + 1) * size):
                    acc = np.int32(acc + np.int32((load_i8(x, j) - zero) * load_i8(w, j)))
                total += np.float32(acc) * load_f32(scales, b)
            v = total * load_f32(p.terms, 2 * row + 1)
            if p.bias != 0:
                v += load_f32(p.bias, column)
            v = p.lo if v < p.lo else v
            store_f32(p.y, i, p.hi if v > p.hi else v)
    return 0
