"""Layer normalisations, however they are spelled, become one step with the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.schema.builder import ModelBuilder
from tests.harness import run_planned

F32 = np.float32


class Net:
    """A model in the making: operators on tensors of [..., n]."""

    def __init__(self, shape: tuple[int, ...], seed: int = 0) -> None:
        self.builder = ModelBuilder()
        self.g = self.builder.subgraph()
        self.shape, self.row, self.count = shape, (*shape[:-1], 1), 0
        self.rng = np.random.default_rng(seed)

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def op(self, op: str, *inputs: Any, row: bool = False, **options: Any) -> Any:
        return self.g.add(op, list(inputs), (self.name(), self.row if row else self.shape), **options)

    def constant(self, value: Any) -> Any:
        return self.g.constant(self.name(), np.asarray(value))

    def vector(self) -> Any:
        return self.constant(self.rng.normal(1, 0.5, self.shape[-1]).astype(F32))

    def mean(self, x: Any, axis: int = -1, keep: bool = True) -> Any:
        return self.op("MEAN", x, self.constant(np.array([axis], np.int32)), row=True, keep_dims=keep)

    def inverse(self, x: Any, mean: Any, squares: str = "SQUARED_DIFFERENCE", epsilon: float | None = 1e-3) -> Any:
        """1 / sqrt(variance + epsilon)."""
        if squares == "SQUARED_DIFFERENCE":
            square = self.op("SQUARED_DIFFERENCE", x, mean)
        else:
            away = self.op("SUB", x, mean)
            square = self.op("SQUARE", away) if squares == "SQUARE" else self.op("MUL", away, away)
        variance = self.mean(square)
        if epsilon is not None:
            variance = self.op("ADD", variance, self.constant(F32(epsilon)), row=True)
        return self.op("RSQRT", variance, row=True)

    def finish(self, *outputs: Any) -> bytes:
        self.g.outputs(*outputs)
        return bytes(self.builder.build())


def keras(net: Net, x: Any, gamma: bool = True, squares: str = "SQUARED_DIFFERENCE") -> Any:
    """x * (s * gamma) + (beta - mean * (s * gamma)), as TensorFlow's batch_normalization has it."""
    mean = net.mean(x)
    scale = net.inverse(x, mean, squares)
    if gamma:
        scale = net.op("MUL", scale, net.vector())
    shift = net.op("ADD", net.op("MUL", net.op("NEG", mean, row=True), scale, row=not gamma), net.vector())
    return net.op("ADD", net.op("MUL", x, scale), shift)


def subtracted(net: Net, x: Any) -> Any:
    """The same with beta - mean * scale by SUB."""
    mean = net.mean(x)
    scale = net.op("MUL", net.vector(), net.inverse(x, mean))
    return net.op("ADD", net.op("SUB", net.vector(), net.op("MUL", mean, scale)), net.op("MUL", scale, x))


def centred(net: Net, x: Any, squares: str = "SQUARE", affine: bool = True, epsilon: float | None = 1e-3) -> Any:
    """(x - mean) * s * gamma + beta."""
    mean = net.mean(x)
    away = net.op("MUL", net.op("SUB", x, mean), net.inverse(x, mean, squares, epsilon))
    return net.op("ADD", net.op("MUL", away, net.vector()), net.vector()) if affine else away


def shared_difference(net: Net, x: Any) -> Any:
    """One difference for the variance and the result, divided by a root; gamma as a number."""
    mean = net.mean(x)
    away = net.op("SUB", x, mean)
    variance = net.mean(net.op("MUL", away, away))
    root = net.op("SQRT", net.op("ADD", net.constant(F32(1e-3)), variance, row=True), row=True)
    return net.op("SUB", net.op("MUL", net.op("DIV", away, root), net.constant(F32(1.5))), net.vector())


def backwards(net: Net, x: Any) -> Any:
    """beta - (mean - x) * (s * gamma)."""
    mean = net.mean(x)
    scale = net.op("MUL", net.inverse(x, mean), net.vector())
    return net.op("SUB", net.vector(), net.op("MUL", net.op("SUB", mean, x), scale))


def by_sums(net: Net, x: Any) -> Any:
    """Means as sums over n, of rows without the last axis, reshaped; squares by POW; 1 over a root."""
    lead, n = net.shape[:-1], net.constant(F32(net.shape[-1]))

    def mean(value: Any) -> Any:
        total = net.g.add("SUM", [value, net.constant(np.array([-1], np.int32))], (net.name(), lead), keep_dims=False)
        return net.g.add("DIV", [total, n], (net.name(), lead))

    def column(value: Any) -> Any:
        return net.op("RESHAPE", value, net.constant(np.array(net.row, np.int32)), row=True)

    away = net.op("SUB", x, column(mean(x)))
    variance = mean(net.op("POW", away, net.constant(F32(2))))
    root = net.op("SQRT", column(net.g.add("ADD", [variance, net.constant(F32(0.01))], (net.name(), lead))), row=True)
    return net.op("MUL", away, net.op("DIV", net.vector(), root))


