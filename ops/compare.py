"""EQUAL NOT_EQUAL LESS LESS_EQUAL GREATER GREATER_EQUAL of two broadcast tensors of one type, to bool.

Two formulas serve all six: operands are swapped and results inverted; floats have a third, because of NaN.
Quantised tensors are compared after both were brought to one fixed-point scale, which cuts off low bits, as in LiteRT; but
for the order of int16, which is that of the codes, as there.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device
from litejit.ops.arithmetic import mbqm, quantize_multiplier
from litejit.ops.base import Operator, Step, Target
from litejit.ops.binary import same_places
from litejit.ops.broadcast import Kernels, broadcast_kernels, broadcast_steps, layout, prepare_broadcast
from litejit.ops.streams import LOAD, STORE
from litejit.planner.graph import Node

FLOATS = ("f32", "f16", "bf16")
BYTES = ("i8", "u8")
SCALED = (*BYTES, "i16")
PLAIN = layout(("invert", "i8"))
RESCALED = layout(("invert", "i8"), ("za", "i4"), ("zb", "i4"), ("ma", "i4"), ("mb", "i4"), ("ea", "i4"), ("eb", "i4"))


class Relation(NamedTuple):
    """A comparison by means of another one: "equal", "less", "less_equal" of (a, b) or (b, a), perhaps inverted."""

    formula: str
    swap: bool
    invert: bool


class Compare(Operator):
    """A comparison. floats: how floats do it; others: how integers do it, which have no NaN."""

    def __init__(self, name: str, floats: Relation, others: Relation, types: tuple[str, ...],
                 numpy: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.name, self.floats, self.others, self.accepted, self.numpy = name, floats, others, types, numpy

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        a, b = node[0], node[1]
        node.same_type(a, b)
        node.types(a, *self.accepted)
        node.check(node.out.type == "bool", lambda: f"output->type != BOOL: {node.out!r}")
        if a.type in BYTES:
            for value in (a, b):
                node.check(value.quantised, f"{value!r} needs quantization parameters")
        return [prepare_broadcast(node, a, b)]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        a, b = node[0].data, node[1].data
        return None if a is None or b is None or node[0].type in SCALED else [self.numpy(a, b)]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return same_places(node)

    def steps(self, node: Node, target: Target) -> list[Step]:
        a, b = node[0], node[1]
        relation = self.floats if a.type in FLOATS else self.others
        if relation.swap:
            a, b = b, a
        params: dict[str, Any] = {"invert": int(relation.invert)}
        kernels = plain_kernels(relation.formula, "u8" if a.type == "bool" else a.type)
        if (a.type in BYTES or (a.type == "i16" and relation.formula == "equal")) and (a.quantised or b.quantised):
            kernels = rescaled_kernels(relation.formula, a.type)
            (ma, ea), (mb, eb) = quantize_multiplier(float(a.scale)), quantize_multiplier(float(b.scale))
            params |= {"za": a.zero_point, "zb": b.zero_point, "ma": ma, "ea": ea, "mb": mb, "eb": eb}
        return broadcast_steps(node, kernels, params, (a, b))


_ALL = (*FLOATS, *SCALED, "i32", "i64")
_EQUAL, _LESS, _SWAPPED = Relation("equal", False, False), Relation("less", False, False), Relation("less", True, False)

OPERATORS: dict[str, Operator] = {op.name: op for op in (
    Compare("EQUAL", _EQUAL, _EQUAL, (*_ALL, "bool"), np.equal),
    Compare("NOT_EQUAL", Relation("equal", False, True), Relation("equal", False, True), (*_ALL, "bool"), np.not_equal),
    Compare("LESS", _LESS, _LESS, _ALL, np.less),
    Compare("LESS_EQUAL", Relation("less_equal", False, False), Relation("less", True, True), _ALL, np.less_equal),
    Compare("GREATER", _SWAPPED, _SWAPPED, _ALL, np.greater),
    Compare("GREATER_EQUAL", Relation("less_equal", True, False), Relation("less", False, True), _ALL,
            np.greater_equal),
)}


# ---- kernels ---------------------------------------------------------------------------------------

@device
def equal(x, y):
    return np.uint8(x == y)


@device
def less(x, y):
    return np.uint8(x < y)


@device
def less_equal(x, y):
    return np.uint8(x <= y)


_FORMULAS = {"equal": equal, "less": less, "less_equal": less_equal}


@functools.cache
def plain_kernels(name: str, type: str) -> Kernels:
    """Comparisons of the elements as they are."""
    relation = _FORMULAS[name]

    @device
    def constants(p):
        return np.uint8(p.invert)

    @device
    def formula(k, x, y):
        return relation(x, y) ^ k
    return broadcast_kernels(f"{name}_{type}", PLAIN, LOAD[type], STORE["u8"], constants, formula)


@functools.cache
def rescaled_kernels(name: str, type: str) -> Kernels:
    """Comparisons of codes minus zero point, 8 bits up, times their scale in fixed point."""
    relation = _FORMULAS[name]

    @device
    def constants(p):
        return np.uint8(p.invert), p.za, p.ma, p.ea, p.zb, p.mb, p.eb

    @device
    def formula(k, x, y):
        invert, za, ma, ea, zb, mb, eb = k
        return relation(mbqm((x - za) << 8, ma, ea), mbqm((y - zb) << 8, mb, eb)) ^ invert
    return broadcast_kernels(f"{name}_{type}_scaled", RESCALED, LOAD[type], STORE["u8"], constants, formula)
