"""16x8 convolutions at the ends of their ranges: sums beyond 32 bits, large biases, multipliers of all sizes."""
import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.ops.conv_16x8 import SUM_LIMIT, Rounding16, fitting_block
from litejit.schema.builder import Quant
from tests.harness import In, Out, op_model, run_model
from tests.twins.conv import conv_sums, depthwise_sums

SHAPES = [  # op, image, weights
    ("CONV_2D", (1, 5, 4, 7), (9, 1, 1, 7)), ("CONV_2D", (2, 6, 7, 5), (40, 3, 3, 5)),
    ("CONV_2D", (1, 3, 3, 33), (70, 3, 3, 33)), ("CONV_2D", (1, 3, 3, 900), (5, 1, 1, 900)),
    ("CONV_2D", (1, 9, 2, 12), (18, 1, 1, 4)), ("CONV_2D", (1, 4, 5, 256), (33, 3, 3, 256)),
    ("DEPTHWISE_CONV_2D", (1, 7, 9, 75), (1, 3, 3, 75)), ("DEPTHWISE_CONV_2D", (1, 26, 25, 3), (1, 23, 23, 3)),
    ("DEPTHWISE_CONV_2D", (1, 5, 5, 4), (1, 2, 3, 12))]
KERNELS = {"once": ("conv_16x8", "depthwise_16x8_once"), "twice": ("conv_16x8", "depthwise_16x8_twice"),
           "exact": ("conv_16x8_blocks", "depthwise_16x8", "depthwise_16x16")}


