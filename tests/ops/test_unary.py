"""Elementwise operators of one input on floats and plain integers."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.ops import activation, unary
from litejit.ops.simd.functions import FORMULAS, stream
from tests.harness import In, Out, run_op, type_of
from tests.twins import unary as twin

OPERATORS = {**unary.OPERATORS, **activation.OPERATORS}
HALVES = {"float16": ("ABS", "NEG", "EXP", "SIN", "FLOOR", "ROUND", "RELU6", "LOGISTIC", "TANH", "GELU", "ELU"),
          "bfloat16": ("NEG", "FLOOR", "ROUND", "LOGISTIC", "TANH")}
SPECIAL = [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-30, -1e-30, 0.5, -0.5, 1.5, 2.5, -2.5]


def options(op):
    return {"alpha": 0.25} if op == "LEAKY_RELU" else {}


def run(op, x, mode="auto", **more):
    return run_op(op, [x], Out(type_of(x), shape=x.shape), mode=mode, **options(op), **more)


def sweep():
    """Floats of all magnitudes and signs, without denormals."""
    bits = np.arange(0x00800000, 0x7F800000, 60013, dtype=np.uint32)
    x = bits.view(np.float32)
    return np.concatenate([x, -x, np.linspace(-12, 12, 5001, dtype=np.float32)])


@pytest.mark.parametrize("op", twin.FLOAT)
def test_all_magnitudes(op):
    """Every number on its own is within 1e-5 of its result, not only the largest."""
    x = sweep()
    with np.errstate(all="ignore"):
        want = twin.FLOAT[op](x.astype(np.float64)).astype(np.float32)
    got = run(op, x)
    if op in twin.EXACT:
        np.testing.assert_array_equal(got, want)
        return
    finite = np.isfinite(want)
    np.testing.assert_array_equal(got[~finite], want[~finite])
    floor = {"SIN": 2e-7, "COS": 2e-7, "HARD_SWISH": 2e-7}.get(op, 1.7e-38)       # absolute, where results cancel
    wrong = np.abs(got.astype(np.float64) - want)[finite] > 1e-5 * np.abs(want[finite]) + floor
    assert not wrong.any(), f"{x[finite][wrong][:5]} -> {got[finite][wrong][:5]}, not {want[finite][wrong][:5]}"


@pytest.mark.parametrize("op", twin.FLOAT)
def test_special_numbers(op):
    x = np.array(SPECIAL * 3, np.float32)
    with np.errstate(all="ignore"):
        want = twin.FLOAT[op](x.astype(np.float64)).astype(np.float32)
    for mode in ("auto", "ref"):
        np.testing.assert_allclose(run(op, x, mode), want, rtol=1e-5, atol=1.7e-38, equal_nan=True)


def test_trigonometry_of_large_arguments(rng):
    x = (np.exp(rng.uniform(np.log(8192), 88, 3000)) * rng.choice([-1, 1], 3000)).astype(np.float32)
    for op in ("SIN", "COS"):
        np.testing.assert_allclose(run(op, x), twin.FLOAT[op](x.astype(np.float64)), rtol=0, atol=2e-7)


def test_gelu_by_tanh(rng):
    x = rng.normal(0, 3, 1000).astype(np.float32)
    got = run_op("GELU", [x], Out(shape=x.shape), approximate=True)
    np.testing.assert_allclose(got, twin.gelu_tanh(x.astype(np.float64)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype,op", [(d, op) for d, ops in HALVES.items() for op in ops])
def test_half_types(dtype, op, rng):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(dtype) if dtype == "float16" else np.dtype(ml_dtypes.bfloat16)
    x = rng.normal(0, 3, (3, 41)).astype(dtype)
    want = twin.FLOAT[op](x.astype(np.float64)).astype(np.float32).astype(dtype).astype(np.float64)
    got = run(op, x).astype(np.float64)
    assert (np.abs(got - want) <= np.abs(want) * 2.0 ** (-10 if dtype == np.float16 else -7) + 1e-7).all()


def test_integers_wrap():
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        x = np.array([np.iinfo(dtype).min, -1, 0, 1, np.iinfo(dtype).max], dtype)
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(run("NEG", x), -x)
            if dtype in (np.int16, np.int32):
                np.testing.assert_array_equal(run("ABS", x), np.abs(x))
    np.testing.assert_array_equal(run("SIGN", np.array([-5, 0, 7], np.int32)), [-1, 0, 1])
    np.testing.assert_array_equal(run("SIGN", np.array([-5, 0, np.nan, 7])), [-1, 0, np.nan, 1])


@pytest.mark.parametrize("op", ["EXP", "NEG", "RELU6", "SQRT", "FLOOR", "TANH"])
def test_constants_give_the_same(op, rng):
    x = np.abs(rng.normal(0, 3, (4, 9))).astype(np.float32)
    folded = run_op(op, [In(x, constant=True)], Out(shape=x.shape))
    np.testing.assert_allclose(folded, run(op, x), rtol=1e-6)


@pytest.mark.parametrize("op", ["TANH", "SIN"])
def test_threads_and_sizes_give_the_same(op, rng):
    for n in (1, 15, 16, 17, 16384, 100_003):
        x = rng.normal(0, 3, n).astype(np.float32)
        one = run(op, x)
        np.testing.assert_array_equal(run(op, x, num_threads=4), one)
        np.testing.assert_array_equal(run(op, x, fuse=False), one)
        np.testing.assert_array_equal(run(op, x[-7:])[-1:], one[-1:])


@pytest.mark.parametrize("op", ["SQUARE", "SIN", "HARD_SWISH", "LOGISTIC"])
def test_other_types_are_refused(op):
    with pytest.raises(LiteJitError, match="not supported"):
        run(op, np.zeros(3, np.int64))


def test_empty_and_scalar():
    assert run("EXP", np.zeros((0, 3), np.float32)).shape == (0, 3)
    np.testing.assert_allclose(run("EXP", np.float32(1).reshape(())), np.e, rtol=1e-6)


@pytest.mark.parametrize("op", ["SQRT", "RSQRT", "LOG", "EXP", "GELU"])
def test_special_numbers_among_others(op, rng):
    """Groups of vectors that hold one number out of the range of the fast formula, and rows of every length."""
    x = np.abs(rng.normal(0, 3, 1024)).astype(np.float32)
    x[5::97] = np.resize(np.array([*SPECIAL, 1e-40, 1e-35], np.float32), len(x[5::97]))
    with np.errstate(all="ignore"):
        want = twin.FLOAT[op](x.astype(np.float64)).astype(np.float32)
    got = run(op, x)
    if op == "SQRT":
        np.testing.assert_array_equal(got, want)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1.7e-38, equal_nan=True)
    for n in (*range(1, 40), 63, 64, 65, 129):
        np.testing.assert_array_equal(run(op, x[:n]), got[:n])


@pytest.mark.parametrize("op", ["LOG", "RSQRT", "SQRT"])
def test_results_do_not_depend_on_neighbours(op, rng):
    """Of groups with and without numbers that take a way of their own."""
    x = np.exp(rng.normal(0, 20, 256)).astype(np.float32)
    alone, mixed = run(op, x), x.copy()
    mixed[::7] = np.resize(np.array([0, -0.0, np.inf, np.nan, 1e-40, -1e-40, -1], np.float32), mixed[::7].size)
    kept = np.arange(256) % 7 != 0
    np.testing.assert_array_equal(run(op, mixed)[kept], alone[kept])


@pytest.mark.parametrize("op", sorted({name.upper() for name in FORMULAS} - {"GELU_TANH", "SWISH"}))
def test_vectors_agree_with_their_twin(op, rng):
    x, y = np.abs(rng.normal(0, 3, 33)).astype(np.float32), np.zeros(33, np.float32)
    stream(op.lower(), {**OPERATORS, **activation.FUSED}[op].formula)(x.ctypes.data, y.ctypes.data, 33)
    want = x * run("LOGISTIC", x) if op == "SWISH" else run(op, x)
    np.testing.assert_allclose(want, y, rtol=2e-6, atol=1e-7)
