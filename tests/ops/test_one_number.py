"""float32 arithmetic of rows with one number each, against NumPy: the operators, and the micro-kernels in place."""
import numpy as np
import pytest

from litejit.compiler import kernel
from litejit.ops.simd.one_number import FORMULAS, one_number
from tests.harness import LESSER, Out, compiled, passes_as, run_op

WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 12, 15, 16, 17, 31, 33, 64, 70, 500)
NUMPY = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide,
         "MAXIMUM": lambda a, b: np.where(a > b, a, b), "MINIMUM": lambda a, b: np.where(a < b, a, b),
         "SQUARED_DIFFERENCE": lambda a, b: (a - b) * (a - b)}
SPECIAL = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-30], np.float32)
CALL = np.dtype([("by", "i8"), ("of", "i8"), ("c", "i8"), ("rows", "i8"), ("n", "i8")], align=True)
_by, _of = one_number("SUB", False), one_number("DIV", True)


@kernel(CALL, name="test_one_number")
def call(p, begin, end):
    """Both in place, clamped."""
    _by(p.by, p.n, p.c, 1, p.by, p.rows, p.n, -1.0, 1.5)
    _of(p.of, p.n, p.c, 1, p.of, p.rows, p.n, -1.0, 1.5)
    return 0


def numbers(rng, shape):
    x = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape), x).astype(np.float32)


@pytest.mark.parametrize("op", FORMULAS)
def test_rows_of_operators(op, rng):
    for n in WIDTHS:
        for rows in ((90,), (3, 7), (5, 1, 4)):
            x, c = numbers(rng, (*rows, n)), numbers(rng, (*rows, 1))
            for a, b in ((x, c), (c, x), (x, c[:1])):
                with np.errstate(all="ignore"):
                    want = NUMPY[op](a, b)
                got = run_op(op, [a, b], Out(shape=want.shape))
                np.testing.assert_array_equal(got, want)
                np.testing.assert_array_equal(np.signbit(got)[want == 0], np.signbit(want)[want == 0])


def test_rows_that_chunks_cut(rng):
    for n, rows in ((15, 9000), (999, 70), (40_001, 2)):
        x, c = numbers(rng, (rows, n)), numbers(rng, (rows, 1))
        with np.errstate(all="ignore"):
            want, total = x - c, x + c
        for threads, fuse in ((1, True), (3, True), (2, False)):
            np.testing.assert_array_equal(run_op("SUB", [x, c], Out(shape=x.shape), num_threads=threads, fuse=fuse), want)
        np.testing.assert_array_equal(run_op("ADD", [x, c], Out(shape=x.shape), fused_activation_function="RELU6"),
                                      np.where(np.isnan(total), total, np.clip(total, 0, 6)))


@pytest.mark.parametrize("how", ["compiled", "python"])
def test_rows_in_place(rng, how):
    run = compiled(call) if how == "compiled" else lambda p: call(p.view(np.recarray)[0], 0, 1)
    for n in WIDTHS[:-1]:
        x, c, guard = numbers(rng, (7, n)), numbers(rng, (7, 1)), np.full(32, 9, np.float32)
        by, of = np.append(x, guard), np.append(x, guard)
        record = np.array([(by.ctypes.data, of.ctypes.data, c.ctypes.data, 7, n)], CALL)
        assert run(record) == 0
        with np.errstate(all="ignore"):
            both = (by, x - c), (of, c / x)
        for got, free in both:
            want = np.where(np.isnan(free), free, np.clip(free, -1, 1.5))
            np.testing.assert_array_equal(got[:-32].reshape(x.shape), want)
            np.testing.assert_array_equal(got[-32:], guard)


@pytest.mark.parametrize("level", LESSER)
def test_other_cpus(level):
    code, text = passes_as(level, __file__, "rows")
    assert code == 0, text
