"""Micro-kernel of pooling: windows of the same shape in a row of pixels, combined in registers along the channels."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel

SIZE = {"f32": 4, "i8": 1, "u8": 1, "i16": 2}
REGISTERS, MORE = 4, 8               # at once; of long sums, and of windows that have no code of their own where there are 32
UNROLLED = (4, 9)                     # elements of the windows that have code of their own (2x2, 3x3)


def windows(what: str, type: str) -> MicroKernel:
    """windows(x, offsets, taps, pixels, step, y, n, low, high, part, half, nan): for each of the pixels, whose windows
    begin `step` bytes apart, y[i] for i < n of the elements i at `taps` byte offsets; outputs are n elements apart.

    "max": the largest, clamped; a NaN is passed over, but a first one becomes `nan` unless that is a NaN.
    "average" of floats: sum * part, clamped; NaN becomes `nan`. Of codes: (|sum| + half) * part truncated, with the sign
    of the sum, clamped; exact division by 1 / part with halves away from zero, if |sum| + half < 2**22.
    """
    return micro_kernel(f"windows_{what}_{type}", "ppiiipifffff", _emit(what, type))


def _emit(what: str, type: str) -> Callable[..., None]:
    floats, size = type == "f32", SIZE[type]
    widened = what == "average" and not floats

    def emit(v: Any, x: Any, offsets: Any, taps: Any, pixels: Any, step: Any, y: Any, n: Any, low: Any, high: Any,
             part: Any, half: Any, nan: Any) -> None:
        whole = v.lanes if floats or widened else 4 * v.lanes // size
        masks = v.bits == 512
        few = REGISTERS if masks or whole == v.lanes else REGISTERS // 2      # whole registers of codes hold many channels
        widths = (whole,) if masks else tuple(dict.fromkeys((whole, max(whole // 4, 4), 1)))
        finish = {lanes: _finish(v, what, type, lanes, low, high, part, half, nan) for lanes in widths}

        def offset(tap: Any) -> Any:
            return v.load(v.type("i64"), offsets, v.shl(tap, 3))

        def element(at: Any, off: Any, lanes: int) -> Any:
            code = v.load(v.type("f32" if floats else f"i{8 * size}", lanes), at, off)
            return code if not widened else (v.zext if type == "u8" else v.sext)(code, "i32")

        def combine(acc: Any, code: Any) -> Any:
            if what == "average":
                return v.fadd(acc, code) if floats else v.add(acc, code)
            return v.fmax(code, acc) if floats else v.max(acc, code, type != "u8")

        def rows(unrolled: int) -> None:
            """All pixels, with windows of `unrolled` elements or (0) any number of them."""
            known = [offset(v.i(t)) for t in range(unrolled or 1)]
            registers = MORE if not unrolled and (v.cpu.nregs > 16 or what == "average") else few
            full = v.sub(n, v.b.srem(n, v.i(whole * registers)))

            def pixel(k: Any, _: Any) -> None:
                source, to = v.at(x, v.mul(k, step)), v.at(y, v.mul(k, v.mul(n, size)))

                def block(first: Any, count: int, store: Callable[..., None], lanes: int = whole) -> None:
                    place = v.mul(first, size)
                    offs = [k * lanes * size for k in range(count)]

                    def some(off: Any) -> list[Any]:
                        at = v.at(v.at(source, off), place)
                        return [element(at, o, lanes) for o in offs]
                    starts = some(known[0])
                    accs = starts
                    if what == "max" and floats:
                        none = v.const(starts[0].type, float("-inf"))
                        accs = [v.select(v.fcmp("uno", e, e), none, e) for e in starts]
                    for off in known[1:]:
                        accs = [combine(a, e) for a, e in zip(accs, some(off))]
                    if not unrolled:
                        accs = v.loop(taps, accs, lambda t, sums: [
                            combine(a, e) for a, e in zip(sums, some(offset(t)))], start=1)
                    for o, acc, start in zip(offs, accs, starts):
                        store(finish[lanes](acc, start), v.at(to, place), o)
                v.loop(full, [], lambda i, _: block(i, registers, v.store), step=whole * registers)
                if masks:
                    v.loop(n, [], lambda i, _: block(i, 1, lambda value, at, off: v.mstore(
                        value, at, v.mask(whole, v.sub(n, i)), off)), step=whole, start=full)
                else:
                    _cover(v, full, n, widths, lambda i, lanes: block(i, 1, v.store, lanes))
            v.loop(pixels, [], pixel)
        small, large = UNROLLED
        v.either(v.icmp("==", taps, small), lambda: rows(small), lambda: v.either(
            v.icmp("==", taps, large), lambda: rows(large), lambda: rows(0)))
    return emit


def _cover(v: Any, start: Any, n: Any, widths: Sequence[int], body: Callable[[Any, int], None]) -> None:
    """body(first, lanes) over the elements from `start` to n with the widest registers that n fills; the last one goes
    back over elements that are done. Masked stores of bytes are loops where there is no AVX-512, and those of floats slow.
    """
    lanes, *narrower = widths

    def wide() -> None:
        def one(i: Any, _: Any) -> None:
            body(v.min(i, v.sub(n, lanes)), lanes)
        v.loop(n, [], one, step=lanes, start=start)
    if narrower:
        v.either(v.icmp(">=", n, lanes), wide, lambda: _cover(v, start, n, narrower, body))
    else:
        wide()


def _finish(v: Any, what: str, type: str, lanes: int, low: Any, high: Any, part: Any, half: Any,
            nan: Any) -> Callable[[Any, Any], Any]:
    """finish(accumulator, first element) -> the vector to store."""
    if type == "f32":
        lows, highs, nans, parts = (v.splat(x, lanes) for x in (low, high, nan, part))
        if what == "average":
            def average(acc: Any, _: Any) -> Any:
                value = v.clamp(v.fmul(acc, parts), lows, highs)
                return v.select(v.fcmp("uno", value, value), nans, value)
            return average

        def largest(acc: Any, first: Any) -> Any:
            lost = v.and_(v.fcmp("uno", first, first), v.fcmp("==", nans, nans))
            return v.select(lost, nans, v.clamp(acc, lows, highs))
        return largest
    bits, signed = f"i{8 * SIZE[type]}", type != "u8"
    if what == "max":
        lows, highs = (v.splat(v.trunc(v.truncate(x), bits), lanes) for x in (low, high))
        return lambda acc, _: v.min(v.max(acc, lows, signed), highs, signed)
    lows, highs = (v.splat(v.truncate(x), lanes) for x in (low, high))
    halves, parts = v.splat(half, lanes), v.splat(part, lanes)

    def quotient(acc: Any, _: Any) -> Any:
        whole = v.truncate(v.fmul(v.fadd(v.fabs(v.to_float(acc)), halves), parts))
        whole = v.select(v.icmp("<", acc, 0), v.sub(0, whole), whole)
        return v.trunc(v.min(v.max(whole, lows), highs), bits)
    return quotient
