"""PAD's steps against NumPy: lines in whole registers, which must not reach behind what a chunk writes."""
from __future__ import annotations

import numpy as np
import pytest

from litejit.ops import pad
from litejit.ops.pad import Border, Line, border_step, pad_steps, padded
from litejit.ops.simd.moves import spaced_reach
from litejit.planner.graph import Node, Value
from tests.harness import LESSER, passes_as
from tests.ops.test_copy import Native, as_python, run

GUARD, SHORT = 64, {1: "u8", 2: "i16", 4: "f32", 8: "i64"}
native = Native(backwards=True)


def made(x: np.ndarray, pads: list[tuple[int, int]], how=native) -> tuple[int, list[str]]:
    """(chunks of the steps that pad x, what they made wrong); the last one runs first, so that what reaches into another one
    stays to be seen."""
    item = x.dtype.type(77)
    want = np.pad(x, pads, constant_values=item)
    source = np.concatenate([x.reshape(-1), np.zeros(GUARD, x.dtype)])
    got = np.full(want.size + GUARD, 3, x.dtype)
    values = [Value("v", 0, 0, SHORT[x.itemsize], a.shape) for a in (source, got, np.zeros(64))]
    given = Value("x", 0, 0, SHORT[x.itemsize], x.shape)
    steps = pad_steps(Node("PAD", None, 0, 0, [given], []), *values[:2], pads, values[2])
    run(steps, dict(zip(values, (source, got, np.full(64 // x.itemsize, item)))), how)
    case, wrong = f"{x.dtype} {x.shape} with {pads}", []
    if not np.array_equal(got[:want.size].reshape(padded(x.shape, pads)), want):
        wrong.append(case)
    if not (got[want.size:] == 3).all():
        wrong.append(f"{case}: written behind the end")
    return sum(step.chunks for step in steps), wrong


def some_pads(rng: np.random.Generator, rank: int) -> list[tuple[int, int]]:
    most = rng.choice([0, 1, 3, 40], rank, p=[0.4, 0.3, 0.2, 0.1])
    return [(int(rng.integers(0, n + 1)), int(rng.integers(0, n + 1))) for n in most]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8"])
def test_any_padding(rng, dtype):
    for _ in range(150):
        rank = int(rng.integers(1, 6))
        x = rng.integers(0, 256, rng.choice([1, 2, 3, 5, 15, 16, 33], rank)[:4]).astype(dtype)
        assert made(x, some_pads(rng, x.ndim))[1] == []


@pytest.mark.parametrize("shape", [(90_000, 3), (20_000, 15), (5000, 70), (300, 2000), (40, 5000)])
def test_chunks_keep_to_themselves(rng, shape):
    x = rng.integers(0, 256, shape).astype("u1")
    for pads in ([(0, 0), (0, 1)], [(2, 1), (7, 90)], [(5000, 300), (1, 0)]):
        chunks, wrong = made(x, pads)
        assert chunks > 1 and wrong == []


def test_nothing_inside(rng):
    for shape, pads in (((3, 0, 4), [(0, 1), (2, 3), (1, 0)]), ((3, 4, 0), [(0, 1), (2, 3), (1, 2)])):
        assert made(np.zeros(shape, "u2"), pads)[1] == []


def test_kernel_as_python(rng):
    for _ in range(20):
        x = rng.integers(0, 256, rng.choice([1, 2, 3, 5, 15], 3)).astype("u2")
        assert made(x, some_pads(rng, 3), as_python)[1] == []


def test_what_may_be_written_in_whole_registers():
    assert spaced_reach(15, 1) == 16 and spaced_reach(3, 20) == 32 and spaced_reach(100, 5) == 64
    node, at = Node("PAD", None, 0, 0, [], []), Value("v", 0, 0, "u8", ())
    exact = [border_step(node, at, at, at, [Border(0, 9, 0, n * run)], Line(0, n, run, run, 1)).params["exact"]
             for n, run in ((1, 15), (1, 3), (2, 15), (1, 5000))]
    assert exact == [1, 4, -1, -1]
    assert pad.LONG < 5000


@pytest.mark.parametrize("level", LESSER)
def test_other_cpus(level):
    """The same tests on code for lesser CPUs, in a process of their own."""
    code, text = passes_as(level, __file__, "any or chunks")
    assert code == 0, text
