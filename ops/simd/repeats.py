"""Generated repeating of elements: every one of x several times in a row, by shuffles of bytes in vector registers.

A register of input makes `times` registers of output. What each of these picks is a table, made once for a size and a number:
first the 32-bit lanes that are moved to the lane of 16 bytes that needs them (where a register has more than one), then bytes
within these.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.ops.simd.moves import LANE

REPEAT_ARGUMENTS = "pppii"            # y, x, table of `picks`, elements of x, times
# instructions that pick 32-bit lanes of a register, and bytes within every 16 of them, by bytes of a register
LANES = {32: "llvm.x86.avx2.permd", 64: "llvm.x86.avx512.permvar.si.512"}
BYTES = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}


def picks(cpu: Cpu, size: int, times: int) -> np.ndarray:
    """uint8 [times, 1 or 2, bytes of a register]: what `times` >= 2 registers pick of one of elements of `size` bytes."""
    made = np.arange(times * cpu.vbytes).reshape(times, cpu.vbytes // LANE, LANE)
    wanted = made // (size * times) * size + made % size                    # byte of the input register
    if cpu.vbytes == LANE:
        return wanted.reshape(times, 1, LANE).astype(np.uint8)
    first = np.minimum(wanted.min(axis=2, keepdims=True) // 4, cpu.lanes - LANE // 4)       # 32-bit lane
    lanes = (first + np.arange(LANE // 4)).reshape(times, cpu.lanes).astype(np.int32).view(np.uint8)
    return np.stack([lanes, (wanted - 4 * first).reshape(times, cpu.vbytes).astype(np.uint8)], axis=1)


def _emit(size: int, v: Any, y: Any, x: Any, table: Any, n: Any, times: Any) -> None:
    """Writes whole registers: up to `times` of them after the last element's."""
    if not v.cpu.arch:
        _one_by_one(size, v, y, x, n, times)
        return
    width, kinds = v.cpu.vbytes, 1 + (v.cpu.vbytes in LANES)
    pick = _shuffle(v)

    def register(i: Any, _: Any) -> None:
        value, to = v.load(v.type("i8", width), x, i), v.at(y, v.mul(i, times))

        def one(j: Any, _: Any) -> None:
            v.store(pick(value, v.at(table, v.mul(j, kinds * width))), to, v.mul(j, width))
        v.loop(times, [], one)
    v.loop(v.mul(n, size), [], register, step=width)


def _shuffle(v: Any) -> Callable[[Any, Any], Any]:
    """(register, where a row of the table is) -> what it picks."""
    width, ty = v.cpu.vbytes, v.type("i8", v.cpu.vbytes)
    if not v.x86:
        return lambda value, at: v.call("llvm.aarch64.neon.tbl1.v16i8", ty, [value, v.load(ty, at)])
    if width not in LANES:
        return lambda value, at: v.call(BYTES[width], ty, [value, v.load(ty, at)])

    def both(value: Any, at: Any) -> Any:
        moved = v.call(LANES[width], v.i32, [v.bitcast(value, v.i32), v.load(v.i32, at)])
        return v.call(BYTES[width], ty, [v.bitcast(moved, ty), v.load(ty, at, width)])
    return both


def _one_by_one(size: int, v: Any, y: Any, x: Any, n: Any, times: Any) -> None:
    def element(i: Any, _: Any) -> None:
        value, to = v.load(v.type(f"i{8 * size}"), x, v.mul(i, size)), v.at(y, v.mul(v.mul(i, times), size))
        v.loop(times, [], lambda k, _: v.store(value, to, v.mul(k, size)))
    v.loop(n, [], element)


def _twin(size: int, y: int, x: int, table: int, n: int, times: int) -> None:
    for i in range(int(n) * int(times)):
        ctypes.memmove(int(y + i * size), int(x + i // times * size), size)


# by bytes of an element
REPEAT = {size: micro_kernel(f"repeat_{size}", REPEAT_ARGUMENTS, partial(_emit, size), partial(_twin, size))
          for size in (1, 2, 4)}
