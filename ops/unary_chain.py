"""8-bit codes looked up in a table of 256: what planner/fuse_unary_chain.py makes of several operators of one input."""
from __future__ import annotations

from litejit.ops.base import Operator, Packed, Step, Target, chunked
from litejit.ops.tables import GRAIN, lookup
from litejit.planner.graph import Node


class UnaryChain(Operator):
    """Input and output: codes of 8 bits of one shape. Option table: the output by the bits of the input."""

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        table, n = node.options.table, node.out.size
        chunks, block = chunked(n, GRAIN)
        packed = Packed(("table of bytes", table.tobytes()), lambda: table)
        return [Step(node, lookup(1, 1), {"x": node[0], "y": node.out, "table": packed, "n": n, "block": block}, chunks)]


UNARY_CHAIN = UnaryChain()
