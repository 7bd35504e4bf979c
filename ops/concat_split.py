"""CONCATENATION, PACK, SPLIT, SPLIT_V, UNPACK: tensors joined and cut along an axis."""
from __future__ import annotations

from math import prod

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_u8, round_f32, store_u8
from litejit.ops.base import Operator, Piece, Step, Target, chunked, same_value
from litejit.ops.copy import Part, many_steps, plain
from litejit.planner.graph import Node, Value

Shape = tuple[int, ...]

RESCALE = np.dtype([("x", "i8"), ("y", "i8"), ("y0", "i8"), ("rows", "i8"), ("run", "i8"), ("ys", "i8"),
                    ("block", "i8"), ("scale", "f4"), ("bias", "f4"), ("zero", "f4")], align=True)


def _axis(node: Node, given: int, rank: int) -> int:
    axis = given + rank if given < 0 else given
    node.check(0 <= axis < max(rank, 1), f"axis >= 0 && axis < rank was not true: axis {given} of rank {rank}")
    return axis


class Join(Operator):
    """Outputs made of several inputs, row by row."""

    def axis(self, node: Node) -> int:
        """The axis of the output along which the inputs lie."""
        raise TypeError(f"{type(self).__name__}.axis is missing")

    def steps(self, node: Node, target: Target) -> list[Step]:
        axis, size, out = self.axis(node), node.out.itemsize, node.out
        outer, row = prod(out.dims[:axis]), prod(out.dims[axis:])
        parts, found = [], []
        for i, (x, at, run) in enumerate(self._runs(node)):
            if i in node.placed:
                continue
            if _rescaled(x, out):
                found += _rescale_step(node, x, at, outer, run, row)
            else:
                parts.append(Part(x, out, 0, at * size, run * size, row * size, run * size))
        return many_steps(node, parts, outer) + found

    def _runs(self, node: Node) -> list[tuple[Value, int, int]]:
        """(input, where it begins in a row of the output, its share of the row), in elements."""
        outer, at, found = prod(node.out.dims[:self.axis(node)]), 0, []
        for x in _present(node):
            run = x.size // outer if outer else 0
            found.append((x, at, run))
            at += run
        return found

    def pieces(self, node: Node) -> list[Piece]:
        if prod(node.out.dims[:self.axis(node)]) != 1:
            return []
        return [Piece(i, x, node.out, at * x.itemsize) for i, (x, at, _) in enumerate(self._runs(node))
                if not _rescaled(x, node.out)]


class Concatenation(Join):
    """Options: axis (negative ones count from the end); the activation is ignored, as XNNPACK does.

    uint8 inputs may have other quantisation parameters than the output and are rescaled.
    """

    def delegates(self, node: Node) -> bool:
        return 2 <= len(node.inputs) <= 5 and (node.out.type != "u8" or not any(
            _rescaled(x, node.out) for x in _present(node)))

    def axis(self, node: Node) -> int:
        return _axis(node, int(getattr(node.options, "axis", 0)), node[0].rank)

    def prepare(self, node: Node) -> list[Shape]:
        node.check(len(node.inputs) >= 1, "CONCATENATION has no inputs")
        first, axis, total = node[0], self.axis(node), 0
        plain(node, first, node.out)
        for i in range(len(node.inputs)):
            x = node[i]
            node.check(x.type == first.type, f"t->type != input_type: {x!r} beside {first!r}")
            node.check(x.rank == first.rank and all(
                a == b for k, (a, b) in enumerate(zip(x.dims, first.dims)) if k != axis),
                f"t->dims->data[d] != t0->dims->data[d]: {x!r} does not fit {first!r} along axis {axis}")
            if x.type in ("i8", "i16") and x.quantised and node.out.quantised:
                node.check(same_value(x, node.out), f"t->params.scale != output->params.scale: {x!r}, {node.out!r}")
            total += x.dims[axis] if x.rank else 1
        node.same_type(first, node.out)
        return [(*first.dims[:axis], total, *first.dims[axis + 1:])]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        if any(_rescaled(x, node.out) for x in _present(node)):
            return None
        return [np.concatenate([np.atleast_1d(node.constant(i)) for i in range(len(node.inputs))], self.axis(node))]


