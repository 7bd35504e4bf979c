"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR of NHWC tensors. Where output pixels look is a table made while planning.

Bilinear: two rows are mixed into one row in scratch memory, whose pixels are mixed into output pixels. In integers the
order does not matter, nothing is rounded in between. XNNPACK has weights of 11 bits and rounds halves up, the reference
kernels of int8 and int16 have 10 bits and round halves away from zero, that of uint8 computes in float32.
"""
from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import STORE, copy_bytes
from litejit.ops import streams
from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.ops.simd.pixels import MIX, STEP, picked_pixels, picked_reach
from litejit.planner.graph import Node

RESIZE = np.dtype([(name, "i8") for name in (
    "x", "y", "mixed", "mixed_bytes", "reach", "down", "across", "each", "height", "width", "channels", "out_height",
    "out_width", "total", "block")], align=True)

GRAIN = 1 << 14                       # output elements of a chunk
FEW = 3                               # channels below which pixels are mixed through a table with an entry per element
NEAREST_TYPES = ("f32", "f16", "bf16", "i8", "u8", "i16", "u16", "i32", "u32", "bool")


class Resize(Operator):
    """Base of both. Inputs: tensor, size (i32: height, width); options align_corners, half_pixel_centers."""

    types: tuple[str, ...] = ()

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        x, size = node[0], node[1]
        node.check(x.rank == 4, lambda: f"NumDimensions(input) != 4 ({x.rank} != 4): {node.op} takes NHWC images")
        node.check(size.dims == (2,), lambda: f"size->dims->data[0] != 2 ({size.dims} != (2,))")
        node.types(size, "i32")
        node.types(x, *self.types)
        node.same_type(x, node.out)
        height, width = (int(v) for v in node.constant(1))
        node.check(height > 0 and width > 0, lambda: f"size_data[0] > 0 was not true: the size {height}x{width}")
        node.check(x.size > 0 or x.dims[0] == 0 or x.dims[3] == 0, lambda: f"{x!r} has no pixels to resize")
        return [(x.dims[0], height, width, x.dims[3])]


class Nearest(Resize):
    """RESIZE_NEAREST_NEIGHBOR: pixels are copied, of any type."""

    types = NEAREST_TYPES

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, out = node[0], node.out
        if out.size == 0:
            return []
        n, h, w, c = x.dims
        _, out_h, out_w, _ = out.dims
        pixel = c * x.itemsize
        unit = next(size for size in (8, 4, 2, 1) if pixel % size == 0)
        chunks, block = chunked(n * out_h, max(1, GRAIN // max(out_w * pixel // unit, 1)))
        return [Step(node, nearest_kernel(unit), {
            "x": x, "y": out, "down": _nearest(node, h, out_h), "across": _nearest(node, w, out_w), "height": h,
            "width": w, "channels": pixel // unit, "out_height": out_h, "out_width": out_w, "total": n * out_h,
            "block": block, "reach": -(-picked_reach(pixel) // unit)}, chunks)]


class Bilinear(Resize):
    """RESIZE_BILINEAR."""

    types = ("f32", "i8", "u8", "i16")

    def delegates(self, node: Node) -> bool:
        return node[0].type in ("f32", "i8", "u8") and node[1].constant

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.check(not all(flags(node)), "If half_pixel_centers is True, align_corners must be False.")
        return super().prepare(node)

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, out = node[0], node.out
        if out.size == 0:
            return []
        n, h, w, c = x.dims
        _, out_h, out_w, _ = out.dims
        way = "float" if x.type == "f32" or (x.type == "u8" and not node.xnn) else "xnn" if node.xnn else "fixed"
        chunks, block = chunked(n * out_h, max(1, GRAIN // max(out_w * c, 1)))
        size = (w * c + STEP) * (8 if x.type == "i16" else 4)
        mixed_bytes = -(-size // 64) * 64
        made = four_point_kernel() if x.type == "u8" and way == "float" else bilinear_kernel(x.type, way)
        return [Step(node, made, {
            "x": x, "y": out, "mixed": Scratch(chunks * mixed_bytes), "mixed_bytes": mixed_bytes,
            "down": _bilinear(node, h, out_h, way), "across": _bilinear(node, w, out_w, way),
            "each": _bilinear(node, w, out_w, way, c) if c < FEW else None, "height": h, "width": w, "channels": c,
            "out_height": out_h, "out_width": out_w, "total": n * out_h, "block": block, "reach": -c % STEP}, chunks)]


OPERATORS: dict[str, Operator] = {"RESIZE_BILINEAR": Bilinear(), "RESIZE_NEAREST_NEIGHBOR": Nearest()}

# ---- tables: where output pixels look ------------------------------------------------------------


def flags(node: Node) -> tuple[bool, bool]:
    """(align_corners, half_pixel_centers)."""
    o = node.options
    return bool(o is not None and o.align_corners), bool(o is not None and o.half_pixel_centers)


def _nearest(node: Node, size: int, out: int) -> Packed:
    align, half = flags(node)

    def build() -> np.ndarray:
        scale = np.float32(size - 1) / np.float32(out - 1) if align and out > 1 else np.float32(size) / np.float32(out)
        place = (np.arange(out, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
        whole = np.floor(place)
        if align:
            whole += place - whole >= np.float32(0.5)
        return np.clip(whole, 0, size - 1).astype(np.int32)
    return Packed(("nearest", size, out, align, half), build)


def _bilinear(node: Node, size: int, out: int, way: str, channels: int = 1) -> Packed:
    """int32 triples for each output position: the two input positions, and the weight of the second (float32 bits for
    "float"). With channels, positions are of elements, and there is a triple for each channel of a pixel."""
    align, half = flags(node)
    exact = not node.xnn              # the reference kernels' own coordinates

    def build() -> np.ndarray:
        if way == "fixed":
            low, high, weight = _fixed_places(size, out, align, half)
        elif way == "float" and exact:
            low, high, part = _reference_places(size, out, align, half)
            weight = part.view(np.int32)
        else:
            low, high, part = _xnn_places(size, out, align, half)
            weight = part.view(np.int32) if way == "float" else np.rint(part * np.float32(2048)).astype(np.int32)
        spread = np.arange(channels)
        table = np.stack([(low[:, None] * channels + spread).ravel(), (high[:, None] * channels + spread).ravel(),
                          np.repeat(weight, channels)], axis=-1)
        return np.ascontiguousarray(table, np.int32)
    return Packed(("bilinear", size, out, align, half, way, exact, channels), build)


def _xnn_places(size: int, out: int, align: bool, half: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(first, second, weight of the second), coordinates in float32 clamped to the image."""
    less = 1 if align and out != 1 else 0
    scale = np.float32(size - less) / np.float32(out - less)
    place = np.arange(out, dtype=np.float32) * scale
    if half:
        place = np.maximum(place + (np.float32(0.5) * scale - np.float32(0.5)), np.float32(0))
    place = np.minimum(place, np.float32(size - 1))
    low = place.astype(np.int64)
    return low, np.minimum(low + 1, size - 1), place - low.astype(np.float32)


