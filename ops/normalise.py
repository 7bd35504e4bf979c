"""L2_NORMALIZATION along the last axis."""
from __future__ import annotations

import functools

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import sqrt_f32
from litejit.ops.arithmetic import activation, mbqm, saturate
from litejit.ops.base import Operator, Step, Target, chunked
from litejit.ops.streams import LOAD, STORE
from litejit.ops.unary import inverse_square_root
from litejit.ops.vector_math import ONE, ZERO
from litejit.planner.graph import Node

ROWS = np.dtype([("x", "i8"), ("y", "i8"), ("rows", "i8"), ("depth", "i8"), ("block", "i8"),
                 ("zero", "i8")], align=True)
GRAIN = 16384
EPSILON = np.float32(1e-6)            # the least norm
OUT_ZERO = {"i8": 0, "u8": 128}


class L2Normalization(Operator):
    """L2_NORMALIZATION: x over the square root of its sum of squares."""

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        x, y = node[0], node.out
        node.types(x, "f32", "i8", "u8")
        node.same_type(x, y)
        node.check(1 <= x.rank <= 4, "NumDimensions(input) <= 4 and at least 1")
        node.check(activation(node) == "NONE", "params->activation != kTfLiteActNone: no fused activation here")
        if x.type in OUT_ZERO:
            node.check(float(y.scale) == 1 / 128 and y.zero_point == OUT_ZERO[x.type],
                       lambda: f"output->params.scale: {y!r} must have scale 1/128 and zero point {OUT_ZERO[x.type]}, "
                               f"it has {y.scale} and {y.zero_point}")
        return [x.dims]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        depth = node[0].dims[-1]
        rows = node[0].size // depth
        chunks, block = chunked(rows, max(1, GRAIN // depth))
        run = l2_normalize_f32 if node[0].type == "f32" else l2_normalize_codes(node[0].type)
        return [Step(node, run, {"x": node[0], "y": node.out, "rows": rows, "depth": depth, "block": block,
                                 "zero": node[0].zero_point}, chunks)]


OPERATORS: dict[str, Operator] = {"L2_NORMALIZATION": L2Normalization()}

_load, _store = LOAD["f32"], STORE["f32"]


@kernel(ROWS, fastmath=("reassoc", "contract"))
def l2_normalize_f32(p, begin, end):
    """Rows of floats."""
    x, y, depth = p.x, p.y, p.depth
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            total = ZERO
            for i in range(r * depth, (r + 1) * depth):
                v = _load(x, i)
                total += v * v
            norm = sqrt_f32(total)
            share = ONE / (EPSILON if norm < EPSILON else norm)
            for i in range(r * depth, (r + 1) * depth):
                _store(y, i, _load(x, i) * share)
    return 0


@functools.cache
def l2_normalize_codes(type: str) -> Kernel:
    """Rows of codes to steps of 1 / 128: uint8 is scaled by 128 before it is multiplied, int8 while it is."""
    load, store, integer = LOAD[type], STORE[type], {"i8": np.int8, "u8": np.uint8}[type]
    out_zero = OUT_ZERO[type]
    low, high = (0, 255) if type == "u8" else (-128, 127)
    before, within = (7, 0) if type == "u8" else (0, 7)

    @kernel(ROWS, name=f"l2_normalize_{type}")
    def run(p, begin, end):
        x, y, depth, zero = p.x, p.y, p.depth, p.zero
        for c in prange(begin, end):
            for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
                total = 0
                for i in range(r * depth, (r + 1) * depth):
                    v = np.int64(load(x, i)) - zero
                    total += v * v
                multiplier, shift = inverse_square_root(total)
                for i in range(r * depth, (r + 1) * depth):
                    v = mbqm((np.int64(load(x, i)) - zero) << before, multiplier, shift + within)
                    store(y, i, integer(saturate(v + out_zero, low, high)))
        return 0
    return run