class Pack(Join):
    """Inputs of one shape; options: axis of the new dimension in the output (negative ones count from the end)."""

    def axis(self, node: Node) -> int:
        return _axis(node, int(getattr(node.options, "axis", 0)), node[0].rank + 1)

    def prepare(self, node: Node) -> list[Shape]:
        node.check(len(node.inputs) >= 1, "PACK has no inputs")
        first, axis = node[0], self.axis(node)
        count = int(getattr(node.options, "values_count", len(node.inputs)))
        node.check(count == len(node.inputs), f"NumInputs(node) != data->values_count ({len(node.inputs)} != {count})")
        plain(node, first, node.out)
        for i in range(len(node.inputs)):
            x = node[i]
            node.check(x.dims == first.dims, f"HaveSameShapes(input0, input) was not true: {first!r}, {x!r}")
            node.check(x.type == first.type, f"input0->type != input->type: {first!r}, {x!r}")
        node.same_type(first, node.out)
        return [(*first.dims[:axis], len(node.inputs), *first.dims[axis:])]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        return [np.stack([node.constant(i) for i in range(len(node.inputs))], self.axis(node))]


def _present(node: Node) -> list[Value]:
    return [node[i] for i in range(len(node.inputs))]


def _rescaled(x: Value, y: Value) -> bool:
    """Whether uint8 codes have another meaning in the output."""
    return x.type == "u8" and x.quantised and y.quantised and not same_value(x, y)