def rms(net: Net, x: Any, squares: str = "MUL", add_up: str = "MEAN") -> Any:
    """x * s * gamma, s from the mean of x^2."""
    square = net.op("MUL", x, x) if squares == "MUL" else net.op("SQUARE", x)
    axis = net.constant(np.array([len(net.shape) - 1], np.int32))
    mean = net.op(add_up, square, axis, row=True, keep_dims=True)
    if add_up == "SUM":
        mean = net.op("MUL", mean, net.constant(F32(1 / net.shape[-1])), row=True)
    scale = net.op("RSQRT", net.op("ADD", mean, net.constant(F32(1e-3)), row=True), row=True)
    return net.op("MUL", net.op("MUL", x, scale), net.vector())


FORMS = {
    "by sums": by_sums,
    "rms": rms,
    "rms, squared, by sums": lambda net, x: rms(net, x, "SQUARE", "SUM"),
    "keras": keras,
    "keras, no gamma": lambda net, x: keras(net, x, gamma=False),
    "keras, squares by MUL": lambda net, x: keras(net, x, squares="MUL"),
    "subtracted": subtracted,
    "centred": centred,
    "plain": lambda net, x: centred(net, x, affine=False),
    "no epsilon": lambda net, x: centred(net, x, epsilon=None),
    "shared difference": shared_difference,
    "backwards": backwards,
}


