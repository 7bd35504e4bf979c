"""SHAPE, FILL and ONE_HOT: tensors made of shapes, of one value, of two values."""
from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import (
    load_i32,
    load_i64,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
)
from litejit.ops.base import Operator, Packed, Step, Target, chunked
from litejit.ops.copy import Move, Movement, copy_steps, plain, strides
from litejit.planner.graph import Node

Dims = tuple[int, ...]

ONE_HOT = np.dtype([("indices", "i8"), ("on", "i8"), ("off", "i8"), ("y", "i8"), ("wide", "i8"), ("outer", "i8"),
                    ("depth", "i8"), ("inner", "i8"), ("block", "i8")], align=True)


class Shape(Operator):
    """Input x (any type); options: out_type int32 or int64."""

    folds_shape = True

    def prepare(self, node: Node) -> list[Dims]:
        node.arity(1)
        node.check(node.out.type in ("i32", "i64"), f"Unknown shape output data type: {node.out.type}")
        chosen = getattr(node.options, "out_type", None)
        node.check(chosen is None or chosen.name in ("INT32", "INT64"), f"Unknown shape output data type: {chosen!r}")
        return [(node[0].rank,)]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        return [np.array(node[0].dims, node.out.dtype)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        dims, dtype = node[0].dims, node.out.dtype
        packed = Packed(("shape", dims, dtype.str), lambda: np.array(dims, dtype))
        return copy_steps(node, packed, node.out, Move(node.out.dims, (1,), (1,)), dtype.itemsize)


class Rank(Shape):
    """Input x (any type): the number of its dimensions, an int32 scalar."""

    def prepare(self, node: Node) -> list[Dims]:
        node.arity(1)
        node.types(node.out, "i32")
        return [()]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        return [np.array(node[0].rank, np.int32)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        rank = node[0].rank
        packed = Packed(("rank", rank), lambda: np.array([rank], np.int32))
        return copy_steps(node, packed, node.out, Move((1,), (1,), (1,)), 4)


class ZerosLike(Movement):
    """Input x (float32, int32, int64): zeros of its shape, whatever it holds."""

    folds_shape = True

    def prepare(self, node: Node) -> list[Dims]:
        node.arity(1)
        node.types(node[0], "f32", "i32", "i64")
        node.same_type(node[0], node.out)
        return [node[0].dims]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        return [np.zeros(node[0].dims, node.out.dtype)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        dims, size = node.out.dims, node.out.itemsize
        zero = Packed(("zero", size), lambda: np.zeros(size, np.uint8))
        return copy_steps(node, zero, node.out, Move(dims, (0,) * len(dims), strides(dims)), size)


class Fill(Movement):
    """Inputs dims (int32 or int64 vector), value (scalar of any type)."""

    def prepare(self, node: Node) -> list[Dims]:
        node.arity(2)
        node.types(node[0], "i32", "i64")
        node.check(node[0].rank == 1, f"NumDimensions(dims) != 1 ({node[0].rank} != 1)")
        node.check(node[1].size == 1, f"the value must be a scalar: {node[1]!r}")
        plain(node, node[1], node.out)
        node.same_type(node[1], node.out)
        dims = tuple(int(d) for d in node.constant(0))
        node.check(all(d >= 0 for d in dims), f"Fill dimensions must be >= 0: {list(dims)}")
        return [dims]

    def moves(self, node: Node) -> list[Move]:
        return [Move(node.out.dims, (0,) * node.out.rank, strides(node.out.dims), source=1)]


class OneHot(Operator):
    """Inputs indices (int32 or int64), depth (int32 scalar), on value, off value; options: axis (-1: last).

    Positions whose index is outside of [0, depth) are all off.
    """

    def prepare(self, node: Node) -> list[Dims]:
        node.arity(4)
        indices, depth, on, off = (node[i] for i in range(4))
        node.types(indices, "i32", "i64")
        node.types(depth, "i32", "i64")
        plain(node, node.out)
        for value in (on, off):
            node.check(value.type == node.out.type, f"on_value, off_value and output differ: {value!r}, {node.out!r}")
            node.check(value.size == 1, f"on_value and off_value must be scalars: {value!r}")
        node.check(depth.size == 1, f"depth must be a scalar: {depth!r}")
        axis, rank = self._axis(node), indices.rank
        node.check(0 <= axis <= rank, f"axis >= 0 && axis < output_dims was not true: {axis} of {rank + 1}")
        count = int(node.constant(1).reshape(-1)[0])
        node.check(count >= 0, f"depth must not be negative: {count}")
        return [(*indices.dims[:axis], count, *indices.dims[axis:])]

    def _axis(self, node: Node) -> int:
        axis = int(getattr(node.options, "axis", 0))
        return node[0].rank if axis == -1 else axis

    def fold(self, node: Node) -> list[np.ndarray] | None:
        indices, _, on, off = (node.constant(i) for i in range(4))
        axis = self._axis(node)
        place = np.arange(node.out.dims[axis]).reshape((-1,) + (1,) * (node.out.rank - axis - 1))
        hit = np.expand_dims(indices, axis) == place
        return [np.where(hit, on.reshape(()), off.reshape(())).astype(node.out.dtype)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        axis, dims, size = self._axis(node), node.out.dims, node.out.itemsize
        outer, inner = (prod(d) for d in (dims[:axis], dims[axis + 1:]))
        kernel_ = ONE_HOTS.get(size)
        if kernel_ is None:
            node.fail(f"type {node.out.type} is not supported by ONE_HOT")
        chunks, block = chunked(outer, max(1, (1 << 16) // max(1, dims[axis] * inner * size)))
        return [Step(node, kernel_, {  # type: ignore[arg-type]
            "indices": node[0], "on": node[2], "off": node[3], "y": node.out, "wide": node[0].type == "i64",
            "outer": outer, "depth": dims[axis], "inner": inner, "block": block}, chunks)]


OPERATORS = {"SHAPE": Shape(), "RANK": Rank(), "ZEROS_LIKE": ZerosLike(), "FILL": Fill(), "ONE_HOT": OneHot()}


# ---- kernels -------------------------------------------------------------------------------------

def _one_hot_kernel(size: int, load: Any, store: Any) -> Any:
    @kernel(ONE_HOT, name=f"one_hot_{size}")
    def one_hot(p, begin, end):
        on, off = load(p.on, 0), load(p.off, 0)
        for c in prange(begin, end):
            for o in range(c * p.block, min(p.outer, (c + 1) * p.block)):
                y = p.y + o * p.depth * p.inner * size
                for i in range(p.depth * p.inner):
                    store(y, i, off)
                for j in range(p.inner):
                    at = o * p.inner + j
                    d = load_i64(p.indices, at) if p.wide else np.int64(load_i32(p.indices, at))
                    if 0 <= d < p.depth:
                        store(y, d * p.inner + j, on)
        return 0
    return one_hot


ONE_HOTS = {size: _one_hot_kernel(size, load, store) for size, load, store in (
    (1, load_u8, store_u8), (2, load_u16, store_u16), (4, load_u32, store_u32), (8, load_u64, store_u64))}
