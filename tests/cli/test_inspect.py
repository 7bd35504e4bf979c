"""`litejit inspect`, `--help` and `--version`: quick, complete, without compiling anything."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from litejit import __version__
from litejit.demo import MODELS
from tests.cli.conftest import Litejit

ROOT = Path(__file__).resolve().parents[2]


def test_text(litejit: Litejit, adds: Path) -> None:
    done = litejit("inspect", adds, "--plan")
    assert done.code == 0
    for text in ("adds", "subgraph main: 1 operator, 3 tensors", "'a' float32[?x3]",
                 "signature 'serving_default': (left, right) -> (total)", "purpose (5 B)", "plan: 1 steps", "arena", "0 ADD"):
        assert text in done.out, text
    assert "0 ADD" not in litejit("inspect", adds).out


def test_json_has_everything(litejit: Litejit) -> None:
    done = litejit("inspect", MODELS["int8"], "--json")
    facts = json.loads(done.out)
    assert done.code == 0
    assert facts["bytes"] == MODELS["int8"].stat().st_size and facts["version"] == 3
    graph = facts["subgraphs"][0]
    assert graph["operators"] == {"CONV_2D": 2, "MAX_POOL_2D": 2, "FULLY_CONNECTED": 1, "RESHAPE": 1, "SOFTMAX": 1}
    assert graph["inputs"][0]["shape_signature"] == [-1, 8, 8, 1] and graph["inputs"][0]["type"] == "INT8"
    assert graph["inputs"][0]["quantization"]["zero_points"] == [-128]
    assert [n["op"] for n in graph["nodes"]][:2] == ["CONV_2D", "MAX_POOL_2D"]
    assert sum(t.get("constant_bytes", 0) for t in graph["tensors"]) > 6000
    assert facts["signatures"][0]["inputs"] == {"image": graph["inputs"][0]["index"]}
    plan = facts["plan"]
    assert len(plan["steps"]) == 6 and plan["arena_bytes"] > 0
    assert plan["macs"] == 8 * 8 * 9 * 16 + 4 * 4 * 9 * 16 * 32 + 128 * 10


def test_a_model_that_cannot_run_is_shown_and_says_why(litejit: Litejit, unservable: Path) -> None:
    done = litejit("inspect", unservable)
    assert done.code == 0 and "Mystery 1" in done.out and "no plan: " in done.out and "Unresolved: Mystery" in done.out
    assert "Mystery" in json.loads(litejit("inspect", unservable, "--json").out)["plan"]["error"]


def test_what_is_no_model(litejit: Litejit, tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(b"")
    done = litejit("inspect", tmp_path / "x.tflite")
    assert done.code == 1 and done.err.startswith("Error: ") and "Traceback" not in done.err
    assert litejit("inspect", tmp_path).code == 2
    assert litejit("inspect").code == 2


def test_compiles_and_imports_nothing_heavy(adds: Path) -> None:
    code = ("import sys\nfrom litejit.cli import main\n"
            f"main(['inspect', {str(adds)!r}, '--json'])\n"
            f"main(['inspect', {str(MODELS['float'])!r}, '--plan'])\n"
            "heavy = {'numba', 'llvmlite', 'rich', 'PIL', 'ml_dtypes'} & set(sys.modules)\n"
            "assert not heavy, heavy")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "LITEJIT_CACHE": "require"})
    assert done.returncode == 0, done.stderr


def test_help_and_version(litejit: Litejit) -> None:
    done = litejit("--help")
    assert done.code == 0
    for name in ("run", "inspect", "warmup", "demo", "cache"):
        assert name in done.out
        assert litejit(name, "-h").code == 0
    assert litejit("--version").out == f"litejit, version {__version__}\n"
    assert litejit().code == 2
    unknown = litejit("fly")
    assert unknown.code == 2 and "No such command 'fly'" in unknown.err


def test_module_can_be_run() -> None:
    done = subprocess.run([sys.executable, "-m", "litejit", "inspect", "nope.tflite"], cwd=ROOT, capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 2 and "does not exist" in done.stderr
