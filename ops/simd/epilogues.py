"""Ends of integer tiles: accumulators of a tile become codes or floats, in vectors.

XNNPACK's requantisation is a float32 product rounded to nearest even; saturating packs make float clamps unnecessary, as
long as |accumulator * scale| < 2**31, which the packing functions check (`fits_requant`). LiteRT's fixed point is made of
products of integers with 64 bits: exact everywhere.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def fits_requant(weights: np.ndarray, bias: np.ndarray | None, scale: np.ndarray, more: int = 0) -> bool:
    """Whether no product of a row of weights [n, k] with 8-bit activations can leave the range of int32 when scaled.

    more: added to the magnitude of every weight.
    """
    offset = np.abs(bias.astype(np.float64)) if bias is not None else np.zeros(1)
    most = 255.0 * weights.shape[1] * (largest(weights) + more) + offset
    if not ((most < 2.0**31).all() and (most * scale < 2.0**31).all()):               # sums of all weights take longer
        most = 255.0 * (np.abs(weights.astype(np.int32)) + more).sum(axis=1, dtype=np.float64) + offset
    return bool((most < 2.0**31).all() and (most * scale < 2.0**31).all())


def largest(weights: np.ndarray) -> int:
    """The largest magnitude of integers."""
    return max(int(weights.max(initial=0)), -int(weights.min(initial=0)))


class Codes:
    """clamp(code(acc) + zero_point, low, high) ^ out_flip as bytes, for registers of i32 lanes.

    code: what makes i32 lanes of an accumulator, which need not be clamped: `Nearest`, `Fixed` or `Double`. range: see
    `range_of`; packing clamps by itself then (x86).
    """

    def __init__(self, v: Any, low: Any, high: Any, zero_point: Any, out_flip: Any, range: str = "") -> None:
        self.v, self.range, lanes = v, range, v.lanes
        out_flip = v.xor(out_flip, 0x80) if range == "positive" else out_flip
        self.flip = v.splat(v.trunc(out_flip, "i8"), 4 * lanes if v.x86 else lanes)
        if v.x86:
            self.low, self.high = (v.splat(v.trunc(x, "i8"), 4 * lanes) for x in (low, high))
            self.zero = v.splat(v.trunc(zero_point, "i16"), 2 * lanes)
        else:
            self.low, self.high = (v.splat(v.trunc(v.sub(x, zero_point), "i32")) for x in (low, high))
            self.zero = v.splat(v.trunc(zero_point, "i32"))

    def __call__(self, accs: list[Any], codes: list[Callable[[Any], Any]]) -> list[Any]:
        """The rows of a tile as bytes: accs[row * len(codes) + column], a code for each of 1, 2 or 4 columns of registers."""
        v, nv = self.v, len(codes)
        q = [codes[i % nv](acc) for i, acc in enumerate(accs)]
        if not v.x86:
            q = [self._plain(x) for x in q]
            while nv > 1:
                q, nv = [v.join(a, b) for a, b in zip(q[::2], q[1::2])], nv // 2
            return q
        made: list[Any] = []
        for first in range(0, len(q), 4):
            made += self._four(q[first:first + 4], nv)
        return made

    def _plain(self, code: Any) -> Any:
        v = self.v
        return v.xor(v.trunc(v.add(v.min(v.max(code, self.low), self.high), self.zero), "i8"), self.flip)

    def _four(self, q: list[Any], nv: int) -> list[Any]:
        """Up to four registers, nv of a row, narrowed together, saturating."""
        v, lanes, rows, size = self.v, self.v.lanes, len(q) // nv, nv * self.v.lanes
        q = q + [q[-1]] * (4 - len(q))
        pairs = [v.pack16(q[i], q[i + 1]) for i in (0, 2)]
        if self.range == "positive":
            x = v.pack8_unsigned(*pairs)
        else:
            x = v.pack8(*(v.sat_add(pair, self.zero) for pair in pairs))
            x = x if self.range else v.min(v.max(x, self.low), self.high)
        x = v.xor(x, self.flip)
        if lanes > 4:                                          # 128-bit part l of register r is at dword 4 l + r
            x = v.shuffle(v.bitcast(x, v.i32), None, [4 * part + r for r in range(4) for part in range(lanes // 4)])
        x = v.bitcast(x, v.type("i8", 4 * lanes))
        return [v.shuffle(x, None, range(r * size, (r + 1) * size)) for r in range(rows)]


def range_of(low: int, high: int, zero_point: int) -> str:
    """"positive": codes from -128, which stands for 0, to 127 (behind RELU, RELU6); "whole": others from -128 to 127; or ""."""
    if (low, high) != (-128, 127):
        return ""
    return "positive" if zero_point == -128 else "whole"


class Nearest:
    """XNNPACK's: the float32 product with the scales of the columns, to the nearest integer."""

    def __init__(self, v: Any, scale: Any) -> None:
        self.v, self.scale = v, scale

    def __call__(self, acc: Any) -> Any:
        return self.v.nearest(self.v.fmul(self.v.to_float(acc), self.scale))


