"""Micro-kernels of resized images: pixels that are copied, or mixed of two, in whole registers.

A register that reaches beyond a pixel writes what the next pixels overwrite: only the last pixels of what a caller may write
must be made in another way. Tables, made while planning, say where the pixels lie.
"""
from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel

STEP = 16                             # most elements that `MIX` makes at a time
NARROWEST = 16                        # bytes of the smallest moves of `picked_pixels`
WEIGHT_BITS = 11                      # of XNNPACK's weights


def picked_reach(run: int) -> int:
    """Bytes that `picked_pixels` may write behind the end of a pixel of `run` bytes, on any CPU."""
    width = next((w for w in (NARROWEST, 32) if w >= run), 64)
    return -(-run // width) * width - run


def _array(address: int, dtype: Any, n: int) -> np.ndarray:
    size = n * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(int(address)), dtype)


def _twin_picked(y: int, x: int, table: int, count: int, run: int) -> None:
    for i, at in enumerate(_array(table, np.int32, int(count))):
        ctypes.memmove(int(y + i * run), int(x + int(at) * run), int(run))


def _emit_picked(v: Any, y: Any, x: Any, table: Any, count: Any, run: Any) -> None:
    def pixels(width: int, one: Any) -> None:
        def body(i: Any, _: Any) -> None:
            at = v.mul(v.sext(v.load(v.type("i32"), table, v.shl(i, 2)), "i64"), run)
            one(v.type("i8", width), v.at(y, v.mul(i, run)), v.at(x, at))
        v.loop(count, [], body)

    def short(ty: Any, to: Any, source: Any) -> None:
        v.store(v.load(ty, source), to)

    def long(ty: Any, to: Any, source: Any) -> None:
        v.loop(run, [], lambda i, _: v.store(v.load(ty, source, i), to, i), step=ty.count)

    def tier(width: int) -> None:
        wider = (lambda: tier(2 * width)) if width < v.cpu.vbytes else (lambda: pixels(width, long))
        v.either(v.icmp("<=", run, width), lambda: pixels(width, short), wider)
    tier(NARROWEST)


# (y, x, table, count, run): pixels of `run` bytes; pixel i is that of x whose number is table[i] (int32)
picked_pixels = micro_kernel("picked_pixels", "pppii", _emit_picked, _twin_picked)


def _twin_mix(kind: str, y: int, mixed: int, table: int, count: int, channels: int) -> None:
    middle = np.float32 if kind == "f32" else np.int32
    places = _array(table, np.int32, 3 * int(count)).reshape(-1, 3)
    pixels = _array(mixed, middle, (places[:, :2].max(initial=-1) + 1) * int(channels)).reshape(-1, int(channels))
    a, b, t = pixels[places[:, 0]], pixels[places[:, 1]], np.ascontiguousarray(places[:, 2:]).view(middle)
    if kind == "f32":
        made = a + (b - a) * t
    else:
        made = (((a << WEIGHT_BITS) + (b - a) * t + (1 << (2 * WEIGHT_BITS - 1))) >> (2 * WEIGHT_BITS)).astype(np.uint8)
    ctypes.memmove(int(y), np.ascontiguousarray(made).tobytes(), made.nbytes)


def _emit_mix(kind: str, v: Any, y: Any, mixed: Any, table: Any, count: Any, channels: Any) -> None:
    size, ty = (4, v.f32) if kind == "f32" else (1, v.i32)

    def mix(a: Any, b: Any, t: Any) -> Any:
        if kind == "f32":
            return v.fadd(a, v.fmul(v.fsub(b, a), t))
        sums = v.add(v.shl(a, WEIGHT_BITS), v.mul(v.sub(b, a), t))
        return v.trunc(v.ashr(v.add(sums, 1 << (2 * WEIGHT_BITS - 1)), 2 * WEIGHT_BITS), "i8")

    def pixel(i: Any, _: Any) -> None:
        entry, to = v.at(table, v.mul(i, 12)), v.at(y, v.mul(i, v.mul(channels, size)))
        first, second = (v.at(mixed, v.shl(v.mul(v.sext(v.load(v.type("i32"), entry, off), "i64"), channels), 2))
                         for off in (0, 4))
        weight = v.fsplat(entry, 8) if kind == "f32" else v.isplat(entry, 8)

        def elements(k: Any, _: Any) -> None:
            at = v.shl(k, 2)
            v.store(mix(v.load(ty, first, at), v.load(ty, second, at), weight), to, v.mul(k, size))
        v.loop(channels, [], elements, step=v.lanes)
    v.loop(count, [], pixel)


# (y, mixed, table, count, channels): pixels of float32, or of codes with XNNPACK's rounding, from pixels of float32 or int32 in
# `mixed`; table: int32 triples as in ops/resize.py: two pixels of `mixed`, the weight of the second
MIX = {kind: micro_kernel(f"mix_pixels_{kind}", "pppii", partial(_emit_mix, kind), partial(_twin_mix, kind))
       for kind in ("f32", "codes")}
