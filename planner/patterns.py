"""Looking for patterns in a graph: who makes and who uses a value, and one node in the place of several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from litejit.planner.graph import Graph, Node, Value


class Uses:
    """Makers and users of the values of a graph, kept up to date by `replace`."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.makers: dict[Value, Node] = {}
        self.users: dict[Value, list[Node]] = {}
        self.kept = set(graph.outputs)
        self._written: Counter[Value] = Counter()
        for node in graph.nodes:
            self._add(node)

    def _add(self, node: Node) -> None:
        for value in node.outputs:
            self.makers[value] = node
        for used in node.inputs:
            if used is not None:
                self.users.setdefault(used, []).append(node)

    def maker(self, value: Value | None, *ops: str) -> Node | None:
        """The node that makes a value, if it is one of these operators with one output."""
        node = None if value is None else self.makers.get(value)
        return node if node is not None and node.op in ops and len(node.outputs) == 1 else None

    def private(self, value: Value, by: int = 1) -> bool:
        """Nobody but nodes of the graph reads the value, `by` times in all, and its maker may run where these are.

        Not where the maker reads a variable: what stands between might change it.
        """
        if value in self.kept or value.variable or len(self.users.get(value, ())) != by:
            return False
        maker = self.makers.get(value)
        return maker is None or not any(v is not None and v.variable for v in maker.inputs)

    def once(self, value: Value) -> bool:
        """Whether one node writes the value, and nobody else."""
        if not self._written:
            self._written = Counter(v for node in self.graph.nodes for v in node.outputs) + Counter(self.graph.inputs)
        return self._written[value] == 1

    def user(self, value: Value, *ops: str) -> Node | None:
        """The only user of a private value, if it is one of these operators."""
        if not self.private(value):
            return None
        (node,) = self.users[value]
        return node if node.op in ops and len(node.outputs) == 1 else None

    def replace(self, gone: Sequence[Node], node: Node) -> None:
        """Put a node where the last one of `gone` is, and take those out."""
        old = set(map(id, gone))
        last = max(i for i, n in enumerate(self.graph.nodes) if id(n) in old)
        place = sum(id(n) not in old for n in self.graph.nodes[:last])
        self.drop(gone)
        self.graph.nodes.insert(place, node)
        self._add(node)

    def drop(self, gone: Sequence[Node]) -> None:
        """Take nodes out."""
        old = set(map(id, gone))
        self.graph.nodes = [n for n in self.graph.nodes if id(n) not in old]
        for n in gone:
            for value in n.outputs:
                if self.makers.get(value) is n:
                    del self.makers[value]
            for used in n.inputs:
                if used is not None:
                    self.users[used] = [user for user in self.users.get(used, ()) if id(user) not in old]


def merged(op: str, operator: Any, parts: Sequence[Node], inputs: Sequence[Value | None], **more: Any) -> Node:
    """A node of a fused operator in the place of `parts`, the last of which gives its outputs.

    more: attributes that the fused operator reads off `node.options`.
    """
    last = parts[-1]
    made = Node(op, operator, last.index, last.subgraph, inputs, last.outputs, Options(**more), spec=last.spec)
    made.xnn = all(part.xnn for part in parts)
    made.notes = [f"node {part.index} {part.op}" for part in parts]
    return made


class Options:
    """Options of a fused operator."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)


def scalar(value: Value | None) -> float | None:
    """The number in a constant float32 of one element, or None."""
    if value is None or value.data is None or value.type != "f32" or value.size != 1:
        return None
    return float(np.asarray(value.data).reshape(-1)[0])
