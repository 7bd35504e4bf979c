"""XNNPACK's MUL of codes, in vectors: rows times one row, whose part of each product is made once.

Codes without their zero points are whole numbers of nine bits, their products exact in float32, with or without a fused
multiply-add; then the scale and rounding of `epilogues.Nearest`.
"""
from __future__ import annotations

from functools import partial
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.depthwise_bytes import store_bytes
from litejit.ops.simd.epilogues import Codes

COUNT = 4                             # registers of float32 at once, which narrow to one of codes; one where fewer are left


def xnn_product(type: str) -> MicroKernel:
    """(x, row, y, rows, n, zx, zr, zero, low, high, scale): y[r, i] = clamp(nearest((x[r, i] - zx) * (row[i] - zr) * scale) +
    zero), of codes of `type` "i8" or "u8" [rows, n] and [n]; scale < 2**8."""
    return micro_kernel(f"xnn_product_{type}", "pppiiiiiiif", partial(_emit, type))


def _emit(type: str, v: Any, x: Any, row: Any, y: Any, rows: Any, n: Any, zx: Any, zr: Any, zero: Any, low: Any, high: Any,
          scale: Any) -> None:
    shift = 128 if type == "u8" else 0                                       # u8 codes are made as i8 ones
    codes = Codes(v, v.sub(low, shift), v.sub(high, shift), v.sub(zero, shift), v.i(0x80 if shift else 0))
    factor, minus_x, other = v.splat(scale), *(v.splat(v.to_float(v.trunc(z, "i32"))) for z in (v.sub(0, zx), zr))

    def numbers(place: Any, k: int) -> Any:
        code = v.load(v.type("i8", v.lanes), place, k * v.lanes)
        return v.to_float((v.zext if type == "u8" else v.sext)(code, "i32"))

    def block(c: Any, count: int) -> None:
        factors = [v.fsub(numbers(v.at(row, c), k), other) for k in range(count)]
        starts, left = [v.fmul(f, minus_x) for f in factors], v.sub(n, c)

        def one(r: Any, _: Any) -> None:
            at = v.add(v.mul(r, n), c)
            made = [v.fma(numbers(v.at(x, at), k), f, s) for k, (f, s) in enumerate(zip(factors, starts))]
            (code,) = codes(made, [lambda value: v.nearest(v.fmul(value, factor))] * count)
            store_bytes(v, code, v.at(y, at), left)
        v.loop(rows, [], one)
    whole = v.and_(v.add(n, v.lanes - 1), -COUNT * v.lanes)                  # what is left takes registers one by one
    v.loop(whole, [], lambda c, _: block(c, COUNT), step=COUNT * v.lanes)
    v.loop(n, [], lambda c, _: block(c, 1), step=v.lanes, start=whole)
