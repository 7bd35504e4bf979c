"""Generated data movement: rows of bytes at two strides, and transposes in vector registers.

Both take byte strides and write nothing but their result; a transpose reads up to 15 bytes past the end of a row.
"""
from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import digest, simd_digest
from litejit.compiler.primitives import Primitive

LANE = 16                             # bytes of the part of a register that interleaving instructions work on
LINE = 64                             # bytes of a row of results that are written together: a line that the cache may not keep


# ---- long runs -----------------------------------------------------------------------------------

class _Primitive(Primitive):
    """A primitive of this file: its source is part of the fingerprint."""

    __slots__ = ()

    def _fingerprint(self) -> str:
        return digest([self.name, simd_digest()])


def _emit_memmove(ir: Any, b: Any, a: Any) -> None:
    name, p = "llvm.memmove.p0.p0.i64", ir.PointerType()
    arguments = [b.inttoptr(a[0], p), b.inttoptr(a[1], p), a[2], ir.IntType(1)(0)]
    function = b.module.globals.get(name) or ir.Function(
        b.module, ir.FunctionType(ir.VoidType(), [x.type for x in arguments]), name)
    b.call(function, arguments)


# (to, source, n). Not memcpy: a reference to it without a version binds to glibc's oldest one, which uses SSE2 on any
# CPU; of memmove there is one version, chosen by CPU.
move_bytes = _Primitive("move_bytes", "void", ("int64", "int64", "int64"), _emit_memmove,
                        lambda to, source, n: ctypes.memmove(int(to), int(source), int(n)))


# ---- rows ----------------------------------------------------------------------------------------

def _twin_rows(y: int, x: int, y_stride: int, x_stride: int, rows: int, run: int) -> None:
    for r in range(int(rows)):
        ctypes.memmove(int(y + r * y_stride), int(x + r * x_stride), int(run))


