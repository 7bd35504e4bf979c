"""Quotients and remainders of integers and floats, and the check of the second operand that precedes them."""
from __future__ import annotations

import functools
from typing import Any

import numpy as np

from litejit.compiler import device, kernel
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import LOAD, Primitive
from litejit.ops.base import Step
from litejit.planner.graph import Node

CHECK = np.dtype([("x", "i8"), ("n", "i8"), ("bound", "i8"), ("code", "i8")], align=True)
_BLOCK = 4096

floor_f64 = Primitive("floor_f64", "float64", ("float64",), lambda ir, b, a: b.call(
    b.module.globals.get("llvm.floor.f64") or ir.Function(
        b.module, ir.FunctionType(ir.DoubleType(), [ir.DoubleType()]), "llvm.floor.f64"), [a[0]]),
    lambda x: np.float64(np.floor(x)))


def checked_step(node: Node, refuses: str, code: int, bound: int = 0) -> list[Step]:
    """A step that fails with `code` where the second input equals ("zero") or is below ("negative") `bound`.

    None is needed for a constant that is all right.
    """
    divisor = node[1]
    if divisor.data is not None:
        refused = divisor.data == bound if refuses == "zero" else divisor.data < bound
        if not refused.any():
            return []
    return [Step(node, check(refuses, divisor.type),
                 {"x": divisor, "n": divisor.size, "bound": bound, "code": code}, note=f"no {refuses} second operand")]


@functools.cache
def check(refuses: str, type: str) -> Kernel:
    """Looks for an element that is refused: code | position << 8."""
    load: Any = LOAD[type]
    zero = refuses == "zero"

    @kernel(CHECK, name=f"check_{refuses}_{type}")
    def search(p, begin, end):
        x, bound = p.x, p.bound
        for start in range(0, p.n, _BLOCK):
            stop = min(p.n, start + _BLOCK)
            found = 0
            for i in range(start, stop):
                v = load(x, i)
                found |= (v == bound) if zero else (v < bound)
            if found:
                for i in range(start, stop):
                    v = load(x, i)
                    if (v == bound) if zero else (v < bound):
                        return p.code | i << 8
        return 0
    return search


# ---- formulas: operands of 32 bits or less divide exactly in float64 --------------------------------
# A quotient that is no integer is at least 1 / |divisor| away from one, more than half a unit in its last place.

@device
def trunc_div_int(x, y):
    """x / y cut towards zero; 0 and -1 as divisors do not trap."""
    return np.int64(np.float64(x) / np.float64(y))


@device
def floor_div_int(x, y):
    """Largest integer not above x / y."""
    return np.int64(floor_f64(np.float64(x) / np.float64(y)))


@device
def floor_mod_int(x, y):
    """Remainder with the sign of y."""
    divisor = np.int64(1) if y == -1 or y == 0 else np.int64(y)
    return np.int64(x) % divisor


@device
def floor_div_f32(x, y):
    """floor(x / y), the quotient in float64 as LiteRT has it."""
    return np.float32(floor_f64(np.float64(x) / np.float64(y)))


_EXACT, _LARGE = np.float64(1 << 28), np.float64(np.inf)


@device
def remainder_f64(x, y):
    """C's fmod of two float32 given as float64: exact, the sign of x; NaN for y = 0, x infinite or either NaN."""
    q = x / y
    if abs(q) < _EXACT:
        whole = np.float64(np.int64(q))
        r = x - (whole * y if whole != 0 else 0.0)  # exact: 29 + 24 bits; the quotient may be one too large
        return r + abs(y) * (1.0 if x > 0 else -1.0) if r * x < 0 else r
    if not (abs(x) < _LARGE) or not (abs(y) <= _LARGE) or y == 0:
        return x * np.nan
    divisor, rest = abs(y), abs(x)
    while rest >= divisor:                          # long division: one power of two at a time
        part = divisor
        while part * 65536.0 <= rest:
            part *= 65536.0
        while part * 2.0 <= rest:
            part *= 2.0
        rest -= part
    return rest if x > 0 else -rest


@device
def floor_mod_f32(x, y):
    """Remainder with the sign of y; NaN for y = 0."""
    r = remainder_f64(np.float64(x), np.float64(y))
    return np.float32(r + np.float64(y) if r != 0 and (y < 0) != (r < 0) else r)
