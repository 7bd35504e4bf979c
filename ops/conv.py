"""CONV_2D: y[n, oy, ox, o] = activation(sum over taps and channels of x * w + bias[o]), in all types.

x [N, H, W, C], w [O, kh, kw, C / groups] with scales per tensor or per output channel, bias [O]. Arithmetic: float32 (on
request with products of bfloat16), float16 computed in float32, int8 x int8/int4, uint8, int16 x int8/int4/int16,
float32 x int8/uint8/int4/int2 (hybrid).
"""
from __future__ import annotations

import numpy as np

from litejit.ops import conv_planes, depthwise_int8, reference_float
from litejit.ops.arithmetic import act_range, activation, float_range, xnn_act_range
from litejit.ops.base import Operator, Scratch, Step, Target
from litejit.ops.conv_16x8 import Rounding16, conv_16_steps
from litejit.ops.conv_bf16 import conv_bf16_steps
from litejit.ops.conv_f32 import conv_f32_steps
from litejit.ops.conv_geometry import Windows, windows
from litejit.ops.conv_groups import as_depthwise, by_channels, merged
from litejit.ops.conv_hybrid import hybrid_steps
from litejit.ops.conv_int8 import Weights, codes_steps, fixed_steps
from litejit.ops.conv_winograd import Tiling, tiling, winograd_steps
from litejit.ops.conv_winograd_int8 import tile_size_int8, winograd_int8_steps
from litejit.ops.copy import Move, copy_steps, strides
from litejit.ops.depthwise_f32 import depthwise_f32_steps
from litejit.ops.depthwise_rows import expanded
from litejit.ops.float_product import Matrix, convert, float_steps, narrow_f16, takes_pitch, widen_f16
from litejit.ops.integer_product import XNN, Layout, Rounding
from litejit.ops.packed_product import quantised_steps
from litejit.ops.tails import tail_steps
from litejit.planner.graph import Node, Value

WEIGHTS = {"f32": ("f32", "i8", "u8", "i4", "i2"), "f16": ("f16",), "i8": ("i8", "i4"), "u8": ("u8",),
           "i16": ("i8", "i4", "i16")}
BIASES = {"f32": ("f32",), "f16": ("f16", "f32"), "i8": ("i32",), "u8": ("i32",), "i16": ("i32", "i64")}
PLAIN = ("NONE", "RELU", "RELU_N1_TO_1", "RELU6")
WINDOWS = {"f32": conv_f32_steps, "bf16": conv_bf16_steps}          # by what products are made of


class Conv2D(Operator):
    """Options: padding, stride_w, stride_h, dilation_w_factor, dilation_h_factor, fused_activation_function."""

    def delegates(self, node: Node) -> bool:
        x, w, bias = node[0], node[1], node.optional(2)
        if w.data is None or bias is None or bias.data is None or activation(node) not in PLAIN:
            return False
        return (x.type, w.type) in (("f32", "f32"), ("f16", "f16"), ("f32", "i8"), ("i8", "i8"), ("u8", "u8"))

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity((2, 3))
        x, w = node[0], node[1]
        check_types(node)
        node.check(x.rank == 4, lambda: f"input->dims->size != 4 ({x.rank} != 4)")
        node.check(w.rank == 4, lambda: f"filter->dims->size != 4 ({w.rank} != 4)")
        depth = w.dims[3]
        node.check(depth > 0 and w.size > 0 and x.dims[3] % depth == 0 and x.dims[3] >= depth, lambda: (
            f"input_channel % filter_input_channel != 0 ({x.dims[3] % max(depth, 1)} != 0): {x!r}, {w!r}"))
        groups = x.dims[3] // depth
        node.check(w.dims[0] % groups == 0,
                   lambda: f"filter output channels % groups != 0 ({w.dims[0]} channels in {groups} groups)")
        check_bias(node, w.dims[0])
        check_scales(node, w, 0)
        made = windows_of(node)
        return [(x.dims[0], made.out_height, made.out_width, w.dims[0])]

    def widens(self, node: Node, target: Target) -> bool:
        w, bias, made = node[1], node.optional(2), windows_of(node).lying()
        free = node.tail is None or _tiling(node, target, made) is None
        deep = by_channels(target.cpu, w, bias, made) or _in_planes(target, w, bias, made)
        return takes_pitch(node, target) and free and not deep

    one_sign = False

    def takes_unsigned(self, node: Node, target: Target) -> bool:
        x, w, bias, made = node[0], node[1], node.optional(2), windows_of(node).lying()
        if not (node.xnn and x.type == w.type == node.out.type == "i8") or node.tail is not None:
            return False
        if made.kh * made.kw == made.groups == 1:
            return True
        return not by_channels(target.cpu, w, bias, made) and fits_xnn(node, target)

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, w, bias = node[0], node[1], node.optional(2)
        made = windows_of(node).lying()
        if x.type == "f16":
            return _half(node, target, made)
        if w.type == "f32":
            return _float(node, target, x, node.out, w, bias, made)
        node.check(w.data is not None and (bias is None or bias.data is not None),
                   f"{node.op} with integer weights needs constant weights and bias")
        if x.type == "f32":
            return hybrid_steps(node, target, w, bias, made, weight_scales(w), float_range(activation(node), node.xnn))
        w_zero = w.zero_point if w.type == "u8" else 0
        if node.xnn and made.kh * made.kw == made.groups == 1:
            return _rows_of_codes(node, target, made, w_zero)
        if x.type != "i16" and by_channels(target.cpu, w, bias, made):
            return _channels_of_codes(node, target, made)
        w, made = merged(target.cpu, w, made, w_zero, in_place=node.xnn)
        if x.type == "i16":
            return conv_16_steps(node, target, w, made, Rounding16(bias, real_scales(node), w.dims[0]), code_range(node))
        weights = Weights(w, bias, made.groups, target.cpu)
        scales = xnn_scales(node)
        if node.xnn and weights.fits(scales):
            size = tile_size_int8(target.cpu, made, weights)
            if size:
                return winograd_int8_steps(node, target, weights, made, scales, code_range(node), size)
            return codes_steps(node, target, weights, made, scales, code_range(node))
        return fixed_steps(node, target, weights, made, real_scales(node), code_range(node))


