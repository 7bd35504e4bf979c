"""SOFTMAX of 8-bit codes as LiteRT's default mode computes it: a float32 table of 256 exponentials made while planning.

The sum of a row is taken in order, in float32, so that the codes are LiteRT's.
"""
from __future__ import annotations

import functools

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import round_f32, trunc_f32
from litejit.ops.base import Packed, Step, chunked
from litejit.ops.streams import LOAD, STORE
from litejit.planner.graph import Node

ROWS = np.dtype([
    ("x", "i8"), ("y", "i8"), ("rows", "i8"), ("depth", "i8"), ("block", "i8"), ("table", "i8"), ("zero", "i8"),
    ("scale", "f4")], align=True)
GRAIN = 8192
LANES = 4                             # rows whose sums run side by side: each is a chain of dependent additions


def exponentials(scale: float, beta: float) -> np.ndarray:
    """float32[256]: exp(-d * scale * beta)."""
    factor = np.float32(-np.float32(scale) * np.float32(beta))
    return np.exp((factor * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)


def softmax_table_steps(node: Node, beta: float) -> list[Step]:
    """SOFTMAX of int8 to int8 or uint8 to uint8."""
    x, y = node[0], node.out
    scale, depth = float(x.scale), x.dims[-1]
    rows = x.size // depth
    chunks, block = chunked(rows, max(LANES, GRAIN // depth // LANES * LANES))
    return [Step(node, softmax_table(x.type), {
        "x": x, "y": y, "rows": rows, "depth": depth, "block": block, "zero": y.zero_point, "scale": y.scale,
        "table": Packed(("float exponentials", scale, beta), lambda: exponentials(scale, beta))}, chunks)]


ONE, HALF = np.float32(1), np.float32(0.5)


@functools.cache
def softmax_table(type: str) -> Kernel:
    """Rows of table[max - x] / (sum * scale)."""
    load, store, load_f32 = LOAD[type], STORE[type], LOAD["f32"]
    low, high = (-128, 127) if type == "i8" else (0, 255)
    signed = type == "i8"

    @kernel(ROWS, name=f"softmax_table_{type}")
    def run(p, begin, end):
        x, y, depth, table, zero = p.x, p.y, p.depth, p.table, p.zero
        for c in prange(begin, end):
            first, last = c * p.block, min(p.rows, (c + 1) * p.block)
            for r in range(first, last, LANES):
                # the last rows are computed again where fewer than LANES are left: the same codes, the same places
                r0 = r * depth
                r1, r2, r3 = min(r + 1, last - 1) * depth, min(r + 2, last - 1) * depth, min(r + 3, last - 1) * depth
                m0, m1, m2, m3 = low, low, low, low
                for i in range(depth):
                    m0 = max(m0, np.int64(load(x, r0 + i)))
                    m1 = max(m1, np.int64(load(x, r1 + i)))
                    m2 = max(m2, np.int64(load(x, r2 + i)))
                    m3 = max(m3, np.int64(load(x, r3 + i)))
                s0 = s1 = s2 = s3 = np.float32(0)
                for i in range(depth):
                    s0 += load_f32(table, m0 - load(x, r0 + i))
                    s1 += load_f32(table, m1 - load(x, r1 + i))
                    s2 += load_f32(table, m2 - load(x, r2 + i))
                    s3 += load_f32(table, m3 - load(x, r3 + i))
                for k in range(min(LANES, last - r)):
                    row = (r + k) * depth
                    most = m0 if k == 0 else m1 if k == 1 else m2 if k == 2 else m3
                    total = s0 if k == 0 else s1 if k == 1 else s2 if k == 2 else s3
                    share = ONE / (total * p.scale)
                    for i in range(depth):
                        q = load_f32(table, most - load(x, row + i)) * share
                        if signed:
                            code = np.int64(round_f32(q)) + zero
                        else:
                            code = np.int64(trunc_f32(q + HALF))
                        store(y, row + i, min(max(code, low), high))
        return 0
    return run
