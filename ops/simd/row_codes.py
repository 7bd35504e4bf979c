"""Vectors for rows that are quantised while running (see ops/hybrid.py): the range of a row, and XNNPACK's codes of many.

What is done once per row, after its range is known, is done for AT_ONCE rows in the lanes of a register.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel

UNROLL, AT_ONCE = 4, 4


def _floats(address: int, n: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_float * int(n)).from_address(int(address)))


def _twin_range(x: int, n: int, out: int) -> None:
    _floats(out, 2)[:] = min(0.0, _floats(x, n).min()), max(0.0, _floats(x, n).max())


def emit_range(v: Any, x: Any, n: Any, out: Any) -> None:
    """out[0], out[1] = least and largest of zero and n values."""
    ((low, high),) = _ranges(v, [x], n)
    v.store(v.fneg(v.largest(v.fneg(low))), out)
    v.store(v.largest(high), out, 4)


def _ranges(v: Any, rows: list[Any], n: Any) -> list[tuple[Any, Any]]:
    """For each row of n values registers whose lanes have the least and the largest of zero and all values between them."""
    slots = max(1, UNROLL // len(rows))

    def widen(i: Any, acc: list[Any], load: Callable[[Any, Any], Any], times: int) -> list[Any]:
        acc = list(acc)
        for r, row in enumerate(rows):
            for t in range(times):
                at, value = 2 * (r * slots + t), load(row, v.add(v.shl(i, 2), t * v.cpu.vbytes))
                acc[at], acc[at + 1] = v.fmin(value, acc[at]), v.fmax(value, acc[at + 1])
        return acc

    def whole(row: Any, at: Any) -> Any:
        return v.load(v.f32, row, at)
    acc, done = [v.zero(v.f32)] * (2 * slots * len(rows)), v.i(0)
    for times in dict.fromkeys((slots, 1)):
        end = v.sub(n, v.b.srem(n, v.i(times * v.lanes)))
        acc = list(v.loop(end, acc, lambda i, acc, times=times: widen(i, acc, whole, times), step=times * v.lanes, start=done))
        done = end
    mask = v.mask(v.lanes, v.sub(n, done))
    acc = v.choose(v.icmp(">", n, done), lambda: widen(done, acc, lambda row, at: v.mload(v.f32, row, mask, at), 1),
                   lambda: acc)
    made = []
    for r in range(len(rows)):
        low, high = acc[2 * r * slots:2 * r * slots + 2]
        for t in range(r * slots + 1, (r + 1) * slots):
            low, high = v.fmin(low, acc[2 * t]), v.fmax(high, acc[2 * t + 1])
        made.append((low, high))
    return made


def _across(v: Any, parts: Sequence[Any], least: Callable[[Any, Any], Any]) -> Any:
    """Four lanes, each the least of the lanes of one of four registers."""
    while parts[0].type.count > 4:
        parts = [least(*v.halves(part)) for part in parts]
    pairs = [least(v.shuffle(a, b, (0, 4, 1, 5)), v.shuffle(a, b, (2, 6, 3, 7))) for a, b in (parts[:2], parts[2:])]
    return least(v.shuffle(*pairs, (0, 1, 4, 5)), v.shuffle(*pairs, (2, 3, 6, 7)))


def _parameters(v: Any, low: Any, high: Any) -> tuple[Any, Any]:
    """(factors, zero points as integers) of the ranges of four rows."""
    def c(value: float) -> Any:
        return v.const(low.type, value)
    factor = v.select(v.fcmp("==", low, high), c(1), v.fdiv(c(255), v.fsub(high, low)))
    least, most = v.fmul(low, factor), v.fmul(high, factor)
    by_least = v.fcmp(">", v.fadd(v.fsub(least, c(128)), v.fadd(most, c(127))), c(0))
    zero = v.select(by_least, v.fsub(c(-128), least), v.fsub(c(127), most))
    return factor, v.nearest(v.fmin(v.fmax(zero, c(-128)), c(127)))


def _twin_quantise(x: int, step: int, q: int, pitch: int, terms: int, rows: int, n: int, offset: int, wide: int) -> None:
    f = np.float32
    for r in range(int(rows)):
        values = _floats(x + r * step, n)
        low, high = min(f(0), values.min()), max(f(0), values.max())
        factor = f(1) if low == high else f(255) / (high - low)
        least, most = low * factor, high * factor
        zero = -f(128) - least if (least - f(128)) + (most + f(127)) > 0 else f(127) - most
        zero = np.rint(min(max(zero, -f(128)), f(127)))
        np.ctypeslib.as_array((ctypes.c_int32 * 1).from_address(int(terms + 8 * r)))[0] = int(zero) + int(offset)
        with np.errstate(divide="ignore"):
            _floats(terms + 8 * r + 4, 1)[0] = f(1) / factor
        codes = np.clip(np.rint(np.minimum(values * factor, f(32767))) + zero, -128, 127).astype(np.int64) + int(offset)
        kind, dtype = (ctypes.c_int16, np.int16) if wide else (ctypes.c_uint8, np.uint8)
        np.ctypeslib.as_array((kind * int(n)).from_address(int(q + r * pitch)))[:] = codes.astype(dtype)


def emit_quantise(v: Any, x: Any, step: Any, q: Any, pitch: Any, terms: Any, rows: Any, n: Any, offset: Any, wide: Any) -> None:
    """Rows of n values, `step` bytes apart: terms[r] = (zero point + offset, 1 / factor), q[r][i] = clamp(nearest(min(x[r][i] *
    factor, 32767)) + zero point, -128, 127) + offset, as bytes or (wide) as int16, rows `pitch` bytes apart."""
    moved = v.trunc(offset, "i32")

    def some(count: int) -> Callable[[Any, Any], None]:
        def body(r: Any, _: Any) -> None:
            at, to = ([v.at(p, v.mul(apart, v.add(r, k))) for k in range(count)] for p, apart in ((x, step), (q, pitch)))
            lows, highs = zip(*(_ranges(v, at, n) * AT_ONCE)[:AT_ONCE])
            factor, zero = _parameters(v, _across(v, lows, v.fmin), _across(v, highs, v.fmax))
            inverse = v.bitcast(v.fdiv(v.const(factor.type, 1.0), factor), zero.type)
            both = v.shuffle(v.add(zero, v.splat(moved, 4)), inverse, (0, 4, 1, 5, 2, 6, 3, 7)[:2 * count])
            v.store(both, terms, v.shl(r, 3))
            numbers = [[v.splat(v.lane(one, k)) for k in range(count)] for one in (factor, zero)]
            v.either(v.icmp("!=", wide, 0), lambda: _write_codes(v, at, to, n, numbers, moved, "i16"),
                     lambda: _write_codes(v, at, to, n, numbers, moved, "i8"))
        return body
    fours = v.and_(rows, -AT_ONCE)
    v.loop(fours, [], some(AT_ONCE), step=AT_ONCE)
    v.loop(rows, [], some(1), start=fours)


def _write_codes(v: Any, at: list[Any], to: list[Any], n: Any, numbers: list[list[Any]], offset: Any, scalar: str) -> None:
    """Codes of rows by their factors and zero points, as `scalar`."""
    most, low, high = v.const(v.f32, 32767.0), v.const(v.i32, -128), v.const(v.i32, 127)
    offsets, shift = v.splat(v.trunc(offset, scalar)), int(scalar == "i16")

    def body(i: Any, store: Callable[..., None]) -> None:
        for source, dest, factor, zero in zip(at, to, *numbers):
            code = v.nearest(v.fmin(v.fmul(v.load(v.f32, source, v.shl(i, 2)), factor), most))
            code = v.trunc(v.min(v.max(v.add(code, zero), low), high), scalar)       # one instruction of AVX-512
            store(v.add(code, offsets), dest, v.shl(i, shift))
    v.vectors(n, body, unroll=max(1, 2 // len(at)))


row_range = micro_kernel("row_range", "pip", emit_range, _twin_range)
quantise_xnn = micro_kernel("quantise_rows", "pipipiiii", emit_quantise, _twin_quantise)
