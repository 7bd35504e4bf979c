"""`litejit warmup` and `litejit cache`: filling the store, looking at it, emptying it."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Litejit, Said

ROOT = Path(__file__).resolve().parents[2]


def in_process(*arguments: object, **environment: str) -> Said:
    """The command in a process of its own, for which the user has no store."""
    done = subprocess.run([sys.executable, "-m", "litejit", *map(str, arguments)], cwd=ROOT, capture_output=True,
                          text=True, timeout=200, env={**os.environ, "XDG_CACHE_HOME": "/dev/null", **environment})
    return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


def test_after_warmup_nothing_is_compiled(adds: Path, store: str) -> None:
    missing = in_process("run", adds, LITEJIT_CACHE_DIR=store, LITEJIT_CACHE="require")
    assert missing.code == 1 and missing.err.startswith("Error: ") and "Traceback" not in missing.err
    warm = in_process("warmup", adds, LITEJIT_CACHE_DIR=store)
    assert warm.code == 0, warm.err
    assert warm.out.startswith("model ") and warm.err == ""
    assert "adds.tflite  1        1" in warm.out and f"store: {store}" in warm.out
    again = in_process("run", adds, LITEJIT_CACHE_DIR=store, LITEJIT_CACHE="require")
    assert again.code == 0, again.err
    assert in_process("run", adds, "--cache-dir", store, LITEJIT_CACHE="require").code == 0
    other_shape = in_process("run", adds, "--input-shape", "a=7,3", "--input-shape", "b=7,3",
                             LITEJIT_CACHE_DIR=store, LITEJIT_CACHE="require")
    assert other_shape.code == 0, other_shape.err


def test_warmup_does_what_it_can(litejit: Litejit, adds: Path, unservable: Path) -> None:
    done = litejit("warmup", unservable, adds)
    assert done.code == 1
    assert "adds.tflite" in done.out and "mystery.tflite" in done.err and "1 of 2 models" in done.err
    assert litejit("warmup", adds, "--input-shape", "a=2,3", "--input-shape", "b=2,3", "--mode", "ref").code == 0
    assert litejit("warmup").code == 2
    assert litejit("warmup", adds, "nope.tflite").code == 2


def test_cache(litejit: Litejit, adds: Path, store: str) -> None:
    def cache(*arguments: str) -> Said:
        return litejit("cache", *arguments, "--cache-dir", store)

    assert cache("ls").out == "0 entries, 0 B\n" and cache("verify").code == 0
    assert in_process("warmup", adds, "--cache-dir", store).code == 0     # a process keeps what it has loaded
    assert cache("path").out.splitlines() == [store]
    listed = cache("ls").out.splitlines()
    assert any("kind=kernel" in line for line in listed) and listed[-1].split()[0] == str(len(listed) - 1)
    keys = [line.split()[0] for line in cache("ls", "--long").out.splitlines()[:-1]]
    assert len(keys) == len(listed) - 1 and all(len(k) > 12 for k in keys)
    assert cache("verify").out == f"{len(keys)} entries, 0 damaged\n"

    key = next(k for k in keys if keys.count(k) == 1)           # the run-time system has an object and a library
    file = next(p for p in Path(store).rglob("*") if key in p.name)
    file.chmod(0o600)
    file.write_bytes(file.read_bytes()[:-100])
    damaged = cache("verify")
    assert damaged.code == 1 and str(file) in damaged.out and "1 damaged" in damaged.out
    assert "DAMAGED" in cache("ls").out

    assert cache("rm").code == 2 and cache("rm", key, "--all").code == 2
    assert cache("rm", key).out == "removed 1 entries\n"
    nothing = cache("rm", key)
    assert nothing.code == 1 and nothing.out == "removed 0 entries\n"
    assert cache("rm", "--all").out == f"removed {len(keys) - 1} entries\n"
    assert cache("ls").out == "0 entries, 0 B\n"


def test_cache_without_a_subcommand(litejit: Litejit) -> None:
    assert litejit("cache").code == 2
    assert os.environ["LITEJIT_CACHE_DIR"].split(os.pathsep)[0] in litejit("cache", "path").out
