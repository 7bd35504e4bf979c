"""Known architectures with random weights, written as .tflite files: for `litejit bench` and anybody else.

    python benchmarks/models.py --out DIR [NAME...]
    litejit bench DIR/*.tflite

Shapes and operators are those that TensorFlow's converter makes of the published networks. The int8 models are calibrated
as a converter does it: the float32 model of the same weights runs on random inputs, and the ranges of its activations
become scales.
"""
from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from layers import Net, TensorRef, shape_of

Architecture = Callable[[Net, int], None]
LOGITS = 4.0                           # gain of a last layer: some classes shall be likelier than others

# ---- networks of images ------------------------------------------------------------------------------


def mobilenet_v1(net: Net, size: int) -> None:
    """Howard et al. 2017, width 1.0."""
    x = net.conv(net.input(1, size, size, 3), 32, 3, 2, "RELU6")
    for n, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)):
        x = net.conv(net.depthwise(x, 3, stride, "RELU6"), n, activation="RELU6")
    x = net.conv(net.mean(x, 1, 2, keep=True), 1000, activation="NONE", gain=3 * LOGITS)
    net.output(net.softmax(net.reshape(x, 1, 1000)))


def mobilenet_v2(net: Net, size: int) -> None:
    """Sandler et al. 2018, width 1.0."""
    x = net.conv(net.input(1, size, size, 3), 32, 3, 2, "RELU6")
    for factor, n, count, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1),
                                     (6, 160, 3, 2), (6, 320, 1, 1)):
        for k in range(count):
            x = inverted_residual(net, x, factor, n, stride if k == 0 else 1)
    x = net.conv(x, 1280, activation="RELU6")
    net.output(net.softmax(net.dense(net.mean(x), 1000, gain=LOGITS)))


def inverted_residual(net: Net, x: TensorRef, factor: int, n: int, stride: int) -> TensorRef:
    """Wider, depthwise, narrower; added to the input where the shapes allow it."""
    channels = shape_of(x)[-1]
    y = net.conv(x, factor * channels, activation="RELU6") if factor > 1 else x
    y = net.conv(net.depthwise(y, 3, stride, "RELU6"), n, activation="NONE")
    return net.binary("ADD", x, y) if stride == 1 and channels == n else y


def resnet50(net: Net, size: int) -> None:
    """He et al. 2015, strides in the 3x3 layers."""
    x = net.pad(net.input(1, size, size, 3), (0, 0), (3, 3), (3, 3), (0, 0))
    x = net.conv(x, 64, 7, 2, padding="VALID")
    x = net.pool("MAX_POOL_2D", net.pad(x, (0, 0), (1, 1), (1, 1), (0, 0)), 3, 2, "VALID")
    for n, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for k in range(count):
            x = bottleneck(net, x, n, stride if k == 0 else 1, k == 0)
    net.output(net.softmax(net.dense(net.mean(x), 1000, gain=LOGITS)))


def bottleneck(net: Net, x: TensorRef, n: int, stride: int, first: bool) -> TensorRef:
    """1x1, 3x3, 1x1 beside the input, or beside a 1x1 layer where the shape changes."""
    short = net.conv(x, 4 * n, 1, stride, "NONE") if first else x
    y = net.conv(net.conv(x, n), n, 3, stride)
    y = net.conv(y, 4 * n, activation="NONE", gain=0.5)
    return net.binary("ADD", short, y, fused_activation_function="RELU")


def unet(net: Net, size: int) -> None:
    """Ronneberger et al. 2015, four levels from 16 channels, padded."""
    def twice(x: TensorRef, n: int) -> TensorRef:
        return net.conv(net.conv(x, n, 3), n, 3)
    x, levels = net.input(1, size, size, 3), []
    for n in (16, 32, 64, 128):
        levels.append(twice(x, n))
        x = net.pool("MAX_POOL_2D", levels[-1], 2, 2)
    x = twice(x, 256)
    for level in reversed(levels):
        n = shape_of(level)[-1]
        x = twice(net.concat(net.upconv(x, n), level), n)
    net.output(net.unary("LOGISTIC", net.conv(x, 2, activation="NONE")))


# ---- others ------------------------------------------------------------------------------------------

def bert(net: Net, size: int) -> None:
    """Devlin et al. 2018, `size` tokens of 256 numbers, 4 layers of 4 heads; attention and layer norm in the separate
    operators that a converter emits. Its inputs are the tokens and which of them count."""
    width, heads, layers = 256, 4, 4
    tokens, counts = net.input(1, size, type="INT32"), net.input(1, size, type="INT32")
    table = net.floats(net.rng.standard_normal((1000, width)))
    x = net.op("GATHER", [table, tokens], (1, size, width), axis=0)
    x = layer_norm(net, net.binary("ADD", x, net.floats(net.rng.standard_normal((size, width)))))
    mask = net.unary("CAST", net.reshape(counts, 1, 1, 1, size), in_data_type="INT32", out_data_type="FLOAT32")
    mask = net.binary("MINIMUM", mask, net.floats(1))                 # any number but 0 counts
    mask = net.binary("MUL", net.binary("SUB", mask, net.floats(1)), net.floats(10000))
    for _ in range(layers):
        x = layer_norm(net, net.binary("ADD", x, attention(net, x, mask, heads)))
        y = net.dense(net.unary("GELU", net.dense(x, 4 * width, gain=1.4), approximate=False), width)
        x = layer_norm(net, net.binary("ADD", x, y))
    net.output(x)


