"""Rules around float products: swish, tail, separable. They change steps, not numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from litejit.compiler.cpu import target
from litejit.interpreter import Interpreter
from litejit.planner.fuse import RULES, switched_off
from litejit.schema.builder import ModelBuilder

SAME, VALID = 0, 1


class Net:
    """A chain of float32 operators on one image, with random weights."""

    def __init__(self, height: int, width: int, channels: int) -> None:
        self.rng, self.builder, self.count = np.random.default_rng(height * width + channels), ModelBuilder(), 0
        self.graph = self.builder.subgraph()
        self.shape: tuple[int, ...] = (1, height, width, channels)
        self.at = self.graph.input("x", self.shape)

    def add(self, op: str, inputs: list, shape: tuple[int, ...], **options: object) -> object:
        self.count += 1
        self.shape, self.at = shape, self.graph.add(op, inputs, (f"t{self.count}", shape), **options)
        return self.at

    def weights(self, *shape: int) -> object:
        self.count += 1
        data = self.rng.normal(size=shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) + 1))
        return self.graph.constant(f"w{self.count}", data)

    def conv(self, outputs: int, size: int = 1, act: str = "NONE") -> object:
        w, b = self.weights(outputs, size, size, self.shape[3]), self.weights(outputs)
        return self.add("CONV_2D", [self.at, w, b], (*self.shape[:3], outputs), padding=SAME, stride_w=1, stride_h=1,
                        fused_activation_function=act)

    def depthwise(self, size: int = 3, stride: int = 1, act: str = "NONE", dilation: int = 1, padding: int = SAME) -> object:
        _, h, w, c = self.shape
        extent = (size - 1) * dilation
        h, w = (-(-n // stride) if padding == SAME else (n - extent - 1) // stride + 1 for n in (h, w))
        weights, bias = self.weights(1, size, size, c), self.weights(c)
        return self.add("DEPTHWISE_CONV_2D", [self.at, weights, bias], (1, h, w, c), padding=padding, stride_w=stride,
                        stride_h=stride, depth_multiplier=1, dilation_w_factor=dilation, dilation_h_factor=dilation,
                        fused_activation_function=act)

    def unary(self, op: str, **options: object) -> object:
        return self.add(op, [self.at], self.shape, **options)

    def swish(self) -> object:
        x = self.at
        return self.add("MUL", [x, self.unary("LOGISTIC")], self.shape)

    def plus(self, other: object, act: str = "NONE", swap: bool = False) -> object:
        return self.add("ADD", [other, self.at] if swap else [self.at, other], self.shape, fused_activation_function=act)

    def build(self, *outputs: object) -> bytes:
        self.graph.outputs(*(outputs or (self.at,)))
        return self.builder.build()


def outputs(content: bytes, threads: int = 1, scale: float = 3.0) -> tuple[list[np.ndarray], Interpreter]:
    interpreter = Interpreter(model_content=content, num_threads=threads)
    shape = interpreter.get_input_details()[0]["shape"]
    x = (scale * np.random.default_rng(5).normal(size=shape)).astype(np.float32)
    return list(interpreter.run([x]).values()), interpreter


def with_and_without(content: bytes, rules: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Interpreter, Interpreter, list[str]]:
    """Interpreters with and without the rules, and which outputs have other bits without them or on more threads."""
    wanted, fused = outputs(content)
    found = {f"{threads} threads": outputs(content, threads)[0] for threads in (2, 3)}
    monkeypatch.setenv("LITEJIT_FUSION_OFF", rules)
    found[f"without {rules}"], unfused = outputs(content)
    changed = [f"{how}, output {k}: {np.count_nonzero(a != b)} of {a.size} numbers" for how, got in found.items()
               for k, (a, b) in enumerate(zip(wanted, got)) if not np.array_equal(a, b, equal_nan=True)]
    changed += [f"output {k} is the same everywhere" for k, a in enumerate(wanted) if not np.ptp(a) > 0]
    return fused, unfused, changed


def kernels(interpreter: Interpreter) -> list[str]:
    return [step.kernel.name for step in interpreter.plan.steps]


FUNCTIONS: dict[str, Callable[[Net], object]] = {
    "swish": Net.swish, "hard_swish": lambda net: net.unary("HARD_SWISH"), "logistic": lambda net: net.unary("LOGISTIC"),
    "tanh": lambda net: net.unary("TANH"), "gelu": lambda net: net.unary("GELU", approximate=False),
    "gelu_tanh": lambda net: net.unary("GELU", approximate=True)}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("producer", ["pointwise", "few channels", "spatial", "depthwise", "one row"])
def test_function_behind_a_product(name: str, producer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(*{"one row": (1, 1, 40), "few channels": (13, 9, 3)}.get(producer, (13, 9, 20)))
    if producer == "depthwise":
        net.depthwise()
    else:
        net.conv(37, {"pointwise": 1, "one row": 1, "few channels": 3, "spatial": 5}[producer])
    FUNCTIONS[name](net)
    fused, unfused, changed = with_and_without(net.build(), "swish,tail", monkeypatch)
    assert changed == []
    assert len(fused.plan.steps) <= len(unfused.plan.steps) - 1
    assert len(fused.plan.steps) == 1 and f"map_{name}_f32" in [kernel.name for kernel in fused.plan.kernels]


def test_function_behind_winograd_is_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(24, 24, 32)
    net.conv(32, 3)
    net.unary("TANH")
    fused, _, changed = with_and_without(net.build(), "tail", monkeypatch)
    assert changed == []
    assert kernels(fused)[-1] == ("map_tanh_f32" if any(k.startswith("winograd") for k in kernels(fused)) else "conv_f32")


@pytest.mark.parametrize("act", ["NONE", "RELU", "RELU6"])
@pytest.mark.parametrize("outputs_", [8, 24, 37, 64])
@pytest.mark.parametrize("swap", [False, True])
def test_residual(act: str, outputs_: int, swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(11, 7, 12)
    start = net.conv(outputs_, act="RELU")
    net.conv(20, act="RELU")
    net.conv(outputs_)
    net.plus(start, act, swap)
    fused, unfused, changed = with_and_without(net.build(), "tail", monkeypatch)
    assert changed == []
    assert len(fused.plan.steps) == len(unfused.plan.steps) - 1
    assert any("ADD behind" in note for note in fused.plan.fused)


def test_what_no_sum_moves_into() -> None:
    net = Net(8, 8, 16)                                     # the sum's operand is read again, and its own activation
    x = net.at
    a = net.conv(16)
    sum_ = net.plus(x)
    assert len(outputs(net.build(sum_, a))[1].plan.steps) == 2
    net = Net(8, 8, 16)
    x = net.at
    net.conv(16, act="RELU")
    net.plus(x)
    assert len(outputs(net.build())[1].plan.steps) == 2


def test_sums_of_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tail adds is in use: nobody may take its memory or its place."""
    net = Net(6, 7, 16)
    start = net.at
    x = net.conv(16)
    net.at = start
    net.conv(16)
    y = net.plus(x)
    net.at = x
    w = net.plus(start)
    _, _, changed = with_and_without(net.build(y, w), "tail", monkeypatch)
    assert changed == []


