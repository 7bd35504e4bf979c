"""Kernels of the block copies that copy.py plans: rows of bytes, transposes, reversed rows, single elements.

Parameters are those of a Move with byte strides: two or three inner dimensions n0, n1, n2, and tables of the outer ones. A unit
of work is a row, or a block of b0 x b1 of the inner dimensions.
"""
from __future__ import annotations

from typing import Any

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
from litejit.ops.simd.moves import TRANSPOSE, move_bytes, rows
from litejit.ops.simd.reversals import REVERSE

OUTER = 14                            # most dimensions outside of the two that a kernel loops over itself
LONG = 2048                           # a row of more bytes is left to memmove

COPY = np.dtype([("x", "i8"), ("y", "i8"), ("x0", "i8"), ("y0", "i8"), ("units", "i8"), ("block", "i8"),
                 ("n0", "i8"), ("xs0", "i8"), ("ys0", "i8"), ("n1", "i8"), ("xs1", "i8"), ("ys1", "i8"),
                 ("n2", "i8"), ("xs2", "i8"), ("ys2", "i8"), ("b0", "i8"), ("b1", "i8"), ("tail", "i8"), ("rank", "i8"),
                 ("extents", "i8", (OUTER,)), ("xs", "i8", (OUTER,)), ("ys", "i8", (OUTER,))], align=True)
MANY = np.dtype([(f"{side}{k}", "i8") for side in "xy" for k in "abcdefgh"] + [
    ("rows", "i8"), ("block", "i8"), ("band", "i8"), ("count", "i8"), ("run", "i8", (8,)),
    ("x0", "i8", (8,)), ("y0", "i8", (8,)), ("xs", "i8", (8,)), ("ys", "i8", (8,))], align=True)


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
            else:
                for i in range(n):
                    store(to + i * y_stride, 0, load(source + i * x_stride, 0))
    return line


def _blocks_kernel(name: str, block: Any) -> Any:
    """The kernel of block(p, y, x, i, n0, j, n1): the elements i .. i + n0, j .. j + n1 of the inner dimensions."""
    @kernel(COPY, name=name)
    def copy_blocks(p, begin, end):
        for c in prange(begin, end):
            for unit in range(c * p.block, min(p.units, (c + 1) * p.block)):
                o, i, n0, j, n1 = corner(p, unit)
                x, y = place(p, o)
                block(p, y, x, i, n0, j, n1)
        return 0
    return copy_blocks


def _strided_kernel(load: Any, store: Any, word: int, words: int) -> Any:
    line = _line(load, store, word, words)

    @device
    def block(p, y, x, first, n0, j, n1):
        for i in range(first, first + n0):
            line(y + i * p.ys0 + j * p.ys1, x + i * p.xs0 + j * p.xs1, p.ys1, p.xs1, n1)
    return _blocks_kernel(f"copy_strided_{word * words}", block)


STRIDED = {word * words: _strided_kernel(load, store, word, words) for load, store, word, words in (
    (load_u8, store_u8, 1, 1), (load_u16, store_u16, 2, 1), (load_u32, store_u32, 4, 1), (load_u64, store_u64, 8, 1),
    (load_u64, store_u64, 8, 2))}


def _reversed_kernel(size: int) -> Any:
    reverse = REVERSE[size]

    @device
    def block(p, y, x, i, n0, j, n1):
        reverse(y + i * p.ys0 + j * size, x + i * p.xs0 - (j + n1 - 1) * size, p.ys0, p.xs0, n0, n1)
    return _blocks_kernel(f"copy_reversed_{size}", block)


REVERSED = {size: _reversed_kernel(size) for size in REVERSE}


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
