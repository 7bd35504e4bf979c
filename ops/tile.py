"""TILE and BROADCAST_TO: the input repeated, by strides of zero."""
from __future__ import annotations

from litejit.ops.base import broadcast
from litejit.ops.copy import Move, Movement, plain, strides
from litejit.planner.graph import Node

Shape = tuple[int, ...]


class Tile(Movement):
    """Inputs x, multipliers (int32 or int64 [rank])."""

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        plain(node, node[0], node.out)
        node.same_type(node[0], node.out)
        node.types(node[1], "i32", "i64")
        times = self._times(node)
        node.check(len(times) == node[0].rank, f"multipliers {list(times)} do not fit the shape {list(node[0].dims)}")
        node.check(all(t >= 0 for t in times), f"Multipliers must be non-negative: {list(times)}")
        return [tuple(n * t for n, t in zip(node[0].dims, times))]

    def _times(self, node: Node) -> Shape:
        return tuple(int(t) for t in node.constant(1).reshape(-1))

    def moves(self, node: Node) -> list[Move]:
        shape, times = node[0].dims, self._times(node)
        xs, ys = strides(shape), strides(node.out.dims)
        return [Move(tuple(k for n, t in zip(shape, times) for k in (t, n)),
                     tuple(k for s in xs for k in (0, s)),
                     tuple(k for n, s in zip(shape, ys) for k in (n * s, s)))]


class BroadcastTo(Movement):
    """Inputs x, shape (int32 or int64 vector)."""

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        x = node[0]
        plain(node, x, node.out)
        node.same_type(x, node.out)
        node.types(node[1], "i32", "i64")
        node.check(node[1].rank == 1, "NumDimensions(shape) != 1")
        shape = tuple(int(d) for d in node.constant(1))
        node.check(all(d >= 0 for d in shape) and x.rank <= len(shape) and broadcast(x.dims, shape) == shape,
                   f"Output shape must be broadcastable from input shape: {list(x.dims)} to {list(shape)}")
        return [shape]

    def moves(self, node: Node) -> list[Move]:
        shape, x = node.out.dims, node[0].dims
        xs = (0,) * (len(shape) - len(x)) + tuple(0 if n == 1 else s for n, s in zip(x, strides(x)))
        return [Move(shape, xs, strides(shape))]


OPERATORS = {"TILE": Tile(), "BROADCAST_TO": BroadcastTo()}
