"""Hostile files: mutated and truncated models load and run, or raise ValueError/RuntimeError; nothing else.

Every case runs in a process of its own with limits: 10 seconds, and CAP bytes of address space on top of what the process has.
CI takes a sample; `pytest -m slow` runs 3,000.
"""

from __future__ import annotations

import os
import random
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and resource limits")

CAP = 2 << 30
SECONDS = 10
FINE, REFUSED, WRONG_EXCEPTION = 0, 3, 4


def seeds(shared: Path) -> list[bytes]:
    """Small models of many operators."""
    import zipfile

    found = [p.read_bytes() for p in sorted((shared / "models" / "real").glob("*.tflite")) if p.stat().st_size < 60_000]
    chosen = random.Random(7)
    for path in sorted((shared / "conformance").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            names = [n for n in archive.namelist() if n.endswith(".tflite")]
            found += [archive.read(n) for n in chosen.sample(names, min(3, len(names)))]
    return found


def mutate(content: bytes, rng: random.Random) -> bytes:
    """A damaged copy: cut short, bytes or words changed, or a piece moved."""
    data = bytearray(content)
    kind = rng.random()
    if kind < 0.15:
        return bytes(data[: rng.randrange(len(data))])
    if kind < 0.55:
        for _ in range(rng.choice((1, 1, 2, 4))):
            data[rng.randrange(len(data))] = rng.randrange(256)
    elif kind < 0.85:
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(0, max(len(data) - 4, 1)) & ~3
            word = rng.choice((0, 1, 2, 3, 4, 7, 8, 16, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, len(data)))
            data[at : at + 4] = struct.pack("<I", word)
    else:
        a, b, n = rng.randrange(len(data)), rng.randrange(len(data)), rng.randrange(1, 64)
        data[a : a + n] = data[b : b + n]
    return bytes(data)


def attempt(content: bytes) -> None:
    """What a program does with a model."""
    from litejit.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        dtype = np.dtype(detail["dtype"])
        if dtype.kind in "fiub":
            value = rng.integers(0, 3, detail["shape"]).astype(dtype)
            interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    for detail in interpreter.get_output_details():
        interpreter.get_tensor(detail["index"])


def child(content: bytes) -> int:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc/self/statm") else 1 << 20
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + CAP, used + CAP))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        attempt(content)
    except (ValueError, RuntimeError) as error:
        return REFUSED if str(error).strip() else WRONG_EXCEPTION
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return WRONG_EXCEPTION
    return FINE


def outcome(content: bytes) -> str:
    """ "fine", "refused" with an error of the right kind, or what else happened."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = child(content)
        finally:
            os._exit(code)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return {FINE: "fine", REFUSED: "refused"}.get(code, f"exit code {code}")
        time.sleep(0.002)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return f"no answer in {SECONDS} s"


@pytest.mark.parametrize("count", [150, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
def test_damaged_models_run_or_are_refused(count: int, shared: Path, tmp_path: Path) -> None:
    import litejit.compiler.codegen
    import litejit.executor.runner  # noqa: F401

    files, rng, found = seeds(shared), random.Random(20240229), set()
    for k in range(count):
        content = mutate(files[rng.randrange(len(files))], rng)
        what = outcome(content)
        if what not in ("fine", "refused"):
            path = tmp_path / f"case{k}.tflite"
            path.write_bytes(content)
            what = f"{path}: {what}"
        found.add(what)
    assert found == {"fine", "refused"}, "\n".join(sorted(found))
