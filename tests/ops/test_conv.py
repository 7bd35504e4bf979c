"""CONV_2D and DEPTHWISE_CONV_2D against twins: every type, both arithmetics, odd shapes, and errors."""
import itertools

import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_tiles import SHAPES, special
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op
from tests.twins.conv import conv_sums, depthwise_sums, fixed_codes, nearest_codes

CASES = [  # image, weights [O, kh, kw, depth], stride, dilation, padding
    ((1, 5, 6, 3), (8, 3, 3, 3), (1, 1), (1, 1), "SAME"), ((2, 9, 8, 5), (7, 3, 2, 5), (2, 1), (1, 1), "VALID"),
    ((1, 6, 7, 40), (33, 1, 1, 40), (1, 1), (1, 1), "SAME"), ((3, 5, 5, 17), (16, 1, 1, 17), (2, 2), (1, 1), "SAME"),
    ((1, 9, 9, 20), (50, 3, 3, 20), (1, 1), (1, 1), "SAME"), ((1, 11, 12, 4), (6, 3, 3, 4), (1, 1), (2, 3), "SAME"),
    ((1, 8, 8, 12), (24, 3, 3, 4), (1, 1), (1, 1), "SAME"), ((2, 7, 7, 6), (9, 2, 2, 2), (1, 2), (2, 1), "VALID"),
    ((1, 30, 31, 3), (19, 7, 7, 3), (2, 2), (1, 1), "SAME"), ((1, 1, 1, 70), (130, 1, 1, 70), (1, 1), (1, 1), "SAME"),
    ((1, 2, 2, 4), (5, 5, 5, 4), (1, 1), (1, 1), "SAME"), ((1, 4, 50, 2), (3, 1, 9, 2), (1, 3), (1, 1), "SAME"),
    ((1, 3, 3, 1), (1, 3, 3, 1), (1, 1), (1, 1), "VALID"), ((1, 13, 9, 64), (40, 3, 3, 64), (1, 1), (1, 1), "SAME"),
    ((1, 7, 9, 64), (32, 3, 3, 2), (1, 1), (1, 1), "SAME"), ((2, 6, 5, 48), (96, 3, 3, 12), (2, 1), (1, 1), "SAME"),
    ((1, 9, 13, 6), (6, 3, 3, 1), (1, 1), (2, 2), "SAME"), ((1, 4, 5, 128), (128, 1, 2, 4), (1, 1), (1, 1), "SAME"),
    ((2, 150, 1, 20), (24, 9, 1, 20), (2, 1), (1, 1), "SAME"), ((1, 1, 200, 3), (40, 1, 64, 3), (1, 2), (1, 1), "SAME"),
    ((1, 60, 1, 5), (8, 3, 1, 5), (1, 1), (4, 1), "VALID"), ((1, 200, 1, 1), (16, 50, 1, 1), (3, 2), (1, 1), "SAME"),
]
DEPTHWISE = [  # image, kernel, multiplier, stride, dilation, padding
    ((1, 9, 9, 16), (3, 3), 1, (1, 1), (1, 1), "SAME"), ((2, 8, 11, 33), (3, 3), 1, (2, 2), (1, 1), "SAME"),
    ((1, 7, 7, 70), (5, 5), 1, (1, 1), (1, 1), "SAME"), ((1, 12, 12, 40), (5, 5), 1, (2, 2), (1, 1), "VALID"),
    ((1, 10, 9, 3), (3, 3), 4, (1, 1), (1, 1), "SAME"), ((1, 9, 8, 1), (2, 4), 7, (3, 2), (1, 1), "VALID"),
    ((1, 11, 11, 5), (3, 3), 1, (1, 1), (2, 3), "SAME"), ((1, 3, 3, 8), (3, 3), 1, (1, 1), (1, 1), "VALID"),
    ((1, 2, 2, 9), (7, 7), 1, (1, 1), (1, 1), "SAME"), ((2, 5, 40, 130), (3, 3), 1, (1, 1), (1, 1), "SAME"),
    ((2, 9, 14, 100), (5, 5), 1, (1, 1), (1, 1), "SAME"), ((1, 8, 15, 64), (3, 3), 1, (1, 1), (1, 1), "VALID"),
    ((1, 9, 10, 24), (3, 3), 1, (1, 2), (1, 1), "SAME"), ((1, 9, 10, 70), (3, 3), 1, (2, 1), (1, 1), "SAME"),
    ((1, 9, 10, 66), (3, 3), 1, (1, 1), (2, 1), "SAME"), ((1, 9, 10, 66), (5, 5), 1, (1, 1), (1, 2), "SAME"),
    ((1, 6, 6, 4), (1, 1), 1, (1, 1), (1, 1), "SAME"), ((1, 6, 25, 600), (3, 3), 1, (1, 1), (1, 1), "SAME"),
    ((1, 40, 1, 20), (5, 1), 1, (1, 1), (2, 1), "SAME"), ((2, 19, 14, 1), (10, 8), 8, (2, 2), (1, 1), "SAME"),
]
ACTS = {"NONE": (-np.inf, np.inf), "RELU": (0, np.inf), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}


