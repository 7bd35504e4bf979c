"""`litejit demo`: digits in the terminal."""
from __future__ import annotations

import re

import pytest

from tests.cli.conftest import Litejit


@pytest.mark.parametrize("model", ["int8", "float"])
def test_demo(model: str, litejit: Litejit) -> None:
    done = litejit("demo", "--model", model, "--seed", 3, "--count", 4)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert len(lines) == 8 + 1 + 1 + 2 and all("█" in line or "▓" in line for line in lines[2:6])
    assert len(re.findall(r"\d \(\d+ %\)", lines[8])) == 4
    share = re.search(r"(\d) of 4 right; over all 360 unseen digits ([\d.]+) %", done.out)
    assert share is not None and float(share[2]) > 95
    assert ("entries compiled" in lines[-1] or "all code from the store" in lines[-1]) and "a run" in lines[-1]


def test_usage(litejit: Litejit) -> None:
    assert litejit("demo", "--count", 0).code == 2
    assert litejit("demo", "--model", "double").code == 2
