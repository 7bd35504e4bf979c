"""DEPTHWISE_CONV_2D on 8-bit activations: XNNPACK's codes, LiteRT's reference codes, and hybrid products."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import fill_bytes, load_f32, load_i32, store_u8
from litejit.ops import streams
from litejit.ops.arithmetic import mbqm, saturate
from litejit.ops.base import Packed, Scratch, Step, Target
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_int8 import multipliers
from litejit.ops.depthwise_dot import dot_step, hybrid_dot_steps, suits
from litejit.ops.depthwise_rows import ROWS, expanded, make_rows, row_params
from litejit.ops.hybrid import quantise_rows
from litejit.ops.simd.depthwise_bytes import by_bytes, heads, pack_bytes
from litejit.ops.simd.depthwise_dot import pack_dot
from litejit.ops.simd.depthwise_int8 import block_shape, columns_int8, pack_depthwise_int8
from litejit.ops.simd.epilogues import fits_requant
from litejit.planner.graph import Node, Value

CODES = np.dtype([("low", "i8"), ("high", "i8"), ("zero_point", "i8"), *ROWS], align=True)
FIXED = np.dtype([("low", "i8"), ("high", "i8"), ("zero_point", "i8"), ("acc", "i8"), ("multipliers", "i8"),
                  *ROWS], align=True)
HYBRID = np.dtype([("factors", "i8"), ("pad_size", "i8"), ("acc", "i8"), ("scales", "i8"), ("bias", "i8"),
                   ("sums", "i8"), ("in_turn", "i8"), ("lo", "f4"), ("hi", "f4"), *ROWS], align=True)


class Weights:
    """Integer weights [taps, channels] with their zero point taken off, and the bias."""

    __slots__ = ("array", "bias", "key")

    def __init__(self, w: Value, bias: Value | None) -> None:
        data = np.asarray(w.data).reshape(-1, w.dims[3])
        zero = w.zero_point if w.type == "u8" else 0
        self.array = data.astype(np.int16) - zero
        self.bias = None if bias is None else np.asarray(bias.data).ravel().astype(np.int64)
        self.key = (w.key, zero, None if bias is None else bias.key)

    def first(self, zero_point: int) -> np.ndarray:
        """bias - zero_point * sum of the taps, per channel."""
        total = self.array.sum(axis=0, dtype=np.int64) * -zero_point
        return total if self.bias is None else total + self.bias

    def fits(self, scales: np.ndarray) -> bool:
        """Whether vectors may requantise without clamping floats first."""
        return fits_requant(self.array.T, self.bias, scales)

    def params(self, target: Target, windows: Windows, x: Any, zero_point: int, scale: np.ndarray | None, y: Any,
               pad: Any) -> tuple[dict[str, Any], int]:
        """`row_params` of a convolution with these weights."""
        cpu, signed = target.cpu, y.type == "i8"
        key = (self.key, "depthwise int8", cpu.name, zero_point, signed, None if scale is None else scale.tobytes())

        def build() -> np.ndarray:
            if scale is not None and by_bytes(cpu):
                return pack_bytes(cpu, self.array, self.first(zero_point), scale, signed)
            return pack_depthwise_int8(cpu, self.array, self.first(zero_point), scale)
        shape = block_shape(cpu, len(self.array), codes=scale is not None)
        return row_params(cpu, windows, x, Packed(key, build), y, pad, 1, shape)

    def dot_blocks(self, cpu: Cpu, stride: int, zero_point: int, scale: np.ndarray, signed: bool) -> Packed:
        """The weights for the tiles of ops/simd/depthwise_dot.py, with the numbers that its codes end with."""
        def build() -> np.ndarray:
            return pack_dot(cpu, self.array, heads(self.array, self.first(zero_point), scale, signed, len(scale)), stride)
        return Packed((self.key, "depthwise dot", cpu.name, stride, zero_point, signed, scale.tobytes()), build)

    def float_blocks(self, cpu: Cpu, stride: int, scale: np.ndarray, bias: np.ndarray) -> Packed:
        """The same for hybrid products."""
        def build() -> np.ndarray:
            numbers = [self.array.sum(axis=0, dtype=np.int32), scale, bias]
            return pack_dot(cpu, self.array, np.stack([n.view(np.uint8).reshape(-1, 4) for n in numbers]), stride)
        return Packed((self.key, "depthwise dot f32", cpu.name, stride, scale.tobytes(), bias.tobytes()), build)


def padding(windows: Windows, code: int) -> Packed:
    """A row of padding bytes."""
    size = 1 << max(6, (windows.width * windows.channels + 63).bit_length())
    return Packed(("padding", size, code & 255), lambda: np.full(size, code & 255, np.uint8))


def constant(array: np.ndarray) -> Packed:
    """A small array as it is."""
    return Packed(("array", array.dtype.str, array.tobytes()), lambda: array)


def quantised_steps(node: Node, target: Target, x: Any, w: Value, bias: Value | None, windows: Windows, scales: np.ndarray,
                    reals: np.ndarray, bounds: tuple[int, int]) -> list[Step]:
    """i8 or u8 as the node's arithmetic wants it: XNNPACK's float32 scales, or the kernels' real ones."""
    weights = Weights(w, bias)
    if node.xnn and weights.fits(scales):
        return codes_steps(node, target, x, weights, windows, scales, bounds)
    return fixed_steps(node, target, x, weights, windows, reals, bounds)