def build(op, x, w, bias, scales, y_scale):
    axis = 0 if op == "CONV_2D" else 3
    given = [In(x, Quant([0.02], [0])), In(w, Quant(scales.tolist(), [0] * len(scales), axis), constant=True),
             *([] if bias is None else [In(bias, constant=True)])]
    options = {"depth_multiplier": w.shape[3] // x.shape[3]} if axis else {}
    return op_model(op, given, [Out("INT16", Quant([y_scale], [0]))], padding="SAME", stride_h=1, stride_w=1,
                    dilation_h_factor=1, dilation_w_factor=1, **options)


def agrees(arithmetic, op, x, w, bias, scales, y_scale, kind=None, activation="NONE"):
    """Whether the codes are the oracle's, and made by the kernels of a kind."""
    model = build(op, x, w, bias, scales, y_scale)
    sums = (conv_sums if op == "CONV_2D" else depthwise_sums)(x, w)
    want = arithmetic.gemm16x8_requant(sums, bias, np.float32(0.02), scales, np.float32(y_scale), activation)
    made = Interpreter(model_content=model)
    made.allocate_tensors()
    made.set_tensor(made.get_input_details()[0]["index"], x)
    made.invoke()
    got = made.get_tensor(made.get_output_details()[0]["index"])
    step = made.plan.steps[-1]
    tile = kind if kind is None or step.kernel.name != "conv_16x8" else step.params["tile"].name
    return np.array_equal(got, want) and (kind is None or (step.kernel.name in KERNELS[kind] and kind in tile))


def numbers(rng, shape, extreme, low, high):
    """All codes, or the two at the ends."""
    return rng.choice([low, high], shape) if extreme else rng.integers(low, high, shape, endpoint=True)


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("bias_type", [None, np.int64, np.int32])
def test_codes(arithmetic, rng, bias_type, extreme):
    for op, image, kernel in SHAPES:
        count = kernel[0 if op == "CONV_2D" else 3]
        x = numbers(rng, image, extreme, -32768, 32767).astype(np.int16)
        w = numbers(rng, kernel, extreme, -128, 127).astype(np.int8)
        bias = None if bias_type is None else rng.integers(-1 << 20, 1 << 20, count).astype(bias_type)
        scales = rng.uniform(0.005, 0.02, count).astype(np.float32)
        spread = np.sqrt(w.size / count) * 32768 * 128 * 2e-4
        assert agrees(arithmetic, op, x, w, bias, scales, spread / 20000, "twice" if bias_type is np.int32 else None)


@pytest.mark.parametrize("code", [-32768, 32767])
@pytest.mark.parametrize("depth, kind", [(500, "once"), (511, "once"), (512, "exact"), (1100, "exact")])
def test_sums_around_32_bits(arithmetic, depth, kind, code):
    """512 products of -128 and -32768 are 2**31."""
    x, w = np.full((1, 2, 2, depth), code, np.int16), np.full((20, 1, 1, depth), -128, np.int8)
    w[1::2] = 127
    assert agrees(arithmetic, "CONV_2D", x, w, None, np.full(20, 0.01, np.float32), depth * 32768 * 128 * 2e-4 / 32000, kind)


@pytest.mark.parametrize("size", [1, 22, 23, 25])
def test_depthwise_sums_around_32_bits(arithmetic, size):
    x, w = np.full((1, size, size, 5), -32768, np.int16), np.full((1, size, size, 5), -128, np.int8)
    scales, kind = np.full(5, 0.01, np.float32), "once" if size * size < 512 else "exact"
    assert agrees(arithmetic, "DEPTHWISE_CONV_2D", x, w, None, scales, size * size * 32768 * 128 * 2e-4 / 32000, kind)


@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_biases(arithmetic, rng, op):
    """A bias that does not fit 32 bits with the sums needs 64; one of int32 wraps."""
    kernel = (6, 3, 3, 4) if op == "CONV_2D" else (1, 3, 3, 4)
    count = 6 if op == "CONV_2D" else 4
    x = rng.integers(-32768, 32768, (1, 5, 5, 4)).astype(np.int16)
    w = rng.integers(-127, 128, kernel).astype(np.int8)
    scales = np.full(count, 0.01, np.float32)
    for most, kind in ((1 << 30, "once"), (1 << 31, "exact"), (1 << 40, "exact")):
        bias = np.array([most, -most] * (count // 2), np.int64)
        assert agrees(arithmetic, op, x, w, bias, scales, most * 2e-4 / 30000, kind)
    bias = np.array([2**31 - 1, -2**31] * (count // 2), np.int32)
    assert agrees(arithmetic, op, x, w, bias, scales, 2**31 * 2e-4 / 30000, "twice")


@pytest.mark.parametrize("bias_type", [np.int64, np.int32])
def test_multipliers(arithmetic, rng, bias_type):
    """From 2**-33 (which is 0) to 2**13, all signs of the shift in one tensor."""
    scales = np.exp2(np.arange(-33, 13)).astype(np.float32) * rng.uniform(1, 1.999, 46).astype(np.float32)
    scales[0] = np.exp2(np.float32(-34))
    x = rng.integers(-32768, 32768, (1, 6, 7, 8)).astype(np.int16)
    bias = rng.integers(-1 << 24, 1 << 24, 46).astype(bias_type)
    for op, kernel, image in (("CONV_2D", (46, 1, 1, 8), x), ("DEPTHWISE_CONV_2D", (1, 3, 3, 46), np.tile(x, 6)[..., :46])):
        w = rng.integers(-127, 128, kernel).astype(np.int8)
        for divide in (1, 1000):
            assert agrees(arithmetic, op, image // divide, w, bias // divide, scales / np.float32(0.02), 1.0,
                          "once" if bias_type is np.int64 else "twice")


def test_threads_give_the_same_codes(rng):
    for op, image, kernel in SHAPES:
        x = rng.integers(-32768, 32768, image).astype(np.int16)
        w = rng.integers(-127, 128, kernel).astype(np.int8)
        model = build(op, x, w, None, np.full(kernel[0 if op == "CONV_2D" else 3], 0.01, np.float32), 50.0)
        for one, two in zip(run_model(model, [x], num_threads=1), run_model(model, [x], num_threads=2)):
            np.testing.assert_array_equal(one, two)


def test_blocks_of_k(rng):
    data = rng.integers(-127, 128, (2, 3, 1501)).astype(np.int8)
    assert fitting_block(data[:, :, :100]) == 100
    for weights in (data, np.full((1, 2, 5000), -128, np.int8)):
        block, k = fitting_block(weights), weights.shape[2]
        assert block % 2 == 0
        for at in range(0, k, block):
            assert np.abs(weights[:, :, at:at + block].astype(np.int64)).sum(axis=2).max() < SUM_LIMIT


def test_rounding_refuses_what_the_tiles_cannot():
    """Multipliers of 2**14 and more shift to the left in 64 bits; biases may fill 32 bits but no more."""
    assert Rounding16(None, np.array([2.0**13]), 3).fits(np.ones(3, np.int64))
    assert not Rounding16(None, np.array([2.0**15]), 3).fits(np.ones(3, np.int64))
    assert Rounding16(None, np.array([0.1]), 1).fits(np.array([SUM_LIMIT - 1]))
    assert not Rounding16(None, np.array([0.1]), 1).fits(np.array([SUM_LIMIT]))
