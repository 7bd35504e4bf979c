"""PAD, PADV2, MIRROR_PAD: a border around the input.

PAD copies runs of the input, and fills with a block of 64 bytes that holds the padding value, so that one kernel serves
every type. MIRROR_PAD is the input copied into place, then one reversed copy per side, dimension by dimension.
"""
from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.ops.copy import GRAIN, PIECE, Move, Place, apply, copy_steps, plain, strides
from litejit.ops.copy_kernels import LONG, put_rows
from litejit.ops.simd.moves import fill, spaced_reach, spaced_rows
from litejit.planner.graph import Node, Value

Shape = tuple[int, ...]
Pads = tuple[tuple[int, int], ...]

MOST = 8                              # padded dimensions outside of the innermost one, after merging
FILLER = 64                           # bytes of the block of padding values

PAD = np.dtype([("x", "i8"), ("y", "i8"), ("filler", "i8"), ("x0", "i8"), ("y0", "i8"), ("units", "i8"),
                ("block", "i8"), ("rank", "i8"), ("left", "i8"), ("right", "i8"), ("pieces", "i8"), ("piece", "i8"),
                ("step", "i8"), ("exact", "i8"), ("extents", "i8", (MOST,)), ("before", "i8", (MOST,)),
                ("inside", "i8", (MOST,)), ("xs", "i8", (MOST,))], align=True)


class Border(NamedTuple):
    """A dimension outside of the innermost one: extents of padding, input, padding; byte stride in the input."""

    before: int
    inside: int
    after: int
    stride: int


class Line(NamedTuple):
    """The innermost dimension in bytes: padding, `pieces` of `piece` bytes, `step` apart in the input, padding."""

    left: int
    pieces: int
    piece: int
    step: int
    right: int


def paddings(node: Node) -> Pads:
    """The contents of input 1, [rank, 2]."""
    given = node[1]
    node.types(given, "i32", "i64", "i16", "i8")
    node.check(given.rank == 2 and given.dims[1] == 2, f"SizeOfDimension(paddings, 1) != 2: {given!r}")
    node.check(given.dims[0] == node[0].rank,
               f"SizeOfDimension(op_context.paddings, 0) != op_context.dims ({given.dims[0]} != {node[0].rank})")
    return tuple((int(a), int(b)) for a, b in node.constant(1))


def padded(shape: Shape, pads: Pads) -> Shape:
    return tuple(n + a + b for n, (a, b) in zip(shape, pads))


