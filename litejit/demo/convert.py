"""Trained weights to .tflite: the float model, calibration, and the full-integer model.

Quantisation is TFLite's: activations int8 per tensor with a zero point, weights int8 per output channel and symmetric,
biases int32 with the product of both scales.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.demo.train import Weights
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder, Quant

ACTIVATIONS = ("image", "conv1", "pool1", "conv2", "pool2", "flat", "logits", "digit")
SHAPES = {"image": (1, 8, 8, 1), "conv1": (1, 8, 8, 16), "pool1": (1, 4, 4, 16), "conv2": (1, 4, 4, 32),
          "pool2": (1, 2, 2, 32), "flat": (1, 128), "logits": (1, 10), "digit": (1, 10)}


def build(weights: Weights, quants: dict[str, Quant] | None = None) -> bytes:
    """Content of the model: float, or int8 where `quants` has the quantisation of every activation and weight."""
    q = quants or {}
    kind, bias_kind = ("INT8", "INT32") if quants else ("FLOAT32", "FLOAT32")
    builder = ModelBuilder("Handwritten digits, 8x8 pixels: CNN trained on the UCI data set")
    graph = builder.subgraph("main")

    def out(name: str) -> tuple[Any, ...]:
        shape = SHAPES[name]
        return name, (-1, *shape[1:]), kind, q.get(name)

    def constant(name: str, type_: str) -> Any:
        return graph.constant(name + "_weights", weights[name], type_, q.get(name + "_weights"))
    window: dict[str, Any] = {"padding": "VALID", "stride_w": 2, "stride_h": 2, "filter_width": 2, "filter_height": 2}
    same: dict[str, Any] = {"padding": "SAME", "stride_w": 1, "stride_h": 1, "fused_activation_function": "RELU"}
    version = 3 if quants else 1
    image = graph.input("image", (-1, 8, 8, 1), kind, q.get("image"))
    x = graph.add("CONV_2D", [image, constant("conv1", kind), constant("bias1", bias_kind)], out("conv1"),
                  version=version, **same)
    x = graph.add("MAX_POOL_2D", [x], out("pool1"), version=2 if quants else 1, **window)
    x = graph.add("CONV_2D", [x, constant("conv2", kind), constant("bias2", bias_kind)], out("conv2"),
                  version=version, **same)
    x = graph.add("MAX_POOL_2D", [x], out("pool2"), version=2 if quants else 1, **window)
    shape = graph.constant("shape", np.array([-1, 128], np.int32))
    x = graph.add("RESHAPE", [x, shape], out("flat"), new_shape=[-1, 128])
    x = graph.add("FULLY_CONNECTED", [x, constant("dense", kind), constant("bias3", bias_kind)], out("logits"),
                  version=4 if quants else 1)
    x = graph.add("SOFTMAX", [x], out("digit"), version=2 if quants else 1, beta=1.0)
    graph.outputs(x)
    builder.signature("serving_default", graph, {"image": image}, {"digit": x})
    return builder.build()


def calibrate(content: bytes, images: np.ndarray) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of every activation of the float model over the images [n, 8, 8, 1]."""
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.resize_tensor_input(0, images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    ranges = {}
    for detail in interpreter.get_tensor_details():
        if detail["name"] in ACTIVATIONS:
            values = interpreter.get_tensor(detail["index"])
            ranges[detail["name"]] = float(values.min()), float(values.max())
    return ranges


def activation_quant(low: float, high: float) -> Quant:
    """int8 over [low, high], widened to hold zero exactly."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-8) / 255
    return Quant(scale, round(-128 - low / scale))


def quantise(weights: Weights, ranges: dict[str, tuple[float, float]]) -> bytes:
    """Content of the int8 model."""
    quants = {name: activation_quant(*ranges[name]) for name in ("image", "conv1", "conv2", "logits")}
    quants |= {"pool1": quants["conv1"], "pool2": quants["conv2"], "flat": quants["conv2"],
               "digit": Quant(1 / 256, -128)}
    integers: Weights = {}
    for name, bias, source in (("conv1", "bias1", "image"), ("conv2", "bias2", "pool1"), ("dense", "bias3", "flat")):
        w = weights[name]
        scales = np.maximum(np.abs(w.reshape(len(w), -1)).max(1), 1e-8) / 127
        if name == "dense":
            scales = np.full(1, scales.max())
        quants[name + "_weights"] = Quant(scales.astype(np.float32), 0, 0)
        shape = (-1,) + (1,) * (w.ndim - 1)
        integers[name] = np.clip(np.rint(w / scales.reshape(shape)), -127, 127).astype(np.int8)
        product = float(quants[source].scale[0]) * scales
        quants[bias + "_weights"] = Quant(product.astype(np.float32), 0, 0)
        integers[bias] = np.rint(weights[bias] / product).astype(np.int32)
    return build(integers, quants)
