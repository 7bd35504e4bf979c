"""AVERAGE_POOL_2D and MAX_POOL_2D over NHWC tensors, with fused activation.

A unit of work is a row of output pixels; the elements of a window are combined in registers along the channels, and, where
windows begin a pixel apart, along the row. Where they begin further apart and channels are few, windows are made at every
pixel, of which those that are wanted are picked.
Averages divide by the number of elements inside the tensor. Codes are averaged as they are: input and output
quantisation are taken to be equal, as LiteRT does; the fused activation clamps with the output's.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import LOAD, copy_bytes, store_i64
from litejit.ops import streams
from litejit.ops.arithmetic import act_range, activation, float_range, xnn_act_range
from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.ops.simd.moves import rows
from litejit.ops.simd.windows import windows
from litejit.planner.graph import Node

POOL = np.dtype([(name, "i8") for name in (
    "x", "y", "acc", "acc_bytes", "fresh", "line", "table_bytes", "height", "width", "channels", "out_height",
    "out_width", "stride_h", "stride_w", "filter_h", "filter_w", "pad_h", "pad_w", "total", "block", "pixel")]
    + [("low", "f4"), ("high", "f4"), ("nan", "f4")], align=True)

TYPES = ("f32", "f16", "i8", "u8", "i16")
GRAIN = 1 << 15                       # elements read by a chunk
ITEM = {"f32": 4, "f16": 2, "i8": 1, "u8": 1, "i16": 2}
WIDENED = {"average": 4}              # bytes of an element that is added up
CASTS: dict[str, Any] = {"f16": np.float32, "i8": np.int8, "u8": np.uint8, "i16": np.int16}
EXACT = {"i8": 4096, "u8": 4096, "i16": 127}    # elements of a window whose sum float32 divides exactly


class Pool(Operator):
    """A pooling operator: `what` is "average" or "max"."""

    def __init__(self, what: str, types: tuple[str, ...]) -> None:
        self.what, self.types = what, types

    def delegates(self, node: Node) -> bool:
        o, x = node.options, node[0]
        types = ("f32", "f16") if self.what == "average" else ("f32", "i8", "u8")
        return (x.type in types and o.stride_h <= o.filter_height and o.stride_w <= o.filter_width
                and int(o.fused_activation_function) <= 3)

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        x, o = node[0], node.options
        node.check(x.rank == 4, lambda: f"NumDimensions(input) != 4 ({x.rank} != 4): {node.op} takes NHWC images")
        node.check(x.type == node.out.type, lambda: f"input->type != output->type: {x!r}, {node.out!r}")
        node.types(x, *self.types)
        node.check(o is not None, f"{node.op} needs its options")
        node.check(o.stride_h > 0 and o.stride_w > 0, "params->stride_height > 0 was not true, or the width's was not")
        node.check(o.filter_height > 0 and o.filter_width > 0, lambda: f"the window of {node.op} must be at least 1x1, "
                   f"not {o.filter_height}x{o.filter_width}")
        n, h, w, c = x.dims
        (out_h, _), (out_w, _) = sizes(node, h, w)
        node.check((out_h > 0 and out_w > 0) or x.size == 0, lambda: f"a window of {o.filter_height}x{o.filter_width} "
                   f"does not fit into an image of {h}x{w}")
        return [(n, max(out_h, 0), max(out_w, 0), c)]

    def takes_pixels(self, node: Node, target: Target) -> bool:
        return node[0].type == "f32"

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, out, o = node[0], node.out, node.options
        n, h, w, c = x.dims
        (out_h, pad_h), (out_w, pad_w) = sizes(node, h, w)
        taps = min(o.filter_height, h) * min(o.filter_width, w)
        chunks, block = chunked(n * out_h, max(1, GRAIN // max(out_w * c * taps, 1)))
        name, nan = activation(node), float("nan")
        if x.type in ("f32", "f16"):
            low, high = float_range(name, node.xnn)
            nan = low if node.xnn else nan           # what XNNPACK's clamp makes of NaN
        else:
            limits = xnn_act_range if node.xnn else act_range
            low, high = limits(name, out.scale if out.quantised else 1, out.zero_point, x.type)
        plain = x.type == "f16" or (self.what == "average" and taps > EXACT.get(x.type, taps))
        made = (plain_kernel if plain else window_kernel)(self.what, x.type)
        table_bytes = _round(8 * taps)
        acc_bytes, line, pixel = _round(4 * c) if plain else 2 * table_bytes, 0, c * WIDENED.get(self.what, ITEM[x.type])
        if not plain and not node.pixel and o.stride_w > 1 and o.stride_w * pixel <= target.cpu.vbytes:
            line, acc_bytes = acc_bytes, acc_bytes + _round(o.stride_w * out_w * c * ITEM[x.type])
        fresh = np.full(c, -np.inf if self.what == "max" else 0, np.float32)
        return [Step(node, made, {
            "x": x, "y": out, "acc": Scratch(chunks * acc_bytes), "acc_bytes": acc_bytes,
            "fresh": Packed(("pool", self.what, c), lambda: fresh) if plain else None, "line": line,
            "table_bytes": table_bytes, "height": h, "width": w, "channels": c, "out_height": out_h, "out_width": out_w,
            "stride_h": o.stride_h, "stride_w": o.stride_w, "filter_h": o.filter_height, "filter_w": o.filter_width,
            "pad_h": pad_h, "pad_w": pad_w, "total": n * out_h, "block": block, "pixel": node.pixel or c * ITEM[x.type],
            "low": float(low), "high": float(high),
            "nan": nan}, chunks)]


def _round(size: int) -> int:
    """Bytes in whole cache lines."""
    return -(-size // 64) * 64


def sizes(node: Node, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """((output height, padding above), (output width, padding to the left))."""
    o = node.options

    def axis(size: int, taps: int, stride: int) -> tuple[int, int]:
        if o.padding.name == "SAME":
            out = -(-size // stride)
            return out, max(0, (out - 1) * stride + taps - size) // 2
        return (size + stride - taps) // stride, 0
    return axis(height, o.filter_height, o.stride_h), axis(width, o.filter_width, o.stride_w)


OPERATORS: dict[str, Operator] = {"AVERAGE_POOL_2D": Pool("average", TYPES), "MAX_POOL_2D": Pool("max", TYPES)}

# ---- kernels -------------------------------------------------------------------------------------

ONE, HALF = np.float32(1), np.float32(0.5)


@device
def list_window(table, rows, line, columns, pixel):
    """Offsets of the elements of a window; their number."""
    n = 0
    for row in range(0, rows * line, line):
        for at in range(row, row + columns * pixel, pixel):
            store_i64(table, n, at)
            n += 1
    return n


@cache
def window_kernel(what: str, type: str) -> Kernel:
    """The kernel of a type whose windows go through a micro-kernel."""
    combined, size = windows(what, type), ITEM[type]

    @kernel(POOL, name=f"{what}_pool_{type}")
    def pool(p, begin, end):
        pixel, made, low, high, nan = p.pixel, p.channels * size, p.low, p.high, p.nan
        line, wide, width, taps, step = p.width * pixel, p.out_width, p.width, p.filter_w, p.stride_w
        inside = min(wide, (width - taps + p.pad_w) // step + 1)      # windows from here on stick out on the right
        for c in prange(begin, end):
            whole = p.acc + c * p.acc_bytes                           # one table of whole rows, one of the others
            known = known_part = 0
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                image = u // p.out_height
                top = (u - image * p.out_height) * p.stride_h - p.pad_h
                first, last = max(top, 0), min(top + p.filter_h, p.height)
                start, y, ox = p.x + (image * p.height + first) * line, p.y + u * wide * made, 0
                while ox < wide:
                    left = ox * step - p.pad_w
                    a, b = max(left, 0), min(left + taps, width)
                    n = (last - first) * (b - a)
                    if b - a == taps:
                        table = whole
                        if known != n:
                            known = list_window(table, last - first, line, b - a, pixel)
                    else:
                        table = whole + p.table_bytes
                        if known_part != n + (b - a << 32):
                            known_part = list_window(table, last - first, line, b - a, pixel) + (b - a << 32)
                    many = max(inside - ox, 1) if left >= 0 else 1
                    part, half = ONE / np.float32(n), np.float32(n >> 1) + HALF
                    if p.line and many > 1:
                        every = ((many - 1) * step + 1) * p.channels
                        combined(start + a * pixel, table, n, 1, 0, whole + p.line, every, low, high, part, half, nan)
                        rows(y + ox * made, whole + p.line, made, step * made, many, made)
                    else:
                        pixels, elements = (1, many * p.channels) if step * pixel == made else (many, p.channels)
                        combined(start + a * pixel, table, n, pixels, step * pixel, y + ox * made, elements, low, high, part,
                                 half, nan)
                    ox += many
        return 0
    return pool


@cache
def plain_kernel(what: str, type: str) -> Kernel:
    """The kernel of types without vectors of their own (f16), and of codes whose sums float32 cannot divide exactly."""
    load, store, half = streams.LOAD[type], streams.STORE[type], type == "f16"
    middle = "f32" if half else "i32"
    load_acc, keep, kind = LOAD[middle], streams.STORE[middle], np.float32 if half else np.int32
    narrow = CASTS[type]

    @device
    def combine(acc, x):
        if what == "max":
            return x if x > acc else acc
        return kind(acc + x)

    @device
    def finish(value, n, low, high, nan):
        if half:
            value = value / np.float32(n) if what == "average" else value
            value = low if value < low else value
            value = high if value > high else value
            return value if value == value else nan
        whole = np.int64(np.float64(abs(np.int64(value)) + (n >> 1)) / np.float64(n))
        return narrow(min(max(-whole if value < 0 else whole, np.int64(low)), np.int64(high)))

    @kernel(POOL, name=f"{what}_pool_{type}_plain")
    def pool(p, begin, end):
        channels, pixel, low, high, nan = p.channels, p.pixel, p.low, p.high, p.nan
        line = p.width * pixel
        for c in prange(begin, end):
            acc = p.acc + c * p.acc_bytes
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                image = u // p.out_height
                top = (u - image * p.out_height) * p.stride_h - p.pad_h
                first, last = max(top, 0), min(top + p.filter_h, p.height)
                start = p.x + (image * p.height + first) * line
                for ox in range(p.out_width):
                    left = ox * p.stride_w - p.pad_w
                    a, b = max(left, 0) * pixel, min(left + p.filter_w, p.width) * pixel
                    n = (last - first) * ((b - a) // pixel)
                    copy_bytes(acc, p.fresh, 4 * channels)
                    for row in range(start, start + (last - first) * line, line):
                        for at in range(row + a, row + b, pixel):
                            for i in range(channels):
                                keep(acc, i, combine(load_acc(acc, i), load(at, i)))
                    for i in range(channels):
                        store(p.y, (u * p.out_width + ox) * channels + i, finish(load_acc(acc, i), n, low, high, nan))
        return 0
    return pool
