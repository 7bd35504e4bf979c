"""Generated picking of channels: every pixel's 32-bit channels in another order, some of them several times, by shuffles.

A register of output is made of the registers of input that hold its channels: each is loaded, shuffled, and kept where a mask
says so. Where they begin, the shuffles and the masks are a table, the same for all pixels.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu, target
from litejit.ops.simd.repeats import BYTES, LANES

ARGUMENTS = "pppiiiii"                # y, x, table, pixels, registers of a pixel, `spans`, bytes from pixel to pixel of x and y


def pick_table(cpu: Cpu, channels: np.ndarray) -> np.ndarray:
    """uint8 [registers, spans, 3, bytes of a register]: where a register of input begins (bytes, i64), what is picked of it,
    what is kept of that. channels: number of each channel of the output."""
    lanes = cpu.lanes
    wanted = np.resize(channels, -(-len(channels) // lanes) * lanes).reshape(-1, lanes)
    firsts = [_firsts(row, lanes) for row in wanted]
    table = np.zeros((len(wanted), max(map(len, firsts)), 3, cpu.vbytes), np.uint8)
    for row, begins, spans in zip(wanted, firsts, table):
        for first, span in zip(begins, spans):
            lane = row - first
            inside = (lane >= 0) & (lane < lanes)
            pick = np.where(inside, lane, 0).astype(np.int32)
            if _by_bytes(cpu):
                pick = (4 * pick[:, None] + np.arange(4)).astype(np.uint8)
            span[0].view(np.int64)[0] = 4 * first
            span[1], span[2] = pick.view(np.uint8).reshape(-1), np.where(inside, np.int32(-1), np.int32(0)).view(np.uint8)
    return table


def _by_bytes(cpu: Cpu) -> bool:
    """Whether its shuffles are of bytes, not of 32-bit lanes."""
    return bool(cpu.arch) and cpu.vbytes not in LANES


def _firsts(row: np.ndarray, lanes: int) -> list[int]:
    """Where the registers begin that hold the channels of a row: as few as there can be."""
    firsts: list[int] = []
    for channel in np.unique(row).tolist():
        if not firsts or channel >= firsts[-1] + lanes:
            firsts.append(channel)
    return firsts


def _emit(v: Any, y: Any, x: Any, table: Any, pixels: Any, registers: Any, spans: Any, x_pixel: Any, y_pixel: Any) -> None:
    """Reads up to a register after the last channel of x."""
    size = v.cpu.vbytes
    made_of = _registers(v) if v.cpu.arch else _elements(v)

    def pixel(_: Any, places: list[Any]) -> list[Any]:
        source, to = places

        def register(k: Any, moved: list[Any]) -> list[Any]:
            made_of(source, v.at(to, v.mul(k, size)), moved[0], spans)
            return [v.at(moved[0], v.mul(spans, 3 * size))]
        v.loop(registers, [table], register)
        return [v.at(source, x_pixel), v.at(to, y_pixel)]
    v.loop(pixels, [x, y], pixel)


def _registers(v: Any) -> Callable[[Any, Any, Any, Any], None]:
    """(pixel of x, register of y, its part of the table, spans): by shuffles."""
    size, ty = v.cpu.vbytes, v.type("i8", v.cpu.vbytes)

    def picked(value: Any, at: Any) -> Any:
        if size in LANES:
            return v.call(LANES[size], v.i32, [value, v.load(v.i32, at)])
        if not v.x86:
            return v.bitcast(v.call("llvm.aarch64.neon.tbl1.v16i8", ty, [v.bitcast(value, ty), v.load(ty, at)]), v.i32)
        return v.bitcast(v.call(BYTES[size], ty, [v.bitcast(value, ty), v.load(ty, at)]), v.i32)

    def make(source: Any, to: Any, table: Any, spans: Any) -> None:
        def span(s: Any, made: list[Any]) -> list[Any]:
            here = v.at(table, v.mul(s, 3 * size))
            value = picked(v.load(v.i32, v.at(source, v.load(v.type("i64"), here))), v.at(here, size))
            return [v.or_(made[0], v.and_(value, v.load(v.i32, here, 2 * size)))]
        v.store(v.loop(spans, span(v.i(0), [v.zero(v.i32)]), span, start=1)[0], to)
    return make


def _elements(v: Any) -> Callable[[Any, Any, Any, Any], None]:
    """The same element by element."""
    size, i32 = v.cpu.vbytes, v.type("i32")

    def make(source: Any, to: Any, table: Any, spans: Any) -> None:
        def element(k: Any, _: Any) -> None:
            at = v.shl(k, 2)

            def span(s: Any, made: list[Any]) -> list[Any]:
                here = v.at(table, v.mul(s, 3 * size))
                pick = v.zext(v.load(i32, v.at(here, size), at, 4), "i64")
                value = v.load(i32, v.at(source, v.load(v.type("i64"), here)), v.shl(pick, 2), 4)
                return [v.or_(made[0], v.and_(value, v.load(i32, v.at(here, 2 * size), at, 4)))]
            v.store(v.loop(spans, [v.const(i32, 0)], span)[0], to, at, 4)
        v.loop(v.cpu.lanes, [], element)
    return make


def _twin(y: int, x: int, table: int, pixels: int, registers: int, spans: int, x_pixel: int, y_pixel: int) -> None:
    cpu = target()
    raw = (ctypes.c_uint8 * (int(registers) * int(spans) * 3 * cpu.vbytes)).from_address(int(table))
    for k, row in enumerate(np.ctypeslib.as_array(raw).reshape(int(registers), int(spans), 3, cpu.vbytes)):
        for begins, pick, keep in row:
            numbers = pick[::4] // 4 if _by_bytes(cpu) else pick.view(np.int32)
            for lane in np.flatnonzero(keep.view(np.int32)).tolist():
                source = x + int(begins.view(np.int64)[0]) + 4 * int(numbers[lane])
                for p in range(int(pixels)):
                    ctypes.memmove(int(y + p * y_pixel + k * cpu.vbytes + 4 * lane), int(source + p * x_pixel), 4)


pick_pixels = micro_kernel("pick_pixels", ARGUMENTS, _emit, _twin)
