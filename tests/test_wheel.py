"""The wheel: pure Python, holds real folders, runs outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = list(folder.glob("*.whl"))
    assert len(found) == 1
    return found[0]


def test_contents(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in (
        "litejit/ops/table.py",
        "litejit/ops/simd/vec.py",
        "litejit/planner/arena.py",
        "litejit/py.typed",
        "litejit/demo/digits_int8.tflite",
        "litejit/demo/digits.npz",
        "litejit/cli/__init__.py",
    ):
        assert name in names
    top = {n.split("/")[0] for n in names}
    assert all(n == "litejit" or n.endswith(".dist-info") for n in top), top
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "litejit").rglob("*.py")}
    sources |= {f"litejit/{p.relative_to(ROOT)}" for room in ("ops", "planner") for p in (ROOT / room).rglob("*.py")}
    assert sources == {n for n in names if n.endswith(".py")}


def test_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    script = (
        "import litejit.interpreter as t, litejit, numpy as np; from litejit.demo import MODELS\n"
        "i = t.Interpreter(str(MODELS['int8'])); i.allocate_tensors(); i.invoke()\n"
        "print(litejit.__file__, i.get_output_details()[0]['shape'].tolist())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert str(site) in done.stdout and "[1, 10]" in done.stdout
