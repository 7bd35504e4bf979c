"""Rule "concat" along the last dimension: products write into wider rows. It changes steps, not numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from litejit.compiler.cpu import target
from litejit.interpreter import Interpreter, OpResolverType
from litejit.planner import fuse_concat
from litejit.planner.fuse_concat import COLUMNS
from tests.planner.test_fuse_products import Net, kernels, outputs, with_and_without

Maker = Callable[[Net], object]


def dense(net: Net, channels: int) -> object:
    """FULLY_CONNECTED on rows."""
    return net.add("FULLY_CONNECTED", [net.at, net.weights(channels, net.shape[3]), net.weights(channels)],
                   (*net.shape[:3], channels), keep_num_dims=True)


def grouped(net: Net, channels: int) -> object:
    w, b = net.weights(channels, 3, 3, net.shape[3] // 2), net.weights(channels)
    return net.add("CONV_2D", [net.at, w, b], (*net.shape[:3], channels), padding=0, stride_w=1, stride_h=1)


def transposed(net: Net, channels: int, size: int) -> object:
    """An image of twice the size, by patches that overlap unless `size` is 2."""
    _, h, w, c = net.shape
    shape = (1, 2 * h, 2 * w, channels)
    inputs = [net.graph.constant(f"s{net.count}", np.array(shape, np.int32)), net.weights(channels, size, size, c), net.at,
              net.weights(channels)]
    return net.add("TRANSPOSE_CONV", inputs, shape, padding=0, stride_w=2, stride_h=2)


MAKERS: dict[str, tuple[Maker, int, str]] = {  # what makes a part, of so many channels, by which kernel
    "pointwise": (lambda net: net.conv(37), 20, "product_f32"),
    "dense": (lambda net: dense(net, 37), 20, "product_f32"),
    "few channels": (lambda net: net.conv(21, 3), 3, "conv_rows_f32"),
    "spatial": (lambda net: net.conv(37, 5, "RELU"), 40, "conv_f32"),
    "grouped": (lambda net: grouped(net, 38), 80, "conv_f32"),
    "winograd": (lambda net: net.conv(40, 3, "RELU6"), 32, "winograd_")}


def joined(net: Net, *parts: object, depth: int, **options: Any) -> object:
    """The parts side by side, and NEG of all."""
    net.add("CONCATENATION", list(parts), (*net.shape[:3], depth), **{"axis": 3, **options})
    return net.unary("NEG")


def forked(makers: list[Maker], height: int, width: int, channels: int, *more: str) -> bytes:
    """Every maker on the input of the graph, joined, behind the operators `more` each."""
    net, parts, depth = Net(height, width, channels), [], 0
    x, shape = net.at, net.shape
    for maker in makers:
        net.at, net.shape = x, shape
        maker(net)
        for op in more:
            net.unary(op)
        parts.append(net.at)
        depth += net.shape[3]
    joined(net, *parts, depth=depth)
    return net.build()


def left(interpreter: Interpreter) -> int:
    """How many parts are copied."""
    return sum(step.params["count"] for step in interpreter.plan.steps if step.node.op == "CONCATENATION")


@pytest.mark.parametrize("name", MAKERS)
def test_rows_are_written_where_they_belong(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, channels, kernel = MAKERS[name]
    fused, unfused, changed = with_and_without(forked([maker, maker], 25, 17, channels), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 0 and left(unfused) == 2
    if name == "winograd" and not any(k.startswith(kernel) for k in kernels(fused)):
        kernel = "conv_f32"  # the CPU is better off without
    assert sum(k.startswith(kernel) and not k.endswith("inputs") for k in kernels(fused)) == 2
    op = "FULLY_CONNECTED" if name == "dense" else "CONV_2D"
    assert fused.plan.fused == tuple(f"rows of node {k} {op} into those of node 2 CONCATENATION" for k in range(2))


def test_others_are_copied_beside_them(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(13, 9, 20)
    x = net.at
    first = net.conv(5, 3)
    net.at, net.shape = x, (1, 13, 9, 20)
    second = net.depthwise()
    net.at = x
    third = net.conv(7)
    joined(net, first, second, x, third, depth=52)
    fused, _, changed = with_and_without(net.build(), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 2


READERS: dict[str, Maker] = {
    "max": lambda net: pooled(net, "MAX_POOL_2D", 2, 2), "average": lambda net: pooled(net, "AVERAGE_POOL_2D", 3, 1),
    "depthwise": Net.depthwise}


def pooled(net: Net, op: str, size: int, stride: int) -> object:
    _, h, w, c = net.shape
    return net.add(op, [net.at], (1, -(-h // stride), -(-w // stride), c), padding=0, stride_w=stride, stride_h=stride,
                   filter_width=size, filter_height=size)


@pytest.mark.parametrize("patch", [2, 3])
@pytest.mark.parametrize("name", READERS)
def test_a_part_that_others_read_in_the_wider_rows(name: str, patch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in U-shaped networks: down, up again, and joined with what was there before."""
    net = Net(14, 10, 20)
    skip = net.conv(12, 3)
    READERS[name](net)
    if net.shape[1] == 14:
        pooled(net, "MAX_POOL_2D", 2, 2)
    up = transposed(net, 9, patch)
    joined(net, up, skip, depth=21)
    fused, unfused, changed = with_and_without(net.build(), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 0 and left(unfused) == 2


def test_a_part_that_somebody_else_cannot_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """One reader takes wider rows, the other one does not."""
    net = Net(14, 10, 20)
    skip, shape = net.conv(12, 3), net.shape
    net.kept = net.unary("TANH")  # type: ignore[attr-defined]
    net.at = skip
    net.kept_too = pooled(net, "MAX_POOL_2D", 2, 2)  # type: ignore[attr-defined]
    net.at, net.shape = skip, shape
    y = joined(net, skip, net.conv(7), depth=19)
    fused, _, changed = with_and_without(net.build(y, net.kept, net.kept_too), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 1


def test_a_part_that_is_read_when_the_rest_is_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows the joined tensor in place waits for the part's last reader."""
    net = Net(14, 10, 20)
    x, shape = net.at, net.shape
    skip, made = net.conv(12, 3), net.shape
    net.at, net.shape = x, shape
    net.add("CONCATENATION", [skip, net.conv(7)], (1, 14, 10, 19), axis=3)
    net.unary("NEG")
    whole = net.unary("EXP")
    net.at, net.shape = skip, made
    fused, _, changed = with_and_without(net.build(whole, pooled(net, "MAX_POOL_2D", 2, 2)), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 0


def test_large_parts_that_others_read_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their memory would be taken from the first part on."""
    monkeypatch.setattr(fuse_concat, "SHARED", 14 * 10 * 21 * 4 - 1)
    net = Net(14, 10, 20)
    skip = net.conv(12, 3)
    pooled(net, "MAX_POOL_2D", 2, 2)
    joined(net, transposed(net, 9, 2), skip, depth=21)
    fused, _, changed = with_and_without(net.build(), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 1


@pytest.mark.parametrize("outputs_", [COLUMNS - 1, COLUMNS])
@pytest.mark.parametrize("name", ["pointwise", "few channels", "spatial", "winograd"])
def test_functions_run_over_the_rows(name: str, outputs_: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind Winograd's tiles a function is a step of its own on the whole output, which has to be in one piece."""
    _, channels, _ = MAKERS[name]
    size = {"pointwise": 1, "spatial": 5}.get(name, 3)
    model = forked([lambda net: net.conv(outputs_, size)] * 2, 24, 17, channels, "TANH")
    fused, _, changed = with_and_without(model, "concat", monkeypatch)
    assert changed == []
    tiles = any(kernel.startswith("winograd") for kernel in kernels(fused))
    assert left(fused) == (0 if outputs_ >= COLUMNS and not tiles else 2)
    assert all(step.node.op != "TANH" for step in fused.plan.steps)


def residual(net: Net) -> object:
    """A sum in the registers of the product, of something that lies in rows as wide as the product's."""
    x, shape = net.at, net.shape
    other = net.depthwise()
    net.at, net.shape = x, shape
    net.conv(shape[3])
    return net.plus(other)


def is_output(net: Net) -> object:
    net.kept = net.conv(9)  # type: ignore[attr-defined]
    return net.at


def is_read(net: Net) -> object:
    net.conv(9)
    made, shape = net.at, net.shape
    net.kept = net.unary("TANH")  # type: ignore[attr-defined]
    net.at, net.shape = made, shape
    return made


def is_viewed(net: Net) -> object:
    net.conv(9)
    shape = net.graph.constant(f"s{net.count}", np.array(net.shape, np.int32))
    return net.add("RESHAPE", [net.at, shape], net.shape)


@pytest.mark.parametrize("maker", [residual, is_output, is_read, is_viewed, Net.depthwise])
def test_what_is_copied(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(13, 9, 20)
    x, shape = net.at, net.shape
    first = maker(net)
    depth = net.shape[3]
    net.at, net.shape = x, shape
    second = net.conv(7)
    y = joined(net, first, second, depth=depth + 7)
    model = net.build(y, net.kept) if hasattr(net, "kept") else net.build()
    fused, _, changed = with_and_without(model, "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 1


def test_a_part_that_is_joined_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(13, 9, 20)
    part = net.conv(7)
    joined(net, part, part, depth=14)
    fused, _, changed = with_and_without(net.build(), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 2


def test_other_dimensions(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(13, 9, 20)
    x, parts = net.at, []
    for _ in range(2):
        net.at, net.shape = x, (1, 13, 9, 20)
        parts.append(net.conv(8))
    net.add("CONCATENATION", parts, (1, 13, 18, 8), axis=2)
    net.unary("NEG")
    fused, _, changed = with_and_without(net.build(), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 2


def test_wide_rows_within_a_contiguous_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is joined along the channels is joined along the rows then: the first is a part of the second."""
    net = Net(13, 9, 20)
    x, halves = net.at, []
    for _ in range(2):
        parts = []
        for channels in (7, 12):
            net.at, net.shape = x, (1, 13, 9, 20)
            parts.append(net.conv(channels, 3))
        halves.append(net.add("CONCATENATION", parts, (1, 13, 9, 19), axis=3))
    net.add("CONCATENATION", halves, (1, 26, 9, 19), axis=1)
    net.unary("NEG")
    fused, _, changed = with_and_without(net.build(), "concat", monkeypatch)
    assert changed == []
    assert left(fused) == 0
    assert fused.plan.fused[-1] == "node 6 CONCATENATION: inputs 0, 1 are written in place"


def test_reference_kernels_are_left_alone() -> None:
    model = forked([lambda net: net.conv(7)] * 2, 13, 9, 20)
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.allocate_tensors()
    assert left(interpreter) == 2


@pytest.mark.skipif(not target().bf16, reason="the CPU has no products of bfloat16")
@pytest.mark.parametrize("name", MAKERS)
def test_products_of_bfloat16(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker, channels, _ = MAKERS[name]
    model = forked([maker, maker], 25, 17, channels)
    x = np.random.default_rng(5).normal(size=(1, 25, 17, channels)).astype(np.float32)
    results = []
    for rules in ("", "concat"):
        monkeypatch.setenv("LITEJIT_FUSION_OFF", rules)
        interpreter = Interpreter(model_content=model, precision="bfloat16", num_threads=2)
        results.append(next(iter(interpreter.run([x]).values())))
        assert left(interpreter) == (2 if rules else 0)
    assert np.array_equal(*results)


def test_stepwise_is_the_same() -> None:
    model = forked([MAKERS["pointwise"][0], MAKERS["spatial"][0]], 13, 9, 20)
    (wanted,), _ = outputs(model)
    x = (3 * np.random.default_rng(5).normal(size=(1, 13, 9, 20))).astype(np.float32)
    (got,) = Interpreter(model_content=model, fuse=False).run([x]).values()
    assert np.array_equal(got, wanted)