def fits_xnn(node: Node, target: Target) -> bool:
    """Whether weights and scales of a node of codes let vectors round as XNNPACK does."""
    weights = Weights(node[1], node.optional(2), windows_of(node).groups, target.cpu)
    return weights.fits(xnn_scales(node))


def _tiling(node: Node, target: Target, made: Windows) -> Tiling | None:
    """The tiles of Winograd that compute a float32 node, None where another kernel does."""
    w, bias = node[1], node.optional(2)
    if made.pointwise or target.mode == "ref" or w.data is None or (bias is not None and bias.data is None):
        return None
    choice = tiling(target.cpu, made, w.dims[0], target.products)
    return choice if choice.m else None


def _in_planes(target: Target, w: Value, bias: Value | None, made: Windows) -> bool:
    return target.products == "f32" and conv_planes.pays(target.cpu, w, bias, made)


def windows_of(node: Node) -> Windows:
    """The windows of a CONV_2D node."""
    w = node[1]
    return windows(node, (w.dims[1], w.dims[2]), w.dims[3])


def _float(node: Node, target: Target, x: Value | Scratch, y: Value | Scratch, w: Value, bias: Value | None,
           made: Windows) -> list[Step]:
    bounds = float_range(activation(node), node.xnn)
    if target.mode == "ref" and reference_float.fits(w, bias):
        return reference_float.product_steps(node, x, y, w, bias, made, bounds)
    if made.pointwise:
        matrix = Matrix(w, columns=w.dims[0], depth=w.dims[3], transposed=True)
        return float_steps(node, target, x, y, matrix, bias, bounds=bounds, m=made.m)
    if by_channels(target.cpu, w, bias, made):
        times = w.dims[0] // made.channels
        weights, wide = as_depthwise(w, made)
        return depthwise_f32_steps(node, target.cpu, x, y, weights, bias, wide, times, bounds)
    if _in_planes(target, w, bias, made):
        return conv_planes.planes_steps(node, target.cpu, x, y, w, bias, made, bounds)
    choice = _tiling(node, target, made)
    if choice is not None:
        return [*winograd_steps(node, target, x, y, w, bias, made, bounds, choice), *tail_steps(node)]
    return WINDOWS[target.products](node, target, x, y, w, bias, made, bounds)


