"""Rule "squeeze_excite": channels scaled in front of a 1x1 convolution scale its weights instead, where those are fewer.

In squeeze-and-excitation a mean and two small convolutions (with their activations as tails) give a factor per channel; the
multiplication of the whole tensor goes away.
"""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses, scalar


def fuse_excitations(uses: Uses, target: Target) -> list[str]:
    """MUL of [1, H, W, C] and [1, 1, 1, C] moves into the weights of the CONV_2D behind it."""
    if target.mode == "ref":
        return []
    from litejit.ops.arithmetic import activation
    from litejit.ops.float_product import Scale

    notes = []
    for node in [node for node in uses.graph.nodes if node.op == "MUL" and node.xnn and activation(node) == "NONE"]:
        operands, conv = _operands(node), uses.user(node.out, "CONV_2D")
        if operands is None or conv is None or not _fits(conv, node.out):
            continue
        (x, by), factor, gone = operands, 1.0, [node]
        inner = uses.maker(by, "MUL") if uses.private(by) else None
        if inner is not None and inner.xnn and activation(inner) == "NONE":       # the factor of a hard sigmoid
            numbers = [scalar(inner[0]), scalar(inner[1])]
            if (numbers[0] is None) != (numbers[1] is None):
                by, factor = (inner[1], numbers[0]) if numbers[1] is None else (inner[0], numbers[1])  # type: ignore
                gone.append(inner)
        conv.inputs, conv.scale = (x, conv[1], conv.optional(2), by), Scale(by, factor)
        uses.replace([*gone, conv], conv)
        notes.append(f"node {node.index} MUL into the weights of node {conv.index} CONV_2D")
    return notes


def _operands(node: Node) -> tuple[Value, Value] | None:
    """(image, factors of its channels)."""
    for x, by in ((node[0], node[1]), (node[1], node[0])):
        if x.type == "f32" and x.rank == by.rank == 4 and x.dims[0] == 1 and by.dims == (1, 1, 1, x.dims[3]) != x.dims:
            return (x, by) if x.data is None and by.data is None else None
    return None


def _fits(conv: Node, x: Value) -> bool:
    """A 1x1 convolution with constant weights that are fewer than what they multiply."""
    from litejit.ops.conv import windows_of

    w, bias = conv[1], conv.optional(2)
    constant = w.data is not None and (bias is None or bias.data is not None)
    return constant and w.type == "f32" and conv[0] is x and windows_of(conv).pointwise and w.size < x.size
