"""Rule "pixel_pitch": a line between the pixels that a depthwise convolution reads. It changes memory, not numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from litejit.compiler.cpu import target
from litejit.interpreter import Interpreter, OpResolverType
from tests.planner.test_fuse_products import FUNCTIONS, Net, outputs, with_and_without

CHANNELS = 512  # 2 KiB of float32


def pointwise(net: Net) -> object:
    return net.conv(CHANNELS, act="RELU6")


def with_function(name: str) -> Callable[[Net], object]:
    def make(net: Net) -> object:
        net.conv(CHANNELS)
        return FUNCTIONS[name](net)

    return make


MAKERS: dict[str, Callable[[Net], object]] = {
    "pointwise": pointwise,
    "spatial": lambda net: net.conv(CHANNELS, 5, "RELU"),
    "twice": lambda net: net.conv(2 * CHANNELS),
    **{name: with_function(name) for name in ("swish", "hard_swish")},
}
SHAPES = {  # kernel, stride, dilation
    "3x3": (3, 1, 1), "3x3/2": (3, 2, 1), "5x5": (5, 1, 1), "5x5/2": (5, 2, 1), "7x7": (7, 1, 1), "dilated": (3, 1, 2)}


def wide(interpreter: Interpreter) -> list[int]:
    """Bytes from pixel to pixel of the inputs of depthwise convolutions."""
    return [step.params["pixel"] for step in interpreter.plan.steps if "pixel" in step.params]


@pytest.mark.parametrize("size", [(7, 7), (5, 14), (9, 11)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("maker", MAKERS)
def test_pixels_lie_apart(maker: str, shape: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(*size, 24)
    MAKERS[maker](net)
    channels = net.shape[3]
    kernel, stride, dilation = SHAPES[shape]
    net.depthwise(kernel, stride, dilation=dilation)
    net.conv(5)
    fused, unfused, changed = with_and_without(net.build(), "pixel_pitch", monkeypatch)
    assert changed == []
    assert wide(fused) == [4 * channels + 64] and wide(unfused) == [4 * channels]
    assert sum("bytes apart" in note for note in fused.plan.fused) == 1


def is_output(net: Net) -> object:
    net.kept = pointwise(net)  # type: ignore[attr-defined]
    return net.at


def is_read_twice(net: Net) -> object:
    made, shape = pointwise(net), net.shape
    net.kept = net.unary("NEG")  # type: ignore[attr-defined]
    net.at, net.shape = made, shape
    return made


def has_a_sum(net: Net) -> object:
    """What is added in the product's registers lies as its rows do."""
    other = net.depthwise() if net.shape[3] == CHANNELS else net.conv(CHANNELS, 3)
    net.conv(CHANNELS)
    return net.plus(other)


@pytest.mark.parametrize(
    "maker", [is_output, is_read_twice, has_a_sum, lambda net: net.conv(500), lambda net: net.unary("NEG")])
def test_what_stays_as_it_is(maker: Callable[[Net], object], monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(7, 9, 16)
    maker(net)
    channels = net.shape[3]
    net.depthwise()
    y = net.conv(5)
    model = net.build(y, net.kept) if hasattr(net, "kept") else net.build()
    fused, _, changed = with_and_without(model, "pixel_pitch", monkeypatch)
    assert changed == []
    assert wide(fused)[-1] == 4 * channels


def test_a_multiplier_of_channels() -> None:
    net = Net(7, 9, 16)
    net.conv(CHANNELS)
    w, b = net.weights(1, 3, 3, 2 * CHANNELS), net.weights(2 * CHANNELS)
    net.add("DEPTHWISE_CONV_2D", [net.at, w, b], (1, 7, 9, 2 * CHANNELS), padding=0, stride_w=1, stride_h=1, depth_multiplier=2)
    assert wide(outputs(net.build())[1]) == [8 * CHANNELS]


@pytest.mark.parametrize("options", [{"experimental_preserve_all_tensors": True},
                                     {"experimental_op_resolver_type": OpResolverType.BUILTIN_REF}])
def test_not_where_tensors_are_looked_at_or_in_reference_kernels(options: dict) -> None:
    net = Net(7, 9, 16)
    pointwise(net)
    net.depthwise()
    interpreter = Interpreter(model_content=net.build(), **options)
    interpreter.allocate_tensors()
    assert not any("bytes apart" in note for note in interpreter.plan.fused)


@pytest.mark.skipif(not target().bf16, reason="the CPU has no products of bfloat16")
def test_products_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(9, 7, 24)
    pointwise(net)
    net.depthwise(act="RELU")
    net.conv(6)
    model, found = net.build(), []
    x = np.random.default_rng(5).normal(size=(1, 9, 7, 24)).astype(np.float32)
    for off in ("", "pixel_pitch"):
        monkeypatch.setenv("LITEJIT_FUSION_OFF", off)
        interpreter = Interpreter(model_content=model, precision="bfloat16")
        found.append(next(iter(interpreter.run([x]).values())))
        assert wide(interpreter) == [4 * CHANNELS + (64 if not off else 0)]
    np.testing.assert_array_equal(*found)
