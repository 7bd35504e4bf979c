"""Operators of one input that compute each element on its own: what they have in common.

A float operator is a formula (a device function of float32) mapped over its elements; half types are computed in
float32 and rounded. A quantised one is a table of all codes, made while planning (tables.py).
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel, Lazy, MicroKernel
from litejit.ops.base import Operator, Step, Target, chunked
from litejit.ops.simd.functions import FORMULAS, stream
from litejit.ops.streams import LOAD, STORE
from litejit.ops.tables import Fill, check_codes, fold_table, lookup_steps
from litejit.planner.graph import QUANTISED, Node, Value

MAP = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8"), ("block", "i8"), ("a", "f4"), ("b", "f4")], align=True)
FLOATS = ("f32", "f16", "bf16")
GRAIN = 16384                         # elements of a chunk: some 3 to 10 microseconds of float work
_INTEGER = {"i8": np.int8, "i16": np.int16, "i32": np.int32, "i64": np.int64}


class Elementwise(Operator):
    """An operator of one input whose output has its shape and, mostly, its type.

    types: what the node may have; delegated: what XNNPACK takes; formula: of a float32 (and of `parameters`);
    table: (node, codes of the input) -> codes of the output, for quantised types;
    whole: formula of integers that are not quantised; numpy: the same in NumPy, to fold constants.
    """

    def __init__(self, name: str, types: tuple[str, ...], formula: Lazy | None = None, *,
                 delegated: tuple[str, ...] = FLOATS[:2],
                 parameters: Callable[[Node], tuple[float, float]] | None = None,
                 table: Fill | None = None, whole: Lazy | None = None,
                 numpy: Callable[..., np.ndarray] | None = None) -> None:
        self.name, self.accepted, self.formula, self.delegated = name, types, formula, delegated
        self.parameters, self.whole, self.numpy = parameters, whole, numpy
        self.table: Any = table

    def delegates(self, node: Node) -> bool:
        return node[0].type in self.delegated

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        node.types(node[0], *self.accepted)
        node.same_type(node[0], node.out)
        self.check(node)
        return [node[0].dims]

    def check(self, node: Node) -> None:
        """Further conditions on the node."""
        if self.tabulated(node):
            check_codes(node, node[0], node.out)

    def tabulated(self, node: Node) -> bool:
        """Whether the node is computed by a table of codes."""
        return self.table is not None and node[0].type in QUANTISED

    def fold(self, node: Node) -> list[np.ndarray] | None:
        data = node[0].data
        if self.tabulated(node):
            return [fold_table(node, self.table)]
        if self.numpy is None or data is None:
            return None
        if node[0].type in FLOATS:
            data = data.astype(np.float32)
        return [self.numpy(data, *(self.parameters(node) if self.parameters else ()))]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, y = node[0], node.out
        if self.tabulated(node):
            return lookup_steps(node, self.table, node.xnn)
        if x.type not in FLOATS:
            return [map_step(node, whole_map(self.name, self.whole, x.type), x, y)]
        a, b = self.parameters(node) if self.parameters else (0.0, 0.0)
        return [map_step(node, float_map(self.name, self.formula, x.type, self.parameters is not None), x, y, a=a, b=b)]


def map_step(node: Node, run: Kernel, x: Value, y: Value, grain: int = GRAIN, **more: Any) -> Step:
    """A step whose kernel maps the elements of x to those of y."""
    chunks, block = chunked(y.size, grain)
    return Step(node, run, {"x": x, "y": y, "n": y.size, "block": block, **more}, chunks)


@functools.cache
def float_map(name: str, formula: Any, type: str, parameters: bool = False) -> Kernel:
    """The kernel y = formula(x), or formula(x, a, b), of float32 arithmetic on elements of a type."""
    load, store = LOAD[type], STORE[type]
    if type == "f32" and name in FORMULAS:
        return _vector_map(name, stream(name, formula))

    @kernel(MAP, name=f"map_{name}_{type}")
    def plain(p, begin, end):
        x, y, n, block = p.x, p.y, p.n, p.block
        for c in prange(begin, end):
            for i in range(c * block, min(n, (c + 1) * block)):
                store(y, i, formula(load(x, i)))
        return 0

    if not parameters:
        return plain

    @kernel(MAP, name=f"map_{name}_{type}")
    def with_parameters(p, begin, end):
        x, y, n, block, a, b = p.x, p.y, p.n, p.block, p.a, p.b
        for c in prange(begin, end):
            for i in range(c * block, min(n, (c + 1) * block)):
                store(y, i, formula(load(x, i), a, b))
        return 0
    return with_parameters


def _vector_map(name: str, run_stream: MicroKernel) -> Kernel:
    """The kernel of a micro-kernel (x, y, n) on float32."""
    @kernel(MAP, name=f"map_{name}_f32")
    def vectors(p, begin, end):
        x, y, n, block = p.x, p.y, p.n, p.block
        first = begin * block
        run_stream(x + 4 * first, y + 4 * first, min(n, end * block) - first)
        return 0
    return vectors


@functools.cache
def whole_map(name: str, formula: Any, type: str) -> Kernel:
    """The kernel y = formula(x) on integers (the low bits of the result are kept) or float64."""
    load, store = LOAD[type], STORE[type]
    narrow = _INTEGER.get(type, np.float64)

    @kernel(MAP, name=f"map_{name}_{type}")
    def run(p, begin, end):
        x, y, n, block = p.x, p.y, p.n, p.block
        for c in prange(begin, end):
            for i in range(c * block, min(n, (c + 1) * block)):
                store(y, i, narrow(formula(load(x, i))))
        return 0
    return run


# ---- formulas of several operators -----------------------------------------------------------------

@device
def clamp(x, low, high):
    """x within [low, high]; NaN stays NaN."""
    x = low if x < low else x
    return high if x > high else x
