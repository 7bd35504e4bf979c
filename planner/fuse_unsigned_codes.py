"""Rule "unsigned_codes": int8 tensors between convolutions are held as uint8, which the CPU's dot product takes as they are.

A code of int8 and one 128 higher of uint8, with a zero point 128 higher, stand for the same number, and XNNPACK's arithmetic
makes the same of both. VNNI's product wants its left side without signs: what reads such codes need not turn them. Measured
(Zen 4): 1x1 products save 7 cycles a tile (8 % with 16 channels, 2 % with 96), depthwise tiles 4 to 10 %.
"""

from __future__ import annotations

import numpy as np

from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses

SIGN = 128  # what a code and its zero point grow by


def fuse_unsigned_codes(uses: Uses, target: Target) -> list[str]:
    """Hold the int8 tensors as uint8 that only operators make and read which take both."""
    if target.cpu.dot != "vnni" or target.preserve:
        return []
    nodes = [node for node in uses.graph.nodes if node.operator.takes_unsigned(node, target)]
    values = _linked(nodes, _candidates(uses, nodes))
    turned = {value: _unsigned(value) for value in values}
    uses.graph.values += turned.values()
    for node in nodes:
        node.inputs = tuple(turned.get(value, value) if value is not None else None for value in node.inputs)
        node.outputs = tuple(turned.get(value, value) for value in node.outputs)
    return [f"{len(turned)} int8 tensors are held as uint8"] if turned else []


def _candidates(uses: Uses, nodes: list[Node]) -> list[Value]:
    """int8 tensors that one of the nodes makes, and only such nodes read."""
    able = set(map(id, nodes))
    return [value for node in nodes for value in node.outputs
            if value.type == "i8" and value not in uses.kept and not value.variable and uses.once(value)
            and uses.users.get(value) and all(id(user) in able for user in uses.users[value])]


def _linked(nodes: list[Node], values: list[Value]) -> list[Value]:
    """Those of the values that may be turned where all tensors of a node with one type have it afterwards."""
    kept = set(values)
    while True:
        mixed = {value for node in nodes if node.operator.one_sign for value in (*node.inputs, *node.outputs)
                 if value in kept and any(other is not None and other.type == "i8" and other.data is None and other not in kept
                                          for other in (*node.inputs, *node.outputs))}
        if not mixed:
            return [value for value in values if value in kept]
        kept -= mixed


def _unsigned(value: Value) -> Value:
    zero_points = np.array([value.zero_point + SIGN], np.int64)
    return Value(value.name, value.index, value.subgraph, "u8", value.shape, signature=value.signature, scales=value.scales,
                 zero_points=zero_points, dimension=value.dimension, spec=value.spec)
