"""CONV_2D of int16 activations with int8, int4 or int16 weights, bit exact with LiteRT's kernels.

8-bit weights: int16 tiles in blocks of k whose sums fit 32 bits, added up in 64 bits. 16-bit weights: plain loops. The bias
decides the rounding: int64 (or none) the 64-bit accumulator and a 16-bit multiplier, int32 a wrapping 32-bit accumulator.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import copy_bytes, fill_bytes, load_i16, load_i32, load_i64, store_i16, store_i64
from litejit.ops.arithmetic import mbqm, mbqm64, saturate, wrap32
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target
from litejit.ops.conv_geometry import FIELDS, Windows, grid
from litejit.ops.conv_int8 import multipliers
from litejit.ops.simd.gemm_int8 import make_gemm, pack_int8, panel_bytes
from litejit.ops.simd.tiles import tile_shape, tiles
from litejit.planner.graph import Node, Value

K_BLOCK = 512                         # |int16 * int8| < 2**22: this many products fit 32 bits
CONV16 = np.dtype([*FIELDS, ("x", "i8"), ("w", "i8"), ("y", "i8"), ("bias", "i8"), ("multipliers", "i8"), ("scratch", "i8"),
                   ("scratch_size", "i8"), ("pitch", "i8"), ("n", "i8"), ("groups", "i8"), ("block_bytes", "i8"),
                   ("group_bytes", "i8"), ("rows", "i8"), ("block", "i8"), ("low", "i8"), ("high", "i8"), ("narrow", "i8")],
                  align=True)
GRAIN = 1 << 18                       # multiply-accumulates worth a chunk


def conv_16_steps(node: Node, target: Target, w: Value, bias: Value | None, windows: Windows, reals: np.ndarray,
                  bounds: tuple[int, int]) -> list[Step]:
    """Steps of an int16 convolution; reals: real scales, one or one per channel."""
    x, y, cpu, groups, k, m = node[0], node.out, target.cpu, windows.groups, windows.k, windows.m
    o = w.dims[0]
    n = o // groups
    mr = tiles(cpu).int8[0]
    rows, _ = grid(m, n * groups, k, mr, o, grain=GRAIN, most=MAX_CHUNKS, by_columns=False)
    chunks = -(-m // rows)
    block = min(rows, 8 * mr)
    pitch = -(-2 * k // 64) * 64 | 64
    size = block * pitch + 64 + -(-(block * n * 12 + 64) // 64) * 64
    zeros = np.zeros(o, np.int64) if bias is None else np.asarray(bias.data).astype(np.int64).reshape(o)
    params = {
        **windows.params(), "x": x, "y": y, "bias": Packed(("bias64", zeros.tobytes()), lambda: zeros),
        "multipliers": multipliers(reals, o), "scratch": Scratch(chunks * size), "scratch_size": size, "pitch": pitch, "n": n,
        "groups": groups, "rows": rows, "block": block, "low": bounds[0], "high": bounds[1],
        "narrow": int(bias is not None and bias.type == "i32")}
    if w.type == "i16":
        params.update(w=w, block_bytes=0, group_bytes=n * k * 2)
        return [Step(node, conv_16x16, params, chunks, macs=m * k * o)]
    panels, params["block_bytes"], params["group_bytes"] = _panels(target, w, groups, n, k)
    params["w"] = panels
    return [Step(node, conv_16x8, params, chunks, macs=m * k * o)]


def _panels(target: Target, w: Value, groups: int, n: int, k: int) -> tuple[Packed, int, int]:
    """(panels [group][block of k], bytes of a whole block of k, bytes of a group)."""
    cpu = target.cpu
    count = -(-n // tile_shape(cpu, "int8")[1])
    cuts = [(at, min(k, at + K_BLOCK)) for at in range(0, k, K_BLOCK)]
    data, nothing = np.asarray(w.data).view(np.int8).reshape(groups, n, k), np.zeros(n, np.int64)

    def build() -> np.ndarray:
        parts = [pack_int8(cpu, one[:, a:b], nothing, wide=True).ravel() for one in data for a, b in cuts]
        return np.concatenate(parts)
    sizes = [count * panel_bytes(cpu, b - a, wide=True) for a, b in cuts]
    return Packed((w.key, "conv 16x8", cpu.name, groups), build), sizes[0], sum(sizes)


_gemm_wide = make_gemm("i32", wide=True)


@device
def gather16(p, group, rows, first, count):
    """Copy the taps of the pixels first .. first + count next to each other, zeros outside of the image."""
    piece = p.depth * 2
    for i in range(count):
        r = first + i
        ox, r = r % p.out_width, r // p.out_width
        iy, ix = r % p.out_height * p.sh - p.top, ox * p.sw - p.left
        to = rows + i * p.pitch
        for ky in range(p.kh):
            y = iy + ky * p.dh
            for kx in range(p.kw):
                x = ix + kx * p.dw
                if y >= 0 and y < p.height and x >= 0 and x < p.width:
                    at = ((r // p.out_height * p.height + y) * p.width + x) * p.channels + group * p.depth
                    copy_bytes(to, p.x + at * 2, piece)
                else:
                    fill_bytes(to, 0, piece)
                to += piece


@device
def round_row(p, sums, channel, y):
    """Codes of n 64-bit accumulators."""
    for j in range(p.n):
        total = load_i64(sums, j) + load_i64(p.bias, channel + j)
        factor, shift = load_i32(p.multipliers, 2 * (channel + j)), load_i32(p.multipliers, 2 * (channel + j) + 1)
        if p.narrow != 0:
            value = mbqm(wrap32(total), np.int64(factor), np.int64(shift))
        else:
            value = mbqm64(total, np.int64(factor), np.int64(shift))
        store_i16(y, j, np.int16(saturate(value, p.low, p.high)))


@kernel(CONV16)
def conv_16x8(p, begin, end):
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
                for at in range(0, k, K_BLOCK):
                    panels = p.w + group * p.group_bytes + at // K_BLOCK * p.block_bytes
                    _gemm_wide(rows + at * 2, p.pitch, panels, acc, n * 4, count, min(K_BLOCK, k - at), n, 0, 0, 0, 0, 0)
                    for i in range(count * n):
                        store_i64(sums, i, np.int64(load_i32(acc, i)) + (load_i64(sums, i) if at > 0 else 0))
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
