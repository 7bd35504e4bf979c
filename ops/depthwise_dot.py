"""Depthwise convolution of 8-bit codes, and hybrid, by dot products of bytes: kernels of the walk in ops/depthwise_tiles.py."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel, MicroKernel
from litejit.compiler.primitives import fill_bytes, load_f32, load_i32
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_tiles import PARTS, SHAPES, TILED, WALK, make_block, special, tiled_params, walk_params
from litejit.ops.simd.depthwise_dot import TWO_ROWS, columns_dot, dot_shape, has_dot_tiles, is_wide
from litejit.ops.simd.tiles import grain
from litejit.planner.graph import Node

CODES = np.dtype([*TILED, *WALK, *((name, "i8") for name in ("low", "high", "zero_point"))], align=True)
HYBRID = np.dtype([*TILED, *WALK, ("factors", "i8"), ("lo", "f4"), ("hi", "f4")], align=True)
PADDING = np.dtype([("pad", "i8"), ("factors", "i8"), ("count", "i8")], align=True)


def suits(cpu: Cpu, windows: Windows, weights: np.ndarray) -> bool:
    """Whether there are tiles for windows and weights [taps, channels]."""
    return special(windows) in SHAPES and has_dot_tiles(cpu) and weights.min() >= -256 and weights.max() <= 254


def dot_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, pad: Any) -> tuple[dict[str, Any], int]:
    """(values of the fields CODES but for bounds and zero point, chunks)."""
    shape = dot_shape(cpu, *special(windows))
    walk, chunks = walk_params(windows, shape, x, y, grain(cpu, "depthwise_int8"))
    return {**tiled_params(windows, shape, w, pad, windows.channels), **walk}, chunks


def dot_kernel(type: str, weights: np.ndarray, windows: Windows) -> Kernel:
    """The kernel for codes of `type` "i8" or "u8", weights and a shape of windows."""
    return _KERNELS[type, is_wide(weights), special(windows)]


def hybrid_dot_steps(node: Node, target: Target, windows: Windows, x: Any, factors: Any, w: Packed, bounds: tuple[float, float],
                     macs: int) -> list[Step]:
    """float32 x int8 on one image, quantised to x with its zero point and scale in `factors`; w: packed weights."""
    pad, count = Scratch(windows.width * windows.channels + 64), windows.width * windows.channels
    params, chunks = dot_params(target.cpu, windows, x, w, node.out, pad)
    params.update(factors=factors, lo=bounds[0], hi=bounds[1])
    return [Step(node, pad_with_zero_point, {"pad": pad, "factors": factors, "count": count}),
            Step(node, _HYBRID_KERNELS[special(windows)], params, chunks, macs=macs)]


# ---- kernels -------------------------------------------------------------------------------------

def _parts(type: str, end: str, wide: bool, width: int, stride: int) -> dict[str, MicroKernel]:
    """The micro-kernels of a tile's parts: what is not inner goes column by column, which compiles in less time."""
    part_of = {"inner": "inner", "row": "row" if (width, stride) == TWO_ROWS else "one"}
    return {part: columns_dot(type, end, wide, width, stride, part_of.get(part, "one")) for part in PARTS}


def _make(name: str, record: np.dtype, caller: Callable[[MicroKernel], Any], parts: dict[str, MicroKernel],
          size: int) -> Kernel:
    """The kernel whose outputs have `size` bytes; caller: see `make_block`."""
    block = make_block(parts, caller, size, by_columns=True)

    @kernel(record, name=name)
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table, row_bytes = p.table + begin * p.table_size, p.out_width * p.channels * size
        for c in prange(begin, end):
            top, bottom = c * p.rows, min(p.m // p.out_width, (c + 1) * p.rows)
            block(p, p.x, 0, table, top, bottom, p.y + top * row_bytes)
        return 0
    return depthwise


def _codes(type: str, wide: bool, width: int, stride: int) -> Kernel:
    def caller(tile: Any) -> Any:
        @device
        def run(p, table, tiles, step, y, below, columns):
            tile(table, tiles, step, p.w, y, p.channels, below, p.channels, p.low, p.high, p.zero_point)
        return run
    name = f"depthwise_codes_{type}{'_wide' * wide}_{width}s{stride}"
    return _make(name, CODES, caller, _parts(type, "code", wide, width, stride), 1)


def _hybrid(width: int, stride: int) -> Kernel:
    def caller(tile: Any) -> Any:
        @device
        def run(p, table, tiles, step, y, below, columns):
            tile(table, tiles, step, p.w, y, p.channels * 4, below, p.channels, load_i32(p.factors, 0), load_f32(p.factors, 1),
                 p.lo, p.hi)
        return run
    return _make(f"depthwise_hybrid_{width}s{stride}", HYBRID, caller, _parts("i8", "f32", False, width, stride), 4)


@kernel(PADDING)
def pad_with_zero_point(p, begin, end):
    """Padding of the image's zero point."""
    for _ in prange(begin, end):
        fill_bytes(p.pad, np.int64(load_i32(p.factors, 0)), p.count)
    return 0


_KERNELS = {(type, wide, shape): _codes(type, wide, *shape)
            for type, wide in (("i8", False), ("u8", False), ("u8", True)) for shape in SHAPES}
_HYBRID_KERNELS = {shape: _hybrid(*shape) for shape in SHAPES}
