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
channels in the order that interleaving leaves. Signed codes are made unsigned by their top bit. Weights of nine bits ("wide")
are sums of two, whose groups follow each other. Two ends:

    "code"   clamp(nearest((first + sum) * scale) + zero_point)                              XNNPACK's requantisation
    "positive"   the same where the lowest code stands for 0, and all codes are allowed      (behind RELU, RELU6)
    "f32"    clamp(f32(sum - zero * first) * scale * factor + bias), bias after the scale     LiteRT's hybrid products

of which the second one has the sums of the weights as `first`. The last argument of a tile is the address of what else an end
needs: of zero_point (i32), or of the image's zero (i32) and factor (f32).
"""
from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.depthwise_bytes import PART, byte_order, code_bytes
from litejit.ops.simd.depthwise_f32 import TILE_ARGUMENTS
from litejit.ops.simd.tiles import half_of, tiles

DOWN = 4                              # input rows that are interleaved
ALONG = 5                             # width of kernels whose last row is taken along
TWO_ROWS = (3, 1)                     # (width, stride) of kernels whose tiles have two rows
TOGETHER = 2                          # output columns that share what they read of the weights
HEADS = {"code": 2, "positive": 2, "f32": 3}         # numbers in front of a block of weights, by end


def has_dot_tiles(cpu: Cpu) -> bool:
    """Whether a level has these tiles: they need 32 registers."""
    return cpu.arch == "x86_64" and bool(cpu.dot) and cpu.vbytes == 64


def dot_shape(cpu: Cpu, width: int, stride: int, part: str = "inner") -> tuple[int, int]:
    """(rows, columns) of a part of a tile: as in ops/simd/depthwise_f32.py, "one" column, or "one_row" of that."""
    rows, columns = 2 if (width, stride) == TWO_ROWS else 1, tiles(cpu).depthwise
    return {"less": (rows, columns - 1), "half": (rows, columns // 2), "one": (rows, 1), "one_row": (1, 1)}.get(
        part, (rows, columns))


def starts(cpu: Cpu, width: int, stride: int) -> list[int]:
    """Where output columns begin within four pixels of a last row that is taken along."""
    columns = dot_shape(cpu, width, stride)[1]
    return sorted({t * stride % 4 for t in range(columns)}) if width == ALONG else []


def pieces(cpu: Cpu, channels: int) -> Iterator[tuple[Cpu, int, int]]:
    """(level, first channel, end) of each block of weights."""
    whole = (channels + cpu.vbytes // 2 - 1) // cpu.vbytes * cpu.vbytes
    for first in range(0, whole, cpu.vbytes):
        yield cpu, first, min(channels, first + cpu.vbytes)
    if whole < channels:
        yield half_of(cpu), whole, channels


def is_wide(weights: np.ndarray) -> bool:
    """Whether weights need two numbers of eight bits each."""
    return bool(weights.size and (weights.min() < -128 or weights.max() > 127))


def pack_dot(cpu: Cpu, weights: np.ndarray, head: np.ndarray, stride: int) -> np.ndarray:
    """weights [width * width, channels] in -256 .. 254, head uint8 [numbers in front, channels, 4] -> uint8 of all blocks."""
    lower = weights >> 1
    halves = (lower, weights - lower) if is_wide(weights) else (weights,)
    lanes = np.stack([_lanes(cpu, half, stride) for half in halves], 1).reshape(-1, weights.shape[1], 4)
    made = []
    for level, begin, end in pieces(cpu, weights.shape[1]):
        block = np.zeros((len(head) + len(lanes), level.vbytes, 4), np.uint8)
        block[:, :end - begin] = np.concatenate([head[:, begin:end], lanes[:, begin:end]])
        made.append(block[:, byte_order(level)].reshape(-1))
    return np.concatenate(made)


def _lanes(cpu: Cpu, weights: np.ndarray, stride: int) -> np.ndarray:
    """Weights in int8's range -> uint8 [groups, channels, 4]."""
    channels, width = weights.shape[1], round(len(weights) ** 0.5)
    rows, taps = dot_shape(cpu, width, stride)[0], weights.reshape(width, width, channels).astype(np.int8)
    down = np.zeros((width, rows, DOWN, channels), np.int8)
    for row in range(rows):
        seen = min(width, DOWN)
        down[:, row, row * stride:row * stride + seen] = taps[:seen].transpose(1, 0, 2)
    along = np.zeros((len(starts(cpu, width, stride)), 8, channels), np.int8)
    for k, start in enumerate(starts(cpu, width, stride)):
        along[k, start:start + width] = taps[-1]
    groups = np.concatenate([down.reshape(-1, 4, channels), along.reshape(-1, 4, channels)])
    return np.ascontiguousarray(groups.transpose(0, 2, 1)).view(np.uint8)


