"""Layers of the networks that people run, and one-operator models of them."""
from __future__ import annotations

from collections.abc import Callable

from common import Case
from layers import POSITIVE, Net, TensorRef

# 1x1 convolutions: image, channels in, channels out
POINTWISE = (
    ("MobileNet v1", 112, 32, 64), ("MobileNet v1", 56, 128, 128), ("MobileNet v1", 28, 256, 256),
    ("MobileNet v1", 14, 512, 512), ("MobileNet v1", 7, 1024, 1024), ("MobileNet v2", 112, 16, 96),
    ("MobileNet v2", 56, 144, 24), ("MobileNet v2", 28, 192, 32), ("MobileNet v2", 14, 64, 384),
    ("MobileNet v2", 7, 960, 160), ("MobileNet v2", 7, 320, 1280), ("ResNet50", 56, 64, 256), ("ResNet50", 56, 256, 64),
    ("ResNet50", 28, 512, 128), ("ResNet50", 14, 256, 1024), ("ResNet50", 7, 2048, 512), ("EfficientNet", 56, 24, 144),
    ("EfficientNet", 14, 480, 80), ("EfficientNet", 7, 1152, 192))
# fully connected layers of transformers: rows, in, out
DENSE = (("BERT", 128, 256, 256), ("BERT", 128, 256, 1024), ("BERT", 128, 1024, 256), ("BERT base", 128, 768, 3072),
         ("ViT tiny", 197, 192, 192), ("ViT tiny", 197, 192, 768), ("ViT tiny", 197, 768, 192))
# convolutions: image, channels in, channels out, kernel, stride
WIDE = (("first layer, MobileNet", 224, 3, 32, 3, 2), ("first layer, ResNet50", 224, 3, 64, 7, 2),
        ("patches, ViT tiny", 224, 3, 192, 16, 16), ("ResNet50", 56, 64, 64, 3, 1), ("ResNet50", 56, 128, 128, 3, 2),
        ("ResNet50", 28, 128, 128, 3, 1), ("ResNet50", 14, 256, 256, 3, 1), ("ResNet50", 14, 512, 512, 3, 2),
        ("ResNet50", 7, 512, 512, 3, 1), ("U-Net", 128, 16, 16, 3, 1), ("U-Net", 32, 128, 64, 3, 1))
# depthwise convolutions: image, channels, kernel, stride
DEPTHWISE = (("MobileNet v1", 112, 32, 3, 1), ("MobileNet v1", 112, 64, 3, 2), ("MobileNet v1", 56, 128, 3, 1),
             ("MobileNet v1", 28, 256, 3, 1), ("MobileNet v1", 28, 256, 3, 2), ("MobileNet v1", 14, 512, 3, 1),
             ("MobileNet v1", 7, 1024, 3, 1), ("MobileNet v2", 112, 96, 3, 2), ("MobileNet v2", 56, 144, 3, 1),
             ("MobileNet v2", 14, 384, 3, 1), ("EfficientNet", 28, 240, 5, 1), ("EfficientNet", 14, 480, 5, 1),
             ("EfficientNet", 14, 672, 5, 2))
TYPES = ("f32", "int8")


def model(layer: Callable[[Net, TensorRef], TensorRef], *shape: int, type: str = "f32") -> bytes:
    """A model of one layer of an input of `shape`."""
    net = Net("one layer", type)
    net.behind = POSITIVE
    net.output(layer(net, net.input(*shape)))
    return net.build()


def pointwise(type: str, name: str, size: int, channels: int, n: int) -> Case:
    return Case(f"{name} {type} {size}x{size} {channels}>{n}",
                lambda: model(lambda net, x: net.conv(x, n), 1, size, size, channels, type=type))


def dense(type: str, name: str, rows: int, k: int, n: int) -> Case:
    return Case(f"{name} {type} {rows}x{k}>{n}", lambda: model(lambda net, x: net.dense(x, n), rows, k, type=type))


def conv(type: str, name: str, size: int, channels: int, n: int, kernel: int, stride: int) -> Case:
    return Case(f"{name} {type} {size}x{size} {channels}>{n} {kernel}x{kernel}/{stride}",
                lambda: model(lambda net, x: net.conv(x, n, kernel, stride), 1, size, size, channels, type=type))


def depthwise(type: str, name: str, size: int, channels: int, kernel: int, stride: int) -> Case:
    return Case(f"{name} {type} {size}x{size} {channels} {kernel}x{kernel}/{stride}",
                lambda: model(lambda net, x: net.depthwise(x, kernel, stride), 1, size, size, channels, type=type))


def layer(label: str, make: Callable[[Net, TensorRef], TensorRef], *shape: int, type: str = "f32") -> Case:
    """Any other layer."""
    text = "x".join(map(str, shape))
    return Case(f"{label} {type} {text}", lambda: model(make, *shape, type=type))
