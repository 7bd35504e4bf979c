"""float32 convolutions and matrix products in the order of LiteRT's reference kernels, for OpResolverType.BUILTIN_REF.

Sums begin at 0, take the taps in row-major order and their channels in turn, multiply and add separately, and add the
bias last: the results are the reference's to the last bit, which models that quantise them again depend on.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import load_f32, store_f32
from litejit.ops.base import Packed, Step, chunked
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.planner.graph import Node, Value

PRODUCT = np.dtype([*FIELDS, ("x", "i8"), ("w", "i8"), ("bias", "i8"), ("y", "i8"), ("outputs", "i8"), ("group", "i8"),
                    ("block", "i8"), ("lo", "f4"), ("hi", "f4")], align=True)
DEPTHWISE = np.dtype([("times", "i8"), ("x", "i8"), ("w", "i8"), ("bias", "i8"), ("y", "i8"),
                      ("outputs", "i8"), ("block", "i8"), ("lo", "f4"), ("hi", "f4"), *FIELDS], align=True)
GRAIN = 1 << 18                       # multiply-accumulates worth a chunk


def fits(w: Value, bias: Value | None) -> bool:
    """Weights and bias are constant, so that they can be packed while planning."""
    return w.data is not None and (bias is None or bias.data is not None)


def _offsets(bias: Value | None, outputs: int) -> Packed:
    return Packed((None if bias is None else bias.key, "offsets", outputs),
                  lambda: np.zeros(outputs, np.float32) if bias is None else np.asarray(bias.data, np.float32).ravel())


def product_steps(node: Node, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows,
                  bounds: tuple[float, float]) -> list[Step]:
    """CONV_2D with weights [outputs, kh, kw, depth], or FULLY_CONNECTED as 1x1 windows with weights [outputs, depth]."""
    outputs = w.dims[0]
    packed = Packed((w.key, "[depth, outputs]"), lambda: np.asarray(w.data, np.float32).reshape(outputs, -1).T)
    chunks, block = chunked(windows.m, max(1, GRAIN // max(1, outputs * windows.k)))
    return [Step(node, product_f32_reference, {
        **windows.params(), "x": x, "w": packed, "bias": _offsets(bias, outputs), "y": y, "outputs": outputs,
        "group": outputs // windows.groups, "block": block, "lo": bounds[0], "hi": bounds[1]}, chunks,
        macs=windows.m * outputs * windows.k)]


def depthwise_steps(node: Node, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows, times: int,
                    bounds: tuple[float, float]) -> list[Step]:
    """DEPTHWISE_CONV_2D with weights [1, kh, kw, outputs]; output c * times + k comes from channel c."""
    outputs = w.dims[3]
    packed = Packed((w.key, "as it is"), lambda: np.asarray(w.data, np.float32))
    chunks, block = chunked(windows.m, max(1, GRAIN // max(1, outputs * windows.kh * windows.kw)))
    return [Step(node, depthwise_f32_reference, {
        **windows.params(), "x": x, "w": packed, "bias": _offsets(bias, outputs), "y": y, "outputs": outputs,
        "times": times, "block": block, "lo": bounds[0], "hi": bounds[1]}, chunks,
        macs=windows.m * outputs * windows.kh * windows.kw)]


# ---- kernels ---------------------------------------------------------------------------------------

F32_0 = np.float32(0)


@device
def add_products(p, pixel, tap, y):
    """y += the products of all channels of a pixel with the weights of a tap."""
    for first in range(0, p.outputs, p.group):
        channel, to = first // p.group * p.depth, y + first * 4
        for k in range(p.depth):
            value, row = load_f32(pixel, channel + k), p.w + ((tap * p.depth + k) * p.outputs + first) * 4
            for n in range(p.group):
                store_f32(to, n, load_f32(to, n) + value * load_f32(row, n))


@device
def add_channels(p, pixel, tap, y):
    """y += the products of the channels of a pixel, each with its own weights of a tap."""
    row = p.w + tap * p.outputs * 4
    if p.times == 1:
        for n in range(p.outputs):
            store_f32(y, n, load_f32(y, n) + load_f32(pixel, n) * load_f32(row, n))
    else:
        for n in range(p.outputs):
            store_f32(y, n, load_f32(y, n) + load_f32(pixel, n // p.times) * load_f32(row, n))


def _reference(name: str, record: np.dtype, add: Any) -> Kernel:
    """The kernel that adds up all taps of a window by a device function."""
    @kernel(record, name=name)
    def run(p, begin, end):
        outputs = p.outputs
        for c in prange(begin, end):
            for m in range(c * p.block, min(p.m, (c + 1) * p.block)):
                y, ox, rest = p.y + m * outputs * 4, m % p.out_width, m // p.out_width
                oy, image = rest % p.out_height, rest // p.out_height
                for n in range(outputs):
                    store_f32(y, n, F32_0)
                for tap in range(p.kh * p.kw):
                    iy, ix = oy * p.sh - p.top + tap // p.kw * p.dh, ox * p.sw - p.left + tap % p.kw * p.dw
                    if iy >= 0 and iy < p.height and ix >= 0 and ix < p.width:
                        add(p, p.x + ((image * p.height + iy) * p.width + ix) * p.channels * 4, tap, y)
                for n in range(outputs):
                    store_f32(y, n, min(max(load_f32(y, n) + load_f32(p.bias, n), p.lo), p.hi))
        return 0
    return run


product_f32_reference = _reference("product_f32_reference", PRODUCT, add_products)
depthwise_f32_reference = _reference("depthwise_f32_reference", DEPTHWISE, add_channels)
