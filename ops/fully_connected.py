"""FULLY_CONNECTED: y[b, o] = activation(sum_i x[b, i] * w[o, i] + bias[o]), in all types; x is taken as rows of depth I.

w [O, I] constant or not, bias [O] or none; y [B, O], or x.shape[:-1] + [O] with keep_num_dims. Arithmetic: float32;
int8 (weights int8, int4, int2; scales per tensor or per row), uint8, int16 x int8/int4/int16 (bias int32, int64 or none);
hybrid float32 x int8/uint8/int4/int2, where rows are quantised while running (ops/hybrid.py); int4 weights in blocks.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import bits_f32, load_f32, store_f32
from litejit.ops import block_weights, reference_float, shuffled_weights
from litejit.ops.arithmetic import act_range, activation, float_range, xnn_act_range
from litejit.ops.base import Operator, Step, Target, chunked
from litejit.ops.conv_geometry import matrix_windows
from litejit.ops.float_product import Matrix, float_steps, half_steps, takes_pitch
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import DOUBLE, HYBRID, HYBRID_SIGN, HYBRID_XNN, XNN, Layout, Rounding, product_step
from litejit.ops.packed_product import hybrid_steps, quantised_steps
from litejit.ops.product_16x8 import product_16_steps
from litejit.ops.vector_math import tanh_f32
from litejit.planner.graph import Node, Value

LATE = np.dtype([("y", "i8"), ("total", "i8"), ("block", "i8")], align=True)
F32_0, F32_1 = np.float32(0), np.float32(1)
WEIGHTS = {"f32": ("f32", "i8", "u8", "i4", "i2"), "f16": ("f16",), "i8": ("i8", "i4", "i2"), "u8": ("u8",),
           "i16": ("i8", "i4", "i16")}
OUTPUTS = {"f32": ("f32",), "f16": ("f16",), "i8": ("i8", "i16"), "u8": ("u8", "i16"), "i16": ("i16",)}
BIASES = {"f32": ("f32",), "f16": ("f16", "f32"), "i8": ("i32",), "u8": ("i32",), "i16": ("i32", "i64")}


class FullyConnected(Operator):
    """Options: fused_activation_function, keep_num_dims, asymmetric_quantize_inputs, weights_format."""

    def delegates(self, node: Node) -> bool:
        x, w, bias = node[0], node[1], node.optional(2)
        if w.data is None or (bias is not None and bias.data is None) or not plain_activation(node):
            return False
        if getattr(node.options, "weights_format", 0):
            return False
        if x.type == "f32":
            return w.type in ("f32", "i8", "i4", "i2") and _even(w) and (block_weights.of(w) is None or block_weights.packs(w))
        if x.type == "i8":
            return node.out.type == "i8" and _even(w)
        return x.type == "f16" or (x.type == "u8" and node.out.type == "u8")

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity((2, 3), (1, 2))
        x, w, bias, y = node[0], node[1], node.optional(2), node.out
        node.types(x, *WEIGHTS)
        node.types(w, *WEIGHTS[x.type])
        node.types(y, *OUTPUTS[x.type])
        node.check(w.rank == 2, lambda: f"NumDimensions(filter) != 2 ({w.rank} != 2)")
        outputs, depth = w.dims
        if bias is not None:
            node.types(bias, *BIASES[x.type])
            node.check(bias.size == outputs,
                       lambda: f"NumElements(bias) != SizeOfDimension(filter, 0) ({bias.size} != {outputs})")
        hybrid = x.type == "f32" and w.type != "f32"
        node.check(hybrid or plain_activation(node), lambda: f"fused activation {activation(node)} is not supported: "
                   "params->activation == kTfLiteActNone || ... || params->activation == kTfLiteActRelu6 was not true.")
        keep = bool(getattr(node.options, "keep_num_dims", False))
        node.check(x.rank > 0 and depth > 0, "a FULLY_CONNECTED input needs a dimension, and its weights a depth")
        if keep:
            node.check(x.dims[-1] == depth,
                       lambda: f"input->dims->data[input->dims->size - 1] != cols ({x.dims[-1]} != {depth})")
            return [(*x.dims[:-1], outputs)]
        node.check(x.size % depth == 0, lambda: f"the size of {x!r} is no multiple of the depth {depth} of its weights")
        if getattr(node.options, "weights_format", 0):
            return shuffled_weights.shapes(node)
        return [(x.size // depth, outputs)]

    def widens(self, node: Node, target: Target) -> bool:
        return takes_pitch(node, target) and not getattr(node.options, "weights_format", 0)

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, w, bias, y = node[0], node[1], node.optional(2), node.out
        if getattr(node.options, "weights_format", 0):
            return shuffled_weights.steps(node, target)
        if x.type == "f16":
            return half_steps(node, target, x, y, _matrix(w), bias, float_range(activation(node), node.xnn))
        if x.type == "f32":
            if w.type == "f32":
                bounds = float_range(activation(node), node.xnn)
                if target.mode == "ref" and reference_float.fits(w, bias):
                    rows = matrix_windows(x.size // w.dims[1], w.dims[1])
                    return reference_float.product_steps(node, x, y, w, bias, rows, bounds)
                return float_steps(node, target, x, y, _matrix(w), bias, bounds=bounds)
            if block_weights.of(w) is not None and target.mode != "ref":
                return block_weights.steps(node, target)
            return _hybrid(node, target)
        return _integer(node, target)


def plain_activation(node: Node) -> bool:
    """Whether the fused activation is one that every kernel has."""
    return activation(node) in ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")


def _even(w: Value) -> bool:
    """Whether rows of sub-byte weights fill whole bytes."""
    return w.dims[1] % {"i4": 2, "i2": 4}.get(w.type, 1) == 0


def _matrix(w: Value) -> Matrix:
    outputs, depth = w.dims
    return Matrix(w, columns=outputs, depth=depth, transposed=True)


def _layout(x: Value, w: Value) -> Layout:
    outputs, depth = w.dims
    return Layout(x.size // depth, outputs, depth)


def weight_scales(w: Value) -> np.ndarray:
    """Scales of the weights, one or one per row, float32; 0 without quantisation, as LiteRT has it."""
    return np.asarray(w.scales, np.float32) if w.quantised else np.zeros(1, np.float32)


def _integer(node: Node, target: Target) -> list[Step]:
    x, w, bias, y = node[0], node[1], node.optional(2), node.out
    scales, w_zero = weight_scales(w), w.zero_point if w.type == "u8" else 0
    if node.xnn:
        rounding = Rounding(XNN, x.scale * scales / y.scale, y.zero_point,
                            xnn_act_range(activation(node), y.scale, y.zero_point, y.type))
        return quantised_steps(node, target, x, y, w, bias, rounding, w_zero)
    real = np.float64(x.scale) * scales.astype(np.float64) / np.float64(y.scale)
    rounding = Rounding(DOUBLE, real, y.zero_point, act_range(activation(node), y.scale, y.zero_point, y.type))
    if x.type == "i16":
        return product_16_steps(node, target, w, bias, _layout(x, w), rounding)
    if w.data is not None and (bias is None or bias.data is not None):
        return quantised_steps(node, target, x, y, w, bias, rounding, w_zero)
    return [product_step(node, x, w, y, bias, _layout(x, w), rounding, x.zero_point, w_zero)]


def _hybrid(node: Node, target: Target) -> list[Step]:
    x, w, bias, y = node[0], node[1], node.optional(2), node.out
    bounds = float_range(activation(node), node.xnn)
    if node.xnn:
        return hybrid_steps(node, target, x, y, w, bias, Rounding(HYBRID_XNN, weight_scales(w), 0, bounds))
    how = "asymmetric" if getattr(node.options, "asymmetric_quantize_inputs", False) else "symmetric"
    lowest = w.data is not None and bool((np.asarray(w.data).view(np.int8) == -128).any())
    rounding = Rounding(HYBRID_SIGN if lowest else HYBRID, weight_scales(w), 0, bounds)
    late = [] if plain_activation(node) else [late_activation(node, y)]
    if w.data is not None and (bias is None or bias.data is not None) and (how == "symmetric" or not lowest):
        return [*hybrid_steps(node, target, x, y, w, bias, rounding, how=how), *late]
    layout = _layout(x, w)
    rows = quantise_rows(node, x, layout.m, layout.k, how)
    product = product_step(node, rows.codes, w, y, bias, layout, rounding, x_type="i8", terms=rows.terms)
    return [*rows.steps, product, *late]


def late_activation(node: Node, y: Value) -> Step:
    """TANH or SIGN_BIT, which only hybrid products have, on the finished output."""
    chunks, block = chunked(y.size, 1 << 13)
    kind = {"TANH": tanh_in_place, "SIGN_BIT": sign_bit_in_place}[activation(node)]
    return Step(node, kind, {"y": y, "total": y.size, "block": block}, chunks)


@kernel(LATE)
def tanh_in_place(p, begin, end):
    for c in prange(begin, end):
        for i in range(c * p.block, min(p.total, (c + 1) * p.block)):
            store_f32(p.y, i, tanh_f32(load_f32(p.y, i)))
    return 0


@kernel(LATE)
def sign_bit_in_place(p, begin, end):
    """1 for negative numbers, 0 for others."""
    for c in prange(begin, end):
        for i in range(c * p.block, min(p.total, (c + 1) * p.block)):
            store_f32(p.y, i, F32_1 if bits_f32(load_f32(p.y, i)) < 0 else F32_0)
    return 0


OPERATORS: dict[str, Any] = {"FULLY_CONNECTED": FullyConnected()}
