"""float32 depthwise tiles: a few neighbouring output columns of a row or two, all channels, any kernel.

The inputs come as a table of addresses, table[input column][input row], of which output column t sees the input columns
t * stride, t * stride + dilation ...; what lies outside of the image points at zeros, so the borders are tiles like any
other. The second row shares two thirds of the inputs and all weights with the first. Sums run down the
columns of the kernel, one column after the other, as XNNPACK's do. Weights: per vector of channels [bias][tap 0][tap 1]...,
taps in that order.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.tiles import tiles

TILE_ARGUMENTS = "piippiiiiffiiiip"    # letters of the arguments of every depthwise tile, also of codes
SPARE = 4                             # registers of a tile beside its inputs and sums


def pack_depthwise_f32(cpu: Cpu, weights: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """weights [taps, channels], bias [channels] or None -> [vectors, 1 + taps, lanes]."""
    taps, channels = weights.shape
    count = -(-channels // cpu.lanes)
    whole = np.zeros((1 + taps, count * cpu.lanes), np.float32)
    whole[1:, :channels] = weights
    if bias is not None:
        whole[0, :channels] = bias
    return np.ascontiguousarray(whole.reshape(1 + taps, count, cpu.lanes).transpose(1, 0, 2))


def tile_columns(cpu: Cpu, width: int) -> int:
    """Output columns of a tile for kernels of a width (0: any)."""
    return tiles(cpu).wide_depthwise if width > 3 else tiles(cpu).depthwise


def tile_rows(cpu: Cpu, width: int) -> int:
    """Output rows of a tile for kernels of a width (0: any)."""
    return tiles(cpu).depthwise_rows if width else 1


def part_shape(cpu: Cpu, width: int, part: str) -> tuple[int, int]:
    """(rows, columns) of a part of a tile: "whole" or "inner", a column "less", "half" of the columns, or one "row"."""
    rows, columns = tile_rows(cpu, width), tile_columns(cpu, width)
    return {"less": (rows, columns - 1), "half": (rows, columns // 2), "row": (1, columns)}.get(part, (rows, columns))


def emit_columns(width: int = 0, stride: int = 1, part: str = "whole") -> Callable[..., None]:
    """Generator of tiles that follow each other in a row, `tile_columns` columns each, or of what is left of one.

    width, stride: made for square kernels of that width without dilation; 0: for any. part: see `part_shape`; "inner": no
    column is outside of the image, so that the addresses of the first input column are enough. Arguments: table of addresses,
    number of tiles, step from one column to the next in the input, weights, y, step in the output, from one row to the next
    there, channels, columns of the last tile, lo, hi, then height and width of the kernel, stride and dilation along the row,
    and what only other tiles have; steps in bytes.
    """
    def emit(v: Any, table: Any, tiles_: Any, step: Any, weights: Any, y: Any, out_step: Any, out_row: Any, channels: Any,
             columns: Any, lo: Any, hi: Any, kh: Any, kw: Any, sw: Any, dw: Any, terms: Any) -> None:
        rows, count = part_shape(v.cpu, width, part)
        low, high, seen = v.splat(lo), v.splat(hi), width + (tile_rows(v.cpu, width) - 1) * stride
        y_at = [v.add(v.mul(out_step, t), v.mul(out_row, r)) for r in range(rows) for t in range(count)]
        inputs = _steps(v, table, step, seen, stride) if part == "inner" else _entries(v, table, seen)
        multiply = _fixed(v, inputs, (rows, count), width, stride) if width else _any(v, table, count, kh, kw, sw, dw)
        block = v.mul(v.add(v.mul(kh, kw), 1), v.cpu.vbytes)

        def tile(k: Any, moved: list[Any]) -> list[Any]:
            offset, y = moved
            valid = v.select(v.icmp("==", k, v.sub(tiles_, 1)), columns, v.i(count))

            def vector(c: Any, moved: list[Any]) -> list[Any]:
                (here,) = moved
                at = v.shl(c, 2)
                acc = multiply(v.add(offset, at), here, [v.load(v.f32, here)] * (rows * count))
                acc = [v.fmin(high, v.fmax(low, a)) for a in acc]
                left = v.sub(channels, c)

                def whole() -> None:
                    for value, there in zip(acc, y_at):
                        v.store(value, v.at(y, there), at)

                def partly() -> None:
                    wanted = [v.icmp("<", v.i(t), valid) for t in range(count)]
                    masks = [v.mask(v.lanes, v.select(one, left, v.i(0))) for one in wanted]
                    for k, (value, there) in enumerate(zip(acc, y_at)):
                        # Zen 4 takes 130 ns for a store under an empty mask to a page never touched: so to the first column
                        there = v.select(wanted[k % count], there, y_at[k - k % count])
                        v.mstore(value, v.at(y, there), masks[k % count], at)
                v.either(v.icmp(">=", v.select(v.icmp("==", valid, count), left, v.i(0)), v.lanes), whole, partly)
                return [v.at(here, block)]
            v.loop(channels, [weights], vector, step=v.lanes)
            return [v.add(offset, v.mul(step, count)), v.at(y, v.mul(out_step, count))]
        v.loop(tiles_, [v.i(0), y], tile)
    return emit


def _any(v: Any, table: Any, count: int, kh: Any, kw: Any, sw: Any, dw: Any) -> Callable[..., list[Any]]:
    """Products of all taps, one after the other."""
    across = v.shl(v.mul(sw, kh), 3)                                         # in the table, from one output column to the next
    first = [v.at(table, v.mul(across, t)) for t in range(count)]

    def multiply(offset: Any, weights: Any, acc: list[Any]) -> list[Any]:
        def column(kx: Any, acc: list[Any]) -> list[Any]:
            at = v.mul(v.mul(kx, dw), kh)

            def tap(ky: Any, acc: list[Any]) -> list[Any]:
                w = v.load(v.f32, weights, v.mul(v.add(v.add(v.mul(kx, kh), ky), 1), v.cpu.vbytes))
                entry = v.shl(v.add(at, ky), 3)
                return [v.fma(v.load(v.f32, v.at(v.load(v.type("ptr"), first[t], entry, 8), offset)), w, acc[t])
                        for t in range(count)]
            return v.loop(kh, acc, tap)
        return v.loop(kw, acc, column)
    return multiply


Inputs = Callable[[Any], Callable[[int, int], Any]]             # offset -> (input column, input row) -> a vector of channels


def _entries(v: Any, table: Any, seen: int) -> Inputs:
    """Inputs by the addresses of all columns of `seen` rows."""
    return lambda offset: lambda k, ky: v.load(v.f32, v.at(v.load(v.type("ptr"), table, 8 * (k * seen + ky), 8), offset))


def _steps(v: Any, table: Any, step: Any, seen: int, stride: int) -> Inputs:
    """The same by the addresses of the first column.

    A column is an odd number of pixels, which has a register, times a power of two, which is part of the instruction; LLVM
    would keep an address for every input in memory if it knew what the rows' are.
    """
    pixel = v.ashr(step, stride.bit_length() - 1)

    def at(offset: Any) -> Callable[[int, int], Any]:
        rows = v.opaque([v.at(v.load(v.type("ptr"), table, 8 * ky, 8), offset) for ky in range(seen)])

        def load(k: int, ky: int) -> Any:
            times = (k & -k).bit_length() - 1
            return v.load(v.f32, rows[ky], v.shl(v.mul(pixel, k >> times), times) if k else 0)
        return load
    return at


def _fixed(v: Any, inputs: Inputs, shape: tuple[int, int], width: int, stride: int) -> Callable[..., list[Any]]:
    """Products of a width x width kernel for a tile of `shape`, without loops.

    Tap by tap for all outputs, so that none waits for the sum before it. An input is read once for the taps of a column of the
    kernel; those that later columns see as well are kept where the registers hold them.
    """
    rows, count = shape

    def needed(kx: int) -> set[tuple[int, int]]:
        """Inputs that the taps from a column of the kernel on see."""
        return {(t * stride + k, r * stride + ky) for k in range(kx, width) for ky in range(width)
                for r in range(rows) for t in range(count)}
    room = v.cpu.nregs - rows * count - SPARE - (0 if v.x86 else 3)          # x86 multiplies what lies in memory

    def multiply(offset: Any, weights: Any, acc: list[Any]) -> list[Any]:
        read = inputs(offset)
        seen: dict[tuple[int, int], Any] = {}
        for tap in range(width * width):
            kx, ky = divmod(tap, width)
            if ky == 0 and kx:
                later = needed(kx)
                seen = {place: x for place, x in seen.items() if place in later}
                if not 0 < len(seen) <= room:                               # LLVM would keep on the stack what is read again
                    (offset,) = v.opaque([offset])
                    read, seen = inputs(offset), {}
            w = v.load(v.f32, weights, (1 + tap) * v.cpu.vbytes)
            places = [(t * stride + kx, r * stride + ky) for r in range(rows) for t in range(count)]
            for place in places:
                seen[place] = seen[place] if place in seen else read(*place)
            acc = [v.fma(seen[place], w, x) for place, x in zip(places, acc)]
            acc = v.opaque(acc) if v.x86 else acc                           # LLVM would follow one sum after the other
        return acc
    return multiply


def columns_f32(width: int = 0, stride: int = 1, part: str = "whole") -> MicroKernel:
    """The micro-kernel of a part of a tile for kernels of a width and stride; for any kernel there is one for all parts."""
    if not width:
        return micro_kernel("depthwise_f32", TILE_ARGUMENTS, emit_columns())
    name = f"depthwise_f32_{width}s{stride}" + (f"_{part}" if part != "whole" else "")
    return micro_kernel(name, TILE_ARGUMENTS, emit_columns(width, stride, part))
