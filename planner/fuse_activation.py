"""Rule "activation": an activation that stands alone behind a float operator with a fused one moves into it."""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node
from litejit.planner.patterns import Uses
from litejit.schema.enums import ActivationFunctionType

PRODUCERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "SUB", "MUL")
ACTIVATIONS = {name: ActivationFunctionType[name] for name in ("RELU", "RELU_N1_TO_1", "RELU6")}


class Fused:
    """Options of a node with another fused activation."""

    __slots__ = ("_options", "fused_activation_function")

    def __init__(self, options: object, activation: ActivationFunctionType) -> None:
        self._options, self.fused_activation_function = options, activation

    def __getattr__(self, name: str) -> object:
        return getattr(self._options, name)


def fuse_activations(uses: Uses, target: Target) -> list[str]:
    """Move lone activations into their producers."""
    notes = []
    for node in list(uses.graph.nodes):
        producer = uses.maker(node.optional(0), *PRODUCERS) if node.op in ACTIVATIONS else None
        if producer is not None and _fits(producer, node, uses):
            producer.options = Fused(producer.options, ACTIVATIONS[node.op])
            producer.outputs = node.outputs
            uses.replace([producer, node], producer)
            notes.append(f"node {node.index} {node.op} into node {producer.index} {producer.op}")
    return notes


def _fits(producer: Node, node: Node, uses: Uses) -> bool:
    return (
        producer.options is not None
        and producer.xnn
        and node[0].type == "f32"
        and node.out.type == "f32"
        and int(producer.options.fused_activation_function) == 0
        and uses.private(node[0])
    )
