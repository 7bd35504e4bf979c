"""LiteRT's recorded cases, operator by operator: a seeded sample in every run, all of them with `pytest -m slow`.

Cases of later work (shapes known only while running, sparse tensors, strings) have to fail with a clear text.
"""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from litejit.interpreter import Interpreter, OpResolverType
from litejit.ops.table import TABLE
from tests.conftest import load_module

SAMPLE = 5  # cases per operator and mode
MODES = {
    "auto": OpResolverType.AUTO,
    "ref": OpResolverType.BUILTIN_REF,
    "nodelegate": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}
GOOD = ("pass", "off1", "skip")
I64_BIAS = "LiteRT reads the int32 bias as int64, past its end"
ROW_START = "LiteRT rounds the start of a packed row down to a whole byte, and reads the row before"
EXPLAINED = {                             # LiteRT is wrong here; docs/differences.md
    ("CONV_2D", "hybrid_i2_channel_plain"): "LiteRT's expected values are up to 1e35",
    ("CONV_2D", "hybrid_i2_channel_pointwise"): "LiteRT's expected values are up to 1e28",
    ("CONV_2D", "i16_b32_plain"): I64_BIAS,
    ("TRANSPOSE_CONV", "i16_b32_1x2x2x4_17x3x3x4_s_2_2_same_none"): I64_BIAS,
    ("TRANSPOSE_CONV", "i16_b32_1x3x3x17_9x4x4x17_s_2_2_same_none"): I64_BIAS,
    ("TRANSPOSE_CONV", "i16_b32_1x3x4x3_5x3x3x3_s_1_1_same_none"): I64_BIAS,
    ("TRANSPOSE_CONV", "i16_b32_1x3x4x3_5x3x3x3_s_2_2_same_none_2"): I64_BIAS,
    ("EMBEDDING_LOOKUP", "hybrid_i2_channel_5x3_4"): ROW_START,
    ("EMBEDDING_LOOKUP", "hybrid_i2_channel_7x2x3_4"): ROW_START,
    ("EMBEDDING_LOOKUP", "hybrid_i4_channel_5x3_4"): ROW_START,
    ("PRELU", "i16"): "LiteRT reads the int16 slopes as bytes",
    ("BATCH_MATMUL", "hybrid_2x1x2x3x4_1x2x2x3x4_adjy"): "LiteRT's reference kernel scales with another row's scale",
    ("BATCH_MATMUL", "hybrid_2x1x2x3x4_1x2x2x4x3"): "LiteRT's reference kernel scales with another row's scale",
    ("BATCH_MATMUL", "hybrid_2x1x2x4x3_1x2x2x4x3_adjx_asymmetric"): "LiteRT's reference kernel scales with another row's scale",
}


@pytest.fixture(scope="module")
def conformance(shared: Path) -> ModuleType:
    return load_module("litejit_conformance", shared / "tools" / "conformance.py")


def later(case: dict[str, Any]) -> bool:
    """Left for later work."""
    return bool({"dynamic", "sparse"} & set(case["tags"])) or "str" in case["dtype"]


def run(conformance: ModuleType, folder: str, op: str, case: dict[str, Any], mode: str) -> tuple[str, str, Any]:
    model, data = conformance.load(folder, op, case["name"])
    inputs = conformance.arrays(data, "in", case)
    options = {"experimental_op_resolver_type": MODES[case.get("resolver", mode)]}
    try:
        reply = ("ok", conformance.run_case(Interpreter, model, case, inputs, options), "")
    except (ValueError, RuntimeError) as error:
        reply = ("error", type(error).__name__, str(error))
    status, _, _, text = conformance.judge(case, data, reply, mode)
    return status, text, reply


def failures(conformance: ModuleType, folder: str, op: str, cases: list[dict[str, Any]], mode: str) -> list[str]:
    """What is wrong with the cases that are neither as recorded nor explained."""
    failed = []
    for case in cases:
        status, text, reply = run(conformance, folder, op, case, mode)
        if later(case):
            if reply[0] == "error" and not reply[2].strip():
                failed.append(f"{mode} {case['name']}: an error without a text")
        elif status not in GOOD and (op, case["name"]) not in EXPLAINED:
            failed.append(f"{mode} {case['name']}: {status} {text}")
    return failed


@pytest.mark.parametrize("op", sorted(TABLE))
def test_sample(op: str, shared: Path, conformance: ModuleType) -> None:
    folder, seeded = str(shared / "conformance"), random.Random(op)
    cases = conformance.index(folder, op)
    failed = [text for mode in ("auto", "ref")
              for text in failures(conformance, folder, op, seeded.sample(cases, min(SAMPLE, len(cases))), mode)]
    assert failed == [], "\n".join(failed)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("op", sorted(TABLE))
def test_all(op: str, mode: str, shared: Path, conformance: ModuleType) -> None:
    folder = str(shared / "conformance")
    failed = failures(conformance, folder, op, conformance.index(folder, op), mode)
    assert failed == [], "\n".join(failed)