class Pad(Operator):
    """Inputs x, paddings [rank, 2], and for PADV2 the value (a scalar; PAD: the zero point, 0 if there is none)."""

    def delegates(self, node: Node) -> bool:
        return len(node.inputs) == 2 and node[1].constant

    def prepare(self, node: Node) -> list[Shape]:
        node.arity((2, 3))
        plain(node, node[0], node.out)
        node.same_type(node[0], node.out)
        value = node.optional(2)
        if value is not None:
            node.same_type(node[0], value)
            node.check(value.size == 1, f"NumElements(constant_values) != 1 ({value.size} != 1)")
        pads = paddings(node)
        node.check(all(a >= 0 and b >= 0 for a, b in pads), f"Pad value has to be greater than equal to 0: {pads}")
        return [padded(node[0].dims, pads)]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        x, value = node.constant(0), node.optional(2)
        out = np.full(node.out.dims, _zero(node.out) if value is None else node.constant(2).reshape(-1)[0], x.dtype)
        out[tuple(slice(a, a + n) for n, (a, _) in zip(x.shape, paddings(node)))] = x
        return [out]

    def steps(self, node: Node, target: Target) -> list[Step]:
        value, size = node.optional(2), node.out.itemsize
        if value is not None and value.data is None:
            block = Scratch(FILLER)
            first = copy_steps(node, value, block, Move((FILLER // size,), (0,), (1,)), size)
            return first + pad_steps(node, node[0], node.out, paddings(node), block)
        item = np.array(_zero(node.out), node.out.dtype) if value is None else node.constant(2).reshape(())
        return pad_steps(node, node[0], node.out, paddings(node), filler_of(item))


def _zero(value: Value) -> int:
    return value.zero_point if value.quantised else 0


def filler_of(item: np.ndarray) -> Packed:
    """A block of one padding value."""
    return Packed(("filler", item.dtype.str, item.tobytes()), lambda: np.full(FILLER // item.dtype.itemsize, item))


def pad_steps(node: Node, x: Place, y: Place, pads: Pads, filler: Place) -> list[Step]:
    """y = input 0 (at x) with borders."""
    shape, size = node[0].dims, node[0].itemsize
    if 0 in padded(shape, pads):
        return []
    *outer, (left, run, right) = _merged(shape, pads, size)
    steps = strides(tuple(n for _, n, _ in outer))
    borders = [Border(*d, s * run) for d, s in zip(outer, steps)]
    return [border_step(node, x, y, filler, borders, Line(left, 1, run, 0, right))]


def border_step(node: Node, x: Place, y: Place, filler: Place, borders: list[Border], line: Line, x0: int = 0,
                y0: int = 0) -> Step:
    """A dense block of lines at byte y0 of y, taken from byte x0 of x where all borders and the line are inside."""
    if len(borders) > MOST:
        node.fail(f"at most {MOST + 1} padded dimensions are supported, here are {len(borders) + 1}")
    borders = borders or [Border(0, 1, 0, 0)]
    rest = (1,) * (MOST - len(borders))
    before, inside, after, steps = zip(*borders)
    extents = tuple(map(sum, zip(before, inside, after)))
    units = prod(extents)
    chunks, block = chunked(units, max(1, GRAIN // (line.left + line.pieces * line.piece + line.right)))
    return Step(node, pad_lines, {
        "x": x, "y": y, "filler": filler, "x0": x0, "y0": y0, "units": units, "block": block, "rank": len(borders),
        **line._asdict(), "exact": _exact(line), "extents": extents + rest, "before": before + rest, "inside": inside + rest,
        "xs": steps + rest}, chunks)


def _exact(line: Line) -> int:
    """How many of the last lines of a run must not be written in whole registers; -1: none may be."""
    run, gap = line.piece, line.left + line.right
    return -1 if line.pieces != 1 or not 0 < run <= LONG else -(-spaced_reach(run, gap) // (run + gap))


def _merged(shape: Shape, pads: Pads, size: int) -> list[tuple[int, int, int]]:
    """(before, inside, after) by dimension, the innermost one in bytes; what is not padded joins its outside."""
    dims = [(0, size, 0)]
    for n, (a, b) in zip(reversed(shape), reversed(pads)):
        before, width, after = dims[0]
        if before == after == 0 and (len(dims) > 1 or (a + n + b) * width <= PIECE):
            dims[0] = (a * width, n * width, b * width)
        elif n != 1 or a or b:
            dims.insert(0, (a, n, b))
    return dims


class MirrorPad(Operator):
    """Inputs x, paddings [rank, 2]; options: mode REFLECT (the border itself is not repeated) or SYMMETRIC."""

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        plain(node, node[0], node.out)
        node.same_type(node[0], node.out)
        pads, least = paddings(node), self._edge(node)
        most = (max(n - least, 0) for n in node[0].dims)
        node.check(all(0 <= a <= n and 0 <= b <= n for n, (a, b) in zip(most, pads)),
                   f"MirrorPad paddings must be no greater than the input dimension (REFLECT: less): {pads} of "
                   f"{list(node[0].dims)}")
        return [padded(node[0].dims, pads)]

    def _edge(self, node: Node) -> int:
        mode = getattr(node.options, "mode", None)
        return 1 if mode is None or mode.name == "REFLECT" else 0

    def _moves(self, node: Node) -> list[Move]:
        """The first from input 0 to output 0; the others inside output 0, in this order."""
        shape, pads, skip = node[0].dims, paddings(node), self._edge(node)
        out = padded(shape, pads)
        ys = strides(out)
        start = sum(a * s for (a, _), s in zip(pads, ys))
        moves = [Move(shape, strides(shape), ys, y_offset=start)]
        box = list(shape)             # what is filled so far, from `start`
        for axis, (a, b) in enumerate(pads):
            mirrored = tuple(-s if k == axis else s for k, s in enumerate(ys))
            step, n = ys[axis], shape[axis]
            for count, nearest, to in ((a, skip + a - 1, -a), (b, n - 1 - skip, n)):
                block = tuple(count if k == axis else d for k, d in enumerate(box))
                moves.append(Move(block, mirrored, ys, start + nearest * step, start + to * step))
            box[axis] = out[axis]
            start -= a * step
        return [m for m in moves if 0 not in m.shape]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        out = np.zeros(node.out.dims, node.out.dtype)
        for i, move in enumerate(self._moves(node)):
            apply(move, out if i else node.constant(0), out)
        return [out]

    def steps(self, node: Node, target: Target) -> list[Step]:
        return [step for i, move in enumerate(self._moves(node))
                for step in copy_steps(node, node.out if i else node[0], node.out, move, node.out.itemsize)]


OPERATORS = {"PAD": Pad(), "PADV2": Pad(), "MIRROR_PAD": MirrorPad()}


# ---- kernels -------------------------------------------------------------------------------------

@device
def put_filler(y, filler, n):
    """n bytes of padding."""
    if n >= FILLER:
        fill(y, filler, n)
    elif n > 0:
        put_rows(y, filler, 0, 0, 1, n)


@device
def put_lines(p, y, x, x_stride, count, behind):
    """What is inside of `count` >= 1 lines, with padding: between them, and `behind` bytes. In whole registers where others of
    these lines come behind."""
    middle, gap = p.pieces * p.piece, p.left + p.right
    width, quick = middle + gap, 0
    if p.exact >= 0 and count > p.exact:
        quick = count - p.exact
        spaced_rows(y, x, p.filler, width, x_stride, quick, middle, gap)
    for k in range(quick, count):
        to = y + k * width
        put_rows(to, x + k * x_stride, p.piece, p.step, p.pieces, p.piece)
        put_filler(to + middle, p.filler, gap if k + 1 < count else behind)


@kernel(PAD)
def pad_lines(p, begin, end):
    """Lines of the output, run by run along the last of the outer dimensions: padding, what is inside, padding."""
    last, middle = p.rank - 1, p.pieces * p.piece
    width = p.left + middle + p.right
    for c in prange(begin, end):
        r, stop = c * p.block, min(p.units, (c + 1) * p.block)
        while r < stop:
            o = r // p.extents[last]
            i = r - o * p.extents[last]
            count = min(p.extents[last] - i, stop - r)
            first, after = max(p.before[last], i), min(p.before[last] + p.inside[last], i + count)
            x, y, outside = p.x + p.x0 + (first - p.before[last]) * p.xs[last], p.y + p.y0 + r * width, middle == 0
            for k in range(last - 1, -1, -1):
                rest = o // p.extents[k]
                at = o - rest * p.extents[k] - p.before[k]
                outside = outside or at < 0 or at >= p.inside[k]
                x += at * p.xs[k]
                o = rest
            lines = 0 if outside else max(0, after - first)
            before = (first - i) * width + p.left if lines > 0 else count * width
            put_filler(y, p.filler, before)
            if lines > 0:
                inside = lines * width - p.left - p.right
                put_lines(p, y + before, x, p.xs[last], lines, count * width - before - inside)
            r += count
    return 0
