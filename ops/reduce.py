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
from litejit.compiler.primitives import LOAD, STORE, bits_f32, float_bits
from litejit.ops import streams
from litejit.ops.arithmetic import FLT_MAX
from litejit.ops.base import Operator, Step, Target, same_value
from litejit.ops.reduce_loops import LOOP, Geometry, columns, columns_params, geometry, rows, rows_params
from litejit.ops.reduce_quantised import quantised_step
from litejit.planner.graph import QUANTISED, Node

PLAIN = np.dtype([*LOOP, ("scale", "f4"), ("limit", "f4"), ("divisor", "i8")], align=True)

MAX_RANK = 8
NUMBERS = ("f32", "f16", "i8", "u8", "i16", "i32", "i64")
FOLDED = ("i32", "i64", "f32", "bool")
VECTORISED = {"sum": ("f32",), "max": ("f32", "i8", "u8"), "min": ("f32", "i8", "u8")}
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
        count = max(shape.count, 1)
        params = {"scale": 1.0, "divisor": 1, "limit": 0.0}
        if what == "mean":
            what = "sum"
            params["scale"] = float(np.float32(1) / np.float32(shape.count)) if shape.count else float("nan")
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
    if type in VECTORISED.get(what, ()) and shape.columns:
        neutral = 0 if what == "sum" else _least(what, type)
        return columns_kernel(what, type), *columns_params(shape, neutral, np.dtype(DTYPES[type]).name)
    unit = type in VECTORISED.get(what, ()) and shape.reduced[-1][1] <= 1
    return rows_kernel(what, type, unit), *rows_params(shape)


OPERATORS: dict[str, Operator] = {
    "MEAN": Reduce("mean", NUMBERS), "SUM": Reduce("sum", (*NUMBERS, "bool")),
    "REDUCE_MAX": Reduce("max", (*NUMBERS, "bool")), "REDUCE_MIN": Reduce("min", (*NUMBERS, "bool")),
    "REDUCE_PROD": Reduce("prod", (*NUMBERS, "bool")), "REDUCE_ANY": Reduce("any", ("bool",)),
    "REDUCE_ALL": Reduce("all", ("bool",)),
}

# ---- kernels: one for each of (what, type, order of the walk) --------------------------------------

DTYPES = {"f32": "f4", "f16": "f2", "i8": "i1", "u8": "u1", "i16": "i2", "i32": "i4", "i64": "i8"}
F32_ZERO, F32_ONE = np.float32(0), np.float32(1)


def _least(what: str, type: str) -> Any:
    """The value of a type that never wins a comparison."""
    if type in ("f32", "f16"):
        return -np.inf if what == "max" else np.inf
    bounds = np.iinfo(DTYPES[type])
    return int(bounds.min) if what == "max" else int(bounds.max)


@device(fastmath=("reassoc",))
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


@device
def add_4(acc, a, b, c, d):
    return acc + a + b + c + d


@device
def largest_4(acc, a, b, c, d):
    acc = a if a > acc else acc
    acc = b if b > acc else acc
    acc = c if c > acc else acc
    return d if d > acc else acc


@device
def smallest_4(acc, a, b, c, d):
    acc = a if a < acc else acc
    acc = b if b < acc else acc
    acc = c if c < acc else acc
    return d if d < acc else acc


COMBINE = {"sum": add, "prod": multiply, "max": larger, "min": smaller}
COMBINE_4 = {"sum": add_4, "max": largest_4, "min": smallest_4}


@cache
def rows_kernel(what: str, type: str, unit: bool) -> Kernel:
    """The kernel that reduces runs of neighbours (unit), or elements any step apart."""
    store = STORE[type]
    if type in ("f32", "f16"):
        if what in ("max", "min") and unit:
            return _ordered_rows(what)
        load = LOAD[type]
        start = {"sum": F32_ZERO, "prod": F32_ONE}.get(what)
        start = np.float32(_least(what, type)) if start is None else start

        @device
        def finish(p, u, acc):
            if what == "max" or what == "min":
                store(p.y, u, acc if (acc > p.limit if what == "max" else acc < p.limit) else p.limit)
            else:
                store(p.y, u, acc * p.scale)
    else:
        narrow, plain = _CASTS[type], LOAD[type]
        load = plain
        start = {"sum": np.int64(0), "prod": np.int64(1)}.get(what)
        if start is None:
            start = narrow(_least(what, type))

        @device
        def finish(p, u, acc):
            if what == "sum":
                size = abs(acc) // p.divisor
                acc = -size if acc < 0 else size
            store(p.y, u, narrow(acc))
    name = f"reduce_{what}_{type}_{'rows' if unit else 'any'}"
    reassociate = ("reassoc",) if what == "sum" and unit else ()
    return rows(name, PLAIN, load, start, COMBINE[what], finish, unit=unit, fastmath=reassociate)


_CASTS: dict[str, Any] = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "i32": np.int32, "i64": np.int64}
KEY_LEAST, KEY_MOST, MAGNITUDE = -(1 << 31), (1 << 31) - 1, 0x7FFFFFFF


def _ordered_rows(what: str) -> Kernel:
    """Largest or smallest float32 of runs, compared as integers in the same order: lanes may then be combined freely.

    NaN is passed over, as a comparison with the largest so far does.
    """
    plain, store = LOAD["f32"], STORE["f32"]
    least = np.int32(KEY_LEAST if what == "max" else KEY_MOST)

    @device
    def load(base, i):
        value = plain(base, i)
        bits = bits_f32(value)
        key = np.int32(bits ^ ((bits >> 31) & MAGNITUDE))
        return key if value == value else least

    @device
    def finish(p, u, acc):
        value = float_bits(np.int32(acc ^ ((acc >> 31) & MAGNITUDE)))
        found = acc != least and (value > p.limit if what == "max" else value < p.limit)
        store(p.y, u, value if found else p.limit)
    return rows(f"reduce_{what}_f32_rows", PLAIN, load, least, COMBINE[what], finish, unit=True)


@cache
def columns_kernel(what: str, type: str) -> Kernel:
    """The kernel that reduces rows into neighbouring outputs."""
    store, load_acc = streams.STORE[type], LOAD[type]
    if type == "f32" and what == "sum":
        @device
        def finish(p, acc, to, n):
            for i in range(n):
                store(p.y, to + i, load_acc(acc, i) * p.scale)
    elif type == "f32":
        @device
        def finish(p, acc, to, n):
            for i in range(n):
                value = load_acc(acc, i)
                store(p.y, to + i, value if (value > p.limit if what == "max" else value < p.limit) else p.limit)
    else:
        @device
        def finish(p, acc, to, n):
            for i in range(n):
                store(p.y, to + i, load_acc(acc, i))
    size = np.dtype(DTYPES[type]).itemsize
    return columns(f"reduce_{what}_{type}_columns", PLAIN, size, size, streams.LOAD[type], load_acc, store,
                   COMBINE_4[what], finish)
