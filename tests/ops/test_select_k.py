"""ARG_MAX, ARG_MIN and TOPK_V2 against NumPy."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from tests.harness import In, Out, run_op, type_of

SHAPES = [((7,), 0), ((3, 21), 1), ((2, 9), -2), ((2, 5, 6), 1), ((300, 2), 1), ((4, 33), -1), ((3, 100), 1), ((2, 5000), 1),
          ((1, 64), 1), ((1, 65), 1), ((5, 1), 1), ((40, 3), 1), ((9, 6), 1), ((3, 2050), 1)]


def arg(op, x, axis, out="INT32", **arguments):
    return run_op(op, [x, In(np.array(axis, np.int32), constant=True)], Out(out), output_type=out, **arguments)


def top(x, k, indices="INT32", version=1):
    return run_op("TOPK_V2", [x, In(np.array(k, np.int32), constant=True)], [Out(type_of(x)), Out(indices)], version=version)


def some(rng, shape, dtype):
    """Few different values, so that many are equal."""
    if dtype == np.float32:
        return rng.integers(-6, 6, shape).astype(np.float32) / 4
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    info = np.iinfo(dtype)
    return rng.choice(np.array([info.min, info.max, 0, 1, info.max - 1, info.min + 1], dtype), shape)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint8, np.int32, np.bool_])
def test_first_of_the_best(rng, dtype):
    for shape, axis in SHAPES:
        x = some(rng, shape, dtype)
        for out in ("INT32", "INT64"):
            np.testing.assert_array_equal(arg("ARG_MAX", x, axis, out), x.argmax(axis))
            np.testing.assert_array_equal(arg("ARG_MIN", x, axis, out), x.argmin(axis))


def test_all_different(rng):
    for shape, axis in SHAPES:
        x = rng.standard_normal(shape).astype(np.float32)
        np.testing.assert_array_equal(arg("ARG_MAX", x, axis), x.argmax(axis))
        np.testing.assert_array_equal(arg("ARG_MIN", x, axis), x.argmin(axis))


@pytest.mark.parametrize("width", [4, 7, 100, 2000])
def test_not_numbers_and_zeros(width):
    """A NaN wins only where it comes first; -0 equals 0."""
    rows = [[np.nan, 1, 3], [1, np.nan, 3], [-0.0, 0.0, -1], [0.0, -0.0, -1], [-np.inf, np.nan, -np.inf], [np.nan] * 3]
    x = np.array([row + [row[-1]] * (width - 3) for row in rows], np.float32)
    np.testing.assert_array_equal(arg("ARG_MAX", x, 1), [0, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(arg("ARG_MAX", np.ascontiguousarray(x.T), 0), [0, 2, 0, 0, 0, 0])
    np.testing.assert_array_equal(arg("ARG_MIN", x, 1), [0, 0, 2, 2, 0, 0])


def test_constant(rng):
    x = rng.integers(0, 9, (3, 4)).astype(np.int32)
    np.testing.assert_array_equal(arg("ARG_MAX", In(x, constant=True), 1), x.argmax(1))


def test_arg_errors():
    with pytest.raises(LiteJitError, match="Invalid axis value"):
        arg("ARG_MAX", np.zeros((2, 3), np.float32), 2)
    with pytest.raises(LiteJitError, match="over an empty axis"):
        arg("ARG_MAX", np.zeros((2, 0), np.float32), 1)
    with pytest.raises(LiteJitError, match="INT16 .*not supported"):
        arg("ARG_MAX", np.zeros((2, 3), np.int16), 1)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_top_k(rng, dtype):
    for shape in ((7,), (3, 10), (2, 3, 50), (2, 400)):
        x = some(rng, shape, dtype)
        order = np.argsort(-x.astype(np.float64) if dtype != np.int64 else ~x, axis=-1, kind="stable").astype(np.int32)
        for k in (0, 1, 3, shape[-1] // 2, shape[-1]):
            values, indices = top(x, k)
            np.testing.assert_array_equal(indices, order[..., :k])
            np.testing.assert_array_equal(values, np.take_along_axis(x, order[..., :k], -1))
    values, indices = top(x, 5, "INT16", 3)
    assert indices.dtype == np.int16
    np.testing.assert_array_equal(indices, order[..., :5])


def test_top_k_of_not_numbers():
    values, indices = top(np.array([np.nan, -np.inf, 2, -0.0, 0.0, np.nan], np.float32), 6)
    np.testing.assert_array_equal(indices, [2, 3, 4, 1, 0, 5])
    np.testing.assert_array_equal(values, [2, 0, 0, -np.inf, np.nan, np.nan])


def test_top_k_errors():
    with pytest.raises(LiteJitError, match="higher than the internal dimension"):
        top(np.zeros((2, 3), np.float32), 4)
    with pytest.raises(LiteJitError, match="must not be negative"):
        top(np.zeros((2, 3), np.float32), -1)


def test_threads_give_the_same(rng):
    x = some(rng, (5000, 30), np.float32)
    np.testing.assert_array_equal(arg("ARG_MAX", x, 1, num_threads=3), x.argmax(1))
    np.testing.assert_array_equal(arg("ARG_MIN", x, 0, num_threads=3, fuse=False), x.argmin(0))