def test_broadcast_sum_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(8, 8, 16)
    net.conv(16)
    row = net.graph.input("row", (1, 1, 1, 16))
    net.plus(row)
    interpreter = Interpreter(model_content=net.build())
    interpreter.allocate_tensors()
    assert [step.node.op for step in interpreter.plan.steps if step.kernel.name != "copy_rows"] == ["CONV_2D", "ADD"]


def inverted_residual(size: int, stride: int, dilation: int = 1, padding: int = SAME, residual: bool = False,
                      swish: bool = False, height: int = 75) -> Net:
    net = Net(height, 58, 8)
    start = net.conv(10)
    net.conv(72, act="NONE" if swish else "RELU6")
    if swish:
        net.swish()
    net.depthwise(size, stride, "NONE", dilation, padding)
    FUNCTIONS["swish" if swish else "hard_swish"](net)
    net.conv(10)
    if residual:
        net.plus(start)
    return net


@pytest.mark.parametrize(("size", "stride", "options"), [
    (3, 1, {}), (3, 2, {}), (5, 1, {}), (5, 2, {"swish": True}), (3, 1, {"residual": True}), (3, 1, {"padding": VALID}),
    (3, 1, {"dilation": 2}), (3, 1, {"dilation": 4}), (2, 1, {}), (3, 1, {"swish": True, "residual": True}),
    (7, 3, {"padding": VALID})])
