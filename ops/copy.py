"""Strided block copies: what most operators that only move data are made of.

A `Move` says which elements go where: a block of some shape, with a stride for every dimension on both sides (0
repeats, negative reverses). While planning its dimensions are sorted by output stride and merged; what is left decides
the kernel: rows of contiguous bytes (any type), transposes in registers (a dimension contiguous in the input, another
one in the output), reversed rows, or single elements at any strides. The same Move is computed in NumPy for constants.
"""
from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.ops.copy_kernels import OUTER, REVERSED, STRIDED, TRANSPOSES, copy_many, copy_rows
from litejit.planner.graph import Node, PrepareError, Value

GRAIN = 1 << 16                       # bytes written that are worth a chunk
PIECE = 1 << 16                       # a contiguous run longer than this is cut
TILE = 256                            # bytes of a side of the blocks of a transpose
LINE = 64                             # bytes of a cache line
CONFLICT = 2048                       # output rows this far apart share two sets of the first level cache

Place = Value | Packed | Scratch
Dim = tuple[int, int, int]            # extent, x stride, y stride


class Move(NamedTuple):
    """A block that is copied; strides and offsets count elements."""

    shape: tuple[int, ...]
    x_strides: tuple[int, ...]
    y_strides: tuple[int, ...]
    x_offset: int = 0
    y_offset: int = 0
    source: int = 0                   # input
    target: int = 0                   # output


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in elements of a dense tensor."""
    found, step = [], 1
    for n in reversed(shape):
        found.append(step)
        step *= n
    return tuple(reversed(found))


def whole(shape: tuple[int, ...], source: int = 0, target: int = 0) -> Move:
    """The copy of a whole tensor."""
    return Move(shape, strides(shape), strides(shape), source=source, target=target)


def plain(node: Node, *values: Value) -> None:
    """Refuse values whose elements have no fixed size."""
    for value in values:
        node.check(value.itemsize > 0, f"type {value.type} of {value!r} is not supported by {node.op}")


class Movement(Operator):
    """An operator whose outputs are filled by Moves: `moves(node)` is all that it has to say."""

    def moves(self, node: Node) -> list[Move]:
        """The Moves, which together write every element of every output."""
        raise TypeError(f"{type(self).__name__}.moves is missing")

    def fold(self, node: Node) -> list[np.ndarray] | None:
        results = [np.zeros(v.dims, v.dtype) for v in node.outputs]
        for move in self.moves(node):
            data = node[move.source].data
            if data is None or data.dtype.itemsize == 0:
                return None
            apply(move, data, results[move.target])
        return results

    def steps(self, node: Node, target: Target) -> list[Step]:
        found = []
        for move in self.moves(node):
            x = node[move.source]
            found += copy_steps(node, x, node.outputs[move.target], move, x.itemsize)
        return found


def apply(move: Move, x: np.ndarray, y: np.ndarray) -> None:
    """A Move in NumPy; y is C-contiguous."""
    if 0 in move.shape:
        return
    flat, size = np.ascontiguousarray(x).reshape(-1), x.dtype.itemsize
    view = np.lib.stride_tricks.as_strided
    view(y.reshape(-1)[move.y_offset:], move.shape, [s * size for s in move.y_strides])[...] = view(
        flat[move.x_offset:], move.shape, [s * size for s in move.x_strides])


# ---- planning ------------------------------------------------------------------------------------

def copy_steps(node: Node, x: Place, y: Place, move: Move, size: int) -> list[Step]:
    """The step that does a Move of elements of `size` bytes (none if the block is empty)."""
    if 0 in move.shape:
        return []
    dims = collapse(move, size)
    params: dict[str, Any] = {"x": x, "y": y, "x0": move.x_offset * size, "y0": move.y_offset * size}
    run, outer = 0, dims
    if not dims:
        run = size
    elif dims[-1][1] == dims[-1][2] == size:
        run, outer = dims[-1][0] * size, dims[:-1]
    pair = _transposed(outer, run or size)
    if pair is not None:
        row, column = pair
        return [_transpose(node, params, run or size, row, column, [d for d in outer if d not in pair])]
    if run:
        return [_rows(node, params, run, outer)]
    if dims[-1][2] == size == -dims[-1][1] and size in REVERSED:
        return [_strided(node, REVERSED[size], params, size, dims[-1], dims[:-1])]
    return [_strided(node, STRIDED[size], params, size, *_inner(dims))]


def collapse(move: Move, size: int) -> list[Dim]:
    """The dimensions with byte strides, outermost first in the output, merged where both sides allow."""
    dims = sorted(((n, xs * size, ys * size) for n, xs, ys in zip(move.shape, move.x_strides, move.y_strides) if n > 1),
                  key=lambda d: -abs(d[2]))
    merged: list[Dim] = []
    for n, xs, ys in dims:
        if merged and merged[-1][1] == n * xs and merged[-1][2] == n * ys:
            merged[-1] = (merged[-1][0] * n, xs, ys)
        else:
            merged.append((n, xs, ys))
    return merged


def _inner(dims: list[Dim]) -> tuple[Dim, list[Dim]]:
    """The dimension that the innermost loop takes, and the others: not the last one where that is too short."""
    *outer, last = dims or [(1, 0, 0)]
    if outer and last[0] < 8 < outer[-1][0]:
        return outer[-1], [*outer[:-1], last]
    return last, outer


def _transposed(dims: list[Dim], size: int) -> tuple[Dim, Dim] | None:
    """(dimension contiguous in the output, dimension contiguous in the input), if there are both."""
    if size not in TRANSPOSES:
        return None
    row = next((d for d in dims if d[2] == size and d[1] > 0), None)
    column = next((d for d in dims if d[1] == size and d[2] > 0), None)
    return (row, column) if row is not None and column is not None and row is not column else None


def _outer(dims: list[Dim]) -> dict[str, Any]:
    if len(dims) > OUTER:
        raise PrepareError(f"too many dimensions: {len(dims)} after merging, at most {OUTER} are supported")
    filled = dims + [(1, 0, 0)] * (OUTER - len(dims))
    extents, xs, ys = zip(*filled)
    return {"rank": len(dims), "extents": extents, "xs": xs, "ys": ys}


def _count(dims: list[Dim]) -> int:
    return prod(n for n, _, _ in dims)


def _rows(node: Node, params: dict[str, Any], run: int, dims: list[Dim]) -> Step:
    tail, total = run, _count(dims)
    if run > PIECE and total == 1:
        n, tail = -(-run // PIECE), (run - 1) % PIECE + 1
        dims, run = [(n, PIECE, PIECE)], PIECE
    elif run > PIECE and total < 64:
        parts = next((d for d in range(-(-run // PIECE), 4 * run // PIECE) if run % d == 0), 1)
        run = tail = run // parts
        dims = [*dims, (parts, run, run)]
    (n, xs, ys), outer = _inner(dims)
    units = _count(dims)
    chunks, block = chunked(units, max(1, GRAIN // run))
    params.update(_outer(outer), units=units, block=block, n0=n, xs0=xs, ys0=ys, n1=run, tail=tail)
    return Step(node, copy_rows, params, chunks)


def _blocked(node: Node, kernel_: Any, params: dict[str, Any], size: int, first: Dim, second: Dim, b0: int, b1: int,
             outer: list[Dim], third: Dim = (1, 0, 0)) -> Step:
    """A kernel over blocks of b0 x b1 of its two inner dimensions; a block is done for all of `third` in a row."""
    units = _count([third, *outer]) * -(-first[0] // b0) * -(-second[0] // b1)
    chunks, block = chunked(units, max(1, GRAIN // (b0 * b1 * size)))
    params.update(_outer(outer), units=units, block=block, b0=b0, b1=b1)
    for k, dim in enumerate((first, second, third)):
        params.update(zip((f"n{k}", f"xs{k}", f"ys{k}"), dim))
    return Step(node, kernel_, params, chunks)


def _transpose(node: Node, params: dict[str, Any], size: int, row: Dim, column: Dim, outer: list[Dim]) -> Step:
    side, part = TILE // size, row[0] * size < LINE      # part: another block fills what is left of the cache lines
    if size >= 4 and column[2] % (CONFLICT // 2 if part else CONFLICT) == 0:
        b0, b1 = min(row[0], side * side), LINE // size  # one cache line of every row, and only so many output rows
    else:
        b1 = min(column[0], max(side, side * side // row[0]))
        b0 = row[0] if row[0] * b1 <= side * side else min(row[0], max(side, side * side // b1 // side * side))
    if outer and (part or (b0 >= row[0] and b1 >= column[0])):
        return _blocked(node, TRANSPOSES[size], params, size, row, column, b0, b1, outer[:-1], outer[-1])
    return _blocked(node, TRANSPOSES[size], params, size, row, column, b0, b1, outer)


def _strided(node: Node, kernel_: Any, params: dict[str, Any], size: int, inner: Dim, outer: list[Dim]) -> Step:
    first = outer[-1] if outer else (1, 0, 0)
    b1 = min(inner[0], GRAIN // size)
    b0 = min(first[0], max(1, GRAIN // size // b1))
    return _blocked(node, kernel_, params, size, first, inner, b0, b1, outer[:-1])


class Part(NamedTuple):
    """One side by side copy of `many_steps`: byte offsets and row strides on both sides, bytes per row."""

    x: Place
    y: Place
    x0: int
    y0: int
    xs: int
    ys: int
    run: int


def many_steps(node: Node, parts: list[Part], count: int) -> list[Step]:
    """Copies of `count` rows each that are done together, rows by rows: joining and splitting along an axis."""
    parts = [part for part in parts if part.run and count]
    total = sum(part.run for part in parts) * count
    if count < 16 and total > 4 * GRAIN:
        dims: list[Dim]
        found = []
        for part in parts:
            dims = [(count, part.xs, part.ys)] if count > 1 else []
            found.append(_rows(node, {"x": part.x, "y": part.y, "x0": part.x0, "y0": part.y0}, part.run, dims))
        return found
    found = []
    for at in range(0, len(parts), 8):
        some = parts[at:at + 8]
        width = sum(part.run for part in some)
        chunks, block = chunked(count, max(1, GRAIN // width))
        params: dict[str, Any] = {"rows": count, "block": block, "band": max(1, (1 << 13) // width), "count": len(some)}
        for k, part in zip("abcdefgh", some):
            params["x" + k], params["y" + k] = part.x, part.y
        for name in ("run", "x0", "y0", "xs", "ys"):
            params[name] = tuple(getattr(part, name) for part in some) + (0,) * (8 - len(some))
        found.append(Step(node, copy_many, params, chunks))
    return found