def unfused(content: bytes, values: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    with monkeypatch.context() as patch:
        patch.setenv("LITEJIT_FUSION_OFF", "layer_norm,float_chain")
        outputs, plan = run_planned(content, values)
    assert not plan.fused
    return outputs


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(1, 7, 33), (2, 3, 3, 16), (5, 257), (1, 2), (300, 192)])
def test_every_form_becomes_one_step(form: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(shape)
    content = net.finish(FORMS[form](net, net.g.input("x", shape)))
    x = net.rng.normal(0.3, 2, shape).astype(F32)
    (got,), plan = run_planned(content, [x])
    assert len(plan.steps) == 1 and len(plan.fused) == 1
    assert ("RMS_NORM" if "rms" in form else "LAYER_NORM") in plan.fused[0]
    (want,) = unfused(content, [x], monkeypatch)
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
    for threads in (2, 3):
        assert np.array_equal(run_planned(content, [x], num_threads=threads)[0][0], got)


@pytest.mark.parametrize("form", [keras, rms])
@pytest.mark.parametrize("also", [False, True])
@pytest.mark.parametrize("shape", [(1, 7, 33), (70, 256)])
def test_a_residual_is_part_of_the_step(
    form: Any, also: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    net = Net(shape)
    a, b = net.g.input("a", shape), net.g.input("b", shape[1:] if shape[0] == 1 else shape)
    x = net.op("ADD", a, b)
    y = form(net, x)
    content = net.finish(y, net.op("EXP", x)) if also else net.finish(y)
    values = [net.rng.normal(0, 2, shape).astype(F32) for _ in "ab"]
    values[1] = values[1].reshape(b.tree["shape"])
    got, plan = run_planned(content, values)
    assert len(plan.steps) == 1 + also
    want = unfused(content, values, monkeypatch)
    assert np.abs(got[0] - want[0]).max() <= 1e-6 * np.abs(want[0]).max()
    assert not also or np.array_equal(got[1], want[1])
    for threads in (2, 3):
        assert all(map(np.array_equal, run_planned(content, values, num_threads=threads)[0], got))


def test_a_value_may_be_normalised_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((9, 20))
    x = net.op("ADD", net.g.input("a", net.shape), net.g.input("b", net.shape))
    content = net.finish(keras(net, x), centred(net, x, epsilon=0.5), rms(net, x))
    values = [net.rng.normal(0, 2, net.shape).astype(F32) for _ in "ab"]
    got, plan = run_planned(content, values)
    assert len(plan.steps) == len(plan.fused) == 3  # the sum is made by the first of them
    for one, other in zip(got, unfused(content, values, monkeypatch)):
        assert np.abs(one - other).max() <= 1e-6 * np.abs(other).max()


def test_the_sum_may_be_an_output() -> None:
    net = Net((4, 20))
    a = net.g.input("a", net.shape)
    x = net.op("ADD", a, a)
    content = net.finish(x, keras(net, x))
    value = net.rng.normal(0, 2, net.shape).astype(F32)
    (doubled, _), plan = run_planned(content, [value])
    assert len(plan.steps) == 1 and np.array_equal(doubled, value + value)


def test_rows_far_from_zero_keep_their_digits() -> None:
    """Against float64, where the separate operators lose four digits."""
    net = Net((50, 100))
    content = net.finish(centred(net, net.g.input("x", net.shape), affine=False, epsilon=1e-5))
    x = (net.rng.normal(0, 1, net.shape) + net.rng.choice([-1e4, 1e4], (50, 1))).astype(F32)
    away = x.astype(np.float64) - x.mean(axis=1, dtype=np.float64, keepdims=True)
    want = away / np.sqrt((away**2).mean(axis=1, keepdims=True) + 1e-5)
    (got,), _ = run_planned(content, [x])
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


def test_special_rows_are_those_of_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((7, 9))
    content = net.finish(centred(net, net.g.input("x", net.shape)))
    x = net.rng.normal(0, 1, net.shape).astype(F32)
    x[0, 3], x[1, 2], x[2, 1], x[3] = np.nan, np.inf, -np.inf, 3.0
    x[4, 5], x[5] = 1e30, 3e38
    (got,), _ = run_planned(content, [x])
    (want,) = unfused(content, [x], monkeypatch)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)


def not_last_axis(net: Net, x: Any) -> Any:
    mean = net.g.add("MEAN", [x, net.constant(np.array([0], np.int32))], ("m", (1, net.shape[-1])), keep_dims=True)
    return net.op("MUL", net.op("SUB", x, mean), net.inverse(x, mean))


def other_factor(net: Net, x: Any) -> Any:
    """The two halves have different gammas."""
    mean = net.mean(x)
    scale = net.inverse(x, mean)
    left = net.op("MUL", x, net.op("MUL", scale, net.vector()))
    return net.op("SUB", left, net.op("MUL", mean, net.op("MUL", scale, net.vector())))


def activated(net: Net, x: Any) -> Any:
    mean = net.mean(x)
    away = net.op("SUB", x, mean, fused_activation_function="RELU")
    return net.op("MUL", away, net.inverse(x, mean))


def raw_square(net: Net, x: Any) -> Any:
    """The mean of x^2 is no variance."""
    mean = net.mean(x)
    power = net.op("ADD", net.mean(net.op("SQUARE", x)), net.constant(F32(1e-3)), row=True)
    return net.op("MUL", net.op("SUB", x, mean), net.op("RSQRT", power, row=True))


def wrong_count(net: Net, x: Any) -> Any:
    """Sums divided by another number than n."""
    total = net.op("SUM", net.op("MUL", x, x), net.constant(np.array([-1], np.int32)), row=True, keep_dims=True)
    mean = net.op("MUL", total, net.constant(F32(0.25)), row=True)
    return net.op("MUL", x, net.op("RSQRT", mean, row=True))


def mixed(net: Net, x: Any) -> Any:
    """The mean is taken off, but not squared off."""
    mean = net.mean(x)
    power = net.mean(net.op("MUL", x, x))
    return net.op("MUL", net.op("SUB", x, mean), net.op("RSQRT", power, row=True))


def per_row(net: Net, x: Any) -> Any:
    """A factor for each row instead of each column."""
    return net.op("MUL", centred(net, x, affine=False), net.constant(np.ones(net.row, F32)))


@pytest.mark.parametrize("form", [not_last_axis, other_factor, activated, raw_square, wrong_count, mixed])
def test_what_is_no_layer_normalisation(form: Any) -> None:
    net = Net((6, 6))
    content = net.finish(form(net, net.g.input("x", net.shape)))
    _, plan = run_planned(content, [np.ones(net.shape, F32)])
    assert not plan.fused


def test_what_lies_behind_stays() -> None:
    net = Net((6, 5))
    _, plan = run_planned(net.finish(per_row(net, net.g.input("x", net.shape))), [np.ones(net.shape, F32)])
    assert len(plan.steps) == 2 and len(plan.fused) == 1


def test_a_value_that_others_read_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((6, 5))
    x = net.g.input("x", net.shape)
    mean = net.mean(x)
    y = net.op("MUL", net.op("SUB", x, mean), net.inverse(x, mean))
    content = net.finish(y, mean)
    value = net.rng.normal(0, 1, net.shape).astype(F32)
    got, plan = run_planned(content, [value])
    assert not plan.fused
    np.testing.assert_allclose(got[1], value.mean(axis=1, keepdims=True), atol=1e-6)


def test_a_reader_of_the_sum_in_between_keeps_the_addition_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((6, 5))
    a, b = net.g.input("a", net.shape), net.g.input("b", net.shape)
    x = net.op("ADD", a, b)
    mean = net.mean(x)
    scale = net.inverse(x, mean)
    early = net.op("EXP", x)
    y = net.op("MUL", net.op("SUB", x, mean), scale)
    content = net.finish(y, early)
    values = [net.rng.normal(0, 1, net.shape).astype(F32) for _ in "ab"]
    got, plan = run_planned(content, values)
    assert len(plan.steps) == 3 and len(plan.fused) == 1
    want = unfused(content, values, monkeypatch)
    for one, other in zip(got, want):
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-6)


@pytest.mark.parametrize("kept", [False, True])
def test_a_variable_is_left_alone(kept: bool) -> None:
    net = Net((6, 5))
    x = net.g.variable("x", net.shape) if kept else net.g.input("x", net.shape)
    y = net.op("ADD", subtracted(net, x), net.g.input("z", net.shape))
    _, plan = run_planned(net.finish(y), [np.ones(net.shape, F32)] * (1 if kept else 2))
    assert len(plan.fused) == (0 if kept else 1), plan


def test_reference_kernels_are_left_alone() -> None:
    net = Net((6, 5))
    _, plan = run_planned(net.finish(keras(net, net.g.input("x", net.shape))), [np.ones(net.shape, F32)], mode="ref")
    assert not plan.fused