def test_separable(size: int, stride: int, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litejit.planner.fuse_separable.BETWEEN", 1000)
    fused, unfused, changed = with_and_without(inverted_residual(size, stride, **options).build(), "separable", monkeypatch)
    assert changed == []
    assert sum(k.startswith("separable_f32") for k in kernels(fused)) == 1 and fused.plan.macs == unfused.plan.macs
    assert len(fused.plan.steps) == len(unfused.plan.steps) - 2


def test_chunks_do_not_expand_most_rows_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litejit.planner.fuse_separable.BETWEEN", 1000)
    made = inverted_residual(3, 1, dilation=5, height=75).build()
    fused, unfused, changed = with_and_without(made, "separable", monkeypatch)
    assert changed == []
    assert len(fused.plan.steps) == len(unfused.plan.steps) - 1


@pytest.mark.skipif(not target().bf16, reason="the CPU has no products of bfloat16")
@pytest.mark.parametrize(("size", "stride", "options"), [(3, 1, {"residual": True}), (5, 2, {"swish": True}), (2, 1, {})])
def test_separable_of_bfloat16(size: int, stride: int, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litejit.planner.fuse_separable.BETWEEN", 1000)
    model, found, names = inverted_residual(size, stride, **options).build(), [], []
    for off, threads in (("", 1), ("", 3), ("separable", 1)):
        monkeypatch.setenv("LITEJIT_FUSION_OFF", off)
        interpreter = Interpreter(model_content=model, num_threads=threads, precision="bfloat16")
        x = np.random.default_rng(5).normal(size=interpreter.get_input_details()[0]["shape"]).astype(np.float32)
        found.append(next(iter(interpreter.run([x]).values())))
        names.append(kernels(interpreter))
    assert sum(name.startswith("separable_bf16") for name in names[0]) == 1 and np.ptp(found[0]) > 0
    assert not any(name.startswith("separable") for name in names[2])
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("parts", ["expand", "project"])
def test_half_of_separable(parts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litejit.planner.fuse_separable.BETWEEN", 1000)
    net = Net(30, 41, 24)
    if parts == "expand":
        net.conv(50, act="RELU")
    net.depthwise(3, 1)
    net.unary("TANH")
    if parts == "project":
        net.conv(33, act="RELU6")
    fused, _, changed = with_and_without(net.build(), "separable", monkeypatch)
    assert changed == []
    assert len(fused.plan.steps) == 1


def test_separable_without_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("litejit.planner.fuse_separable.BETWEEN", 1000)
    net = Net(30, 41, 24)
    net.conv(50, act="RELU")
    net.depthwise(3, 1, "RELU")
    net.conv(33, act="RELU6")
    fused, _, changed = with_and_without(net.build(), "separable", monkeypatch)
    assert changed == []
    assert len(fused.plan.steps) == 1


def test_what_stays_apart() -> None:
    """Small tensors."""
    assert not any(k.startswith("separable") for k in kernels(outputs(inverted_residual(3, 1, height=20).build())[1]))


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("swap", [False, True])
def test_squeeze_excite(hard: bool, swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are scaled instead of the image: rounded otherwise, so nearly the same numbers."""
    net = Net(14, 10, 20)
    start = net.conv(20, act="RELU")
    mean = net.add("MEAN", [start, net.graph.constant("axes", np.array([1, 2], np.int32))], (1, 1, 1, 20), keep_dims=True)
    net.conv(6, act="RELU")
    net.conv(20, act="RELU6" if hard else "NONE")
    factors = net.unary("LOGISTIC") if not hard else net.add(
        "MUL", [net.at, net.graph.constant("sixth", np.float32(1 / 6))], (1, 1, 1, 20))
    net.add("MUL", [factors, start] if swap else [start, factors], (1, 14, 10, 20))
    net.conv(37)
    net.plus(net.graph.constant("zero", np.zeros((1, 14, 10, 37), np.float32)))
    content = net.build()
    assert mean is not None
    (got,), fused = outputs(content)
    assert np.array_equal(got, outputs(content, 2)[0][0])
    assert any("MUL into the weights" in note for note in fused.plan.fused)
    assert "scale_panels_f32" in kernels(fused) and not any(k.startswith("mul_f32") for k in kernels(fused))
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "squeeze_excite")
    (want,), plain = outputs(content)
    assert any(k.startswith("mul_f32") for k in kernels(plain))
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max() and want.std() > 0


def test_few_pixels_are_scaled_themselves() -> None:
    net = Net(2, 3, 20)
    start = net.at
    factors = net.graph.input("factors", (1, 1, 1, 20))
    net.add("MUL", [start, factors], (1, 2, 3, 20))
    net.conv(37)
    interpreter = Interpreter(model_content=net.build())
    interpreter.allocate_tensors()
    assert not interpreter.plan.fused


def test_switches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "tail, swish")
    assert switched_off() == ("swish", "tail")
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "all")
    assert switched_off() == tuple(RULES)
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "tails")
    with pytest.raises(ValueError, match=r"LITEJIT_FUSION_OFF=tails: the rules are unread, turned, pad, "):
        switched_off()
