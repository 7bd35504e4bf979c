"""FULLY_CONNECTED on int4 weights with a scale for every block of a row (BlockwiseQuantization).

The scales are a float16 tensor [O, I / block] that only the weights' quantisation names. XNNPACK (its qb4w kernels) takes
blocks of 32 and multiples: it rounds the scales to bfloat16; panels and tiles of ops/simd/gemm_int4.py do the same in the
same order. Elsewhere LiteRT has a loop of its own, which forgets the fused activation. Its reference kernel knows nothing of
blocks and returns the bias, as for weights without a scale.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_f32, load_i8, load_i32, store_f32
from litejit.ops.arithmetic import activation, float_range
from litejit.ops.base import Packed, Step, Target, chunked
from litejit.ops.hybrid import quantise_rows
from litejit.ops.packed_product import STAGED, grid, pairs, product_int8
from litejit.ops.simd.gemm_int4 import UNIT, block_params, block_rows, pack_int4, panel_words
from litejit.ops.simd.gemm_int8 import float_bits
from litejit.ops.simd.nibbles import LONGEST
from litejit.ops.simd.stage_int8 import k_group, staged_offset
from litejit.ops.simd.tile_int8 import HEADER
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


def packs(w: Value) -> bool:
    """Whether XNNPACK takes such blocks, which are packed then."""
    return w.type == "i4" and int(of(w).block_size) % UNIT == 0


def steps(node: Node, target: Target) -> list[Step]:
    """Rows quantised, then multiplied block by block."""
    w = node[1]
    n, k = w.dims
    size, tensor = int(of(w).block_size), scale_tensor(w)
    held = 0 if tensor.data is None else np.asarray(tensor.data).nbytes // 2
    node.check(size > 0 and k % size == 0 and held >= n * k // size,
               lambda: f"blocks of {size} weights with scales {tensor!r} do not divide {n} rows of {k}")
    if node.xnn and packs(w) and size <= LONGEST:
        return _tiles(node, target, size, tensor)
    return _loop(node, size, tensor)


def _scales(tensor: Any, n: int, blocks: int) -> np.ndarray:
    return np.asarray(tensor.data).reshape(-1).view(np.float16)[:n * blocks].astype(np.float32).reshape(n, blocks)


def _tiles(node: Node, target: Target, size: int, tensor: Any) -> list[Step]:
    """XNNPACK's arithmetic: the micro-kernels are called as those of int8 weights."""
    x, w, bias, y, cpu = node[0], node[1], node.optional(2), node.out, target.cpu
    n, k = w.dims
    m, words = x.size // k, panel_words(k, size)
    rows = quantise_rows(node, x, m, k, "xnn", staged=cpu, offset=staged_offset(cpu, "i8"))
    tile_rows = even_rows(m, block_rows(cpu))
    fields, chunks = grid(target, m, n, k, 1, tile_rows=tile_rows)
    key = (w.key, "panels int4", tensor.buffer, size, None if bias is None else bias.key, cpu.name)
    panels = Packed(key, lambda: pack_int4(cpu, np.asarray(w.data).reshape(n, k), _scales(tensor, n, k // size),
                                           None if bias is None else np.asarray(bias.data).ravel()))
    low, high = float_range(activation(node), node.xnn)
    params = {**fields, **block_params(cpu, tile_rows, size, k // size), "x": rows.codes, "panels": panels, "y": y,
              "ldc": 4 * n, "terms": rows.terms, "ready": STAGED, "low": float_bits(low), "high": float_bits(high),
              "offsets": pairs((0,), (0,)), "k": words * k_group(cpu), "column_bytes": 4 * (HEADER + words)}
    return [*rows.steps, Step(node, product_int8, params, chunks, macs=m * n * k)]


def even_rows(m: int, most: int) -> int:
    """Rows of tiles, up to `most`, that m rows take least of: reading and unpacking the weights costs as much as a row."""
    return min(range(1, most + 1), key=lambda rows: -(-m // rows) * (rows + 1))


def _loop(node: Node, size: int, tensor: Any) -> list[Step]:
    """LiteRT's arithmetic where XNNPACK does not take the node."""
    x, w, bias, y = node[0], node[1], node.optional(2), node.out
    n, k = w.dims
    rows = quantise_rows(node, x, x.size // k, k, "asymmetric")
    total = x.size // k * n
    chunks, block = chunked(total, max(1, (1 << 16) // k))
    low, high = float_range(activation(node), node.xnn)
    scales = Packed((w.key, "block scales", tensor.buffer, size), lambda: _scales(tensor, n, k // size))
    params = {"x": rows.codes, "terms": rows.terms, "w": w, "scales": scales, "bias": bias, "y": y,
              "n": n, "k": k, "size": size, "total": total, "block": block, "lo": low, "hi": high}
    return [*rows.steps, Step(node, block_product, params, chunks, macs=total * k)]


@kernel(BLOCKS)
def block_product(p, begin, end):
    n, k, size = p.n, p.k, p.size
    for c in prange(begin, end):
        for i in range(c * p.block, min(p.total, (c + 1) * p.block)):
            row, column = i // n, i % n
            x, w, scales = p.x + row * k, p.w + column * k, p.scales + column * (k // size) * 4
            total, weights = F32_0, F32_0
            for b in range(k // size):
                acc, held = np.int32(0), np.int32(0)
                for j in range(b * size, (b + 1) * size):
                    acc = np.int32(acc + np.int32(load_i8(x, j) * load_i8(w, j)))
                    held = np.int32(held + load_i8(w, j))
                total += np.float32(acc) * load_f32(scales, b)
                weights += np.float32(held) * load_f32(scales, b)
            v = (total - np.float32(load_i32(p.terms, 2 * row)) * weights) * load_f32(p.terms, 2 * row + 1)
            if p.bias != 0:
                v += load_f32(p.bias, column)
            v = p.lo if v < p.lo else v
            store_f32(p.y, i, p.hi if v > p.hi else v)
    return 0
