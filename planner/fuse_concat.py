"""Rule "concat", along the last dimension: float32 products write their rows into the wider rows of a CONCATENATION.

Contiguous parts are found while lowering, whoever makes them: planner/pieces.py. A part may be read by pooling operators as
well, as in U-shaped networks; the memory of all parts is taken from the first one on then, which is worth up to SHARED bytes.
Measured on one thread (Zen 4): SqueezeNet takes 3 % less time, two 1x1 convolutions to 64 channels of 112x112 each 23 % less,
Inception's blocks at 28x28 1 % less.
"""

from __future__ import annotations

from litejit.ops.base import Target, Wide
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses

PRODUCERS = ("CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
COLUMNS = 64  # with fewer a function behind the product is slower row by row than the copy is: 15 to 20 % with 8 or 16


SHARED = 1 << 24


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
                for reader in _others(uses, node, i):
                    reader.pixel = pitch
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
    """The product that makes input i for nobody else who could not read its pixels where they are."""
    value, others = node[i], _others(uses, node, i)
    maker = uses.maker(value, *PRODUCERS)
    if maker is None or not uses.private(value, by=1 + len(others)) or value.size == 0:
        return None
    if others and (node.out.nbytes > SHARED or not all(_reads(reader, value, target) for reader in others)):
        return None
    if maker.tail is not None and maker.out.dims[-1] < COLUMNS:
        return None
    return maker if maker.operator.widens(maker, target) else None


def _others(uses: Uses, node: Node, i: int) -> list[Node]:
    """Who else reads input i; the node itself where it joins the same value twice."""
    others = list(uses.users[node[i]])
    others.remove(node)
    return others


def _reads(reader: Node, value: Value, target: Target) -> bool:
    """Whether a node can read a value's pixels in wider ones."""
    once = sum(x is value for x in reader.inputs) == 1 and reader[0] is value
    return once and not reader.pixel and reader.operator.takes_pixels(reader, target)
