"""Depthwise tiles of 8-bit codes for AVX-512 with a dot product of bytes: square kernels, a few columns of a row or two.

Four input rows of a column are interleaved byte by byte, for a whole register of channels at a time: four bytes of a lane are
then four taps of a column of the kernel. The same registers serve both output rows, for which the weights are shifted, and all
output columns that see the input column. Kernels of width 5 take their last row four pixels at a time:

    rows 0 1 2 3                      width 3: w0 w1 w2 0 for the first output row, 0 w0 w1 w2 for the second (stride 1)
                                      width 5: w0 w1 w2 w3
    row 4, pixels 0 1 2 3, 4 5 6 7    w0 w1 w2 w3, w4 0 0 0 for the first output column, 0 w0 w1 w2, w3 w4 0 0 for the next ...

Channels are taken by whole registers, what is left by a half of one where that is enough. A block of weights is, for the four
registers of accumulators of so many channels, [first 4 x L i32][scale 4 x L f32], then 4 x L groups of four i8 for each column
of the kernel and output row, and for each start of an output column within four pixels and both fours of the last row;
channels in the order that interleaving leaves. Signed codes are made unsigned by their top bit.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.depthwise_bytes import PART, byte_order, code_bytes, heads
from litejit.ops.simd.tiles import tiles

DOWN = 4                              # input rows that are interleaved
ALONG = 5                             # width of kernels whose last row is taken along
TWO_ROWS = (3, 1)                     # (width, stride) of kernels whose tiles have two rows


def has_dot_tiles(cpu: Cpu) -> bool:
    """Whether a level has these tiles: they need 32 registers."""
    return cpu.arch == "x86_64" and bool(cpu.dot) and cpu.vbytes == 64


def dot_shape(cpu: Cpu, width: int, stride: int, part: str = "whole") -> tuple[int, int]:
    """(rows, columns) of a part of a tile, as of `part_shape` in ops/simd/depthwise_f32.py."""
    rows, columns = 2 if (width, stride) == TWO_ROWS else 1, tiles(cpu).depthwise
    return {"half": (rows, columns // 2), "row": (1, columns)}.get(part, (rows, columns))


def starts(cpu: Cpu, width: int, stride: int) -> list[int]:
    """Where output columns begin within four pixels of a last row that is taken along."""
    columns = dot_shape(cpu, width, stride)[1]
    return sorted({t * stride % 4 for t in range(columns)}) if width == ALONG else []


def half_of(cpu: Cpu) -> Cpu:
    """The level with registers of half the size."""
    return cpu._replace(vbytes=cpu.vbytes // 2)


def pieces(cpu: Cpu, channels: int) -> Iterator[tuple[Cpu, int, int]]:
    """(level, first channel, end) of each block of weights."""
    whole = (channels + cpu.vbytes // 2 - 1) // cpu.vbytes * cpu.vbytes
    for first in range(0, whole, cpu.vbytes):
        yield cpu, first, min(channels, first + cpu.vbytes)
    if whole < channels:
        yield half_of(cpu), whole, channels


def pack_dot(cpu: Cpu, weights: np.ndarray, first: np.ndarray, scale: np.ndarray, signed: bool, stride: int) -> np.ndarray:
    """weights [width * width, channels] in int8's range, first int32 and scale float32 [channels] -> uint8, block by block."""
    channels, width = weights.shape[1], round(len(weights) ** 0.5)
    rows, taps = dot_shape(cpu, width, stride)[0], weights.reshape(width, width, channels).astype(np.int8)
    down = np.zeros((width, rows, DOWN, channels), np.int8)
    for row in range(rows):
        seen = min(width, DOWN)
        down[:, row, row * stride:row * stride + seen] = taps[:seen].transpose(1, 0, 2)
    along = np.zeros((len(starts(cpu, width, stride)), 8, channels), np.int8)
    for k, start in enumerate(starts(cpu, width, stride)):
        along[k, start:start + width] = taps[-1]
    lanes = np.concatenate([down.reshape(-1, 4, channels), along.reshape(-1, 4, channels)]).transpose(0, 2, 1).view(np.uint8)
    made = []
    for level, begin, end in pieces(cpu, channels):
        block = np.zeros((2 + len(lanes), level.vbytes, 4), np.uint8)
        block[:2] = heads(weights[:, begin:end], first[begin:end], scale[begin:end], signed, level.vbytes)
        block[2:, :end - begin] = lanes[:, begin:end]
        made.append(block[:, byte_order(level)].reshape(-1))
    return np.concatenate(made)


