"""TRANSPOSE_CONV: every input pixel adds a kh x kw patch to the output; stride says how far apart the patches lie.

Inputs: output_shape [4] int32, w [O, kh, kw, C], x [N, h, w, C], bias [O] or none: out[y * sh - top + ky] += x[y] w[ky].
float32 (ops/transpose_conv_f32.py); int8, uint8, int16 (bias int32, int64 or none) with int8 weights; hybrid float32 x int8,
quantised per image. Integers are exact sums, output by output, or ops/transpose_conv_int8.py.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import load_i32
from litejit.ops.arithmetic import act_range, activation, float_range, xnn_act_range
from litejit.ops.base import Operator, Step, Target, chunked
from litejit.ops.fully_connected import plain_activation, weight_scales
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import DOTS, FIXED, FIXED64, HYBRID, HYBRID_XNN, ROUNDING, SIZES, XNN, Rounding, finish
from litejit.ops.transpose_conv_f32 import float_steps
from litejit.ops.transpose_conv_int8 import GEOMETRY, int8_step
from litejit.planner.graph import Node

EXACT = np.dtype([*ROUNDING, *GEOMETRY, ("terms", "i8"), ("x_zero", "i8"), ("w_zero", "i8")], align=True)
OUTPUTS = {"f32": "f32", "i8": "i8", "u8": "u8", "i16": "i16"}
WEIGHTS = {"f32": ("f32", "i8"), "i8": ("i8",), "u8": ("u8",), "i16": ("i8",)}
BIASES = {"f32": ("f32",), "i8": ("i32",), "u8": ("i32",), "i16": ("i32", "i64")}
GRAIN = 1 << 18                        # multiply-accumulates worth a chunk


class TransposeConv(Operator):
    """Options: padding, stride_h, stride_w, fused_activation_function."""

    def delegates(self, node: Node) -> bool:
        w, bias = node[1], node.optional(3)
        if node[0].data is None or w.data is None or (bias is not None and bias.data is None):
            return False
        if node.options.stride_h > w.dims[1] or node.options.stride_w > w.dims[2]:
            return False                                  # gaps between the patches
        return node[2].type in ("f32", "i8", "u8") and plain_activation(node)

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity((3, 4))
        shape, w, x, bias = node[0], node[1], node[2], node.optional(3)
        node.types(shape, "i32")
        node.types(x, *OUTPUTS)
        node.types(w, *WEIGHTS[x.type])
        node.types(node.out, OUTPUTS[x.type])
        node.check(shape.size == 4, lambda: f"NumElements(output_shape) != 4 ({shape.size} != 4)")
        node.check(w.rank == 4 and x.rank == 4, lambda: f"NumDimensions(input) != 4 or weights: {x!r}, {w!r}")
        node.check(x.dims[3] == w.dims[3], lambda: f"SizeOfDimension(input, 3) != SizeOfDimension(weights, 3) "
                   f"({x.dims[3]} != {w.dims[3]})")
        options = node.options
        node.check(options is not None and options.stride_h > 0 and options.stride_w > 0,
                   "params->stride_height > 0 and params->stride_width > 0 was not true.")
        if bias is not None:
            node.types(bias, *BIASES[x.type])
            node.check(bias.size == w.dims[0],
                       lambda: f"NumElements(bias) != SizeOfDimension(weights, 0) ({bias.size} != {w.dims[0]})")
        out = tuple(int(d) for d in node.constant(0).ravel())
        node.check(out[3] == w.dims[0] and out[0] == x.dims[0] and min(out) >= 0,
                   lambda: f"output_shape {out} does not fit {x!r} and {w!r}")
        patches = _patches(node, out)
        node.check(patches == x.dims[1:3], lambda: f"output_shape {out} takes {patches} input pixels, not {x.dims[1:3]}")
        return [out]

    def widens(self, node: Node, target: Target) -> bool:
        return node[2].type == node[1].type == "f32"

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, w = node[2], node[1]
        if x.type == "f32" and w.type == "f32":
            return float_steps(node, target, geometry(node))
        if x.type == "f32":
            return _hybrid(node, target)
        if x.type != "i16" and _constant(node):
            return [int8_step(node, target, geometry(node), x, x.type, _rounding(node), node.optional(3))]
        return [_exact(node, x, x.type, _rounding(node))]


def _patches(node: Node, out: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of the input that a convolution back from the output would give."""
    made = []
    for size, k, stride in zip(out[1:3], node[1].dims[1:3], (node.options.stride_h, node.options.stride_w)):
        same = node.options.padding.name == "SAME"
        made.append(-(-size // stride) if same else -(-(size - k + 1) // stride))
    return made[0], made[1]


def geometry(node: Node) -> dict[str, int]:
    """Fields of GEOMETRY, but for the addresses and the block."""
    (n, h, width, c), (o, kh, kw, _), (_, oh, ow, _) = node[2].dims, node[1].dims, node.out.dims
    sh, sw = node.options.stride_h, node.options.stride_w
    top, left = (max(0, (size - 1) * s + k - out) // 2
                 for size, s, k, out in ((h, sh, kh, oh), (width, sw, kw, ow)))
    return {"batch": n, "h": h, "width": width, "c": c, "oh": oh, "ow": ow, "o": o, "kh": kh, "kw": kw, "sh": sh, "sw": sw,
            "top": top, "left": left}


def _rounding(node: Node) -> Rounding:
    x, w, y, bias = node[2], node[1], node.out, node.optional(3)
    scales, name = weight_scales(w), activation(node)
    if node.xnn:
        return Rounding(XNN, x.scale * scales / y.scale, y.zero_point, xnn_act_range(name, y.scale, y.zero_point, y.type))
    real = np.float64(x.scale) * scales.astype(np.float64) / np.float64(y.scale)
    if x.type == "u8":
        real = (x.scale * scales).astype(np.float64) / np.float64(y.scale)
    wide = x.type == "i16" and (bias is None or bias.type == "i64")
    return Rounding(FIXED64 if wide else FIXED, real, y.zero_point, act_range(name, y.scale, y.zero_point, y.type))


def _exact(node: Node, x: Any, type: str, rounding: Rounding, terms: Any = None) -> Step:
    source, w, y, bias = node[2], node[1], node.out, node.optional(3)
    fields = geometry(node)
    chunks, block = chunked(fields["batch"] * fields["oh"] * fields["ow"], max(1, GRAIN // max(1, w.size)))
    params = {**rounding.params(y, fields["o"], bias), **fields, "x": x, "w": w, "block": block, "terms": terms,
              "x_zero": source.zero_point if type in ("i8", "u8") and terms is None else 0,
              "w_zero": w.zero_point if type == "u8" else 0}
    return Step(node, EXACT_KERNELS[type, w.type], params, chunks, macs=source.size // fields["c"] * w.size)


def _constant(node: Node) -> bool:
    """Whether weights and bias are known."""
    bias = node.optional(3)
    return node[1].data is not None and (bias is None or bias.data is not None)


def _hybrid(node: Node, target: Target) -> list[Step]:
    x, w = node[2], node[1]
    how = "xnn" if node.xnn else "asymmetric"
    rows = quantise_rows(node, x, x.dims[0], x.size // x.dims[0], how)
    rounding = Rounding(HYBRID_XNN if node.xnn else HYBRID, weight_scales(w), 0, float_range(activation(node), node.xnn))
    if w.data is not None:
        return [*rows.steps, int8_step(node, target, geometry(node), rows.codes, "i8", rounding, node.optional(3), rows.terms)]
    return [*rows.steps, _exact(node, rows.codes, "i8", rounding, rows.terms)]


# ---- integers -----------------------------------------------------------------------------------

def _exact_kernel(types: tuple[str, str]) -> Kernel:
    dot, x_size, w_size = DOTS[types], SIZES[types[0]], SIZES[types[1]]

    @kernel(EXACT, name="transpose_conv_" + "_".join(types))
    def transpose_conv(p, begin, end):
        c, taps = p.c, p.kh * p.kw
        for chunk in prange(begin, end):
            for pixel in range(chunk * p.block, min(p.batch * p.oh * p.ow, (chunk + 1) * p.block)):
                image, oy, ox = pixel // (p.oh * p.ow), pixel // p.ow % p.oh, pixel % p.ow
                zero = p.x_zero if p.terms == 0 else np.int64(load_i32(p.terms, 2 * image))
                for o in range(p.o):
                    acc = np.int64(0)
                    for ky in range((oy + p.top) % p.sh, p.kh, p.sh):
                        iy = (oy + p.top - ky) // p.sh
                        if iy < 0 or iy >= p.h:
                            continue
                        for kx in range((ox + p.left) % p.sw, p.kw, p.sw):
                            ix = (ox + p.left - kx) // p.sw
                            if ix < 0 or ix >= p.width:
                                continue
                            acc += dot(p.x + x_size * c * ((image * p.h + iy) * p.width + ix), 1,
                                       p.w + w_size * c * (o * taps + ky * p.kw + kx), 1, c, zero, p.w_zero)
                    finish(acc, image, o, pixel * p.o + o, p)
        return 0
    return transpose_conv


EXACT_KERNELS = {types: _exact_kernel(types) for types in (("i8", "i8"), ("u8", "u8"), ("i16", "i8"))}
OPERATORS = {"TRANSPOSE_CONV": TransposeConv()}
