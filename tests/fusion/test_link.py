"""From plan to library: the fused function, its readable source, and processes that find everything compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = """
import sys
import numpy as np
from litejit.interpreter import Interpreter
interpreter = Interpreter(sys.argv[1], num_threads=int(sys.argv[2]), fuse=sys.argv[3] == "fused")
interpreter.allocate_tensors()
interpreter.set_tensor(0, np.arange(8, dtype=np.float32).reshape(2, 4))
interpreter.invoke()
print(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tobytes().hex())
print(" ".join(sorted(m for m in ("numba", "llvmlite", "click", "rich", "dataclasses") if m in sys.modules)))
print(interpreter._store.statistics.compiled)
"""


def model() -> bytes:
    builder = ModelBuilder()
    g = builder.subgraph("small")
    x = g.input("x", (2, 4))
    y = g.add("EXP", [g.add("NEG", [x], ("t", (2, 4)))], ("u", (2, 4)))
    g.outputs(g.add("ADD", [y, x], ("y", (2, 4))))
    return builder.build()


def run(path: Path, *arguments: str, **variables: str) -> list[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return [*done.stdout.split("\n")[:3], done.stderr]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "m.tflite"
    file.write_bytes(model())
    return file


@pytest.mark.skipif(sys.platform != "linux" or os.uname().machine != "x86_64", reason="dlopen path of x86-64 Linux")
@pytest.mark.parametrize("way", [("1", "fused"), ("2", "fused"), ("1", "loop")])
def test_second_process_compiles_nothing_and_imports_no_compiler(
    way: tuple[str, str], path: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    cold = run(path, *way, LITEJIT_CACHE_DIR=store)
    warm = run(path, *way, LITEJIT_CACHE_DIR=store, LITEJIT_CACHE="require")
    assert warm[0] == cold[0] and "numba" in cold[1]
    assert warm[1:] == ["", "0", ""]


def test_loader_of_other_platforms_gives_the_same_bits(path: Path) -> None:
    plain = run(path, "1", "fused")
    assert run(path, "1", "fused", LITEJIT_LOADER="llvm")[0] == plain[0]
    assert run(path, "2", "loop", LITEJIT_LOADER="llvm")[0] == plain[0]


def test_damaged_store_does_not_break_a_run(path: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    cold = run(path, "1", "fused", LITEJIT_CACHE_DIR=str(store))
    files = [p for p in store.rglob("*") if p.is_file() and p.stat().st_size]
    for k, file in enumerate(files):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 255
        file.write_bytes(bytes(data) if k % 2 else bytes(data[: len(data) // 3]))
    again = run(path, "1", "fused", LITEJIT_CACHE_DIR=str(store))
    assert again[0] == cold[0]


def test_store_that_cannot_be_written_does_not_break_a_run(path: Path) -> None:
    assert run(path, "1", "fused", LITEJIT_CACHE_DIR="/proc/nowhere")[0] == run(path, "1", "fused")[0]


def test_store_off(path: Path) -> None:
    assert run(path, "1", "fused", LITEJIT_CACHE="off")[0] == run(path, "1", "fused")[0]


def test_source_names_every_step() -> None:
    interpreter = Interpreter(model_content=model())
    interpreter.allocate_tensors()
    text = interpreter.source
    for part in ("def fused_small", "node 0 NEG", "node 1 EXP", "node 2 ADD", "float32[2x4]", "arena + "):
        assert part in text


def test_profile_adds_up() -> None:
    interpreter = Interpreter(model_content=model())
    interpreter.allocate_tensors()
    profile = interpreter.profile(5)
    assert len(profile.steps) == 3 and profile.seconds == pytest.approx(sum(s.seconds for s in profile.steps))
    assert "EXP" in str(profile)


def test_other_shapes_use_the_same_library() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    g.outputs(g.add("NEG", [g.input("x", (-1, 4))], ("y", (-1, 4))))
    interpreter = Interpreter(model_content=builder.build())
    libraries = set()
    for batch in (1, 5, 64):
        value = np.ones((batch, 4), np.float32)
        assert (interpreter.run(value)["y"] == -1).all()
        libraries.add(id(interpreter._main.runner.library))
    assert len(libraries) == 1
