"""Reductions against NumPy and, for codes, the oracles of LiteRT's arithmetic."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.ops.reduce_loops import geometry
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op, type_of

OPS = {"SUM": np.sum, "MEAN": np.mean, "REDUCE_MAX": np.max, "REDUCE_MIN": np.min, "REDUCE_PROD": np.prod}
CASES = [  # shape, axes
    ((5,), (0,)), ((2, 7), (1,)), ((2, 7), (0, 1)), ((3, 4, 33), (-1,)), ((2, 5, 6, 40), (1, 2)), ((2, 3, 17), (0, 0)),
    ((7, 300), (0,)), ((4, 5, 6), (0, 2)), ((2, 3, 2, 3, 2, 3, 2, 3), (0, 2, 4, 6)), ((2, 3, 2, 3, 2, 3, 2, 3), (1, 3, 5, 7)),
    ((1, 1, 1), (1,)), ((6, 1, 130), (2,)), ((3, 50, 3), (1,)), ((2, 9, 24), (1,)), ((4, 3), ()), ((9, 2, 700), (0,)),
]


def run(op, x, axes, keep=False, quant=None, out_quant=None, **arguments):
    return run_op(op, [In(x, quant), In(np.array(axes, np.int32), constant=True)], Out(type_of(x), out_quant or quant),
                  version=arguments.pop("version", 2), keep_dims=keep, **arguments)


def positive(axes, rank):
    return tuple(sorted({a % rank for a in axes}))


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_floats(rng, op, mode):
    for k, (shape, axes) in enumerate(CASES):
        x = rng.standard_normal(shape).astype(np.float32)
        want = OPS[op](x.astype(np.float64), axis=positive(axes, x.ndim), keepdims=bool(k % 2))
        got = run(op, x, axes, bool(k % 2), mode=mode, version=1)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_wrap(rng, op, dtype):
    info = np.iinfo(dtype)
    for shape, axes in CASES:
        x = rng.integers(info.min, info.max, shape, dtype) if op != "MEAN" else rng.integers(-1000, 1000, shape, dtype)
        axes_ = positive(axes, x.ndim)
        with np.errstate(over="ignore"):
            if op == "MEAN":
                total = x.sum(axis=axes_, dtype=np.int64)
                want = (np.sign(total) * (np.abs(total) // (x.size // total.size))).astype(dtype)
            else:
                want = np.asarray(OPS[op](x, axis=axes_), dtype) if op[0] == "R" and op[7] == "M" else np.asarray(
                    OPS[op](x, axis=axes_, dtype=dtype))
        np.testing.assert_array_equal(run(op, x, axes), want)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_sums_and_means_of_codes(arithmetic, rng, dtype, mode):
    info = np.iinfo(dtype)
    for shape, axes in CASES:
        x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        zi, zo = (0, 0) if dtype == np.int16 else rng.integers(info.min, info.max, 2).tolist()
        si, so = np.float32(rng.uniform(0.01, 0.1)), np.float32(rng.uniform(0.01, 0.1))
        axes_ = positive(axes, x.ndim)
        xnn = mode == "auto" and dtype != np.int16 and x.ndim <= 6 and len(axes) > 0
        for op in ("MEAN", "SUM"):
            given = (x, axes_, (si, zi), (so, zo), False)
            if xnn:
                want = arithmetic.mean_xnn(*given, compute_sum=op == "SUM")
            elif op == "MEAN":
                want = arithmetic.mean_int(*given)
            elif dtype == np.int16 or (dtype == np.int8 and mode == "auto"):
                want = arithmetic.sum_int_opt(*given)
            else:
                want = arithmetic.sum_int_ref(*given)
            got = run(op, x, axes, False, Quant([si], [zi]), Quant([so], [zo]), mode=mode)
            np.testing.assert_array_equal(got, want, f"{op} {shape} {axes}")


@pytest.mark.parametrize("op", ["SUM", "MEAN"])
def test_long_sums_of_int16(arithmetic, op, rng):
    """The most codes whose sum fits 32 bits, and one more; sums of sums that wrap would have the other sign."""
    oracle = {"SUM": arithmetic.sum_int_opt, "MEAN": arithmetic.mean_int}[op]
    for shape, axes in (((3, 1 << 16), (1,)), ((2, (1 << 16) + 1), (1,)), ((2, 2, 2, 1 << 15), (0, 3)), ((2, 3, 40), (0, 2))):
        x = np.full(shape, -32768, np.int16)
        x[1] = rng.integers(32000, 32768, shape[1:])
        scales = np.float32(0.5), np.float32(20000 if op == "SUM" else 0.7)
        want = oracle(x, axes, (scales[0], 0), (scales[1], 0), False)
        got = run(op, x, axes, False, Quant([scales[0]], [0]), Quant([scales[1]], [0]))
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_products_of_codes(arithmetic, rng, dtype):
    info = np.iinfo(dtype)
    for shape, axes in CASES[:6]:
        x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        zi, zo = (0, 0) if dtype == np.int16 else (3, -7)
        si, so = np.float32(0.02 if dtype == np.int8 else 1e-4), np.float32(0.01)
        want = arithmetic.reduce_prod_int(x, positive(axes, x.ndim), (si, zi), (so, zo), False)
        got = run("REDUCE_PROD", x, axes, False, Quant([si], [zi]), Quant([so], [zo]))
        np.testing.assert_array_equal(got, want.reshape(got.shape))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_extremes_of_codes(rng, dtype):
    info = np.iinfo(dtype)
    for shape, axes in CASES:
        x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        for op in ("REDUCE_MAX", "REDUCE_MIN"):
            want = OPS[op](x, axis=positive(axes, x.ndim))
            np.testing.assert_array_equal(run(op, x, axes, False, Quant([0.1], [0])), want)


def test_logical(rng):
    for shape, axes in CASES:
        x = rng.random(shape) < 0.3
        axes_ = positive(axes, x.ndim)
        np.testing.assert_array_equal(run("REDUCE_ANY", x, axes, version=1), x.any(axis=axes_))
        np.testing.assert_array_equal(run("REDUCE_ALL", ~x, axes, version=1), (~x).all(axis=axes_))
        for op, want in (("SUM", x.any), ("REDUCE_MAX", x.any), ("REDUCE_PROD", x.all), ("REDUCE_MIN", x.all)):
            np.testing.assert_array_equal(run(op, x, axes), want(axis=axes_))


def test_not_numbers_are_passed_over():
    x = np.array([[1, np.nan, 3], [np.nan, 5, -np.inf], [-np.inf, -np.inf, -np.inf]], np.float32)
    for axes, given in (((1,), x), ((0,), x.T)):
        np.testing.assert_array_equal(run("REDUCE_MAX", given, axes, version=1), [3, 5, -np.inf])
        np.testing.assert_array_equal(run("REDUCE_MIN", -given, axes, version=1), [-3, -5, np.inf])
        big = np.finfo(np.float32).max
        np.testing.assert_array_equal(run("REDUCE_MAX", given, axes, version=1, mode="ref"), [3, 5, -big])


def test_nothing_to_reduce():
    x = np.zeros((2, 0, 3), np.float32)
    np.testing.assert_array_equal(run("SUM", x, (1,), version=1), np.zeros((2, 3)))
    np.testing.assert_array_equal(run("REDUCE_PROD", x, (1,)), np.ones((2, 3)))
    assert np.isnan(run("MEAN", x, (1,), version=1)).all()
    np.testing.assert_array_equal(run("MEAN", x.astype(np.int32), (1,)), np.zeros((2, 3)))
    np.testing.assert_array_equal(run("REDUCE_MAX", x.astype(np.int32), (1,)), np.full((2, 3), -(1 << 31)))
    assert run("SUM", x, (0,), version=1).shape == (0, 3)
    codes = x.astype(np.int8)
    np.testing.assert_array_equal(run("SUM", codes, (1,), False, Quant([0.1], [3]), Quant([0.1], [5])), np.full((2, 3), 5))
    np.testing.assert_array_equal(run("MEAN", codes, (1,), False, Quant([0.1], [3]), Quant([0.1], [5])), np.zeros((2, 3)))


def test_long_sums(rng):
    """More rows than 16 bits hold sums of, more columns than a block, and runs that leave every remainder."""
    for shape, axes in (((1000, 513), (0,)), ((700, 40), (0,)), ((3, 5000), (1,)), ((5, 100, 3), (1,))):
        x = rng.integers(-128, 128, shape, np.int8)
        x[0] = -128
        got = run("SUM", x, axes, False, Quant([1.0], [0]), Quant([500.0], [0]), mode="opt")
        np.testing.assert_array_equal(got, np.clip(np.rint(x.sum(axis=axes, dtype=np.int64) / 500), -128, 127))
    for n in (*range(1, 140), 255, 256, 257):
        x = rng.standard_normal((3, n)).astype(np.float32)
        np.testing.assert_allclose(run("SUM", x, (1,), version=1), x.sum(axis=1), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(run("REDUCE_MIN", x, (1,), version=1), x.min(axis=1))
        np.testing.assert_allclose(run("SUM", x, (0,), version=1), x.sum(axis=0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape, axes", [((64, 1000), (1,)), ((900, 640), (0,)), ((8, 30, 40, 24), (1, 2))])
def test_threads_and_steps_give_the_same_bits(rng, shape, axes):
    x = rng.standard_normal(shape).astype(np.float32)
    one = run("MEAN", x, axes, version=1)
    np.testing.assert_array_equal(run("MEAN", x, axes, version=1, num_threads=3), one)
    np.testing.assert_array_equal(run("MEAN", x, axes, version=1, fuse=False), one)


def test_half_precision(rng):
    x = rng.standard_normal((3, 40)).astype(np.float16)
    for op in ("SUM", "MEAN", "REDUCE_MAX", "REDUCE_MIN"):
        np.testing.assert_allclose(run(op, x, (1,)), OPS[op](x.astype(np.float64), axis=1), rtol=2e-3, atol=1e-3)


def test_constants_are_folded(rng):
    x = rng.integers(-50, 50, (3, 4)).astype(np.int32)
    for op in OPS:
        got = run_op(op, [In(x, constant=True), In(np.array([1], np.int32), constant=True)], Out("INT32"), version=2)
        np.testing.assert_array_equal(got, run(op, x, (1,)))


def test_geometry():
    found = geometry((2, 3, 1, 4, 5, 6), (1, 2, 4))
    assert found.kept == ((2, 360), (4, 30), (6, 1)) and found.reduced == ((3, 120), (5, 6)) and found.columns
    assert (found.outputs, found.depth) == (48, 15)
    assert geometry((1, 1), (0,)).kept == ((1, 0),)


@pytest.mark.parametrize("axes", [(2,), (-3,)])
def test_bad_axes(axes):
    with pytest.raises(LiteJitError, match="Invalid axis index"):
        run("SUM", np.zeros((2, 3), np.float32), axes, version=1)


def test_refusals():
    x = np.zeros((2, 3), np.int8)
    with pytest.raises(LiteJitError, match="equal quantisation"):
        run("REDUCE_MAX", x, (1,), False, Quant([0.1], [0]), Quant([0.2], [0]))
    with pytest.raises(LiteJitError, match="INT8 .*not supported by REDUCE_ANY"):
        run("REDUCE_ANY", x, (1,), version=1)
    with pytest.raises(LiteJitError, match="at most 8 dimensions"):
        run("SUM", np.zeros((1,) * 9, np.float32), (1,), version=1)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64, np.float16])
def test_neighbours_some_at_a_time(rng, dtype):
    """Types without vectors of their own: blocks of neighbouring outputs, and chunks that end within them."""
    for shape, axes in (((5, 300), (0,)), ((3, 40, 7), (1,)), ((2, 3, 260, 2), (1,)), ((2, 3, 129), (0,)), ((300, 700), (0,)),
                        ((4, 6, 5, 3), (0, 2)), ((900, 5), (1,)), ((3, 1, 1), (1,))):
        x = rng.integers(-9, 10, shape).astype(dtype)
        for op, twin in (("SUM", np.sum), ("REDUCE_MAX", np.max), ("REDUCE_MIN", np.min)):
            want = twin(x.astype(np.int64), axis=axes).astype(dtype)
            for threads in (1, 3):
                got = run_op(op, [In(x), In(np.array(axes, np.int32), constant=True)], Out(type_of(x)), num_threads=threads)
                np.testing.assert_array_equal(got, want)
