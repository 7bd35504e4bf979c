"""AVERAGE_POOL_2D and MAX_POOL_2D over NHWC tensors, with fused activation.

A unit of work is a row of output pixels. Windows of 2x2 and 3x3 elements are taken at once along the
channels, others four elements of a row at a time. Averages divide by the number of elements inside the tensor. Codes
are averaged as they are: input and output quantisation are taken to be equal, as LiteRT does; the fused activation
clamps with the output's.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import LOAD, abs_f32, copy_bytes, load_f32, load_i32
from litejit.ops import streams
from litejit.ops.arithmetic import act_range, activation, float_range, xnn_act_range
from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.planner.graph import Node

POOL = np.dtype([(name, "i8") for name in (
    "x", "y", "acc", "acc_bytes", "fresh", "neutral", "height", "width", "channels", "out_height", "out_width",
    "stride_h", "stride_w", "filter_h", "filter_w", "pad_h", "pad_w", "total", "block", "low", "high")]
    + [("least", "f4"), ("most", "f4"), ("nan", "f4")], align=True)

TYPES = ("f32", "f16", "i8", "u8", "i16")
GRAIN = 1 << 15                       # elements read by a chunk
ITEM = {"f32": 4, "f16": 2, "i8": 1, "u8": 1, "i16": 2}
LEAST = {"f32": -np.inf, "f16": -np.inf, "i8": -128, "u8": 0, "i16": -32768}
EXACT = 4096                          # elements of a window whose 8-bit sum float32 divides exactly


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
        (out_h, _), (out_w, _) = window(node, h, w)
        node.check((out_h > 0 and out_w > 0) or x.size == 0, lambda: f"a window of {o.filter_height}x{o.filter_width} "
                   f"does not fit into an image of {h}x{w}")
        return [(n, max(out_h, 0), max(out_w, 0), c)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, out, o = node[0], node.out, node.options
        n, h, w, c = x.dims
        (out_h, pad_h), (out_w, pad_w) = window(node, h, w)
        taps = o.filter_height * o.filter_width
        chunks, block = chunked(n * out_h, max(1, GRAIN // max(out_w * c * taps, 1)))
        name = activation(node)
        params: dict[str, Any] = {"low": 0, "high": 0, "least": 0.0, "most": 0.0, "nan": float("nan")}
        if x.type in ("f32", "f16"):
            params["least"], params["most"] = float_range(name, node.xnn)
            params["nan"] = params["least"] if node.xnn else float("nan")    # what XNNPACK's clamp makes of NaN
        else:
            limits = xnn_act_range if node.xnn else act_range
            params["low"], params["high"] = limits(name, out.scale if out.quantised else 1, out.zero_point, x.type)
        if self.what == "max":
            made, neutral = max_kernel(x.type), LEAST[x.type]
        else:
            made, neutral = average_kernel(x.type, x.type == "i16" or taps > EXACT), 0
        acc_type = x.dtype.name if self.what == "max" and x.type != "f16" else "float32"    # a zero of any type is
        acc_bytes = -(-4 * c // 64) * 64                                                     # zero bytes
        return [Step(node, made, {
            "x": x, "y": out, "acc": Scratch(chunks * acc_bytes), "acc_bytes": acc_bytes,
            "fresh": _row(acc_type, neutral, acc_bytes), "neutral": _row(x.dtype.name, neutral, acc_bytes),
            "height": h, "width": w, "channels": c, "out_height": out_h, "out_width": out_w, "stride_h": o.stride_h,
            "stride_w": o.stride_w, "filter_h": o.filter_height, "filter_w": o.filter_width, "pad_h": pad_h,
            "pad_w": pad_w, "total": n * out_h, "block": block, **params}, chunks)]


def _row(dtype: str, value: float, nbytes: int) -> Packed:
    """`nbytes` of one value."""
    count = nbytes // np.dtype(dtype).itemsize
    return Packed(("row", dtype, repr(value), nbytes), lambda: np.full(count, value, dtype))


def window(node: Node, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
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


def _pool(name: str, size: int, load: Any, load_acc: Any, store_acc: Any, begin_with: Any, combine: Any,
          finish: Any, store: Any) -> Kernel:
    """A kernel: acc = begin_with(element), then combine(acc, element) over each window, then
    store(finish(acc, n, 1 / n, first element, bounds, what becomes of NaN))."""
    floats = name.endswith(("f32", "f16"))

    @kernel(POOL, name=name)
    def pool(p, begin, end):
        y, nan = p.y, p.nan
        low, most = (p.least, p.most) if floats else (np.int32(p.low), np.int32(p.high))
        pixel, channels, none = p.channels * size, p.channels, p.neutral
        line = p.width * pixel
        for c in prange(begin, end):
            acc = p.acc + c * p.acc_bytes
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                image = u // p.out_height
                top = (u - image * p.out_height) * p.stride_h - p.pad_h
                first, last = max(top, 0), min(top + p.filter_h, p.height)
                high = last - first
                start = p.x + (image * p.height + first) * line
                for ox in range(p.out_width):
                    left = ox * p.stride_w - p.pad_w
                    near, far = max(left, 0), min(left + p.filter_w, p.width)
                    wide = far - near
                    a, to = start + near * pixel, (u * p.out_width + ox) * channels
                    n = high * wide
                    part = ONE / np.float32(n)
                    if high == 2 and wide == 2:
                        b = a + line
                        a1, b1 = a + pixel, b + pixel
                        for i in range(channels):
                            x = load(a, i)
                            v = combine(combine(combine(begin_with(x), load(a1, i)), load(b, i)), load(b1, i))
                            store(y, to + i, finish(v, n, part, x, low, most, nan))
                    elif high == 3 and wide == 3:
                        a1, a2, b = a + pixel, a + 2 * pixel, a + line
                        b1, b2, d = b + pixel, b + 2 * pixel, b + line
                        d1, d2 = d + pixel, d + 2 * pixel
                        for i in range(channels):
                            x = load(a, i)
                            v = combine(combine(combine(begin_with(x), load(a1, i)), load(a2, i)), load(b, i))
                            v = combine(combine(combine(v, load(b1, i)), load(b2, i)), load(d, i))
                            v = combine(combine(v, load(d1, i)), load(d2, i))
                            store(y, to + i, finish(v, n, part, x, low, most, nan))
                    else:
                        copy_bytes(acc, p.fresh, p.acc_bytes)
                        for r in range(high):
                            for q in range(0, wide, 4):
                                b = a + r * line + q * pixel
                                b1 = b + pixel if q + 1 < wide else none
                                b2 = b1 + pixel if q + 2 < wide else none
                                b3 = b2 + pixel if q + 3 < wide else none
                                for i in range(channels):
                                    v = combine(combine(load_acc(acc, i), load(b, i)), load(b1, i))
                                    store_acc(acc, i, combine(combine(v, load(b2, i)), load(b3, i)))
                        for i in range(channels):
                            store(y, to + i, finish(load_acc(acc, i), n, part, load(a, i), low, most, nan))
        return 0
    return pool


ONE, HALF, NONE = np.float32(1), np.float32(0.5), np.float32(-np.inf)


@device
def itself(x):
    return x


@device
def number(x):
    """-inf for NaN."""
    return x if x == x else NONE


@device
def add(a, b):
    return a + b


@device
def add_codes(a, b):
    return np.int32(a + b)


@device
def larger(a, b):
    return b if b > a else a


@device
def clamp(value, low, most):
    value = low if value < low else value
    return most if value > most else value


@cache
def max_kernel(type: str) -> Kernel:
    """The kernel of MAX_POOL_2D for a type."""
    load, store = streams.LOAD[type], streams.STORE[type]
    if type in ("f32", "f16"):
        @device
        def finish(value, n, part, first, low, most, nan):
            """NaN is passed over, but XNNPACK keeps that of the first element and clamps it to the lower bound."""
            value = clamp(value, low, most)
            return value if first == first or nan != nan else nan
    else:
        narrow: Any = {"i8": np.int8, "u8": np.uint8, "i16": np.int16}[type]

        @device
        def finish(value, n, part, first, low, most, nan):
            return narrow(clamp(np.int32(value), low, most))
    acc = "f32" if type == "f16" else type
    return _pool(f"max_pool_{type}", ITEM[type], load, LOAD[acc], streams.STORE[acc],
                 number if acc == "f32" else itself, larger, finish, store)


@cache
def average_kernel(type: str, wide: bool) -> Kernel:
    """The kernel of AVERAGE_POOL_2D for a type; wide: codes whose sums float32 cannot divide exactly."""
    load, store = streams.LOAD[type], streams.STORE[type]
    if type in ("f32", "f16"):
        @device
        def finish(value, n, part, first, low, most, nan):
            value = clamp(value * part, low, most)
            return value if value == value else nan
        return _pool(f"average_pool_{type}", ITEM[type], load, load_f32, streams.STORE["f32"], itself, add,
                     finish, store)
    narrow: Any = {"i8": np.int8, "u8": np.uint8, "i16": np.int16}[type]

    @device
    def finish_codes(total, n, part, first, low, most, nan):
        """total / n, halves away from zero: half a unit more keeps the rounded reciprocal on the right side."""
        if wide:
            size = np.int32((np.float64(abs(total) + (n >> 1)) + 0.5) / np.float64(n))
        else:
            size = np.int32((abs_f32(np.float32(total)) + (np.float32(n >> 1) + HALF)) * part)
        return narrow(clamp(np.int32(-size if total < 0 else size), low, most))
    return _pool(f"average_pool_{type}{'_wide' if wide else ''}", ITEM[type], load, load_i32, streams.STORE["i32"],
                 itself, add_codes, finish_codes, store)