def _reference_places(size: int, out: int, align: bool, half: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same as the reference kernels have them in float32."""
    scale = np.float32(size - 1) / np.float32(out - 1) if align and out > 1 else np.float32(size) / np.float32(out)
    place = np.arange(out, dtype=np.float32)
    place = (place + np.float32(0.5)) * scale - np.float32(0.5) if half else place * scale
    low = np.maximum(np.floor(place), 0).astype(np.int64)
    high = np.minimum(np.ceil(place), size - 1).astype(np.int64)
    return low, high, place - low.astype(np.float32)


def _fixed_places(size: int, out: int, align: bool, half: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same in fixed point of 10 bits, with divisions that truncate towards zero."""
    scale = ((size << 10) + out // 2) // out
    if align and out > 1:
        scale = (((size - 1) << 10) + (out - 1) // 2) // (out - 1)
    place = np.arange(out, dtype=np.int64) * scale
    if half:
        place += scale // 2 - 512
    low = np.maximum(np.trunc(place / 1024).astype(np.int64), 0)
    high = np.minimum(np.trunc((place + 1023) / 1024).astype(np.int64), size - 1)
    return low, high, place - 1024 * low


# ---- kernels -------------------------------------------------------------------------------------

_UNITS = {1: "u8", 2: "u16", 4: "u32", 8: "u64"}
DTYPES = {"f32": "f4", "i8": "i1", "u8": "u1", "i16": "i2"}
_KINDS: dict[str, Any] = {"i8": np.int8, "u8": np.uint8, "i16": np.int16}
ONE, HALF = np.float32(1), np.float32(0.5)
load_f32, load_i32 = streams.LOAD["f32"], streams.LOAD["i32"]


@device
def whole_pixels(p, rows):
    """Pixels of a row that may be made in whole registers; it is the first of `rows` rows that are written in order."""
    quick = rows * p.out_width - (p.reach + p.channels - 1) // p.channels
    return max(0, min(p.out_width, quick))


@cache
def nearest_kernel(unit: int) -> Kernel:
    """The kernel that copies pixels of `p.channels` units of 1, 2, 4 or 8 bytes."""
    load, store = streams.LOAD[_UNITS[unit]], streams.STORE[_UNITS[unit]]

    @kernel(RESIZE, name=f"resize_nearest_{unit}")
    def resize_nearest(p, begin, end):
        x, y, down, across = p.x, p.y, p.down, p.across
        n, wide, high, width = p.channels, p.out_width, p.out_height, p.width
        many = wide * n
        for c in prange(begin, end):
            before, stop = -1, min(p.total, (c + 1) * p.block)
            for u in range(c * p.block, stop):
                image = u // high
                row = image * p.height + load_i32(down, u - image * high)
                to = u * many
                if row == before:                          # the same as the output row above
                    copy_bytes(y + to * unit, y + (to - many) * unit, many * unit)
                    continue
                before = row
                source = x + row * width * n * unit
                if n == 1:
                    for i in range(many):
                        store(y, to + i, load(source, load_i32(across, i)))
                    continue
                quick = whole_pixels(p, stop - u)
                picked_pixels(y + to * unit, source, across, quick, n * unit)
                for i in range(quick, wide):
                    at = load_i32(across, i) * n
                    for k in range(n):
                        store(y, to + i * n + k, load(source, at + k))
        return 0
    return resize_nearest


def _quick_pixels(way: str) -> Any:
    """Device function: mixes the pixels of a row that may be made in whole registers, and says how many those are."""
    if way == "fixed":
        @device
        def none(p, y, mixed, rows):
            return 0
        return none
    mix_pixels = MIX["f32" if way == "float" else "codes"]

    @device
    def quick_pixels(p, y, mixed, rows):
        quick = whole_pixels(p, rows)
        mix_pixels(y, mixed, p.across, quick, p.channels)
        return quick
    return quick_pixels


@cache
def bilinear_kernel(type: str, way: str) -> Kernel:
    """The kernel of a type: "float" (f32), "xnn" (i8, u8) or "fixed" (i8, i16) weights."""
    load, store = streams.LOAD[type], streams.STORE[type]
    middle = "f32" if way == "float" else "i64" if type == "i16" else "i32"
    load_mixed, store_mixed = streams.LOAD[middle], STORE[middle]
    if way == "float":
        weight = load_f32

        @device
        def mix(a, b, t):
            return a + (b - a) * t

        @device
        def finish(v):
            return v
    else:
        weight, kind = load_i32, _KINDS[type]
        bits = 11 if way == "xnn" else 10
        narrow: Any = np.int64 if type == "i16" else np.int32
        half = 1 << (2 * bits - 1)

        @device
        def mix(a, b, t):
            return narrow((a << bits) + (b - a) * t)

        @device
        def finish(v):
            up = half if way == "xnn" or v >= 0 else half - 1
            return kind(narrow(v + up) >> (2 * bits))
    quick_pixels = _quick_pixels(way)
    out_size = np.dtype(DTYPES[type]).itemsize

    @kernel(RESIZE, name=f"resize_bilinear_{type}_{way}")
    def resize_bilinear(p, begin, end):
        x, y, down, across, each = p.x, p.y, p.down, p.across, p.each
        n, wide, high, size = p.channels, p.out_width, p.out_height, p.mixed_bytes
        line, many = p.width * n, wide * n
        for c in prange(begin, end):
            mixed, stop = p.mixed + c * size, min(p.total, (c + 1) * p.block)
            for u in range(c * p.block, stop):
                image = u // high
                row = 3 * (u - image * high)
                t = weight(down, row + 2)
                first = (image * p.height + load_i32(down, row)) * line
                second = (image * p.height + load_i32(down, row + 1)) * line
                for i in range(line):
                    store_mixed(mixed, i, mix(load(x, first + i), load(x, second + i), t))
                to = u * many
                if each != 0:
                    for i in range(many):
                        a, b = load_i32(each, 3 * i), load_i32(each, 3 * i + 1)
                        s = weight(each, 3 * i + 2)
                        store(y, to + i, finish(mix(load_mixed(mixed, a), load_mixed(mixed, b), s)))
                    continue
                quick = quick_pixels(p, y + to * out_size, mixed, stop - u)
                for i in range(quick, wide):
                    a, b = load_i32(across, 3 * i) * n, load_i32(across, 3 * i + 1) * n
                    s = weight(across, 3 * i + 2)
                    for k in range(n):
                        store(y, to + i * n + k, finish(mix(load_mixed(mixed, a + k), load_mixed(mixed, b + k), s)))
        return 0
    return resize_bilinear


@cache
def four_point_kernel() -> Kernel:
    """The reference kernel of uint8: four float32 products per element, in its order, plus a half, truncated."""
    load, store = streams.LOAD["u8"], streams.STORE["u8"]

    @kernel(RESIZE, name="resize_bilinear_u8_float")
    def resize_bilinear(p, begin, end):
        x, y, down, across = p.x, p.y, p.down, p.across
        n, wide, high = p.channels, p.out_width, p.out_height
        line = p.width * n
        for c in prange(begin, end):
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                image = u // high
                row = 3 * (u - image * high)
                t = load_f32(down, row + 2)
                first = (image * p.height + load_i32(down, row)) * line
                second = (image * p.height + load_i32(down, row + 1)) * line
                for i in range(wide):
                    a, b = load_i32(across, 3 * i) * n, load_i32(across, 3 * i + 1) * n
                    s = load_f32(across, 3 * i + 2)
                    to = (u * wide + i) * n
                    for k in range(n):
                        v = np.float32(load(x, first + a + k)) * (ONE - t) * (ONE - s)
                        v += np.float32(load(x, second + a + k)) * t * (ONE - s)
                        v += np.float32(load(x, first + b + k)) * (ONE - t) * s
                        v += np.float32(load(x, second + b + k)) * t * s
                        store(y, to + k, np.uint8(np.int32(v + HALF)))
        return 0
    return resize_bilinear
