"""Strided block copies: what is planned, and the kernels compiled and as Python, against NumPy."""
from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

from litejit.ops.base import Packed, Scratch, Step
from litejit.ops.copy import PIECE, Move, Part, apply, collapse, copy_steps, many_steps, strides, whole
from litejit.planner.graph import Node, PrepareError, Value
from tests.harness import LESSER, passes_as

TYPES = {1: ("u8", np.uint8), 2: ("i16", np.uint16), 4: ("f32", np.uint32), 8: ("i64", np.uint64),
         16: ("c128", np.complex128)}
NODE = Node("TRANSPOSE", None, 0, 0, [], [])
EXTENTS = [1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 65]


def value(array: np.ndarray) -> Value:
    return Value("v", 0, 0, TYPES[array.dtype.itemsize][0], array.shape)


def filled(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """`count` elements, and 64 readable bytes after them."""
    raw = rng.integers(0, 256, (count * size + 64) // size * size, np.uint8)
    return raw.view(TYPES[size][1]) if size < 16 else rng.random(count + 4).astype(np.complex128)


class Native:
    """Kernels compiled and called by address, chunk by chunk; `backwards`: the last one first."""

    def __init__(self, backwards: bool = False) -> None:
        self._order = -1 if backwards else 1
        self._loaded: dict[str, Any] = {}

    def __call__(self, step: Step, record: np.ndarray) -> None:
        if step.kernel.symbol not in self._loaded:
            from litejit.compiler.codegen import kernel_object
            from litejit.compiler.load import load_image, make_image

            library = load_image(make_image([kernel_object(step.kernel)], [step.kernel.symbol]))
            call = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64)
            self._loaded[step.kernel.symbol] = library, call(library.address(step.kernel.symbol))
        result, error = ctypes.c_int64(), ctypes.c_void_p()
        for c in range(step.chunks)[::self._order]:
            self._loaded[step.kernel.symbol][1](ctypes.byref(result), ctypes.byref(error), record.ctypes.data, c, c + 1)
            assert result.value == 0


def as_python(step: Step, record: np.ndarray) -> None:
    for c in range(step.chunks):
        assert step.kernel(record.view(np.recarray)[0], c, c + 1) == 0


native = Native()


def run(steps: list[Step], arrays: dict[Any, np.ndarray], how: Any = native) -> None:
    """Do the steps, one call per chunk; arrays: of the Values."""
    for step in steps:
        record, held = np.zeros(1, step.kernel.params), dict(arrays)
        for name, item in step.params.items():
            if isinstance(item, Packed):
                held[item] = np.concatenate([item.build().reshape(-1).view(np.uint8), np.zeros(64, np.uint8)])
            elif isinstance(item, Scratch):
                held[item] = np.zeros(item.nbytes, np.uint8)
            record[name][0] = 0 if item is None else held[item].ctypes.data if item in held else item
        how(step, record)


def copied(move: Move, x: np.ndarray, count: int, how: Any = native) -> tuple[Step, list[str]]:
    """The step of a Move, and which elements it leaves otherwise than the Move in NumPy, in its output or behind it."""
    size = x.dtype.itemsize
    want = np.full(count + 64, 7, x.dtype)
    apply(move, x, want[:count])
    got = np.full(count + 64, 7, x.dtype)
    a, b = value(x), value(got)
    steps = copy_steps(NODE, a, b, move, size)
    run(steps, {a: x, b: got}, how)
    wrong = np.flatnonzero(got != want)
    return steps[0], [f"{steps[0].kernel.name} of {size} bytes, {move}: elements {wrong}"] if wrong.size else []


def permutation(rng: np.random.Generator, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    while True:
        rank = int(rng.integers(1, 6))
        shape = tuple(int(n) for n in rng.choice(EXTENTS, rank))
        if np.prod(shape) <= most:
            return shape, tuple(int(k) for k in rng.permutation(rank))


def permuted(shape: tuple[int, ...], order: tuple[int, ...]) -> Move:
    steps = strides(shape)
    out = tuple(shape[k] for k in order)
    return Move(out, tuple(steps[k] for k in order), strides(out))


@pytest.mark.parametrize("size", TYPES)
def test_transposes_equal_numpy(rng, size):
    kernels = set()
    for _ in range(80):
        shape, order = permutation(rng, 100_000)
        count = int(np.prod(shape))
        x = filled(rng, count, size)
        step, wrong = copied(permuted(shape, order), x, count)
        assert wrong == []
        kernels.add(step.kernel.name)
        made = np.zeros(count, x.dtype)
        apply(permuted(shape, order), x, made)
        assert np.array_equal(made.reshape([shape[k] for k in order]), x[:count].reshape(shape).transpose(order))
    assert "copy_rows" in kernels and len(kernels) > 1


@pytest.mark.parametrize("size", TYPES)
def test_kernels_as_python(rng, size):
    for _ in range(12):
        shape, order = permutation(rng, 400)
        count = int(np.prod(shape))
        _, wrong = copied(permuted(shape, order), filled(rng, count, size), count, as_python)
        assert wrong == []


@pytest.mark.parametrize("size", TYPES)
@pytest.mark.parametrize("step", [-3, -1, 0, 2, 5])
def test_single_elements_at_any_stride(rng, size, step):
    for n in (1, 2, 15, 16, 17, 3000):
        x = filled(rng, 6 * n, size)
        _, wrong = copied(Move((n,), (step,), (1,), x_offset=3 * n if step < 0 else 0), x, n)
        assert wrong == []


@pytest.mark.parametrize("size", TYPES)
@pytest.mark.parametrize("how", [native, as_python], ids=["compiled", "python"])
def test_reversed_rows(rng, size, how):
    for n in EXTENTS if how is as_python else (*EXTENTS, 31, 32, 63, 64, 130, 20_000):
        shape, steps = (2, 3, n), strides((2, 3, n))
        x = filled(rng, 6 * n, size)
        step, wrong = copied(Move(shape, (*steps[:2], -1), steps, x_offset=n - 1), x, 6 * n, how)
        assert wrong == [] and (step.kernel.name == f"copy_reversed_{size}") == (n > 1 and size < 16)


def test_blocks_with_gaps_write_nothing_between(rng):
    for size in (1, 2, 4, 8):
        for rows, columns in ((3, 5), (2, 9), (7, 16), (12, 15), (9, 40), (16, 16), (70, 33), (300, 3), (5, 300)):
            x = filled(rng, rows * columns, size)
            for shape, steps in (((columns, rows), (1, columns)), ((rows, columns), (columns, 1))):
                pitch = shape[1] + 3
                _, wrong = copied(Move(shape, steps, (pitch, 1), y_offset=2), x, shape[0] * pitch + 2)
                assert wrong == []


@pytest.mark.parametrize("count", [1, 100, PIECE - 1, PIECE, PIECE + 1, 5 * PIECE + 13, 1 << 20])
def test_long_runs_are_cut_into_chunks(rng, count):
    x = filled(rng, count, 1)
    step, wrong = copied(whole((count,)), x, count)
    assert wrong == []
    assert step.chunks == min(16, -(-count // PIECE)) or count <= PIECE


def test_output_rows_that_share_a_cache_set(rng):
    x = filled(rng, 64 * 1024, 4)
    for rows in (1024, 512):
        step, wrong = copied(permuted((rows, 64), (1, 0)), x, rows * 64)
        assert wrong == [] and step.params["b1"] == 16
    step, wrong = copied(permuted((480, 64), (1, 0)), x, 480 * 64)
    assert wrong == [] and step.params["b1"] == 64


def test_blocks_that_share_cache_lines_follow_each_other(rng):
    """Output rows of 32 bytes: the next one along the same cache line comes from the next block of the dimension outside."""
    x = filled(rng, 8 * 64 * 64, 4)
    step, wrong = copied(permuted((8, 64, 64), (2, 1, 0)), x, 8 * 64 * 64)
    assert wrong == [] and [step.params[name] for name in ("n0", "n1", "n2", "b1")] == [8, 64, 64, 16]
    step, wrong = copied(permuted((40, 3, 100), (0, 2, 1)), x, 12_000)
    assert wrong == [] and [step.params[name] for name in ("n0", "n1", "n2", "rank")] == [3, 100, 40, 0]
    step, wrong = copied(permuted((2, 150, 100), (0, 2, 1)), x, 30_000)
    assert wrong == [] and [step.params[name] for name in ("n0", "n1", "n2", "rank")] == [150, 100, 1, 1]


def test_chunks_end_between_blocks_that_follow_each_other(rng):
    x = filled(rng, 600 * 7 * 50, 4)
    step, wrong = copied(permuted((600, 7, 50), (0, 2, 1)), x, 600 * 7 * 50)
    assert wrong == [] and step.chunks > 1


def test_dimensions_are_merged():
    assert collapse(whole((2, 3, 4, 5)), 4) == [(120, 4, 4)]
    assert collapse(permuted((2, 3, 4, 5), (0, 2, 1, 3)), 1) == [(2, 60, 60), (4, 5, 15), (3, 20, 5), (5, 1, 1)]
    assert collapse(Move((4, 5), (0, 0), (5, 1)), 2) == [(20, 0, 2)]
    assert collapse(Move((1, 1), (7, 3), (1, 1)), 2) == []


def test_too_many_dimensions():
    with pytest.raises(PrepareError, match="too many dimensions"):
        x = Value("x", 0, 0, "u8", ())
        shape = (2,) * 18
        copy_steps(NODE, x, x, Move(shape, tuple(3 * s for s in strides(shape)[::-1]), strides(shape)), 1)


def test_side_by_side(rng):
    for _ in range(60):
        count = int(rng.integers(1, 60))
        runs = [int(n) for n in rng.integers(0, 300, int(rng.integers(1, 11)))]
        tables = [filled(rng, count * n, 1)[:count * n].reshape(count, n) for n in runs]
        held = [np.concatenate([t.reshape(-1), np.zeros(64, np.uint8)]) for t in tables]
        total = sum(runs)
        out = np.zeros(count * total + 64, np.uint8)
        y, values = value(out), [value(t) for t in held]
        parts, at = [], 0
        for v, n in zip(values, runs):
            parts.append(Part(v, y, 0, at, n, total, n))
            at += n
        run(many_steps(NODE, parts, count), {y: out, **dict(zip(values, held))})
        assert np.array_equal(out[:count * total].reshape(count, total), np.concatenate(tables, 1))
        assert not out[count * total:].any()


@pytest.mark.parametrize("level", LESSER)
def test_other_cpus(level):
    """The same tests on code for lesser CPUs, in a process of their own."""
    code, text = passes_as(level, __file__, "transposes or any_stride or reversed or gaps or side_by_side")
    assert code == 0, text
