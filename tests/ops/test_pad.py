"""PAD's steps against NumPy: lines in whole registers, which must not reach behind what a chunk writes."""
from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from litejit.compiler.cpu import executable
from litejit.ops import pad
from litejit.ops.pad import Border, Line, border_step, pad_steps, padded
from litejit.ops.simd.moves import spaced_reach
from litejit.planner.graph import Node, Value
from tests.ops.test_copy import Native, as_python, run

GUARD, SHORT = 64, {1: "u8", 2: "i16", 4: "f32", 8: "i64"}
native = Native(backwards=True)


def check(x: np.ndarray, pads: list[tuple[int, int]], how=native) -> int:
    """Chunks of the step that pads x; the last one runs first, so that what reaches into another one stays to be seen."""
    item = x.dtype.type(77)
    want = np.pad(x, pads, constant_values=item)
    source = np.concatenate([x.reshape(-1), np.zeros(GUARD, x.dtype)])
    got = np.full(want.size + GUARD, 3, x.dtype)
    values = [Value("v", 0, 0, SHORT[x.itemsize], a.shape) for a in (source, got, np.zeros(64))]
    given = Value("x", 0, 0, SHORT[x.itemsize], x.shape)
    steps = pad_steps(Node("PAD", None, 0, 0, [given], []), *values[:2], pads, values[2])
    run(steps, dict(zip(values, (source, got, np.full(64 // x.itemsize, item)))), how)
    assert np.array_equal(got[:want.size].reshape(padded(x.shape, pads)), want), (x.shape, pads, x.dtype)
    assert (got[want.size:] == 3).all()
    return sum(step.chunks for step in steps)


def some_pads(rng: np.random.Generator, rank: int) -> list[tuple[int, int]]:
    most = rng.choice([0, 1, 3, 40], rank, p=[0.4, 0.3, 0.2, 0.1])
    return [(int(rng.integers(0, n + 1)), int(rng.integers(0, n + 1))) for n in most]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_any_padding(rng, dtype):
    for _ in range(150):
        rank = int(rng.integers(1, 6))
        x = rng.integers(0, 256, rng.choice([1, 2, 3, 5, 15, 16, 33], rank)[:4]).astype(dtype)
        check(x, some_pads(rng, x.ndim))


@pytest.mark.parametrize("shape", [(90_000, 3), (20_000, 15), (5000, 70), (300, 2000), (40, 5000)])
def test_chunks_keep_to_themselves(rng, shape):
    x = rng.integers(0, 256, shape).astype("u1")
    for pads in ([(0, 0), (0, 1)], [(2, 1), (7, 90)], [(5000, 300), (1, 0)]):
        assert check(x, pads) > 1


def test_nothing_inside(rng):
    check(np.zeros((3, 0, 4), "u2"), [(0, 1), (2, 3), (1, 0)])
    check(np.zeros((3, 4, 0), "u2"), [(0, 1), (2, 3), (1, 2)])


def test_kernel_as_python(rng):
    for _ in range(20):
        x = rng.integers(0, 256, rng.choice([1, 2, 3, 5, 15], 3)).astype("u2")
        check(x, some_pads(rng, 3), as_python)


def test_what_may_be_written_in_whole_registers():
    assert spaced_reach(15, 1) == 16 and spaced_reach(3, 20) == 32 and spaced_reach(100, 5) == 64
    node, at = Node("PAD", None, 0, 0, [], []), Value("v", 0, 0, "u8", ())
    exact = [border_step(node, at, at, at, [Border(0, 9, 0, n * run)], Line(0, n, run, run, 1)).params["exact"]
             for n, run in ((1, 15), (1, 3), (2, 15), (1, 5000))]
    assert exact == [1, 4, -1, -1]
    assert pad.LONG < 5000


@pytest.mark.parametrize("level", [cpu.name for cpu in executable()][1:])
def test_other_cpus(level):
    """The same tests on code for lesser CPUs, in a process of their own."""
    if "LITEJIT_TARGET" in os.environ:
        pytest.skip("runs for a chosen target already")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__, "-k", "any or chunks"]
    done = subprocess.run(command, env={**os.environ, "LITEJIT_TARGET": level}, capture_output=True, text=True,
                          timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
