"""BATCH_MATMUL against NumPy's matmul and the oracle."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op

F32 = np.float32
CASES = [((3, 5), (5, 4)), ((1, 1), (1, 1)), ((17, 33), (33, 40)), ((2, 9, 16), (2, 16, 70)), ((4, 1, 3, 2), (2, 2, 3)),
         ((2, 1, 30, 20), (1, 3, 20, 35)), ((1, 130), (130, 7)), ((2, 1, 1, 2, 3, 4), (1, 3, 1, 2, 4, 5))]


def turn(a, on):
    return np.ascontiguousarray(np.swapaxes(a, -1, -2)) if on else a


@pytest.mark.parametrize("adj", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("constant", [False, True])
def test_floats(rng, adj, constant):
    for left, right in CASES:
        x, w = rng.standard_normal(left).astype(F32), rng.standard_normal(right).astype(F32)
        for mode in ("auto", "ref"):
            got = run_op("BATCH_MATMUL", [turn(x, adj[0]), In(turn(w, adj[1]), constant=constant)], mode=mode,
                         adj_x=adj[0], adj_y=adj[1])
            want = np.matmul(x.astype(np.float64), w)
            assert got.shape == want.shape and np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("adj", [(False, False), (True, True)])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("zeros", [(3, 0), (-7, 0), (5, -9)])
def test_codes(rng, arithmetic, adj, constant, zeros):
    for left, right in CASES:
        x, w = (rng.integers(-128, 127, shape, np.int8, endpoint=True) for shape in (left, right))
        scale = F32(0.002 * left[-1] ** 0.5)
        for mode in ("auto", "ref"):
            got = run_op("BATCH_MATMUL", [In(turn(x, adj[0]), Quant([0.02], [zeros[0]])),
                                          In(turn(w, adj[1]), Quant([0.01], [zeros[1]]), constant=constant)],
                         Out("INT8", Quant([scale], [4])), mode=mode, adj_x=adj[0], adj_y=adj[1])
            xnn = mode == "auto" and zeros[1] == 0 and len(left) <= 6
            want = arithmetic.batch_matmul_int8(x, w, (F32(0.02), zeros[0]), (F32(0.01), zeros[1]), (scale, 4),
                                                "xnn" if xnn else "ref")
            np.testing.assert_array_equal(got, want)


def test_accumulators(rng):
    x, w = (rng.integers(-128, 127, shape, np.int8, endpoint=True) for shape in ((3, 40), (40, 5)))
    got = run_op("BATCH_MATMUL", [In(x, Quant([1.0], [2])), In(w, Quant([1.0], [0]))], Out("INT32", Quant([1.0], [0])))
    np.testing.assert_array_equal(got, (x.astype(int) - 2) @ w.astype(int))


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("adj", [(False, False), (True, False), (False, True)])
def test_hybrid(rng, arithmetic, adj, asymmetric):
    for left, right in [((2, 6, 50), (50, 20)), ((2, 1, 5, 33), (3, 33, 40)), ((4, 1, 17), (4, 17, 300)), ((30, 16), (16, 9))]:
        x = rng.standard_normal(left).astype(F32)
        w = rng.integers(-127, 127, right, np.int8, endpoint=True)
        shape, k = np.broadcast_shapes(left[:-2], right[:-2]), left[-1]
        pairs = list(zip(np.broadcast_to(x, (*shape, *left[-2:])).reshape(-1, *left[-2:]),
                         np.broadcast_to(w, (*shape, *right[-2:])).reshape(-1, k, right[-1])))
        for constant in (True, False):
            for mode in ("auto", "ref"):
                got = run_op("BATCH_MATMUL", [turn(x, adj[0]), In(turn(w, adj[1]), Quant([0.01], [0]), constant=constant)],
                             mode=mode, adj_x=adj[0], adj_y=adj[1], asymmetric_quantize_inputs=asymmetric)
                xnn = mode == "auto" and constant
                want = np.concatenate([
                    arithmetic.fc_qd8(a, b.T, None, [0.01]) if xnn else np.concatenate(
                        [arithmetic.fc_hybrid(row[None], b.T, None, [0.01], asymmetric=asymmetric) for row in a])
                    for a, b in pairs]).reshape(got.shape)
                assert np.abs(got - want).max() <= (1e-5 * np.abs(want).max() if xnn else 0)


def test_refusals():
    for x, w in (((3, 5), (4, 4)), ((2, 3, 5), (3, 5, 4))):
        with pytest.raises(LiteJitError):
            run_op("BATCH_MATMUL", [np.zeros(x, F32), np.zeros(w, F32)])


def test_int16_times_int8_has_the_scales_of_columns() -> None:
    """LiteRT answers zeros here; litejit what the scales say."""
    rng = np.random.default_rng(3)
    x, w = rng.integers(-3000, 3000, (5, 32)).astype(np.int16), rng.integers(-127, 128, (32, 8)).astype(np.int8)
    scales = np.linspace(0.001, 0.002, 8).astype(np.float32)
    got = run_op("BATCH_MATMUL", [In(x, Quant(0.01)), In(w, Quant(scales, np.zeros(8), 1), constant=True)],
                 Out("INT16", Quant(0.02)), version=4)
    want = (x.astype(np.int64) @ w.astype(np.int64)) * (np.float64(np.float32(0.01)) * scales / np.float64(np.float32(0.02)))
    assert np.abs(got - np.clip(np.rint(want), -32768, 32767)).max() <= 1
    assert np.abs(got).max() > 50


@pytest.mark.parametrize("adj", [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("constant", [False, True])
def test_int16(rng, arithmetic, adj, constant) -> None:
    """Sums that leave 32 bits among them; rounded as 16x8 convolutions are."""
    for left, right in [((17, 33), (33, 40)), ((3, 9, 16), (16, 70)), ((1, 130), (130, 7)), ((2, 5, 700), (700, 3)),
                        ((2, 9, 16), (2, 16, 7))]:
        x = rng.integers(-32768, 32767, left, np.int16, endpoint=True)
        w = rng.choice(np.array([-128, 127, 3], np.int8), right, p=(0.7, 0.2, 0.1))
        sums = np.matmul(x.astype(np.int64), w.astype(np.int64))
        y_scale = F32(0.01) * F32(0.02) * np.abs(sums).max() / 30000
        got = run_op("BATCH_MATMUL", [In(turn(x, adj[0]), Quant([0.01], [0])),
                                      In(turn(w, adj[1]), Quant([0.02], [0]), constant=constant)],
                     Out("INT16", Quant([y_scale], [0])), version=4, adj_x=adj[0], adj_y=adj[1])
        want = arithmetic.gemm16x8_requant(sums.reshape(-1, sums.shape[-1]), None, F32(0.01), [F32(0.02)], y_scale, "NONE")
        np.testing.assert_array_equal(got, want.reshape(sums.shape))


@pytest.mark.parametrize("adj", [(False, False), (False, True), (True, False), (True, True)])
def test_int16_of_both_sides(rng, arithmetic, adj) -> None:
    """Columns that do not lie in one piece are turned first; chunks begin and end within rows."""
    for left, right in [((17, 33), (33, 40)), ((3, 90, 16), (16, 70)), ((1, 130), (130, 7)), ((4, 61, 50), (4, 50, 33)),
                        ((2, 9, 1), (2, 1, 7))]:
        x, w = (rng.integers(-32768, 32767, shape, np.int16, endpoint=True) for shape in (left, right))
        sums = np.matmul(x.astype(np.int64), w.astype(np.int64))
        y_scale = F32(F32(0.01) * F32(0.02) * np.abs(sums).max() / 30000)
        given = [In(turn(x, adj[0]), Quant([0.01], [0])), In(turn(w, adj[1]), Quant([0.02], [0]))]
        want = arithmetic.gemm16x8_requant(sums.reshape(-1, sums.shape[-1]), None, F32(0.01), [F32(0.02)], y_scale, "NONE")
        for threads in (1, 3):
            got = run_op("BATCH_MATMUL", given, Out("INT16", Quant([y_scale], [0])), version=4, num_threads=threads,
                         adj_x=adj[0], adj_y=adj[1])
            np.testing.assert_array_equal(got, want.reshape(sums.shape))
