"""QUANTIZE and DEQUANTIZE, for a whole tensor or per channel, and QUANTIZE from one quantised type to another.

8-bit codes are rescaled by a table (tables.py). Floats are divided by the scale and rounded away from zero (LiteRT's
kernels) or multiplied by its reciprocal and rounded to even (XNNPACK).
"""
from __future__ import annotations

import functools
from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import bits_f32, load_f32, round_f32
from litejit.ops.activation_quantised import eight_bit_multiplier
from litejit.ops.arithmetic import mbqm, quantize_multiplier, saturate
from litejit.ops.base import MAX_CHUNKS, Operator, Packed, Step, Target, chunked
from litejit.ops.cast import HELD, INTEGER, cast
from litejit.ops.elementwise import map_step
from litejit.ops.streams import LOAD, STORE
from litejit.ops.tables import check_codes, fold_table, lookup_steps, round_away, to_codes
from litejit.ops.tables import mbqm as mbqm_of_codes
from litejit.ops.vector_math import MAGIC
from litejit.planner.graph import Q_RANGE, Node, Value

AFFINE = np.dtype([("x", "i8"), ("y", "i8"), ("scales", "i8"), ("zeros", "i8"), ("n", "i8"), ("rows", "i8"),
                   ("inner", "i8"), ("channels", "i8"), ("block", "i8"), ("low", "f4"), ("high", "f4")], align=True)
RESCALE = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8"), ("block", "i8"), ("x_zero", "i8"), ("y_zero", "i8"),
                    ("multiplier", "i8"), ("shift", "i8")], align=True)
GRAIN, ROW = 16384, 4096
FROM_CODES = {"i8": ("i8", "u8", "i16"), "u8": ("i8", "u8", "i16"), "i16": ("i8", "i16", "i32"), "i32": ("i8", "i16")}


class Quantize(Operator):
    """QUANTIZE."""

    def delegates(self, node: Node) -> bool:
        x, y = node[0], node.out
        if x.type in ("f32", "f16"):
            return y.type in ("i8", "u8")
        return x.type == y.type and x.type in ("i8", "u8") and 2.0 ** -8 <= float(x.scale / y.scale) <= 2.0 ** 7

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        x, y = node[0], node.out
        node.types(x, "f32", "f16", *FROM_CODES)
        node.types(y, *(FROM_CODES.get(x.type) or ("i8", "u8", "i16", "i4", "u4")))
        if y.per_channel:
            node.check(x.type == "f32" and _channels(y) == len(_scales(y)),
                       lambda: f"{y!r}: a scale per channel needs a float input and as many scales as channels")
        else:
            check_codes(node, *((y,) if x.type in ("f32", "f16") else (x, y)))
        return [x.dims]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        x, y = node[0], node.out
        if x.type in ("i8", "u8"):
            return [fold_table(node, rescaled_codes)]
        if x.type not in ("f32", "f16") or x.data is None:
            return None
        scales, zeros = _along(y, y.scales), _along(y, _zeros(y))
        v = x.data.astype(np.float32)
        if node.xnn:
            return [to_codes(np.rint(v * (np.float32(1) / scales)) + zeros, y)]
        return [to_codes(round_away(v / scales).astype(np.float64) + zeros, y)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, y = node[0], node.out
        if x.type in ("f32", "f16"):
            low, high = Q_RANGE[y.type]
            scales = np.asarray(y.scales, np.float32)
            if node.xnn:
                scales = np.float32(1) / scales
            run = quantize(x.type, HELD.get(y.type, y.type), node.xnn)
            return [_affine_step(node, run, y, scales, node.xnn, low=low, high=high)]
        if x.type in ("i8", "u8"):
            return lookup_steps(node, rescaled_codes, node.xnn)
        multiplier, shift = quantize_multiplier(float(x.scale) / float(y.scale))
        return [map_step(node, rescale(x.type, y.type), x, y, x_zero=x.zero_point, y_zero=y.zero_point,
                         multiplier=multiplier, shift=shift)]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)