class Tile:
    """What is fixed about a tile: codes of `type` "i8" or "u8", the end, kernels of a width and stride, rows and columns."""

    def __init__(self, cpu: Cpu, type: str, end: str, wide: bool, width: int, stride: int, part: str) -> None:
        self.type, self.width, self.stride, self.inner = type, width, stride, part == "inner"
        self.heads, self.halves = HEADS[end], 1 + wide
        self.rows, self.columns = dot_shape(cpu, width, stride, part)
        self.made = dot_shape(cpu, width, stride)[0]
        self.seen, self.starts = width + (self.made - 1) * stride, starts(cpu, width, stride)
        self.last = (self.columns - 1) * stride + width - 1                  # input column
        self.down = width * self.made                                        # groups of weights for columns
        self.groups = self.heads + self.halves * (self.down + 2 * len(self.starts))

    def products(self, t: int) -> Iterator[tuple[int, tuple[str, int], int]]:
        """(output row, inputs, group of weights) of output column t; inputs: a column "down", or four pixels "along"."""
        for kx, row in itertools.product(range(self.width), range(self.rows)):
            yield row, ("down", t * self.stride + kx), kx * self.made + row
        if self.starts:
            first, start = divmod(t * self.stride, 4)
            for four in (0, 1):
                yield 0, ("along", first + four), self.down + 2 * self.starts.index(start) + four


