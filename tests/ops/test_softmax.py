"""SOFTMAX, LOG_SOFTMAX, L2_NORMALIZATION."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.ops.simd.few_classes import MOST
from litejit.ops.softmax_table import exponentials
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op
from tests.twins import unary as twin

SHAPES = [(5,), (2, 9), (1, 17), (3, 1), (4, 33), (1, 2, 3, 64), (7, 1000), (900, 7), (0, 4)]
OUT = {"INT8": Quant(1 / 256, -128), "UINT8": Quant(1 / 256, 0), "INT16": Quant(1 / 32768, 0)}
NUMPY = {"INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16}


def codes(rng, shape, name):
    info = np.iinfo(NUMPY[name])
    return rng.integers(info.min, info.max + 1, shape).astype(NUMPY[name])


@pytest.mark.parametrize("beta", [1.0, 0.5, 3.0])
def test_softmax_of_floats(beta, rng):
    for shape in SHAPES:
        x = rng.normal(0, 4, shape).astype(np.float32)
        got = run_op("SOFTMAX", [x], Out(shape=shape), beta=beta)
        np.testing.assert_allclose(got, twin.softmax(x.astype(float), beta), rtol=0, atol=5e-7)
        np.testing.assert_array_equal(run_op("SOFTMAX", [x], Out(shape=shape), beta=beta, num_threads=3), got)


def test_softmax_of_special_rows():
    inf, nan = np.inf, np.nan
    x = np.array([[0, inf, 1], [nan, 0, 1], [-nan, 0, 1], [-inf, -inf, -inf], [-inf, 0, 0], [1e30, -1e30, 1e30]],
                 np.float32)
    want = [[nan] * 3, [nan] * 3, [nan] * 3, [nan] * 3, [0, 0.5, 0.5], [0.5, 0, 0.5]]
    np.testing.assert_allclose(run_op("SOFTMAX", [x], Out(shape=x.shape), beta=1.0), want, equal_nan=True)


def test_softmax_of_halves(rng):
    x = rng.normal(0, 4, (3, 50)).astype(np.float16)
    got = run_op("SOFTMAX", [x], Out("FLOAT16", shape=x.shape), beta=1.0)
    np.testing.assert_allclose(got, twin.softmax(x.astype(float), 1.0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name,out", [("INT8", "INT8"), ("UINT8", "UINT8"), ("INT8", "INT16")])
def test_softmax_of_bytes(name, out, arithmetic, rng):
    for shape in SHAPES[:-1]:
        for scale in (0.003, 0.05, 0.4, 2.0):
            x, beta = codes(rng, shape, name), float(rng.choice([1.0, 0.7]))
            got = run_op("SOFTMAX", [In(x, Quant(scale, 3))], Out(out, OUT[out], shape=shape), beta=beta)
            np.testing.assert_array_equal(got, arithmetic.softmax_int_ref(x, np.float32(scale), beta, NUMPY[out]))


@pytest.mark.parametrize("name", ["INT8", "UINT8"])
def test_softmax_of_few_classes(name, rng):
    """In LiteRT's order of sums, in float32; one class more than there are micro-kernels for, too."""
    half, low, high = np.float32(0.5), np.iinfo(NUMPY[name]).min, np.iinfo(NUMPY[name]).max
    for depth in range(1, MOST + 2):
        for rows, scale in ((1, 0.3), (3, 0.02), (16, 0.1), (37, 0.003), (9001, 0.05)):
            x, total = codes(rng, (rows, depth), name), np.zeros((rows, 1), np.float32)
            e = exponentials(scale, 1.0)[255 + x.astype(int) - x.max(axis=1, keepdims=True)]
            for k in range(depth):
                total += e[:, k:k + 1]
            share = e * (np.float32(1) / (total * np.float32(1 / 256)))
            up = share - np.trunc(share) >= half if name == "INT8" else np.trunc(share + half) > np.trunc(share)
            want = np.clip(np.trunc(share).astype(int) + up + (-128 if name == "INT8" else 0), low, high)
            given = [In(x, Quant(scale, 3))], Out(name, OUT[name], shape=x.shape)
            np.testing.assert_array_equal(run_op("SOFTMAX", *given, beta=1.0), want)
            np.testing.assert_array_equal(run_op("SOFTMAX", *given, beta=1.0, num_threads=3, fuse=False), want)


