"""What planner/pieces.py relies on: kernels write nothing around their outputs, and need no alignment but that of elements."""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from litejit.executor.runner import Runner
from litejit.ops.base import Scratch
from litejit.ops.table import TABLE
from litejit.planner import make
from litejit.planner.arena import aligned
from tests.conftest import load_module
from tests.test_conformance import failures

GUARD = 256  # bytes between buffers, of which the half next to them is looked at
SAMPLE = 4


@pytest.fixture
def written_around(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Tensors that something was written around, as guards tell that lie before and behind each.

    They share no memory, and begin one element behind an aligned address.
    """
    lifetimes, run, items, written = make.lifetimes, Runner.run, [], []

    def remembered(program: Any) -> Any:
        found = lifetimes(program)
        items[:] = found
        return found

    def apart(buffers: list[Any]) -> tuple[list[int], int]:
        offsets, at = [], GUARD
        for item, buffer in zip(items, buffers):
            offsets.append(at + (0 if isinstance(item, Scratch) else item.itemsize))
            at += aligned(buffer.size) + 64 + GUARD
        return offsets, at

    def watched(runner: Runner) -> None:
        guards = [g for item in runner.plan.buffers if not isinstance(item, Scratch) for g in around(runner, item)]
        for k, (_, guard) in enumerate(guards):
            guard[:] = pattern(k, guard.size)
        run(runner)
        written.extend(item for k, (item, guard) in enumerate(guards) if not np.array_equal(guard, pattern(k, guard.size)))

    monkeypatch.setattr(make, "lifetimes", remembered)
    monkeypatch.setattr(make, "assign", apart)
    monkeypatch.setattr(Runner, "run", watched)
    return written


def around(runner: Runner, item: Any) -> list[tuple[Any, np.ndarray]]:
    """Memory in front of and behind a tensor."""
    first = runner.plan.offsets[item]
    last = first + item.nbytes
    return [(item, runner.arena[first - GUARD // 2 : first]), (item, runner.arena[last : last + GUARD // 2])]


def pattern(k: int, size: int) -> np.ndarray:
    return (np.arange(size) * 7 + k).astype(np.uint8)


@pytest.fixture(scope="module")
def conformance(shared: Path) -> ModuleType:
    return load_module("litejit_conformance", shared / "tools" / "conformance.py")


@pytest.mark.parametrize("op", sorted(TABLE))
def test_sample(op: str, conformance: ModuleType, shared: Path, written_around: list[Any]) -> None:
    folder = str(shared / "conformance")
    cases = conformance.index(folder, op)
    failed = failures(conformance, folder, op, random.Random(op).sample(cases, min(SAMPLE, len(cases))), "auto")
    assert failed == [], "\n".join(failed)
    assert written_around == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("op", sorted(TABLE))
def test_all(op: str, mode: str, conformance: ModuleType, shared: Path, written_around: list[Any]) -> None:
    folder = str(shared / "conformance")
    failed = failures(conformance, folder, op, conformance.index(folder, op), mode)
    assert failed == [], "\n".join(failed)
    assert written_around == []
