"""CONV_2D by Winograd's tiles, whatever the cost rule says: accuracy, threads, values that are not finite, and the rule."""
import numpy as np
import pytest

from litejit.compiler.cpu import LEVELS, target
from litejit.ops import conv
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_winograd import Tiling, tiling
from litejit.ops.simd.winograd import matrices, taps_from_points
from tests.harness import In, Out, run_op
from tests.twins.conv import conv_sums

CASES = [  # image, output channels, padding
    ((1, 8, 8, 16), 32, "SAME"), ((1, 13, 9, 64), 40, "SAME"), ((3, 7, 10, 5), 3, "SAME"), ((2, 9, 6, 33), 50, "VALID"),
    ((1, 3, 3, 20), 17, "VALID"), ((1, 1, 1, 4), 5, "SAME"), ((1, 57, 43, 12), 70, "SAME"), ((2, 30, 29, 48), 65, "VALID"),
    ((1, 14, 14, 256), 100, "SAME"), ((1, 7, 7, 512), 64, "SAME"), ((1, 130, 131, 3), 8, "SAME"), ((5, 4, 5, 90), 130, "SAME"),
]
wide = pytest.mark.skipif(not target().fma or target().vbytes < 32, reason="this CPU level has the direct kernel only")


def run(monkeypatch, size, x, w, bias, padding="SAME", act="NONE", **arguments):
    monkeypatch.setattr(conv, "tiling", lambda cpu, windows, n, products: Tiling(size, products))
    return run_op("CONV_2D", [x, In(w, constant=True), None if bias is None else In(bias, constant=True)], Out(), stride_h=1,
                  stride_w=1, dilation_h_factor=1, dilation_w_factor=1, padding=padding, fused_activation_function=act,
                  **arguments)


def given(rng, image, n):
    x, w, bias = (rng.standard_normal(shape) for shape in (image, (n, 3, 3, image[3]), (n,)))
    return tuple(a.astype(np.float32) for a in (x, w * (2 / (9 * image[3])) ** 0.5, bias * 0.1))


@wide
@pytest.mark.parametrize("size", [2, 4])
def test_close_to_float64(rng, monkeypatch, size):
    for k, (image, n, padding) in enumerate(CASES):
        x, w, bias = given(rng, image, n)
        x = np.maximum(x, 0) if k % 2 else x
        wanted = conv_sums(x.astype(np.float64), w.astype(np.float64), (1, 1), (1, 1), padding) + bias
        got = run(monkeypatch, size, x, w, bias, padding)
        assert np.abs(got - wanted).max() <= 5e-6 * np.abs(wanted).max(), (image, n)
        got = run(monkeypatch, size, x, w, None, padding, "RELU6")
        assert np.abs(got - np.clip(wanted - bias, 0, 6)).max() <= 5e-6 * np.abs(wanted).max(), (image, n)


@wide
@pytest.mark.parametrize("size", [2, 4])
def test_threads_change_nothing(rng, monkeypatch, size):
    for image, n in (((1, 57, 43, 12), 70), ((1, 14, 14, 256), 100), ((1, 130, 131, 24), 40)):
        x, w, bias = given(rng, image, n)
        one = run(monkeypatch, size, x, w, bias)
        np.testing.assert_array_equal(one, run(monkeypatch, size, x, w, bias, num_threads=2))


@wide
@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("act", ["NONE", "RELU6"])
def test_infinities_and_nan_as_in_the_direct_kernel(rng, monkeypatch, size, act):
    limit = 6 if act == "RELU6" else np.inf
    for spot in ((0, 0), (3, 4), (5, 5), (9, 12), (7, 2)):
        for value in (np.inf, -np.inf, np.nan, 3e38):
            x, w, bias = given(rng, (1, 10, 13, 9), 37)
            w[3, 0, 0], w[5, 2] = 0, 0
            x[(0, *spot, 4)] = value
            direct, got = (run(monkeypatch, m, x, w, bias, act=act) for m in (0, size))
            np.testing.assert_array_equal(np.isnan(got), np.isnan(direct))
            finite = np.isfinite(direct)
            np.testing.assert_array_equal(got[~finite], direct[~finite])
            most = 3e38 if value == 3e38 else np.abs(direct[finite]).max()
            assert np.abs(got[finite] - direct[finite]).max() <= min(1e-5 * most, limit)


@pytest.mark.parametrize("m", [2, 4])
def test_matrices(rng, m):
    at, g, bt = matrices(m)
    d, taps = rng.standard_normal(m + 2), rng.standard_normal(3)
    np.testing.assert_allclose(at @ ((g @ taps) * (bt @ d)), [d[i:i + 3] @ taps for i in range(m)], atol=1e-12)
    np.testing.assert_allclose(taps_from_points(m) @ g, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(bt, bt.astype(np.float32))


@pytest.mark.parametrize("level, size, channels, wanted", [
    ("avx512", 56, 64, 4), ("avx2", 56, 64, 4), ("avx512", 14, 256, 4), ("avx512", 7, 512, 2), ("avx512", 2, 64, 0),
    ("avx512", 112, 3, 0), ("avx512", 14, 1024, 2), ("sse4", 56, 64, 0), ("neon", 56, 64, 0)])
def test_rule(level, size, channels, wanted):
    cpu = LEVELS[level]
    assert tiling(cpu, Windows((1, size, size, channels), (3, 3), channels, padding="SAME"), channels) == (wanted, "f32")
    for steps in (((2, 2), (1, 1)), ((1, 1), (2, 2))):
        windows = Windows((1, size, size, channels), (3, 3), channels, *steps, padding="SAME")
        assert tiling(cpu, windows, channels) == (0, "f32")
