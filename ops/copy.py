"""Strided block copies: what most operators that only move data are made of.

A `Move` says which elements go where: a block of some shape, with a stride for every dimension on both sides (0
repeats, negative reverses). While planning its dimensions are sorted by output stride and merged; what is left decides
the kernel: rows of contiguous bytes (any type), transposes in registers (a dimension contiguous in the input, another
one in the output), or single elements at any strides. The same Move is computed in NumPy for constants.
"""
from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import (
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
)
from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.ops.simd.moves import TRANSPOSE, move_bytes, rows
from litejit.planner.graph import Node, PrepareError, Value

OUTER = 14                            # most dimensions outside of the two that a kernel loops over itself
GRAIN = 1 << 16                       # bytes written that are worth a chunk
PIECE = 1 << 16                       # a contiguous run longer than this is cut
TILE = 256                            # bytes of a side of the blocks of a transpose
LINE = 64                             # bytes of a cache line
CONFLICT = 2048                       # output rows this far apart share two sets of the first level cache
LONG = 2048                           # a row of more bytes is left to memmove

COPY = np.dtype([("x", "i8"), ("y", "i8"), ("x0", "i8"), ("y0", "i8"), ("units", "i8"), ("block", "i8"),
                 ("n0", "i8"), ("xs0", "i8"), ("ys0", "i8"), ("n1", "i8"), ("xs1", "i8"), ("ys1", "i8"),
                 ("n2", "i8"), ("xs2", "i8"), ("ys2", "i8"), ("b0", "i8"), ("b1", "i8"), ("tail", "i8"), ("rank", "i8"),
                 ("extents", "i8", (OUTER,)), ("xs", "i8", (OUTER,)), ("ys", "i8", (OUTER,))], align=True)
