"""The scripts of benchmarks/: the models that they make, and that each of them runs."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from litejit.compiler.cpu import target
from litejit.interpreter import Interpreter

HOST = target()
FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
OWN = [path.stem for path in FOLDER.glob("*.py")]
SCRIPTS = ("gemm_f32", "gemm_int8", "conv", "depthwise", "gemv", "functions", "data")
SMALL = {"mobilenet_v1_f32": 96, "mobilenet_v1_int8": 96, "mobilenet_v2_f32": 96, "mobilenet_v2_int8": 96,
         "resnet50_f32": 64, "resnet50_int8": 64, "unet_f32": 32, "bert_f32": 16, "autoencoder_int8": 64, "ds_cnn_int8": 20}
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="benchmarks are not part of an installation")


@pytest.fixture(scope="module")
def architectures() -> ModuleType:
    """benchmarks/models.py, whose neighbours do not stay importable."""
    before = {name: sys.modules.pop(name) for name in OWN if name in sys.modules}
    sys.path.insert(0, str(FOLDER))
    try:
        import models

        return models
    finally:
        sys.path.remove(str(FOLDER))
        for name in OWN:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def test_every_model_is_tested(architectures: ModuleType) -> None:
    assert SMALL.keys() == architectures.MODELS.keys()


def outputs(interpreter: Any, seed: int) -> list[np.ndarray]:
    """What the interpreter makes of random inputs: pixels, codes, or tokens and a mask."""
    rng = np.random.default_rng(seed)
    for detail in interpreter.get_input_details():
        kind = np.dtype(detail["dtype"])
        value = rng.uniform(-1, 1, detail["shape"]) if kind.kind == "f" else rng.integers(
            *((-128, 128) if kind == np.int8 else (0, 5)), detail["shape"])
        interpreter.set_tensor(detail["index"], value.astype(kind))
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize("name", SMALL)
def test_a_model_runs_and_litert_agrees(architectures: ModuleType, name: str) -> None:
    content = architectures.MODELS[name].build(SMALL[name])
    assert content == architectures.MODELS[name].build(SMALL[name])
    mine = Interpreter(model_content=content)
    mine.allocate_tensors()
    made = [outputs(mine, seed) for seed in (0, 1)]
    for y in made[0]:
        assert np.isfinite(y).all()
        assert y.std() > 0
    assert not np.array_equal(made[0][0], made[1][0])
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    peer = litert.Interpreter(model_content=content, num_threads=1)
    peer.allocate_tensors()
    for seed, mine_of_seed in enumerate(made):
        for y, want in zip(mine_of_seed, outputs(peer, seed)):
            most = 1 if y.dtype == np.int8 else 1e-4 * np.abs(want).max()
            assert np.abs(y.astype(np.float64) - want).max() <= most


def run(code: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parent)])}
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True,
                          timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_scripts_run() -> None:
    out = run("import importlib, json, sys\nfor name in sys.argv[1:]:\n"
              "    print('rows:', json.dumps(importlib.import_module(name).main(['--quick', '--no-litert'])))", *SCRIPTS)
    found = [json.loads(line[5:]) for line in out.splitlines() if line.startswith("rows:")]
    assert len(found) == len(SCRIPTS)
    for (label, kernel, microseconds, *_), in found:
        assert label in out
        assert kernel
        assert float(microseconds) >= 0                        # tiny ones vanish in what calling costs


def test_the_other_scripts_are_known() -> None:
    assert set(OWN) == {*SCRIPTS, "bfloat16", "common", "contention", "layers", "limits", "memory", "models", "serving",
                        "shapes", "store", "threads"}


@pytest.mark.skipif(HOST.vbytes < 64 or not HOST.dot, reason="loops for AVX-512 with its dot product")
def test_limits_run() -> None:
    out = run("import json, limits\nprint('rows:', json.dumps(limits.main(['--quick'])))")
    rows = json.loads(out[out.index("rows:") + 5:])
    assert len(rows) == 15
    for label, products, cycles, _ in rows:
        assert label in out
        assert int(products) > 0
        assert int(cycles) > 0


def test_models_are_written(tmp_path: Path) -> None:
    out = run("import sys, models\nmodels.main(sys.argv[1:])", "ds_cnn_int8", "--out", str(tmp_path / "made"))
    path, = (tmp_path / "made").iterdir()
    assert path.name == "ds_cnn_int8.tflite"
    assert str(path) in out
    Interpreter(model_path=str(path)).allocate_tensors()


def test_an_unknown_model_is_refused(architectures: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        architectures.main(["resnet", "--out", str(tmp_path)])
    assert "no such model: resnet; there are mobilenet_v1_f32" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_and_contention_run(tmp_path: Path, architectures: ModuleType) -> None:
    path = tmp_path / "small.tflite"
    path.write_bytes(architectures.MODELS["ds_cnn_int8"].build(20))
    row = run("import sys, memory\nmemory.main(sys.argv[1:])", str(path)).splitlines()[1].split()
    assert row[0] == "small"
    assert 10 < float(row[2]) < 1000                           # megabytes of a process with NumPy
    if len(os.sched_getaffinity(0)) > 1:
        lines = run("import sys, contention\ncontention.main(sys.argv[1:])", str(path), "--seconds", "0.05").splitlines()
        assert lines[1].split()[:2] == ["small", "litejit"]
        assert all(float(cell) > 0 for cell in lines[1].split()[2:])
