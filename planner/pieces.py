"""Rule "concat": what is joined is written where it belongs, what is cut is read where it lies.

An input of CONCATENATION or PACK that is one contiguous range of the output gets its memory there, whoever makes it; an
output of SPLIT, SPLIT_V, UNPACK, SLICE or STRIDED_SLICE that is one contiguous range of the input is that memory. Such parts
begin anywhere: kernels rely on the alignment of elements, not on that of buffers, and write nothing behind their output.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from litejit.planner.graph import Graph, Node, Value

if TYPE_CHECKING:
    from litejit.ops.base import Piece
    from litejit.planner.lower import Program


class Pieces:
    """Places parts of the tensors of one graph while it is lowered."""

    def __init__(self, program: Program, graph: Graph) -> None:
        self.program = program
        self.on = not program.target.preserve and "concat" not in program.target.without
        self.makers = Counter(value for node in graph.nodes for value in node.outputs)
        self.kept = set(graph.outputs)

    def place(self, node: Node) -> None:
        """Give parts of the node's tensors their memory; `node.placed` says which of them need no copy."""
        if node.wide is not None:
            self.program.alias[node.out], self.program.shift[node.out] = node.wide.whole, node.wide.at
        if not self.on or node.bodies or node.placed:
            return
        pieces = node.operator.pieces(node)
        node.placed = frozenset(piece.position for piece in pieces if piece.part.nbytes and self._placed(node, piece))
        if node.placed:
            kind = "outputs {} are parts of the input" if pieces[0].part in node.outputs else "inputs {} are written in place"
            where = "" if node.subgraph == self.program.graph.index else f"subgraph {node.subgraph}, "
            which = kind.format(", ".join(map(str, sorted(node.placed))))
            self.program.notes.append(f"{where}node {node.index} {node.op}: {which}")

    def _placed(self, node: Node, piece: Piece) -> bool:
        if piece.part in node.outputs:
            return self._own(piece.part) and self._readable(piece.whole) and self._share(piece.part, piece)
        root = self.program.root(piece.part)
        free = self._own(root) and root.nbytes == piece.part.nbytes and root is not piece.whole
        return free and self.makers[piece.part] == 1 and self._own(piece.whole, last=True) and self._share(root, piece)

    def _own(self, value: Value, last: bool = False) -> bool:
        """Whether the memory of a value is free to be anywhere: one node of this graph writes it, nobody outside sees it.

        last: the node at hand writes it, so that outputs of the graph may be meant as well.
        """
        outside = value.variable or value.data is not None or value in self.program.outside
        return not outside and value not in self.program.alias and self.makers[value] == 1 and (last or value not in self.kept)

    def _readable(self, whole: Value) -> bool:
        """Whether the memory of a value stays as it is until nobody needs it any more."""
        root = self.program.root(whole)
        written = self.makers[root] + (root in self.program.outside)
        return root.data is None and not root.variable and written <= 1

    def _share(self, value: Value, piece: Piece) -> bool:
        self.program.alias[value], self.program.shift[value] = piece.whole, piece.at
        return True