class Case:
    """One shape of either operator."""

    def __init__(self, case):
        self.depthwise = len(case) == 6
        self.image = case[0]
        kernel = (1, *case[1], case[0][3] * case[2]) if self.depthwise else case[1]
        self.kernel, (self.stride, self.dilation, self.padding) = kernel, case[-3:]
        self.op, self.axis = ("DEPTHWISE_CONV_2D", 3) if self.depthwise else ("CONV_2D", 0)
        self.channels = kernel[self.axis]
        self.k = kernel[1] * kernel[2] * (1 if self.depthwise else kernel[3])

    def sums(self, x, w):
        made = depthwise_sums if self.depthwise else conv_sums
        return made(x, w, self.stride, self.dilation, self.padding)

    def run(self, inputs, out, act="NONE", **arguments):
        return run_op(self.op, inputs, out, stride_h=self.stride[0], stride_w=self.stride[1], padding=self.padding,
                      dilation_h_factor=self.dilation[0], dilation_w_factor=self.dilation[1],
                      fused_activation_function=act, **({"depth_multiplier": 1} if self.depthwise else {}), **arguments)


ALL = [Case(case) for case in CASES + DEPTHWISE]


def off(got, want):
    """The largest difference in units of what is allowed; infinite between other shapes."""
    allowed = 1e-5 * max(1.0, np.abs(want).max())
    return np.abs(got - want).max(initial=0) / allowed if got.shape == want.shape else np.inf


def act_of(k):
    return list(ACTS)[k % 4]


@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_floats(rng, mode):
    for k, case in enumerate(ALL):
        x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in (case.image, case.kernel, (case.channels,)))
        got = case.run([x, In(w, constant=True), In(bias, constant=True)], Out(), act_of(k), mode=mode)
        assert off(got, np.clip(case.sums(x, w) + bias, *ACTS[act_of(k)])) <= 1


def test_floats_of_weights_that_are_inputs(rng):
    for case in (c for c in ALL if c.depthwise or c.kernel[3] == c.image[3]):
        x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in (case.image, case.kernel, (case.channels,)))
        assert off(case.run([x, w, bias], Out()), case.sums(x, w) + bias) <= 1


def test_halves(rng):
    for case in ALL[:4] + ALL[-4:]:
        x, w, bias = (rng.standard_normal(s).astype(np.float16) for s in (case.image, case.kernel, (case.channels,)))
        got = case.run([x, In(w, constant=True), In(bias, constant=True)], Out("FLOAT16"))
        want = case.sums(x, w) + bias
        np.testing.assert_allclose(got, want, rtol=0, atol=2e-3 * max(1, np.abs(want).max()))


