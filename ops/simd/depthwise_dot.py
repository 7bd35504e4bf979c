"""Depthwise tiles of 8-bit codes for AVX-512 with a dot product of bytes: square kernels with stride 1.

Four neighbouring pixels are interleaved byte by byte, for a whole register of channels at a time: four bytes of a lane are
then four taps of a row. The same registers serve several output columns, for which the weights are shifted:

    pixels   0 1 2 3            width 3: w0 w1 w2 0 for column 0, 0 w0 w1 w2 for column 1
    pixels   0 1 2 3, 4 5 6 7   width 5: w0 w1 w2 w3, w4 0 0 0 for column 0, ... 0 0 0 w0, w1 w2 w3 w4 for column 3

A block of weights, of four registers of accumulators, is [first 4 x L i32][scale 4 x L f32], then for each row of the kernel,
column and four pixels 4 x L groups of four i8; channels in the order that interleaving leaves. Signed codes are made unsigned
by their top bit.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.depthwise_bytes import PART, byte_order, code_bytes, heads, store_bytes
from litejit.ops.simd.tiles import tiles

WIDTHS = (3, 5)


def has_dot_tiles(cpu: Cpu) -> bool:
    """Whether a level has these tiles: they need 32 registers."""
    return cpu.arch == "x86_64" and bool(cpu.dot) and cpu.vbytes == 64


def fours(width: int) -> tuple[int, int]:
    """(groups of four pixels, output columns that they serve) for kernels of a width."""
    groups = -(-width // 4)
    return groups, 4 * groups - width + 1


def block_bytes(cpu: Cpu, width: int) -> int:
    """Bytes of the weights of a block of `cpu.vbytes` channels."""
    groups, columns = fours(width)
    return (2 + width * columns * groups) * 4 * cpu.vbytes


def pack_dot(cpu: Cpu, weights: np.ndarray, first: np.ndarray, scale: np.ndarray, signed: bool) -> np.ndarray:
    """weights [width * width, channels] in int8's range, first int32 and scale float32 [channels] -> uint8 [blocks, bytes]."""
    (taps, channels), size = weights.shape, cpu.vbytes
    width = round(taps ** 0.5)
    (groups, columns), blocks = fours(width), -(-channels // size)
    spread = np.zeros((width, columns, 4 * groups, blocks * size), np.int8)
    for column in range(columns):
        spread[:, column, column:column + width, :channels] = weights.reshape(width, width, channels)
    lanes = spread.reshape(width * columns * groups, 4, -1).transpose(0, 2, 1).view(np.uint8)
    both = np.concatenate([heads(weights, first, scale, signed, blocks * size), lanes]).reshape(-1, blocks, size, 4)
    return np.ascontiguousarray(both[:, :, byte_order(cpu)].transpose(1, 0, 2, 3)).reshape(blocks, -1)


def emit_dot(type: str, width: int, single: bool) -> Callable[..., None]:
    """Generator with the arguments of ops/simd/depthwise_int8.py's `emit_columns`, the table in rows of the kernel.

    A tile's pixels lie side by side from the address of its first tap; those of a single column are all in the table.
    """
    groups, served = fours(width)

    def emit(v: Any, table: Any, pairs: Any, tiles_: Any, offset: Any, step: Any, weights: Any, y: Any, out_step: Any,
             channels: Any, lo: Any, hi: Any, zero_point: Any) -> None:
        count, size = 1 if single else tiles(v.cpu).depthwise, v.cpu.vbytes
        x_at, y_at = [v.mul(step, t) for t in range(count + width - 1)], [v.mul(out_step, t) for t in range(count)]
        ty, flip = v.type("i8", size), v.const(v.type("i8", size), -128)
        finish = code_bytes(v, type, lo, hi, zero_point)
        block = block_bytes(v.cpu, width)
        nothing = v.min(v.sub(pairs, 1), 0)              # 0, which LLVM does not know: registers cannot keep all weights

        def pixels(row: int, column: int, at: Any) -> list[Any]:
            """The inputs that the columns from `column` on see in a row, 4 * groups of them; past the last one, it again."""
            last = min(count, column + served) + width - 2
            which = [min(column + k, last) for k in range(4 * groups)]
            if single:
                addresses = [v.load(v.type("ptr"), table, 8 * (row * width + k), 8) for k in range(width)]
                loaded = {k: v.load(ty, v.at(addresses[k], at)) for k in dict.fromkeys(which)}
            else:
                begin = v.at(v.load(v.type("ptr"), table, 8 * row * width, 8), at)
                loaded = {k: v.load(ty, v.at(begin, x_at[k])) for k in dict.fromkeys(which)}
            return [v.xor(loaded[k], flip) if type == "i8" else loaded[k] for k in which]

        def columns(here: Any, column: int, at: Any, first: list[Any]) -> list[list[Any]]:
            """Accumulators of the columns that the same pixels serve."""
            acc = [list(first) for _ in range(min(served, count - column))]
            for row in range(width):
                x = pixels(row, column, at)
                for group in range(groups):
                    lanes = interleaved(v, x[4 * group:4 * group + 4])
                    for t in range(len(acc)):
                        where = 2 + (row * served + t) * groups + group
                        acc[t] = [v.dot(a, lane, v.load(v.i32, here, (4 * where + h) * size))
                                  for h, (a, lane) in enumerate(zip(acc[t], lanes))]
            return acc

        def tile(k: Any, moved: list[Any]) -> list[Any]:
            offset, y = moved

            def blocks(c: Any, moved: list[Any]) -> list[Any]:
                (here,) = moved
                first = [v.load(v.i32, here, h * size) for h in range(4)]
                scale = [v.load(v.f32, here, (4 + h) * size) for h in range(4)]
                for column in range(0, count, served):
                    again = v.at(here, nothing) if column else here
                    for t, acc in enumerate(columns(again, column, v.add(offset, c), first)):
                        store_bytes(v, finish(acc, scale), v.at(v.at(y, y_at[column + t]), c), v.sub(channels, c))
                return [v.at(here, block)]
            v.loop(channels, [weights], blocks, step=size)
            return [v.add(offset, v.mul(step, count)), v.at(y, v.mul(out_step, count))]
        v.loop(tiles_, [offset, y], tile)
    return emit


def interleaved(v: Any, x: list[Any]) -> list[Any]:
    """Four registers whose lanes are the bytes of four registers, in `byte_order`."""
    def halves(a: Any, b: Any, unit: int) -> list[Any]:
        size, part = a.type.count, PART // unit
        order = [[p + h + i // 2 + (i % 2) * size for p in range(0, size, part) for i in range(part)] for h in (0, part // 2)]
        return [v.shuffle(a, b, one) for one in order]
    words = v.type("i16", v.cpu.vbytes // 2)
    low, high = ([v.bitcast(half, words) for half in halves(a, b, 1)] for a, b in (x[:2], x[2:]))
    return [v.bitcast(half, v.i32) for one, other in zip(low, high) for half in halves(one, other, 2)]


def columns_dot(type: str, width: int, single: bool) -> MicroKernel:
    """The micro-kernel for activations of `type` and kernels of a width."""
    name = f"depthwise_dot_{type}_{width}{'_single' if single else ''}"
    return micro_kernel(name, "piiiippiiiii", emit_dot(type, width, single))
