"""Comparisons and logical operators."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op

RELATIONS = {"EQUAL": np.equal, "NOT_EQUAL": np.not_equal, "LESS": np.less, "LESS_EQUAL": np.less_equal,
             "GREATER": np.greater, "GREATER_EQUAL": np.greater_equal}
SHAPES = [((3, 50), (3, 50)), ((3, 50), (50,)), ((3, 1), (1, 50)), ((), (9,))]


def run(op, x, y, xq=None, yq=None, mode="auto"):
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    return run_op(op, [In(x, xq), In(y, yq)], Out("BOOL", shape=shape), mode=mode)


@pytest.mark.parametrize("op", RELATIONS)
def test_plain_numbers(op, rng):
    for dtype in (np.float32, np.float16, np.int16, np.int32, np.int64):
        for a, b in SHAPES:
            x, y = rng.integers(-3, 4, a).astype(dtype), rng.integers(-3, 4, b).astype(dtype)
            if x.dtype.kind == "f" and x.size > 5:
                x[rng.random(a) < 0.2] = np.nan
            got = run(op, x, y)
            assert got.dtype == bool
            np.testing.assert_array_equal(got, RELATIONS[op](x, y))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("op", RELATIONS)
def test_quantised(op, dtype, arithmetic, rng):
    info = np.iinfo(dtype)
    for scale in (0.5, 0.013, 2.0):
        zx, zy = (0, 0) if dtype == np.int16 else rng.integers(info.min, info.max + 1, 2).tolist()
        x = rng.integers(info.min, info.max, (5, 70), dtype, endpoint=True)
        y = rng.integers(info.min, info.max, (70,), dtype, endpoint=True)
        got = run(op, x, y, Quant([0.5], [zx]), Quant([scale], [zy]))
        want = arithmetic.compare_int(x, y, (0.5, zx), (scale, zy), RELATIONS[op])
        if dtype == np.int16 and "EQUAL" not in (op, op[4:]):
            want = RELATIONS[op](x, y)                            # LiteRT looks at the codes
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("op", RELATIONS)
def test_int16_close_to_each_other(op, mode, arithmetic, rng):
    """A fixed-point scale would cut off the bits that tell these apart; LiteRT's order has them, its equality has not."""
    x, y = rng.integers(-20, 20, (2, 300)).astype(np.int16)
    quant = 0.0005, 0
    want = arithmetic.compare_int(x, y, quant, quant, RELATIONS[op]) if op in ("EQUAL", "NOT_EQUAL") else RELATIONS[op](x, y)
    np.testing.assert_array_equal(run(op, x, y, *[Quant([quant[0]], [quant[1]])] * 2, mode=mode), want)


def test_bools(rng):
    x, y = rng.random((4, 33)) < 0.5, rng.random(33) < 0.5
    for op, function in (("EQUAL", np.equal), ("NOT_EQUAL", np.not_equal), ("LOGICAL_AND", np.logical_and),
                         ("LOGICAL_OR", np.logical_or)):
        np.testing.assert_array_equal(run(op, x, y), function(x, y))
        np.testing.assert_array_equal(run(op, y, x), function(y, x))
    np.testing.assert_array_equal(run_op("LOGICAL_NOT", [x], Out("BOOL", shape=x.shape)), ~x)


def test_constants_are_compared_while_planning():
    one, two = In(np.array([1, 2, 3], np.int32), constant=True), In(np.array([2, 2, 2], np.int32), constant=True)
    assert run_op("LESS", [one, two], Out("BOOL", shape=(3,))).tolist() == [True, False, False]
    flags = In(np.array([True, False]), constant=True)
    assert run_op("LOGICAL_NOT", [flags], Out("BOOL", shape=(2,))).tolist() == [False, True]


def test_refused():
    x = np.ones((2, 3), np.int8)
    with pytest.raises(LiteJitError, match="quantization parameters"):
        run("EQUAL", x, x)
    with pytest.raises(LiteJitError, match="is not supported by LESS"):
        run("LESS", x > 0, x > 0)
    with pytest.raises(LiteJitError, match="Logical ops only support bool type"):
        run("LOGICAL_AND", x, x)
    with pytest.raises(LiteJitError, match="are not broadcastable"):
        run_op("EQUAL", [np.ones(3, np.int32), np.ones(4, np.int32)], Out("BOOL", shape=(3,)))
