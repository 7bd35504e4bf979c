"""Loops of reductions: how a tensor splits into kept and reduced dimensions, and the two orders to walk it.

Adjacent dimensions that share a fate are merged and dimensions of 1 dropped, so what is left alternates. If the last
one is reduced, each output is a run of neighbours (`rows`); if it is kept, outputs are neighbours and whole rows are
added up (`columns`). Tables of offsets stand for all dimensions but the innermost kept and the innermost reduced one.
Each output is reduced by one chunk in one order, whatever the number of threads.
"""
from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Device, Kernel
from litejit.compiler.primitives import copy_bytes, load_i64
from litejit.ops.base import Packed, Scratch, chunked

WIDTH = 256                 # accumulators of a block of columns: they stay in the first cache
NARROW = 32                 # of fewer columns several rows are taken at a time, with FOLD accumulators together
FOLD = 64
ACC_BYTES = 8 * WIDTH
GRAIN = 1 << 16             # elements read by a chunk

LOOP: list[Any] = [(name, "i8") for name in (
    "x", "y", "acc", "neutral", "bases", "rows", "inner", "inner_step", "pieces", "count", "step", "together", "width",
    "total", "block")]


class Geometry(NamedTuple):
    """Merged dimensions as (size, step in elements), outermost first; the innermost of each kind may be (1, 0)."""

    kept: tuple[tuple[int, int], ...]
    reduced: tuple[tuple[int, int], ...]
    columns: bool           # the innermost dimension is kept

    @property
    def outputs(self) -> int:
        return prod(size for size, _ in self.kept)

    @property
    def count(self) -> int:
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
    """(fields of LOOP but for x and y, number of chunks) for a kernel made by `rows`."""
    chunks, block = chunked(shape.outputs, max(1, GRAIN // max(shape.count, 8)))
    (inner, inner_step), (count, step) = shape.kept[-1], shape.reduced[-1]
    offsets = _offsets(shape.reduced)
    return {"bases": _table(_offsets(shape.kept)), "rows": _table(offsets), "inner": inner, "inner_step": inner_step,
            "pieces": len(offsets), "count": count, "step": step, "total": shape.outputs, "block": block}, chunks


def columns_params(shape: Geometry, neutral: float, dtype: str) -> tuple[dict[str, Any], int]:
    """The same for a kernel made by `columns`. neutral: the value (of x's type) that changes no accumulator."""
    inner, (count, step) = shape.kept[-1][0], shape.reduced[-1]
    together = max(1, min(FOLD // max(inner, 1), count)) if inner < NARROW else 1
    width = min(WIDTH, max(inner, 1))
    units = prod(size for size, _ in shape.kept[:-1]) * -(-inner // width)
    chunks, block = chunked(units, max(1, GRAIN // max(shape.count * width, 1)))
    pieces = []                                       # (offset, rows, accumulators) of x, several rows as one
    for offset in _offsets(shape.reduced):
        rounds = count // together
        pieces.append((offset, rounds, width * together))
        if count - rounds * together:
            pieces.append((offset + rounds * together * step, 1, width * (count - rounds * together)))
    fill = Packed(("neutral", dtype, repr(neutral)), lambda: np.full(ACC_BYTES, neutral, dtype))
    return {"acc": Scratch(chunks * ACC_BYTES), "neutral": fill, "bases": _table(_offsets(shape.kept)),
            "rows": _table(*zip(*pieces)), "inner": inner, "pieces": len(pieces), "step": step * together,
            "together": together, "width": width, "total": units, "block": block}, chunks


def rows(name: str, params: np.dtype, load: Any, start: Any, combine: Device, finish: Device, *, unit: bool,
         fastmath: tuple[str, ...] = ()) -> Kernel:
    """A kernel whose units are outputs: acc = combine(p, acc, load(x, i)) over a run, then finish(p, u, acc)
    stores it.

    unit: the innermost reduced dimension has step 1 (else any step: for what is rarely large).
    """
    @kernel(params, name=name, fastmath=fastmath)
    def reduce_rows(p, begin, end):
        x, n, inner = p.x, p.count, p.inner
        step = 1 if unit else p.step
        for c in prange(begin, end):
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                outer = u // inner
                base = load_i64(p.bases, outer) + (u - outer * inner) * p.inner_step
                acc = start
                for k in range(p.pieces):
                    row = base + load_i64(p.rows, k)
                    for i in range(n):
                        acc = combine(p, acc, load(x, row + i * step))
                finish(p, u, acc)
        return 0
    return reduce_rows


def columns(name: str, params: np.dtype, size: int, acc_size: int, load: Any, load_acc: Any, store_acc: Any,
            combine: Device, finish: Device) -> Kernel:
    """A kernel whose units are blocks of neighbouring outputs, accumulated row by row in scratch memory.

    combine(acc, a, b, c, d) takes four elements (of `size` bytes); finish(p, acc, to, n) stores n outputs from position
    `to` of y on. Columns few in number are taken several rows at a time, with accumulators for each; these are
    combined in the end.
    """
    @kernel(params, name=name)
    def reduce_columns(p, begin, end):
        inner, width, none = p.inner, p.width, p.neutral
        step = p.step * size
        blocks = (inner + width - 1) // width
        for c in prange(begin, end):
            acc = p.acc + c * ACC_BYTES
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                outer = u // blocks
                first = (u - outer * blocks) * width
                n = min(width, inner - first)
                base = load_i64(p.bases, outer) + first
                copy_bytes(acc, none, n * p.together * acc_size)
                for k in range(p.pieces):
                    at = p.x + (base + load_i64(p.rows, 3 * k)) * size
                    count = load_i64(p.rows, 3 * k + 1)
                    many = min(load_i64(p.rows, 3 * k + 2), n * p.together)
                    for d in range(0, count, 4):
                        x0 = at + d * step
                        x1 = x0 + step if d + 1 < count else none
                        x2 = x1 + step if d + 2 < count else none
                        x3 = x2 + step if d + 3 < count else none
                        for i in range(many):
                            store_acc(acc, i, combine(load_acc(acc, i), load(x0, i), load(x1, i), load(x2, i),
                                                      load(x3, i)))
                for m in range(n, n * p.together):
                    a = load_acc(acc, m)
                    store_acc(acc, m % n, combine(load_acc(acc, m % n), a, load(none, 0), load(none, 0), load(none, 0)))
                finish(p, acc, outer * inner + first, n)
        return 0
    return reduce_columns
