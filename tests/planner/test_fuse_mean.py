"""Rule "mean": sums of pixels behind a depthwise convolution. It changes the order of additions, nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from litejit.interpreter import Interpreter, OpResolverType
from tests.planner.test_fuse_products import FUNCTIONS, Net, kernels, outputs


def mean(net: Net, x: object, keep_dims: bool = True, axes: tuple[int, ...] = (1, 2)) -> object:
    shape = tuple(1 if d in axes else n for d, n in enumerate(net.shape) if keep_dims or d not in axes)
    return net.add("MEAN", [x, net.graph.constant(f"a{net.count}", np.array(axes, np.int32))], shape, keep_dims=keep_dims)


def compared(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    """The interpreter with the rule: the same numbers on any number of threads, and about those without it."""
    wanted, fused = outputs(content)
    for threads in (2, 3):
        for a, b in zip(wanted, outputs(content, threads)[0]):
            np.testing.assert_array_equal(a, b)
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "mean")
    plain, unfused = outputs(content)
    assert not any("sums behind" in note for note in unfused.plan.fused)
    for a, b in zip(wanted, plain):
        np.testing.assert_allclose(a, b, rtol=0, atol=2e-6 * max(1.0, np.abs(b).max()))
        assert np.ptp(b) > 0
    return fused


@pytest.mark.parametrize("keep_dims", [True, False])
@pytest.mark.parametrize("function", ["", "swish", "hard_swish"])
@pytest.mark.parametrize("shape", [(7, 7, 20), (14, 15, 37), (33, 40, 48), (1, 1, 130), (56, 57, 8)])
def test_sums_behind_rows(shape: tuple[int, int, int], function: str, keep_dims: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(*shape)
    y = net.depthwise(act="NONE" if function else "RELU")
    if function:
        y = FUNCTIONS[function](net)
    whole = net.shape
    m = mean(net, y, keep_dims)
    net.at, net.shape = y, whole
    fused = compared(net.build(m, net.unary("NEG")), monkeypatch)
    assert "mean_of_sums" in kernels(fused) and not any(k.startswith("reduce") for k in kernels(fused))


@pytest.mark.parametrize("kernel, stride, dilation", [(3, 2, 1), (5, 1, 1), (5, 2, 1), (7, 1, 1), (3, 1, 2)])
def test_any_kernel(kernel: int, stride: int, dilation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(21, 17, 40)
    y = net.depthwise(kernel, stride, dilation=dilation)
    fused = compared(net.build(y, mean(net, y)), monkeypatch)
    assert "mean_of_sums" in kernels(fused)


def test_behind_an_expansion_in_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litejit.planner.fuse_separable.BETWEEN", 1000)
    net = Net(19, 16, 12)
    net.conv(40, act="RELU6")
    y = net.depthwise()
    y = net.swish()
    whole = net.shape
    m = mean(net, y)
    net.at, net.shape = y, whole
    fused = compared(net.build(m, net.unary("NEG")), monkeypatch)
    assert [k.split("_")[0] for k in kernels(fused)[:2]] == ["separable", "mean"]


def over_rows(net: Net) -> object:
    return mean(net, net.depthwise(), axes=(1,))


def of_a_convolution(net: Net) -> object:
    return mean(net, net.conv(20, 3))


def of_a_projection(net: Net) -> object:
    """SEPARABLE that ends with a 1x1 convolution."""
    net.depthwise()
    return mean(net, net.conv(20))


@pytest.mark.parametrize("make", [over_rows, of_a_convolution, of_a_projection])
def test_other_means_stay(make: Callable[[Net], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litejit.planner.fuse_separable.BETWEEN", 1000)
    net = Net(9, 12, 20)
    make(net)
    fused = compared(net.build(), monkeypatch)
    assert any(k.startswith("reduce") for k in kernels(fused))


@pytest.mark.parametrize("options", [{"experimental_preserve_all_tensors": True},
                                     {"experimental_op_resolver_type": OpResolverType.BUILTIN_REF}])
def test_not_where_tensors_are_looked_at_or_in_reference_kernels(options: dict) -> None:
    net = Net(7, 9, 16)
    mean(net, net.depthwise())
    interpreter = Interpreter(model_content=net.build(), **options)
    interpreter.allocate_tensors()
    assert not any("sums behind" in note for note in interpreter.plan.fused)
