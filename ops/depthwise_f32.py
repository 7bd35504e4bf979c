"""float32 depthwise convolution: the walk over output rows, in tiles of some columns and all channels.

Rows are made in vertical strips of some columns and channels, so that the input rows that they share stay in the L1 cache.
Tiles whose inputs all lie within the image's width share one table of addresses and move over it.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import store_i64
from litejit.ops.base import Scratch, chunked
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.depthwise_rows import GRAIN, STRIP_BYTES, inner_columns
from litejit.ops.simd.depthwise_f32 import columns_f32, tile_columns
from litejit.ops.tails import finish, function
from litejit.planner.graph import Node

SHAPES = ((3, 1), (3, 2), (5, 1), (5, 2))          # (width, stride) of square kernels with micro-kernels of their own
ROWS = np.dtype([("lo", "f4"), ("hi", "f4"), *FIELDS, *((name, "i8") for name in (
    "x", "w", "y", "pad", "table", "table_size", "rows", "strip", "channel_block", "block_bytes", "wide"))], align=True)


def depthwise_params(cpu: Cpu, windows: Windows, x: Any, w: Any, y: Any, bounds: tuple[float, float]
                     ) -> tuple[dict[str, Any], int]:
    """(values of the fields ROWS, chunks); w: packed weights. A chunk is `rows` output rows."""
    lanes, wide, column = cpu.lanes, tile_columns(cpu, special(windows)[0]), 4 * windows.kh
    across = (wide - 1) * windows.sw + (windows.kw - 1) * windows.dw + 1
    vectors = -(-windows.channels // lanes)
    most = max(1, STRIP_BYTES // (column * across * lanes))              # vectors of channels that a strip may have
    block = -(-vectors // -(-vectors // most)) * lanes
    strip = max(1, STRIP_BYTES // (column * block * windows.sw) // wide) * wide
    work = windows.out_width * windows.channels * windows.kh * windows.kw
    chunks, rows = chunked(windows.images * windows.out_height, max(1, GRAIN // max(work, 1)))
    size = -(-across * windows.kh * 8 // 64) * 64
    return {**windows.params(), "x": x, "w": w, "y": y, "pad": zeros(windows.width * windows.channels * 4),
            "table": Scratch(chunks * size), "table_size": size, "rows": rows, "strip": strip, "channel_block": block,
            "block_bytes": block * (windows.kh * windows.kw + 1) * 4, "wide": wide, "lo": bounds[0], "hi": bounds[1]}, chunks


def special(windows: Windows) -> tuple[int, int]:
    """(width, stride) of the kernel made for these windows; (0, 1): the one for any."""
    shape = windows.kw, windows.sw
    return shape if windows.dw == 1 and windows.kh == windows.kw and shape in SHAPES else (0, 1)


def depthwise_kernel(windows: Windows, node: Node) -> Kernel:
    """The kernel for a shape of windows and the node's tail."""
    return _kernel(*special(windows), function(node))


# ---- kernels -------------------------------------------------------------------------------------

@device
def column_table(p, table, row, ox, count):
    """table[input column][kernel row]: the addresses of the inputs that `count` output columns of a row, from ox on, see."""
    pixel = p.channels * 4
    image, iy, ix = row // p.out_height, row % p.out_height * p.sh - p.top, ox * p.sw - p.left
    across = (count - 1) * p.sw + (p.kw - 1) * p.dw + 1
    for ky in range(p.kh):
        y = iy + ky * p.dh
        here = p.x + ((image * p.height + y) * p.width + ix) * pixel
        inside = y >= 0 and y < p.height
        for k in range(across):
            x = ix + k
            store_i64(table, k * p.kh + ky, here + k * pixel if inside and x >= 0 and x < p.width else p.pad)


@cache
def _kernel(width: int, stride: int, tail: str) -> Kernel:
    tile, inner_tile, after = columns_f32(width, stride), columns_f32(width, stride, width > 0), finish(tail)
    name = f"depthwise_f32_{width}s{stride}" if width else "depthwise_f32"

    @device
    def strip_row(p, table, row, left, right, moved, weights, channels):
        """The output columns left .. right of a row and some channels."""
        first, end = inner_columns(p)
        wide, pixel, out = p.wide, p.channels * 4, p.y + row * p.out_width * p.channels * 4 + moved
        ox = left
        while ox < right:
            column_table(p, table, row, ox, wide)
            if ox >= first and ox + wide <= min(end, right):
                many = (min(end, right) - ox) // wide
                inner_tile(table, many, moved, p.sw * pixel, weights, out + ox * pixel, pixel, channels, wide, p.lo, p.hi,
                           p.kh, p.kw, p.sw, p.dw)
                ox += many * wide
            else:
                tile(table, 1, moved, p.sw * pixel, weights, out + ox * pixel, pixel, channels, min(wide, right - ox), p.lo,
                     p.hi, p.kh, p.kw, p.sw, p.dw)
                ox += wide
        after(out + left * pixel, pixel, right - left, channels)

    @kernel(ROWS, name=f"{name}_{tail}" if tail else name)
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table = p.table + begin * p.table_size
        for c in prange(begin, end):
            bottom = min(p.m // p.out_width, (c + 1) * p.rows)
            for channel in range(0, p.channels, p.channel_block):
                weights = p.w + channel // p.channel_block * p.block_bytes
                for left in range(0, p.out_width, p.strip):
                    for row in range(c * p.rows, bottom):
                        strip_row(p, table, row, left, min(p.out_width, left + p.strip), channel * 4, weights,
                                  min(p.channel_block, p.channels - channel))
        return 0
    return depthwise

