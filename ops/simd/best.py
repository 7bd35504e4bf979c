"""Micro-kernel of ARG_MAX and ARG_MIN: the first best element of each of many short rows, held in registers."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel

REGISTERS = 4                         # of 32-bit elements, or one of bytes: rows of up to 4 * lanes elements
SIZE = {"f32": 4, "i32": 4, "i8": 1, "u8": 1}


def short_rows(type: str, largest: bool) -> MicroKernel:
    """best(x, out, rows, n): out[r] (int32) = position of the first best of x[r * n], ..., for n <= 4 * lanes.

    A NaN never wins but where it comes first.
    """
    return micro_kernel(f"best_{'max' if largest else 'min'}_{type}", "ppii", _emit(type, largest))


def _emit(type: str, largest: bool) -> Callable[..., None]:
    def emit(v: Any, x: Any, out: Any, rows: Any, n: Any) -> None:
        def some(registers: int) -> Callable[[], None]:
            return lambda: _rows(v, type, largest, registers, x, out, rows, n)
        if SIZE[type] == 1:
            some(1)()
        else:
            v.either(v.icmp("<=", n, v.lanes), some(1), lambda: v.either(
                v.icmp("<=", n, 2 * v.lanes), some(2), some(REGISTERS)))
    return emit


def _rows(v: Any, type: str, largest: bool, count: int, x: Any, out: Any, rows: Any, n: Any) -> None:
    """The loop over rows that fit `count` registers."""
    wide, signed = SIZE[type] == 4, type != "u8"
    kind = v.i32 if wide else v.type("i8", 4 * v.lanes)
    lanes = kind.count
    least = v.const(kind, (-(1 << 31) if wide else -128) if signed else 0)
    far = v.const(kind, (1 << 30) if wide else 127)
    masks = [v.mask(lanes, v.sub(n, k * lanes)) for k in range(count)]
    spots = [v.const(kind, list(range(k * lanes, (k + 1) * lanes))) for k in range(count)]
    reduced = f"v{lanes}i{32 if wide else 8}"

    def key(at: Any, k: int) -> Any:
        """Elements as integers that are larger where they are better."""
        off = k * v.cpu.vbytes
        if type != "f32":
            part = v.load(kind, at, off)
            return v.select(masks[k], part if largest else v.xor(part, v.const(kind, -1 if signed else 255)), least)
        value = v.load(v.f32, at, off)
        bits = v.bitcast(v.fadd(value, 0.0), v.i32)         # -0 becomes 0
        order = v.xor(bits, v.and_(v.ashr(bits, 31), 0x7FFFFFFF))
        order = order if largest else v.xor(order, -1)
        return v.select(v.and_(masks[k], v.fcmp("==", value, value)), order, least)

    def row(r: Any, _: Any) -> None:
        at = v.at(x, v.mul(r, v.mul(n, SIZE[type])))
        keys = [key(at, k) for k in range(count)]
        best = keys[0]
        for other in keys[1:]:
            best = v.max(best, other, signed)
        most = v.call(f"llvm.vector.reduce.{'s' if signed else 'u'}max.{reduced}", kind.element, [best])
        most, place = v.splat(most, lanes), far
        for k in range(count):
            place = v.min(place, v.select(v.and_(masks[k], v.icmp("==", keys[k], most)), spots[k], far))
        found = v.call(f"llvm.vector.reduce.smin.{reduced}", kind.element, [place])
        found = found if wide else v.sext(found, "i32")
        if type == "f32":
            first = v.load(v.type("f32"), at)
            found = v.select(v.fcmp("uno", first, first), v.const(v.type("i32"), 0), found)
        v.store(found, out, v.mul(r, 4))
    v.loop(rows, [], row)
