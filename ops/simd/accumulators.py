"""Vectors for rows of int32 accumulators that lie in memory: added, and rounded as XNNPACK does."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel


def _array(address: int, n: int, kind: Any) -> np.ndarray:
    return np.ctypeslib.as_array((kind * int(n)).from_address(int(address)))


def _twin_add(acc: int, source: int, n: int) -> None:
    _array(acc, n, ctypes.c_int32)[:] += _array(source, n, ctypes.c_int32)


def emit_add(v: Any, acc: Any, source: Any, n: Any) -> None:
    """acc += source."""
    def body(i: Any, store: Any) -> None:
        at = v.shl(i, 2)
        store(v.add(v.load(v.i32, acc, at), v.load(v.i32, source, at)), acc, at)
    v.vectors(n, body, unroll=2)


def _twin_codes(acc: int, scales: int, y: int, n: int, low: float, high: float, zero: int) -> None:
    x = _array(acc, n, ctypes.c_int32).astype(np.float32) * _array(scales, n, ctypes.c_float)
    _array(y, n, ctypes.c_int8)[:] = (np.rint(np.clip(x, low, high)) + zero).astype(np.int64).astype(np.int8)


def emit_codes(v: Any, acc: Any, scales: Any, y: Any, n: Any, low: Any, high: Any, zero: Any) -> None:
    """y = nearest(clamp(acc * scales, low, high)) + zero, as bytes."""
    least, most, zeros = v.splat(low), v.splat(high), v.splat(v.trunc(zero, "i32"))

    def body(i: Any, store: Any) -> None:
        at = v.shl(i, 2)
        x = v.clamp(v.fmul(v.to_float(v.load(v.i32, acc, at)), v.load(v.f32, scales, at)), least, most)
        store(v.trunc(v.add(v.nearest(x), zeros), "i8"), y, i)
    v.vectors(n, body, unroll=2)


def _twin_floats(acc: int, scales: int, bias: int, y: int, n: int, scale: float, low: float, high: float) -> None:
    x = _array(acc, n, ctypes.c_int32).astype(np.float32) * np.float32(scale)
    made = x.astype(np.float64) * _array(scales, n, ctypes.c_float) + _array(bias, n, ctypes.c_float)
    _array(y, n, ctypes.c_float)[:] = np.clip(made, low, high)


def emit_floats(v: Any, acc: Any, scales: Any, bias: Any, y: Any, n: Any, scale: Any, low: Any, high: Any) -> None:
    """y = clamp(fma(acc * scale, scales, bias), low, high), as float32."""
    factor, least, most = v.splat(scale), v.splat(low), v.splat(high)

    def body(i: Any, store: Any) -> None:
        at = v.shl(i, 2)
        x = v.fmul(v.to_float(v.load(v.i32, acc, at)), factor)
        store(v.clamp(v.fma(x, v.load(v.f32, scales, at), v.load(v.f32, bias, at)), least, most), y, at)
    v.vectors(n, body, unroll=2)


add_accumulators = micro_kernel("add_accumulators", "ppi", emit_add, _twin_add)
code_accumulators = micro_kernel("code_accumulators", "pppiffi", emit_codes, _twin_codes)
scale_accumulators = micro_kernel("scale_accumulators", "ppppifff", emit_floats, _twin_floats)
