"""Micro-kernel of the softmax of rows of a few 8-bit codes: as many rows at a time as a register has lanes, a class in each
register, so that the sums of LiteRT's order run side by side.
"""
from __future__ import annotations

from functools import partial
from typing import Any

from litejit.compiler import micro_kernel
from litejit.compiler.lazy import MicroKernel

MOST = 7                              # classes for which there are micro-kernels
SHARES_ARGUMENTS = "ppipfi"


def class_shares(type: str, depth: int) -> MicroKernel:
    """(x, y, rows, table, scale, zero): y = code(e / (sum of the row's e * scale)), e = table[255 + x - largest of the row].

    x, y: codes [rows, depth] of `type`, perhaps the same ones; table: float32[256]. Codes of int8 are rounded, halves away from
    zero, plus `zero`; those of uint8 half is added to and the rest cut off, as LiteRT does.
    """
    return micro_kernel(f"class_shares_{type}_{depth}", SHARES_ARGUMENTS, partial(_emit, type, depth))


def _emit(type: str, depth: int, v: Any, x: Any, y: Any, rows: Any, table: Any, scale: Any, zero: Any) -> None:
    signed, lanes = type == "i8", v.lanes
    low, high = (-128, 127) if signed else (0, 255)
    factor, zeros = v.splat(scale), v.splat(v.trunc(zero, "i32"))
    together = v.type("i8", depth * lanes)

    def code(share: Any) -> Any:
        whole = v.truncate(share if signed else v.fadd(share, 0.5))
        if signed:
            up = v.fcmp(">=", v.fsub(share, v.to_float(whole)), 0.5)        # no share is negative
            whole = v.add(v.add(whole, v.zext(up, "i32")), zeros)
        return v.trunc(v.min(v.max(whole, low), high), "i8")

    def group(codes: Any) -> Any:
        columns = [(v.sext if signed else v.zext)(v.shuffle(codes, None, range(k, depth * lanes, depth)), "i32")
                   for k in range(depth)]
        most = columns[0]
        for column in columns[1:]:
            most = v.max(most, column)
        shares = [v.gather(table, v.sub(v.add(column, 255), most)) for column in columns]
        total = shares[0]
        for share in shares[1:]:
            total = v.fadd(total, share)
        inverse = v.fdiv(v.const(v.f32, 1.0), v.fmul(total, factor))
        return _interleaved(v, [code(v.fmul(share, inverse)) for share in shares])
    n = v.mul(rows, depth)
    full = v.sub(n, v.b.srem(n, v.i(depth * lanes)))
    v.loop(full, [], lambda i, _: v.store(group(v.load(together, x, i)), y, i), step=depth * lanes)

    def last() -> None:
        mask = v.mask(depth * lanes, v.sub(n, full))
        far = v.bits == 512                                                # 64 bytes past the tensor are not enough
        v.mstore(group(v.mload(together, x, mask, full) if far else v.load(together, x, full)), y, mask, full)
    v.either(v.icmp("<", full, n), last)


def _interleaved(v: Any, parts: list[Any]) -> Any:
    """The first elements of all vectors, then the second ones, and so on."""
    count, lanes, joined = len(parts), parts[0].type.count, parts
    while len(joined) > 1:
        joined = [v.join(a, b) for a, b in zip(joined[::2], joined[1::2] + joined[-1:])]
    return v.shuffle(joined[0], None, [k * lanes + r for r in range(lanes) for k in range(count)])
