"""AVERAGE_POOL_2D and MAX_POOL_2D against a twin, codes also against the oracle."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op, type_of
from tests.twins.pooling import pool

OPS = {"max": "MAX_POOL_2D", "average": "AVERAGE_POOL_2D"}
CASES = [  # shape, filter, stride, padding
    ((1, 8, 10, 64), (2, 2), (2, 2), "VALID"), ((1, 9, 7, 20), (3, 3), (1, 1), "SAME"),
    ((2, 9, 9, 33), (3, 3), (2, 2), "SAME"), ((1, 7, 7, 130), (7, 7), (1, 1), "VALID"),
    ((1, 12, 5, 3), (5, 2), (3, 1), "SAME"), ((3, 6, 6, 1), (2, 3), (1, 2), "VALID"), ((1, 5, 5, 7), (9, 9), (1, 1), "SAME"),
    ((1, 4, 4, 5), (1, 1), (2, 2), "VALID"), ((1, 3, 90, 17), (3, 4), (1, 1), "SAME"),
    ((2, 5, 60, 3), (3, 3), (1, 1), "SAME"), ((1, 4, 33, 2), (2, 2), (2, 1), "VALID"),
    ((2, 9, 41, 1), (3, 3), (2, 2), "SAME"), ((1, 9, 50, 2), (2, 3), (3, 4), "VALID"), ((1, 8, 37, 3), (3, 2), (1, 2), "SAME"),
]


def options(filter, stride, padding, act="NONE"):
    return {"filter_height": filter[0], "filter_width": filter[1], "stride_h": stride[0], "stride_w": stride[1],
            "padding": padding, "fused_activation_function": act}


def run(what, x, case, quant=None, act="NONE", **arguments):
    return run_op(OPS[what], [In(x, quant)], Out(type_of(x), quant), version=2,
                  **options(*case, act), **arguments)


@pytest.mark.parametrize("what", OPS)
@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_floats(rng, what, mode):
    for shape, *case in CASES:
        x = rng.standard_normal(shape).astype(np.float32)
        want = pool(x, what, *case)
        np.testing.assert_allclose(run(what, x, case, mode=mode), want, rtol=1e-5, atol=1e-6)
        got = run(what, x, case, act="RELU_N1_TO_1", mode=mode)
        np.testing.assert_allclose(got, np.clip(want, -1, 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("what", OPS)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_codes(arithmetic, rng, what, dtype):
    info = np.iinfo(dtype)
    for k, (shape, *case) in enumerate(CASES):
        zero = 0 if dtype == np.int16 else int(rng.integers(info.min, info.max))
        quant = Quant([0.04], [zero])
        x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        act = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")[k % 4]
        want = pool(x, what, *case)
        low, high = arithmetic.act_range(act, np.float32(0.04), zero, dtype)
        for mode in ("auto", "ref"):
            np.testing.assert_array_equal(run(what, x, case, quant, act, mode=mode), np.clip(want, low, high))


def test_sums_of_extreme_codes(rng):
    """Every sum of a 3x3 window at the corners of the range is divided exactly."""
    for dtype in (np.int8, np.uint8, np.int16):
        info = np.iinfo(dtype)
        x = np.full((1, 3, 3, 600), info.max, dtype)
        x[:, :, :, :300] = info.min
        x[0, rng.integers(0, 3, 600), rng.integers(0, 3, 600), np.arange(600)] ^= rng.integers(0, 16, 600).astype(dtype)
        case = ((3, 3), (1, 1), "VALID")
        np.testing.assert_array_equal(run("average", x, case, Quant([1.0], [0])), pool(x, "average", *case))


def test_windows_side_by_side_are_one_row(rng):
    """Windows a pixel apart, inside of the image: a row of elements, with other floats between them than in other rows."""
    x = rng.standard_normal((1, 7, 40, 5)).astype(np.float32)
    x[0, 3, 20, 2], x[0, 5, 0] = np.nan, np.inf
    for what in OPS:
        got = run(what, x, ((3, 3), (1, 1), "SAME"))
        want = run(what, np.concatenate([x, x], 3), ((3, 3), (1, 1), "SAME"))
        np.testing.assert_array_equal(got, want[..., :5])


def test_windows_of_few_channels_are_picked(rng):
    """Windows two pixels apart: of one channel they are made at every pixel, of many only where they are wanted."""
    x = rng.standard_normal((1, 7, 40, 1)).astype(np.float32)
    x[0, 3, 20], x[0, 5, 0], x[0, 2, 39], x[0, 0, 4] = np.nan, np.inf, np.nan, -np.inf
    for what in OPS:
        for mode in ("auto", "ref"):
            case = ((3, 3), (2, 2), "SAME")
            got, want = run(what, x, case, mode=mode), run(what, np.repeat(x, 70, 3), case, mode=mode)
            np.testing.assert_array_equal(got, want[..., :1])
            np.testing.assert_array_equal(run(what, x, case, mode=mode, num_threads=3, fuse=False), got)


def test_not_numbers():
    """XNNPACK makes the lower bound of NaN; the reference kernels pass it over in a maximum and keep it in an average."""
    x = np.ones((1, 2, 4, 1), np.float32)
    x[0, 0, 0, 0], x[0, 0, 3, 0], x[0, 1, 2, 0] = np.nan, np.nan, np.inf
    case = ((2, 2), (2, 2), "VALID")
    big = np.finfo(np.float32).max
    np.testing.assert_array_equal(run("max", x, case).ravel(), [-np.inf, np.inf])
    np.testing.assert_array_equal(run("max", x, case, mode="ref").ravel(), [1, big])
    np.testing.assert_array_equal(run("average", x, case).ravel(), [-np.inf, -np.inf])
    np.testing.assert_array_equal(run("average", x, case, mode="ref").ravel(), [np.nan, np.nan])


def test_half_precision(rng):
    x = rng.standard_normal((1, 6, 6, 21)).astype(np.float16)
    for what in OPS:
        for case in (((2, 2), (2, 2), "VALID"), ((5, 5), (1, 1), "SAME")):
            np.testing.assert_allclose(run(what, x, case), pool(x, what, *case), rtol=2e-3, atol=1e-3)


def test_threads_and_steps_give_the_same_bits(rng):
    x = rng.standard_normal((2, 64, 64, 32)).astype(np.float32)
    case = ((3, 3), (1, 1), "SAME")
    one = run("average", x, case)
    np.testing.assert_array_equal(run("average", x, case, num_threads=3), one)
    np.testing.assert_array_equal(run("average", x, case, fuse=False), one)


@pytest.mark.parametrize("change, text", [
    ({"stride_w": 0}, "stride_height > 0"), ({"filter_width": 0}, "at least 1x1"),
    ({"filter_height": 9, "padding": "VALID"}, "does not fit")])
def test_errors(change, text):
    given = {**options((2, 2), (2, 2), "SAME"), **change}
    with pytest.raises(LiteJitError, match=text):
        run_op("MAX_POOL_2D", [np.zeros((1, 4, 4, 2), np.float32)], **given)


def test_wrong_tensors():
    with pytest.raises(LiteJitError, match=r"NumDimensions\(input\) != 4"):
        run_op("MAX_POOL_2D", [np.zeros((4, 4, 2), np.float32)], **options((2, 2), (2, 2), "SAME"))
    with pytest.raises(LiteJitError, match="input->type != output->type"):
        run_op("MAX_POOL_2D", [np.zeros((1, 4, 4, 2), np.float32)], Out("INT8"), **options((2, 2), (2, 2), "SAME"))
    with pytest.raises(LiteJitError, match="INT32 .*not supported"):
        run_op("MAX_POOL_2D", [np.zeros((1, 4, 4, 2), np.int32)], Out("INT32"), **options((2, 2), (2, 2), "SAME"))
