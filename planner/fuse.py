"""Pass 3b, fuse: an activation that stands alone behind a float operator with a fused one moves into it."""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Graph, Node, Value
from litejit.schema.enums import ActivationFunctionType

PRODUCERS = frozenset(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL"))
ACTIVATIONS = {name: ActivationFunctionType[name] for name in ("RELU", "RELU_N1_TO_1", "RELU6")}


class Fused:
    """Options of a node with another fused activation."""

    __slots__ = ("_options", "fused_activation_function")

    def __init__(self, options: object, activation: ActivationFunctionType) -> None:
        self._options, self.fused_activation_function = options, activation

    def __getattr__(self, name: str) -> object:
        return getattr(self._options, name)


def fuse(graph: Graph, target: Target) -> list[str]:
    """Move lone activations into their producers; says what was fused into what."""
    users: dict[Value, int] = {}
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None:
                users[value] = users.get(value, 0) + 1
    makers: dict[Value, Node] = {node.outputs[0]: node for node in graph.nodes if len(node.outputs) == 1}
    notes, kept = [], []
    for node in graph.nodes:
        producer = (
            makers.get(node[0]) if node.op in ACTIVATIONS and node.inputs and node.inputs[0] is not None else None
        )
        if producer is not None and _fits(producer, node, users, graph):
            producer.options = Fused(producer.options, ACTIVATIONS[node.op])
            producer.outputs = node.outputs
            makers[node.out] = producer
            notes.append(f"node {node.index} {node.op} into node {producer.index} {producer.op}")
        else:
            kept.append(node)
    graph.nodes = kept
    return notes


def _fits(producer: Node, node: Node, users: dict[Value, int], graph: Graph) -> bool:
    value = node[0]
    return (
        producer.op in PRODUCERS
        and producer.options is not None
        and producer.xnn
        and value.type == "f32"
        and node.out.type == "f32"
        and int(producer.options.fused_activation_function) == 0
        and users[value] == 1
        and value not in graph.outputs
    )
