"""LiteRT's recorded cases, operator by operator: a seeded sample in every run, all of them with `pytest -m slow`.

Cases of later work (shapes known only while running, sparse tensors, strings) have to fail with a clear text.
"""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import load_module

from litejit.interpreter import Interpreter, OpResolverType
from litejit.ops.table import TABLE

SAMPLE = 5  # cases per operator and mode
MODES = {
    "auto": OpResolverType.AUTO,
    "ref": OpResolverType.BUILTIN_REF,
    "nodelegate": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}
GOOD = ("pass", "off1", "skip")


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


def check(conformance: ModuleType, folder: str, op: str, cases: list[dict[str, Any]], mode: str) -> None:
    failed = []
    for case in cases:
        status, text, reply = run(conformance, folder, op, case, mode)
        if later(case):
            if reply[0] == "error" and not reply[2].strip():
                failed.append(f"{case['name']}: an error without a text")
        elif status not in GOOD:
            failed.append(f"{case['name']}: {status} {text}")
    assert len(failed) <= len(cases) // 100, "\n".join(failed)


@pytest.mark.parametrize("op", sorted(TABLE))
def test_sample(op: str, shared: Path, conformance: ModuleType) -> None:
    folder = str(shared / "conformance")
    cases = conformance.index(folder, op)
    seeded = random.Random(op)
    check(conformance, folder, op, seeded.sample(cases, min(SAMPLE, len(cases))), "auto")
    check(conformance, folder, op, seeded.sample(cases, min(SAMPLE, len(cases))), "ref")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("op", sorted(TABLE))
def test_all(op: str, mode: str, shared: Path, conformance: ModuleType) -> None:
    folder = str(shared / "conformance")
    check(conformance, folder, op, conformance.index(folder, op), mode)