def emit_dot(type: str, end: str, wide: bool, width: int, stride: int, part: str) -> Callable[..., None]:
    """Generator for codes of `type`; arguments as of `emit_columns` in ops/simd/depthwise_f32.py, the last one for the end."""
    def emit(v: Any, table: Any, tiles_: Any, step: Any, weights: Any, y: Any, out_step: Any, out_row: Any, channels: Any,
             columns: Any, lo: Any, hi: Any, kh: Any, kw: Any, sw: Any, dw: Any, terms: Any) -> None:
        tile = Tile(v.cpu, type, end, wide, width, stride, part)
        half, size, count = v.__class__(v.b, half_of(v.cpu)), v.cpu.vbytes, tile.columns
        y_at = [[v.add(v.mul(out_step, t), v.mul(out_row, r)) for r in range(tile.rows)] for t in range(count)]
        blocks = {x: _block(x, tile, _inputs(x, tile, table, step), ENDS[end](x, type, lo, hi, terms)) for x in (v, half)}
        whole = v.and_(v.add(channels, size // 2 - 1), -size)

        def one(k: Any, moved: list[Any]) -> list[Any]:
            offset, y = moved

            def made(x: Any, here: Any, c: Any) -> Any:
                store = _stores(x, v.sub(channels, c), 4 if end == "f32" else 1)

                def write(t: int, r: int, values: list[Any]) -> None:
                    def column() -> None:
                        store(values, v.at(v.at(y, y_at[t][r]), v.shl(c, 2) if end == "f32" else c))
                    if part == "half" and t:                                # one column may be left as well
                        v.either(v.icmp("<", v.i(t), columns), column)
                    else:
                        column()
                blocks[x](here, v.add(offset, c), write)
                return v.at(here, tile.groups * 4 * x.cpu.vbytes)
            (rest,) = v.loop(whole, [weights], lambda c, moved: [made(v, moved[0], c)], step=size)
            v.either(v.icmp("<", whole, channels), lambda: made(half, rest, whole))
            return [v.add(offset, v.mul(step, count)), v.at(y, v.mul(out_step, count))]
        v.loop(tiles_, [v.i(0), y], one)
    return emit


def _stores(v: Any, left: Any, size: int) -> Callable[[list[Any], Any], None]:
    """(registers, address): writes a block's channels, as many as are left; size: bytes of an output."""
    each = v.cpu.vbytes // size
    whole, masks = v.icmp(">=", left, v.cpu.vbytes), [v.mask(each, v.sub(left, each * j)) for j in range(size)]

    def store(values: list[Any], place: Any) -> None:
        def partly() -> None:
            for j, (value, mask) in enumerate(zip(values, masks)):
                # an empty mask goes to the first register: see ops/simd/depthwise_f32.py
                v.mstore(value, v.at(place, v.select(v.icmp(">", left, each * j), v.i(j * v.cpu.vbytes), v.i(0))), mask)

        def all_of_it() -> None:
            for j, value in enumerate(values):
                v.store(value, place, j * v.cpu.vbytes)
        v.either(whole, all_of_it, partly)
    return store


End = tuple[Callable[[Any], Any], Callable[..., list[Any]]]
"""(`first` -> what an accumulator begins with; four of them, and what else is in front of the weights -> what is written)."""


def _code_end(positive: bool, v: Any, type: str, lo: Any, hi: Any, terms: Any) -> End:
    low, high, zero_point = (v.sext(x, "i64") for x in (v.truncate(lo), v.truncate(hi), v.load(v.type("i32"), terms)))
    finish = code_bytes(v, type, low, high, zero_point, positive)
    return lambda first: first, lambda acc, scale: [finish(acc, scale)]


def _float_end(v: Any, type: str, lo: Any, hi: Any, terms: Any) -> End:
    moved = v.sub(v.const(v.i32, -128 if type == "i8" else 0), v.isplat(terms))       # codes are made unsigned
    factor, low, high = v.fsplat(terms, 4), v.splat(lo), v.splat(hi)

    def finish(acc: list[Any], scale: list[Any], bias: list[Any]) -> list[Any]:
        scaled = [v.fmul(v.fmul(v.to_float(a), s), factor) for a, s in zip(acc, scale)]
        return in_order(v, [v.clamp(v.fadd(x, b), low, high) for x, b in zip(scaled, bias)])
    return lambda first: v.mul(first, moved), finish


ENDS: dict[str, Callable[..., End]] = {"code": partial(_code_end, False), "positive": partial(_code_end, True),
                                       "f32": _float_end}


def in_order(v: Any, x: list[Any]) -> list[Any]:
    """Four registers of 32-bit lanes in `byte_order`, in the order of the channels."""
    parts = v.cpu.vbytes // PART

    def pick(a: Any, b: Any, units: list[int]) -> Any:
        return v.shuffle(a, b, [4 * unit + lane for unit in units for lane in range(4)])
    if parts == 2:
        return [pick(x[k], x[k + 1], [p, parts + p]) for p in range(2) for k in (0, 2)]
    pairs = [[pick(x[k], x[k + 1], [p, parts + p, p + 1, parts + p + 1]) for k in (0, 2)] for p in (0, 2)]
    return [pick(a, b, [u, u + 1, parts + u, parts + u + 1]) for a, b in pairs for u in (0, 2)]


Inputs = Callable[[str, int], list[Any]]
"""Registers of ("down", input column): its first rows, interleaved; of ("along", k): the k-th four pixels of the last row."""


def _inputs(v: Any, tile: Tile, table: Any, step: Any) -> Callable[[Any], Inputs]:
    """offset -> inputs, by the addresses of the first column or by those of all."""
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
        return lambda what, k: (down if what == "down" else along)(k)
    return at


def _block(v: Any, tile: Tile, inputs: Callable[[Any], Inputs], end: End) -> Callable[..., None]:
    """(weights, offset, write): makes the outputs of a register of channels, and calls `write`(column, row, registers)."""
    size, (begin, finish) = v.cpu.vbytes, end

    def block(weights: Any, offset: Any, write: Callable[..., None]) -> None:
        seen: dict[tuple[str, int], list[Any]] = {}
        read = inputs(offset)
        for first_column in range(0, tile.columns, TOGETHER):
            columns = range(first_column, min(first_column + TOGETHER, tile.columns))
            here = v.at(weights, v.opaque([v.i(0)])[0])         # weights are read anew: registers cannot keep them

            def numbers(ty: Any, group: int, here: Any = here) -> list[Any]:
                return [v.load(ty, here, (4 * group + h) * size) for h in range(4)]
            first = [begin(x) for x in numbers(v.i32, 0)]
            acc = {(t, r): first for t in columns for r in range(tile.rows)}
            for alike in zip(*(tile.products(t) for t in columns)):
                for t, (r, place, group) in zip(columns, alike):
                    seen[place] = seen[place] if place in seen else read(*place)
                    for k in range(tile.halves):
                        w = numbers(v.i32, tile.heads + group * tile.halves + k)
                        acc[t, r] = [v.dot(a, x, y) for a, x, y in zip(acc[t, r], seen[place], w)]
                flat = v.opaque([x for sums in acc.values() for x in sums])        # or LLVM reads more than registers hold
                acc = {key: flat[4 * i:4 * i + 4] for i, key in enumerate(acc)}
            heads = [numbers(v.f32, group) for group in range(1, tile.heads)]
            for (t, r), sums in acc.items():
                write(t, r, finish(sums, *heads))
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


def columns_dot(type: str, end: str, wide: bool, width: int, stride: int, part: str) -> MicroKernel:
    """The micro-kernel of a part of a tile for codes of `type`, (wide) weights, and kernels of a width and stride."""
    name = f"depthwise_dot_{type}_{end}{'_wide' * wide}_{width}s{stride}_{part}"
    return micro_kernel(name, TILE_ARGUMENTS, emit_dot(type, end, wide, width, stride, part))
