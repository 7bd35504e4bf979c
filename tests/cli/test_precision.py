"""`--precision` of the commands."""
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litejit.cli import bench_command
from litejit.compiler.cpu import target
from litejit.demo import MODELS
from litejit.executor.peak import macs_a_round
from tests.cli.conftest import Litejit


@pytest.mark.usefixtures("bf16_cpu")
def test_plans_and_profiles_show_it(litejit: Litejit) -> None:
    plain, asked = (litejit("inspect", MODELS["float"], "--plan", *more) for more in ((), ("--precision", "bfloat16")))
    assert plain.code == asked.code == 0 and "conv_bf16" not in plain.out
    assert ", bfloat16\n" not in plain.out
    assert "conv_bf16" in asked.out and "product_bf16_row" in asked.out and ", bfloat16\n" in asked.out
    done = litejit("profile", MODELS["float"], "--precision", "bfloat16", "--repeat", 2)
    assert done.code == 0 and "conv_bf16" in done.out and "GFLOP/s bfloat16" in done.out.splitlines()[-1]
    done = litejit("profile", MODELS["float"], "--repeat", 2)
    assert done.code == 0 and "bfloat16" not in done.out
    facts = json.loads(litejit("profile", MODELS["float"], "--precision", "bfloat16", "--repeat", 2, "--json").out)
    assert {s["type"] for s in facts["steps"] if s["macs"]} == {"bf16"} and facts["peak"]["macs"]["bf16"] > 1e8


@pytest.mark.usefixtures("bf16_cpu")
def test_outputs_and_warm_starts(litejit: Litejit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def outputs(*arguments: object) -> np.ndarray:
        done = litejit("run", MODELS["float"], "--output", tmp_path, *arguments)
        assert done.code == 0, done
        written, = tmp_path.glob("*.npy")
        return np.load(written)
    exact = outputs()
    store = ("--precision", "bfloat16", "--cache-dir", tmp_path / "store")
    assert litejit("warmup", MODELS["float"], *store).code == 0
    monkeypatch.setenv("LITEJIT_CACHE", "require")
    rough = outputs(*store)
    assert not np.array_equal(rough, exact) and np.abs(rough - exact).max() < 0.02


def test_peak_of_a_level(bf16_cpu: None) -> None:
    rounds = macs_a_round(target())
    assert rounds["bf16"] == 2 * rounds["f32"] and "bf16" not in macs_a_round(target()._replace(bf16=False))


@pytest.mark.parametrize("command", ["run", "bench", "profile", "warmup", "inspect"])
def test_other_precisions_are_refused(command: str, litejit: Litejit) -> None:
    done = litejit(command, MODELS["float"], "--precision", "float8")
    assert done.code == 2 and "'float8' is not one of 'float32', 'bfloat16'" in done.err


@pytest.mark.parametrize(("arguments", "runtimes"), [
    ((), ["litejit", "litert", "openvino"]),
    (("--precision", "bfloat16"), ["litejit_bf16", "litert", "openvino_default"]),
    (("--precision", "bfloat16", "--peers", "openvino"), ["litejit_bf16", "openvino"]),
    (("--precision", "bfloat16", "--peers", ""), ["litejit_bf16"])])
def test_peers_of_a_bench(arguments: tuple[str, ...], runtimes: list[str], litejit: Litejit,
                          monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(bench_command, "_model", lambda path, threads, runtimes, *_: asked.append(runtimes) or [])
    assert litejit("bench", MODELS["float"], *arguments).code == 0 and asked == [runtimes]


def test_a_bench(litejit: Litejit, tmp_path: Path) -> None:
    """In processes of their own, on the CPU as it is."""
    done = litejit("bench", MODELS["float"], "--precision", "bfloat16", "--peers", "", "--rounds", 1, "--seconds", 0.02,
                   "--no-cold", "--json", tmp_path / "all.json")
    assert done.code == 0 and "litejit_bf16" in done.out, done
    assert ("computes in float32" in done.err) == (not target().bf16)
    row, = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert list(row["runtimes"]) == ["litejit_bf16"] and os.path.basename(MODELS["float"]) == row["model"]