def quantised(rng, case, dtype, w_type, per_channel):
    """(x, w, bias, scales, quantisations of x, w, y) that use the whole range of the output."""
    info = np.iinfo(dtype)
    zero = [0, 0] if dtype == np.int16 else [int(z) for z in rng.integers(info.min, info.max, 2)]
    x = rng.integers(info.min, info.max, case.image, dtype, endpoint=True)
    low, high = (0, 255) if dtype == np.uint8 else (-8, 7) if w_type == "INT4" else (-127, 127)
    w = rng.integers(low, high, case.kernel, np.uint8 if dtype == np.uint8 else np.int8, endpoint=True)
    w_zero = int(rng.integers(0, 255)) if dtype == np.uint8 else 0
    scales = rng.uniform(0.5, 1.5, case.channels if per_channel else 1).astype(np.float32) * np.float32(0.01)
    x_scale = np.float32(0.02)
    spread = (255 if dtype != np.int16 else 65535) * high * 0.01 * 0.02 * np.sqrt(case.k) / 4
    y_scale = np.float32(spread / (info.max - info.min) * 2)
    bias = rng.integers(-3000, 3000, case.channels).astype(np.int64 if dtype == np.int16 else np.int32)
    quants = (Quant([x_scale], [zero[0]]), Quant(scales.tolist(), [w_zero] * len(scales), case.axis if per_channel else 0),
              Quant([y_scale], [zero[1]]))
    return x, w, w_zero, bias, (x_scale, scales, y_scale), zero, quants


@pytest.mark.parametrize("mode", ["auto", "ref"])
@pytest.mark.parametrize("dtype, w_type, per_channel", [
    (np.int8, "INT8", True), (np.int8, "INT8", False), (np.uint8, "UINT8", False), (np.int8, "INT4", True)])
def test_codes(arithmetic, rng, dtype, w_type, per_channel, mode):
    for k, case in enumerate(ALL):
        assert wrong_codes(arithmetic, rng, case, dtype, w_type, per_channel, mode, act_of(k)) == 0, (case.image, case.kernel)


@pytest.mark.parametrize("dtype, per_channel", [(np.int8, True), (np.uint8, False)])
@pytest.mark.parametrize("channels", [8, 11, 24, 29, 40, 49, 85])
def test_codes_of_a_last_panel(arithmetic, rng, dtype, per_channel, channels):
    """Channels that fill a quarter of a panel, a half, three quarters, or all of it, exactly or not."""
    for size in (1, 3):
        case = Case(((1, 5, 13, 12), (channels, size, size, 12), (1, 1), (1, 1), "SAME"))
        for act in ("NONE", "RELU"):
            assert wrong_codes(arithmetic, rng, case, dtype, dtype.__name__.upper(), per_channel, "auto", act) == 0, (size, act)


def wrong_codes(arithmetic, rng, case, dtype, w_type, per_channel, mode, act):
    """How many codes of a case are not the twin's."""
    info, codes = np.iinfo(dtype), fixed_codes if mode == "ref" or w_type == "INT4" else nearest_codes
    x, w, w_zero, bias, (x_scale, scales, y_scale), zero, quants = quantised(rng, case, dtype, w_type, per_channel)
    got = case.run([In(x, quants[0]), In(w, quants[1], type=w_type, constant=True), In(bias, constant=True)],
                   Out(info.dtype.name.upper(), quants[2]), act, mode=mode)
    sums = case.sums(x.astype(np.int64) - zero[0], w.astype(np.int64) - w_zero) + bias
    if codes is nearest_codes:
        scale, bounds = x_scale * scales / y_scale, arithmetic.xnn_act_range
    else:
        wide = x_scale * scales if dtype == np.uint8 else np.float64(x_scale) * scales
        scale, bounds = wide.astype(np.float64) / np.float64(y_scale), arithmetic.act_range
    want = codes(sums, scale, zero[1], bounds(act, y_scale, zero[1], dtype))
    return np.count_nonzero(got != want) if got.shape == want.shape else np.inf