def _rescale_step(node: Node, x: Value, at: int, outer: int, run: int, row: int) -> list[Step]:
    """y = clamp(round(q * scale + bias) + zero): one float32 multiplication and one addition, halves away from zero."""
    if not outer * run:
        return []
    scale = np.float32(x.scale * (np.float32(1) / node.out.scale))
    bias = np.float32(np.float32(-x.zero_point) * scale)
    chunks, block = chunked(outer, max(1, (1 << 15) // run))
    return [Step(node, concat_rescale, {
        "x": x, "y": node.out, "y0": at, "rows": outer, "run": run, "ys": row, "block": block, "scale": scale,
        "bias": bias, "zero": np.float32(node.out.zero_point)}, chunks)]


class Cutting(Operator):
    """Outputs that are ranges of one input along an axis, in order."""

    position = 0                      # of the input that is cut

    def axis(self, node: Node) -> int:
        """The axis of the input that is cut."""
        raise TypeError(f"{type(self).__name__}.axis is missing")

    def widths(self, node: Node) -> list[int]:
        """Extents of the ranges, one per output."""
        raise TypeError(f"{type(self).__name__}.widths is missing")

    def prepare(self, node: Node) -> list[Shape]:
        x, axis = node[self.position], self.axis(node)
        plain(node, x, *node.outputs)
        for y in node.outputs:
            node.same_type(x, y)
        return [(*x.dims[:axis], n, *x.dims[axis + 1:]) for n in self.widths(node)]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        ends = np.cumsum(self.widths(node))[:-1]
        return np.split(node.constant(self.position), ends, self.axis(node))

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, axis = node[self.position], self.axis(node)
        size, outer = x.itemsize, prod(x.dims[:axis])
        row, inner = prod(x.dims[axis:]) * size, prod(x.dims[axis + 1:]) * size
        parts, at = [], 0
        for i, (y, n) in enumerate(zip(node.outputs, self.widths(node))):
            if i not in node.placed:
                parts.append(Part(x, y, at * inner, 0, row, n * inner, n * inner))
            at += n
        return many_steps(node, parts, outer)

    def pieces(self, node: Node) -> list[Piece]:
        x, at, found = node[self.position], 0, []
        if prod(x.dims[:self.axis(node)]) != 1:
            return []
        for i, y in enumerate(node.outputs):
            found.append(Piece(i, y, x, at))
            at += y.nbytes
        return found


class Split(Cutting):
    """Inputs axis (int32 scalar), x; options: num_splits. Equal parts."""

    position = 1

    def delegates(self, node: Node) -> bool:
        return node[0].constant

    def axis(self, node: Node) -> int:
        node.types(node[0], "i32")
        node.check(node[0].size == 1, f"NumElements(axis) != 1 ({node[0].size} != 1)")
        return _axis(node, int(node.constant(0).reshape(-1)[0]), node[1].rank)

    def widths(self, node: Node) -> list[int]:
        node.arity(2, (1, 1 << 31))
        count, n = len(node.outputs), node[1].dims[self.axis(node)]
        wanted = int(getattr(node.options, "num_splits", count))
        node.check(wanted == count, f"NumOutputs(node) != num_splits ({count} != {wanted})")
        node.check(n % count == 0, f"input_size % num_splits != 0 ({n} % {count}): Not an even split")
        return [n // count] * count


class SplitV(Cutting):
    """Inputs x, size_splits (int32 or int64 vector, one may be -1), axis (int32 scalar); options: num_splits."""

    def axis(self, node: Node) -> int:
        node.arity(3, (1, 1 << 31))
        node.types(node[2], "i32")
        node.check(node[2].size == 1, f"NumElements(axis) != 1 ({node[2].size} != 1)")
        return _axis(node, int(node.constant(2).reshape(-1)[0]), node[0].rank)

    def widths(self, node: Node) -> list[int]:
        node.types(node[1], "i32", "i64")
        n, sizes = node[0].dims[self.axis(node)], [int(s) for s in node.constant(1).reshape(-1)]
        node.check(len(sizes) == len(node.outputs),
                   f"NumElements(size_splits) != NumOutputs(node) ({len(sizes)} != {len(node.outputs)})")
        node.check(all(s >= -1 for s in sizes), f"size_splits must not be negative: {sizes}")
        node.check(sizes.count(-1) <= 1, f"The size_splits contains more than one -1: {sizes}")
        known = sum(s for s in sizes if s >= 0)
        if -1 in sizes:
            node.check(known <= n, f"The sum of size_splits must be less than the dimension of value: {sizes}, {n}")
            sizes[sizes.index(-1)] = n - known
        else:
            node.check(known == n, f"The size_splits must sum to the dimension of value along axis: {sizes}, {n}")
        return sizes


class Unpack(Cutting):
    """Input x; options: num, axis (negative ones count from the end). The axis disappears."""

    def axis(self, node: Node) -> int:
        node.check(node[0].rank > 0, "0 <= axis && axis < NumDimensions(input) was not true: the input is a scalar")
        return _axis(node, int(getattr(node.options, "axis", 0)), node[0].rank)

    def widths(self, node: Node) -> list[int]:
        return [1] * len(node.outputs)

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(1, (0, 1 << 31))
        axis, x = self.axis(node), node[0]
        wanted = int(getattr(node.options, "num", len(node.outputs)))
        node.check(wanted == x.dims[axis] == len(node.outputs),
                   f"data->num != input_shape->data[axis] ({wanted} != {x.dims[axis]}), {len(node.outputs)} outputs")
        return [(*shape[:axis], *shape[axis + 1:]) for shape in super().prepare(node)]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        return list(np.moveaxis(node.constant(0), self.axis(node), 0))


OPERATORS = {"CONCATENATION": Concatenation(), "PACK": Pack(), "SPLIT": Split(), "SPLIT_V": SplitV(),
             "UNPACK": Unpack()}


# ---- kernels -------------------------------------------------------------------------------------

F32_0, F32_255 = np.float32(0), np.float32(255)


@kernel(RESCALE)
def concat_rescale(p, begin, end):
    """Rows of uint8 codes with other quantisation parameters."""
    scale, bias, zero = p.scale, p.bias, p.zero
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            x, y = p.x + r * p.run, p.y + p.y0 + r * p.ys
            for i in range(p.run):
                q = round_f32(np.float32(load_u8(x, i)) * scale + bias) + zero
                store_u8(y, i, np.uint8(np.int32(min(max(q, F32_0), F32_255))))
    return 0