class Dequantize(Operator):
    """DEQUANTIZE, also of float16."""

    def delegates(self, node: Node) -> bool:
        return node[0].type in ("i8", "u8") and node.out.type in ("f32", "f16") and not node[0].per_channel

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        x, y = node[0], node.out
        node.types(x, "i8", "u8", "i16", "f16", "i4", "u4", "i2")
        node.types(y, "f32", "f16", "bf16")
        if x.per_channel:
            node.check(x.type != "i16", lambda: f"{x!r}: int16 takes one scale for the whole tensor")
            node.check(_channels(x) == len(_scales(x)), lambda: f"{x!r} has not as many scales as channels")
        return [x.dims]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        x = node[0]
        if x.data is None:
            return None
        if x.type == "f16":
            return [x.data.astype(node.out.dtype)]
        scales, zeros = _along(x, _scales(x)), _along(x, _zeros(x))
        return [(scales * (x.data.astype(np.float32) - zeros)).astype(node.out.dtype)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, y = node[0], node.out
        if x.type == "f16":
            return [map_step(node, cast("f16", y.type), x, y)]
        return [_affine_step(node, dequantize(HELD.get(x.type, x.type), y.type), x, _scales(x), False)]


# ---- parameters ------------------------------------------------------------------------------------

def _channels(value: Value) -> int:
    return value.dims[value.dimension] if value.dimension < value.rank else 1


def _scales(value: Value) -> np.ndarray:
    """Scales as float32; a tensor without quantisation has scale 0, as in LiteRT."""
    return np.asarray(value.scales if value.quantised else [0.0], np.float32)


def _zeros(value: Value) -> np.ndarray:
    """Zero points as float32, as many as scales."""
    given = value.zero_points if value.zero_points is not None and len(value.zero_points) else [0]
    return np.broadcast_to(np.asarray(given, np.float32), (len(_scales(value)),))


def _along(value: Value, numbers: Any) -> np.ndarray:
    """Numbers per channel, shaped to broadcast over the value's shape."""
    numbers = np.asarray(numbers, np.float32)
    if len(numbers) == 1:
        return numbers.reshape(())
    shape = [1] * value.rank
    shape[value.dimension] = len(numbers)
    return numbers.reshape(shape)


def _affine_step(node: Node, run: Kernel, coded: Value, scales: np.ndarray, reciprocal: bool, *, low: float = 0.0,
                 high: float = 0.0) -> Step:
    """A step of `quantize` or `dequantize`; `coded` has the quantisation. Rows are runs of one channel."""
    n, zeros = coded.size, np.ascontiguousarray(_zeros(coded))
    if len(scales) == 1:
        channels, inner, rows = 1, min(n, ROW), -(-n // ROW)
        chunks, block = chunked(rows, GRAIN // ROW)
    else:
        channels = len(scales)
        inner = int(np.prod(coded.dims[coded.dimension + 1:], dtype=np.int64))
        rows = n // inner
        chunks, block = chunked(rows, max(1, GRAIN // inner))
    name = (channels, scales.tobytes(), zeros.tobytes())
    return Step(node, run, {
        "x": node[0], "y": node.out, "scales": Packed(("scales", reciprocal, *name), lambda: scales),
        "zeros": Packed(("zeros", *name), lambda: zeros), "n": n, "rows": rows, "inner": inner, "channels": channels,
        "block": block, "low": low, "high": high}, min(chunks, MAX_CHUNKS))


def rescaled_codes(node: Node, q: np.ndarray) -> np.ndarray:
    """8-bit codes of another scale and zero point."""
    x, y = node[0], node.out
    if node.xnn:
        return to_codes(eight_bit_multiplier(q - x.zero_point, int(np.rint(np.float32(256) * (x.scale / y.scale))))
                        + y.zero_point, y)
    v = mbqm_of_codes(q - x.zero_point, *quantize_multiplier(float(x.scale) / float(y.scale)))
    return to_codes(v + y.zero_point, y)


OPERATORS: dict[str, Operator] = {"QUANTIZE": Quantize(), "DEQUANTIZE": Dequantize()}


# ---- kernels ---------------------------------------------------------------------------------------

@functools.cache
def quantize(source: str, target: str, xnn: bool) -> Kernel:
    """Floats to codes; `scales` are reciprocals for XNNPACK's formula. NaN gives the lowest code."""
    load, store, integer = LOAD[source], STORE[target], INTEGER[target]

    @kernel(AFFINE, name=f"quantize_{source}_{target}{'_xnn' if xnn else ''}")
    def run(p, begin, end):
        x, y, n, inner = p.x, p.y, p.n, p.inner
        for c in prange(begin, end):
            for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
                scale, zero = load_f32(p.scales, r % p.channels), load_f32(p.zeros, r % p.channels)
                low, high, offset = p.low - zero, p.high - zero, np.int32(zero)
                for i in range(r * inner, min(n, (r + 1) * inner)):
                    v = load(x, i) * scale if xnn else load(x, i) / scale
                    v = v if v > low else low
                    v = high if v > high else v
                    code = bits_f32(v + MAGIC) if xnn else np.int32(round_f32(v))       # low bits: to even, as rint
                    store(y, i, integer(code + offset))
        return 0
    return run


@functools.cache
def dequantize(source: str, target: str) -> Kernel:
    """Codes to floats: scale * (code - zero point)."""
    load, store = LOAD[source], STORE[target]

    @kernel(AFFINE, name=f"dequantize_{source}_{target}")
    def run(p, begin, end):
        x, y, n, inner = p.x, p.y, p.n, p.inner
        for c in prange(begin, end):
            for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
                scale, zero = load_f32(p.scales, r % p.channels), load_f32(p.zeros, r % p.channels)
                for i in range(r * inner, min(n, (r + 1) * inner)):
                    store(y, i, scale * (np.float32(np.int32(load(x, i))) - zero))
        return 0
    return run


@functools.cache
def rescale(source: str, target: str) -> Kernel:
    """Codes of 16 or 32 bits to another scale and zero point."""
    load, store, integer = LOAD[source], STORE[target], INTEGER[target]
    low, high = Q_RANGE[target]

    @kernel(RESCALE, name=f"rescale_{source}_{target}")
    def run(p, begin, end):
        x, y, n, block, x_zero, y_zero = p.x, p.y, p.n, p.block, p.x_zero, p.y_zero
        multiplier, shift = p.multiplier, p.shift
        for c in prange(begin, end):
            for i in range(c * block, min(n, (c + 1) * block)):
                v = mbqm(np.int64(load(x, i)) - x_zero, multiplier, shift)
                store(y, i, integer(saturate(v + y_zero, low, high)))
        return 0
    return run
