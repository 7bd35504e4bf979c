"""SLICE and STRIDED_SLICE: a box of the input, at an offset and strides of its own."""
from __future__ import annotations

from typing import NamedTuple

from litejit.ops.base import Piece, Step, Target
from litejit.ops.copy import Move, Movement, collapse, plain, strides
from litejit.planner.graph import Node

Shape = tuple[int, ...]


class Box(Movement):
    """An operator whose output is a box of input 0: one Move."""

    def pieces(self, node: Node) -> list[Piece]:
        (move,), size = self.moves(node), node.out.itemsize
        contiguous = collapse(move, size) in ([], [(node.out.size, size, size)])
        return [Piece(0, node.out, node[0], move.x_offset * size)] if contiguous else []

    def steps(self, node: Node, target: Target) -> list[Step]:
        return [] if node.placed else super().steps(node, target)


class Slice(Box):
    """Inputs x, begin, size (int32 or int64 [rank]; a size of -1 goes to the end)."""

    def delegates(self, node: Node) -> bool:
        return node[1].constant and node[2].constant

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(3)
        x, begin, size = node[0], node[1], node[2]
        plain(node, x, node.out)
        node.same_type(x, node.out)
        node.types(begin, "i32", "i64")
        node.types(size, "i32", "i64")
        for given in (begin, size):
            node.check(given.rank == 1 and given.size == x.rank,
                       f"NumElements(begin) != input_dims ({given.size} != {x.rank}): {given!r} for {x!r}")
        return [tuple(self._extent(node, n, b, s) for n, b, s in zip(x.dims, self._begin(node), node.constant(2)))]

    def _begin(self, node: Node) -> Shape:
        return tuple(int(b) for b in node.constant(1))

    def _extent(self, node: Node, n: int, begin: int, size: int) -> int:
        size = int(size)
        node.check(0 <= begin <= n, f"Invalid begin: {begin} in a dimension of {n}")
        node.check(size >= -1, f"Invalid size: {size}")
        if size == -1:
            return n - begin
        node.check(begin + size <= n, f"Invalid begin and size: {begin} + {size} > {n}")
        return size

    def moves(self, node: Node) -> list[Move]:
        steps = strides(node[0].dims)
        start = sum(b * s for b, s in zip(self._begin(node), steps))
        return [Move(node.out.dims, steps, strides(node.out.dims), x_offset=start)]


class Range(NamedTuple):
    """A dimension of the output: `extent` elements from `start`, `step` apart, in dimension `axis` of the input.

    axis -1: a new dimension; extent -1: a single element, without a dimension in the output.
    """

    axis: int
    start: int
    step: int
    extent: int


class StridedSlice(Box):
    """Inputs x, begin, end, strides (int32 [n]); options: the masks, one bit per entry, and `offset`.

    An entry is, first that holds: an ellipsis, a new axis, a single element (shrink), a range. Bits of begin_mask and
    end_mask open that end. Ranges are clamped as in Python, also for negative strides. offset: end counts from begin.
    """

    def delegates(self, node: Node) -> bool:
        o = node.options
        return (all(node[i].constant for i in (1, 2, 3)) and not o.ellipsis_mask and not o.new_axis_mask
                and not o.shrink_axis_mask and all(int(s) == 1 for s in node.constant(3)))

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(4)
        plain(node, node[0], node.out)
        node.same_type(node[0], node.out)
        for i in (1, 2, 3):
            node.types(node[i], "i32", "i64")
            node.check(node[i].rank == 1 and node[i].size == node[1].size,
                       f"begin, end and strides must be vectors of one length: {node[i]!r}")
        return [tuple(r.extent for r in self._ranges(node) if r.extent >= 0)]

    def _ranges(self, node: Node) -> list[Range]:
        x, o = node[0].dims, node.options
        begin, end, step = ([int(v) for v in node.constant(i)] for i in (1, 2, 3))
        used = [i for i in range(len(begin))
                if not (o.ellipsis_mask | o.new_axis_mask) >> i & 1]
        found: list[Range] = []
        axis = 0
        for i, (b, e, s) in enumerate(zip(begin, end, step)):
            if o.ellipsis_mask >> i & 1:
                left = len(x) - axis - sum(k > i for k in used)
                node.check(left >= 0, f"the slice names more dimensions than {list(x)} has")
                found += [Range(axis + k, 0, 1, x[axis + k]) for k in range(left)]
                axis += left
            elif o.new_axis_mask >> i & 1:
                found.append(Range(-1, 0, 1, 1))
            else:
                node.check(axis < len(x), f"the slice names more dimensions than {list(x)} has")
                found.append(_range(node, i, axis, x[axis], b, e, s))
                axis += 1
        return found + [Range(k, 0, 1, x[k]) for k in range(axis, len(x))]

    def moves(self, node: Node) -> list[Move]:
        steps, start, xs = strides(node[0].dims), 0, []
        for r in self._ranges(node):
            step = 0 if r.axis < 0 else steps[r.axis]
            start += r.start * step
            if r.extent >= 0:
                xs.append(r.step * step)
        return [Move(node.out.dims, tuple(xs), strides(node.out.dims), x_offset=start)]


def _range(node: Node, i: int, axis: int, n: int, begin: int, end: int, step: int) -> Range:
    """The entry i of a strided slice, which takes a dimension of extent n."""
    o = node.options
    if o.shrink_axis_mask >> i & 1:
        at = 0 if o.begin_mask >> i & 1 else begin + n if begin < 0 else begin
        node.check(0 <= at < n, f"index {begin} is out of bounds for dimension {axis} of {list(node[0].dims)}")
        return Range(axis, at, 0, -1)
    node.check(step != 0, "stride value has to be non-zero")
    if o.offset:
        end += begin
    first, stop, stride = slice(None if o.begin_mask >> i & 1 else begin, None if o.end_mask >> i & 1 else end,
                                step).indices(n)
    return Range(axis, first, stride, len(range(first, stop, stride)))


OPERATORS = {"SLICE": Slice(), "STRIDED_SLICE": StridedSlice()}
