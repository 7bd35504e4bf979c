"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR against the oracles of LiteRT's arithmetic."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op, type_of

CASES = [  # shape, size
    ((1, 2, 3, 3), (4, 6)), ((2, 5, 7, 20), (3, 4)), ((1, 4, 4, 17), (8, 8)), ((1, 6, 5, 1), (1, 1)), ((1, 1, 1, 3), (3, 2)),
    ((1, 3, 3, 33), (7, 5)), ((1, 33, 20, 1), (70, 65)), ((1, 40, 50, 7), (13, 90)), ((1, 9, 9, 8), (9, 9)),
]
FLAGS = [{}, {"align_corners": True}, {"half_pixel_centers": True}]


def run(op, x, size, flags, mode="auto", quant=None, **arguments):
    return run_op(op, [In(x, quant), In(np.array(size, np.int32), constant=True)], Out(type_of(x), quant), mode=mode,
                  version=3, **flags, **arguments)


def places(flags):
    return flags.get("align_corners", False), flags.get("half_pixel_centers", False)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("mode", ["auto", "ref"])
def test_bilinear_floats(arithmetic, rng, flags, mode):
    twin = arithmetic.resize_bilinear_f32_xnn if mode == "auto" else arithmetic.resize_bilinear_f32_ref
    for shape, size in CASES:
        x = rng.standard_normal(shape).astype(np.float32)
        want = twin(x, *size, *places(flags))
        np.testing.assert_allclose(run("RESIZE_BILINEAR", x, size, flags, mode), want, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_bilinear_codes(arithmetic, rng, flags, dtype):
    info = np.iinfo(dtype)
    for shape, size in CASES:
        x = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
        for mode in ("auto", "ref"):
            if mode == "auto" and dtype != np.int16:
                twin = arithmetic.resize_bilinear_xnn_int
            else:
                twin = arithmetic.resize_bilinear_f32_ref if dtype == np.uint8 else arithmetic.resize_bilinear_int_ref
            got = run("RESIZE_BILINEAR", x, size, flags, mode, Quant([0.1], [0]))
            np.testing.assert_array_equal(got, twin(x, *size, *places(flags)), f"{mode} {shape} {size}")


def nearest(x, size, align, half):
    indices = []
    for given, wanted in zip(x.shape[1:3], size):
        f = np.float32
        scale = f(given - 1) / f(wanted - 1) if align and wanted > 1 else f(given) / f(wanted)
        place = (np.arange(wanted, dtype=f) + f(0.5 if half else 0)) * scale
        index = np.floor(place + f(0.5)) if align else np.floor(place)
        indices.append(np.clip(index, 0, given - 1).astype(int))
    return x[:, indices[0]][:, :, indices[1]]


@pytest.mark.parametrize("flags", [*FLAGS, {"align_corners": True, "half_pixel_centers": True}])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8, np.int16, np.int32, np.bool_])
def test_nearest(rng, flags, dtype):
    for shape, size in CASES:
        x = rng.integers(0, 100, shape).astype(dtype)
        got = run("RESIZE_NEAREST_NEIGHBOR", x, size, flags)
        np.testing.assert_array_equal(got, nearest(x, size, *places(flags)))


def test_threads_and_steps_give_the_same_bits(rng):
    x = rng.standard_normal((1, 40, 40, 24)).astype(np.float32)
    for op in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        one = run(op, x, (111, 90), FLAGS[2])
        np.testing.assert_array_equal(run(op, x, (111, 90), FLAGS[2], num_threads=3), one)
        np.testing.assert_array_equal(run(op, x, (111, 90), FLAGS[2], fuse=False), one)


def test_errors():
    x = np.zeros((1, 2, 2, 1), np.float32)
    with pytest.raises(LiteJitError, match="align_corners must be False"):
        run("RESIZE_BILINEAR", x, (4, 4), {"align_corners": True, "half_pixel_centers": True})
    with pytest.raises(LiteJitError, match=r"size_data\[0\] > 0"):
        run("RESIZE_BILINEAR", x, (0, 4), {})
    with pytest.raises(LiteJitError, match=r"size->dims->data\[0\] != 2"):
        run("RESIZE_NEAREST_NEIGHBOR", x, (4, 4, 4), {})
    with pytest.raises(LiteJitError, match=r"NumDimensions\(input\) != 4"):
        run("RESIZE_NEAREST_NEIGHBOR", x[0], (4, 4), {})
    with pytest.raises(LiteJitError, match="INT32 .*not supported"):
        run("RESIZE_BILINEAR", x.astype(np.int32), (4, 4), {})