@pytest.mark.parametrize("w_type", ["INT8", "INT16"])
def test_codes_of_16_bits(arithmetic, rng, w_type):
    for case in ALL:
        x, w, _, bias, (x_scale, scales, y_scale), _, quants = quantised(rng, case, np.int16, "INT8", True)
        if w_type == "INT16":
            w = w.astype(np.int16) * 200
            y_scale *= np.float32(200)
            quants = (*quants[:2], Quant([y_scale], [0]))
        got = case.run([In(x, quants[0]), In(w, quants[1], constant=True), In(bias, constant=True)], Out("INT16", quants[2]))
        want = arithmetic.gemm16x8_requant(case.sums(x, w), bias, x_scale, scales, y_scale, "NONE")
        np.testing.assert_array_equal(got, want, err_msg=f"{case.op} {case.image} {case.kernel}")


@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_hybrid(arithmetic, rng, mode):
    for case in ALL:
        assert hybrid_off(arithmetic, rng, case, mode) <= 1, (case.image, case.kernel)


def hybrid_off(arithmetic, rng, case, mode):
    """How far floats of a case with int8 weights are `off` the oracle's; 0 where there is none."""
    x = rng.standard_normal(case.image).astype(np.float32) * 3
    w = rng.integers(-127, 128, case.kernel).astype(np.int8)
    scales = rng.uniform(0.005, 0.02, case.channels).astype(np.float32)
    bias = rng.standard_normal(case.channels).astype(np.float32)
    got = case.run([x, In(w, Quant(scales.tolist(), [0] * case.channels, case.axis), constant=True),
                    In(bias, constant=True)], Out(), mode=mode)
    steps = (case.stride, case.dilation, case.padding)
    if case.depthwise:
        return off(got, arithmetic.dwconv_hybrid(x, w, bias, scales, *steps))
    if mode == "auto":
        return off(got, arithmetic.conv_qd8(x, w, bias, scales, *steps))
    if case.channels > 1 and case.kernel[3] == case.image[3]:
        return off(got, arithmetic.conv_hybrid_ref(x, w, bias, scales, *steps))
    return 0


def depthwise_off(arithmetic, rng, case, kind):
    """How far a case is off, in what is allowed: of float32, of codes (wrong ones count twice), of float32 times int8."""
    if kind == "codes":
        return 2 * wrong_codes(arithmetic, rng, case, np.int8, "INT8", True, "auto", "RELU6")
    if kind == "hybrid":
        return hybrid_off(arithmetic, rng, case, "auto")
    x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in (case.image, case.kernel, (case.channels,)))
    return off(case.run([x, In(w, constant=True), In(bias, constant=True)], Out()), case.sums(x, w) + bias)


of_every_kind = pytest.mark.parametrize("kind", ["float", "codes", "hybrid"])


@of_every_kind
@pytest.mark.parametrize("kernel, stride", SHAPES)
def test_what_is_left_of_depthwise_tiles(arithmetic, rng, kernel, stride, kind):
    """Every width and height up to two tiles, and registers of channels: columns that are left over, rows and channels."""
    for (height, width), channels in zip(itertools.product(range(1, 6), range(1, 12)), itertools.cycle((24, 80, 100, 21))):
        case = Case(((1, height, width, channels), (kernel, kernel), 1, (stride, stride), (1, 1), "SAME"))
        assert depthwise_off(arithmetic, rng, case, kind) <= 1, case.image


