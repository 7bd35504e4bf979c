"""CONV_2D of int16 activations with int8, int4 or int16 weights, bit exact with LiteRT's kernels; products of matrices, too.

The bias decides the rounding: int64 (or none) a 64-bit accumulator and a 16-bit multiplier ("once"), int32 a wrapping 32-bit
accumulator and a 31-bit multiplier ("twice"). FULLY_CONNECTED has a 64-bit accumulator and float64 scales ("double16").
8-bit weights: int16 tiles. Where the weights' magnitude shows that no sum can
leave 32 bits, the tiles end in codes; else k is cut into blocks whose sums fit, which are added up in 64 bits. 16-bit weights:
plain loops.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import (
    copy_bytes,
    fill_bytes,
    load_f64,
    load_i16,
    load_i32,
    load_i64,
    round_f64,
    store_i16,
    store_i64,
)
from litejit.ops.arithmetic import mbqm, mbqm64, quantize_multipliers, saturate, wrap32
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target
from litejit.ops.conv_geometry import FIELDS, Windows, grid
from litejit.ops.conv_int8 import multipliers
from litejit.ops.simd.gemm_int8 import TILES, make_gemm, pack_int8, panel_bytes, tile_params
from litejit.ops.simd.stage_int8 import stage_block, stage_int16
from litejit.ops.simd.tiles import grain, tile_shape, tiles
from litejit.planner.graph import Node, Value

SUM_LIMIT = 1 << 16                   # of absolute weights: below, sums with int16 activations fit 32 bits
COMMON = [*FIELDS, ("x", "i8"), ("w", "i8"), ("y", "i8"), ("scratch", "i8"), ("scratch_size", "i8"), ("pitch", "i8"),
          ("n", "i8"), ("groups", "i8"), ("group_bytes", "i8"), ("rows", "i8"), ("block", "i8"), ("low", "i8"), ("high", "i8")]
FUSED = np.dtype([*COMMON, *TILES, ("panel_bytes", "i8"), ("columns", "i8"), ("row_chunks", "i8"), ("column_chunks", "i8"),
                  ("direct", "i8")], align=True)
CONV16 = np.dtype([*COMMON, *TILES, ("bias", "i8"), ("multipliers", "i8"), ("k_block", "i8"), ("block_bytes", "i8"),
                   ("end", "i8")], align=True)
ENDS = {"once": 0, "twice": 1, "double16": 2}


class Rounding16:
    """What the accumulators of `count` int16 channels become codes with.

    bias: int64 [count]; narrow: the bias is int32; numbers: of the channels, as the end of the tiles wants them: int32
    multipliers with shifts, or None where the shifts are beyond its range; float64 scales of "double16".
    """

    __slots__ = ("bias", "end", "narrow", "numbers", "reals")

    def __init__(self, bias: Value | None, reals: np.ndarray, count: int, double: bool = False) -> None:
        """reals: real scales, one or one per channel; double: they multiply."""
        self.bias = np.zeros(count, np.int64) if bias is None else np.asarray(bias.data).astype(np.int64).reshape(count)
        self.reals = np.ascontiguousarray(np.broadcast_to(np.asarray(reals, np.float64), (count,)))
        self.narrow = bias is not None and bias.type == "i32" and not double
        self.end = "double16" if double else "twice" if self.narrow else "once"
        self.numbers: tuple[np.ndarray, ...] | None = (self.reals,)
        if double:
            return
        whole, shift = quantize_multipliers(self.reals)
        if not self.narrow:
            whole = np.where(whole < 0x7FFF0000, whole.astype(np.int64) + (1 << 15) >> 16, 0x7FFF).astype(np.int32)
            shift = 15 - shift
        good = (abs(shift) <= 31).all() if self.narrow else (shift >= 1).all()
        self.numbers = (whole, shift.astype(np.int32)) if good else None

    def fits(self, sums: np.ndarray) -> bool:
        """Whether 32-bit lanes do; sums [count] of absolute weights. The int32 bias wraps anyway."""
        most = 32768 * sums.astype(np.float64) + np.abs(self.bias.astype(np.float64))
        if self.end == "double16":
            most = 1 + np.maximum(most, most * np.abs(self.reals))
        return self.numbers is not None and (self.narrow or bool((most < 2.0**31).all()))

    def key(self) -> tuple[Any, ...]:
        """What tells packed weights with these numbers from others."""
        assert self.numbers is not None
        return self.end, self.bias.tobytes(), *(x.tobytes() for x in self.numbers)

    def table(self) -> Packed:
        """The numbers that 64-bit accumulators are rounded with: multipliers and shifts, or float64 scales."""
        if self.end == "double16":
            return Packed(("scales64", self.reals.tobytes()), lambda: self.reals)
        return multipliers(self.reals, len(self.reals))

    def packed_bias(self) -> Packed:
        """The bias as int64."""
        return Packed(("bias64", self.bias.tobytes()), lambda: self.bias)


def conv_16_steps(node: Node, target: Target, w: Value, windows: Windows, rounding: Rounding16, bounds: tuple[int, int]
                  ) -> list[Step]:
    """Steps of an int16 convolution with constant weights [O, ...]."""
    o, groups, k = w.dims[0], windows.groups, windows.k
    common = {**windows.params(), "x": node[0], "y": node.out, "n": o // groups, "groups": groups, "low": bounds[0],
              "high": bounds[1]}
    if w.type == "i16":
        common.update(w=w, block_bytes=0, k_block=k, group_bytes=o // groups * k * 2)
        return [_exact_step(node, target, conv_16x16, windows, rounding, common)]
    data = np.asarray(w.data).view(np.int8).reshape(groups, o // groups, k)
    sums = np.abs(data.astype(np.int16)).sum(axis=2, dtype=np.int64)
    if rounding.fits(sums.reshape(o)):
        return [_fused_step(node, target, w, data, windows, rounding, common)]
    block = fitting_block(data)
    common.update(k_block=block)
    common["w"], common["block_bytes"], common["group_bytes"] = _panels(target, w, data, block)
    common.update(tile_params(target.cpu, o // groups, "i32", wide=True))
    return [_exact_step(node, target, conv_16x8_blocks, windows, rounding, common)]


def fitting_block(data: np.ndarray) -> int:
    """The largest even part of k whose sums fit 32 bits wherever it begins at a multiple of it; weights [groups, n, k]."""
    size, k = np.abs(data.astype(np.int16)), data.shape[-1]
    count = 1
    while True:
        block = -(-k // (2 * count)) * 2
        if np.add.reduceat(size, range(0, k, block), axis=2, dtype=np.int64).max() < SUM_LIMIT:
            return block
        count += 1


def _fused_step(node: Node, target: Target, w: Value, data: np.ndarray, windows: Windows, rounding: Rounding16,
                common: dict[str, Any]) -> Step:
    """All of k in one tile, which ends in codes."""
    (groups, n, k), cpu, m = data.shape, target.cpu, windows.m
    mr, nr = tile_shape(cpu, "int8")
    rows, columns = grid(m, n, k, mr, 2 * nr, grain=grain(cpu, "f32"), most=MAX_CHUNKS, by_columns=False)
    row_chunks, column_chunks = -(-m // rows), -(-n // columns)
    direct = windows.kh * windows.kw * windows.sh * windows.sw == 1
    pitch = windows.channels * 2 if direct else -(-2 * k // 64) * 64 | 64
    block, chunks = min(rows, stage_block(cpu, 2 * k)), groups * row_chunks * column_chunks
    size = 0 if direct else block * pitch + 64

    def build() -> np.ndarray:
        assert rounding.numbers is not None
        bias, *numbers = (x.reshape(groups, n) for x in (rounding.bias, *rounding.numbers))
        return np.stack([pack_int8(cpu, data[g], bias[g], *(x[g] for x in numbers), wide=True) for g in range(groups)])
    each = panel_bytes(cpu, k, wide=True)
    common.update(
        w=Packed((w.key, "conv 16x8 codes", cpu.name, groups, *rounding.key()), build), panel_bytes=each // nr,
        group_bytes=-(-n // nr) * each, rows=rows, columns=columns, row_chunks=row_chunks, column_chunks=column_chunks,
        block=block, pitch=pitch, scratch=Scratch(chunks * size), scratch_size=size, direct=int(direct),
        **tile_params(cpu, n, rounding.end, wide=True))
    return Step(node, conv_16x8, common, chunks, macs=m * node[1].size)


def _exact_step(node: Node, target: Target, made: Any, windows: Windows, rounding: Rounding16, common: dict[str, Any]
                ) -> Step:
    """Accumulators of 64 bits in memory."""
    k, m, n, groups, mr = windows.k, windows.m, common["n"], windows.groups, tiles(target.cpu).int8[0]
    rows, _ = grid(m, n * groups, k, mr, n * groups, grain=grain(target.cpu, "f32"), most=MAX_CHUNKS, by_columns=False)
    chunks, block = -(-m // rows), min(rows, 8 * mr)
    pitch = -(-2 * k // 64) * 64 | 64
    size = block * pitch + 64 + -(-(block * n * 12 + 64) // 64) * 64
    common.update(bias=rounding.packed_bias(), multipliers=rounding.table(), end=ENDS[rounding.end],
                  scratch=Scratch(chunks * size), scratch_size=size, pitch=pitch, rows=rows, block=block)
    return Step(node, made, common, chunks, macs=m * node[1].size)


def _panels(target: Target, w: Value, data: np.ndarray, block: int) -> tuple[Packed, int, int]:
    """(panels [group][block of k], bytes of a whole block of k, bytes of a group)."""
    (groups, n, k), cpu = data.shape, target.cpu
    count = -(-n // tile_shape(cpu, "int8")[1])
    cuts, nothing = [(at, min(k, at + block)) for at in range(0, k, block)], np.zeros(n, np.int64)

    def build() -> np.ndarray:
        parts = [pack_int8(cpu, one[:, a:b], nothing, wide=True).ravel() for one in data for a, b in cuts]
        return np.concatenate(parts)
    sizes = [count * panel_bytes(cpu, b - a, wide=True) for a, b in cuts]
    return Packed((w.key, "conv 16x8", cpu.name, groups, block), build), sizes[0], sum(sizes)


# ---- device functions --------------------------------------------------------------------------

@device
def gather16(p, group, rows, first, count):
    """Copy the taps of the pixels first .. first + count next to each other, zeros outside of the image."""
    piece, x_row = p.depth * 2, p.width * p.channels * 2
    whole, run, tap_row = p.dw == 1 and p.depth == p.channels, p.kw * piece, p.dh * x_row
    ox, r = first % p.out_width, first // p.out_width
    oy, image = r % p.out_height, r // p.out_height
    for i in range(count):
        iy, ix, to = oy * p.sh - p.top, ox * p.sw - p.left, rows + i * p.pitch
        source = p.x + (image * p.height + iy) * x_row + (ix * p.channels + group * p.depth) * 2
        if whole and ix >= 0 and ix + p.kw <= p.width and iy >= 0 and iy + (p.kh - 1) * p.dh < p.height:
            stage_int16(source, to, p.kh, tap_row, run, run)
        else:
            gather16_border(p, source, to, iy, ix)
        ox += 1
        if ox == p.out_width:
            ox, oy = 0, oy + 1
        if oy == p.out_height:
            oy, image = 0, image + 1


@device
def gather16_border(p, source, to, iy, ix):
    """One pixel, some taps of which may lie outside of the image."""
    piece, pixel = p.depth * 2, p.channels * 2
    for ky in range(p.kh):
        y = iy + ky * p.dh
        for kx in range(p.kw):
            x = ix + kx * p.dw
            if y >= 0 and y < p.height and x >= 0 and x < p.width:
                copy_bytes(to, source + (ky * p.dh * p.width + kx * p.dw) * pixel, piece)
            else:
                fill_bytes(to, 0, piece)
            to += piece


@device
def round_row(p, sums, channel, y):
    """Codes of n 64-bit accumulators."""
    for j in range(p.n):
        total = load_i64(sums, j) + load_i64(p.bias, channel + j)
        if p.end == 2:
            real = round_f64(np.float64(total) * load_f64(p.multipliers, channel + j))
            store_i16(y, j, np.int16(np.int32(min(max(real, np.float64(p.low)), np.float64(p.high)))))
            continue
        factor, shift = load_i32(p.multipliers, 2 * (channel + j)), load_i32(p.multipliers, 2 * (channel + j) + 1)
        if p.end == 1:
            value = mbqm(wrap32(total), np.int64(factor), np.int64(shift))
        else:
            value = mbqm64(total, np.int64(factor), np.int64(shift))
        store_i16(y, j, np.int16(saturate(value, p.low, p.high)))


# ---- kernels -------------------------------------------------------------------------------------

_gemm_codes, _gemm_wide = make_gemm(), make_gemm()


@kernel(FUSED)
def conv_16x8(p, begin, end):
    """A chunk is a block of pixels and some columns of one group. Direct: pixels are rows of the matrix as they are."""
    k, scratch = p.kh * p.kw * p.depth, p.scratch + begin * p.scratch_size
    for c in prange(begin, end):
        column = c % p.column_chunks * p.columns
        row = c // p.column_chunks % p.row_chunks * p.rows
        group = c // (p.column_chunks * p.row_chunks)
        last, ldc = min(p.m, row + p.rows), p.groups * p.n * 2
        panels = p.w + group * p.group_bytes + column * p.panel_bytes
        for first in range(row, last, p.block):
            count = min(p.block, last - first)
            rows = scratch
            if p.direct != 0:
                rows = p.x + (first * p.channels + group * p.depth) * 2
            else:
                gather16(p, group, rows, first, count)
            _gemm_codes(p, rows, p.pitch, panels, p.y + first * ldc + (group * p.n + column) * 2, ldc, count, k,
                        min(p.columns, p.n - column), 0, p.low, p.high, 0, 0)
    return 0


@kernel(CONV16)
def conv_16x8_blocks(p, begin, end):
    """A chunk is a block of pixels."""
    k, n = p.kh * p.kw * p.depth, p.n
    rows = p.scratch + begin * p.scratch_size
    sums = rows + p.block * p.pitch + 64
    acc = sums + p.block * n * 8
    for c in prange(begin, end):
        last = min(p.m, (c + 1) * p.rows)
        for first in range(c * p.rows, last, p.block):
            count = min(p.block, last - first)
            for group in range(p.groups):
                gather16(p, group, rows, first, count)
                for at in range(0, k, p.k_block):
                    panels = p.w + group * p.group_bytes + at // p.k_block * p.block_bytes
                    _gemm_wide(p, rows + at * 2, p.pitch, panels, acc, n * 4, count, min(p.k_block, k - at), n, 0, 0, 0, 0, 0)
                    if at == 0:
                        for i in range(count * n):
                            store_i64(sums, i, np.int64(load_i32(acc, i)))
                    else:
                        for i in range(count * n):
                            store_i64(sums, i, np.int64(load_i32(acc, i)) + load_i64(sums, i))
                for i in range(count):
                    channel = group * n
                    round_row(p, sums + i * n * 8, channel, p.y + ((first + i) * p.groups * n + channel) * 2)
    return 0


@kernel(CONV16)
def conv_16x16(p, begin, end):
    """A chunk is a block of pixels; weights [O, k] of int16."""
    k, n = p.kh * p.kw * p.depth, p.n
    rows = p.scratch + begin * p.scratch_size
    sums = rows + p.block * p.pitch + 64
    for c in prange(begin, end):
        last = min(p.m, (c + 1) * p.rows)
        for first in range(c * p.rows, last, p.block):
            count = min(p.block, last - first)
            for group in range(p.groups):
                gather16(p, group, rows, first, count)
                for i in range(count):
                    channel = group * n
                    for j in range(n):
                        total, w = 0, p.w + group * p.group_bytes + j * k * 2
                        for q in range(k):
                            total += np.int64(load_i16(rows + i * p.pitch, q)) * np.int64(load_i16(w, q))
                        store_i64(sums, j, total)
                    round_row(p, sums, channel, p.y + ((first + i) * p.groups * n + channel) * 2)
    return 0
