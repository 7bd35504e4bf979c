"""CAST, QUANTIZE, DEQUANTIZE."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op, type_of
from tests.twins import unary as twin

NUMBERS = ["float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool",
           "complex64"]
NUMPY = {"INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "INT32": np.int32}


def numbers(name, rng):
    """Some of every size, the ends of the type, and what is no number."""
    dtype = np.dtype(name)
    if dtype.kind == "b":
        return rng.integers(0, 2, 100).astype(bool)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return np.concatenate([rng.integers(info.min, info.max, 90, dtype, endpoint=True),
                               np.array([info.min, info.max, 0, 1, info.max // 2], dtype)])
    with np.errstate(all="ignore"):
        x = np.concatenate([rng.normal(0, 10.0 ** rng.integers(0, 25, 100)), [np.inf, -np.inf, np.nan, 0, -0.0, 127.9,
                            -128.9, 255.5, -0.9, 2147483647.0, 2147483648.0, 4294967296.0, 9.3e18, -9.3e18]])
        return (x + 1j * x[::-1] if dtype.kind == "c" else x).astype(dtype)


@pytest.mark.parametrize("source", NUMBERS)
def test_cast(source, rng):
    x = numbers(source, rng)
    for target in NUMBERS:
        with np.errstate(all="ignore"):
            want = twin.cast(x, target)
        kind = type_of(np.zeros(1, target))
        for given in (x, In(x, constant=True)):
            got = run_op("CAST", [given], Out(kind, shape=x.shape))
            np.testing.assert_array_equal(got, want, f"{source} to {target}")


def test_cast_of_bfloat16_and_int4(rng):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    x = rng.normal(0, 100, 200).astype(np.float32)
    half = x.astype(ml_dtypes.bfloat16)
    got = run_op("CAST", [x], Out("BFLOAT16", shape=x.shape))
    np.testing.assert_array_equal(got.view(np.uint16), half.view(np.uint16))
    np.testing.assert_array_equal(run_op("CAST", [half], Out(shape=x.shape)), half.astype(np.float32))
    with pytest.raises(LiteJitError, match=r"[Uu]nsupported cast|not supported"):
        run_op("CAST", [np.zeros(4, np.int32)], Out("INT4", shape=(4,)))


def quant(rng, name):
    info = np.iinfo(NUMPY[name])
    wide = name in ("INT16", "INT32")
    return float(np.float32(np.exp(rng.uniform(-5, -1)))), 0 if wide else int(rng.integers(info.min, info.max))


@pytest.mark.parametrize("name", ["INT8", "UINT8", "INT16"])
def test_quantize_and_dequantize(name, arithmetic, rng):
    for _ in range(5):
        scale, zero = quant(rng, name)
        halves = scale * (np.arange(-50, 50) + 0.5)
        x = np.concatenate([rng.normal(0, 60 * scale, 999), halves, [3e4, -3e4]]).astype(np.float32)
        for mode in ("auto", "ref"):
            formula = "xnn" if mode == "auto" and name != "INT16" else "ref"
            want = arithmetic.quantize(x, scale, zero, NUMPY[name], formula)
            for given in (x, In(x, constant=True)):
                got = run_op("QUANTIZE", [given], Out(name, Quant(scale, zero), shape=x.shape), mode=mode)
                np.testing.assert_array_equal(got, want)
        got = run_op("DEQUANTIZE", [In(want, Quant(scale, zero))], Out(shape=x.shape))
        np.testing.assert_array_equal(got, arithmetic.dequantize(want, scale, zero))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_per_channel(axis, arithmetic, rng):
    shape = (3, 4, 5)
    scales = np.exp(rng.uniform(-5, -1, shape[axis])).astype(np.float32)
    zeros = rng.integers(-20, 20, shape[axis])
    along = [1, 1, 1]
    along[axis] = -1
    q = Quant(scales.tolist(), zeros.tolist(), dimension=axis)
    x = rng.normal(0, 3, shape).astype(np.float32)
    got = run_op("QUANTIZE", [x], Out("INT8", q, shape=shape))
    want = arithmetic.round_away(x / scales.reshape(along)) + zeros.reshape(along)
    np.testing.assert_array_equal(got, np.clip(want, -128, 127))
    for constant in (False, True):
        real = run_op("DEQUANTIZE", [In(got, q, constant=constant)], Out(shape=shape))
        np.testing.assert_array_equal(real, scales.reshape(along) * (got - zeros.reshape(along)).astype(np.float32))


PAIRS = [("INT8", "INT8"), ("INT8", "UINT8"), ("UINT8", "INT8"), ("UINT8", "UINT8"), ("INT8", "INT16"),
         ("UINT8", "INT16"),
         ("INT16", "INT8"), ("INT16", "INT16"), ("INT16", "INT32"), ("INT32", "INT8"), ("INT32", "INT16")]


@pytest.mark.parametrize("source,target", PAIRS)
def test_requantize(source, target, arithmetic, rng):
    for _ in range(4):
        iq, oq = quant(rng, source), quant(rng, target)
        x = rng.integers(-(1 << 15), 1 << 15, 3000).astype(NUMPY[source])
        for mode in ("auto", "ref"):
            xnn = mode == "auto" and source == target != "INT16" and 2 ** -8 <= iq[0] / oq[0] <= 2 ** 7
            if target == "INT32":
                m, s = arithmetic.quantize_multiplier(float(np.float32(iq[0])) / float(np.float32(oq[0])))
                want = arithmetic.mbqm(x.astype(np.int64) - iq[1], m, s) + oq[1]
            else:
                want = arithmetic.requantize(x, iq, oq, NUMPY[target], "xnn" if xnn else "ref")
            got = run_op("QUANTIZE", [In(x, Quant(*iq))], Out(target, Quant(*oq), shape=x.shape), mode=mode)
            np.testing.assert_array_equal(got, want)


def test_dequantize_of_small_types_and_halves(rng):
    x = rng.integers(-8, 8, 33).astype(np.int8)
    got = run_op("DEQUANTIZE", [In(x, Quant(0.5, 0), type="INT4", constant=True)], Out(shape=x.shape))
    np.testing.assert_array_equal(got, x * 0.5)
    half = rng.normal(size=50).astype(np.float16)
    for constant in (False, True):
        got = run_op("DEQUANTIZE", [In(half, constant=constant)], Out(shape=half.shape))
        np.testing.assert_array_equal(got, half.astype(np.float32))


def test_missing_quantisation_is_refused():
    with pytest.raises(LiteJitError, match="quantization"):
        run_op("QUANTIZE", [np.zeros(3, np.float32)], Out("INT8", shape=(3,)))
