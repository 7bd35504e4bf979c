"""Lone activations move into float producers, and change nothing."""

from __future__ import annotations

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder


def model(activation: str, fused: str = "NONE", output_too: bool = False) -> bytes:
    builder = ModelBuilder()
    g = builder.subgraph()
    a, b = g.input("a", (4,)), g.input("b", (4,))
    t = g.add("ADD", [a, b], ("t", (4,)), fused_activation_function=fused)
    y = g.add(activation, [t], ("y", (4,)))
    g.outputs(y, t) if output_too else g.outputs(y)
    return builder.build()


@pytest.mark.parametrize(("activation", "low", "high"), [("RELU", 0, np.inf), ("RELU6", 0, 6), ("RELU_N1_TO_1", -1, 1)])
def test_activation_moves_into_its_producer(activation: str, low: float, high: float) -> None:
    interpreter = Interpreter(model_content=model(activation))
    a, b = np.array([-9, -0.5, 3, 9], np.float32), np.array([1, 0.25, 2, 1], np.float32)
    assert np.array_equal(interpreter.run([a, b])["y"], np.clip(a + b, low, high).astype(np.float32))
    assert len(interpreter.plan.steps) == 1
    assert interpreter.plan.fused == (f"node 1 {activation} into node 0 ADD",)


@pytest.mark.parametrize("content", [model("RELU", "RELU6"), model("RELU", output_too=True), model("EXP")])
def test_what_is_not_fused(content: bytes) -> None:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert len(interpreter.plan.steps) == 2


def test_nothing_is_fused_where_tensors_are_preserved() -> None:
    interpreter = Interpreter(model_content=model("RELU"), experimental_preserve_all_tensors=True)
    assert len(interpreter.run([np.ones(4, np.float32)] * 2)) == 1
    assert len(interpreter.plan.steps) == 2


# ---- control flow ----------------------------------------------------------------------------------

WEIGHTS = np.arange(9, dtype=np.float32).reshape(3, 3) / 10 - 0.4


def tanh_of_product(g, x):  # type: ignore[no-untyped-def]
    product = g.add("FULLY_CONNECTED", [x, g.constant("w", WEIGHTS)], ("product", (2, 3)), keep_num_dims=True)
    return g.add("TANH", [product], ("tanh", (2, 3)))


def branches() -> bytes:
    """y = tanh(x w) if go, else -x."""
    builder = ModelBuilder()
    main, then, other = builder.subgraph("main"), builder.subgraph("then"), builder.subgraph("other")
    then.outputs(tanh_of_product(then, then.input("x", (2, 3))))
    other.outputs(other.add("NEG", [other.input("x", (2, 3))], ("y", (2, 3))))
    go, x = main.input("go", (), "BOOL"), main.input("x", (2, 3))
    main.outputs(main.add("IF", [go, x], ("y", (2, 3)), then_subgraph_index=1, else_subgraph_index=2))
    return builder.build()


def loop() -> bytes:
    """As long as i < 3: i += 1, x = tanh(x w)."""
    builder = ModelBuilder()
    main, cond, body = builder.subgraph("main"), builder.subgraph("cond"), builder.subgraph("body")
    i, _ = cond.input("i", (), "INT32"), cond.input("x", (2, 3))
    cond.outputs(cond.add("LESS", [i, cond.constant("limit", np.array(3, np.int32))], ("more", (), "BOOL")))
    i, x = body.input("i", (), "INT32"), body.input("x", (2, 3))
    up = body.add("ADD", [i, body.constant("one", np.array(1, np.int32))], ("up", (), "INT32"))
    body.outputs(up, tanh_of_product(body, x))
    given = [main.constant("zero", np.array(0, np.int32)), main.input("x", (2, 3))]
    _, y = main.add("WHILE", given, [("n", (), "INT32"), ("y", (2, 3))], cond_subgraph_index=1, body_subgraph_index=2)
    main.outputs(y)
    return builder.build()


@pytest.mark.parametrize("go", [True, False])
def test_branches(go: bool) -> None:
    x = np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)
    interpreter = Interpreter(model_content=branches())
    got = interpreter.run([np.array(go), x])["y"]
    np.testing.assert_allclose(got, np.tanh(x @ WEIGHTS.T) if go else -x, rtol=1e-5)
    assert interpreter.plan.fused == ("in a body, subgraph 1: node 1 TANH behind node 0 FULLY_CONNECTED",)


def test_bodies_of_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)
    interpreter = Interpreter(model_content=loop())
    (got,) = interpreter.run([x]).values()
    assert interpreter.plan.fused == ("in a body, subgraph 2: node 2 TANH behind node 1 FULLY_CONNECTED",)
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "all")
    plain = Interpreter(model_content=loop())
    (want,) = plain.run([x]).values()
    assert len(interpreter.plan.steps) == len(plain.plan.steps) - 1
    assert np.array_equal(got, want)
