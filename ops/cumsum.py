"""CUMSUM: running sums along an axis, which may be known only while running (the shape does not depend on it)."""
from __future__ import annotations

from functools import cache
from typing import ClassVar

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import LOAD, STORE, fill_bytes, load_i32, load_i64
from litejit.ops import streams
from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.planner.graph import Node

CUMSUM = np.dtype([(name, "i8") for name in (
    "x", "y", "acc", "axis", "sizes", "rank", "chunks", "exclusive", "reverse")], align=True)
GRAIN = 1 << 14
WIDTH = 256                           # neighbouring sums that run together
BAD_AXIS = 1


class CumSum(Operator):
    """Inputs: tensor (f32, i32, i64; integers wrap), axis (i32 scalar, may be negative); options exclusive, reverse."""

    errors: ClassVar[dict[int, str]] = {BAD_AXIS: "Invalid axis value."}

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        x, axis = node[0], node[1]
        node.types(x, "f32", "i32", "i64")
        node.same_type(x, node.out)
        node.types(axis, "i32")
        node.check(axis.size == 1, lambda: f"the axis of CUMSUM must be a scalar, not {axis!r}")
        if axis.data is not None:
            value = int(axis.data.ravel()[0])
            node.check(-x.rank <= value < x.rank, lambda: f"Invalid axis value. {value} is not an axis of {x!r}")
        return [x.dims]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, o = node[0], node.options
        dims = x.dims
        sizes = [n for d in range(len(dims)) for n in (
            int(np.prod(dims[:d], dtype=np.int64)), dims[d], int(np.prod(dims[d + 1:], dtype=np.int64)))]
        chunks, _ = chunked(x.size, GRAIN)
        table = Packed(("table", *sizes), lambda: np.array(sizes, np.int64))
        return [Step(node, cumsum_kernel(x.type), {
            "x": x, "y": node.out, "acc": Scratch(8 * WIDTH * chunks), "axis": node[1], "sizes": table,
            "rank": len(dims), "chunks": chunks,
            "exclusive": bool(o is not None and o.exclusive), "reverse": bool(o is not None and o.reverse)}, chunks)]


OPERATORS: dict[str, Operator] = {"CUMSUM": CumSum()}


@cache
def cumsum_kernel(type: str) -> Kernel:
    """The kernel for a type: columns of the axis are summed in a block of accumulators, a single one in a register."""
    load, store, past, keep = streams.LOAD[type], streams.STORE[type], LOAD[type], STORE[type]
    kind = {"f32": np.float32, "i32": np.int32, "i64": np.int64}[type]

    @kernel(CUMSUM, name=f"cumsum_{type}")
    def cumsum(p, begin, end):
        x, y, exclusive, axis = p.x, p.y, p.exclusive, load_i32(p.axis, 0)
        axis = axis + p.rank if axis < 0 else axis
        if axis < 0 or axis >= p.rank:
            return BAD_AXIS
        outer, n, inner = load_i64(p.sizes, 3 * axis), load_i64(p.sizes, 3 * axis + 1), load_i64(p.sizes, 3 * axis + 2)
        step = -inner if p.reverse else inner
        blocks = (inner + WIDTH - 1) // WIDTH
        units = outer * blocks
        for c in prange(begin, end):
            acc, last = p.acc + c * 8 * WIDTH, units * (c + 1) // p.chunks
            if inner == 1:
                for o in range(units * c // p.chunks, last):
                    total, first = kind(0), o * n + (n - 1 if p.reverse else 0)
                    for at in range(first, first + n * step, step):
                        after = kind(total + load(x, at))
                        store(y, at, total if exclusive else after)
                        total = after
                continue
            for u in range(units * c // p.chunks, last):
                o = u // blocks
                column = (u - o * blocks) * WIDTH
                wide = min(WIDTH, inner - column)
                row = (o * n + (n - 1 if p.reverse else 0)) * inner + column
                fill_bytes(acc, 0, 8 * wide)
                for j in range(n):
                    at = row + j * step
                    if exclusive:
                        for i in range(wide):
                            total = past(acc, i)
                            store(y, at + i, total)
                            keep(acc, i, kind(total + load(x, at + i)))
                    else:
                        for i in range(wide):
                            total = kind(past(acc, i) + load(x, at + i))
                            keep(acc, i, total)
                            store(y, at + i, total)
        return 0
    return cumsum