def attention(net: Net, x: TensorRef, mask: TensorRef, heads: int) -> TensorRef:
    """Every head's share of queries times keys, softmax, times values."""
    _, tokens, width = shape_of(x)
    share = width // heads

    def head(*order: int) -> TensorRef:
        return net.transpose(net.reshape(net.dense(x, width), 1, tokens, heads, share), *order)
    scores = net.op("BATCH_MATMUL", [head(0, 2, 1, 3), head(0, 2, 3, 1)], (1, heads, tokens, tokens))
    scores = net.binary("MUL", scores, net.floats(1 / math.sqrt(share)))
    shares = net.softmax(net.binary("ADD", scores, mask))
    y = net.op("BATCH_MATMUL", [shares, head(0, 2, 1, 3)], (1, heads, tokens, share))
    return net.dense(net.reshape(net.transpose(y, 0, 2, 1, 3), 1, tokens, width), width)


def layer_norm(net: Net, x: TensorRef) -> TensorRef:
    """gamma * (x - mean) / sqrt(variance + epsilon) + beta, as x * factor + (beta - mean * factor)."""
    width = shape_of(x)[-1]
    gamma = net.floats(net.rng.uniform(0.5, 1.5, (1, 1, width)))
    beta = net.floats(net.rng.uniform(-0.5, 0.5, (1, 1, width)))
    mean = net.mean(x, -1, keep=True)
    variance = net.mean(net.binary("SQUARED_DIFFERENCE", x, mean), -1, keep=True)
    root = net.unary("RSQRT", net.binary("ADD", variance, net.floats(1e-6)))
    factor = net.binary("MUL", root, gamma)
    shift = net.binary("ADD", net.binary("MUL", net.unary("NEG", mean), factor), beta)
    return net.binary("ADD", net.binary("MUL", x, factor), shift)


def autoencoder(net: Net, size: int) -> None:
    """MLPerf Tiny's detector of anomalies: `size` numbers (640) through 8."""
    x = net.input(1, size)
    for n in (128, 128, 128, 128, 8, 128, 128, 128, 128):
        x = net.dense(x, n, "RELU")
    net.output(net.dense(x, size))


def ds_cnn(net: Net, size: int) -> None:
    """Zhang et al. 2017, as MLPerf Tiny spots keywords: `size` (49) frames of 10 numbers."""
    x = net.conv(net.input(1, size, 10, 1), 64, (10, 4), 2)
    for _ in range(4):
        x = net.conv(net.depthwise(x), 64)
    net.output(net.softmax(net.dense(net.mean(x), 12, gain=LOGITS)))


# ---- files -------------------------------------------------------------------------------------------

class Recipe(NamedTuple):
    """A model: its architecture, type, and the size of its input (pixels, tokens, frames, numbers)."""

    architecture: Architecture
    type: str
    size: int

    def build(self, size: int = 0) -> bytes:
        """The file, for another size of input if that is given."""
        size = size or self.size
        content = self._net("f32", {}, size).build()
        return content if self.type == "f32" else self._net("int8", calibrate(content), size).build()

    def _net(self, type: str, ranges: dict[str, tuple[float, float]], size: int) -> Net:
        net = Net(self.architecture.__name__, type, ranges=ranges)
        self.architecture(net, size)
        return net


MODELS = {
    "mobilenet_v1_f32": Recipe(mobilenet_v1, "f32", 224),
    "mobilenet_v1_int8": Recipe(mobilenet_v1, "int8", 224),
    "mobilenet_v2_f32": Recipe(mobilenet_v2, "f32", 224),
    "mobilenet_v2_int8": Recipe(mobilenet_v2, "int8", 224),
    "resnet50_f32": Recipe(resnet50, "f32", 224),
    "resnet50_int8": Recipe(resnet50, "int8", 224),
    "unet_f32": Recipe(unet, "f32", 128),
    "bert_f32": Recipe(bert, "f32", 128),
    "autoencoder_int8": Recipe(autoencoder, "int8", 640),
    "ds_cnn_int8": Recipe(ds_cnn, "int8", 49),
}


def calibrate(content: bytes, runs: int = 2) -> dict[str, tuple[float, float]]:
    """Least and largest values of every float tensor on random inputs in [-1, 1), by name."""
    from litejit.interpreter import Interpreter

    interpreter, rng = Interpreter(model_content=content, experimental_preserve_all_tensors=True), np.random.default_rng(1)
    interpreter.allocate_tensors()
    found: dict[str, tuple[float, float]] = {}
    for _ in range(runs):
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], rng.uniform(-1, 1, detail["shape"]).astype(detail["dtype"]))
        interpreter.invoke()
        for detail in interpreter.get_tensor_details():
            if detail["dtype"] is np.float32:
                value = interpreter.get_tensor(detail["index"])
                low, high = found.get(detail["name"], (math.inf, -math.inf))
                found[detail["name"]] = min(low, float(value.min())), max(high, float(value.max()))
    return found


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODELS)}; all by default")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to")
    arguments = parser.parse_args(argv)
    unknown = [name for name in arguments.names if name not in MODELS]
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or MODELS:
        path = arguments.out / f"{name}.tflite"
        content = MODELS[name].build()
        path.write_bytes(content)
        print(f"{path}  {len(content) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
