"""TRANSPOSE and REVERSE_V2: the input's elements at permuted or negative strides."""
from __future__ import annotations

from litejit.ops.copy import Move, Movement, plain, strides
from litejit.planner.graph import Node

Shape = tuple[int, ...]


class Transpose(Movement):
    """Inputs x, perm (int32 [rank], a permutation; negative axes count from the end)."""

    def delegates(self, node: Node) -> bool:
        return node[1].constant

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        plain(node, node[0], node.out)
        node.same_type(node[0], node.out)
        node.types(node[1], "i32", "i64")
        return [tuple(node[0].dims[a] for a in self._axes(node))]

    def _axes(self, node: Node) -> Shape:
        rank = node[0].rank
        given = [int(a) for a in node.constant(1).reshape(-1)]
        axes = tuple(a + rank if a < 0 else a for a in given)
        node.check(len(axes) == rank and sorted(axes) == list(range(rank)),
                   f"Transpose op permutations array is out of bounds or no permutation: {given}, rank {rank}")
        return axes

    def moves(self, node: Node) -> list[Move]:
        steps = strides(node[0].dims)
        return [Move(node.out.dims, tuple(steps[a] for a in self._axes(node)), strides(node.out.dims))]


class Reverse(Movement):
    """Inputs x, axes (int32 [n], n >= 1). LiteRT wants the axes to be neighbours; any set of axes works here."""

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        plain(node, node[0], node.out)
        node.same_type(node[0], node.out)
        node.types(node[1], "i32", "i64")
        self._axes(node)
        return [node[0].dims]

    def _axes(self, node: Node) -> frozenset[int]:
        rank = node[0].rank
        given = [int(a) for a in node.constant(1).reshape(-1)]
        axes = [a + rank if a < 0 else a for a in given]
        node.check(all(0 <= a < rank for a in axes),
                   f"axes[i] >= 0 && axes[i] < rank was not true: {given}, rank {rank}")
        node.check(len(set(axes)) == len(axes), f"axes {given} name a dimension twice")
        return frozenset(axes)

    def moves(self, node: Node) -> list[Move]:
        shape, axes = node[0].dims, self._axes(node)
        steps = strides(shape)
        start = sum((shape[a] - 1) * steps[a] for a in axes)
        return [Move(shape, tuple(-s if a in axes else s for a, s in enumerate(steps)), steps, x_offset=start)]


OPERATORS = {"TRANSPOSE": Transpose(), "REVERSE_V2": Reverse()}
