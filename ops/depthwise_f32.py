"""float32 depthwise convolution: parameters of the walk in ops/depthwise_tiles.py."""
from __future__ import annotations

from typing import Any

from litejit.compiler.cpu import Cpu
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_tiles import PARTS, SHAPES, special, tiled_params, walk_params
from litejit.ops.simd.depthwise_f32 import columns_f32, part_shape
from litejit.ops.simd.tiles import grain

_PARTS = {shape: {part: columns_f32(*shape, part) for part in PARTS} for shape in ((0, 1), *SHAPES)}


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
