"""Micro-kernels of reductions: columns of a matrix added up in registers, and runs of neighbours to one number each.

Both leave their results in scratch memory: float32 of float32, int32 sums and 8-bit extremes of codes. Sums of codes
are exact; sums of float32 go down the rows in their order, and along a run in lanes of four registers which are added
in the end.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel

SIZE = {"f32": 4, "i8": 1, "u8": 1}
RUN_SIZE = {**SIZE, "i16": 2}         # int16: sums only
ROWS = 8                              # rows that are read together
SHORT_SUM = 128                       # rows of bytes whose sum fits 16 bits


def columns(what: str, type: str) -> MicroKernel:
    """columns(x, acc, count, step, n): acc[i] combined with x[r * step bytes + i] for all r < count, i < n.

    Reads of x and acc run past n by less than a vector, and acc is written back there as it was.
    """
    return micro_kernel(f"columns_{what}_{type}", "ppiii", _sum_codes(type) if what == "sum" and type != "f32"
                        else _columns(what, type))


def runs(what: str, type: str) -> MicroKernel:
    """runs(x, out, rows, n): out[r] = x[r * n], ..., x[r * n + n - 1] combined, for all r < rows.

    Sums of codes wrap at 32 bits.
    """
    return micro_kernel(f"runs_{what}_{type}", "ppii", _runs(what, type))


def _kind(v: Any, type: str) -> Any:
    """The full register of elements."""
    return v.f32 if type == "f32" else v.type("i8", 4 * v.lanes)


def _combine(v: Any, what: str, type: str) -> Callable[[Any, Any], Any]:
    """(accumulator, element) -> accumulator; a NaN element is passed over by max and min."""
    if what in ("sum", "prod"):
        return v.fadd if what == "sum" else v.fmul
    if type == "f32":
        return (lambda a, x: v.fmax(x, a)) if what == "max" else (lambda a, x: v.fmin(x, a))
    return lambda a, x: (v.max if what == "max" else v.min)(a, x, signed=type == "i8")


def _blocks(v: Any, n: Any, lanes: int, many: int, body: Callable[[Any, int], None]) -> None:
    """body(first, registers) over n elements: `many` registers at a time, then one at a time, the last one whole."""
    full = v.sub(n, v.b.srem(n, v.i(lanes * many)))

    def some(count: int) -> Callable[[Any, list[Any]], None]:
        return lambda i, _: body(i, count)
    v.loop(full, [], some(many), step=lanes * many)
    v.loop(n, [], some(1), step=lanes, start=full)


def _loader(v: Any, kind: Any, none: Any, left: Any) -> Callable[[Any, Any], Any]:
    """load(address, offset): elements from position `left` on (if that is given) are replaced by neutral ones."""
    if left is None:
        return lambda at, off: v.load(kind, at, off)
    mask = v.mask(kind.count, left)
    return lambda at, off: v.select(mask, v.load(kind, at, off), none)


def _columns(what: str, type: str) -> Callable[..., None]:
    """Some rows at a time over all columns: memory is read in a few long streams."""
    def emit(v: Any, x: Any, acc: Any, count: Any, step: Any, n: Any) -> None:
        kind, combine, vbytes = _kind(v, type), _combine(v, what, type), v.cpu.vbytes
        none = _neutral(v, kind, what, type)

        def pass_over(rows: int) -> Callable[[Any, list[Any]], None]:
            def some_rows(r: Any, _: Any) -> None:
                starts = [v.at(x, v.mul(v.add(r, k), step)) for k in range(rows)]

                def body(first: Any, registers: int) -> None:
                    place = v.mul(first, SIZE[type])
                    to = v.at(acc, place)
                    sums = [v.load(kind, to, k * vbytes) for k in range(registers)]
                    left = v.sub(n, first) if registers == 1 else None
                    load = _loader(v, kind, none, left)
                    for start in starts:
                        at = v.at(start, place)
                        sums = [combine(s, load(at, k * vbytes)) for k, s in enumerate(sums)]
                    for k, s in enumerate(sums):
                        v.store(s, to, k * vbytes)
                _blocks(v, n, kind.count, 4, body)
            return some_rows
        full = v.sub(count, v.b.srem(count, v.i(ROWS)))
        v.loop(full, [], pass_over(ROWS), step=ROWS)
        v.loop(count, [], pass_over(1), start=full)
    return emit


def _sum_codes(type: str) -> Callable[..., None]:
    """Sums of bytes: in 16 bits for as many rows as fit, then in 32."""
    def emit(v: Any, x: Any, acc: Any, count: Any, step: Any, n: Any) -> None:
        lanes = 2 * v.lanes
        bytes_, shorts, widen = v.type("i8", lanes), v.type("i16", lanes), v.sext if type == "i8" else v.zext

        def body(first: Any, registers: int) -> None:
            load = _loader(v, bytes_, v.zero(bytes_), v.sub(n, first) if registers == 1 else None)

            def some_rows(start: Any, _: Any) -> None:
                def row(r: Any, sums: list[Any]) -> list[Any]:
                    at = v.at(x, v.add(v.mul(r, step), first))
                    return [v.add(s, widen(load(at, k * lanes), "i16")) for k, s in enumerate(sums)]
                stop = v.min(v.add(start, SHORT_SUM), count)
                sums = v.loop(stop, [v.zero(shorts)] * registers, row, start=start)
                to = v.at(acc, v.mul(first, 4))
                for k, s in enumerate(sums):
                    for half, part in enumerate(v.halves(s)):
                        off = (2 * k + half) * v.cpu.vbytes
                        v.store(v.add(v.load(v.i32, to, off), v.sext(part, "i32")), to, off)
            v.loop(count, [], some_rows, step=SHORT_SUM)
        _blocks(v, n, lanes, 4, body)
    return emit


def _runs(what: str, type: str) -> Callable[..., None]:
    codes = what == "sum" and type != "f32"

    def emit(v: Any, x: Any, out: Any, rows: Any, n: Any) -> None:
        kind = v.type("i16" if type == "i16" else "i8", 2 * v.lanes) if codes else _kind(v, type)
        lanes, size, combine = kind.count, RUN_SIZE[type], _combine(v, what, type)
        none = _neutral(v, kind, what, type)
        ones = v.bitcast(v.const(v.type("i16", lanes), 1), v.i32) if codes else None
        step, least = v.mul(n, size), v.zero(v.i32) if codes else none

        def add(acc: Any, part: Any) -> Any:
            if not codes:
                return combine(acc, part)
            wide = part if type == "i16" else (v.sext if type == "i8" else v.zext)(part, "i16")
            return v.dot16(acc, v.bitcast(wide, v.i32), ones)

        def row(r: Any, _: Any) -> None:
            at = v.at(x, v.mul(r, step))

            def four(i: Any, sums: list[Any]) -> list[Any]:
                return [add(s, v.load(kind, at, v.mul(v.add(i, k * lanes), size))) for k, s in enumerate(sums)]

            def one(i: Any, sums: list[Any]) -> list[Any]:
                return [add(sums[0], v.load(kind, at, v.mul(i, size)))]
            fours = v.sub(n, v.b.srem(n, v.i(4 * lanes)))
            full = v.sub(n, v.b.srem(n, v.i(lanes)))
            a, b, c, d = v.loop(fours, [least] * 4, four, step=4 * lanes)
            both = v.add if codes else combine
            a, = v.loop(full, [both(both(a, b), both(c, d))], one, step=lanes, start=fours)

            def tail(_: Any, sums: list[Any]) -> list[Any]:
                return [add(sums[0], _loader(v, kind, none, v.sub(n, full))(at, v.mul(full, size)))]
            a, = v.loop(n, [a], tail, step=lanes, start=full)      # once or never
            v.store(_across(v, a, what, type), out, v.mul(r, 4 if codes else size))
        v.loop(rows, [], row)
    return emit


def _neutral(v: Any, kind: Any, what: str, type: str) -> Any:
    """The vector that changes no accumulator."""
    if what in ("sum", "prod"):
        return v.zero(kind) if what == "sum" else v.const(kind, 1.0)
    if type == "f32":
        return v.const(kind, float("-inf") if what == "max" else float("inf"))
    low, high = (-128, 127) if type == "i8" else (0, 255)
    return v.const(kind, low if what == "max" else high)


def _across(v: Any, a: Any, what: str, type: str) -> Any:
    """All lanes combined."""
    if what == "sum":
        return v.sum(a)
    if type == "f32":
        combine = _combine(v, what, type)
        while a.type.count > 1:
            low, high = v.halves(a)
            a = combine(low, high)
        return v.lane(a, 0)
    sign = "s" if type == "i8" else "u"
    return v.call(f"llvm.vector.reduce.{sign}{what}.v{a.type.count}i8", a.type.element, [a])
