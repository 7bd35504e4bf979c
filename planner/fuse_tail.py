"""Rule "tail": an activation or a residual sum behind a float product is done while the rows are in the cache."""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses

PRODUCERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
FUNCTIONS = {"SWISH": "swish", "HARD_SWISH": "hard_swish", "LOGISTIC": "logistic", "TANH": "tanh", "GELU": "gelu"}


def fuse_tails(uses: Uses, target: Target) -> list[str]:
    """Hang functions and sums on the float32 products that make their inputs (ops/tails.py)."""
    if target.mode == "ref":
        return []
    notes = []
    for node in list(uses.graph.nodes):
        producer = _add(uses, node) if node.op == "ADD" else _function(uses, node)
        if producer is not None:
            producer.outputs = node.outputs
            uses.replace([producer, node], producer)
            notes.append(f"node {node.index} {node.op} behind node {producer.index} {producer.op}")
    return notes


def _function(uses: Uses, node: Node) -> Node | None:
    """The producer, with the function as its tail."""
    from litejit.ops.tails import Tail

    producer = _free(uses, node[0]) if node.op in FUNCTIONS else None
    if producer is not None:
        approximate = node.op == "GELU" and bool(node.options.approximate)
        producer.tail = Tail("gelu_tanh" if approximate else FUNCTIONS[node.op])
    return producer


def _add(uses: Uses, node: Node) -> Node | None:
    """The producer of one operand, with the other one as its tail."""
    from litejit.ops.arithmetic import activation, float_range
    from litejit.ops.tails import Tail

    for own, other in ((1, 0), (0, 1)):
        x, rest = node[own], node[other]
        producer = _free(uses, x) if x.size == rest.size == node.out.size and rest.data is None else None
        if producer is not None and _adds(producer):
            producer.tail = Tail(other=rest, bounds=float_range(activation(node), node.xnn))
            producer.inputs = (*producer.inputs, *[None] * (3 - len(producer.inputs)), rest)
            return producer
    return None


def _free(uses: Uses, value: Value) -> Node | None:
    """The product that makes a private value and does nothing to it afterwards."""
    from litejit.ops.arithmetic import activation

    producer = uses.maker(value, *PRODUCERS)
    if producer is None or value.size == 0 or not uses.private(value) or value.type != "f32" or producer.tail is not None:
        return None
    return producer if producer[1].type == "f32" and activation(producer) == "NONE" else None


def _adds(producer: Node) -> bool:
    """Whether the producer is computed by GEMM tiles of more than one row on the rows of its input as they lie."""
    from litejit.ops.conv import windows_of

    rows = producer.out.size // producer.out.dims[-1]
    return rows > 1 and (producer.op == "FULLY_CONNECTED" or (producer.op == "CONV_2D" and windows_of(producer).pointwise))
