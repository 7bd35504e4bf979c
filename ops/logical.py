"""LOGICAL_AND LOGICAL_OR LOGICAL_NOT of bool tensors. Any byte but 0 counts as true; results are 0 or 1."""
from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Device
from litejit.ops.base import Operator, Step, Target, chunked
from litejit.ops.binary import no_constants, same_places
from litejit.ops.broadcast import GRAIN, Kernels, broadcast_kernels, broadcast_steps, layout, prepare_broadcast
from litejit.ops.streams import LOAD, STORE
from litejit.planner.graph import Node

INVERT = np.dtype([("x", "i8"), ("y", "i8"), ("total", "i8"), ("block", "i8")], align=True)
_load, _store = LOAD["u8"], STORE["u8"]


class Logical(Operator):
    """A function of two bools that broadcast."""

    def __init__(self, name: str, formula: Device, numpy: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
        self.name, self.formula, self.numpy = name, formula, numpy

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        node.same_type(node[0], node[1])
        for value in (node[0], node.out):
            node.check(value.type == "bool", f"Logical ops only support bool type: {value!r}")
        return [prepare_broadcast(node, node[0], node[1])]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        a, b = node[0].data, node[1].data
        return None if a is None or b is None else [self.numpy(a, b)]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return same_places(node)

    def steps(self, node: Node, target: Target) -> list[Step]:
        return broadcast_steps(node, logical_kernels(self.name.lower(), self.formula), {})


class LogicalNot(Operator):
    """The opposite of each element."""

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        node.types(node[0], "bool")
        node.check(node.out.type == "bool", lambda: f"input->type != output->type: {node[0]!r}, {node.out!r}")
        return [node[0].dims]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        return None if node[0].data is None else [np.logical_not(node[0].data)]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        chunks, block = chunked(node.out.size, GRAIN)
        return [Step(node, logical_not, {"x": node[0], "y": node.out, "total": node.out.size, "block": block}, chunks)]


# ---- kernels ---------------------------------------------------------------------------------------

@device
def both(k, x, y):
    return np.uint8(x != 0) & np.uint8(y != 0)


@device
def either(k, x, y):
    return np.uint8((x | y) != 0)


@functools.cache
def logical_kernels(name: str, formula: Device) -> Kernels:
    return broadcast_kernels(name, layout(), _load, _store, no_constants, formula)


@kernel(INVERT)
def logical_not(p, begin, end):
    x, y, total, block = p.x, p.y, p.total, p.block
    for c in prange(begin, end):
        for i in range(c * block, min(total, (c + 1) * block)):
            _store(y, i, np.uint8(_load(x, i) == 0))
    return 0


OPERATORS: dict[str, Operator] = {
    "LOGICAL_AND": Logical("LOGICAL_AND", both, np.logical_and),
    "LOGICAL_OR": Logical("LOGICAL_OR", either, np.logical_or),
    "LOGICAL_NOT": LogicalNot(),
}
