"""float32 depthwise convolution: weights and parameters of the walk in ops/depthwise_tiles.py."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import load_f32, store_f32
from litejit.ops.base import Packed, Scratch, Step
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_rows import expanded
from litejit.ops.depthwise_tiles import PARTS, SHAPES, depthwise_tiles, special, tiled_params, walk_params
from litejit.ops.pixel_sums import mean_steps, sums_params
from litejit.ops.simd.depthwise_f32 import columns_f32, pack_depthwise_f32, part_shape
from litejit.ops.simd.tiles import grain
from litejit.ops.tails import tail_params
from litejit.planner.graph import Node, Value

F32_0 = np.float32(0)
PACK = np.dtype([("w", "i8"), ("bias", "i8"), ("packed", "i8"), ("kh", "i8"), ("kw", "i8"), ("channels", "i8"),
                 ("lanes", "i8")], align=True)
_PARTS = {shape: {part: columns_f32(*shape, part) for part in PARTS} for shape in ((0, 1), *SHAPES)}


def depthwise_f32_steps(node: Node, cpu: Cpu, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows, times: int,
                        bounds: tuple[float, float], pixel: int = 0) -> list[Step]:
    """Steps of y [N, OH, OW, C] = clamp(each channel of x with its taps of w [..., kh, kw, C] + bias).

    windows: those of x with each channel `times` times, side by side; input 0 (at x) has them once. pixel: bytes from pixel to
    pixel of x, where those are not all its channels.
    """
    taps, channels, steps = windows.kh * windows.kw, windows.channels, []
    if times > 1:
        x, step = expanded(node, cpu, x, node[0].size, 4, times)
        steps.append(step)
    packed: Packed | Scratch
    if w.data is None or (bias is not None and bias.data is None):
        packed = Scratch(-(-channels // cpu.lanes) * cpu.lanes * (taps + 1) * 4)
        steps.append(Step(node, pack_depthwise, {"w": w, "bias": bias, "packed": packed, "kh": windows.kh, "kw": windows.kw,
                                                 "channels": channels, "lanes": cpu.lanes}))
    else:
        packed = packed_weights(cpu, windows, w, bias)
    params, chunks = depthwise_params(cpu, windows, x, packed, y, bounds, pixel or node.pixel or 4 * channels)
    params.update(**tail_params(node, chunks), **sums_params(node, chunks, channels))
    steps.append(Step(node, depthwise_tiles, params, chunks, macs=windows.m * channels * taps))
    return steps + mean_steps(node, params, chunks)


def packed_weights(cpu: Cpu, windows: Windows, w: Value, bias: Value | None) -> Packed:
    """Constant float32 weights and bias as the tiles want them."""
    data, b, taps = w.data, None if bias is None else bias.data, windows.kh * windows.kw
    return Packed((w.key, None if bias is None else bias.key, "depthwise f32", cpu.lanes),
                  lambda: pack_depthwise_f32(cpu, np.asarray(data, np.float32).reshape(
                      windows.kh, windows.kw, windows.channels).transpose(1, 0, 2).reshape(taps, windows.channels), b))


def float_params(cpu: Cpu, windows: Windows, w: Any, bounds: tuple[float, float], pixel: int) -> dict[str, Any]:
    """Values of the fields TILED; w: packed weights; pixel: bytes from pixel to pixel of the input."""
    shape, pixels = tile_shape(cpu, windows), (pixel, 4 * windows.channels)
    return tiled_params(windows, _PARTS[special(windows)], shape, w, zeros(windows.width * pixel), pixels, bounds)


def tile_shape(cpu: Cpu, windows: Windows) -> tuple[int, int]:
    """(rows, columns) of a tile."""
    return part_shape(cpu, special(windows)[0], "whole")


def depthwise_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, bounds: tuple[float, float],
                     pixel: int) -> tuple[dict[str, Any], int]:
    """(values of the fields WALK but for TAIL and SUMS, chunks)."""
    walk, chunks = walk_params(windows, tile_shape(cpu, windows), x, y, grain(cpu, "depthwise_f32"))
    return {**float_params(cpu, windows, w, bounds, pixel), **walk}, chunks


# ---- kernels -------------------------------------------------------------------------------------

@kernel(PACK)
def pack_depthwise(p, begin, end):
    """Weights and bias that are not constant, packed while running."""
    lanes, taps = p.lanes, p.kh * p.kw
    for _ in prange(begin, end):
        for c in range((p.channels + lanes - 1) // lanes * lanes):
            to = c // lanes * (taps + 1) * lanes + c % lanes
            inside = c < p.channels
            store_f32(p.packed, to, load_f32(p.bias, c) if inside and p.bias != 0 else F32_0)
            for tap in range(taps):
                at = tap % p.kh * p.kw + tap // p.kh
                store_f32(p.packed, to + (tap + 1) * lanes, load_f32(p.w, at * p.channels + c) if inside else F32_0)
    return 0
