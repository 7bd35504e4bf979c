"""Depthwise tiles of 8-bit codes for x86 without a dot product of bytes: whole registers of bytes, widened by interleaving.

Two taps of a register of channels are interleaved byte by byte, then with zeros: pairs of 16 bits, which one multiply-add
sums. That is six instructions where widening each tap first (ops/simd/depthwise_int8.py) takes eight, half of which cross
lanes. Signed codes are made unsigned by their top bit. A block of weights, of four registers of accumulators, is
[first 4 x L i32][scale 4 x L f32][pairs of taps][4 x L pairs of i16], channels in the order that interleaving leaves.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler.cpu import Cpu
from litejit.ops.simd.tiles import tiles

PART = 16                             # bytes of the part of a register that interleaving works on


def by_bytes(cpu: Cpu) -> bool:
    """Whether a level has these tiles."""
    return cpu.arch == "x86_64" and not cpu.dot and cpu.vbytes <= 32


def byte_order(cpu: Cpu) -> list[int]:
    """Channel within a block that each lane of the four accumulators holds."""
    return [PART * part + 4 * h + r for h in range(4) for part in range(cpu.vbytes // PART) for r in range(4)]


def pack_bytes(cpu: Cpu, weights: np.ndarray, first: np.ndarray, scale: np.ndarray, signed: bool) -> np.ndarray:
    """weights [taps, channels] in int16's range, first int32 and scale float32 [channels] -> uint8 [blocks, bytes]."""
    (taps, channels), width = weights.shape, cpu.vbytes
    blocks, pairs, order = -(-channels // width), -(-taps // 2), byte_order(cpu)
    whole = np.zeros((2 * pairs, blocks * width), np.int16)
    whole[:taps, :channels] = weights
    taken = np.ascontiguousarray(whole.reshape(pairs, 2, -1).transpose(0, 2, 1)).view(np.uint8)
    both = np.concatenate([heads(weights, first, scale, signed, blocks * width), taken.reshape(pairs, -1, 4)])
    both = both.reshape(2 + pairs, blocks, width, 4)[:, :, order]
    return np.ascontiguousarray(both.transpose(1, 0, 2, 3)).reshape(blocks, -1)


def heads(weights: np.ndarray, first: np.ndarray, scale: np.ndarray, signed: bool, size: int) -> np.ndarray:
    """What blocks of weights begin with, for `size` channels: first, for codes that were made unsigned, and scale, as bytes."""
    channels, made = weights.shape[1], np.zeros((2, size, 4), np.uint8)
    moved = first.astype(np.int64) - (128 * weights.sum(axis=0, dtype=np.int64) if signed else 0)
    made[0, :channels] = moved.astype(np.int32).view(np.uint8).reshape(-1, 4)
    made[1, :channels] = np.ascontiguousarray(scale, np.float32).view(np.uint8).reshape(-1, 4)
    return made


def emit_bytes(type: str, single: bool, v: Any, table: Any, pairs: Any, tiles_: Any, offset: Any, step: Any, weights: Any,
               y: Any, out_step: Any, channels: Any, lo: Any, hi: Any, zero_point: Any) -> None:
    """The generator `emit_columns` of ops/simd/depthwise_int8.py for the "code" end."""
    count, size = 1 if single else tiles(v.cpu).depthwise, v.cpu.vbytes
    x_at, y_at = ([v.mul(s, t) for t in range(count)] for s in (step, out_step))
    ty, zeros, flip = v.type("i8", size), v.zero(v.type("i8", size)), v.const(v.type("i8", size), -128)
    low_half, high_half = ([p + h + i // 2 + (i % 2) * size for p in range(0, size, PART) for i in range(PART)] for h in (0, 8))
    finish = code_bytes(v, type, lo, hi, zero_point)
    nothing = v.min(v.sub(pairs, 1), 0)              # 0, which LLVM does not know: weights are read anew for the second column

    def taps(address: Any) -> Any:
        x = v.load(ty, address)
        return v.xor(x, flip) if type == "i8" else x

    def pair(again: list[Any], at: Any, i: Any, acc: list[Any]) -> list[Any]:
        x = [v.at(v.load(v.type("ptr"), table, v.add(v.shl(i, 4), 8 * k), 8), at) for k in (0, 1)]
        made = []
        for t in range(count):
            w = [v.load(v.i32, again[t], v.add(v.mul(v.add(i, 2), 4 * size), h * size)) for h in range(4)]
            even, odd = (taps(v.at(address, x_at[t])) for address in x)
            halves = [v.shuffle(even, odd, order) for order in (low_half, high_half)]
            wide = [v.shuffle(half, zeros, order) for half in halves for order in (low_half, high_half)]
            made += [v.dot16(acc[4 * t + h], v.bitcast(wide[h], v.i32), w[h]) for h in range(4)]
        return made

    def tile(k: Any, moved: list[Any]) -> list[Any]:
        offset, y = moved

        def blocks(c: Any, moved: list[Any]) -> list[Any]:
            (here,) = moved
            first = [v.load(v.i32, here, h * size) for h in range(4)]
            again = [here, v.at(here, nothing)]
            acc = v.loop(pairs, first * count, lambda i, acc: pair(again, v.add(offset, c), i, acc))
            scale = [v.load(v.f32, here, (4 + h) * size) for h in range(4)]
            for t in range(count):
                code = finish(acc[4 * t:4 * t + 4], scale)
                store_bytes(v, code, v.at(v.at(y, y_at[t]), c), v.sub(channels, c))
            return [v.at(here, v.mul(v.add(pairs, 2), 4 * size))]
        v.loop(channels, [weights], blocks, step=size)
        return [v.add(offset, v.mul(step, count)), v.at(y, v.mul(out_step, count))]
    v.loop(tiles_, [offset, y], tile)


def code_bytes(v: Any, type: str, lo: Any, hi: Any, zero_point: Any, positive: bool = False
               ) -> Callable[[list[Any], list[Any]], Any]:
    """(four registers of accumulators, their scales) -> a register of codes; packing undoes the interleaving.

    positive: the lowest code stands for 0, and all codes are allowed (`range_of` in epilogues.py): packing clamps by itself.
    """
    size, shift = v.cpu.vbytes, 0 if type == "i8" else 128              # u8 codes are made as i8 ones
    low, high = (v.splat(v.trunc(v.sub(x, shift), "i8"), size) for x in (lo, hi))
    zero, flip = v.splat(v.trunc(v.sub(zero_point, shift), "i16"), size // 2), v.const(v.type("i8", size), -128)

    def finish(acc: list[Any], scale: list[Any]) -> Any:
        q = [v.nearest(v.fmul(v.to_float(a), s)) for a, s in zip(acc, scale)]
        words = [v.pack16(q[h], q[h + 1]) for h in (0, 2)]
        if positive:
            code = v.pack8_unsigned(*words)
            return code if shift else v.xor(code, flip)
        code = v.min(v.max(v.pack8(*(v.sat_add(x, zero) for x in words)), low), high)
        return v.xor(code, flip) if shift else code
    return finish


def store_bytes(v: Any, value: Any, to: Any, left: Any) -> None:
    """Write the first `left` bytes: the widest stores that fit, one after the other."""
    lanes = value.type.count
    if lanes <= 4:
        v.either(v.icmp(">=", left, lanes), lambda: v.store(value, to), lambda: v.mstore(value, to, v.mask(lanes, left)))
        return
    lower, upper = v.halves(value)

    def more() -> None:
        v.store(lower, to)
        store_bytes(v, upper, v.at(to, lanes // 2), v.sub(left, lanes // 2))

    def partly() -> None:
        v.either(v.icmp(">=", left, lanes // 2), more, lambda: store_bytes(v, lower, to, left))
    v.either(v.icmp(">=", left, lanes), lambda: v.store(value, to), partly)