def _rows_of_codes(node: Node, target: Target, made: Windows, w_zero: int) -> list[Step]:
    """A 1 x 1 convolution in XNNPACK's codes: a product of the pixels, brought together where strides leave some out."""
    x, w, bias, y = node[0], node[1], node.optional(2), node.out
    rounding = Rounding(XNN, xnn_scales(node), y.zero_point, code_range(node))
    source: Value | Scratch = x
    steps: list[Step] = []
    if not made.pointwise:
        shape, row = (made.images, made.out_height, made.out_width, made.channels), made.width * made.channels
        source = Scratch(made.m * made.channels + 64)
        steps = copy_steps(node, x, source, Move(shape, (made.height * row, made.sh * row, made.sw * made.channels, 1),
                                                 strides(shape)), 1)
    return steps + quantised_steps(node, target, x, y, w, bias, rounding, w_zero, Layout(made.m, w.dims[0], made.k), source)


def _channels_of_codes(node: Node, target: Target, made: Windows) -> list[Step]:
    """A convolution of codes with one channel a group: a depthwise one."""
    x, steps = node[0], []
    w, wide = as_depthwise(node[1], made)
    source: Value | Scratch = x
    if wide.channels > made.channels:
        source, step = expanded(node, target.cpu, x, x.size, 1, wide.channels // made.channels)
        steps.append(step)
    return steps + depthwise_int8.quantised_steps(node, target, source, w, node.optional(2), wide, xnn_scales(node),
                                                  real_scales(node), code_range(node))


def _half(node: Node, target: Target, made: Windows) -> list[Step]:
    """float16 tensors: computed in float32, rounded once."""
    x, y = node[0], node.out
    wide_x, wide_y = Scratch(4 * x.size), Scratch(4 * y.size)
    bias = node.optional(2)
    middle = _float(node, target.exact(), wide_x, wide_y, widened(node, node[1]), bias and widened(node, bias), made)
    return [convert(node, widen_f16, x, wide_x, x.size), *middle, convert(node, narrow_f16, wide_y, y, y.size)]


# ---- shared with DEPTHWISE_CONV_2D ---------------------------------------------------------------

def widened(node: Node, value: Value) -> Value:
    """A float16 constant as float32."""
    if value.type == "f32":
        return value
    node.check(value.data is not None, f"{node.op} in float16 needs constant weights and bias")
    return value.derived("f32", np.asarray(value.data).astype(np.float32), "f32")


def check_types(node: Node) -> None:
    """Types of input, weights and output."""
    x, w, y = node[0], node[1], node.out
    node.types(x, *WEIGHTS)
    node.check(y.type == x.type, lambda: f"output->type != input_type ({y!r}, {x!r})")
    node.types(w, *WEIGHTS[x.type])


def check_bias(node: Node, channels: int) -> None:
    """Type and size of the bias, if there is one."""
    bias = node.optional(2)
    if bias is not None:
        node.types(bias, *BIASES[node[0].type])
        node.check(bias.size == channels,
                   lambda: f"NumElements(bias) != SizeOfDimension(filter, 0) ({bias.size} != {channels})")


def check_scales(node: Node, w: Value, axis: int) -> None:
    """Integer nodes need scales: one for the weights, or one per output channel."""
    if w.type == "f32" or w.type == "f16":
        return
    channels, count = w.dims[axis], 0 if w.scales is None else len(w.scales)
    node.check(count, lambda: f"{w!r} has no quantization: filter->quantization.type == kTfLiteAffineQuantization")
    node.check(count in (1, channels),
               lambda: f"affine_quantization->scale->size != filter->dims->data[{axis}] ({count} != {channels})")
    if node[0].type != "f32":
        for value in (node[0], node.out):
            node.check(value.quantised and value.scale > 0, f"{value!r} needs a quantization scale")


def weight_scales(w: Value) -> np.ndarray:
    """float32 scales of the weights: one, or one per channel."""
    return np.asarray(w.scales, np.float32)


def xnn_scales(node: Node) -> np.ndarray:
    """XNNPACK's float32 requantisation scales."""
    with np.errstate(all="ignore"):
        return np.float32(node[0].scale) * weight_scales(node[1]) / np.float32(node.out.scale)


def real_scales(node: Node) -> np.ndarray:
    """The kernels' float64 scales; uint8 multiplies input and weights in float32."""
    x, w, y = node[0], node[1], node.out
    if x.type == "u8":
        return (np.float32(x.scale) * weight_scales(w)).astype(np.float64) / np.float64(y.scale)
    return np.float64(x.scale) * weight_scales(w).astype(np.float64) / np.float64(y.scale)


def code_range(node: Node) -> tuple[int, int]:
    """Bounds of the output's codes."""
    y = node.out
    return (xnn_act_range if node.xnn else act_range)(activation(node), y.scale, y.zero_point, y.type)


OPERATORS: dict[str, Operator] = {"CONV_2D": Conv2D()}
