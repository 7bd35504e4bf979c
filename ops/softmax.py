"""SOFTMAX and LOG_SOFTMAX of floats along the last axis; the quantised ones are in softmax_quantised.py."""
from __future__ import annotations

import functools
import math

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import bits_f32, float_bits
from litejit.ops.base import Operator, Step, Target, chunked
from litejit.ops.simd.row_sweeps import softmax
from litejit.ops.softmax_quantised import log_softmax_steps, softmax_int16_steps, softmax_steps
from litejit.ops.softmax_table import log_softmax_table_steps, softmax_table_steps
from litejit.ops.streams import LOAD, STORE
from litejit.ops.tables import check_codes
from litejit.ops.vector_math import ONE, ZERO, exp_nonpositive, log_f32
from litejit.planner.graph import Node, Value

ROWS = np.dtype([("x", "i8"), ("y", "i8"), ("rows", "i8"), ("depth", "i8"), ("block", "i8"),
                 ("beta", "f4")], align=True)
GRAIN = 8192
LOWEST = int(np.float32(-np.inf).view(np.int32)) ^ 0x7FFFFFFF
# type -> (scale, zero point) that an output must have
SOFTMAX_OUT = {"i8": (1 / 256, -128), "u8": (1 / 256, 0), "i16": (1 / 32768, 0)}
LOG_SOFTMAX_OUT = {"i8": (16 / 256, 127), "u8": (16 / 256, 255)}


class Softmax(Operator):
    """SOFTMAX: exp(beta * x) over its sum."""

    def delegates(self, node: Node) -> bool:
        return node[0].type in ("f32", "f16") and float(node.options.beta) == 1.0

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        x, y = node[0], node.out
        node.types(x, "f32", "f16", "i8", "u8", "i16")
        node.types(y, *{"i8": ("i8", "i16"), "u8": ("u8", "i16")}.get(x.type, (x.type,)))
        node.check(x.rank >= 1, "NumDimensions(input) >= 1: a scalar has no last axis")
        _check_quantization(node, x, y, SOFTMAX_OUT)
        return [x.dims]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, beta = node[0], float(node.options.beta)
        if x.type == "i16":
            return softmax_int16_steps(node, beta)
        if x.type in ("i8", "u8"):
            if target.mode != "ref" and node.out.type == x.type:
                return softmax_table_steps(node, beta)
            return softmax_steps(node, beta)
        return [_row_step(node, softmax_f32 if x.type == "f32" else softmax_f16, beta)]


class LogSoftmax(Operator):
    """LOG_SOFTMAX: x minus the logarithm of the sum of exp(x)."""

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        x, y = node[0], node.out
        node.types(x, "f32", "i8", "u8")
        node.same_type(x, y)
        node.check(x.rank >= 1, "NumDimensions(input) >= 1: a scalar has no last axis")
        _check_quantization(node, x, y, LOG_SOFTMAX_OUT)
        return [x.dims]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        if node[0].type != "f32":
            return log_softmax_steps(node) if target.mode == "ref" else log_softmax_table_steps(node)
        return [_row_step(node, log_softmax_rows, 1.0)]


def _check_quantization(node: Node, x: Value, y: Value, wanted: dict[str, tuple[float, int]]) -> None:
    if y.type not in wanted:
        return
    scale, zero = wanted[y.type]
    check_codes(node, x, y)
    node.check(math.isclose(float(y.scale), scale, rel_tol=1e-3) and y.zero_point == zero,
               lambda: f"output->params.scale: {y!r} must have scale {scale} and zero point {zero}, "
                       f"it has {y.scale} and {y.zero_point}")


def _row_step(node: Node, run: Kernel, beta: float) -> Step:
    depth = node[0].dims[-1]
    rows = node[0].size // depth
    chunks, block = chunked(rows, max(1, GRAIN // depth))
    return Step(node, run, {"x": node[0], "y": node.out, "rows": rows, "depth": depth, "block": block, "beta": beta},
                chunks)


OPERATORS: dict[str, Operator] = {"SOFTMAX": Softmax(), "LOG_SOFTMAX": LogSoftmax()}


# ---- kernels ---------------------------------------------------------------------------------------

@device
def ordered(bits):
    """Bits of a float32 as an integer of the same order (its own inverse): integer maxima vectorise, and NaN wins."""
    return np.int32(bits ^ ((bits >> 31) & 0x7FFFFFFF))


@functools.cache
def row_maximum(type: str):  # type: ignore[no-untyped-def]
    """Device function: the largest of n elements from address x; NaN if one is NaN with a clear sign."""
    load = LOAD[type]

    @device
    def maximum(x, first, last):
        most = np.int32(LOWEST)
        for i in range(first, last):
            most = max(most, ordered(bits_f32(load(x, i))))
        return float_bits(ordered(most))
    return maximum


@kernel(ROWS)
def softmax_f32(p, begin, end):
    """Rows of exp((x - max) * beta) / sum. Any NaN or +inf, or only -inf, makes its row NaN."""
    first, depth = begin * p.block, p.depth
    softmax(p.x + 4 * first * depth, p.y + 4 * first * depth, min(p.rows, end * p.block) - first, depth, p.beta)
    return 0


_load_f16, _store_f16, _maximum_f16 = LOAD["f16"], STORE["f16"], row_maximum("f16")


@kernel(ROWS, fastmath=("reassoc",))
def softmax_f16(p, begin, end):
    """The same of float16, computed in float32."""
    x, y, depth, beta = p.x, p.y, p.depth, p.beta
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            first, last = r * depth, (r + 1) * depth
            most = _maximum_f16(x, first, last)
            total = ZERO
            for i in range(first, last):
                total += exp_nonpositive((_load_f16(x, i) - most) * beta)
            share = ONE / total
            for i in range(first, last):
                _store_f16(y, i, exp_nonpositive((_load_f16(x, i) - most) * beta) * share)
    return 0


_maximum = row_maximum("f32")
_load, _store = LOAD["f32"], STORE["f32"]


@kernel(ROWS, fastmath=("reassoc",))
def log_softmax_rows(p, begin, end):
    """Rows of x - max - log(sum of exp(x - max))."""
    x, y, depth = p.x, p.y, p.depth
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            first, last = r * depth, (r + 1) * depth
            most = _maximum(x, first, last)
            total = ZERO
            for i in range(first, last):
                total += exp_nonpositive(_load(x, i) - most)
            log_total = log_f32(total)
            for i in range(first, last):
                _store(y, i, (_load(x, i) - most) - log_total)
    return 0
