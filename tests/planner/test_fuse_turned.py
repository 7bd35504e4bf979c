"""Rule "turned": a transposed convolution with stride 1 as a convolution, and what stays one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter, OpResolverType
from litejit.schema.builder import Quant
from tests.harness import In, Out, op_model
from tests.twins.products import scatter

CASES = [  # x, w, padding, out
    ((2, 7, 7, 3), (5, 3, 3, 3), "SAME", (7, 7)), ((1, 9, 6, 16), (16, 4, 3, 16), "SAME", (9, 6)),
    ((1, 5, 4, 8), (9, 3, 2, 8), "VALID", (7, 5)), ((1, 1, 1, 5), (4, 5, 5, 5), "VALID", (5, 5)),
    ((2, 3, 3, 4), (6, 1, 1, 4), "SAME", (3, 3)), ((1, 14, 14, 32), (32, 3, 3, 32), "SAME", (14, 14)),
]


def content(case: Any, x: In, w: In, bias: In | None, out: Out, stride: int = 1, **options: Any) -> bytes:
    (batch, h, wide, _), shape, padding, (oh, ow) = case
    size = (oh, ow) if stride == 1 else (h * stride, wide * stride)
    to = np.array([batch, *size, shape[0]], np.int32)
    return op_model("TRANSPOSE_CONV", [In(to, constant=True), w, x, bias], out, version=3, stride_h=stride, stride_w=stride,
                    padding=padding, **options)


def run(model: bytes, x: np.ndarray, mode: OpResolverType = OpResolverType.AUTO) -> tuple[np.ndarray, list[str]]:
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=mode)
    return next(iter(interpreter.run([x]).values())), [step.node.op for step in interpreter.plan.steps]


@pytest.mark.parametrize("case", CASES)
def test_floats(rng: np.random.Generator, case: Any) -> None:
    x, w = rng.standard_normal(case[0]).astype(np.float32), rng.standard_normal(case[1]).astype(np.float32)
    bias = rng.standard_normal(len(w)).astype(np.float32)
    plain = scatter(x.astype(np.float64), w.astype(np.float64), (1, 1), case[2], case[3]) + bias
    model = content(case, In(x), In(w, constant=True), In(bias, constant=True), Out(), fused_activation_function="RELU")
    got, ops = run(model, x)
    assert set(ops) == {"CONV_2D"}
    assert np.abs(got - np.maximum(plain, 0)).max() <= 1e-5 * np.abs(plain).max()


def test_codes_that_vectors_cannot_round_stay(rng: np.random.Generator) -> None:
    """288 products of two codes, times 250, may leave the range of int32."""
    case = CASES[-1]
    x, w = rng.integers(-127, 128, case[0], np.int8), rng.choice(np.array([-127, 127], np.int8), case[1])
    codes = In(x, Quant([2.0], [0])), In(w, Quant([1.0], [0]), constant=True)
    model = content(case, *codes, In(np.zeros(32, np.int32), constant=True), Out("INT8", Quant([0.008], [0])))
    got, ops = run(model, x)
    assert set(ops) == {"TRANSPOSE_CONV"}
    sums = scatter(x.astype(np.int64), w.astype(np.int64), (1, 1), case[2], case[3])
    assert np.array_equal(got, np.clip(250 * sums, -128, 127))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_codes_are_the_same(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, dtype: type, case: Any) -> None:
    info, o = np.iinfo(dtype), case[1][0]
    x = rng.integers(info.min, info.max, case[0], dtype, endpoint=True)
    w_low, w_high, w_zero = (0, 255, 99) if dtype == np.uint8 else (-127, 127, 0)
    w, zero = rng.integers(w_low, w_high, case[1], dtype, endpoint=True), info.min + int(rng.integers(120, 140))
    scales = rng.uniform(0.005, 0.02, 1 if dtype == np.uint8 else o).astype(np.float32)
    model = content(case, In(x, Quant([0.02], [zero])), In(w, Quant(scales, [w_zero] * len(scales)), constant=True),
                    In(rng.integers(-900, 900, o, np.int32), constant=True), Out(dtype.__name__.upper(), Quant([0.5], [zero])))
    got, ops = run(model, x)
    assert set(ops) == {"CONV_2D"}
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "turned")
    want, ops = run(model, x)
    assert set(ops) == {"TRANSPOSE_CONV"} and np.array_equal(got, want) and want.std() > 0


@pytest.mark.parametrize("case", CASES)
def test_hybrid(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, case: Any) -> None:
    """An image has one scale; CONV_2D of a single tap has one for every pixel."""
    x, o = rng.standard_normal(case[0]).astype(np.float32), case[1][0]
    w = rng.integers(-127, 127, case[1], np.int8, endpoint=True)
    scales = rng.uniform(0.005, 0.02, o).astype(np.float32)
    bias = rng.standard_normal(o).astype(np.float32)
    model = content(case, In(x), In(w, Quant(scales, [0] * o), constant=True), In(bias, constant=True), Out())
    got, ops = run(model, x)
    assert set(ops) == {"TRANSPOSE_CONV" if case[1][1:3] == (1, 1) else "CONV_2D"}
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "turned")
    want, _ = run(model, x)
    assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()


def test_others_stay(rng: np.random.Generator) -> None:
    case = CASES[0]
    x, w = rng.standard_normal(case[0]).astype(np.float32), rng.standard_normal(case[1]).astype(np.float32)
    _, ops = run(content(case, In(x), In(w, constant=True), None, Out(), stride=2), x)
    assert set(ops) == {"TRANSPOSE_CONV"}
    _, ops = run(content(case, In(x), In(w, constant=True), None, Out()), x, OpResolverType.BUILTIN_REF)
    assert set(ops) == {"TRANSPOSE_CONV"}


def test_what_follows_moves_in(rng: np.random.Generator) -> None:
    """The node is a convolution for the rules behind, too."""
    from litejit.schema.builder import ModelBuilder

    x, w = rng.standard_normal((1, 8, 8, 4)).astype(np.float32), rng.standard_normal((6, 3, 3, 4)).astype(np.float32)
    builder = ModelBuilder()
    g = builder.subgraph()
    size = g.constant("size", np.array([1, 8, 8, 6], np.int32))
    y = g.add("TRANSPOSE_CONV", [size, g.constant("w", w), g.input("x", x.shape)], ("y", (1, 8, 8, 6)), version=3,
              stride_w=1, stride_h=1, padding="SAME")
    g.outputs(g.add("RELU", [y], ("z", (1, 8, 8, 6))))
    got, ops = run(builder.build(), x)
    want = np.maximum(scatter(x.astype(np.float64), w.astype(np.float64), (1, 1), "SAME", (8, 8)), 0)
    assert ops == ["CONV_2D"] and np.abs(got - want).max() <= 1e-5 * want.max()
