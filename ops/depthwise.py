"""DEPTHWISE_CONV_2D: y[n, oy, ox, c * m + k] = activation(sum over taps of x[..., c] * w[0, ky, kx, c * m + k] + bias).

x [N, H, W, C], w [1, kh, kw, C * m] with scales per tensor or per output channel, bias [C * m] or none. Arithmetic: float32
(and float16, computed in float32), int8 x int8/int4, uint8, int16 x int8/int4/int16, float32 x int8 (hybrid).
A multiplier m > 1 is run as m = 1 on repeated channels.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler.cpu import Cpu
from litejit.ops import reference_float
from litejit.ops.arithmetic import activation, float_range
from litejit.ops.base import Operator, Scratch, Step, Target
from litejit.ops.conv import BIASES, PLAIN, check_scales, code_range, real_scales, weight_scales, widened, xnn_scales
from litejit.ops.conv import OPERATORS as CONV
from litejit.ops.conv_geometry import Windows, windows
from litejit.ops.depthwise_16x8 import depthwise_16_steps
from litejit.ops.depthwise_dot import suits
from litejit.ops.depthwise_f32 import depthwise_f32_steps
from litejit.ops.depthwise_int8 import Weights, hybrid_steps, quantised_steps
from litejit.ops.depthwise_rows import expanded
from litejit.ops.float_product import convert, narrow_f16, widen_f16
from litejit.planner.graph import Node, Value

WEIGHTS = {"f32": ("f32", "i8"), "f16": ("f16",), "i8": ("i8", "i4"), "u8": ("u8",), "i16": ("i8", "i4", "i16")}


class DepthwiseConv2D(Operator):
    """Options: padding, stride_w, stride_h, dilation_w_factor, dilation_h_factor, fused_activation_function."""

    def delegates(self, node: Node) -> bool:
        x, w, bias = node[0], node[1], node.optional(2)
        if w.data is None or bias is None or bias.data is None or activation(node) not in PLAIN:
            return False
        return (x.type, w.type) in (("f32", "f32"), ("f16", "f16"), ("i8", "i8"), ("u8", "u8"))

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity((2, 3))
        x, w, y, bias = node[0], node[1], node.out, node.optional(2)
        node.types(x, *WEIGHTS)
        node.check(y.type == x.type, lambda: f"output->type != data_type ({y!r}, {x!r})")
        node.types(w, *WEIGHTS[x.type])
        node.check(x.rank == 4, lambda: f"NumDimensions(input) != 4 ({x.rank} != 4)")
        node.check(w.rank == 4, lambda: f"NumDimensions(filter) != 4 ({w.rank} != 4)")
        node.check(w.dims[0] == 1, lambda: f"SizeOfDimension(filter, 0) != 1 ({w.dims[0]} != 1)")
        channels, outputs = x.dims[3], w.dims[3]
        node.check(channels > 0 and w.size > 0 and outputs % channels == 0,
                   lambda: f"output_channels % input_channels != 0 ({outputs} channels out, {channels} in)")
        if bias is not None:
            node.types(bias, *BIASES[x.type])
            node.check(bias.size == outputs,
                       lambda: f"SizeOfDimension(filter, 3) != SizeOfDimension(bias, 0) ({outputs} != {bias.size})")
        check_scales(node, w, 3)
        made = windows(node, (w.dims[1], w.dims[2]), channels)
        return [(x.dims[0], made.out_height, made.out_width, outputs)]

    def takes_pixels(self, node: Node, target: Target) -> bool:
        x, w = node[0], node[1]
        return x.type == w.type == "f32" and w.dims[3] == x.dims[3] and target.mode != "ref"

    def takes_unsigned(self, node: Node, target: Target) -> bool:
        x, w = node[0], node[1]
        if not (node.xnn and x.type == w.type == node.out.type == "i8") or len(node.outputs) > 1 or _is_conv(node, target):
            return False
        weights = Weights(w, node.optional(2))
        return node.tail is None and weights.fits(xnn_scales(node)) and suits(target.cpu, wide_windows(node), weights.array)

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, w, bias, y = node[0], node[1], node.optional(2), node.out
        if x.type == "f16":
            return self._half(node, target)
        if _is_conv(node, target):
            return CONV["CONV_2D"].steps(_as_conv(node), target)
        if w.type == "f32":
            return _float(node, target, x, y, w, bias)
        node.check(w.data is not None and (bias is None or bias.data is not None),
                   f"{node.op} with integer weights needs constant weights and bias")
        if x.type == "f32":
            return hybrid_steps(node, target, w, bias, wide_windows(node), weight_scales(w),
                                float_range(activation(node), node.xnn))
        source, made, first = repeated(node, target.cpu, x, x.itemsize)
        if x.type == "i16":
            return first + depthwise_16_steps(node, target, source, w, bias, made, real_scales(node), code_range(node))
        return first + quantised_steps(node, target, source, w, bias, made, xnn_scales(node), real_scales(node),
                                       code_range(node))

    def _half(self, node: Node, target: Target) -> list[Step]:
        x, y = node[0], node.out
        wide_x, wide_y = Scratch(4 * x.size), Scratch(4 * y.size)
        bias = node.optional(2)
        middle = _float(node, target, wide_x, wide_y, widened(node, node[1]), bias and widened(node, bias))
        return [convert(node, widen_f16, x, wide_x, x.size), *middle, convert(node, narrow_f16, wide_y, y, y.size)]


def _is_conv(node: Node, target: Target) -> bool:
    """Whether the image has one channel, of which a plain convolution makes several."""
    x, w, bias = node[0], node[1], node.optional(2)
    constant = w.data is not None and (bias is None or bias.data is not None)
    plain = node.mean is None and not node.pixel and (target.mode != "ref" or x.type != "f32")
    return x.dims[3] == 1 < w.dims[3] and constant and plain and x.type == w.type in ("f32", "i8", "u8")


def _as_conv(node: Node) -> Node:
    """The node with weights [O, kh, kw, 1]."""
    w = node[1]
    weights = w.derived("conv", np.asarray(w.data).reshape(w.dims).transpose(3, 1, 2, 0))
    made = Node(node.op, node.operator, node.index, node.subgraph, (node[0], weights, *node.inputs[2:]), node.outputs,
                node.options, version=node.version, spec=node.spec)
    made.xnn, made.tail = node.xnn, node.tail
    return made


def wide_windows(node: Node) -> Windows:
    """The windows of the node as if its input had all output channels."""
    w = node[1]
    made = windows(node, (w.dims[1], w.dims[2]), w.dims[3])
    made.channels = w.dims[3]
    return made.lying()


def repeated(node: Node, cpu: Cpu, x: Any, itemsize: int) -> tuple[Any, Windows, list[Step]]:
    """(input with all output channels, its windows, steps that make it)."""
    made, times = wide_windows(node), node[1].dims[3] // node[0].dims[3]
    if times == 1:
        return x, made, []
    source, step = expanded(node, cpu, x, node[0].size, itemsize, times)
    return source, made, [step]


def _float(node: Node, target: Target, x: Any, y: Any, w: Value, bias: Value | None) -> list[Step]:
    bounds = float_range(activation(node), node.xnn)
    if target.mode == "ref" and reference_float.fits(w, bias):
        made = windows(node, (w.dims[1], w.dims[2]), 1)
        return reference_float.depthwise_steps(node, x, y, w, bias, made, w.dims[3] // node[0].dims[3], bounds)
    times = w.dims[3] // node[0].dims[3]
    return depthwise_f32_steps(node, target.cpu, x, y, w, bias, wide_windows(node), times, bounds)


OPERATORS: dict[str, Operator] = {"DEPTHWISE_CONV_2D": DepthwiseConv2D()}
