"""Whole models against LiteRT's recorded outputs, every way of running the same bits, and memory.

The models come from the shared material; CI takes the small ones, `pytest -m slow` all.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter, OpResolverType
from litejit.planner.arena import aligned
from tests.conftest import SHARED, load_module
from tests.planner.test_arena import greedy_by_size

ARCHITECTURES = sorted(p.stem for p in (SHARED / "models" / "architectures").glob("*.skel"))
QUICK = {
    "autoencoder_int8",
    "ds_cnn_int8",
    "lstm_fused_f32",
    "lstm_while_f32",
    "mobilenet_v2_f32",
    "mobilenet_v2_int8",
    "mobilenet_v2_dynamic",
    "mobilenet_v3_small_int8",
    "bert_int8",
}
REAL = sorted(p.stem for p in (SHARED / "models" / "real").glob("*.tflite"))
WRONG_IN_LITERT = {"k_einsum_w8a16"}      # LiteRT answers zeros: tests/ops/test_batch_matmul.py has the numbers


def chosen(names: list[str], quick: set[str]) -> list[Any]:
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture(scope="module")
def checks(shared: Path) -> ModuleType:
    return load_module("check_models", shared / "tools" / "check_models.py")


def run(content: bytes, inputs: list[np.ndarray], **options: Any) -> tuple[Interpreter, list[np.ndarray]]:
    interpreter = Interpreter(model_content=content, **options)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), inputs):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return interpreter, [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]


@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("name", chosen(ARCHITECTURES, QUICK))
def test_architecture_agrees_with_litert(name: str, mode: str, models: ModuleType, checks: ModuleType) -> None:
    content, cases = models.load(name)
    kind = models.info(name)["type"]
    limit = checks.limit_of(kind)
    interpreter = Interpreter(
        model_content=content,
        experimental_op_resolver_type=(OpResolverType.AUTO if mode == "auto" else OpResolverType.BUILTIN_REF),
    )
    compared = 0
    for case in cases:
        want = case["default" if mode == "auto" else "ref"]
        if want is None:
            continue
        checks.feed(interpreter, case["inputs"])
        for got, expected, stride in zip(checks.outputs(interpreter), want, case["stride"]):
            result = checks.difference(models.subset(got, stride), expected)
            assert not isinstance(result, str), result
            assert result[2] <= limit, result
            compared += 1
    assert compared


@pytest.mark.parametrize("name", chosen(ARCHITECTURES, QUICK))
def test_every_way_gives_the_same_bits(name: str, models: ModuleType) -> None:
    content, cases = models.load(name)
    inputs = cases[0]["inputs"]
    _, want = run(content, inputs)
    for options in ({"fuse": False}, {"num_threads": 2}, {"num_threads": 2, "fuse": False}, {"num_threads": 3}):
        _, got = run(content, inputs, **options)
        for a, b in zip(got, want):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), options


@pytest.mark.usefixtures("bf16_cpu")
@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("lstm_while_f32", 0.03),
        ("mobilenet_v2_f32", 0.3),  # random weights: LiteRT itself has 0.15 with weights that are rounded
        pytest.param("bert_f32", 0.03, marks=pytest.mark.slow),
        pytest.param("unet_f32", 0.06, marks=pytest.mark.slow),
    ],
)
def test_bfloat16_is_near(name: str, limit: float, models: ModuleType, checks: ModuleType) -> None:
    content, cases = models.load(name)
    case = cases[0]
    interpreter, got = run(content, case["inputs"], precision="bfloat16")
    assert any(s.products == "bf16" for s in interpreter.plan.steps)
    for a, want, stride in zip(got, case["default"], case["stride"]):
        assert 1e-4 < checks.difference(models.subset(np.asarray(a), stride), want)[2] < limit
    _, again = run(content, case["inputs"], precision="bfloat16", num_threads=2, fuse=False)
    for a, b in zip(got, again):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("name", chosen(ARCHITECTURES, QUICK))
def test_arena_is_not_above_greedy_by_size(name: str, models: ModuleType) -> None:
    content, _ = models.load(name)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    plan = interpreter.plan
    buffers = list(plan.buffers.values())
    assert plan.arena_size <= greedy_by_size(buffers)
    assert plan.arena_size <= sum(aligned(b.size) for b in buffers)
    assert plan.summary() in str(plan)


@pytest.fixture(scope="module")
def real_index(shared: Path) -> dict[str, dict[str, Any]]:
    entries = json.loads((shared / "models" / "real" / "index.json").read_text())
    return {e["name"]: e for e in entries}


@pytest.mark.parametrize("name", chosen(REAL, {n for k, n in enumerate(REAL) if k % 4 == 0 or n.startswith("fail_")}))
def test_real_model_runs_or_says_why(name: str, shared: Path, real_index: dict[str, Any], checks: ModuleType) -> None:
    from litejit.errors import LiteJitError, UnsupportedOperators

    entry, root = real_index[name], str(shared / "models" / "real")
    limit = checks.limit_of(entry["name"] + " " + entry["what"], entry.get("types", ()))
    try:
        results = list(checks.run_real(entry, Interpreter, "auto", root))
    except UnsupportedOperators as error:
        assert error.operators and all(o in str(error) for o in error.operators)
    except LiteJitError as error:
        assert "not supported yet" in str(error), error
    else:
        assert results or entry["kind"] != "real"
        for result in results:
            assert not isinstance(result, str), result
            assert result[2] <= limit or name in WRONG_IN_LITERT, result
