"""SQUARED_DIFFERENCE of int8 codes in LiteRT's fixed point, in vectors."""
from __future__ import annotations

from typing import Any

from litejit.compiler import micro_kernel
from litejit.ops.simd.epilogues import Codes, Fixed

LEFT = 7                              # bits by which inputs are shifted before they are scaled


def emit(fixed: str, v: Any, a: Any, b: Any, y: Any, n: Any, za: Any, ma: Any, ea: Any, zb: Any, mb: Any, eb: Any, m: Any,
         e: Any, zero: Any) -> None:
    """y = clamp(scaled((A - B)**2 by m, e) + zero), A = scaled((a - za) << LEFT by ma, ea), B likewise; fixed: "a" or "b" if
    that is one number for all."""
    def splat(value: Any) -> Any:
        return v.splat(v.trunc(value, "i32"))
    scaled = {"a": Fixed(v, True, splat(ma), splat(ea)), "b": Fixed(v, True, splat(mb), splat(eb))}
    zeros, places = {"a": splat(za), "b": splat(zb)}, {"a": a, "b": b}
    square, codes = Fixed(v, True, splat(m), splat(e)), Codes(v, v.i(-128), v.i(127), zero, v.i(0))

    def side(name: str, x: Any) -> Any:
        return scaled[name](v.shl(v.sub(x, zeros[name]), LEFT))
    once = {fixed: side(fixed, v.splat(v.sext(v.load(v.type("i8"), places[fixed]), "i32")))} if fixed else {}

    def difference(at: Any) -> Any:
        made = {**once, **{name: side(name, v.sext(v.load(v.type("i8", v.lanes), place, at), "i32"))
                           for name, place in places.items() if name != fixed}}
        d = v.sub(made["a"], made["b"])
        return v.mul(d, d)

    def body(i: Any, store: Any) -> None:
        row, = codes([difference(v.add(i, k * v.lanes)) for k in range(4)], [square] * 4)
        store(row, y, i)
    v.vectors(n, body, lanes=4 * v.lanes)


SQUARED_DIFFERENCE = {fixed: micro_kernel(f"squared_difference_i8{fixed and '_' + fixed}", "pppiiiiiiiiii",
                                          lambda *args, fixed=fixed: emit(fixed, *args)) for fixed in ("", "a", "b")}
