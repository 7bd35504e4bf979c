"""Operators of one input on quantised types, against the oracles of LiteRT's arithmetic."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op

TYPES = {"INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16}
EVERY = {name: np.arange(np.iinfo(t).min, np.iinfo(t).max + 1, 1 if name != "INT16" else 7).astype(t)
         for name, t in TYPES.items()}


def quants(rng, name, count=4):
    """(input, output) quantisation, random."""
    low, high = np.iinfo(TYPES[name]).min, np.iinfo(TYPES[name]).max
    for _ in range(count):
        scales = [float(np.float32(np.exp(rng.uniform(-5, -1)))) for _ in range(2)]
        zeros = [0, 0] if name == "INT16" else [int(z) for z in rng.integers(low, high, 2)]
        yield (scales[0], zeros[0]), (scales[1], zeros[1])


def run(op, name, iq, oq, mode="auto", x=None, **options):
    x = EVERY[name] if x is None else x
    return run_op(op, [In(x, Quant(*iq))], Out(name, Quant(*oq), shape=x.shape), mode=mode, **options)


RELUS = {"RELU": (0, np.inf), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1), "RELU_0_TO_1": (0, 1)}


@pytest.mark.parametrize("name,op", [(n, op) for n in TYPES for op in RELUS if n != "INT16" or op in ("RELU", "RELU6")])
def test_relus(op, name, arithmetic, rng):
    for iq, oq in quants(rng, name):
        np.testing.assert_array_equal(run(op, name, iq, oq), arithmetic.relu_int(EVERY[name], iq, oq, *RELUS[op]))


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("alpha", [0.2, -0.5, 1.5])
def test_leaky_relu(name, alpha, arithmetic, rng):
    for iq, oq in quants(rng, name):
        for mode in ("auto", "ref"):
            ratio = np.float32(iq[0]) / np.float32(oq[0])
            within = all(2 ** -8 <= r <= 2 ** 7 for r in (ratio, abs(ratio * alpha)))
            xnn = mode == "auto" and name != "INT16" and within
            want = arithmetic.leaky_relu_int(EVERY[name], iq, oq, alpha, "xnn" if xnn else "ref")
            np.testing.assert_array_equal(run("LEAKY_RELU", name, iq, oq, mode, alpha=alpha), want)


FUNCTIONS = {"LOGISTIC": "logistic_f32", "TANH": "tanh_f32", "ELU": "elu_f32"}


@pytest.mark.parametrize("name,op", [("INT8", "LOGISTIC"), ("UINT8", "LOGISTIC"), ("INT8", "TANH"), ("UINT8", "TANH"),
                                     ("INT8", "ELU")])
def test_byte_tables(op, name, arithmetic, rng):
    for iq, oq in quants(rng, name):
        if op != "ELU":
            unsigned = {"LOGISTIC": 0, "TANH": 128}[op]
            oq = ({"LOGISTIC": 1 / 256, "TANH": 1 / 128}[op], unsigned if name == "UINT8" else unsigned - 128)
        f = getattr(arithmetic, FUNCTIONS[op])
        for mode, oracle in (("auto", arithmetic.lut8_xnn), ("ref", arithmetic.lut8)):
            np.testing.assert_array_equal(run(op, name, iq, oq, mode), oracle(f, iq, oq, TYPES[name]))


@pytest.mark.parametrize("name", ["INT8", "UINT8"])
def test_hard_swish(name, arithmetic, rng):
    for iq, oq in quants(rng, name):
        np.testing.assert_array_equal(run("HARD_SWISH", name, iq, oq), arithmetic.hard_swish_int8(EVERY[name], iq, oq))


@pytest.mark.parametrize("op", ["LOGISTIC", "TANH"])
def test_int16_sigmoids(op, arithmetic):
    oracle = arithmetic.logistic_int16 if op == "LOGISTIC" else arithmetic.tanh_int16
    for scale in (0.0001, 0.00031, 2.0 ** -12, 2.0 ** -11, 0.001):
        scale = float(np.float32(scale))
        got = run(op, "INT16", (scale, 0), (1 / 32768, 0), "ref")
        np.testing.assert_array_equal(got, oracle(EVERY["INT16"], scale))


@pytest.mark.parametrize("op", ["EXP", "LOG", "GELU", "RSQRT"])
def test_int16_interpolation(op, arithmetic):
    """LiteRT's points and interpolation; the functions' last bits may move a code by one."""
    k = np.float32(0.7978846)
    f, in_zero = {
        "EXP": (np.exp, 0), "LOG": (np.log, -32769), "RSQRT": (lambda v: 1 / np.sqrt(v), -32769),
        "GELU": (lambda v: np.float32(0.5) * v * (1 + np.tanh(k * (v + np.float32(0.044715) * v * v * v))), 0)}[op]
    iq, oq = (6 / 32768, max(in_zero, -32768)), (25 / 32768, 0)
    x = EVERY["INT16"][2000:]
    with np.errstate(all="ignore"):
        points = arithmetic.lut16(*iq, *oq, lambda v: f(np.maximum(v, 1e-9) if in_zero else v), np.float32)
    got = run(op, "INT16", iq, oq, x=x, **({"approximate": True} if op == "GELU" else {})).astype(int)
    assert np.abs(got - arithmetic.lut16_lookup(x, points)).max() <= 1


@pytest.mark.parametrize("name", ["INT8", "INT16"])
def test_abs_and_roots(name, arithmetic, rng):
    for iq, oq in quants(rng, name):
        np.testing.assert_array_equal(run("ABS", name, iq, oq), arithmetic.abs_int(EVERY[name], iq, oq))
        x = EVERY[name][EVERY[name] >= iq[1]]
        np.testing.assert_array_equal(run("SQRT", name, iq, oq, x=x), arithmetic.sqrt_int(x, iq, oq))
        if name == "INT8":
            np.testing.assert_array_equal(run("RSQRT", name, iq, oq, x=x), arithmetic.rsqrt_int8(x, iq, oq))


@pytest.mark.parametrize("op", ["SQRT", "RSQRT"])
def test_roots_of_negative_codes_are_errors(op):
    x = np.array([5, 3, -1, 0], np.int8)
    with pytest.raises(LiteJitError, match="positive"):
        run(op, "INT8", (0.1, 0), (0.1, 0), x=x)


@pytest.mark.parametrize("name", TYPES)
def test_prelu(name, arithmetic, rng):
    for shape, small in (((2, 3, 4, 5), (5,)), ((2, 3, 4, 5), (3, 1, 5)), ((2, 3, 4, 5), (1, 4, 1)), ((7,), (1,))):
        x, alpha = (rng.integers(-100, 100, s).astype(np.int8) for s in (shape, small))
        x, alpha = ((v.view(np.uint8) if name == "UINT8" else v.astype(TYPES[name])) for v in (x, alpha))
        iq, aq, oq = ((0.05, 0), (0.02, 0), (0.04, 0)) if name == "INT16" else ((0.05, 3), (0.02, 7), (0.04, 11))
        got = run_op("PRELU", [In(x, Quant(*iq)), In(alpha, Quant(*aq), constant=True)],
                     Out(name, Quant(*oq), shape=shape))
        np.testing.assert_array_equal(got, arithmetic.prelu_int(x, alpha, iq, aq, oq))


def test_prelu_of_floats(rng):
    for shape, small in (((2, 3, 4, 5), (5,)), ((2, 3, 4, 5), (3, 1, 5)), ((2, 3, 4, 5), (1, 4, 1)), ((7,), (1,)),
                         ((2, 3, 2, 3, 2), (3, 1, 3, 1)), ((40, 30, 30), (30, 30)), ((), ()), ((1, 31, 17, 10), (1, 1, 10))):
        x, alpha = rng.normal(size=shape).astype("f"), rng.normal(size=small).astype("f")
        got = run_op("PRELU", [In(x), In(alpha, constant=True)], Out(shape=shape))
        np.testing.assert_array_equal(got, np.where(x < 0, x * alpha, x))


def test_constant_codes_are_looked_up_while_planning(rng):
    x = EVERY["INT8"]
    given = In(x, Quant(0.05, 3), constant=True)
    folded = run_op("LOGISTIC", [given], Out("INT8", Quant(1 / 256, -128), shape=x.shape))
    np.testing.assert_array_equal(folded, run("LOGISTIC", "INT8", (0.05, 3), (1 / 256, -128)))
