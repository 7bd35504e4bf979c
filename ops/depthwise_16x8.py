"""DEPTHWISE_CONV_2D of int16 activations, bit exact with LiteRT's kernels.

The bias decides the rounding, as in ops/conv_16x8.py. Where no sum can leave 32 bits, the tiles end in codes.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import load_i16, load_i32, load_i64, store_i16, store_i64
from litejit.ops.arithmetic import mbqm, mbqm64, saturate, wrap32
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.conv_16x8 import SUM_LIMIT, Rounding16
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_int8 import multipliers
from litejit.ops.depthwise_rows import ROWS, column_taps, make_rows, row_params
from litejit.ops.simd.depthwise_int8 import block_shape, columns_int8, pack_depthwise_int8
from litejit.planner.graph import Node, Value

WIDE = np.dtype([("low", "i8"), ("high", "i8"), ("acc", "i8"), ("multipliers", "i8"), ("bias", "i8"), ("narrow", "i8"),
                 *ROWS], align=True)
CODES = np.dtype([("low", "i8"), ("high", "i8"), *ROWS], align=True)


def depthwise_16_steps(node: Node, target: Target, x: Any, w: Value, bias: Value | None, windows: Windows, reals: np.ndarray,
                       bounds: tuple[int, int]) -> list[Step]:
    """Steps of an int16 depthwise convolution; reals: real scales, one or one per channel."""
    cpu, channels, taps = target.cpu, windows.channels, windows.kh * windows.kw
    data = np.asarray(w.data).reshape(taps, channels)
    data = data if w.type == "i16" else data.view(np.int8)
    rounding, sums = Rounding16(bias, reals, channels), np.abs(data.astype(np.int32)).sum(axis=0, dtype=np.int64)
    fused = w.type != "i16" and rounding.fits(sums)
    made, packed = _packed(cpu, w, data, rounding, fused, bool((sums < SUM_LIMIT).all()))
    params, chunks = row_params(cpu, windows, x, packed, node.out, zeros((windows.width * channels + 64) * 2), 2,
                                block_shape(cpu, taps, fused))
    params.update(low=bounds[0], high=bounds[1])
    if not fused:
        params.update(multipliers=multipliers(reals, channels), bias=rounding.packed_bias(), narrow=int(rounding.narrow),
                      acc=Scratch(chunks * (windows.out_width * channels * 8 + 64)))
    return [Step(node, made, params, chunks, macs=windows.m * channels * taps)]


def _packed(cpu: Cpu, w: Value, data: np.ndarray, rounding: Rounding16, fused: bool, fits: bool) -> tuple[Any, Packed]:
    """(kernel, weights as it reads them); fits: sums without bias do."""
    if fused:
        return CODE_KERNELS[rounding.end], Packed(
            (w.key, "depthwise 16x8 codes", cpu.lanes, *rounding.key()),
            lambda: pack_depthwise_int8(cpu, data, rounding.bias, *(rounding.numbers or ())))
    if w.type != "i16" and fits:
        return depthwise_16x8, Packed(
            (w.key, "depthwise 16x8", cpu.lanes),
            lambda: pack_depthwise_int8(cpu, data, np.zeros(data.shape[1], np.int64)))
    return depthwise_16x16, Packed((w.key, "depthwise 16x16"), lambda: np.ascontiguousarray(data.astype(np.int16)))


def _make_codes(rounding: str) -> Any:
    rows = make_rows(columns_int8("i16", rounding, False), columns_int8("i16", rounding, True), 2, 2)

    @kernel(CODES, name=f"depthwise_16x8_{rounding}")
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table, row_bytes, pairs = p.table + begin * p.table_size, p.out_width * p.channels * 2, (p.kh * p.kw + 1) // 2
        for c in prange(begin, end):
            top, bottom = c * p.rows, min(p.m // p.out_width, (c + 1) * p.rows)
            rows(p, table, top, bottom, p.y + top * row_bytes, p.pad, pairs, p.low, p.high, 0)
        return 0
    return depthwise


CODE_KERNELS = {rounding: _make_codes(rounding) for rounding in ("once", "twice")}


@device
def round_16(p, total, channel):
    """Code of an accumulator without bias."""
    total += load_i64(p.bias, channel)
    factor, shift = np.int64(load_i32(p.multipliers, 2 * channel)), np.int64(load_i32(p.multipliers, 2 * channel + 1))
    value = mbqm(wrap32(total), factor, shift) if p.narrow != 0 else mbqm64(total, factor, shift)
    return np.int16(saturate(value, p.low, p.high))


_rows = make_rows(columns_int8("i16", "i32", False), columns_int8("i16", "i32", True), 2, 4)


@kernel(WIDE)
def depthwise_16x8(p, begin, end):
    """A chunk is some output rows."""
    table, pixels, pairs = p.table + begin * p.table_size, p.out_width, (p.kh * p.kw + 1) // 2
    acc = p.acc + begin * (pixels * p.channels * 8 + 64)
    for c in prange(begin, end):
        for row in range(c * p.rows, min(p.m // pixels, (c + 1) * p.rows)):
            _rows(p, table, row, row + 1, acc, p.pad, pairs, 0, 0, 0)
            y = p.y + row * pixels * p.channels * 2
            for ox in range(pixels):
                for channel in range(p.channels):
                    at = ox * p.channels + channel
                    store_i16(y, at, round_16(p, np.int64(load_i32(acc, at)), channel))
    return 0


@kernel(WIDE)
def depthwise_16x16(p, begin, end):
    """A chunk is some output rows; int16 weights [taps, channels]."""
    table, pixels, taps, channels = p.table + begin * p.table_size, p.out_width, p.kh * p.kw, p.channels
    acc = p.acc + begin * (pixels * channels * 8 + 64)
    for c in prange(begin, end):
        for row in range(c * p.rows, min(p.m // pixels, (c + 1) * p.rows)):
            for ox in range(pixels):
                column_taps(p, table, row, ox, 2, p.pad)
                for channel in range(channels):
                    store_i64(acc, channel, 0)
                for tap in range(taps):
                    x, w = load_i64(table, tap), p.w + tap * channels * 2
                    for channel in range(channels):
                        product = np.int64(load_i16(x, channel)) * np.int64(load_i16(w, channel))
                        store_i64(acc, channel, load_i64(acc, channel) + product)
                y = p.y + (row * pixels + ox) * channels * 2
                for channel in range(channels):
                    store_i16(y, channel, round_16(p, load_i64(acc, channel), channel))
    return 0
