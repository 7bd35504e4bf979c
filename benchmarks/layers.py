"""Models layer by layer, with random weights: float32, or int8 for given ranges of the activations.

    net = Net()
    x = net.input(1, 224, 224, 3)
    x = net.conv(x, 32, 3, stride=2)
    net.output(net.dense(net.mean(x), 10))
    content = net.build()

Weights are drawn as He et al. (2015) did, so that activations neither fade nor grow. Images are NHWC.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from litejit.schema.builder import ModelBuilder, Quant, TensorRef

RANGE = (-4.0, 4.0)                    # of activations that nobody measured
POSITIVE = {"RELU": (0.0, 4.0), "RELU6": (0.0, 6.0)}          # by activation
INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4, "HARD_SWISH": 1, "RESHAPE": 1}
MOVES = {"RESHAPE", "MAX_POOL_2D", "TRANSPOSE", "PAD", "CONCATENATION"}     # outputs are numbers of the first input
FIXED = {"SOFTMAX": Quant(1 / 256, -128), "LOGISTIC": Quant(1 / 256, -128), "TANH": Quant(1 / 128, 0)}


class Net:
    """A model under construction. type: "f32" or "int8"; ranges: (lowest, highest) by the name of the tensor."""

    def __init__(self, description: str = "", type: str = "f32", seed: int = 0,
                 ranges: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.int8, self.ranges, self.rng = type == "int8", ranges or {}, np.random.default_rng(seed)
        self.behind: Mapping[str, tuple[float, float]] = {}      # ranges of what nobody measured, by activation
        self.model = ModelBuilder(f"{description or 'benchmark'}, random weights")
        self.graph = self.model.subgraph("main")
        self.count = 0

    # ---- ends ----
    def input(self, *shape: int, type: str = "") -> TensorRef:
        name = self.name("input")
        kind, quant = self._kind(name)
        return self.graph.input(name, shape, *((type, None) if type else (kind, quant)))

    def output(self, *tensors: TensorRef) -> None:
        self.graph.outputs(*tensors)

    def build(self) -> bytes:
        return self.model.build()

    # ---- any operator ----
    def op(self, operator: str, inputs: Sequence[TensorRef | None], shape: Sequence[int], **options: Any) -> TensorRef:
        """A node with one output of `shape`."""
        name = self.name(operator.lower())
        kind, quant = self._kind(name, options.get("fused_activation_function", ""))
        if operator in MOVES and inputs[0] is not None:
            kind, quant = inputs[0].tree["type"], _quant_of(inputs[0])
        elif self.int8 and operator in FIXED:
            quant = FIXED[operator]
        version = INT8_VERSIONS.get(operator, 2) if self.int8 else 1
        made: TensorRef = self.graph.add(operator, inputs, (name, tuple(shape), kind, quant), version=version, **options)
        return made

    def numbers(self, *values: int) -> TensorRef:
        """A constant int32 vector: axes, a shape, paddings."""
        return self.graph.constant(self.name("numbers"), np.array(values, np.int32))

    def floats(self, value: Any) -> TensorRef:
        """A float32 constant."""
        return self.graph.constant(self.name("floats"), np.asarray(value, np.float32))

    # ---- layers with weights ----
    def conv(self, x: TensorRef, n: int, kernel: int | tuple[int, int] = 1, stride: int = 1, activation: str = "RELU",
             padding: str = "SAME", gain: float | None = None) -> TensorRef:
        """gain: standard deviation of the outputs over that of the inputs, about; by default what the activation wants."""
        (b, height, width, channels), (kh, kw) = shape_of(x), _pair(kernel)
        weights = self.weights((n, kh, kw, channels), kh * kw * channels, activation, gain)
        return self.op("CONV_2D", [x, *self.constants(x, weights, 0)],
                       (b, _extent(height, kh, stride, padding), _extent(width, kw, stride, padding), n),
                       padding=padding, stride_w=stride, stride_h=stride, fused_activation_function=activation)

    def depthwise(self, x: TensorRef, kernel: int = 3, stride: int = 1, activation: str = "RELU",
                  padding: str = "SAME") -> TensorRef:
        b, height, width, channels = shape_of(x)
        weights = self.weights((1, kernel, kernel, channels), kernel * kernel, activation)
        return self.op("DEPTHWISE_CONV_2D", [x, *self.constants(x, weights, 3)],
                       (b, _extent(height, kernel, stride, padding), _extent(width, kernel, stride, padding), channels),
                       padding=padding, stride_w=stride, stride_h=stride, depth_multiplier=1,
                       fused_activation_function=activation)

    def dense(self, x: TensorRef, n: int, activation: str = "NONE", gain: float | None = None) -> TensorRef:
        """Of the last dimension."""
        shape = shape_of(x)
        weights = self.weights((n, shape[-1]), shape[-1], activation, gain)
        return self.op("FULLY_CONNECTED", [x, *self.constants(x, weights, 0)], (*shape[:-1], n),
                       fused_activation_function=activation, keep_num_dims=len(shape) != 2)

    def upconv(self, x: TensorRef, n: int, kernel: int = 2) -> TensorRef:
        """Transposed convolution that doubles an image."""
        b, height, width, channels = shape_of(x)
        shape = (b, 2 * height, 2 * width, n)
        weights, bias = self.constants(x, self.weights((n, kernel, kernel, channels), channels, "NONE"), 0)
        return self.op("TRANSPOSE_CONV", [self.numbers(*shape), weights, x, bias], shape, padding="SAME", stride_w=2,
                       stride_h=2)

    # ---- layers without ----
    def binary(self, operator: str, a: TensorRef, b: TensorRef, **options: Any) -> TensorRef:
        """Of shapes that broadcast."""
        return self.op(operator, [a, b], np.broadcast_shapes(shape_of(a), shape_of(b)), **options)

    def unary(self, operator: str, x: TensorRef, **options: Any) -> TensorRef:
        return self.op(operator, [x], shape_of(x), **options)

    def mean(self, x: TensorRef, *axes: int, keep: bool = False) -> TensorRef:
        """By default of the pixels of an image."""
        return self.reduce("MEAN", x, *(axes or (1, 2)), keep=keep)

    def reduce(self, operator: str, x: TensorRef, *axes: int, keep: bool = False) -> TensorRef:
        shape = shape_of(x)
        which = {axis % len(shape) for axis in axes}
        left = [1 if d in which else size for d, size in enumerate(shape) if keep or d not in which]
        return self.op(operator, [x, self.numbers(*axes)], left, keep_dims=keep)

    def pool(self, operator: str, x: TensorRef, kernel: int, stride: int, padding: str = "SAME") -> TensorRef:
        """MAX_POOL_2D or AVERAGE_POOL_2D."""
        b, height, width, channels = shape_of(x)
        return self.op(operator, [x], (b, _extent(height, kernel, stride, padding), _extent(width, kernel, stride, padding),
                                       channels), padding=padding, stride_w=stride, stride_h=stride, filter_width=kernel,
                       filter_height=kernel)

    def reshape(self, x: TensorRef, *shape: int) -> TensorRef:
        return self.op("RESHAPE", [x, self.numbers(*shape)], shape)

    def transpose(self, x: TensorRef, *order: int) -> TensorRef:
        return self.op("TRANSPOSE", [x, self.numbers(*order)], [shape_of(x)[d] for d in order])

    def concat(self, *parts: TensorRef, axis: int = -1) -> TensorRef:
        shape = list(shape_of(parts[0]))
        shape[axis] = sum(shape_of(part)[axis] for part in parts)
        return self.op("CONCATENATION", parts, shape, axis=axis)

    def pad(self, x: TensorRef, *margins: tuple[int, int]) -> TensorRef:
        table = self.graph.constant(self.name("margins"), np.array(margins, np.int32))
        shape = [a + size + b for (a, b), size in zip(margins, shape_of(x))]
        return self.op("PAD", [x, table], shape)

    def softmax(self, x: TensorRef) -> TensorRef:
        return self.unary("SOFTMAX", x, beta=1.0)

    # ---- constants ----
    def weights(self, shape: tuple[int, ...], inputs: int, activation: str, gain: float | None = None) -> np.ndarray:
        """Random float32 weights of so many inputs per output, for the activation behind them or a `gain` (see `conv`)."""
        gain = gain if gain is not None else 1.0 if activation == "NONE" else math.sqrt(2)
        return (self.rng.standard_normal(shape) * gain / math.sqrt(inputs)).astype(np.float32)

    def constants(self, x: TensorRef, weights: np.ndarray, axis: int) -> tuple[TensorRef, TensorRef]:
        """Tensors of the weights, quantised per channel along `axis` if x is, and of a small random bias per channel."""
        bias = self.rng.uniform(-0.1, 0.1, weights.shape[axis]).astype(np.float32)
        if not self.int8:
            return self.graph.constant(self.name("weights"), weights), self.graph.constant(self.name("bias"), bias)
        others = tuple(d for d in range(weights.ndim) if d != axis)
        scales = np.abs(weights).max(axis=others) / np.float32(127)
        shaped = scales.reshape([-1 if d == axis else 1 for d in range(weights.ndim)])
        zeros = [0] * scales.size
        codes = np.rint(weights / shaped).astype(np.int8)
        both = scales * x.tree["quantization"]["scale"]
        return (self.graph.constant(self.name("weights"), codes, "INT8", Quant(scales, zeros, axis)),
                self.graph.constant(self.name("bias"), np.rint(bias / both).astype(np.int32), "INT32",
                                    Quant(both, zeros)))

    # ---- names and types ----
    def name(self, what: str) -> str:
        """A new tensor's name: what it is, and how many names there are."""
        self.count += 1
        return f"{what}_{self.count}"

    def _kind(self, name: str, activation: str = "") -> tuple[str, Quant | None]:
        if not self.int8:
            return "FLOAT32", None
        low, high = self.ranges.get(name, self.behind.get(activation, RANGE))
        low, high = min(low, 0.0), max(high, 0.0, 1e-6)
        scale = (high - low) / 255
        return "INT8", Quant(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


def shape_of(x: TensorRef) -> tuple[int, ...]:
    """The shape of a tensor under construction."""
    return tuple(x.tree["shape"])


def _quant_of(x: TensorRef) -> Quant | None:
    tree = x.tree["quantization"]
    return Quant(tree["scale"], tree["zero_point"]) if tree else None


def _pair(kernel: int | tuple[int, int]) -> tuple[int, int]:
    return kernel if isinstance(kernel, tuple) else (kernel, kernel)


def _extent(size: int, kernel: int, stride: int, padding: str) -> int:
    return -(-size // stride) if padding == "SAME" else (size - kernel) // stride + 1