@of_every_kind
@pytest.mark.parametrize("kernel, dilation", [(3, (2, 2)), (3, (1, 3)), (3, (5, 2)), (5, (2, 2)), (5, (3, 1))])
def test_dilated_depthwise_tiles(arithmetic, rng, kernel, dilation, kind):
    """Images of less than the dilation, of a few tiles, and of rows and columns that are left over."""
    sizes = itertools.product((1, 3, 4, 7, 11), (1, 2, 5, 9, 19, 26))
    for (height, width), channels in zip(sizes, itertools.cycle((24, 80, 100, 21))):
        images = 1 if kind == "hybrid" else 1 + height % 2
        for padding in ("SAME", "VALID"):
            case = Case(((images, height, width, channels), (kernel, kernel), 1, (1, 1), dilation, padding))
            if padding == "SAME" or all(n > (kernel - 1) * d for n, d in zip((height, width), dilation)):
                assert depthwise_off(arithmetic, rng, case, kind) <= 1, (case.image, padding)


@pytest.mark.parametrize("kernel, stride, dilation, made", [
    ((3, 3), (1, 1), (2, 3), (3, 1)), ((5, 5), (1, 1), (1, 2), (5, 1)), ((3, 3), (2, 2), (1, 1), (3, 2)),
    ((3, 3), (2, 2), (2, 2), (0, 1)), ((3, 5), (1, 1), (2, 2), (0, 1)), ((3, 3), (1, 2), (1, 1), (0, 1))])
def test_windows_with_tiles_of_their_own(kernel, stride, dilation, made):
    assert special(Windows((1, 30, 30, 8), kernel, 1, stride, dilation)) == made


def test_results_do_not_depend_on_threads(rng):
    dilated = Case(((2, 31, 23, 40), (3, 3), 1, (1, 1), (4, 3), "SAME"))
    for case in (ALL[4], ALL[13], ALL[-1], dilated):
        x, w, bias = (rng.standard_normal(s).astype(np.float32) for s in (case.image, case.kernel, (case.channels,)))
        given = [x, In(w, constant=True), In(bias, constant=True)]
        np.testing.assert_array_equal(case.run(given, Out()), case.run(given, Out(), num_threads=2))


def test_infinite_and_nan_inputs_stay(rng):
    x = np.zeros((1, 4, 4, 2), np.float32)
    x[0, 1, 1, 0], x[0, 3, 3, 1] = np.nan, np.inf
    w = np.ones((3, 1, 1, 2), np.float32)
    got = ALL[0].run([x, In(w, constant=True), In(np.zeros(3, np.float32), constant=True)], Out())
    assert np.isnan(got[0, 1, 1]).all() and np.isposinf(got[0, 3, 3]).all()
    assert np.isfinite(np.delete(got.reshape(16, 3), (5, 15), axis=0)).all()


@pytest.mark.parametrize("image, kernel, bias, text", [
    ((4, 4, 3), (2, 3, 3, 3), 2, "input->dims->size != 4"), ((1, 4, 4, 3), (2, 3, 3), 2, "filter->dims->size != 4"),
    ((1, 4, 4, 3), (2, 3, 3, 2), 2, "input_channel % filter_input_channel != 0"),
    ((1, 4, 4, 3), (2, 3, 3, 3), 5, "NumElements(bias) != SizeOfDimension(filter, 0)"),
    ((1, 2, 2, 3), (2, 9, 9, 3), 2, "does not fit")])
def test_refused(image, kernel, bias, text):
    case = ALL[1] if "fit" in text else ALL[0]
    with pytest.raises(LiteJitError) as caught:
        case.run([np.zeros(image, np.float32), In(np.zeros(kernel, np.float32), constant=True),
                  In(np.zeros(bias, np.float32), constant=True)], Out())
    assert text in str(caught.value)


def test_strides_must_be_positive():
    for op, kernel, channels in (("CONV_2D", (2, 1, 1, 3), 2), ("DEPTHWISE_CONV_2D", (1, 1, 1, 3), 3)):
        given = [np.zeros((1, 2, 2, 3), np.float32), In(np.zeros(kernel, np.float32), constant=True),
                 In(np.zeros(channels, np.float32), constant=True)]
        with pytest.raises(LiteJitError, match="stride_width > 0 was not true"):
            run_op(op, given, Out(), stride_h=1, stride_w=0)