MANY = np.dtype([(f"{side}{k}", "i8") for side in "xy" for k in "abcdefgh"] + [
    ("rows", "i8"), ("block", "i8"), ("band", "i8"), ("count", "i8"), ("run", "i8", (8,)),
    ("x0", "i8", (8,)), ("y0", "i8", (8,)), ("xs", "i8", (8,)), ("ys", "i8", (8,))], align=True)

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
    return [_strided(node, params, size, *_inner(dims))]


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
    if size not in TRANSPOSE:
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
        b0 = min(row[0], max(side, side * side // b1 // side * side))
    if outer and (part or (b0 >= row[0] and b1 >= column[0])):
        return _blocked(node, TRANSPOSES[size], params, size, row, column, b0, b1, outer[:-1], outer[-1])
    return _blocked(node, TRANSPOSES[size], params, size, row, column, b0, b1, outer)


def _strided(node: Node, params: dict[str, Any], size: int, inner: Dim, outer: list[Dim]) -> Step:
    first = outer[-1] if outer else (1, 0, 0)
    b1 = min(inner[0], GRAIN // size)
    b0 = min(first[0], max(1, GRAIN // size // b1))
    return _blocked(node, STRIDED[size], params, size, first, inner, b0, b1, outer[:-1])


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


# ---- kernels -------------------------------------------------------------------------------------

@device
def place(p, o):
    """Addresses of the o-th block of the outer dimensions."""
    x, y = p.x + p.x0, p.y + p.y0
    for k in range(p.rank - 1, 0, -1):
        rest = o // p.extents[k]
        i = o - rest * p.extents[k]
        x += i * p.xs[k]
        y += i * p.ys[k]
        o = rest
    return x + o * p.xs[0], y + o * p.ys[0]


@device
def put_rows(y, x, y_stride, x_stride, count, run):
    """`count` rows of `run` bytes."""
    if run > LONG:
        for k in range(count):
            move_bytes(y + k * y_stride, x + k * x_stride, run)
    else:
        rows(y, x, y_stride, x_stride, count, run)


@kernel(COPY)
def copy_rows(p, begin, end):
    """Rows of n1 contiguous bytes; the very last one may be shorter (tail)."""
    for c in prange(begin, end):
        r = c * p.block
        stop = min(p.units, r + p.block)
        while r < stop:
            o = r // p.n0
            i = r - o * p.n0
            count = min(p.n0 - i, stop - r)
            x, y = place(p, o)
            short = 1 if r + count == p.units and p.tail != p.n1 else 0
            put_rows(y + i * p.ys0, x + i * p.xs0, p.ys0, p.xs0, count - short, p.n1)
            if short:
                last = i + count - 1
                move_bytes(y + last * p.ys0, x + last * p.xs0, p.tail)
            r += count
    return 0


@device
def corner(p, unit):
    """(outer index, first and last + 1 of both inner dimensions) of a block."""
    g0, g1 = (p.n0 + p.b0 - 1) // p.b0, (p.n1 + p.b1 - 1) // p.b1
    o = unit // (g0 * g1)
    unit -= o * (g0 * g1)
    i = unit // g1 * p.b0
    j = (unit - unit // g1 * g1) * p.b1
    return o, i, min(p.b0, p.n0 - i), j, min(p.b1, p.n1 - j)


def _transpose_kernel(size: int) -> Any:
    move = TRANSPOSE[size]

    @kernel(COPY, name=f"copy_transpose_{size}")
    def copy_transpose(p, begin, end):
        for c in prange(begin, end):
            unit, stop = c * p.block, min(p.units, (c + 1) * p.block)
            while unit < stop:
                first = unit // p.n2
                k = unit - first * p.n2
                o, i, n0, j, n1 = corner(p, first)
                x, y = place(p, o)
                x, y = x + i * p.xs0 + j * size, y + i * size + j * p.ys1
                last = min(p.n2, k + stop - unit)
                for q in range(k, last):
                    move(y + q * p.ys2, x + q * p.xs2, p.ys1, p.xs0, n0, n1)
                unit += last - k
        return 0
    return copy_transpose


TRANSPOSES = {size: _transpose_kernel(size) for size in TRANSPOSE}


def _line(load: Any, store: Any, word: int, words: int) -> Any:
    """n elements of `words` words at byte strides."""
    @device
    def line(y, x, y_stride, x_stride, n):
        for k in range(words):
            to, source = y + k * word, x + k * word
            if x_stride == 0:
                value = load(source, 0)
                if y_stride == word:
                    for i in range(n):
                        store(to, i, value)
                else:
                    for i in range(n):
                        store(to + i * y_stride, 0, value)
            elif x_stride == -word and y_stride == word:
                for i in range(n):
                    store(to, i, load(source, -i))
            else:
                for i in range(n):
                    store(to + i * y_stride, 0, load(source + i * x_stride, 0))
    return line


def _strided_kernel(load: Any, store: Any, word: int, words: int) -> Any:
    line = _line(load, store, word, words)

    @kernel(COPY, name=f"copy_strided_{word * words}")
    def copy_strided(p, begin, end):
        for c in prange(begin, end):
            for unit in range(c * p.block, min(p.units, (c + 1) * p.block)):
                o, first, n0, j, n1 = corner(p, unit)
                x, y = place(p, o)
                for i in range(first, first + n0):
                    line(y + i * p.ys0 + j * p.ys1, x + i * p.xs0 + j * p.xs1, p.ys1, p.xs1, n1)
        return 0
    return copy_strided


STRIDED = {word * words: _strided_kernel(load, store, word, words) for load, store, word, words in (
    (load_u8, store_u8, 1, 1), (load_u16, store_u16, 2, 1), (load_u32, store_u32, 4, 1), (load_u64, store_u64, 8, 1),
    (load_u64, store_u64, 8, 2))}


@kernel(MANY)
def copy_many(p, begin, end):
    """Several copies of rows, band by band of rows, so that what they share stays in the cache."""
    xs = (p.xa, p.xb, p.xc, p.xd, p.xe, p.xf, p.xg, p.xh)
    ys = (p.ya, p.yb, p.yc, p.yd, p.ye, p.yf, p.yg, p.yh)
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block), p.band):
            n = min(p.band, min(p.rows, (c + 1) * p.block) - r)
            for k in range(p.count):
                put_rows(ys[k] + p.y0[k] + r * p.ys[k], xs[k] + p.x0[k] + r * p.xs[k], p.ys[k], p.xs[k], n, p.run[k])
    return 0
