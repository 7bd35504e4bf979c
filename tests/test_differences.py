"""Statements of docs/differences.md about numbers and graphs that tests/interpreter does not check."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.errors import LiteJitError, ModelError, UnresolvedCustomOperator, UnsupportedOperators
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder, Quant
from tests.harness import In, Out, op_model, run_model, run_op

MODES = ("auto", "opt", "ref")
F = np.float32


def constant(*values: int) -> In:
    return In(np.array(values, np.int32), constant=True)


@pytest.mark.parametrize("mode", MODES)
def test_denormals_are_kept(mode: str) -> None:
    x = np.array([1e-40, -3e-42], F)
    assert np.array_equal(run_op("NEG", [x], Out(shape=(2,)), mode=mode), -x)
    assert np.array_equal(run_op("ADD", [x, x], Out(shape=(2,)), mode=mode), x + x)
    assert run_op("EXP", [np.array([-100], F)], Out(shape=(1,)), mode=mode) == 0


def test_infinities_are_clamped_by_the_reference_kernels_only() -> None:
    x = np.array([np.inf, 1], F)
    assert run_op("ADD", [x, x], Out(shape=(2,)))[0] == np.inf
    assert run_op("ADD", [x, x], Out(shape=(2,)), mode="ref")[0] == np.finfo(F).max


@pytest.mark.parametrize("mode", MODES)
def test_right_where_litert_is_not(mode: str) -> None:
    many, scale = np.full(20, 127, np.int8), Quant(100.0, 0)
    assert (run_op("MUL", [In(many, scale), In(many, scale)], Out("INT8", Quant(0.001, 100), (20,)), mode=mode) == 127).all()
    tanh = run_op("TANH", [In(np.array([-5000, 4096], np.int16), Quant(2.0 ** -12, 0))],
                  Out("INT16", Quant(2.0 ** -15, 0), (2,)), mode=mode, version=3)
    assert np.array_equal(tanh, run_op("TANH", [In(np.array([-5000, 4096], np.int16), Quant(2.0 ** -12, 0))],
                                       Out("INT16", Quant(2.0 ** -15, 0), (2,)), mode="ref", version=3))
    total = run_op("SUM", [In(np.array([[100, 5, 7]], np.int16), Quant(0.5, 0)), constant(1)],
                   Out("INT16", Quant(1.0, 0), (1,)), mode=mode, version=2)
    assert total.tolist() == [56]
    product = run_op("REDUCE_PROD", [In(np.array([[100]], np.int8), Quant(0.5, 2)), constant(1)],
                     Out("INT8", Quant(1.0, 0), (1,)), mode=mode, version=2)
    assert product.tolist() == [49]
    hybrid = run_op("BATCH_MATMUL", [np.ones((1, 2, 4), F), In(np.ones((1, 4, 3), np.int8), Quant(0.5, 0))],
                    Out(shape=(1, 2, 3)), mode=mode)
    assert (hybrid == 2).all()
    weights = In(np.array([[[[2, -4, 127]]]], np.int8), Quant(0.5, 0), constant=True)
    one_scale = run_op("DEPTHWISE_CONV_2D", [np.ones((1, 1, 1, 3), F), weights], Out(shape=(1, 1, 1, 3)), mode=mode,
                       version=3, padding="VALID", stride_w=1, stride_h=1, depth_multiplier=1, dilation_w_factor=1,
                       dilation_h_factor=1)
    np.testing.assert_allclose(one_scale.ravel(), [1, -2, 63.5], rtol=1e-6)
    few = np.array([1, -2, 3], np.int16)
    assert run_op("NOT_EQUAL", [few, few[::-1].copy()], Out("BOOL", shape=(3,)), mode=mode).tolist() == [True, False, True]
    empty = run_op("STRIDED_SLICE", [np.arange(5, dtype=F), constant(0), constant(0), constant(1)], Out(shape=(0,)), mode=mode)
    assert empty.shape == (0,)
    x = np.arange(8, dtype=F).reshape(2, 2, 2)
    assert np.array_equal(run_op("REVERSE_V2", [x, constant(0, 2)], Out(shape=(2, 2, 2)), mode=mode), x[::-1, :, ::-1])
    deep = np.ones((1, 1, 1, 1, 1, 2, 2), F)
    assert run_op("MEAN", [deep, constant(6)], Out(shape=(1, 1, 1, 1, 1, 2)), mode=mode).shape == (1, 1, 1, 1, 1, 2)


def test_operators_in_any_order() -> None:
    builder = ModelBuilder()
    graph = builder.subgraph()
    x, middle = graph.input("x", (2,)), graph.tensor("m", (2,))
    y = graph.add("NEG", [middle], ("y", (2,)))
    graph.add("ABS", [x], middle)
    graph.outputs(y)
    assert run_model(builder.build(), [np.array([-2, 2], F)])[0].tolist() == [-2, -2]


def test_variables() -> None:
    builder = ModelBuilder()
    graph = builder.subgraph()
    x = graph.input("x", (-1, 2))
    state = graph.variable("state", (1, 2))
    graph.add("ADD", [state, graph.constant("one", F(1))], state)
    graph.outputs(graph.add("ADD", [x, state], ("y", (-1, 2))))
    content = builder.build()
    one = Interpreter(model_content=content)
    other = Interpreter(model=one.model)

    def run(interpreter: Interpreter) -> float:
        interpreter.invoke()
        return float(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0, 0])

    for interpreter in (one, other):
        interpreter.allocate_tensors()
        assert [run(interpreter), run(interpreter)] == [1, 2]
    one.allocate_tensors()
    assert run(one) == 3
    one.reset_all_variables()
    assert run(one) == 1
    one.resize_tensor_input(0, (3, 2))
    one.allocate_tensors()
    assert run(one) == 1 and run(other) == 3


def test_all_missing_operators_are_named() -> None:
    def model(*operators: str, custom: str = "") -> bytes:
        builder = ModelBuilder()
        graph = builder.subgraph()
        x = graph.input("x", (2,))
        for name in operators:
            x = graph.add(name, [x], (name, (2,)), version=77 if name == "NEG" else 1)
        graph.outputs(graph.custom(custom, [x], ("c", (2,))) if custom else x)
        return builder.build()

    with pytest.raises(UnsupportedOperators) as caught:
        Interpreter(model_content=model("UNIQUE", "NEG", "DENSIFY", custom="Mystery"))
    assert {o.split()[0] for o in caught.value.operators} == {"UNIQUE", "NEG", "DENSIFY", "Mystery"}
    later = Interpreter(model_content=model("ABS", custom="Mystery"))
    with pytest.raises(UnresolvedCustomOperator, match="unresolved custom op: Mystery"):
        later.allocate_tensors()


@pytest.mark.parametrize("damage", [{"outputs": -1}, {"outputs": 77}, {"signature": 9}])
def test_bad_indices_are_found_when_loading(damage: dict[str, int]) -> None:
    builder = ModelBuilder()
    graph = builder.subgraph()
    x = graph.input("x", (2,))
    y = graph.add("NEG", [x], ("y", (2,)))
    graph.outputs(y)
    if "outputs" in damage:
        graph.tree["outputs"] = [damage["outputs"]]
    else:
        y.index = damage["signature"]
        builder.signature("f", graph, {"x": x}, {"y": y})
    with pytest.raises(ModelError):
        Interpreter(model_content=builder.build())


def test_gather_names_the_bad_index() -> None:
    content = op_model("GATHER", [np.arange(4, dtype=F), np.array([0, 3, 9], np.int32)], Out(shape=(3,)))
    text = r"gather index out of bounds \(element 2\) Node number 0 \(GATHER\) failed to invoke"
    with pytest.raises(LiteJitError, match=text):
        run_model(content, [np.arange(4, dtype=F), np.array([0, 3, 9], np.int32)])


def test_preserving_keeps_the_arithmetic() -> None:
    from litejit.demo import MODELS, digits, model_input

    results: list[Any] = []
    for preserve in (False, True):
        interpreter = Interpreter(str(MODELS["int8"]), experimental_preserve_all_tensors=preserve)
        results.append(interpreter.run(model_input(digits()[0][:50], interpreter.get_input_details()[0]))["digit"])
    assert np.array_equal(*results)
