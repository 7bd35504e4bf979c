"""Generated data movement: rows of bytes at two strides, and transposes in vector registers.

Both take byte strides and write nothing but their result; a transpose reads up to 15 bytes past the end of a row.
"""
from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

from litejit.compiler import micro_kernel

LANE = 16                             # bytes of the part of a register that interleaving instructions work on


# ---- rows ----------------------------------------------------------------------------------------

def _twin_rows(y: int, x: int, y_stride: int, x_stride: int, rows: int, run: int) -> None:
    for r in range(int(rows)):
        ctypes.memmove(int(y + r * y_stride), int(x + r * x_stride), int(run))


def _emit_rows(v: Any, y: Any, x: Any, y_stride: Any, x_stride: Any, rows: Any, run: Any) -> None:
    """Runs of t .. 2t-1 bytes are two moves of t bytes that overlap; longer ones are a loop whose last move overlaps."""
    def vectors(width: int, to: Any, source: Any) -> None:
        ty, last = v.type("i8", width), v.sub(run, width)

        def move(i: Any, _: Any) -> None:
            v.store(v.load(ty, source, i), to, i)
        v.loop(last, [], move, step=width)
        move(last, None)

    def twice(width: int, to: Any, source: Any) -> None:
        ty, last = v.type("i8", width), v.sub(run, width)
        first, second = v.load(ty, source), v.load(ty, source, last)
        v.store(first, to)
        v.store(second, to, last)

    def all_rows(one: Any) -> None:
        v.loop(rows, [], lambda r, _: one(v.at(y, v.mul(r, y_stride)), v.at(x, v.mul(r, x_stride))))

    def tier(width: int) -> None:
        if width == 1:
            all_rows(partial(twice, 1))
        else:
            v.either(v.icmp(">=", run, width), lambda: all_rows(partial(twice, width)), lambda: tier(width // 2))
    widest = v.cpu.vbytes
    v.either(v.icmp(">=", run, 2 * widest), lambda: all_rows(partial(vectors, widest)), lambda: tier(widest))


# (y, x, y stride, x stride, rows, run): copies `run` >= 1 bytes of every row
rows = micro_kernel("rows", "ppiiii", _emit_rows, _twin_rows)


# ---- transposes ----------------------------------------------------------------------------------

def _twin_transpose(size: int) -> Any:
    def twin(y: int, x: int, y_stride: int, x_stride: int, rows: int, columns: int) -> None:
        for r in range(int(rows)):
            for c in range(int(columns)):
                ctypes.memmove(int(y + c * y_stride + r * size), int(x + r * x_stride + c * size), size)
    return twin


def _tile(v: Any, size: int, lanes: int, x: Any, x_stride: Any) -> list[Any]:
    """Columns 0 .. k-1 of k * lanes rows at x, k = 16 / size; one register per column.

    Register i starts with row l * k + i in lane l; interleaving the two halves of the registers log2(k) times
    transposes every lane.
    """
    k = LANE // size
    ty = v.type(f"i{8 * size}", k)
    registers = []
    for i in range(k):
        parts = [v.load(ty, x, v.mul(x_stride, i + lane * k)) for lane in range(lanes)]
        while len(parts) > 1:
            parts = [v.join(a, b) for a, b in zip(parts[::2], parts[1::2])]
        registers.append(parts[0])
    count = k * lanes
    low, high = ([lane * k + half + e // 2 + (e % 2) * count for lane in range(lanes) for e in range(k)]
                 for half in (0, k // 2))
    for _ in range(k.bit_length() - 1):
        pairs = list(zip(registers[:k // 2], registers[k // 2:]))
        registers = [v.shuffle(a, b, order) for a, b in pairs for order in (low, high)]
    return registers


def _emit_transpose(size: int, v: Any, y: Any, x: Any, y_stride: Any, x_stride: Any, rows: Any, columns: Any) -> None:
    k = LANE // size
    wide = v.cpu.vbytes // LANE

    def columns_of(lanes: int, r: Any) -> None:
        """The rows r .. r + k * lanes - 1; the last tile of a row of tiles overlaps the one before it."""
        source, to = v.at(x, v.mul(r, x_stride)), v.at(y, v.mul(r, size))

        def full(c: Any, _: Any) -> None:
            c = v.min(c, v.sub(columns, k))
            at = v.at(to, v.mul(c, y_stride))
            for j, register in enumerate(_tile(v, size, lanes, v.at(source, v.mul(c, size)), x_stride)):
                v.store(register, at, v.mul(y_stride, j))

        def few() -> None:
            registers = _tile(v, size, lanes, source, x_stride)

            def put(j: int) -> None:
                v.store(registers[j], to, v.mul(y_stride, j))
                if j + 2 < k:
                    v.either(v.icmp(">", columns, j + 1), lambda: put(j + 1))
            put(0)
        v.either(v.icmp(">=", columns, k), lambda: v.loop(columns, [], full, step=k), few)

    def narrow(start: Any) -> None:
        v.loop(rows, [], lambda r, _: columns_of(1, v.min(r, v.sub(rows, k))), step=k, start=start)

    def vectors() -> None:
        whole = v.sub(rows, v.b.srem(rows, v.i(k * wide)))
        v.loop(whole, [], lambda r, _: columns_of(wide, r), step=k * wide)
        narrow(whole)

    def scalars() -> None:
        ty = v.type(f"i{8 * size}")

        def row(r: Any, _: Any) -> None:
            source, to = v.at(x, v.mul(r, x_stride)), v.at(y, v.mul(r, size))
            v.loop(columns, [], lambda c, _: v.store(v.load(ty, source, v.mul(c, size)), to, v.mul(c, y_stride)))
        v.loop(rows, [], row)
    v.either(v.icmp(">=", rows, k), vectors if wide > 1 else lambda: narrow(0), scalars)


# by bytes of an element: (y, x, y stride, x stride, rows, columns): y[c * y stride + r * size] = x[r * x stride + c * size]
TRANSPOSE = {size: micro_kernel(f"transpose_{size}", "ppiiii", partial(_emit_transpose, size), _twin_transpose(size))
             for size in (1, 2, 4, 8)}
