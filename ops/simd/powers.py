"""Micro-kernel of integer powers with one exponent for all: by squaring, in registers, several of which are in flight."""
from __future__ import annotations

import ctypes
from typing import Any

from litejit.compiler import micro_kernel

UNROLL = 4                            # registers of bases in turn


def _powers(v: Any, bases: list[Any], exponent: Any) -> list[Any]:
    """The low 32 bits of every base to the power of `exponent`: for each of its bits, a product and a square."""
    bits = v.sub(64, v.call("llvm.ctlz.i64", exponent.type, [exponent, v.const(v.type("i1"), 0)]))
    ones = v.const(v.i32, 1)

    def bit(k: Any, carried: list[Any]) -> list[Any]:
        made, squares = carried[:len(bases)], carried[len(bases):]
        taken = v.splat(v.icmp("!=", v.and_(v.lshr(exponent, k), 1), 0))
        return [*(v.mul(m, v.select(taken, s, ones)) for m, s in zip(made, squares)), *(v.mul(s, s) for s in squares)]
    return v.loop(bits, [ones] * len(bases) + bases, bit)[:len(bases)]


def _emit(v: Any, x: Any, y: Any, n: Any, exponent: Any) -> None:
    x, y = v.pointer(x), v.pointer(y)
    full = v.sub(n, v.b.srem(n, v.i(UNROLL * v.lanes)))

    def group(i: Any, _: Any) -> None:
        at, offs = v.shl(i, 2), [k * v.cpu.vbytes for k in range(UNROLL)]
        made = _powers(v, [v.load(v.i32, x, v.add(at, off)) for off in offs], exponent)
        for off, value in zip(offs, made):
            v.store(value, y, v.add(at, off))
    v.loop(full, [], group, step=UNROLL * v.lanes)
    x, y = v.at(x, v.shl(full, 2)), v.at(y, v.shl(full, 2))
    v.vectors(v.sub(n, full), lambda i, store: store(
        _powers(v, [v.load(v.i32, x, v.shl(i, 2))], exponent)[0], y, v.shl(i, 2)))


def _twin(x: int, y: int, n: int, exponent: int) -> None:
    source, made = ((ctypes.c_int32 * int(n)).from_address(int(a)) for a in (x, y))
    for i in range(int(n)):
        made[i] = pow(source[i], int(exponent), 1 << 32)


# (x, y, n, exponent >= 0), also in place
powers_i32 = micro_kernel("powers_i32", "iiii", _emit, _twin)
