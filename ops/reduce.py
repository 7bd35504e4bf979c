"""MEAN, SUM, REDUCE_MAX, REDUCE_MIN, REDUCE_PROD, REDUCE_ANY and REDUCE_ALL.

The axes may be negative, repeated, or none at all (then the tensor is copied). Quantised sums, means and products are
in reduce_quantised.py. Floats are added in float32: down the rows in their order, along rows in vector lanes.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import LOAD, STORE, copy_bytes
from litejit.ops import streams
from litejit.ops.arithmetic import FLT_MAX
from litejit.ops.base import Operator, Step, Target, same_value
from litejit.ops.reduce_loops import LOOP, Geometry, columns, columns_params, geometry, rows_params, runs, strided
from litejit.ops.reduce_quantised import quantised_step
from litejit.ops.simd import reductions
from litejit.planner.graph import QUANTISED, Node

PLAIN = np.dtype([*LOOP, ("scale", "f4"), ("limit", "f4"), ("divisor", "i8")], align=True)

MAX_RANK = 8
NUMBERS = ("f32", "f16", "i8", "u8", "i16", "i32", "i64")
FOLDED = ("i32", "i64", "f32", "bool")
VECTORISED = {"sum": ("f32",), "prod": ("f32",), "max": ("f32", "i8", "u8"), "min": ("f32", "i8", "u8")}
BOOL = {"sum": "max", "max": "max", "min": "min", "prod": "min", "any": "max", "all": "min"}
NUMPY: dict[str, Callable[..., Any]] = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod, "any": np.any,
                                        "all": np.all}


class Reduce(Operator):
    """A reduction: `what` is sum, mean, max, min, prod, any or all. Inputs: tensor, axes (i32); option keep_dims."""

    def __init__(self, what: str, types: tuple[str, ...]) -> None:
        self.what, self.types = what, types

    def delegates(self, node: Node) -> bool:
        return (self.what in ("sum", "mean", "max", "min") and node[0].type in ("f32", "f16", "i8", "u8")
                and node[1].constant and node[1].size > 0)

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        x, out = node[0], node.out
        node.types(x, *self.types)
        node.same_type(x, out)
        node.types(node[1], "i32")
        node.check(x.rank <= MAX_RANK, lambda: f"{node.op} takes at most {MAX_RANK} dimensions, not {x.rank}")
        if self.what in ("max", "min") and x.type in QUANTISED:
            node.check(same_value(x, out), "input->params.scale, zero_point != output->params.scale, zero_point: "
                       f"{node.op} needs equal quantisation of {x!r} and {out!r}")
        axes = reduced_axes(node)
        if getattr(node.options, "keep_dims", False):
            return [tuple(1 if d in axes else size for d, size in enumerate(x.dims))]
        return [tuple(size for d, size in enumerate(x.dims) if d not in axes)]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        x = node[0].data
        if x is None or node.out.type not in FOLDED or x.size == 0:
            return None
        axes = tuple(reduced_axes(node))
        if self.what == "mean":
            total = np.sum(x, axis=axes, dtype=np.float64 if x.dtype.kind == "f" else np.int64)
            count = max(x.size // max(node.out.size, 1), 1)
            mean = total / count if x.dtype.kind == "f" else np.sign(total) * (np.abs(total) // count)
            return [np.asarray(mean, x.dtype)]
        name = BOOL[self.what] if x.dtype.kind == "b" else self.what
        return [np.asarray(NUMPY[name](x, axis=axes), x.dtype)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, out = node[0], node.out
        shape = geometry(x.dims, reduced_axes(node))
        if x.type in ("i8", "u8", "i16") and self.what in ("mean", "sum", "prod") and (
                self.what == "mean" or x.quantised):
            return [quantised_step(node, self.what, shape, target.mode == "ref")]
        what, type = self.what, x.type
        if type == "bool":
            what, type = BOOL[what], "u8"
        count = max(shape.depth, 1)
        params = {"scale": 1.0, "divisor": 1, "limit": 0.0}
        if what == "mean":
            what = "sum"
            params["scale"] = float(np.float32(1) / np.float32(shape.depth)) if shape.depth else float("nan")
            params["divisor"] = count
        if what in ("max", "min") and type in ("f32", "f16"):
            bound = float("inf") if node.xnn else FLT_MAX
            params["limit"] = -bound if what == "max" else bound
        kernel, fields, chunks = _choose(what, type, shape)
        return [Step(node, kernel, {"x": x, "y": out, **fields, **params}, chunks)]


def reduced_axes(node: Node) -> Sequence[int]:
    """The axes of a node in order, each once."""
    if node[1].size == 0 or node[0].rank == 0:
        return []
    rank = node[0].rank
    axes = [int(a) for a in node.constant(1).ravel()]
    node.check(all(-rank <= a < rank for a in axes),
               lambda: f"Invalid axis index. The axes {axes} of {node.op} must be in [{-rank}, {rank})")
    return sorted({a % rank for a in axes})


def _choose(what: str, type: str, shape: Geometry) -> tuple[Kernel, dict[str, Any], int]:
    """(kernel, its loop fields, chunks)."""
    if type not in VECTORISED.get(what, ()) or (what == "prod" and not shape.columns):
        return strided_kernel(what, type), *rows_params(shape)
    if shape.columns:
        neutral = 0 if what == "sum" else _neutral(what, type)
        return vector_kernel(what, type, True), *columns_params(shape, neutral, np.dtype(DTYPES[type]).name)
    return vector_kernel(what, type, False), *rows_params(shape)


OPERATORS: dict[str, Operator] = {
    "MEAN": Reduce("mean", NUMBERS), "SUM": Reduce("sum", (*NUMBERS, "bool")),
    "REDUCE_MAX": Reduce("max", (*NUMBERS, "bool")), "REDUCE_MIN": Reduce("min", (*NUMBERS, "bool")),
    "REDUCE_PROD": Reduce("prod", (*NUMBERS, "bool")), "REDUCE_ANY": Reduce("any", ("bool",)),
    "REDUCE_ALL": Reduce("all", ("bool",)),
}

# ---- kernels: one for each of (what, type, order of the walk) --------------------------------------

DTYPES = {"f32": "f4", "f16": "f2", "i8": "i1", "u8": "u1", "i16": "i2", "i32": "i4", "i64": "i8"}
CASTS: dict[str, Any] = {"f32": np.float32, "f16": np.float32, "i8": np.int8, "u8": np.uint8, "i16": np.int16,
                         "i32": np.int32, "i64": np.int64}


def _neutral(what: str, type: str) -> Any:
    """The value of a type that changes no result."""
    if what in ("sum", "prod"):
        return int(what == "prod")
    if type in ("f32", "f16"):
        return -np.inf if what == "max" else np.inf
    bounds = np.iinfo(DTYPES[type])
    return int(bounds.min) if what == "max" else int(bounds.max)


@device
def add(p, acc, x):
    return acc + x


@device
def multiply(p, acc, x):
    return acc * x


@device
def larger(p, acc, x):
    return x if x > acc else acc


@device
def smaller(p, acc, x):
    return x if x < acc else acc


COMBINE = {"sum": add, "prod": multiply, "max": larger, "min": smaller}


@cache
def strided_kernel(what: str, type: str) -> Kernel:
    """The kernel that reduces elements any step apart. Integers are added and multiplied in 64 bits."""
    store, narrow, floats = STORE[type], CASTS[type], type in ("f32", "f16")
    wide = narrow if floats or what in ("max", "min") else np.int64
    if floats:
        @device
        def finish(p, u, acc):
            if what == "max":
                store(p.y, u, acc if acc > p.limit else p.limit)
            elif what == "min":
                store(p.y, u, acc if acc < p.limit else p.limit)
            else:
                store(p.y, u, acc * p.scale)
    else:
        @device
        def finish(p, u, acc):
            if what == "sum" and p.divisor > 1:
                size = abs(acc) // p.divisor
                acc = -size if acc < 0 else size
            store(p.y, u, narrow(acc))
    name = f"reduce_{what}_{type}_strided"
    kept = "i64" if wide is np.int64 else "f32" if floats else type
    return strided(name, PLAIN, streams.LOAD[type], kept, wide(_neutral(what, type)), COMBINE[what], finish)


@cache
def vector_kernel(what: str, type: str, in_columns: bool) -> Kernel:
    """The kernel that reduces rows into neighbouring outputs, or runs of neighbours."""
    store, load_acc, combine_with_p = streams.STORE[type], LOAD[type], COMBINE[what]

    @device
    def combine(acc, x):
        return combine_with_p(0, acc, x)
    if type != "f32":
        @device
        def finish(p, acc, to, n):
            copy_bytes(p.y + to, acc, n)
    elif what in ("sum", "prod"):
        @device
        def finish(p, acc, to, n):
            y, scale = p.y, p.scale
            for i in range(n):
                store(y, to + i, load_acc(acc, i) * scale)
    else:
        @device
        def finish(p, acc, to, n):
            y, limit = p.y, p.limit
            for i in range(n):
                store(y, to + i, combine(limit, load_acc(acc, i)))
    size = np.dtype(DTYPES[type]).itemsize
    name = f"reduce_{what}_{type}"
    if in_columns:
        return columns(f"{name}_columns", PLAIN, size, size, reductions.columns(what, type), load_acc, STORE[type],
                       combine, finish)
    return runs(f"{name}_runs", PLAIN, size, size, reductions.runs(what, type), load_acc, STORE[type],
                CASTS[type](_neutral(what, type)), combine, finish)
