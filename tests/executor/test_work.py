"""Plans that threads share, and those that one thread runs whatever `num_threads` says."""
from __future__ import annotations

import numpy as np
import pytest

from litejit.executor import work
from litejit.executor.team import team
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder

LEAST = 5e-6


def product(rows: int, depth: int, columns: int) -> bytes:
    """y [rows, columns] = x w."""
    builder = ModelBuilder()
    g = builder.subgraph()
    w = g.constant("w", np.ones((columns, depth), np.float32))
    g.outputs(g.add("FULLY_CONNECTED", [g.input("x", (rows, depth)), w], ("y", (rows, columns))))
    return builder.build()


def added(n: int) -> bytes:
    """y [n] = x + x."""
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (n,))
    g.outputs(g.add("ADD", [x, x], ("y", (n,))))
    return builder.build()


@pytest.mark.parametrize(("content", "wanted"), [
    (product(1, 16, 16), False), (product(1, 64, 640), False), (product(64, 256, 256), True), (product(1, 1024, 1024), True),
    (added(1000), False), (added(1 << 20), True)])
def test_work_that_is_worth_a_team(monkeypatch: pytest.MonkeyPatch, content: bytes, wanted: bool) -> None:
    monkeypatch.setattr(work, "LEAST", LEAST)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    assert work.shared(interpreter.plan) is wanted


@pytest.mark.parametrize("least", [LEAST, 0.0])
def test_a_small_plan_leaves_the_team_alone(monkeypatch: pytest.MonkeyPatch, least: float) -> None:
    monkeypatch.setattr(work, "LEAST", least)
    used = []
    make_call = type(team()).make_call
    monkeypatch.setattr(type(team()), "make_call", lambda *arguments: used.append(1) or make_call(*arguments))
    interpreter = Interpreter(model_content=product(1, 90, 1024), num_threads=2)
    y = interpreter.run([np.ones((1, 90), np.float32)])["y"]
    assert np.array_equal(y, np.full((1, 1024), 90, np.float32))
    (step,) = interpreter.plan.steps
    assert step.chunks > 1 and bool(used) is (work.seconds(step) > least)
