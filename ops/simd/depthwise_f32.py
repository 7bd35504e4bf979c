"""float32 depthwise tiles: a few output columns of one row, all channels, any kernel.

The taps of an output row come as a table of addresses (rows outside of the image point at zeros), so kernel size, stride
and dilation are run-time parameters. Weights: per vector of channels [bias][tap 0][tap 1]..., taps in row-major order.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.tiles import tiles


def pack_depthwise_f32(cpu: Cpu, weights: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """weights [taps, channels], bias [channels] or None -> [vectors, 1 + taps, lanes]."""
    taps, channels = weights.shape
    count = -(-channels // cpu.lanes)
    whole = np.zeros((1 + taps, count * cpu.lanes), np.float32)
    whole[1:, :channels] = weights
    if bias is not None:
        whole[0, :channels] = bias
    return np.ascontiguousarray(whole.reshape(1 + taps, count, cpu.lanes).transpose(1, 0, 2))


def emit_columns(single: bool, width: int = 0, stride: int = 1) -> Callable[..., None]:
    """Generator: `tiles` tiles of `depthwise` columns of the tile table, or of one column.

    width, stride: made for square kernels of that width without dilation, whose neighbouring columns share inputs; 0: for any.
    Arguments: table of tap addresses, taps, tiles, offset and step of the columns in the input, weights, y, step of the
    columns in the output, channels, lo, hi, and a number that means nothing here; offsets and steps in bytes.
    """
    def emit(v: Any, table: Any, taps: Any, tiles_: Any, offset: Any, step: Any, weights: Any, y: Any, out_step: Any,
             channels: Any, lo: Any, hi: Any, _: Any) -> None:
        count, size = 1 if single else tiles(v.cpu).depthwise, v.cpu.vbytes
        low, high = v.splat(lo), v.splat(hi)
        y_at = [v.mul(out_step, t) for t in range(count)]
        multiply = _shared(v, table, step, count, width, stride) if width else _any(v, table, taps, step, count)
        block = v.mul(v.add(taps, 1), size)

        def tile(k: Any, moved: list[Any]) -> list[Any]:
            offset, y = moved

            def vector(c: Any, moved: list[Any]) -> list[Any]:
                (here,) = moved
                at = v.shl(c, 2)
                acc = multiply(v.add(offset, at), here, [v.load(v.f32, here)] * count)
                acc = [v.fmin(high, v.fmax(low, a)) for a in acc]
                left = v.sub(channels, c)

                def whole() -> None:
                    for t in range(count):
                        v.store(acc[t], v.at(y, y_at[t]), at)

                def partly() -> None:
                    mask = v.mask(v.lanes, left)
                    for t in range(count):
                        v.mstore(acc[t], v.at(y, y_at[t]), mask, at)
                v.either(v.icmp(">=", left, v.lanes), whole, partly)
                return [v.at(here, block)]
            v.loop(channels, [weights], vector, step=v.lanes)
            return [v.add(offset, v.mul(step, count)), v.at(y, v.mul(out_step, count))]
        v.loop(tiles_, [offset, y], tile)
    return emit


def _any(v: Any, table: Any, taps: Any, step: Any, count: int) -> Callable[..., list[Any]]:
    """Products of all taps, one after the other."""
    x_at = [v.mul(step, t) for t in range(count)]

    def multiply(offset: Any, weights: Any, acc: list[Any]) -> list[Any]:
        def tap(i: Any, acc: list[Any]) -> list[Any]:
            x = v.at(v.load(v.type("ptr"), table, v.shl(i, 3), 8), offset)
            w = v.load(v.f32, weights, v.mul(v.add(i, 1), v.cpu.vbytes))
            return [v.fma(v.load(v.f32, x, x_at[t]), w, acc[t]) for t in range(count)]
        return v.loop(taps, acc, tap)
    return multiply


def _shared(v: Any, table: Any, step: Any, count: int, width: int, stride: int) -> Callable[..., list[Any]]:
    """Products by input columns: what a column holds is loaded once for all outputs that see it."""
    pixel = v.ashr(step, stride.bit_length() - 1)
    rows = [v.load(v.type("ptr"), table, 8 * ky, 8) for ky in range(width)]
    x_at = [v.mul(pixel, k) for k in range((count - 1) * stride + width)]

    def multiply(offset: Any, weights: Any, acc: list[Any]) -> list[Any]:
        base = [v.at(row, offset) for row in rows]
        w = [v.load(v.f32, weights, (1 + tap) * v.cpu.vbytes) for tap in range(width * width)]
        acc = list(acc)
        for k, at in enumerate(x_at):
            for ky in range(width):
                value = v.load(v.f32, base[ky], at)
                for t in range(count):
                    if 0 <= k - t * stride < width:
                        acc[t] = v.fma(value, w[(k - t * stride) * width + ky], acc[t])
        return acc
    return multiply


def columns_f32(width: int = 0, stride: int = 1) -> MicroKernel:
    """The micro-kernel of a tile: for any kernel, or for those of a width and stride."""
    name = f"depthwise_f32_{width}s{stride}" if width else "depthwise_f32"
    return micro_kernel(name, "piiiippiiffi", emit_columns(False, width, stride))


column_f32 = micro_kernel("depthwise_f32_single", "piiiippiiffi", emit_columns(True))
