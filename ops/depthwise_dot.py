"""Depthwise convolution of 8-bit codes, and hybrid, by dot products of bytes: parameters of the walk in depthwise_tiles.py."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.compiler.primitives import fill_bytes, load_i32
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_tiles import PARTS, SHAPES, depthwise_tiles, special, tiled_params, walk_params
from litejit.ops.simd.depthwise_dot import ALONG, TWO_ROWS, columns_dot, dot_shape, has_dot_tiles, is_wide
from litejit.ops.simd.epilogues import range_of
from litejit.ops.simd.tiles import grain
from litejit.planner.graph import Node

PADDING = np.dtype([("pad", "i8"), ("factors", "i8"), ("count", "i8")], align=True)


def suits(cpu: Cpu, windows: Windows, weights: np.ndarray) -> bool:
    """Whether there are tiles for windows and weights [taps, channels]."""
    return special(windows) in SHAPES and has_dot_tiles(cpu) and weights.min() >= -256 and weights.max() <= 254


def dot_step(node: Node, target: Target, windows: Windows, x: Any, weights: np.ndarray, w: Packed, pad: Packed,
             bounds: tuple[int, int], zero_point: Packed) -> Step:
    """Codes of i8 or u8; w: `weights` [taps, channels] packed; zero_point: that of the output, an i32."""
    shift = 128 if node.out.type == "u8" else 0
    positive = range_of(bounds[0] - shift, bounds[1] - shift, node.out.zero_point - shift) == "positive"
    end = "positive" if positive else "code"
    parts = _PARTS[node.out.type, end, is_wide(weights), special(windows)]
    return _step(node, target.cpu, windows, parts, x, w, pad, bounds, zero_point)


def hybrid_dot_steps(node: Node, target: Target, windows: Windows, x: Any, factors: Any, w: Packed, bounds: tuple[float, float]
                     ) -> list[Step]:
    """float32 x int8 on one image, quantised to x with its zero point and scale in `factors`; w: packed weights."""
    pad, count = Scratch(windows.width * windows.channels + 64), windows.width * windows.channels
    parts = _PARTS["i8", "f32", False, special(windows)]
    return [Step(node, pad_with_zero_point, {"pad": pad, "factors": factors, "count": count}),
            _step(node, target.cpu, windows, parts, x, w, pad, bounds, factors)]


def _step(node: Node, cpu: Cpu, windows: Windows, parts: dict[str, MicroKernel], x: Any, w: Packed, pad: Any,
          bounds: tuple[float, float], terms: Any) -> Step:
    shape, pixels = dot_shape(cpu, *special(windows)), (windows.channels, windows.channels * node.out.itemsize)
    walk, chunks = walk_params(windows, shape, x, node.out, grain(cpu, "depthwise_int8"))
    params = {**tiled_params(windows, parts, shape, w, pad, pixels, bounds), **walk, "terms": terms,
              "by_columns": int(by_columns(windows.kw))}
    return Step(node, depthwise_tiles, params, chunks, macs=windows.m * windows.channels * windows.kh * windows.kw)


def _parts(type: str, end: str, wide: bool, width: int, stride: int) -> dict[str, MicroKernel]:
    """The micro-kernels of a tile's parts."""
    one_row = "one_row" if (width, stride) == TWO_ROWS else "one"
    part_of = {"inner": "inner", "row": one_row} if by_columns(width) else {**{part: part for part in PARTS}, "row": "whole"}
    return {part: columns_dot(type, end, wide, width, stride, part_of.get(part, "one")) for part in PARTS}


def by_columns(width: int) -> bool:
    """Whether what is not inner is made column by column, by fewer micro-kernels: as fast in networks with 3x3 kernels, while
    layers of 5x5 take 0.9 of the time with parts of their own."""
    return width < ALONG


_PARTS = {(type, end, wide, shape): _parts(type, end, wide, *shape) for type, end, wide in (
    *((type, end, wide) for end in ("code", "positive") for type, wide in (("i8", False), ("u8", False), ("u8", True))),
    ("i8", "f32", False)) for shape in SHAPES}


# ---- kernels -------------------------------------------------------------------------------------

@kernel(PADDING)
def pad_with_zero_point(p, begin, end):
    """Padding of the image's zero point."""
    for _ in prange(begin, end):
        fill_bytes(p.pad, np.int64(load_i32(p.factors, 0)), p.count)
    return 0