def codes_steps(node: Node, target: Target, x: Any, weights: Weights, windows: Windows, scales: np.ndarray,
                bounds: tuple[int, int]) -> list[Step]:
    """XNNPACK's codes of i8 or u8 with float32 scales, one or one per channel."""
    cpu, zero_point, y = target.cpu, node[0].zero_point, node.out
    scale = np.ascontiguousarray(np.broadcast_to(scales.astype(np.float32), (windows.channels,)))
    pad = padding(windows, zero_point)
    if suits(cpu, windows, weights.array):
        blocks = weights.dot_blocks(cpu, windows.sw, zero_point, scale, y.type == "i8")
        moved = constant(np.array([y.zero_point], np.int32))
        return [dot_step(node, target, windows, x, weights.array, blocks, pad, bounds, moved)]
    params, chunks = weights.params(target, windows, x, zero_point, scale, y, pad)
    params.update(low=bounds[0], high=bounds[1], zero_point=y.zero_point)
    return [Step(node, CODE_KERNELS[y.type], params, chunks, macs=windows.m * windows.channels * windows.kh * windows.kw)]


def fixed_steps(node: Node, target: Target, x: Any, weights: Weights, windows: Windows, reals: np.ndarray,
                bounds: tuple[int, int]) -> list[Step]:
    """LiteRT's reference codes of i8 or u8 with fixed-point multipliers of the real scales."""
    zero_point, y, channels = node[0].zero_point, node.out, windows.channels
    params, chunks = weights.params(target, windows, x, zero_point, None, y, padding(windows, zero_point))
    params.update(low=bounds[0], high=bounds[1], zero_point=y.zero_point, multipliers=multipliers(reals, channels),
                  acc=Scratch(chunks * (windows.out_width * channels * 4 + 64)))
    return [Step(node, FIXED_KERNELS[y.type], params, chunks, macs=windows.m * channels * windows.kh * windows.kw)]


