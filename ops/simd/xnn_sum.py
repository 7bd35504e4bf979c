"""XNNPACK's ADD and SUB of codes, in vectors: both factors in one product of pairs of int16.

A factor has 22 bits: its upper seven, and its lower fifteen, each take part in a multiply-add of 16 bits. One product of 32
bits for each input takes longer on x86: by a seventh with registers of 64 bytes, more with smaller ones.
"""
from __future__ import annotations

from functools import partial
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel

LOW = 15                              # bits of a factor's lower part


def xnn_sum(type: str) -> MicroKernel:
    """(a, b, y, n, bias, ma, mb, shift, zero, low, high): y = clamp(((bias + a * ma + b * mb) >> shift) + zero, low, high).

    type: "i8" or "u8"; |ma|, |mb| <= 2**21; the sum wraps.
    """
    return micro_kernel(f"xnn_sum_{type}", "pppiiiiiiii", partial(_emit, type))


def _emit(type: str, v: Any, a: Any, b: Any, y: Any, n: Any, bias: Any, ma: Any, mb: Any, shift: Any, zero: Any, low: Any,
          high: Any) -> None:
    def splat(value: Any) -> Any:
        return v.splat(v.trunc(value, "i32"))

    def codes(place: Any, i: Any, lanes: int, wide: str) -> Any:
        return (v.sext if type == "i8" else v.zext)(v.load(v.type("i8", lanes), place, i), wide)
    biases, shifts = splat(bias), splat(shift)
    if not v.x86:
        factors, zeros, bounds = (splat(ma), splat(mb)), splat(zero), (splat(low), splat(high))

        def some(i: Any, store: Any) -> None:
            x, z = (v.mul(codes(place, i, v.lanes, "i32"), m) for place, m in zip((a, b), factors))
            made = v.add(v.ashr(v.add(v.add(biases, x), z), shifts), zeros)
            store(v.trunc(v.min(v.max(made, bounds[0]), bounds[1]), "i8"), y, i)
        v.vectors(n, some)
        return
    lanes, parts = 2 * v.lanes, v.cpu.vbytes // 16
    upper, lower = (splat(v.or_(v.and_(x, 0xFFFF), v.shl(z, 16))) for x, z in (
        (v.ashr(ma, LOW), v.ashr(mb, LOW)), (v.and_(ma, (1 << LOW) - 1), v.and_(mb, (1 << LOW) - 1))))
    pairs = [[8 * part + half + e // 2 + e % 2 * lanes for part in range(parts) for e in range(8)] for half in (0, 4)]
    signed = 128 if type == "u8" else 0                                 # u8 codes are made as i8 ones
    zeros = v.splat(v.trunc(v.sub(zero, signed), "i16"), lanes)
    least, most = (v.splat(v.trunc(v.sub(x, signed), "i8"), 2 * lanes) for x in (low, high))

    def shorts(i: Any) -> Any:
        """A register of int16 sums in their order: packing undoes what making pairs did."""
        x, z = (codes(place, i, lanes, "i16") for place in (a, b))
        made = []
        for order in pairs:
            both = v.bitcast(v.shuffle(x, z, order), v.i32)
            rest = v.add(v.shl(v.dot16(v.zero(v.i32), both, upper), LOW), biases)
            made.append(v.ashr(v.dot16(rest, both, lower), shifts))
        return v.sat_add(v.pack16(*made), zeros)

    def body(i: Any, store: Any) -> None:
        made = v.min(v.max(v.pack8(shorts(i), shorts(v.add(i, lanes))), least), most)
        quads = v.bitcast(made, v.type("i64", 2 * parts))
        made = v.bitcast(v.shuffle(quads, None, [*range(0, 2 * parts, 2), *range(1, 2 * parts, 2)]), made.type)
        store(v.xor(made, v.const(made.type, -128)) if signed else made, y, i)
    v.vectors(n, body, lanes=2 * lanes)
