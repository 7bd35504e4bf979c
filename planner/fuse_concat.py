"""Rule "concat", along the last dimension: float32 products write their rows into the wider rows of a CONCATENATION.

Contiguous parts are found while lowering, whoever makes them: planner/pieces.py. Measured on one thread (Zen 4): SqueezeNet
takes 3 % less time, two 1x1 convolutions to 64 channels of 112x112 each 23 % less, Inception's blocks at 28x28 1 % less.
"""

from __future__ import annotations

from litejit.ops.base import Target, Wide
from litejit.planner.graph import Node
from litejit.planner.patterns import Uses

PRODUCERS = ("CONV_2D", "FULLY_CONNECTED")
COLUMNS = 64  # with fewer a function behind the product is slower row by row than the copy is: 15 to 20 % with 8 or 16


def fuse_concats(uses: Uses, target: Target) -> list[str]:
    """Let the makers of private inputs write where their rows belong; the others are copied."""
    notes = []
    for node in uses.graph.nodes:
        if not _fits(node) or not uses.once(node.out):
            continue
        pitch, at, placed = 4 * node.out.dims[-1], 0, {}
        for i in range(len(node.inputs)):
            maker = _maker(uses, node, i, target)
            if maker is not None and uses.once(maker.out):
                maker.wide, placed[i] = Wide(node.out, at, pitch), maker
            at += 4 * node[i].dims[-1]
        node.placed = frozenset(placed)
        into = f"into those of node {node.index} {node.op}"
        notes += [f"rows of node {maker.index} {maker.op} {into}" for maker in placed.values()]
    return notes


def _fits(node: Node) -> bool:
    """Several rows of float32 numbers, made of rows."""
    y = node.out
    if node.op != "CONCATENATION" or y.type != "f32" or y.variable or y.size == 0:
        return False
    return node.operator.axis(node) == y.rank - 1 and y.size > y.dims[-1]


def _maker(uses: Uses, node: Node, i: int, target: Target) -> Node | None:
    """The product that makes input i for nobody else."""
    maker = uses.maker(node[i], *PRODUCERS)
    if maker is None or not uses.private(node[i]) or node[i].size == 0:
        return None
    if maker.tail is not None and maker.out.dims[-1] < COLUMNS:
        return None
    return maker if maker.operator.widens(maker, target) else None
