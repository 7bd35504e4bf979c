"""Chains of operators on 8-bit codes become a table, whose codes are those of the chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder, Quant
from tests.harness import MODES

NUMPY = {"INT8": np.int8, "UINT8": np.uint8, "FLOAT32": np.float32}
NEGATED = ["DEQUANTIZE", "NEG", "QUANTIZE"]
CHAINS = {
    "negated": NEGATED,
    "root": ["DEQUANTIZE", "SQRT", "QUANTIZE"],
    "exact floats": ["DEQUANTIZE", "ABS", "SQUARE", "FLOOR", "RELU6", "QUANTIZE"],
    "tables": ["LOGISTIC", "TANH", "HARD_SWISH"],
    "both": ["HARD_SWISH", "DEQUANTIZE", "NEG", "QUANTIZE", "LEAKY_RELU"],
    "rescaled": ["QUANTIZE", "QUANTIZE"],
    "activations": ["RELU", "GELU", "RELU6"],
}
ALL = np.tile(np.arange(256, dtype=np.uint8), 3)[:701]


def model(ops: list[str], type: str, also: int = -1) -> bytes:
    """also: number of an operator whose result is an output too."""
    builder = ModelBuilder()
    g = builder.subgraph()
    rng = np.random.default_rng(len(ops))
    x = g.input("x", ALL.shape, type, Quant(0.05, 3))
    made, kind = [], type
    for i, op in enumerate(ops):
        kind = "FLOAT32" if op == "DEQUANTIZE" else type if op == "QUANTIZE" else kind
        quant = None
        if kind != "FLOAT32":
            fixed = op in ("LOGISTIC", "TANH")
            scale = {"LOGISTIC": 1 / 256, "TANH": 1 / 128}.get(op, float(rng.uniform(0.03, 0.08)))
            low = -128 if kind == "INT8" else 0
            zero = low + (0 if op == "LOGISTIC" else 128) if fixed else int(rng.integers(low + 100, low + 140))
            quant = Quant(scale, zero)
        options: dict[str, Any] = {"alpha": 0.2} if op == "LEAKY_RELU" else {}
        x = g.add(op, [x], (f"y{i}", ALL.shape, kind, quant), **options)
        made.append(x)
    g.outputs(*([made[also]] if also >= 0 else []), x)
    return bytes(builder.build())


def run(content: bytes, type: str, threads: int = 1, mode: str = "auto") -> tuple[np.ndarray, Any]:
    interpreter = Interpreter(model_content=content, num_threads=threads, experimental_op_resolver_type=MODES[mode])
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], ALL.view(NUMPY[type]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[-1]["index"]), interpreter.plan


@pytest.mark.parametrize("type", ["INT8", "UINT8"])
@pytest.mark.parametrize("mode", ["auto", "opt"])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_is_one_lookup(chain: str, mode: str, type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = model(CHAINS[chain], type)
    got, plan = run(content, type, mode=mode)
    assert len(plan.steps) == 1 and len(plan.fused) == 1 and "UNARY_CHAIN" in plan.fused[0]
    assert np.array_equal(run(content, type, threads=3, mode=mode)[0], got)
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "unary_chain")
    want, plan = run(content, type, mode=mode)
    assert not plan.fused and len(plan.steps) == len(CHAINS[chain])
    assert got.dtype == NUMPY[type] and np.array_equal(got, want) and len(np.unique(got)) > 2


PAIRS = {  # operators with the names of their inputs, x or the number of an operator
    "swish": [("LOGISTIC", "x"), ("MUL", "x0")],
    "sum": [("TANH", "x"), ("ADD", "0x"), ("TANH", "1")],
    "difference": [("HARD_SWISH", "x"), ("TANH", "0"), ("SUB", "1x")],
    "square": [("MUL", "xx"), ("LOGISTIC", "0")],
    "third power": [("MUL", "xx"), ("MUL", "0x")],
    "twice": [("ADD", "xx"), ("ADD", "00")],
}


def pairs_model(ops: list[tuple[str, str]], type: str, activation: str = "RELU6") -> bytes:
    builder = ModelBuilder()
    g = builder.subgraph()
    low = -128 if type == "INT8" else 0
    known = {"x": g.input("x", ALL.shape, type, Quant(0.05, low + 131))}
    for i, (op, names) in enumerate(ops):
        scale, zero = {"LOGISTIC": (1 / 256, 0), "TANH": (1 / 128, 128)}.get(op, (0.05 / (i + 2), 100 + i))
        options: dict[str, Any] = {"fused_activation_function": activation} if len(names) > 1 else {}
        quant = Quant(scale, low + zero)
        known[str(i)] = g.add(op, [known[name] for name in names], (f"y{i}", ALL.shape, type, quant), **options)
    g.outputs(known[str(len(ops) - 1)])
    return bytes(builder.build())


@pytest.mark.parametrize("type", ["INT8", "UINT8"])
@pytest.mark.parametrize("activation", ["NONE", "RELU6"])
@pytest.mark.parametrize("ops", PAIRS.values(), ids=PAIRS)
def test_sums_and_products_with_the_input(ops: Any, activation: str, type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = pairs_model(ops, type, activation)
    got, plan = run(content, type)
    assert len(plan.steps) == len(plan.fused) == 1
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "unary_chain")
    want, plan = run(content, type)
    assert len(plan.steps) == len(ops) and np.array_equal(got, want) and len(np.unique(got)) > 2


def test_products_that_are_no_chain() -> None:
    """Two branches, and the arithmetic of LiteRT's own kernels."""
    branches = pairs_model([("LOGISTIC", "x"), ("TANH", "x"), ("MUL", "01")], "INT8")
    for content, mode in ((branches, "auto"), (pairs_model(PAIRS["swish"], "INT8"), "opt")):
        _, plan = run(content, "INT8", mode=mode)
        assert not plan.fused


@pytest.mark.parametrize(
    ("ops", "fused"),
    [
        (["TANH"], 0),
        (["DEQUANTIZE", "TANH", "QUANTIZE"], 0),
        (["DEQUANTIZE", "NEG"], 0),
        (["LOGISTIC", "SQRT"], 0),
        (["LOGISTIC", "TANH", "DEQUANTIZE", "NEG"], 1),
    ],
)
def test_what_is_no_chain(ops: list[str], fused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One operator, floats that NumPy computes in another way, no codes at the end, an operator that refuses codes."""
    _, plan = run(model(ops, "INT8"), "INT8")
    assert len(plan.fused) == fused and len(plan.steps) == len(ops) - fused


def test_values_that_others_read_are_kept() -> None:
    _, plan = run(model(NEGATED, "INT8", also=1), "INT8")
    assert not plan.fused
    _, plan = run(model(["TANH", "LOGISTIC", "ELU"], "INT8", also=0), "INT8")
    assert len(plan.fused) == 1 and len(plan.steps) == 2


def test_reference_kernels_are_left_alone() -> None:
    _, plan = run(model(NEGATED, "INT8"), "INT8", mode="ref")
    assert not plan.fused
