"""Rule "unread": nodes whose outputs nobody reads are left out.

Only what LiteRT gives to XNNPACK, which leaves such nodes out as well: other operators may refuse their input while running, or
keep something from one run to the next.
"""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses


def drop_unread(uses: Uses, target: Target) -> list[str]:
    """Walks backwards from the outputs; what nobody reads reads nothing either."""
    read: set[Value] = set(uses.kept)
    gone = []
    for node in reversed(uses.graph.nodes):
        if _without_effect(node) and read.isdisjoint(node.outputs):
            gone.append(node)
        else:
            read.update(value for value in node.inputs if value is not None)
    uses.drop(gone)
    return [f"node {node.index} {node.op}: nobody reads it" for node in reversed(gone)]


def _without_effect(node: Node) -> bool:
    values = (*node.inputs, *node.outputs)
    return node.xnn and not node.bodies and not any(value is not None and value.variable for value in values)
