"""SELECT and SELECT_V2: elements of x where a condition holds, of y elsewhere. Kernels know sizes, not types."""
from __future__ import annotations

import functools
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.ops.base import Operator, Step, Target, broadcast, chunked
from litejit.ops.broadcast import GRAIN, OUTER, Kernels, collapse, padded, shape_text
from litejit.ops.streams import LOAD, STORE
from litejit.planner.graph import Node

TYPES = ("f32", "f16", "bf16", "f64", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "u64", "bool", "c64")
_WORD = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
SELECT = np.dtype([(name, "i8") for name in (
    "out", "c", "x", "y", "total", "block", "n0", "n1", "c0", "x0", "y0", "c1", "x1", "y1", "outer")] + [
    (name, "i8", (OUTER,)) for name in ("dims", "sc", "sx", "sy")], align=True)


class Select(Operator):
    """SELECT_V2 broadcasts its three inputs; SELECT has x and y of one shape, and a condition of that shape, of its
    first dimension, or of one element."""

    def __init__(self, broadcasts: bool) -> None:
        self.broadcasts = broadcasts

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(3)
        c, x, y = node[0], node[1], node[2]
        node.check(c.type == "bool", lambda: f"input_condition->type != kTfLiteBool: {c!r}")
        node.check(x.type == y.type == node.out.type, lambda: f"input_x->type != input_y->type: {x!r}, {y!r}")
        node.types(x, *TYPES)
        if not self.broadcasts:
            node.check(x.dims == y.dims and (c.dims in ((), (1,), x.dims) or (c.rank == 1 and c.dims == x.dims[:1])),
                       lambda: "data->has_low_rank_input_condition was not true: a condition of shape "
                               f"{shape_text(c.dims)} for {shape_text(x.dims)} and {shape_text(y.dims)}")
            return [x.dims]
        part = broadcast(c.dims, x.dims)
        shape = None if part is None else broadcast(part, y.dims)
        if shape is None:
            texts = [shape_text(v.dims) for v in (c, x, y)]
            node.fail(f"Given shapes, {texts[0]}, {texts[1]} and {texts[2]}, are not broadcastable.")
        node.check(len(self.nest(node).dims) <= OUTER + 2, "broadcasting over more than 10 dimensions")
        return [shape]  # type: ignore[list-item]

    def condition_shape(self, node: Node) -> tuple[int, ...]:
        """The condition's shape such that it broadcasts: rows of SELECT are its first dimension."""
        shape = node[0].dims
        return shape if self.broadcasts or len(shape) != 1 or shape == (1,) else shape + (1,) * (node[1].rank - 1)

    def nest(self, node: Node) -> Any:
        return collapse(self.condition_shape(node), node[1].dims, node[2].dims)

    def fold(self, node: Node) -> list[np.ndarray] | None:
        c, x, y = node[0].data, node[1].data, node[2].data
        if c is None or x is None or y is None:
            return None
        return [np.where(c.reshape(self.condition_shape(node)), x, y)]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return tuple(i for i in (1, 2) if node[i].shape == node.out.shape)

    def steps(self, node: Node, target: Target) -> list[Step]:
        nest, out = self.nest(node), node.out
        flat = nest.dims == (1,) or nest.strides == ((1,),) * 3
        n0, n1, *dims = nest.dims + (1,) * (2 - len(nest.dims))
        chunks, block = chunked(out.size, GRAIN)
        params: dict[str, Any] = {"out": out, "c": node[0], "x": node[1], "y": node[2], "total": out.size,
                                  "block": block, "n0": n0, "n1": n1, "outer": len(dims), "dims": padded(tuple(dims))}
        for name, strides in zip("cxy", nest.strides):
            first, second, *rest = strides + (0,) * (2 - len(strides))
            params |= {f"{name}0": first, f"{name}1": second, f"s{name}": padded(tuple(rest))}
        kernels = select_kernels(out.itemsize)
        return [Step(node, kernels.flat if flat else kernels.nest, params, chunks)]


