"""ADD, SUB and SQUARED_DIFFERENCE of codes in LiteRT's fixed point, in vectors."""
from __future__ import annotations

from functools import partial
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.epilogues import Codes, Fixed

NAMES = {"add": "add", "sub": "sub", "square": "squared_difference"}


def left_shift(kind: str, type: str) -> int:
    """Bits by which inputs are shifted before they are scaled."""
    return 7 if kind == "square" else 15 if type == "i16" else 20


def emit(kind: str, type: str, fixed: str, v: Any, a: Any, b: Any, y: Any, n: Any, za: Any, ma: Any, ea: Any, zb: Any, mb: Any,
         eb: Any, m: Any, e: Any, zero: Any, low: Any, high: Any) -> None:
    """y = clamp(scaled(A + B, or A - B, or (A - B)**2, by m, e) + zero), A = scaled((a - za) << left by ma, ea), B likewise.

    fixed: "a" or "b" if that is one number for all.
    """
    def splat(value: Any) -> Any:
        return v.splat(v.trunc(value, "i32"))
    scaled = {"a": Fixed(v, True, splat(ma), splat(ea)), "b": Fixed(v, True, splat(mb), splat(eb))}
    zeros, places, last = {"a": splat(za), "b": splat(zb)}, {"a": a, "b": b}, Fixed(v, True, splat(m), splat(e))
    scalar, wide, left = "i16" if type == "i16" else "i8", int(type == "i16"), left_shift(kind, type)

    def side(name: str, x: Any) -> Any:
        return scaled[name](v.shl(v.sub(v.zext(x, "i32") if type == "u8" else v.sext(x, "i32"), zeros[name]), left))
    once = {fixed: side(fixed, v.splat(v.load(v.type(scalar), places[fixed])))} if fixed else {}

    def combined(i: Any) -> Any:
        made = {**once, **{name: side(name, v.load(v.type(scalar, v.lanes), place, v.shl(i, wide)))
                           for name, place in places.items() if name != fixed}}
        if kind == "add":
            return v.add(made["a"], made["b"])
        d = v.sub(made["a"], made["b"])
        return v.mul(d, d) if kind == "square" else d

    if type == "i16":
        bounds = splat(low), splat(high)

        def code(i: Any) -> Any:
            return v.min(v.max(v.add(last(combined(i)), splat(zero)), bounds[0]), bounds[1])
        v.vectors(n, lambda i, store: store(v.trunc(v.join(code(i), code(v.add(i, v.lanes))), "i16"), y, v.shl(i, 1)),
                  lanes=2 * v.lanes)
        return
    shift = 128 if type == "u8" else 0                                  # u8 codes are made as i8 ones
    codes = Codes(v, v.sub(low, shift), v.sub(high, shift), v.sub(zero, shift), v.i(0x80 if shift else 0))

    def body(i: Any, store: Any) -> None:
        row, = codes([combined(v.add(i, k * v.lanes)) for k in range(4)], [last] * 4)
        store(row, y, i)
    v.vectors(n, body, lanes=4 * v.lanes)


def scaled_binary(kind: str, type: str) -> dict[str, MicroKernel]:
    """By what is one number for all ("", "a", "b"): (a, b, y, n, za, ma, ea, zb, mb, eb, m, e, zero, low, high)."""
    return {fixed: micro_kernel(f"{NAMES[kind]}_{type}{fixed and '_' + fixed}", "pppiiiiiiiiiiii",
                                partial(emit, kind, type, fixed)) for fixed in ("", "a", "b")}
