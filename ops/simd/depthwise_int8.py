"""Integer depthwise tiles: a few output columns of one row, all channels, any kernel, on every CPU.

Activations are widened to int16 and taken in pairs of taps: interleaved, one 16-bit multiply-add sums two taps in 32 bits.
Zero points are part of `first`; taps outside of the image must read codes of the zero point. Channels go in blocks of two
registers of accumulators, whose lanes are in the order that interleaving leaves (`lane_order`).

A block of weights is [first 2 x L i32][scale 2 x L f32][pairs of taps][2 x L pairs of i16]. Ends: "code" requantises as
XNNPACK does, "i32" stores accumulators in the order of the channels, "once" and "twice" make int16 codes by LiteRT's fixed
point (`epilogues.Fixed`), whose blocks have int32 multipliers instead of scales, and then int32 shifts.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.depthwise_bytes import by_bytes, emit_bytes
from litejit.ops.simd.epilogues import Fixed
from litejit.ops.simd.tiles import tiles

FIXED = ("once", "twice")


def lane_order(lanes: int) -> list[int]:
    """Channel within a block of 2 * lanes that each lane of the two accumulators holds."""
    parts = range(0, 2 * lanes, 8)
    return [p + r for p in parts for r in range(4)] + [p + r for p in parts for r in range(4, 8)]


def block_shape(cpu: Cpu, taps: int, fixed: bool = False, codes: bool = False) -> tuple[int, int]:
    """(channels of a block, bytes of its weights); fixed: with shifts; codes: for the "code" end."""
    if codes and by_bytes(cpu):
        return 4 * cpu.lanes, (2 + -(-taps // 2)) * 4 * cpu.vbytes
    return 2 * cpu.lanes, (2 + fixed + -(-taps // 2)) * 2 * cpu.vbytes


def pack_depthwise_int8(cpu: Cpu, weights: np.ndarray, first: np.ndarray, scale: np.ndarray | None = None,
                        shift: np.ndarray | None = None) -> np.ndarray:
    """weights [taps, channels] in int16's range, first int32 [channels], scale float32 or None -> uint8 [blocks, bytes].

    With `shift`, it and `scale` are int32.
    """
    (taps, channels), width = weights.shape, 2 * cpu.lanes
    blocks, pairs, order = -(-channels // width), -(-taps // 2), lane_order(cpu.lanes)
    whole = np.zeros((2 * pairs, blocks * width), np.int16)
    whole[:taps, :channels] = weights
    heads = 2 if shift is None else 3
    parts = np.zeros((blocks, heads + pairs, width, 4), np.uint8)

    def header(at: int, values: np.ndarray, dtype: Any) -> None:
        row = np.zeros(blocks * width, dtype)
        row[:channels] = values
        parts[:, at] = np.ascontiguousarray(row.reshape(blocks, width)[:, order]).view(np.uint8).reshape(blocks, width, 4)
    header(0, first.astype(np.int64).astype(np.int32), np.int32)
    if scale is not None:
        header(1, scale, np.float32 if shift is None else np.int32)
    if shift is not None:
        header(2, shift, np.int32)
    taken = whole.reshape(pairs, 2, blocks, width)[:, :, :, order].transpose(2, 0, 3, 1)
    parts[:, heads:] = np.ascontiguousarray(taken).view(np.uint8).reshape(blocks, pairs, width, 4)
    return parts.reshape(blocks, -1)


def emit_columns(type: str, end: str, single: bool) -> Callable[..., None]:
    """Generator for activations of `type` "i8", "u8" or "i16": `tiles` tiles of some columns, or of one column.

    Arguments: table of tap addresses (an even number; the odd one out of any address), pairs, tiles, offset and step of the
    columns in the input, weights, y, step of the columns in the output, channels, lo, hi, zero_point.
    """
    def emit(v: Any, table: Any, pairs: Any, tiles_: Any, offset: Any, step: Any, weights: Any, y: Any, out_step: Any,
             channels: Any, lo: Any, hi: Any, zero_point: Any) -> None:
        if end == "code" and by_bytes(v.cpu):
            emit_bytes(type, single, v, table, pairs, tiles_, offset, step, weights, y, out_step, channels, lo, hi, zero_point)
            return
        count, size, width = 1 if single else tiles(v.cpu).depthwise, v.cpu.vbytes, 2 * v.lanes
        x_at, y_at = ([v.mul(s, t) for t in range(count)] for s in (step, out_step))
        bounds = tuple(v.splat(v.trunc(x, "i16"), width) for x in (lo, hi, zero_point))
        ends = [[p + h + r + o * width for p in range(0, width, 8) for r in range(4) for o in (0, 1)] for h in (0, 4)]
        heads = 3 if end in FIXED else 2
        block = v.mul(v.add(pairs, heads), 2 * size)

        def load16(address: Any) -> Any:
            if type == "i16":
                return v.load(v.type("i16", width), address)
            x = v.load(v.type("i8", width), address)
            return v.sext(x, "i16") if type == "i8" else v.zext(x, "i16")

        def pair(here: Any, at: Any, i: Any, acc: list[Any]) -> list[Any]:
            x = [v.at(v.load(v.type("ptr"), table, v.add(v.shl(i, 4), 8 * k), 8), at) for k in (0, 1)]
            w = [v.load(v.i32, here, v.add(v.mul(v.add(i, heads), 2 * size), h * size)) for h in (0, 1)]
            made = []
            for t in range(count):
                even, odd = (load16(v.at(address, x_at[t])) for address in x)
                for h in (0, 1):
                    both = v.bitcast(v.shuffle(even, odd, ends[h]), v.i32)
                    made.append(v.dot16(acc[2 * t + h], both, w[h]))
            return made

        def tile(k: Any, moved: list[Any]) -> list[Any]:
            offset, y = moved

            def blocks(c: Any, moved: list[Any]) -> list[Any]:
                (here,) = moved
                at = v.add(offset, v.shl(c, 1) if type == "i16" else c)
                first = [v.load(v.i32, here, h * size) for h in (0, 1)]
                acc = v.loop(pairs, first * count, lambda i, acc: pair(here, at, i, acc))
                scale = [v.load(v.i32 if end in FIXED else v.f32, here, (2 + h) * size) for h in (0, 1)]
                fixed = [Fixed(v, end == "twice", scale[h], v.load(v.i32, here, (4 + h) * size)) for h in (0, 1)
                         if end in FIXED]
                left = v.sub(channels, c)
                for t in range(count):
                    both, row = acc[2 * t:2 * t + 2], v.at(y, y_at[t])
                    if end == "code":
                        _store(v, codes16(v, both, scale, bounds), row, c, left)
                        continue
                    if fixed:
                        x = narrow16(v, [one(a) for one, a in zip(fixed, both)])
                        _store(v, v.min(v.max(x, bounds[0]), bounds[1]), row, v.shl(c, 1), left)
                        continue
                    for h, value in enumerate(in_order(v, both)):
                        _store(v, value, row, v.shl(v.add(c, h * v.lanes), 2), v.sub(left, h * v.lanes))
                return [v.at(here, block)]
            v.loop(channels, [weights], blocks, step=width)
            return [v.add(offset, v.mul(step, count)), v.at(y, v.mul(out_step, count))]
        v.loop(tiles_, [offset, y], tile)
    return emit


def _store(v: Any, value: Any, row: Any, at: Any, left: Any) -> None:
    """Write the lanes of a vector that are channels."""
    lanes = value.type.count
    v.either(v.icmp(">=", left, lanes), lambda: v.store(value, row, at),
             lambda: v.mstore(value, row, v.mask(lanes, left), at))


def in_order(v: Any, acc: list[Any]) -> list[Any]:
    """Two accumulators in the order of the channels."""
    order = lane_order(v.lanes)
    where = [order.index(channel) for channel in range(2 * v.lanes)]
    return [v.shuffle(acc[0], acc[1], where[h * v.lanes:(h + 1) * v.lanes]) for h in (0, 1)]


def narrow16(v: Any, x: list[Any]) -> Any:
    """Two registers of i32 as int16 with saturation, in the order of the channels."""
    if v.x86:
        return v.pack16(*x)                                            # packing undoes the interleaving
    return v.trunc(v.join(*in_order(v, [v.min(v.max(one, -32768), 32767) for one in x])), "i16")


def codes16(v: Any, acc: list[Any], scale: list[Any], bounds: tuple[Any, ...]) -> Any:
    """XNNPACK's codes of two accumulators, 2 * lanes bytes in the order of the channels."""
    low, high, zero = bounds
    scaled = [v.fmul(v.to_float(a), s) for a, s in zip(acc, scale)]
    if v.x86:
        x = narrow16(v, [v.nearest(s) for s in scaled])
    else:
        most = v.const(v.f32, 32000.0)
        x = [v.nearest(v.clamp(s, v.fneg(most), most)) for s in scaled]
        x = v.trunc(v.join(*in_order(v, x)), "i16")
    return v.trunc(v.min(v.max(v.sat_add(x, zero), low), high), "i8")


def columns_int8(type: str, end: str, single: bool) -> MicroKernel:
    """The micro-kernel for activations of `type`."""
    return micro_kernel(f"depthwise_{type}_{end}{'_single' if single else ''}", "piiiippiiiii", emit_columns(type, end, single))
