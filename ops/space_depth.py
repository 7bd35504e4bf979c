"""SPACE_TO_DEPTH, DEPTH_TO_SPACE, SPACE_TO_BATCH_ND, BATCH_TO_SPACE_ND: blocks of pixels moved to other dimensions.

Each is a reshape, a transpose and a reshape, that is one strided copy. With paddings, SPACE_TO_BATCH_ND has one step
for every position in a block; with crops, BATCH_TO_SPACE_ND goes through memory of its own.
"""
from __future__ import annotations

from math import prod

import numpy as np

from litejit.ops.base import Operator, Packed, Scratch, Step, Target
from litejit.ops.copy import Move, Movement, apply, copy_steps, plain, strides
from litejit.ops.pad import Border, Line, border_step, filler_of, padded
from litejit.planner.graph import Node, Value

Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]


def _permuted(shape: Shape, order: tuple[int, ...]) -> Move:
    """The dense copy of a tensor of `shape` with its dimensions in another order."""
    xs = strides(shape)
    out = tuple(shape[k] for k in order)
    return Move(out, tuple(xs[k] for k in order), strides(out))


class SpaceToDepth(Movement):
    """Input x [n, h, w, c]; options: block_size."""

    def delegates(self, node: Node) -> bool:
        return node[0].type != "f16"

    def prepare(self, node: Node) -> list[Shape]:
        block = _block(node)
        n, h, w, c = node[0].dims
        node.check(h % block == 0, f"input_height != output_height * block_size ({h} % {block} != 0)")
        node.check(w % block == 0, f"input_width != output_width * block_size ({w} % {block} != 0)")
        return [(n, h // block, w // block, c * block * block)]

    def moves(self, node: Node) -> list[Move]:
        block = _block(node)
        n, h, w, c = node[0].dims
        return [_permuted((n, h // block, block, w // block, block, c), (0, 1, 3, 2, 4, 5))]


class DepthToSpace(Movement):
    """Input x [n, h, w, c]; options: block_size."""

    def delegates(self, node: Node) -> bool:
        return True

    def prepare(self, node: Node) -> list[Shape]:
        block = _block(node)
        n, h, w, c = node[0].dims
        node.check(c % (block * block) == 0,
                   f"input_channels != output_channels * block_size * block_size ({c} % {block * block} != 0)")
        return [(n, h * block, w * block, c // (block * block))]

    def moves(self, node: Node) -> list[Move]:
        block = _block(node)
        n, h, w, c = node[0].dims
        return [_permuted((n, h, w, block, block, c // (block * block)), (0, 1, 3, 2, 4, 5))]


def _block(node: Node) -> int:
    node.arity(1)
    plain(node, node[0], node.out)
    node.same_type(node[0], node.out)
    node.check(node[0].rank == 4, f"NumDimensions(input) != 4 ({node[0].rank} != 4)")
    block = int(getattr(node.options, "block_size", 0))
    node.check(block > 0, f"block_size > 0 was not true: {block}")
    return block


class _Batch(Operator):
    """Inputs x [batch, spatial (1 or 2 dimensions), ...], block shape, and paddings or crops [spatial, 2]."""

    def blocks(self, node: Node) -> tuple[Shape, Pads]:
        """Block shape, and paddings or crops."""
        node.arity(3)
        x, block, edges = node[0], node[1], node[2]
        plain(node, x, node.out)
        node.same_type(x, node.out)
        node.check(3 <= x.rank <= 4, f"NumDimensions(op_context.input) >= kInputMinDimensionNum (3) and <= 4 "
                                     f"was not true: {x!r}")
        spatial = x.rank - 2
        for value, shape in ((block, (spatial,)), (edges, (spatial, 2))):
            node.types(value, "i32", "i64")
            node.check(value.dims == shape, f"{value!r} does not fit {spatial} spatial dimensions")
        sizes = tuple(int(b) for b in node.constant(1))
        pads = tuple((int(a), int(b)) for a, b in node.constant(2))
        node.check(all(b != 0 for b in sizes), "block_shape[dim] != 0 was not true")
        node.check(all(b > 0 for b in sizes), f"block_shape must be positive: {sizes}")
        node.check(all(a >= 0 and b >= 0 for a, b in pads), f"crops[i] >= 0 was not true: {pads}")
        return sizes, pads


class SpaceToBatch(_Batch):
    """Input 2: paddings, filled with the zero point (0 where there is none)."""

    def prepare(self, node: Node) -> list[Shape]:
        blocks, pads = self.blocks(node)
        shape = _bordered(node[0].dims, pads)
        node.check(all(d % b == 0 for d, b in zip(shape[1:], blocks)),
                   f"final_dim_size % block_shape[dim] != 0: {shape[1:-1]}, {blocks}")
        cut = tuple(d // b for d, b in zip(shape[1:], blocks))
        return [(shape[0] * prod(blocks), *cut, *shape[1 + len(blocks):])]

    def _move(self, node: Node) -> Move:
        """From the padded input."""
        blocks, pads = self.blocks(node)
        shape = _bordered(node[0].dims, pads)
        n = len(blocks)
        split = [k for d, b in zip(shape[1:], blocks) for k in (d // b, b)]
        order = (*range(2, 2 * n + 1, 2), 0, *range(1, 2 * n + 1, 2), 2 * n + 1)
        return _permuted((shape[0], *split, shape[-1]), order)

    def fold(self, node: Node) -> list[np.ndarray] | None:
        pads = ((0, 0), *self.blocks(node)[1], (0, 0))
        out = np.zeros(node.out.dims, node.out.dtype)
        apply(self._move(node), np.pad(node.constant(0), pads, constant_values=_zero(node.out)), out)
        return [out]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, size = node[0], node[0].itemsize
        pads = self.blocks(node)[1]
        if not any(map(any, pads)):
            return copy_steps(node, x, node.out, self._move(node), size)
        filler = filler_of(np.array(_zero(node.out), node.out.dtype))
        return [self._at(node, filler, position) for position in range(node.out.dims[0] // x.dims[0])]

    def _at(self, node: Node, filler: Packed, position: int) -> Step:
        """The images of one position inside the blocks: every block-th pixel of the padded input."""
        blocks, pads = self.blocks(node)
        x, y, size = node[0].dims, node.out.dims, node[0].itemsize
        steps = [s * size for s in strides(x)]
        start, borders = 0, [Border(0, x[0], 0, steps[0])]
        for axis, at in enumerate(np.unravel_index(position, blocks), 1):
            block, edge = blocks[axis - 1], pads[axis - 1][0] - int(at)
            first, last = (min(max(-(-k // block), 0), y[axis]) for k in (edge, edge + x[axis]))
            start += (first * block - edge) * steps[axis]
            borders.append(Border(first, last - first, y[axis] - last, block * steps[axis]))
        before, count, after, step = borders.pop()
        pixel = x[-1] * size
        y0 = position * (node.out.nbytes // (node.out.dims[0] // x[0]))
        return border_step(node, node[0], node.out, filler, borders,
                           Line(before * pixel, count, pixel, step, after * pixel), start, y0)


class BatchToSpace(_Batch):
    """Input 2: crops."""

    def prepare(self, node: Node) -> list[Shape]:
        blocks, crops = self.blocks(node)
        batch, *rest = node[0].dims
        total = prod(blocks)
        node.check(batch % total == 0, f"output_batch_size % block_shape[dim] != 0: {batch}, {blocks}")
        cut = [d * b - lo - hi for d, b, (lo, hi) in zip(rest, blocks, crops)]
        node.check(all(d >= 0 for d in cut), f"crops {crops} leave nothing of {node[0]!r}")
        return [(batch // total, *cut, *rest[len(blocks):])]

    def _moves(self, node: Node) -> tuple[Move, Shape, Move]:
        """To the uncropped output, its shape, and from there to the output."""
        blocks, crops = self.blocks(node)
        batch, *rest = node[0].dims
        n, total = len(blocks), prod(blocks)
        order = (n, *(k for i in range(n) for k in (n + 1 + i, i)), 2 * n + 1)
        whole = (batch // total, *(d * b for d, b in zip(rest, blocks)), *rest[n:])
        xs = strides(whole)
        start = sum(lo * s for (lo, _), s in zip(crops, xs[1:]))
        return (_permuted((*blocks, batch // total, *rest), order), whole,
                Move(node.out.dims, xs, strides(node.out.dims), x_offset=start))

    def fold(self, node: Node) -> list[np.ndarray] | None:
        first, whole, second = self._moves(node)
        between, out = np.zeros(whole, node.out.dtype), np.zeros(node.out.dims, node.out.dtype)
        apply(first, node.constant(0), between)
        apply(second, between, out)
        return [out]

    def steps(self, node: Node, target: Target) -> list[Step]:
        first, whole, second = self._moves(node)
        size = node[0].itemsize
        if whole == node.out.dims:
            return copy_steps(node, node[0], node.out, first, size)
        between = Scratch(prod(whole) * size)
        return copy_steps(node, node[0], between, first, size) + copy_steps(node, between, node.out, second, size)


def _bordered(shape: Shape, pads: Pads) -> Shape:
    return padded(shape, ((0, 0), *pads, *((0, 0),) * (len(shape) - 1 - len(pads))))


def _zero(value: Value) -> int:
    return value.zero_point if value.quantised else 0


OPERATORS = {"SPACE_TO_DEPTH": SpaceToDepth(), "DEPTH_TO_SPACE": DepthToSpace(), "SPACE_TO_BATCH_ND": SpaceToBatch(),
             "BATCH_TO_SPACE_ND": BatchToSpace()}
