"""Micro-kernels of float32 arithmetic of rows with one number each: what is left of a row takes a register with a mask, or
one that begins before it where masks are slow.

Loops that LLVM makes do up to seven elements of a row one by one, which takes longer than the rest of a short one.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel

FORMULAS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "ADD": lambda v, a, b: v.fadd(a, b), "SUB": lambda v, a, b: v.fsub(a, b), "MUL": lambda v, a, b: v.fmul(a, b),
    "DIV": lambda v, a, b: v.fdiv(a, b), "MAXIMUM": lambda v, a, b: v.fmax(a, b), "MINIMUM": lambda v, a, b: v.fmin(a, b),
    "SQUARED_DIFFERENCE": lambda v, a, b: v.fmul(v.fsub(a, b), v.fsub(a, b))}
FEW = 4                               # elements left of a row for which a small register divides in less time


class _Numbers:
    """What FORMULAS need of a Vec, of NumPy numbers."""

    fadd, fsub, fmul, fdiv = (staticmethod(f) for f in (np.add, np.subtract, np.multiply, np.divide))
    fmax, fmin = staticmethod(lambda a, b: a if a > b else b), staticmethod(lambda a, b: a if a < b else b)


@cache
def one_number(name: str, first: bool) -> MicroKernel:
    """(x, x_step, c, c_step, y, rows, n, low, high): y[r * n + i] = formula(x[r * x_step + i], c[r * c_step]) within [low,
    high], NaN where that is one; `first`: the number is the formula's first operand. In place as well."""
    return micro_kernel(f"{name.lower()}_{'of' if first else 'by'}_one", "iiiiiiiff", partial(_emit, name, first),
                        partial(_twin, name, first))


def _emit(name: str, first: bool, v: Any, x: Any, x_step: Any, c: Any, c_step: Any, y: Any, rows: Any, n: Any, low: Any,
          high: Any) -> None:
    x, c, y = (v.pointer(a) for a in (x, c, y))

    def made(place: Any, number: Any, lanes: int) -> Any:
        others, (numbers, lows, highs) = v.load(v.type("f32", lanes), place), (v.splat(a, lanes) for a in (number, low, high))
        return v.clamp(FORMULAS[name](v, *((numbers, others) if first else (others, numbers))), lows, highs)

    def all_rows(one: Callable[..., None]) -> None:
        v.loop(rows, [], lambda r, _: one(v.at(x, v.shl(v.mul(r, x_step), 2)), v.at(y, v.shl(v.mul(r, n), 2)), v.load(
            v.type("f32"), c, v.shl(v.mul(r, c_step), 2))))

    def masked(source: Any, to: Any, number: Any) -> None:
        def part(start: Any, count: Any, lanes: int, unroll: int = 1) -> None:
            v.vectors(count, lambda i, store: store(
                made(v.at(source, v.shl(v.add(start, i), 2)), number, lanes), to, v.shl(v.add(start, i), 2)), lanes, unroll)
        if name == "DIV":
            left = v.b.srem(n, v.i(v.lanes))
            wide = v.b.select(v.icmp(">", left, FEW), n, v.sub(n, left))
            part(v.i(0), wide, v.lanes)
            part(wide, v.sub(n, wide), FEW)
        else:
            part(v.i(0), n, v.lanes, 4)

    def overlapping(lanes: int) -> Callable[..., None]:
        def row(source: Any, to: Any, number: Any) -> None:
            end = v.sub(v.shl(n, 2), 4 * lanes)
            last = made(v.at(source, end), number, lanes)         # before what it is made of may be written over
            v.loop(end, [], lambda at, _: v.store(made(v.at(source, at), number, lanes), to, at), step=4 * lanes)
            v.store(last, to, end)
        return row

    def tier(lanes: int) -> None:
        if lanes == 1:
            all_rows(overlapping(1))
        else:
            v.either(v.icmp(">=", n, lanes), lambda: all_rows(overlapping(lanes)), lambda: tier(4 if lanes > 4 else 1))
    if v.bits == 512:
        all_rows(masked)
    else:
        tier(v.lanes)


def _twin(name: str, first: bool, x: int, x_step: int, c: int, c_step: int, y: int, rows: int, n: int, low: float, high: float
          ) -> None:
    def place(address: int, i: int) -> Any:
        return ctypes.c_float.from_address(int(address + 4 * i))
    with np.errstate(all="ignore"):
        for r in range(int(rows)):
            for i in range(int(n)):
                pair = [np.float32(place(*at).value) for at in ((x, r * x_step + i), (c, r * c_step))]
                made = FORMULAS[name](_Numbers, *(pair[::-1] if first else pair))
                place(y, r * n + i).value = low if made < low else high if made > high else made