def hybrid_steps(node: Node, target: Target, w: Value, bias: Value | None, windows: Windows, scales: np.ndarray,
                 bounds: tuple[float, float]) -> list[Step]:
    """float32 x int8: each image is quantised asymmetrically while running."""
    x, channels = node[0], windows.channels
    made = quantise_rows(node, x, windows.images, x.size // max(1, windows.images), "asymmetric")
    steps, source, times = [*made.steps], made.codes, channels // x.dims[3]
    if times > 1:
        source, step = expanded(node, target.cpu, made.codes, x.size, 1, times)
        steps.append(step)
    weights = Weights(w, None)
    scale = np.ascontiguousarray(np.broadcast_to(scales.astype(np.float32), (channels,)))
    offsets = np.zeros(channels, np.float32) if bias is None else np.asarray(bias.data, np.float32).ravel()
    macs = windows.m * channels * windows.kh * windows.kw
    if windows.images == 1 and target.mode != "ref" and suits(target.cpu, windows, weights.array):
        blocks = weights.float_blocks(target.cpu, windows.sw, scale, offsets)
        return [*steps, *hybrid_dot_steps(node, target, windows, source, made.terms, blocks, bounds)]
    sums = weights.array.sum(axis=0, dtype=np.int32)
    pad_size = windows.width * channels + 64
    params, chunks = weights.params(target, windows, source, 0, None, node.out, None)
    params.update(pad=Scratch(chunks * pad_size), pad_size=pad_size, factors=made.terms, lo=bounds[0], hi=bounds[1],
                  acc=Scratch(chunks * (windows.out_width * channels * 4 + 64)),
                  scales=constant(scale), bias=constant(offsets), sums=constant(sums), in_turn=int(target.mode != "ref"))
    return [*steps, Step(node, depthwise_hybrid, params, chunks, macs=macs)]


# ---- kernels -------------------------------------------------------------------------------------

def _make_codes(type: str) -> Any:
    depthwise_rows = make_rows(columns_int8(type, "code", False), columns_int8(type, "code", True), 1, 1)

    @kernel(CODES, name=f"depthwise_codes_{type}")
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table, row_bytes, pairs = p.table + begin * p.table_size, p.out_width * p.channels, (p.kh * p.kw + 1) // 2
        for c in prange(begin, end):
            top, bottom = c * p.rows, min(p.m // p.out_width, (c + 1) * p.rows)
            depthwise_rows(p, table, top, bottom, p.y + top * row_bytes, p.pad, pairs, p.low, p.high, p.zero_point)
        return 0
    return depthwise


def _make_fixed(type: str) -> Any:
    depthwise_rows = _RAW[type]

    @kernel(FIXED, name=f"depthwise_fixed_{type}")
    def depthwise(p, begin, end):
        """A chunk is some output rows."""
        table, pixels, pairs = p.table + begin * p.table_size, p.out_width, (p.kh * p.kw + 1) // 2
        acc = p.acc + begin * (pixels * p.channels * 4 + 64)
        for c in prange(begin, end):
            for row in range(c * p.rows, min(p.m // pixels, (c + 1) * p.rows)):
                depthwise_rows(p, table, row, row + 1, acc, p.pad, pairs, 0, 0, 0)
                for ox in range(pixels):
                    fixed_row(acc + ox * p.channels * 4, p.multipliers, p.y + (row * pixels + ox) * p.channels, p.channels,
                              p.zero_point, p.low, p.high)
        return 0
    return depthwise


_RAW = {type: make_rows(columns_int8(type, "i32", False), columns_int8(type, "i32", True), 1, 4) for type in ("i8", "u8")}
CODE_KERNELS = {type: _make_codes(type) for type in ("i8", "u8")}
FIXED_KERNELS = {type: _make_fixed(type) for type in ("i8", "u8")}
_raw_i8 = _RAW["i8"]


_stream_i32, _stream_f32, _store_f32 = streams.LOAD["i32"], streams.LOAD["f32"], streams.STORE["f32"]


@device
def scaled_pixel(p, acc, zero, scale, y):
    """f32(acc - zero * sum of the taps), times the scale of the channel and that of the image, + bias.

    The reference kernel multiplies the scales with each other first, the optimised one each with the sum in turn.
    """
    sums, scales, bias, lo, hi = p.sums, p.scales, p.bias, p.lo, p.hi
    if p.in_turn != 0:
        for c in range(p.channels):
            total = np.float32(np.int32(_stream_i32(acc, c) - zero * _stream_i32(sums, c)))
            value = total * _stream_f32(scales, c) * scale + _stream_f32(bias, c)
            _store_f32(y, c, min(max(value, lo), hi))
    else:
        for c in range(p.channels):
            total = np.float32(np.int32(_stream_i32(acc, c) - zero * _stream_i32(sums, c)))
            value = total * (_stream_f32(scales, c) * scale) + _stream_f32(bias, c)
            _store_f32(y, c, min(max(value, lo), hi))


@kernel(HYBRID)
def depthwise_hybrid(p, begin, end):
    """A chunk is some output rows."""
    table, pixels, pairs = p.table + begin * p.table_size, p.out_width, (p.kh * p.kw + 1) // 2
    acc, pad = p.acc + begin * (pixels * p.channels * 4 + 64), p.pad + begin * p.pad_size
    for c in prange(begin, end):
        padded = -1                                                # image whose zero point the padding has
        for row in range(c * p.rows, min(p.m // pixels, (c + 1) * p.rows)):
            image = row // p.out_height
            zero, scale = load_i32(p.factors, 2 * image), load_f32(p.factors, 2 * image + 1)
            if image != padded:
                fill_bytes(pad, np.int64(zero), p.width * p.channels)
                padded = image
            _raw_i8(p, table, row, row + 1, acc, pad, pairs, 0, 0, 0)
            for ox in range(pixels):
                scaled_pixel(p, acc + ox * p.channels * 4, zero, scale, p.y + (row * pixels + ox) * p.channels * 4)
    return 0


@device
def fixed_row(acc, multipliers, y, n, zero_point, low, high):
    """Codes of n accumulators, each with the multiplier and the shift of its channel."""
    for j in range(n):
        value = mbqm(load_i32(acc, j), load_i32(multipliers, 2 * j), load_i32(multipliers, 2 * j + 1)) + zero_point
        store_u8(y, j, np.uint8(saturate(value, low, high) & 255))