def _emit_rows(v: Any, y: Any, x: Any, y_stride: Any, x_stride: Any, rows: Any, run: Any) -> None:
    """Runs of t + 1 .. 2t bytes are moves of up to a register from both ends, which may overlap in the middle; very
    long ones are a loop whose last move overlaps."""
    widest = v.cpu.vbytes

    def ends(half: int, to: Any, source: Any) -> None:
        width = min(half, widest)
        ty, last = v.type("i8", width), v.sub(run, half)
        places = [(at, k) for at in (0, last) for k in range(0, half, width)]
        loaded = [v.load(ty, v.at(source, at), k) for at, k in places]
        for (at, k), value in zip(places, loaded):
            v.store(value, v.at(to, at), k)

    def vectors(to: Any, source: Any) -> None:
        ty, last = v.type("i8", widest), v.sub(run, widest)

        def move(i: Any, _: Any) -> None:
            v.store(v.load(ty, source, i), to, i)
        v.loop(last, [], move, step=widest)
        move(last, None)

    def all_rows(one: Any) -> None:
        v.loop(rows, [], lambda r, _: one(v.at(y, v.mul(r, y_stride)), v.at(x, v.mul(r, x_stride))))

    def tier(half: int) -> None:
        if half == 1:
            all_rows(partial(ends, 1))
        else:
            v.either(v.icmp(">", run, half), lambda: all_rows(partial(ends, half)), lambda: tier(half // 2))
    v.either(v.icmp(">", run, 8 * widest), lambda: all_rows(vectors), lambda: tier(4 * widest))


# (y, x, y stride, x stride, rows, run): copies `run` >= 1 bytes of every row
rows = micro_kernel("rows", "ppiiii", _emit_rows, _twin_rows)


# ---- filling -------------------------------------------------------------------------------------

def _twin_fill(y: int, pattern: int, n: int) -> None:
    block = ctypes.string_at(int(pattern), 64) * (int(n) // 64 + 1)
    ctypes.memmove(int(y), block, int(n))


def _emit_fill(v: Any, y: Any, pattern: Any, n: Any) -> None:
    width = v.cpu.vbytes
    value, last = v.load(v.type("i8", width), pattern), v.sub(n, width)
    v.loop(last, [], lambda i, _: v.store(value, y, i), step=width)
    v.store(value, y, last)


# (y, pattern, n): n >= 64 bytes of a pattern whose period, 16 bytes or a power of two below, divides n
fill = micro_kernel("fill", "ppi", _emit_fill, _twin_fill)


# ---- rows with padding between them --------------------------------------------------------------

NARROWEST = 16                        # bytes of the smallest moves of `spaced_rows`


def spaced_reach(run: int, gap: int) -> int:
    """Bytes that `spaced_rows` may write behind the end of a run, on any CPU: more than the gap that it is followed by."""
    width = next((w for w in (NARROWEST, 32) if w >= max(run, gap)), 64)
    return max(-(-run // width) * width - run, -(-max(gap, 1) // width) * width)


def _twin_spaced(y: int, x: int, filler: int, y_stride: int, x_stride: int, rows: int, run: int, gap: int) -> None:
    for r in range(int(rows)):
        ctypes.memmove(int(y + r * y_stride), int(x + r * x_stride), int(run))
        _twin_fill(int(y + r * y_stride + run), filler, gap)


def _emit_spaced(v: Any, y: Any, x: Any, filler: Any, y_stride: Any, x_stride: Any, rows: Any, run: Any, gap: Any) -> None:
    def tier(width: int) -> None:
        ty = v.type("i8", width)
        padding = v.load(ty, filler)

        def short(to: Any, source: Any) -> None:
            v.store(v.load(ty, source), to)
            v.store(padding, v.at(to, run))

        def long(to: Any, source: Any) -> None:
            v.loop(run, [], lambda i, _: v.store(v.load(ty, source, i), to, i), step=width)
            behind = v.at(to, run)
            v.loop(gap, [], lambda i, _: v.store(padding, behind, i), step=width)

        def all_rows(one: Any) -> None:
            v.loop(rows, [], lambda r, _: one(v.at(y, v.mul(r, y_stride)), v.at(x, v.mul(r, x_stride))))
        wider = (lambda: tier(2 * width)) if width < v.cpu.vbytes else (lambda: all_rows(long))
        v.either(v.icmp("<=", v.max(run, gap), width), lambda: all_rows(short), wider)
    tier(NARROWEST)


# (y, x, filler, y stride, x stride, rows, run, gap): copies `run` >= 1 bytes of every row, and `gap` bytes of the filler (64
# bytes, with a period that divides run and gap) behind them. Writes whole registers: up to `spaced_reach` bytes behind a run
spaced_rows = micro_kernel("spaced_rows", "pppiiiii", _emit_spaced, _twin_spaced)


# ---- transposes ----------------------------------------------------------------------------------

def _twin_transpose(size: int) -> Any:
    def twin(y: int, x: int, y_stride: int, x_stride: int, rows: int, columns: int) -> None:
        for r in range(int(rows)):
            for c in range(int(columns)):
                ctypes.memmove(int(y + c * y_stride + r * size), int(x + r * x_stride + c * size), size)
    return twin


def _tile(v: Any, size: int, lanes: int, x: Any, x_stride: Any, wide: bool) -> list[Any]:
    """Columns of k * lanes rows at x, one register per column, k = 16 / size: k columns, or k * lanes if `wide`.

    First every lane of 16 bytes is transposed: interleaving the two halves of k registers log2(k) times does that.
    Register i of a narrow tile is loaded with row l * k + i in lane l. A wide tile loads whole rows, so that each cache
    line is read once, and transposes the lanes of registers afterwards in the same way.
    """
    k = LANE // size
    if not wide:
        ty = v.type(f"i{8 * size}", k)
        registers = []
        for i in range(k):
            parts = [v.load(ty, x, v.mul(x_stride, i + lane * k)) for lane in range(lanes)]
            while len(parts) > 1:
                parts = [v.join(a, b) for a, b in zip(parts[::2], parts[1::2])]
            registers.append(parts[0])
        return _transposed(v, registers, _in_lanes(k, lanes))
    ty = v.type(f"i{8 * size}", k * lanes)
    rows_ = [v.load(ty, x, v.mul(x_stride, i)) for i in range(k * lanes)]
    groups = [_transposed(v, rows_[g * k:(g + 1) * k], _in_lanes(k, lanes)) for g in range(lanes)]
    columns = [_transposed(v, [group[j] for group in groups], _of_lanes(k, lanes)) for j in range(k)]
    return [columns[j][lane] for lane in range(lanes) for j in range(k)]


def _in_lanes(k: int, lanes: int) -> tuple[list[int], list[int]]:
    """Picks that interleave the low, and the high, halves of the lanes of two registers, element by element."""
    low, high = ([lane * k + half + e // 2 + (e % 2) * k * lanes for lane in range(lanes) for e in range(k)]
                 for half in (0, k // 2))
    return low, high


def _of_lanes(k: int, lanes: int) -> tuple[list[int], list[int]]:
    """Picks that interleave the low, and the high, halves of two registers, lane by lane."""
    low, high = ([(half + place // 2 + (place % 2) * lanes) * k + e for place in range(lanes) for e in range(k)]
                 for half in (0, lanes // 2))
    return low, high


def _transposed(v: Any, registers: list[Any], picks: tuple[list[int], list[int]]) -> list[Any]:
    n = len(registers)
    for _ in range(n.bit_length() - 1):
        pairs = list(zip(registers[:n // 2], registers[n // 2:]))
        registers = [v.shuffle(a, b, pick) for a, b in pairs for pick in picks]
    return registers


def _flat_tile(v: Any, size: int, count: int, x: Any, x_stride: Any) -> list[Any]:
    """The columns of `count` rows, fewer than a register has elements, as integers of all rows' bytes."""
    k = LANE // size
    loaded = [v.load(v.type(f"i{8 * size}", k), x, v.mul(x_stride, i)) for i in range(count)]
    wide = [v.b.bitcast(register, v.type(f"i{8 * size * count}", k // count))
            for register in _transposed(v, loaded, _in_lanes(k, 1))]
    return [v.lane(register, j) for register in wide for j in range(k // count)]


def _put(v: Any, columns: Any, y_stride: Any, registers: list[Any], to: Any, j: int = 0) -> None:
    """Store as many of the registers as there are columns; only the first is sure to have one."""
    v.store(registers[j], to, v.mul(y_stride, j))
    if j + 2 < len(registers):
        v.either(v.icmp(">", columns, j + 1), lambda: _put(v, columns, y_stride, registers, to, j + 1))


def _scalars(v: Any, size: int, y: Any, x: Any, y_stride: Any, x_stride: Any, rows: Any, columns: Any) -> None:
    """Element by element."""
    ty = v.type(f"i{8 * size}")

    def row(r: Any, _: Any) -> None:
        source, to = v.at(x, v.mul(r, x_stride)), v.at(y, v.mul(r, size))
        v.loop(columns, [], lambda c, _: v.store(v.load(ty, source, v.mul(c, size)), to, v.mul(c, y_stride)))
    v.loop(rows, [], row)


def _emit_transpose(size: int, v: Any, y: Any, x: Any, y_stride: Any, x_stride: Any, rows: Any, columns: Any) -> None:
    k = LANE // size
    lanes = v.cpu.vbytes // LANE

    put = partial(_put, v, columns, y_stride)

    def tiles(count: int, width: int, r: Any, strips: int, start: Any, end: Any) -> None:
        """Rows r .. r + k * count * strips - 1 of the columns start .. end; the last tile may overlap the one before it."""
        source, to = v.at(x, v.mul(r, x_stride)), v.at(y, v.mul(r, size))

        def tile(c: Any, _: Any) -> None:
            c = v.min(c, v.sub(columns, width))
            at = v.at(to, v.mul(c, y_stride))
            for s in range(strips):
                here = v.at(v.at(source, v.mul(c, size)), v.mul(x_stride, s * k * count))
                for j, register in enumerate(_tile(v, size, count, here, x_stride, width > k)):
                    v.store(register, at, v.add(v.mul(y_stride, j), s * k * count * size))
        v.loop(end, [], tile, step=width, start=start)

    def columns_of(count: int, r: Any, strips: int = 1) -> None:
        def few() -> None:
            for s in range(strips):
                row = v.add(r, s * k * count)
                put(_tile(v, size, count, v.at(x, v.mul(row, x_stride)), x_stride, False), v.at(y, v.mul(row, size)))

        def many() -> None:
            wide = count > 1 and size >= 4
            if wide:
                tiles(count, k * count, r, strips, 0, whole)
            tiles(count, k, r, strips, whole if wide else 0, columns)
        v.either(v.icmp(">=", columns, k), many, few)

    def whole_tiles(width: int) -> Any:
        """Columns that tiles of `width` make: all of them, if a narrow one or two would not do what is left."""
        left = v.b.srem(columns, v.i(width))
        all_of_them = v.b.and_(v.icmp(">", left, 2 * k), v.icmp(">=", columns, width))
        return v.select(all_of_them, columns, v.sub(columns, left))

    def narrow_rows(start: Any) -> None:
        v.loop(rows, [], lambda r, _: columns_of(1, v.min(r, v.sub(rows, k))), step=k, start=start)

    whole = whole_tiles(k * lanes)

    def vectors() -> None:
        start: Any = 0
        for strips in dict.fromkeys((LINE // v.cpu.vbytes, 1)):
            whole = v.sub(rows, v.b.srem(rows, v.i(k * lanes * strips)))
            v.loop(whole, [], lambda r, _, strips=strips: columns_of(lanes, r, strips), step=k * lanes * strips, start=start)
            start = whole
        narrow_rows(start)

    def few_rows(half: int) -> None:
        """Tiles of `half` rows, the last of two overlaps the first, or of half as many where there are not so many."""
        if half == 1:
            _scalars(v, size, y, x, y_stride, x_stride, rows, columns)
        else:
            v.either(v.icmp(">=", rows, half), lambda: v.loop(
                rows, [], lambda r, _: flat_tiles(half, v.min(r, v.sub(rows, half))), step=half), lambda: few_rows(half // 2))

    def flat_tiles(count: int, r: Any) -> None:
        """Rows r .. r + count - 1, count < k, of all columns: registers hold several columns."""
        source, to = v.at(x, v.mul(r, x_stride)), v.at(y, v.mul(r, size))

        def tile(c: Any, _: Any) -> None:
            c = v.min(c, v.sub(columns, k))
            for j, column in enumerate(_flat_tile(v, size, count, v.at(source, v.mul(c, size)), x_stride)):
                v.store(column, to, v.mul(y_stride, v.add(c, j)))
        v.either(v.icmp(">=", columns, k), lambda: v.loop(columns, [], tile, step=k),
                 lambda: put(_flat_tile(v, size, count, source, x_stride), to))
    v.either(v.icmp(">=", rows, k), vectors if lanes > 1 else lambda: narrow_rows(0), lambda: few_rows(k // 2))


# by bytes of an element; (y, x, y stride, x stride, rows, columns) does y[c * y stride + r * size] = x[r * x stride +
# c * size]
TRANSPOSE = {size: micro_kernel(f"transpose_{size}", "ppiiii", partial(_emit_transpose, size), _twin_transpose(size))
             for size in (1, 2, 4, 8)}
