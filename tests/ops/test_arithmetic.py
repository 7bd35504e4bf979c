"""Fixed-point arithmetic against the NumPy oracles, as Python and compiled."""
import ctypes

import numpy as np
import pytest

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_i64, store_i64
from litejit.ops import arithmetic as ours

P = np.dtype([(n, "i8") for n in ("a", "b", "c", "out", "n")], align=True)
ACTS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


@pytest.fixture
def oracle(arithmetic):
    return arithmetic


def mapped(name, function, arguments):
    """A kernel that calls a device function of 1 to 3 integers elementwise."""
    if arguments == 1:
        def body(p, begin, end):
            for i in prange(begin, end):
                store_i64(p.out, i, function(load_i64(p.a, i)))
            return 0
    elif arguments == 2:
        def body(p, begin, end):
            for i in prange(begin, end):
                store_i64(p.out, i, function(load_i64(p.a, i), load_i64(p.b, i)))
            return 0
    else:
        def body(p, begin, end):
            for i in prange(begin, end):
                store_i64(p.out, i, function(load_i64(p.a, i), load_i64(p.b, i), load_i64(p.c, i)))
            return 0
    return kernel(P, name=f"test_{name}")(body)


def compiled(made):
    from litejit.compiler.codegen import kernel_object
    from litejit.compiler.load import load_image, make_image

    library = load_image(make_image([kernel_object(made)], [made.symbol]))
    call = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64)(
        library.address(made.symbol))
    call.library = library
    return call


def run(function, *columns):
    """The function over columns of int64, as Python (a sample) and compiled; checks that they agree."""
    columns = [np.ascontiguousarray(c, np.int64) for c in np.broadcast_arrays(*columns)]
    out = np.zeros_like(columns[0])
    block = np.zeros(1, P)
    for name, column in zip(("a", "b", "c"), columns):
        block[name] = column.ctypes.data
    block["out"], block["n"] = out.ctypes.data, out.size
    made = mapped(function.name, function, len(columns))
    result = ctypes.c_int64()
    assert compiled(made)(ctypes.addressof(result), None, block.ctypes.data, 0, out.size) == 0
    for i in range(0, out.size, max(1, out.size // 200)):
        assert function(*[int(c[i]) for c in columns]) == out[i]
    return out


@pytest.fixture
def words():
    """int32 values with many near the corners."""
    rng = np.random.default_rng(7)
    corners = np.array([0, 1, -1, 2, 3, ours.I32_MAX, ours.I32_MIN, ours.I32_MIN + 1, 1 << 30, -(1 << 30)])
    return np.concatenate([corners, rng.integers(ours.I32_MIN, ours.I32_MAX, 5000), rng.integers(-5000, 5000, 5000)])


def test_rounding_multiplications(oracle, words):
    a = words
    b = np.random.default_rng(1).permutation(words)
    np.testing.assert_array_equal(run(ours.srdhm, a, b), oracle.srdhm(a, b))
    shifts = np.random.default_rng(2).integers(0, 32, a.size)
    np.testing.assert_array_equal(run(ours.rdivpot, a, shifts), oracle.rdivpot(a, shifts))
    np.testing.assert_array_equal(run(ours.wrap32, a * 7), oracle.wrap32(a * 7))


def test_multiply_by_quantized_multiplier(oracle, words):
    rng = np.random.default_rng(3)
    m, shift = rng.integers(1 << 30, 1 << 31, words.size), rng.integers(-31, 31, words.size)
    np.testing.assert_array_equal(run(ours.mbqm, words, m, shift), oracle.mbqm(words, m, shift))
    x = rng.integers(-(1 << 46), 1 << 46, words.size)
    shift = np.minimum(shift, 14)
    np.testing.assert_array_equal(run(ours.mbqm64, x, m, shift), oracle.mbqm64(x, m, shift))


@pytest.mark.parametrize("bits", [0, 4, 5, 6])
def test_exponential(oracle, words, bits):
    a = -np.abs(words)
    np.testing.assert_array_equal(run(ours.exp_on_negative, a, np.full_like(a, bits)), oracle.exp_on_negative(a, bits))


def test_reciprocal(oracle, words):
    x = np.abs(np.maximum(words, -ours.I32_MAX))
    np.testing.assert_array_equal(run(ours.one_over_one_plus_x, x), oracle.one_over_one_plus_x(x))


def test_multipliers_and_ranges(oracle):
    rng = np.random.default_rng(5)
    reals = [0.0, 1.0, 0.5, 1 - 2**-40, 2.0**-33, *np.exp(rng.uniform(-25, 12, 500))]
    assert [ours.quantize_multiplier(r) for r in reals] == [oracle.quantize_multiplier(r) for r in reals]
    m, s = ours.quantize_multipliers(reals)
    assert list(zip(m, s)) == [oracle.quantize_multiplier(r) for r in reals]
    for type in ("i8", "u8", "i16"):
        dtype = {"i8": np.int8, "u8": np.uint8, "i16": np.int16}[type]
        info = np.iinfo(dtype)
        for name in ACTS:
            for scale in (*np.float32(np.exp(rng.uniform(-7, 3, 40))), np.float32(0.5), np.float32(4 / 3)):
                zero = int(rng.integers(info.min, info.max + 1))
                assert ours.act_range(name, scale, zero, type) == oracle.act_range(name, scale, zero, dtype)
                assert ours.xnn_act_range(name, scale, zero, type) == oracle.xnn_act_range(name, scale, zero, dtype)


def test_xnn_requant(oracle, words):
    scale, zero = np.float32(0.0123), 7
    low, high = np.float32(-128 - zero), np.float32(127 - zero)
    want = oracle.xnn_requant(words, scale, zero, -128, 127, np.int8)
    assert [ours.xnn_requant(np.int32(a), scale, low, high, zero) for a in words[:500]] == want[:500].tolist()


def test_float_and_integer_ranges():
    assert ours.float_range("NONE") == (-ours.FLT_MAX, ours.FLT_MAX)
    assert ours.float_range("RELU", True) == (0.0, float("inf"))
    assert ours.integer_range("RELU6", 32) == (0, 6)
    assert ours.integer_range("NONE", 8, False) == (0, 255)
    assert ours.integer_range("TANH", 64) == (-(1 << 63), (1 << 63) - 1)
