"""Quantised ADD SUB MUL DIV SQUARED_DIFFERENCE against the NumPy oracles of LiteRT's arithmetic."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import ModelBuilder, Quant
from tests.harness import In, Out, run_model, run_op

ACTS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")
SHAPES = [((6, 70), (6, 70)), ((6, 70), (70,)), ((6, 1), (1, 70)), ((1,), (90,))]


def scales(rng, dtype, count=3):
    """Random (scale, zero point) pairs."""
    info = np.iinfo(dtype)
    zero_points = [0] * count if dtype == np.int16 else rng.integers(info.min, info.max + 1, count).tolist()
    return [(np.float32(np.exp(rng.uniform(-6, -2))), zero) for zero in zero_points]


def codes(rng, shape, dtype):
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    return np.where(rng.random(shape) < 0.05, info.max, x).astype(dtype)


def run(op, x, y, xq, yq, oq, mode, act=None, type=None, **options):
    if act is not None:
        options["fused_activation_function"] = act
    out = Out(type or x.dtype.name.upper(), Quant([oq[0]], [oq[1]]), np.broadcast_shapes(x.shape, y.shape))
    return run_op(op, [In(x, Quant([xq[0]], [xq[1]])), In(y, Quant([yq[0]], [yq[1]]))], out, mode=mode, **options)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_sums_and_products(arithmetic, rng, dtype, mode):
    formulas = "xnn" if mode == "auto" and dtype != np.int16 else "ref"
    for k in range(24):
        xq, yq, oq = scales(rng, dtype)
        a, b = SHAPES[k % 4]
        x, y, act = codes(rng, a, dtype), codes(rng, b, dtype), ACTS[k % 3 - k % 4]
        shift = 15 if dtype == np.int16 else 20
        for op in ("ADD", "SUB"):
            want = arithmetic.add_int8(x, y, xq, yq, oq, act, dtype, op == "SUB", formulas, shift)
            np.testing.assert_array_equal(run(op, x, y, xq, yq, oq, mode, act), want)
        oq = (np.float32(xq[0] * yq[0] * np.exp(rng.uniform(2, 8))), oq[1])
        want = arithmetic.mul_int8(x, y, xq, yq, oq, act, dtype, formulas)
        np.testing.assert_array_equal(run("MUL", x, y, xq, yq, oq, mode, act), want)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_a_product_with_itself_is_rounded_as_a_square(arithmetic, rng, dtype):
    """XNNPACK's square of a real number: apart from its product where that lies between two codes."""
    info, apart = np.iinfo(dtype), 0
    x = np.arange(info.min, info.max + 1).astype(dtype)
    cases = ((0.02, 3, 0.02, 3, "NONE"), (0.01, 9, 0.005, 70, "RELU6"), (0.1, 120, 0.5, 1, "NONE"))
    for scale, zero, y_scale, y_zero, act in cases:
        scale, y_scale = np.float32(scale), np.float32(y_scale)
        builder = ModelBuilder()
        graph = builder.subgraph()
        value = graph.input("x", x.shape, x.dtype.name.upper(), Quant(scale, zero))
        made = graph.add("MUL", [value, value], ("y", x.shape, x.dtype.name.upper(), Quant(y_scale, y_zero)), version=2,
                         fused_activation_function=act)
        graph.outputs(made)
        (got,) = run_model(builder.build(), [x])
        real = (x.astype(np.float32) - np.float32(zero)) * scale
        low, high = arithmetic.xnn_act_range(act, y_scale, y_zero, dtype)
        want = np.clip(np.rint(real * real * (np.float32(1) / y_scale) + np.float32(y_zero)), low, high)
        np.testing.assert_array_equal(got, want)
        product = arithmetic.mul_int8(x, x, (scale, zero), (scale, zero), (y_scale, y_zero), act, dtype, "xnn")
        apart += (got != product).any()
    assert apart


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_products_of_rows_and_a_row(arithmetic, rng, dtype):
    """Rows of any length, the row on either side, alone, and a scale at XNNPACK's limit."""
    for n, rows in ((16, 300), (17, 3), (63, 2), (64, 5), (65, 1), (130, 40), (200, 7), (1000, 1)):
        xq, yq, oq = scales(rng, dtype)
        x, y = codes(rng, (rows, n), dtype), codes(rng, (n,), dtype)
        for factor in (1 / 200, 30, 255.9):
            oq = (np.float32(xq[0] * yq[0] / np.float32(factor)), oq[1])
            for a, b, aq, bq in ((x, y, xq, yq), (y, x, yq, xq), (x, x[::-1], xq, yq)):
                want = arithmetic.mul_int8(a, b, aq, bq, oq, "RELU6", dtype, "xnn")
                np.testing.assert_array_equal(run("MUL", a, b, aq, bq, oq, "auto", "RELU6"), want)


