"""Loops of reductions: how a tensor splits into kept and reduced dimensions, and the two orders to walk it.

Adjacent dimensions that share a fate are merged and dimensions of 1 dropped, so what is left alternates. If the last
one is reduced, each output is made of runs of neighbours (`runs`); if it is kept, outputs are neighbours and whole rows
are added up (`columns`). Tables of offsets stand for all dimensions but the innermost kept and the innermost reduced
one. Each output is reduced by one chunk in one order, whatever the number of threads.
"""
from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Device, Kernel, MicroKernel
from litejit.compiler.primitives import copy_bytes, load_i64
from litejit.ops import streams
from litejit.ops.base import Packed, Scratch, chunked
from litejit.ops.simd.reductions import ROWS

WIDTH = 1024                # accumulators of a block of columns: they stay in the first cache
NARROW = 256                # of several rows taken as one
BLOCK, REGISTER = 128, 16   # columns that are added up at once, and of those that are left over
ACC_BYTES = 4 * WIDTH + 512  # with room for registers that stand out
SOME = 128                  # neighbours that are reduced at a time where there are no vectors for them
GRAIN = 1 << 16             # elements read by a chunk

LOOP: list[Any] = [(name, "i8") for name in (
    "x", "y", "acc", "acc_bytes", "neutral", "bases", "rows", "inner", "inner_step", "pieces", "count", "step",
    "together", "width", "total", "block")]


class Geometry(NamedTuple):
    """Merged dimensions as (size, step in elements), outermost first; the innermost of each kind may be (1, 0)."""

    kept: tuple[tuple[int, int], ...]
    reduced: tuple[tuple[int, int], ...]
    columns: bool           # the innermost dimension is kept

    @property
    def outputs(self) -> int:
        return prod(size for size, _ in self.kept)

    @property
    def depth(self) -> int:
        """Elements per output."""
        return prod(size for size, _ in self.reduced)


def geometry(shape: Sequence[int], axes: Sequence[int]) -> Geometry:
    """Merge the dimensions of a tensor that is reduced over `axes`."""
    merged: list[list[int]] = []
    for d, size in enumerate(shape):
        if size == 1:
            continue
        fate = int(d in axes)
        if merged and merged[-1][1] == fate:
            merged[-1][0] *= size
        else:
            merged.append([size, fate])
    step = 1
    found: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
    for size, fate in reversed(merged):
        found[fate].insert(0, (size, step))
        step *= size
    kept, reduced = (tuple(dims) or ((1, 0),) for dims in found)
    return Geometry(kept, reduced, bool(merged) and not merged[-1][1])


def _offsets(dims: tuple[tuple[int, int], ...]) -> list[int]:
    """Offsets of all but the innermost of some dimensions, in order."""
    made = [0]
    for size, step in dims[:-1]:
        made = [base + i * step for base in made for i in range(size)]
    return made


def _table(*columns: Sequence[int]) -> Packed:
    numbers = [n for row in zip(*columns) for n in row]
    return Packed(("table", *numbers), lambda: np.array(numbers, np.int64))


