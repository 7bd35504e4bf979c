"""`litejit bench`: rows, ratios, peers that are left out. Peers of paper stand for real ones; no time is judged."""
from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from litejit.cli import bench_command, bench_worker
from tests.cli.conftest import Litejit

QUICK = ("--rounds", 2, "--seconds", 0.02, "--no-cold")
PAPER = "from litejit.interpreter import Interpreter\n"
BROKEN = """
class Interpreter:
    def __init__(self, model_path, num_threads):
        print("a runtime that prints")
        raise RuntimeError("no such operator\\nand more")
"""
DYING = PAPER + """
import os
class Interpreter(Interpreter):
    def invoke(self):
        self.times = getattr(self, "times", 0) + 1
        os._exit(3) if self.times == 3 else super().invoke()
"""


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts a LiteRT of paper, litejit itself, before the installed one."""
    install(tmp_path, monkeypatch, PAPER)


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, package: str = "") -> None:
    made = folder / "peers" / "ai_edge_litert"
    made.mkdir(parents=True)
    (made / "__init__.py").write_text(package)
    (made / "interpreter.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(made.parent))


def test_rows_and_ratios(litejit: Litejit, adds: Path, tmp_path: Path, peer: None) -> None:
    done = litejit("bench", adds, "--peers", "litert", "--threads", "1,2", *QUICK, "--json", tmp_path / "all.json")
    assert done.code == 0 and done.err == "", done
    lines = done.out.splitlines()
    assert lines[0].split() == list(bench_command.HEAD) and len(lines) == 6
    assert lines[1].split()[:3] == ["adds.tflite", "1", "litejit"] and lines[2].split()[0] == "litert"
    assert lines[-1].startswith("geometric mean ") and lines[-1].endswith(" of 2 rows")
    facts = json.loads((tmp_path / "all.json").read_text())
    assert [row["threads"] for row in facts["rows"]] == [1, 2] and facts["rounds"] == 2
    for row in facts["rows"]:
        assert row["failed"] == {} and len(row["ratios"]) == 2 and row["fastest_peer"] == "litert"
        for figures in row["runtimes"].values():
            assert {"load", "compile", "cold", "first", "median", "p99", "memory", "version"} <= set(figures)
            assert figures["median"] <= figures["p99"] and figures["memory"] > 1e7
        assert row["runtimes"]["litejit"]["cold"] is None
    assert facts["geometric_mean"] == pytest.approx(np.sqrt(np.prod([row["ratio"] for row in facts["rows"]])))


def test_cold_is_with_an_empty_store(litejit: Litejit, adds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEJIT_CACHE_DIR", str(tmp_path / "untouched"))
    monkeypatch.setenv("LITEJIT_CACHE", "require")
    done = litejit("bench", adds, "--peers", "", "--rounds", 1, "--seconds", 0.02, "--json", tmp_path / "all.json")
    assert done.code == 0 and len(done.out.splitlines()) == 2, done
    facts = json.loads((tmp_path / "all.json").read_text())
    ours = facts["rows"][0]["runtimes"]["litejit"]
    assert ours["cold"] > 0 and ours["compile"] > 0 and facts["geometric_mean"] is None
    assert not (tmp_path / "untouched").exists()


@pytest.mark.parametrize(("text", "package", "why"), [
    (PAPER, "raise ModuleNotFoundError('none', name='ai_edge_litert')", "not installed (pip install ai-edge-litert)"),
    (BROKEN, "", "RuntimeError: no such operator"),
    ("import a_module_that_is_not_there", "", "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
    (DYING, "", "ended with code 3"),
])
def test_peers_that_cannot_serve_are_named(text: str, package: str, why: str, litejit: Litejit, adds: Path, tmp_path: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, text, package)
    done = litejit("bench", adds, "--peers", "litert", *QUICK)
    assert done.code == 0 and f"left out: {why}\n" in done.out and "geometric" not in done.out, done


def test_models_that_litejit_cannot_run(litejit: Litejit, adds: Path, unservable: Path, tmp_path: Path) -> None:
    (tmp_path / "garbage.tflite").write_bytes(b"garbage, and enough of it")
    done = litejit("bench", tmp_path / "garbage.tflite", unservable, adds, "--peers", "", *QUICK)
    assert done.code == 1 and "not a valid Flatbuffer" in done.err and "1 of 3 models" in done.err
    assert "mystery.tflite" in done.out and "left out: " in done.out and "adds.tflite" in done.out


@pytest.mark.parametrize(("arguments", "text"), [
    ([], "Missing argument"),
    (["nope.tflite"], "does not exist"),
    (["{adds}", "--peers", "fast"], "'fast' is not one of litert, openvino"),
    (["{adds}", "--threads", "1,x"], "is not a list of numbers of threads"),
    (["{adds}", "--threads", "0"], "is not a list of numbers of threads"),
    (["{adds}", "--rounds", "0"], "0 is not in the range"),
    (["{adds}", "--seconds", "0"], "is not in the range"),
])
def test_wrong_usage(arguments: list[str], text: str, litejit: Litejit, adds: Path) -> None:
    done = litejit("bench", *(a.format(adds=adds) for a in arguments))
    assert done.code == 2 and text in done.err.replace("\n", " ")


def test_a_turn() -> None:
    calls: list[int] = []
    found = bench_worker.turn(lambda: calls.append(1), 0.01)
    assert 0 < found["median"] <= found["p99"] and 3 <= found["runs"] <= len(calls)
    assert bench_worker.turn(lambda: None, 1e-9)["runs"] == 3
    assert 0 < bench_worker.memory() < 1 << 40


def test_texts() -> None:
    figures = {"load": 1.5, "cold": None, "compile": 0.0123, "first": 9.994e-4, "median": 123e-6, "p99": 1.5e-7, "memory": 5}
    row = {"model": "m.tflite", "threads": 1, "runtimes": {"litejit": figures}, "failed": {"litert": "so"}, "ratio": 0.5}
    ours, peer = bench_command.lines(row)
    assert ours.split() == ["m.tflite", "1", "litejit", "1.50", "s", "-", "12.3", "ms", "999", "us", "123", "us", "0.15", "us",
                            "5", "B", "0.50"]
    assert peer.split(maxsplit=1) == ["litert", "left out: so"]
    rows = [{"ratio": 0.5}, {"ratio": 2.0}, {}]
    assert bench_command.verdict(rows) == "geometric mean 1.00, worst 2.00, litejit is the fastest in 1 of 2 rows"


@pytest.mark.bench
@pytest.mark.skipif(any(importlib.util.find_spec(m) is None for m in ("ai_edge_litert", "openvino")),
                    reason="needs the bench extra")
def test_the_real_peers(litejit: Litejit, tmp_path: Path) -> None:
    from litejit.demo import MODELS

    done = litejit("bench", MODELS["float"], "--peers", "litert,openvino,openvino_default", *QUICK,
                   "--json", tmp_path / "all.json")
    row, = json.loads((tmp_path / "all.json").read_text())["rows"]
    assert done.code == 0 and row["failed"] == {} and len(row["runtimes"]) == 4
