"""Networks at random: LiteRT's numbers, and the same bits in every way of running them.

CI takes a few; `pytest -m slow` hundreds. Codes are to be exactly LiteRT's, floats within 1e-4 of the largest output.
"""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from tests.networks import network

CASES = [pytest.param(seed, marks=() if seed < 6 else pytest.mark.slow) for seed in range(300)]
WAYS: tuple[dict[str, Any], ...] = ({"num_threads": 2}, {"num_threads": 3, "fuse": False})
CLOSE = 1e-4


def inputs(interpreter: Any, seed: int) -> list[np.ndarray]:
    """Two images, one after the other: what the first one leaves behind must not matter."""
    detail, rng = interpreter.get_input_details()[0], np.random.default_rng(seed)
    if detail["dtype"] == np.float32:
        return [rng.standard_normal(detail["shape"]).astype(np.float32) for _ in range(2)]
    return [rng.integers(-128, 128, detail["shape"]).astype(np.int8) for _ in range(2)]


def outputs(interpreter: Any, seed: int) -> list[np.ndarray]:
    interpreter.allocate_tensors()
    found = []
    for image in inputs(interpreter, seed):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        found += [interpreter.get_tensor(detail["index"]).copy() for detail in interpreter.get_output_details()]
    return found


@pytest.mark.parametrize("seed", CASES)
@pytest.mark.parametrize("type", ["f32", "int8"])
def test_every_way_gives_the_same_bits(type: str, seed: int) -> None:
    content, log = network(seed, type)
    wanted = [y.tobytes() for y in outputs(Interpreter(model_content=content), seed)]
    for way in WAYS:
        assert [y.tobytes() for y in outputs(Interpreter(model_content=content, **way), seed)] == wanted, log


@pytest.mark.parametrize("seed", CASES)
@pytest.mark.parametrize("type", ["f32", "int8"])
def test_litert_agrees(type: str, seed: int) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs LiteRT")
    content, log = network(seed, type)
    wanted = outputs(litert.Interpreter(model_content=content, num_threads=1), seed)
    for got, want in zip(outputs(Interpreter(model_content=content), seed), wanted, strict=True):
        if type == "int8":
            assert np.array_equal(got, want), log
        else:
            assert got.shape == want.shape and np.abs(got - want).max() <= CLOSE * np.abs(want).max(), log
