"""FULLY_CONNECTED in all arithmetics, against twins and the oracle."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, op_model, run_op, run_planned
from tests.twins import products as twin

F32 = np.float32
FLOATS = Out()
SHAPES = [  # m, k, n
    (1, 7, 5), (1, 128, 128), (1, 300, 100), (1, 520, 4100), (3, 1, 1), (4, 33, 70), (8, 64, 48), (29, 130, 33)]


def run(x, w, bias, out=FLOATS, **options):
    return run_op("FULLY_CONNECTED", [x, w, bias], out, version=4, **options)


@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("constant", [True, False])
def test_floats(rng, mode, constant):
    for m, k, n in [*SHAPES, (30, 11, 24), (3, 40, 19), (53, 7, 86)]:           # panels that are three quarters full, too
        x, w = rng.standard_normal((m, k)).astype(F32), rng.standard_normal((n, k)).astype(F32)
        bias = rng.standard_normal(n).astype(F32)
        for act, low, high in (("NONE", -np.inf, np.inf), ("RELU6", 0, 6)):
            got = run(x, In(w, constant=constant), In(bias, constant=constant), mode=mode, fused_activation_function=act)
            want = np.clip(x.astype(np.float64) @ w.T + bias, low, high)
            assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()
        got = run(x, In(w, constant=constant), None, mode=mode)
        np.testing.assert_allclose(got, x.astype(np.float64) @ w.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("kind", ["int8", "int8 per row", "int4", "int2", "uint8"])
def test_codes(rng, arithmetic, mode, kind):
    for m, k, n in SHAPES:
        if (kind == "int4" and k % 2) or (kind == "int2" and k % 4):
            continue
        dtype = np.uint8 if kind == "uint8" else np.int8
        info = np.iinfo(dtype)
        x = rng.integers(info.min, info.max, (m, k), dtype, endpoint=True)
        low, high = {"int4": (-8, 7), "int2": (-2, 1), "uint8": (0, 255)}.get(kind, (-127, 127))
        w = rng.integers(low, high, (n, k), dtype, endpoint=True)
        bias = rng.integers(-2000, 2000, n, np.int32)
        w_zero = 77 if kind == "uint8" else 0
        scales = rng.uniform(0.005, 0.02, n if kind == "int8 per row" else 1).astype(F32)
        x_zero, zero = (int(z) for z in rng.integers(info.min, info.max, 2))
        y_scale = F32(0.05 * scales.mean() * high * 80 * max(k, 4) ** 0.5 / 60)
        w_type = {"int4": "INT4", "int2": "INT2"}.get(kind)
        got = run(In(x, Quant([0.05], [x_zero])), In(w, Quant(scales, [w_zero] * len(scales)), type=w_type, constant=True),
                  In(bias, Quant(F32(0.05) * scales, [0] * len(scales)), constant=True),
                  Out("UINT8" if kind == "uint8" else "INT8", Quant([y_scale], [zero])), mode=mode,
                  fused_activation_function="RELU")
        acc = twin.accumulate(x, w, x_zero, w_zero, bias)
        if mode == "auto":
            want = arithmetic.xnn_requant(acc, F32(0.05) * scales / y_scale, zero,
                                          *arithmetic.xnn_act_range("RELU", y_scale, zero, dtype), dtype)
        else:
            want = twin.double_codes(acc, np.float64(F32(0.05)) * scales / np.float64(y_scale), zero,
                                     *arithmetic.act_range("RELU", y_scale, zero, dtype))
        np.testing.assert_array_equal(got, want)


INT16_SHAPES = [*SHAPES, (9, 1024, 40), (5, 1300, 33)]           # the last ones' sums leave 32 bits where codes are extreme


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("constant", [True, False])
def test_int16(rng, arithmetic, constant, extreme):
    for m, k, n in INT16_SHAPES if constant else SHAPES[:3]:
        x = rng.integers(-32768, 32767, (m, k), np.int16, endpoint=True)
        w = rng.integers(-127, 127, (n, k), np.int8, endpoint=True)
        if extreme:
            x, w = np.where(x > -20000, -32768, 32767).astype(np.int16), np.where(w > -100, -128, 127).astype(np.int8)
        scales, y_scale = rng.uniform(0.005, 0.02, n).astype(F32), F32((0.05 if extreme else 0.003) * k ** 0.5)
        for bias in (None, rng.integers(-9999, 9999, n, np.int64), rng.integers(-9999, 9999, n, np.int32)):
            given = [In(x, Quant([0.001], [0])), In(w, Quant(scales, [0] * n), constant=constant),
                     None if bias is None else In(bias, constant=True)]
            (got,), plan = run_planned(op_model("FULLY_CONNECTED", given, Out("INT16", Quant([y_scale], [0])), version=4),
                                       [x] if constant else [x, w])
            want = twin.double_codes(twin.accumulate(x, w, bias=bias), np.float64(F32(0.001)) * scales / np.float64(y_scale),
                                     0, -32768, 32767)
            np.testing.assert_array_equal(got, want)
            wide = np.abs(w.astype(int)).sum(axis=1).max() * 32768 + 9999 >= 2**31
            name = ("conv_16x8_blocks" if wide else "conv_16x8") if constant else "product_i16_i8"
            assert [step.kernel.name for step in plan.steps] == [name]


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_hybrid(rng, arithmetic, mode, asymmetric):
    for m, k, n in SHAPES:
        x = (rng.standard_normal((m, k)) * rng.uniform(0.01, 30, (m, 1))).astype(F32)
        x[0] = 0 if m > 1 else x[0]
        w, bias = rng.integers(-127, 127, (n, k), np.int8, endpoint=True), rng.standard_normal(n).astype(F32)
        scales = rng.uniform(0.005, 0.02, n).astype(F32)
        got = run(x, In(w, Quant(scales, [0] * n), constant=True), In(bias, constant=True), mode=mode,
                  asymmetric_quantize_inputs=asymmetric)
        if mode == "auto":
            want = arithmetic.fc_qd8(x, w, bias, scales)
        else:
            want = arithmetic.fc_hybrid(x, w, bias, scales, asymmetric=asymmetric) if m == 1 else np.concatenate(
                [arithmetic.fc_hybrid(row[None], w, bias, scales, asymmetric=asymmetric) for row in x])
            np.testing.assert_array_equal(got, want)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_hybrid_weights_of_minus_128(rng, arithmetic, dtype, asymmetric):
    """LiteRT's SSE kernel turns the sign of their products; bytes of uint8 weights are taken as int8."""
    for m, k, n in SHAPES:
        x = rng.standard_normal((m, k)).astype(F32)
        w = rng.integers(-128, -126, (n, k), np.int8, endpoint=True)
        w[0, 0] = -128
        given = [x, In(w.view(dtype), Quant([0.01], [0]), constant=True), None]
        content = op_model("FULLY_CONNECTED", given, Out(), version=4, asymmetric_quantize_inputs=asymmetric)
        (got,), plan = run_planned(content, [x], mode="opt", num_threads=2)
        rows = [arithmetic.asym_quant_f32(row) if asymmetric else (*arithmetic.sym_quant_f32(row), 0) for row in x]
        codes, scales, zeros = (np.stack(part) for part in zip(*rows))
        acc = twin.sse_accumulate(codes, w) - np.outer(zeros, w.sum(axis=1, dtype=np.int64))
        np.testing.assert_array_equal(got, acc.astype(F32) * (scales[:, None].astype(F32) * F32(0.01)))
        fast = "product_int8_row" if m == 1 else "product_int8"
        assert plan.steps[-1].kernel.name == ("product_i8_i8" if asymmetric else fast)


