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
