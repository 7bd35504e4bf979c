"""Networks at random: an image through layers as converters write them, in the neighbourhoods that fusion rules look for.

    content, log = network(seed, "f32")             # or "int8"

Every layer is a function `(Random, Net, image) -> image` in a table; some of what is made on the way is an output, too.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from litejit.schema.builder import Quant
from tests.conftest import load_module

layers = load_module("litejit_benchmarks_layers", Path(__file__).resolve().parent.parent / "benchmarks" / "layers.py")
shape_of: Callable[[Any], tuple[int, ...]] = layers.shape_of
SIZES = (1, 2, 3, 5, 7, 8, 9, 14, 15, 28, 33)
CHANNELS = (1, 3, 4, 8, 12, 15, 16, 17, 20, 24, 32, 33, 48, 64, 72, 96, 128)
ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
FUNCTIONS = {"int8": ("LOGISTIC", "TANH", "HARD_SWISH", "RELU", "LEAKY_RELU"),
             "f32": ("LOGISTIC", "TANH", "HARD_SWISH", "RELU", "LEAKY_RELU", "ABS", "NEG", "ELU", "GELU", "SQUARE")}
OPTIONS = {"LEAKY_RELU": {"alpha": 0.1}, "GELU": {"approximate": False}}
MOST = 40_000                         # elements of an image that layers may enlarge


def network(seed: int, type: str) -> tuple[bytes, list[str]]:
    """(file, what its layers are and make)."""
    random, net = Random(seed), layers.Net("at random", type, seed)
    width = random.choice(SIZES)
    known = [net.input(random.choice((1, 1, 1, 2)), random.choice((width, width, 1, 17)), width, random.choice(CHANNELS))]
    names, log = [name for name in LAYERS if type == "f32" or name not in FLOAT_ONLY], []
    for _ in range(random.randint(2, 9)):
        name = random.choice(names)
        x = known[-1] if random.random() < 0.75 else random.choice(known)
        made = LAYERS[name](random, net, x)
        if made is not None:
            known.append(made)
            log.append(f"{name} {shape_of(made)}")
    outputs = [known[-1], *(x for x in known[1:-1] if random.random() < 0.15)]
    net.output(*dict.fromkeys(outputs))
    return net.build(), log


# ---- convolutions ------------------------------------------------------------------------------------

def conv(random: Random, net: Any, x: Any) -> Any:
    kernel = random.choice(((3, 3), (3, 3), (5, 5), (2, 2), (1, 3), (3, 1), (7, 7)))
    return net.conv(x, random.choice(CHANNELS), kernel, random.choice((1, 1, 2, 3)), random.choice(ACTIVATIONS),
                    padding(random, x, *kernel))


def pointwise(random: Random, net: Any, x: Any) -> Any:
    return net.conv(x, random.choice(CHANNELS), 1, random.choice((1, 1, 1, 2)), random.choice(ACTIVATIONS))


def depthwise(random: Random, net: Any, x: Any) -> Any:
    kernel = random.choice((3, 3, 5, 2, 7))
    return net.depthwise(x, kernel, random.choice((1, 1, 2)), random.choice(ACTIVATIONS), padding(random, x, kernel, kernel))


def inverted(random: Random, net: Any, x: Any) -> Any:
    return pointwise(random, net, depthwise(random, net, pointwise(random, net, x)))


def multiplied(random: Random, net: Any, x: Any) -> Any:
    """Depthwise with several outputs of a channel."""
    (b, h, w, c), times, stride = shape_of(x), random.choice((2, 3, 8)), random.choice((1, 2))
    weights = net.weights((1, 3, 3, c * times), 9, "RELU")
    return net.op("DEPTHWISE_CONV_2D", [x, *net.constants(x, weights, 3)], (b, -(-h // stride), -(-w // stride), c * times),
                  padding="SAME", stride_w=stride, stride_h=stride, depth_multiplier=times,
                  fused_activation_function=random.choice(ACTIVATIONS))


def dilated(random: Random, net: Any, x: Any) -> Any:
    (b, h, w, c), by, deep = shape_of(x), random.choice((2, 3)), random.random() < 0.5
    n = c if deep else random.choice(CHANNELS)
    weights = net.weights((1, 3, 3, c) if deep else (n, 3, 3, c), 9 if deep else 9 * c, "RELU")
    more = {"depth_multiplier": 1} if deep else {}
    return net.op("DEPTHWISE_CONV_2D" if deep else "CONV_2D", [x, *net.constants(x, weights, 3 if deep else 0)], (b, h, w, n),
                  padding="SAME", stride_w=1, stride_h=1, dilation_w_factor=by, dilation_h_factor=by,
                  fused_activation_function=random.choice(ACTIVATIONS), **more)


def grouped(random: Random, net: Any, x: Any) -> Any:
    (b, h, w, c), kernel = shape_of(x), random.choice((1, 3))
    groups = random.choice([g for g in (1, 2, 3, 4, 8, 16) if c % g == 0])
    n = groups * random.choice((1, 2, 4, 8))
    weights = net.weights((n, kernel, kernel, c // groups), kernel * kernel * c // groups, "RELU")
    return net.op("CONV_2D", [x, *net.constants(x, weights, 0)], (b, h, w, n), padding="SAME", stride_w=1, stride_h=1,
                  fused_activation_function=random.choice(ACTIVATIONS))


def padded(random: Random, net: Any, x: Any) -> Any:
    """A border, and a convolution that may take it as its own."""
    y = net.pad(x, (0, 0), (random.randint(0, 1), 1), (random.randint(0, 1), 1), (0, 0))
    if min(shape_of(y)[1:3]) < 3 or random.random() < 0.3:
        return y
    stride, activation = random.choice((1, 2)), random.choice(ACTIVATIONS)
    if random.random() < 0.5:
        return net.conv(y, random.choice(CHANNELS), 3, stride, activation, "VALID")
    return net.depthwise(y, 3, stride, activation, "VALID")


def upwards(random: Random, net: Any, x: Any) -> Any:
    return net.upconv(x, random.choice(CHANNELS), random.choice((2, 3, 4))) if _small(x, 4) else None


# ---- several branches --------------------------------------------------------------------------------

def residual(random: Random, net: Any, x: Any) -> Any:
    y = pointwise(random, net, x)
    if shape_of(y)[:3] != shape_of(x)[:3]:
        return y
    if random.random() < 0.5:
        y = net.depthwise(y, 3, 1, random.choice(ACTIVATIONS))
    both = [x, net.conv(y, shape_of(x)[3], random.choice((1, 1, 3)), 1, random.choice(("NONE", "RELU")))]
    random.shuffle(both)
    return net.binary("ADD", *both, fused_activation_function=random.choice(ACTIVATIONS))


def joined(random: Random, net: Any, x: Any) -> Any:
    """Branches side by side; one of them may be pooled as well, as in U-shaped networks."""
    makers = (lambda: net.conv(x, random.choice(CHANNELS), random.choice((1, 3)), 1, random.choice(ACTIVATIONS)),
              lambda: net.depthwise(x, 3), lambda: net.pool("MAX_POOL_2D", x, 3, 1), lambda: x)
    own = makers[:2] if net.int8 else makers             # those of convolutions have one scale
    parts = [random.choice(own)() for _ in range(random.randint(2, 4))]
    whole = net.concat(*parts)
    if random.random() < 0.4:
        return net.pool("MAX_POOL_2D", random.choice(parts), 2, 2)
    return whole


def excited(random: Random, net: Any, x: Any) -> Any:
    """Squeeze-and-excitation, and often the 1x1 convolution behind it."""
    c = shape_of(x)[3]
    small = net.conv(net.mean(x, 1, 2, keep=True), max(1, c // 4), 1, 1, random.choice(("RELU", "NONE")))
    y = net.binary("MUL", x, net.unary(random.choice(("LOGISTIC", "HARD_SWISH")), net.conv(small, c, 1, 1, "NONE")))
    return pointwise(random, net, y) if random.random() < 0.6 else y


def swish(random: Random, net: Any, x: Any) -> Any:
    return net.binary("MUL", x, net.unary("LOGISTIC", x))


def attention(random: Random, net: Any, x: Any) -> Any:
    (b, h, w, c), depth, heads = shape_of(x), random.choice((8, 16, 20)), random.choice((1, 2, 3))
    rows = h * w
    if rows > 300:
        return None
    y = net.reshape(x, b, rows, c)
    q, k, v = (net.transpose(net.reshape(net.dense(y, heads * depth), b, rows, heads, depth), 0, 2, 1, 3) for _ in range(3))
    scores = net.op("BATCH_MATMUL", [q, k], (b, heads, rows, rows), adj_x=False, adj_y=True)
    made = net.op("BATCH_MATMUL", [net.softmax(net.binary("MUL", scores, net.floats(1 / math.sqrt(depth)))), v],
                  (b, heads, rows, depth), adj_x=False, adj_y=False)
    out = net.dense(net.reshape(net.transpose(made, 0, 2, 1, 3), b, rows, heads * depth), c)
    return net.reshape(net.binary("ADD", out, y), b, h, w, c)


def normalised(random: Random, net: Any, x: Any) -> Any:
    """Layer normalisation, spelled out."""
    c = shape_of(x)[-1]
    mean = net.reduce("MEAN", x, -1, keep=True)
    spread = net.reduce("MEAN", net.binary("SQUARED_DIFFERENCE", x, mean), -1, keep=True)
    inverse = net.unary("RSQRT", net.binary("ADD", spread, net.floats(1e-3)))
    scale = net.binary("MUL", inverse, net.floats(net.rng.normal(size=c)))
    shift = net.binary("SUB", net.floats(net.rng.normal(size=c)), net.binary("MUL", mean, scale))
    return net.binary("ADD", net.binary("MUL", x, scale), shift)


# ---- elements and places -----------------------------------------------------------------------------

def function(random: Random, net: Any, x: Any) -> Any:
    name = random.choice(FUNCTIONS["int8" if net.int8 else "f32"])
    return net.unary(name, x, **OPTIONS.get(name, {}))


def arithmetic(random: Random, net: Any, x: Any) -> Any:
    """With a constant: of the whole image, of a row, of channels, of one number."""
    h, w, c = shape_of(x)[1:]
    shape = random.choice(((c,), (1, 1, 1, c), (1,), (1, h, w, c), (1, h, w, 1), (1, 1, w, 1)))
    if net.int8:
        other = net.graph.constant(net.name("codes"), net.rng.integers(-128, 128, shape).astype(np.int8), "INT8",
                                   Quant(2 / 255, random.randint(-20, 20)))
    else:
        other = net.floats(net.rng.normal(size=shape))
    both = [x, other] if random.random() < 0.8 else [other, x]
    return net.binary(random.choice(("ADD", "SUB", "MUL")), *both, fused_activation_function=random.choice(ACTIVATIONS))


def pooled(random: Random, net: Any, x: Any) -> Any:
    return net.pool(random.choice(("MAX_POOL_2D", "AVERAGE_POOL_2D")), x, random.choice((2, 3, 5)), random.choice((1, 2)))


def resized(random: Random, net: Any, x: Any) -> Any:
    (b, h, w, c), by = shape_of(x), random.choice((2, 3))
    return _as_it_is(net, random.choice(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")), [x, net.numbers(h * by, w * by)],
                     (b, h * by, w * by, c), half_pixel_centers=random.random() < 0.5) if _small(x, by * by) else None


def part(random: Random, net: Any, x: Any) -> Any:
    b, h, w, c = shape_of(x)
    first = random.randrange(c)
    count = random.randint(1, c - first)
    return _as_it_is(net, "SLICE", [x, net.numbers(0, 0, 0, first), net.numbers(b, h, w, count)], (b, h, w, count))


def transposed(random: Random, net: Any, x: Any) -> Any:
    return net.transpose(x, 0, *random.sample((1, 2, 3), 3))


def softmax(random: Random, net: Any, x: Any) -> Any:
    return net.softmax(x)


def padding(random: Random, x: Any, kh: int, kw: int) -> str:
    fits = shape_of(x)[1] >= kh and shape_of(x)[2] >= kw
    return random.choice(("SAME", "SAME", "VALID")) if fits else "SAME"


def _small(x: Any, times: int) -> bool:
    return math.prod(shape_of(x)) * times < MOST


def _as_it_is(net: Any, op: str, inputs: list[Any], shape: tuple[int, ...], **options: Any) -> Any:
    """A node whose output has the type and the quantisation of its first input."""
    tree = inputs[0].tree["quantization"]
    quant = Quant(tree["scale"], tree["zero_point"]) if tree else None
    out = (net.name(op.lower()), shape, inputs[0].tree["type"], quant)
    return net.graph.add(op, inputs, out, version=2 if net.int8 else 1, **options)


Layer = Callable[[Random, Any, Any], Any]
LAYERS: dict[str, Layer] = {made.__name__: made for made in (
    conv, pointwise, depthwise, inverted, multiplied, dilated, grouped, padded, upwards, residual, joined, excited, swish,
    attention, normalised, function, arithmetic, pooled, resized, part, transposed, softmax)}
FLOAT_ONLY = ("upwards", "attention", "normalised", "transposed", "softmax")
