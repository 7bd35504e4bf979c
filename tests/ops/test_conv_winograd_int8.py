"""CONV_2D on 8-bit codes by Winograd's tiles, whatever the cost rule says: the bits of the direct kernel; and the rule."""
import numpy as np
import pytest

from litejit.compiler.cpu import LEVELS, target
from litejit.ops import conv
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_int8 import Weights
from litejit.ops.conv_winograd_int8 import tile_size_int8
from litejit.ops.simd.winograd_int8 import INVERSE, SHIFTS, TAPS, fits_winograd
from litejit.planner.graph import Value
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op

CASES = [  # image, output channels, padding
    ((1, 8, 8, 16), 32, "SAME"), ((1, 13, 9, 64), 40, "SAME"), ((3, 7, 10, 5), 3, "SAME"), ((2, 9, 6, 33), 50, "VALID"),
    ((1, 3, 3, 20), 17, "VALID"), ((1, 1, 1, 4), 5, "SAME"), ((1, 57, 43, 12), 70, "SAME"), ((2, 30, 29, 48), 65, "VALID"),
    ((1, 14, 14, 256), 100, "SAME"), ((1, 7, 7, 160), 24, "SAME"), ((1, 130, 131, 3), 8, "SAME"), ((5, 4, 5, 90), 130, "SAME"),
]
able = pytest.mark.skipif(target().arch != "x86_64", reason="this CPU level has the direct kernel only")


def run(monkeypatch, size, x, w, bias, types, zeros=(3, 0, -5), padding="SAME", act="NONE", **arguments):
    monkeypatch.setattr(conv, "tile_size_int8", lambda cpu, windows, weights: size)
    scale = np.float32(0.1 * x.shape[3] ** 0.5)
    quant = Quant([0.01] * (1 if types == "UINT8" else len(w)), [zeros[1]] * (1 if types == "UINT8" else len(w)), 0)
    return run_op("CONV_2D", [In(x, Quant([0.02], [zeros[0]])), In(w, quant, constant=True), In(bias, constant=True)],
                  Out(types, Quant([scale], [zeros[2]])), stride_h=1, stride_w=1, dilation_h_factor=1, dilation_w_factor=1,
                  padding=padding, fused_activation_function=act, **arguments)


def given(rng, image, n, dtype, extreme=False):
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    x, w = (rng.choice([low, high], shape).astype(dtype) if extreme else rng.integers(low, high, shape, dtype, endpoint=True)
            for shape in (image, (n, 3, 3, image[3])))
    if dtype == np.int8:
        w = np.maximum(w, -127).astype(np.int8)
    return x, w, rng.integers(-30000, 30000, n).astype(np.int32)


@able
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("type", ["INT8", "UINT8"])
def test_bits_of_the_direct_kernel(rng, monkeypatch, size, type):
    dtype, zeros = (np.int8, (3, 0, -5)) if type == "INT8" else (np.uint8, (120, 131, 17))
    for k, (image, n, padding) in enumerate(CASES):
        x, w, bias = given(rng, image, n, dtype, extreme=k % 3 == 2)
        for act in ("NONE", "RELU"):
            direct, got = (run(monkeypatch, m, x, w, bias, type, zeros, padding, act) for m in (0, size))
            np.testing.assert_array_equal(got, direct, err_msg=f"{image} {n}")
            assert direct.size < 99 or len(np.unique(direct)) > 20


@able
@pytest.mark.parametrize("size", [2, 4])
def test_largest_sums(rng, monkeypatch, size):
    """All products of one sign, up to what the rule lets through."""
    channels = 200 if size == 4 else 512
    for sign in (1, -1):
        x = np.full((1, 9, 10, channels), -128, np.int8)
        w = np.full((18, 3, 3, channels), 127 * sign, np.int8)
        w[1::2] = rng.integers(-127, 128, w[1::2].shape)
        assert fits_winograd(w.reshape(18, -1), size)
        bias = rng.integers(-30000, 30000, 18).astype(np.int32)
        direct, got = (run(monkeypatch, m, x, w, bias, "INT8", (127, 0, 0)) for m in (0, size))
        np.testing.assert_array_equal(got, direct)
    assert not fits_winograd(np.full((1, 9 * 4000), 127), size)


@able
@pytest.mark.parametrize("size", [2, 4])
def test_threads_change_nothing(rng, monkeypatch, size):
    for image, n in (((1, 57, 43, 12), 70), ((1, 14, 14, 256), 100), ((1, 130, 131, 24), 40)):
        x, w, bias = given(rng, image, n, np.int8)
        one = run(monkeypatch, size, x, w, bias, "INT8")
        np.testing.assert_array_equal(one, run(monkeypatch, size, x, w, bias, "INT8", num_threads=2))


@pytest.mark.parametrize("m", [2, 4])
def test_matrices(m):
    """The taps at the points 0, +-1, +-2 and infinity are whole, and what they are too large by is undone exactly."""
    assert INVERSE[m] * (9 if m == 4 else 1) % (1 << 32) == 1
    points = np.array([0, 1, -1, 2, -2][:m + 1])
    for point, row in zip(points, TAPS[m]):
        wanted = point ** np.arange(3)
        assert np.array_equal(row, wanted) or np.array_equal(row, -wanted)
    assert len(SHIFTS[m]) == m and TAPS[m][-1] == (0, 0, 1)


@pytest.mark.parametrize("level, size, channels, wanted", [
    ("avx2", 56, 64, 4), ("avx2", 14, 256, 4), ("avx512", 56, 64, 4), ("avx2", 112, 3, 0), ("avx512vnni", 56, 64, 4),
    ("avx512vnni", 28, 128, 4), ("avx512vnni", 14, 256, 0), ("avx512vnni", 7, 512, 0), ("avxvnni", 56, 64, 0),
    ("neon", 56, 64, 0)])
def test_rule(level, size, channels, wanted):
    cpu, w = LEVELS[level], np.full((channels, 3, 3, channels), 60, np.int8)
    value = Value("w", 1, 0, "i8", w.shape, data=w, key=("w",))
    weights = Weights(value, None, 1, cpu)
    assert tile_size_int8(cpu, Windows((1, size, size, channels), (3, 3), channels, padding="SAME"), weights) == wanted
    for steps in (((2, 2), (1, 1)), ((1, 1), (2, 2))):
        assert tile_size_int8(cpu, Windows((1, size, size, channels), (3, 3), channels, *steps, padding="SAME"), weights) == 0