@pytest.mark.parametrize("a, b", [((0, 16), (16,)), ((16,), (0, 16)), ((0, 40), (0, 40)), ((3, 0, 40), (40,))])
def test_no_rows(a, b):
    for op in ("MUL", "ADD"):
        x, y = np.zeros(a, np.int8), np.zeros(b, np.int8)
        assert run(op, x, y, (0.1, 3), (0.1, 3), (0.2, 1), "auto", "NONE").shape == np.broadcast_shapes(a, b)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_quotients(arithmetic, rng, dtype):
    for k in range(6):
        xq, yq, oq = scales(rng, dtype)
        oq = (np.float32(xq[0] / yq[0] / 20), oq[1])
        x, y = codes(rng, (4, 60), dtype), codes(rng, (4, 60), dtype)
        y[y == yq[1]] = 5 if yq[1] != 5 else 6
        want = arithmetic.div_int(x, y, xq, yq, oq, ACTS[k % 4])
        np.testing.assert_array_equal(run("DIV", x, y, xq, yq, oq, "ref", ACTS[k % 4]), want)
    y[2, 7] = yq[1]
    with pytest.raises(LiteJitError, match="zero_point was not true"):
        run("DIV", x, y, xq, yq, oq, "auto", "NONE")


def test_squared_difference(arithmetic, rng):
    shapes = [((5, 70), (70,)), ((5, 70), (5, 1)), ((1, 70), (6, 1)), ((3, 130), (3, 130)), ((70,), ()), ((2, 3, 65), (3, 1)),
              ((300, 90), (300, 1)), ((7, 1, 33), (1, 4, 33))]
    for left, right in shapes:
        xq, yq, oq = scales(rng, np.int8)
        oq = (np.float32(max(xq[0], yq[0]) ** 2 * 90), oq[1])
        x, y = codes(rng, left, np.int8), codes(rng, right, np.int8)
        want = arithmetic.squared_difference_int8(x, y, xq, yq, oq)
        np.testing.assert_array_equal(run("SQUARED_DIFFERENCE", x, y, xq, yq, oq, "auto"), want)


def test_int16_by_shifts(arithmetic, rng):
    x, y = codes(rng, (3, 90), np.int16), codes(rng, (90,), np.int16)
    for sa, sb, so in ((-12, -10, -10), (-10, -10, -10), (-9, -14, -9)):
        sa, sb, so = (np.float32(2.0**e) for e in (sa, sb, so))
        want = arithmetic.add_int16_pot(x, np.broadcast_to(y, x.shape), sa, sb, so)
        np.testing.assert_array_equal(run("ADD", x, y, (sa, 0), (sb, 0), (so, 0), "auto", "NONE"), want)
    with pytest.raises(LiteJitError, match="input1_shift == 0"):
        run("ADD", x, y, (so, 0), (so, 0), (so * 2, 0), "auto", "NONE")
    other = run("ADD", x, y, (so, 0), (so, 0), (so * 2, 0), "auto", "NONE", pot_scale_int16=False)
    assert np.abs(other.astype(int) - (x.astype(int) + y) / 2).max() <= 1


def test_codes_are_compared_as_they_are(rng):
    x, y, q = codes(rng, (4, 33), np.uint8), codes(rng, (33,), np.uint8), (np.float32(0.1), 3)
    np.testing.assert_array_equal(run("MAXIMUM", x, y, q, q, q, "auto"), np.maximum(x, y))
    np.testing.assert_array_equal(run("MINIMUM", x, y, q, q, q, "auto"), np.minimum(x, y))


def test_int16_times_int16_to_8_bits(rng):
    x, y, q = codes(rng, (4, 33), np.int16), codes(rng, (33,), np.int16), (np.float32(1 / 32768), 0)
    out = run("MUL", x, y, q, q, (np.float32(1 / 128), -3), "auto", "NONE", "INT8")
    want = np.clip(np.rint(x.astype(float) * y / 2**15 / 256) - 3, -128, 127)
    assert np.abs(out - want).max() <= 1


def test_refused(rng):
    x, q = codes(rng, (4,), np.int16), (np.float32(0.1), 0)
    with pytest.raises(LiteJitError, match="zero_point != 0"):
        run("MUL", x, x, (np.float32(0.1), 4), q, q, "auto", "NONE")
    with pytest.raises(LiteJitError, match="one positive scale"):
        run_op("MUL", [In(x, Quant([0.1])), In(x)], Out("INT16", Quant([0.1]), (4,)))
