"""TRANSPOSE_CONV against the scattering twin."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op
from tests.twins.products import scatter

F32 = np.float32
FLOATS = Out()
CASES = [  # x, w, stride, padding, out
    ((1, 8, 8, 32), (16, 2, 2, 32), (2, 2), "SAME", (16, 16)), ((2, 5, 4, 7), (5, 3, 3, 7), (2, 2), "SAME", (10, 8)),
    ((1, 3, 4, 3), (5, 3, 3, 3), (1, 1), "SAME", (3, 4)), ((1, 4, 3, 6), (3, 3, 2, 6), (3, 2), "VALID", (12, 6)),
    ((1, 3, 3, 2), (2, 2, 2, 2), (3, 3), "SAME", (9, 9)), ((1, 6, 5, 40), (33, 4, 4, 40), (2, 2), "VALID", (14, 12)),
    ((1, 1, 1, 5), (4, 5, 5, 5), (1, 1), "VALID", (5, 5)), ((2, 9, 33, 20), (40, 4, 4, 20), (2, 2), "SAME", (18, 66)),
    ((1, 5, 19, 8), (33, 3, 5, 8), (1, 2), "SAME", (5, 37)), ((1, 4, 3, 9), (7, 5, 5, 9), (3, 3), "SAME", (11, 9)),
    ((3, 2, 2, 4), (2, 1, 1, 4), (1, 1), "SAME", (2, 2)), ((1, 14, 14, 3), (3, 4, 3, 3), (1, 1), "SAME", (14, 14)),
    ((2, 7, 9, 16), (17, 3, 2, 16), (1, 1), "VALID", (9, 10)), ((1, 9, 6, 1), (1, 2, 5, 1), (1, 1), "SAME", (9, 6)),
    ((1, 16, 1, 2), (3, 3, 1, 2), (1, 1), "SAME", (16, 1)), ((1, 40, 40, 16), (16, 3, 3, 16), (1, 1), "SAME", (40, 40)),
]


def run(case, x, w, bias, out=FLOATS, **options):
    shape, _, stride, padding, size = case
    to = np.array([shape[0], *size, w.value.shape[0]], np.int32)
    return run_op("TRANSPOSE_CONV", [In(to, constant=True), w, x, bias], out, version=3, stride_h=stride[0],
                  stride_w=stride[1], padding=padding, **options)


@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("case", CASES)
def test_floats(rng, case, mode):
    x, w = rng.standard_normal(case[0]).astype(F32), rng.standard_normal(case[1]).astype(F32)
    bias = rng.standard_normal(len(w)).astype(F32)
    plain = scatter(x.astype(np.float64), w.astype(np.float64), case[2], case[3], case[4])
    got = run(case, x, In(w, constant=True), In(bias, constant=True), mode=mode, fused_activation_function="RELU")
    assert np.abs(got - np.maximum(plain + bias, 0)).max() <= 1e-5 * np.abs(plain + bias).max()
    got = run(case, x, In(w, constant=True), None, mode=mode, num_threads=2)
    assert np.abs(got - plain).max() <= 1e-5 * np.abs(plain).max()


def test_a_bias_that_is_known_while_running(rng):
    for case in CASES:
        x, w = rng.standard_normal(case[0]).astype(F32), rng.standard_normal(case[1]).astype(F32)
        bias = rng.standard_normal(len(w)).astype(F32)
        plain = scatter(x.astype(np.float64), w.astype(np.float64), case[2], case[3], case[4]) + bias
        got = run(case, x, In(w, constant=True), bias, fused_activation_function="RELU6")
        assert np.abs(got - np.clip(plain, 0, 6)).max() <= 1e-5 * np.abs(plain).max()


def test_gaps_between_patches_see_no_input(rng):
    """Not even infinities times zeros: they are the bias."""
    case = CASES[4]
    x, w, bias = np.full(case[0], np.inf, F32), rng.standard_normal(case[1]).astype(F32), rng.standard_normal(2).astype(F32)
    got = run(case, x, In(w, constant=True), In(bias, constant=True))
    seen = scatter(np.ones(case[0]), np.ones(case[1]), case[2], case[3], case[4]) > 0
    assert np.array_equal(got[~seen], np.broadcast_to(bias, got.shape)[~seen])
    assert not (np.abs(got[seen]) < 1e38).any()                         # LiteRT's kernels clamp to the largest float


@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_codes(rng, arithmetic, dtype, mode):
    for case in CASES:
        info, o = np.iinfo(dtype), case[1][0]
        x = rng.integers(info.min, info.max, case[0], dtype, endpoint=True)
        w_low, w_high, w_zero = (0, 255, 99) if dtype == np.uint8 else (-127, 127, 0)
        w = rng.integers(w_low, w_high, case[1], np.uint8 if dtype == np.uint8 else np.int8, endpoint=True)
        zero = 0 if dtype == np.int16 else int(rng.integers(info.min, info.max))
        bias = rng.integers(-900, 900, o, np.int64 if dtype == np.int16 else np.int32)
        scales = rng.uniform(0.005, 0.02, 1 if dtype == np.uint8 else o).astype(F32)
        y_scale = F32(0.02 * (info.max / 127) ** 0.9)
        got = run(case, In(x, Quant([0.02], [zero])), In(w, Quant(scales, [w_zero] * len(scales)), constant=True),
                  In(bias, constant=True), Out(dtype.__name__.upper(), Quant([y_scale], [zero])), mode=mode)
        acc = scatter(x.astype(np.int64) - zero, w.astype(np.int64) - w_zero, case[2], case[3], case[4]) + bias
        if dtype == np.int16:
            m, s = arithmetic.conv_scales(0.02, scales, y_scale, o)
            want = np.clip(arithmetic.mbqm64(acc, m, s), -32768, 32767)
        elif mode == "auto" and all(k >= s for k, s in zip(case[1][1:3], case[2])):      # else not XNNPACK's
            want = arithmetic.xnn_requant(acc, F32(0.02) * scales / y_scale, zero, info.min, info.max, dtype)
        elif dtype == np.uint8:
            m, s = arithmetic.quantize_multiplier(float(F32(0.02) * scales[0]) / float(y_scale))
            want = np.clip(arithmetic.mbqm(acc, m, s) + zero, 0, 255)
        else:
            want = arithmetic.requant_channels(acc, 0.02, scales, y_scale, zero, None, np.int8, "ref")
        np.testing.assert_array_equal(got, want)


def test_refusals(rng):
    case = CASES[1]
    x, w = np.zeros(case[0], F32), np.zeros(case[1], F32)
    with pytest.raises(LiteJitError, match="SizeOfDimension"):
        run(case, x, In(w[..., :3], constant=True), None)
    with pytest.raises(LiteJitError, match="NumElements"):
        run(case, x, In(w, constant=True), In(np.zeros(2, F32), constant=True))
    with pytest.raises(LiteJitError, match="input pixels"):
        run((case[0], case[1], case[2], case[3], (30, 8)), x, In(w, constant=True), None)