class Tile:
    """What is fixed about a tile: codes of `type` "i8" or "u8", kernels of a width and stride, rows and columns of the part."""

    def __init__(self, cpu: Cpu, type: str, width: int, stride: int, part: str) -> None:
        self.type, self.width, self.stride, self.inner = type, width, stride, part == "inner"
        self.rows, self.columns = dot_shape(cpu, width, stride, part)
        self.made = dot_shape(cpu, width, stride)[0]
        self.seen, self.starts = width + (self.made - 1) * stride, starts(cpu, width, stride)
        self.last = (self.columns - 1) * stride + width - 1                  # input column
        self.groups = 2 + width * self.made + 2 * len(self.starts)           # of a block of weights


def emit_dot(type: str, width: int, stride: int, part: str) -> Callable[..., None]:
    """Generator for codes of `type`; arguments as of `emit_columns` in ops/simd/depthwise_f32.py up to `columns`, then lo, hi
    and zero point."""
    def emit(v: Any, table: Any, tiles_: Any, step: Any, weights: Any, y: Any, out_step: Any, out_row: Any, channels: Any,
             columns: Any, lo: Any, hi: Any, zero_point: Any) -> None:
        tile = Tile(v.cpu, type, width, stride, part)
        half, size, count = v.__class__(v.b, half_of(v.cpu)), v.cpu.vbytes, tile.columns
        y_at = [[v.add(v.mul(out_step, t), v.mul(out_row, r)) for r in range(tile.rows)] for t in range(count)]
        blocks = {x: _block(x, tile, _inputs(x, tile, table, step), code_bytes(x, type, lo, hi, zero_point)) for x in (v, half)}
        whole = v.and_(v.add(channels, size // 2 - 1), -size)

        def one(k: Any, moved: list[Any]) -> list[Any]:
            offset, y = moved

            def made(x: Any, here: Any, c: Any) -> Any:
                left = v.sub(channels, c)
                all_of_it, mask = v.icmp(">=", left, x.cpu.vbytes), x.mask(x.cpu.vbytes, left)

                def write(t: int, r: int, value: Any) -> None:
                    place = v.at(v.at(y, y_at[t][r]), c)

                    def now() -> None:
                        v.either(all_of_it, lambda: v.store(value, place), lambda: v.mstore(value, place, mask))
                    if t and not tile.inner:
                        v.either(v.icmp("<", v.i(t), columns), now)
                    else:
                        now()
                blocks[x](here, v.add(offset, c), write)
                return v.at(here, tile.groups * 4 * x.cpu.vbytes)
            (rest,) = v.loop(whole, [weights], lambda c, moved: [made(v, moved[0], c)], step=size)
            v.either(v.icmp("<", whole, channels), lambda: made(half, rest, whole))
            return [v.add(offset, v.mul(step, count)), v.at(y, v.mul(out_step, count))]
        v.loop(tiles_, [v.i(0), y], one)
    return emit


Inputs = tuple[Callable[[int], list[Any]], Callable[[int], list[Any]]]


def _inputs(v: Any, tile: Tile, table: Any, step: Any) -> Callable[[Any], Inputs]:
    """offset -> (input column -> its first rows, interleaved; number of four pixels of the last row -> these).

    By the addresses of the first column, or by those of all.
    """
    ty, pixel = v.type("i8", v.cpu.vbytes), v.ashr(step, tile.stride.bit_length() - 1)
    flip = v.const(ty, -128)

    def at(offset: Any) -> Inputs:
        def address(entry: int) -> Any:
            return v.at(v.load(v.type("ptr"), table, 8 * entry, 8), offset)
        rows = v.opaque([address(ky) for ky in range(tile.seen)]) if tile.inner else []

        def load(k: int, ky: int) -> Any:
            times = (k & -k).bit_length() - 1
            moved = v.shl(v.mul(pixel, k >> times), times) if k else 0
            x = v.load(ty, v.at(rows[ky], moved) if rows else address(k * tile.seen + ky))
            return v.xor(x, flip) if tile.type == "i8" else x

        def down(k: int) -> list[Any]:
            x = [load(k, ky) for ky in range(min(DOWN, tile.seen))]
            return interleaved(v, x + [x[-1]] * (DOWN - len(x)))

        def along(group: int) -> list[Any]:
            x = {k: load(k, tile.seen - 1) for k in sorted({min(4 * group + i, tile.last) for i in range(4)})}
            return interleaved(v, [x[min(4 * group + i, tile.last)] for i in range(4)])
        return down, along
    return at


def _block(v: Any, tile: Tile, inputs: Callable[[Any], Inputs], finish: Callable[..., Any]) -> Callable[..., None]:
    """(weights, offset, write): makes the outputs of a register of channels, and calls `write`(column, row, codes)."""
    size = v.cpu.vbytes

    def block(weights: Any, offset: Any, write: Callable[..., None]) -> None:
        made: dict[tuple[Any, int], list[Any]] = {}
        down, along = inputs(offset)

        def lanes(read: Callable[[int], list[Any]], k: int) -> list[Any]:
            made[read, k] = made.get((read, k)) or read(k)
            return made[read, k]

        for t in range(tile.columns):
            here = v.at(weights, v.opaque([v.i(0)])[0])         # weights are read anew: registers cannot keep them
            acc = [[v.load(v.i32, here, h * size) for h in range(4)] for _ in range(tile.rows)]

            def add(r: int, x: list[Any], where: int, here: Any = here, acc: list[list[Any]] = acc) -> None:
                acc[r] = [v.dot(a, x[h], v.load(v.i32, here, (4 * (2 + where) + h) * size)) for h, a in enumerate(acc[r])]
            for kx in range(tile.width):
                for r in range(tile.rows):
                    add(r, lanes(down, t * tile.stride + kx), kx * tile.made + r)
            if tile.starts:
                first, start = divmod(t * tile.stride, 4)
                for g in (0, 1):
                    add(0, lanes(along, first + g), tile.width * tile.made + 2 * tile.starts.index(start) + g)
            scale = [v.load(v.f32, here, (4 + h) * size) for h in range(4)]
            for r in range(tile.rows):
                write(t, r, finish(acc[r], scale))
    return block


def interleaved(v: Any, x: list[Any]) -> list[Any]:
    """Four registers whose lanes are the bytes of four registers, in `byte_order`."""
    def halves(a: Any, b: Any, unit: int) -> list[Any]:
        size, part = a.type.count, PART // unit
        order = [[p + h + i // 2 + (i % 2) * size for p in range(0, size, part) for i in range(part)] for h in (0, part // 2)]
        return [v.shuffle(a, b, one) for one in order]
    words = v.type("i16", v.cpu.vbytes // 2)
    low, high = ([v.bitcast(half, words) for half in halves(a, b, 1)] for a, b in (x[:2], x[2:]))
    return [v.bitcast(half, v.i32) for one, other in zip(low, high) for half in halves(one, other, 2)]


def columns_dot(type: str, width: int, stride: int, part: str = "whole") -> MicroKernel:
    """The micro-kernel of a part of a tile for codes of `type` and kernels of a width and stride."""
    name = f"depthwise_dot_{type}_{width}s{stride}" + (f"_{part}" if part != "whole" else "")
    return micro_kernel(name, "piippiiiiiii", emit_dot(type, width, stride, part))
