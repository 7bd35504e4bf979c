"""Vectors for rows that are quantised while running: the range of a row, and its codes (see ops/hybrid.py)."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel

UNROLL = 4


def _floats(address: int, n: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_float * int(n)).from_address(int(address)))


def _twin_range(x: int, n: int, out: int) -> None:
    _floats(out, 2)[:] = min(0.0, _floats(x, n).min()), max(0.0, _floats(x, n).max())


def emit_range(v: Any, x: Any, n: Any, out: Any) -> None:
    """out[0], out[1] = least and largest of zero and n values."""
    def widen(at: Any, value: Any, acc: list[Any], slot: int) -> None:
        acc[2 * slot], acc[2 * slot + 1] = v.fmin(value, acc[2 * slot]), v.fmax(value, acc[2 * slot + 1])

    def rounds(times: int) -> Any:
        def body(i: Any, acc: list[Any]) -> list[Any]:
            acc = list(acc)
            for t in range(times):
                widen(i, v.load(v.f32, x, v.add(v.shl(i, 2), t * v.cpu.vbytes)), acc, t)
            return acc
        return body
    step = UNROLL * v.lanes
    whole, full = v.sub(n, v.b.srem(n, v.i(step))), v.sub(n, v.b.srem(n, v.i(v.lanes)))
    acc = list(v.loop(whole, [v.zero(v.f32)] * (2 * UNROLL), rounds(UNROLL), step=step))
    acc = list(v.loop(full, acc, rounds(1), step=v.lanes, start=whole))
    widen(full, v.mload(v.f32, x, v.mask(v.lanes, v.sub(n, full)), v.shl(full, 2)), acc, 1)
    low, high = acc[0], acc[1]
    for t in range(1, UNROLL):
        low, high = v.fmin(low, acc[2 * t]), v.fmax(high, acc[2 * t + 1])
    v.store(v.fneg(v.largest(v.fneg(low))), out)
    v.store(v.largest(high), out, 4)


def _twin_codes(x: int, q: int, n: int, scale: float, zero: int, offset: int, wide: int) -> None:
    values = np.rint(np.minimum(_floats(x, n) * np.float32(scale), np.float32(32767))) + zero
    codes = (np.clip(values, -128, 127) + offset).astype(np.int64)
    kind, dtype = (ctypes.c_int16, np.int16) if wide else (ctypes.c_uint8, np.uint8)
    np.ctypeslib.as_array((kind * int(n)).from_address(int(q)))[:] = codes.astype(dtype)


def emit_codes(v: Any, x: Any, q: Any, n: Any, scale: Any, zero: Any, offset: Any, wide: Any) -> None:
    """q[i] = clamp(nearest(min(x[i] * scale, 32767)) + zero, -128, 127) + offset, as bytes or (wide) as int16."""
    factor, most = v.splat(scale), v.const(v.f32, 32767.0)
    zeros, offsets = v.splat(v.trunc(zero, "i32")), v.splat(v.trunc(offset, "i32"))
    low, high = v.const(v.i32, -128), v.const(v.i32, 127)

    def made(i: Any) -> Any:
        code = v.nearest(v.fmin(v.fmul(v.load(v.f32, x, v.shl(i, 2)), factor), most))
        return v.add(v.min(v.max(v.add(code, zeros), low), high), offsets)
    v.either(v.icmp("!=", wide, 0),
             lambda: v.vectors(n, lambda i, store: store(v.trunc(made(i), "i16"), q, v.shl(i, 1))),
             lambda: v.vectors(n, lambda i, store: store(v.trunc(made(i), "i8"), q, i), unroll=2))


row_range = micro_kernel("row_range", "pip", emit_range, _twin_range)
row_codes = micro_kernel("row_codes", "ppifiii", emit_codes, _twin_codes)