class Double:
    """LiteRT's FULLY_CONNECTED: the float64 product with scales [lanes], halves away from zero; it must fit 32 bits."""

    def __init__(self, v: Any, scale: Any) -> None:
        self.v, self.scale = v, scale
        self.sign, self.half = v.type("i64", v.lanes), v.const(v.type("f64", v.lanes), float(np.nextafter(0.5, 0)))

    def __call__(self, acc: Any) -> Any:
        v = self.v
        x = v.fmul(v.b.sitofp(acc, self.scale.type), self.scale)
        half = v.or_(v.and_(v.bitcast(x, self.sign), -1 << 63), v.bitcast(self.half, self.sign))
        return v.truncate(v.fadd(x, v.bitcast(half, x.type)))       # just below 1/2: what has no fraction stays


class Fixed:
    """LiteRT's fixed point on registers of i32 lanes: accumulators to i32 codes that are not clamped.

    once: a 16-bit multiplier and a right shift >= 1, rounded once (`mbqm64`); the accumulator must fit 32 bits.
    twice: a 31-bit multiplier and a signed shift, rounded twice (`mbqm`); the accumulator wraps.
    """

    def __init__(self, v: Any, twice: bool, multiplier: Any, shift: Any) -> None:
        self.v, self.twice = v, twice
        self.wide = v.type("i64", v.lanes // 2)
        self.multiplier = self._split(multiplier)
        if twice:
            self.left, self.right = v.max(shift, 0), v.max(v.sub(v.zero(v.i32), shift), 0)
            self.mask = v.sub(v.shl(v.const(v.i32, 1), self.right), 1)
            self.half = v.lshr(self.mask, 1)
        else:
            self.shift = [v.and_(v.bitcast(shift, self.wide), 0xFFFFFFFF), v.lshr(v.bitcast(shift, self.wide), 32)]
            self.nudge = [v.shl(v.const(self.wide, 1), v.sub(x, 1)) for x in self.shift]
            self.offset = None
            if v.cpu.vbytes < 64:          # no shift that keeps the sign: made positive by 2**62, which is taken off after
                high = v.const(self.wide, 1 << 62)
                self.offset = self._join(v.lshr(high, self.shift[0]), v.shl(v.lshr(high, self.shift[1]), 32))
                self.nudge = [v.add(x, high) for x in self.nudge]

    def _split(self, x: Any) -> list[Any]:
        """The even and the odd lanes of an i32 register as i64."""
        v = self.v
        x = v.bitcast(x, self.wide)
        return [v.ashr(v.shl(x, 32), 32), v.ashr(x, 32)]

    def __call__(self, acc: Any) -> Any:
        v = self.v
        if not self.twice:
            right = v.ashr if self.offset is None else v.lshr
            made = [right(v.add(v.mul(x, m), nudge), shift) for x, m, nudge, shift in
                    zip(self._split(acc), self.multiplier, self.nudge, self.shift)]
            codes = self._join(made[0], v.shl(made[1], 32))
            return codes if self.offset is None else v.sub(codes, self.offset)
        made = [v.add(v.mul(x, m), 1 << 30) for x, m in zip(self._split(v.shl(acc, self.left)), self.multiplier)]
        high = self._join(v.lshr(made[0], 31), v.shl(made[1], 1))
        least = v.sub(self.half, v.ashr(high, 31))               # of the remainder that is rounded away from zero
        up = v.icmp(">", v.and_(high, self.mask), least)
        return v.add(v.ashr(high, self.right), v.zext(up, "i32"))

    def _join(self, even: Any, odd: Any) -> Any:
        """Low halves of the i64 lanes of `even`, high halves of `odd`, in turns."""
        v = self.v
        even, odd = v.bitcast(even, v.i32), v.bitcast(odd, v.i32)
        return v.shuffle(even, odd, [k + (v.lanes if k % 2 else 0) for k in range(v.lanes)])