def test_softmax_of_int16(arithmetic, rng):
    for shape in SHAPES[:-1]:
        for scale in (0.0001, 0.001, 0.02):
            x = codes(rng, shape, "INT16")
            got = run_op("SOFTMAX", [In(x, Quant(scale, 0))], Out("INT16", OUT["INT16"], shape=shape), beta=1.0)
            np.testing.assert_array_equal(got, arithmetic.softmax_int16(x, np.float32(scale), 1.0))


def test_log_softmax_of_floats(rng):
    for shape in SHAPES:
        x = rng.normal(0, 4, shape).astype(np.float32)
        got = run_op("LOG_SOFTMAX", [x], Out(shape=shape))
        np.testing.assert_allclose(got, twin.log_softmax(x.astype(float)), rtol=1e-6, atol=3e-6)


@pytest.mark.parametrize("name", ["INT8", "UINT8"])
def test_log_softmax_of_bytes(name, arithmetic, rng):
    for shape in SHAPES[:-1]:
        for scale in (0.003, 0.05, 0.4):
            x = codes(rng, shape, "INT8")
            want = arithmetic.log_softmax_int_ref(x, np.float32(scale))
            if name == "UINT8":
                x, want = ((v.view(np.uint8) ^ 0x80) for v in (x, want))
            zero = 127 if name == "INT8" else 255
            given = [In(x, Quant(scale, 3))], Out(name, Quant(16 / 256, zero), shape=shape)
            np.testing.assert_array_equal(run_op("LOG_SOFTMAX", *given, mode="ref"), want)
            want = arithmetic.log_softmax_int_opt(x, np.float32(scale), (np.float32(16 / 256), zero))
            np.testing.assert_array_equal(run_op("LOG_SOFTMAX", *given), want)


def test_l2_normalization(arithmetic, rng):
    for shape in SHAPES:
        x = rng.normal(0, 4, shape).astype(np.float32)
        got = run_op("L2_NORMALIZATION", [x], Out(shape=shape))
        np.testing.assert_allclose(got, twin.l2_normalize(x.astype(float)), rtol=1e-6)
        q = codes(rng, shape, "INT8")
        got = run_op("L2_NORMALIZATION", [In(q, Quant(0.1, 5))], Out("INT8", Quant(1 / 128, 0), shape=shape))
        np.testing.assert_array_equal(got, arithmetic.l2norm_int8(q, 5))
        u = q.view(np.uint8)
        got = run_op("L2_NORMALIZATION", [In(u, Quant(0.1, 100))], Out("UINT8", Quant(1 / 128, 128), shape=shape))
        assert np.abs(got - np.clip(twin.l2_normalize(u - 100.0) * 128 + 128, 0, 255)).max(initial=0) <= 1
    tiny = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(run_op("L2_NORMALIZATION", [tiny], Out(shape=tiny.shape)), tiny)


@pytest.mark.parametrize("op,quant", [("SOFTMAX", Quant(1 / 128, 0)), ("LOG_SOFTMAX", Quant(1 / 256, 127)),
                                      ("L2_NORMALIZATION", Quant(1 / 100, 0))])
def test_other_output_scales_are_refused(op, quant):
    with pytest.raises(LiteJitError, match="scale"):
        run_op(op, [In(np.zeros((2, 3), np.int8), Quant(0.1, 0))], Out("INT8", quant, shape=(2, 3)))


def test_scalars_are_refused():
    with pytest.raises(LiteJitError, match="last axis"):
        run_op("SOFTMAX", [np.float32(1)], Out(), beta=1.0)