OPERATORS: dict[str, Operator] = {"SELECT": Select(False), "SELECT_V2": Select(True)}


# ---- kernels ---------------------------------------------------------------------------------------

@device
def locate(p, at):
    """(index into c, into x, into y, position in the second dimension, column) of the output's element `at`."""
    row = at // p.n0
    rest = row // p.n1
    j = row - rest * p.n1
    ic, ix, iy = j * p.c1, j * p.x1, j * p.y1
    for d in range(p.outer):
        above = rest // p.dims[d]
        place = rest - above * p.dims[d]
        ic += place * p.sc[d]
        ix += place * p.sx[d]
        iy += place * p.sy[d]
        rest = above
    return ic, ix, iy, j, at - row * p.n0


def _make_runs(load: Any, store: Any, holds: Any) -> Any:
    """(choose, copy): device functions for elements that lie side by side in the output."""
    @device
    def choose(out, at, c, ic, x, ix, x0, y, iy, y0, run):
        """`run` elements under conditions that differ: one loop for each pair of strides."""
        if x0 == 0:
            u = load(x, ix)
            if y0 == 0:
                v = load(y, iy)
                for i in range(run):
                    store(out, at + i, u if holds(c, ic + i) else v)
            else:
                for i in range(run):
                    v = load(y, iy + i)
                    store(out, at + i, u if holds(c, ic + i) else v)
        elif y0 == 0:
            v = load(y, iy)
            for i in range(run):
                u = load(x, ix + i)
                store(out, at + i, u if holds(c, ic + i) else v)
        else:
            for i in range(run):
                u, v = load(x, ix + i), load(y, iy + i)
                store(out, at + i, u if holds(c, ic + i) else v)

    @device
    def copy(out, at, x, ix, x0, run):
        """`run` elements of one source, or one element `run` times."""
        if x0 == 0:
            u = load(x, ix)
            for i in range(run):
                store(out, at + i, u)
        else:
            for i in range(run):
                store(out, at + i, load(x, ix + i))
    return choose, copy


@functools.cache
def select_kernels(size: int) -> Kernels:
    """The kernels for elements of `size` bytes."""
    load, store, holds = LOAD[_WORD[size]], STORE[_WORD[size]], LOAD["u8"]
    choose, copy = _make_runs(load, store, holds)

    @kernel(SELECT, name=f"select_{size}")
    def flat(p, begin, end):
        out, c, x, y, total, block = p.out, p.c, p.x, p.y, p.total, p.block
        for chunk in prange(begin, end):
            for i in range(chunk * block, min(total, (chunk + 1) * block)):
                u, v = load(x, i), load(y, i)
                store(out, i, u if holds(c, i) else v)
        return 0

    @kernel(SELECT, name=f"select_{size}_broadcast")
    def nest(p, begin, end):
        out, c, x, y, n0, n1, c0, x0, y0 = p.out, p.c, p.x, p.y, p.n0, p.n1, p.c0, p.x0, p.y0
        c1, x1, y1 = p.c1, p.x1, p.y1
        for chunk in prange(begin, end):
            at = chunk * p.block
            stop = min(p.total, at + p.block)
            while at < stop:
                ic, ix, iy, j, column = locate(p, at)
                while j < n1 and at < stop:
                    run = min(n0 - column, stop - at)
                    if c0 != 0:
                        choose(out, at, c, ic + column, x, ix + column * x0, x0, y, iy + column * y0, y0, run)
                    elif holds(c, ic):
                        copy(out, at, x, ix + column * x0, x0, run)
                    else:
                        copy(out, at, y, iy + column * y0, y0, run)
                    at += run
                    column = 0
                    ic += c1
                    ix += x1
                    iy += y1
                    j += 1
        return 0
    return Kernels(flat, nest)
