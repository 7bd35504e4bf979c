"""CUMSUM: running sums along an axis, which may be known only while running (the shape does not depend on it)."""
from __future__ import annotations

from functools import cache

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import LOAD, STORE, load_i32, load_i64
from litejit.ops import streams
from litejit.ops.base import Operator, Packed, Step, Target, chunked
from litejit.planner.graph import Node

CUMSUM = np.dtype([(name, "i8") for name in ("x", "y", "axis", "sizes", "rank", "chunks", "exclusive", "reverse")],
                  align=True)
GRAIN = 1 << 14
BAD_AXIS = 1


class CumSum(Operator):
    """Inputs: tensor (f32, i32, i64; integers wrap), axis (i32 scalar, may be negative); options exclusive, reverse."""

    errors = {BAD_AXIS: "Invalid axis value."}

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
            "x": x, "y": node.out, "axis": node[1], "sizes": table, "rank": len(dims), "chunks": chunks,
            "exclusive": bool(o is not None and o.exclusive), "reverse": bool(o is not None and o.reverse)}, chunks)]


OPERATORS: dict[str, Operator] = {"CUMSUM": CumSum()}


@cache
def cumsum_kernel(type: str) -> Kernel:
    """The kernel for a type: each row of the axis is the row before it plus a row of x."""
    load, past, store = streams.LOAD[type], LOAD[type], STORE[type]
    kind = {"f32": np.float32, "i32": np.int32, "i64": np.int64}[type]

    @kernel(CUMSUM, name=f"cumsum_{type}")
    def cumsum(p, begin, end):
        axis = load_i32(p.axis, 0)
        axis = axis + p.rank if axis < 0 else axis
        if axis < 0 or axis >= p.rank:
            return BAD_AXIS
        outer, n, inner = load_i64(p.sizes, 3 * axis), load_i64(p.sizes, 3 * axis + 1), load_i64(p.sizes, 3 * axis + 2)
        step = -inner if p.reverse else inner
        for c in prange(begin, end):
            for o in range(outer * c // p.chunks, outer * (c + 1) // p.chunks):
                row = (o * n + (n - 1 if p.reverse else 0)) * inner
                source = row
                for i in range(inner):
                    store(p.y, row + i, kind(0) if p.exclusive else load(p.x, row + i))
                for _ in range(1, n):
                    row += step
                    source = row - step if p.exclusive else row
                    for i in range(inner):
                        store(p.y, row + i, kind(past(p.y, row - step + i) + load(p.x, source + i)))
        return 0
    return cumsum