def rows_params(shape: Geometry) -> tuple[dict[str, Any], int]:
    """(fields of LOOP but for x and y, number of chunks) for a kernel made by `strided` or `runs`."""
    chunks, block = chunked(shape.outputs, max(1, GRAIN // max(shape.depth, 8)))
    (inner, inner_step), (count, step) = shape.kept[-1], shape.reduced[-1]
    offsets, acc_bytes = _offsets(shape.reduced), max(4 * block + 64, 8 * SOME)
    return {"bases": _table(_offsets(shape.kept)), "rows": _table(offsets), "inner": inner, "inner_step": inner_step,
            "pieces": len(offsets), "count": count, "step": step, "total": shape.outputs, "block": block,
            "acc": Scratch(chunks * acc_bytes), "acc_bytes": acc_bytes}, chunks


def _rows_together(inner: int) -> int:
    """How many rows of so many columns are best taken as one."""
    def cost(rows: int) -> float:
        blocks, left = divmod(rows * inner, BLOCK)
        return (blocks + -(-left // REGISTER)) / (rows * inner)
    return min(range(1, NARROW // inner + 1), key=cost) if 0 < inner < BLOCK else 1


def columns_params(shape: Geometry, neutral: float, dtype: str) -> tuple[dict[str, Any], int]:
    """The same for a kernel made by `columns`. neutral: the value (of x's type) that changes no accumulator."""
    inner, (count, step) = shape.kept[-1][0], shape.reduced[-1]
    together = max(1, min(_rows_together(inner), count // ROWS))
    width = min(WIDTH, max(inner, 1))
    units = prod(size for size, _ in shape.kept[:-1]) * -(-inner // width)
    chunks, block = chunked(units, max(1, GRAIN // max(shape.depth * width, 1)))
    pieces = []                                       # (offset, rows, accumulators) of x, several rows as one
    for offset in _offsets(shape.reduced):
        rounds = count // together
        pieces.append((offset, rounds, width * together))
        if count - rounds * together:
            pieces.append((offset + rounds * together * step, 1, width * (count - rounds * together)))
    fill = Packed(("neutral", dtype, repr(neutral)), lambda: np.full(ACC_BYTES, neutral, dtype))
    return {"acc": Scratch(chunks * ACC_BYTES), "acc_bytes": ACC_BYTES, "neutral": fill,
            "bases": _table(_offsets(shape.kept)),
            "rows": _table(*zip(*pieces)), "inner": inner, "pieces": len(pieces), "step": step * together,
            "together": together, "width": width, "total": units, "block": block}, chunks


def strided(name: str, params: np.dtype, load: Any, acc_type: str, start: Any, combine: Device, finish: Device) -> Kernel:
    """A kernel whose units are outputs: acc = combine(p, acc, load(x, i)) over elements any step apart, then
    finish(p, u, acc) stores it. For types that are rarely reduced in bulk. Outputs that are neighbours are reduced some at a
    time, in accumulators of `acc_type`."""
    past, keep = streams.LOAD[acc_type], streams.STORE[acc_type]

    @device
    def side_by_side(p, acc, base, first, many):
        x, n, step = p.x, p.count, p.step
        for j in range(many):
            keep(acc, j, start)
        for k in range(p.pieces):
            row = base + load_i64(p.rows, k)
            for i in range(n):
                for j in range(many):
                    keep(acc, j, combine(p, past(acc, j), load(x, row + i * step + j)))
        for j in range(many):
            finish(p, first + j, past(acc, j))

    @kernel(params, name=name)
    def reduce_strided(p, begin, end):
        x, n, step, inner = p.x, p.count, p.step, p.inner
        for c in prange(begin, end):
            u, stop = c * p.block, min(p.total, (c + 1) * p.block)
            while u < stop:
                outer = u // inner
                column = u - outer * inner
                base = load_i64(p.bases, outer) + column * p.inner_step
                many = min(inner - column, stop - u)
                if p.inner_step == 1 and many > 1:
                    many = min(many, SOME)
                    side_by_side(p, p.acc + c * p.acc_bytes, base, u, many)
                else:
                    for j in range(many):
                        acc = start
                        for k in range(p.pieces):
                            row = base + load_i64(p.rows, k)
                            for i in range(n):
                                acc = combine(p, acc, load(x, row + i * step))
                        finish(p, u + j, acc)
                        base += p.inner_step
                u += many
        return 0
    return reduce_strided


def runs(name: str, params: np.dtype, size: int, acc_size: int, run: MicroKernel, load_acc: Any, store_acc: Any,
         start: Any, combine: Device, finish: Device) -> Kernel:
    """A kernel whose units are outputs, each of runs of neighbours; finish(p, acc, to, n) stores n outputs."""
    @kernel(params, name=name)
    def reduce_runs(p, begin, end):
        n, inner = p.count, p.inner
        for c in prange(begin, end):
            first = c * p.block
            many = min(p.block, p.total - first)
            acc = p.acc + c * p.acc_bytes
            if p.pieces == 1 and p.inner_step == n and inner == p.total:
                run(p.x + first * n * size, acc, many, n)
            else:
                part = acc + p.block * acc_size
                for u in range(many):
                    outer = (first + u) // inner
                    base = load_i64(p.bases, outer) + (first + u - outer * inner) * p.inner_step
                    total = start
                    for k in range(p.pieces):
                        run(p.x + (base + load_i64(p.rows, k)) * size, part, 1, n)
                        total = combine(total, load_acc(part, 0))
                    store_acc(acc, u, total)
            finish(p, acc, first, many)
        return 0
    return reduce_runs


def columns(name: str, params: np.dtype, size: int, acc_size: int, add_rows: MicroKernel, load_acc: Any, store_acc: Any,
            combine: Device, finish: Device) -> Kernel:
    """A kernel whose units are blocks of neighbouring outputs, rows of which are added up; `finish` as above.

    Columns few in number are taken several rows at a time, with accumulators for each, which are combined in the end.
    """
    @kernel(params, name=name)
    def reduce_columns(p, begin, end):
        inner, width = p.inner, p.width
        blocks = (inner + width - 1) // width
        for c in prange(begin, end):
            acc = p.acc + c * p.acc_bytes
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                outer = u // blocks
                first = (u - outer * blocks) * width
                n = min(width, inner - first)
                base = load_i64(p.bases, outer) + first
                copy_bytes(acc, p.neutral, n * p.together * acc_size)
                for k in range(p.pieces):
                    at = p.x + (base + load_i64(p.rows, 3 * k)) * size
                    add_rows(at, acc, load_i64(p.rows, 3 * k + 1), p.step * size,
                             min(load_i64(p.rows, 3 * k + 2), n * p.together))
                to = 0
                for m in range(n, n * p.together):
                    store_acc(acc, to, combine(load_acc(acc, to), load_acc(acc, m)))
                    to = to + 1 if to + 1 < n else 0
                finish(p, acc, outer * inner + first, n)
        return 0
    return reduce_columns
