"""CUMSUM against NumPy."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from tests.harness import In, Out, run_op, type_of


def twin(x, axis, exclusive, reverse):
    y = np.flip(x, axis) if reverse else x
    y = np.cumsum(y, axis, dtype=x.dtype)
    if exclusive:
        y = np.roll(y, 1, axis)
        y[(slice(None),) * (axis % x.ndim) + (slice(1),)] = 0
    return np.flip(y, axis) if reverse else y


def run(x, axis, constant=True, **options):
    return run_op("CUMSUM", [x, In(np.array(axis, np.int32), constant=constant)], Out(type_of(x)), **options)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int64])
@pytest.mark.parametrize("constant", [True, False])
def test_running_sums(rng, dtype, constant):
    for shape, axis in (((9,), 0), ((3, 5), -1), ((4, 3, 7), 1), ((6, 300), 0), ((2, 700), 1), ((0, 3), 0), ((40, 5, 90), 0)):
        x = rng.integers(-99, 99, shape).astype(dtype)
        for exclusive in (False, True):
            for reverse in (False, True):
                got = run(x, axis, constant, exclusive=exclusive, reverse=reverse)
                np.testing.assert_array_equal(got, twin(x, axis, exclusive, reverse))


def test_wraps():
    x = np.full(4, (1 << 31) - 1, np.int32)
    np.testing.assert_array_equal(run(x, 0), np.cumsum(x, dtype=np.int32))


def test_errors():
    x = np.zeros((2, 3), np.float32)
    for constant in (True, False):
        with pytest.raises(LiteJitError, match="Invalid axis value"):
            run(x, 2, constant)
    with pytest.raises(LiteJitError, match="INT16 .*not supported"):
        run(x.astype(np.int16), 0)