@pytest.mark.parametrize("mode", ["auto", "opt"])
def test_hybrid_products_of_no_rows(rng, mode):
    w = In(rng.integers(-127, 127, (5, 6), np.int8), Quant([0.01], [0]), constant=True)
    assert run(np.zeros((0, 6), F32), w, None, mode=mode).shape == (0, 5)


@pytest.mark.parametrize("kind", ["INT4", "INT2"])
def test_hybrid_of_few_bits(rng, arithmetic, kind):
    """One row reads two weights from a byte, up to sums that 16 times the product would not fit."""
    low = {"INT4": -8, "INT2": -2}[kind]
    for m, k, n in [*SHAPES, (1, 48, 65), (1, 1 << 15, 33), (1, (1 << 15) + 4, 33)]:
        if k % 4:
            continue
        x, bias = rng.standard_normal((m, k)).astype(F32), rng.standard_normal(n).astype(F32)
        w, scales = rng.integers(low, -low, (n, k)).astype(np.int8), rng.uniform(0.005, 0.02, n).astype(F32)
        x[0, 1:], w[0] = 5, low                                 # the largest sum that there is
        got = run(x, In(w, Quant(scales, [0] * n), type=kind, constant=True), In(bias, constant=True))
        want = arithmetic.fc_qd8(x, w, bias, scales)
        assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_keeps_dimensions(rng):
    x, w = rng.standard_normal((2, 3, 8)).astype(F32), rng.standard_normal((5, 8)).astype(F32)
    assert run(x, In(w, constant=True), None, keep_num_dims=True).shape == (2, 3, 5)
    assert run(x, In(w, constant=True), None).shape == (6, 5)


def test_threads_and_large_products_agree(rng):
    """The same bits for any number of threads, with more chunks than one."""
    x, w = rng.standard_normal((150, 256)).astype(F32), rng.standard_normal((300, 256)).astype(F32)
    one = run(x, In(w, constant=True), None)
    np.testing.assert_array_equal(one, run(x, In(w, constant=True), None, num_threads=2))
    assert np.abs(one - x.astype(np.float64) @ w.T).max() < 1e-4


def test_refusals(rng):
    x, w = np.zeros((2, 6), F32), np.zeros((5, 6), F32)
    for inputs, options, text in (
            ([x, In(w, constant=True), In(np.zeros(4, F32), constant=True)], {}, "NumElements"),
            ([x, In(np.zeros((5, 4), F32), constant=True), None], {"keep_num_dims": True}, "!= cols"),
            ([x, In(np.zeros(6, F32), constant=True), None], {}, "NumDimensions"),
            ([x, In(w, constant=True), None], {"fused_activation_function": "TANH"}, "TANH"),
            ([x, In(w.astype(np.int32), constant=True), None], {}, "INT32")):
        with pytest.raises(LiteJitError, match=text):
            run_op("FULLY_CONNECTED", inputs, Out(), **options)
