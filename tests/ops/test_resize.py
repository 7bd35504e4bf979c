"""RESIZE_BILINEAR and RESIZE_NEAREST_NEIGHBOR against the oracles of LiteRT's arithmetic."""
from types import SimpleNamespace

import numpy as np
import pytest

from litejit.compiler.cpu import target
from litejit.errors import LiteJitError
from litejit.ops.base import Target
from litejit.ops.resize import OPERATORS
from litejit.ops.simd.pixels import MIX, WEIGHT_BITS, picked_reach
from litejit.planner.graph import Node, Value
from litejit.schema.builder import Quant
from tests.harness import LESSER, In, Out, passes_as, run_op, type_of
from tests.ops.test_copy import Native, as_python
from tests.ops.test_copy import run as run_steps

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


# ---- whole registers -----------------------------------------------------------------------------

TYPES = {np.int8: "i8", np.float32: "f32", np.uint8: "u8", np.int16: "i16"}


def backwards(op, x, size, how=None):
    """The output of the steps, whose last chunks run first: what reaches into another one stays to be seen. And the chunks."""
    shape, guard = (x.shape[0], *size, x.shape[3]), 64
    given = Value("x", 0, 0, TYPES[x.dtype.type], x.shape)
    wanted = Value("size", 1, 0, "i32", (2,), data=np.array(size, np.int32), key="size")
    out = Value("y", 2, 0, TYPES[x.dtype.type], shape)
    node = Node(op, None, 0, 0, [given, wanted], [out], SimpleNamespace(align_corners=False, half_pixel_centers=True))
    node.xnn = True
    steps = OPERATORS[op].steps(node, Target(target()))
    y = np.full(out.size + guard, 3, x.dtype)
    run_steps(steps, {given: np.concatenate([x.reshape(-1), np.zeros(guard, x.dtype)]), out: y}, how or Native(backwards=True))
    assert (y[out.size:] == 3).all()
    return y[:out.size].reshape(shape), sum(step.chunks for step in steps)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8, 15, 16, 17, 31, 40, 70])
def test_chunks_keep_to_themselves(arithmetic, rng, channels):
    x = rng.integers(-100, 100, (2, 24, 31, channels)).astype(np.int8)
    for dtype in (np.int8, np.float32, np.int16):
        got, chunks = backwards("RESIZE_NEAREST_NEIGHBOR", x.astype(dtype), (190, 70))
        assert chunks > 1
        np.testing.assert_array_equal(got, nearest(x, (190, 70), False, True))
    got, chunks = backwards("RESIZE_BILINEAR", x, (190, 70))
    np.testing.assert_array_equal(got, arithmetic.resize_bilinear_xnn_int(x, 190, 70, False, True))
    real = rng.standard_normal(x.shape).astype(np.float32)
    got, more = backwards("RESIZE_BILINEAR", real, (190, 70))
    assert chunks > 1 and more > 1
    np.testing.assert_allclose(got, arithmetic.resize_bilinear_f32_xnn(real, 190, 70, False, True), rtol=1e-5, atol=3e-6)


def test_kernels_as_python(rng):
    x = rng.integers(-100, 100, (1, 4, 5, 6)).astype(np.int8)
    for op, given in (("RESIZE_NEAREST_NEIGHBOR", x), ("RESIZE_NEAREST_NEIGHBOR", x.astype(np.float32)),
                      ("RESIZE_BILINEAR", x.astype(np.float32))):
        np.testing.assert_array_equal(*(backwards(op, given, (7, 6), how)[0] for how in (as_python, None)))


def test_codes_are_mixed_as_python():
    mixed = np.array([[5, -7], [9, 100]], np.int32) << WEIGHT_BITS
    table, y = np.array([[0, 1, 1024], [1, 0, 0]], np.int32), np.zeros((2, 2), np.int8)
    MIX["codes"](y.ctypes.data, mixed.ctypes.data, table.ctypes.data, 2, 2)
    assert y.tolist() == [[7, 47], [9, 100]]


def test_how_far_registers_reach():
    assert [picked_reach(run) for run in (1, 15, 16, 17, 33, 64, 65)] == [15, 1, 0, 15, 31, 0, 63]


@pytest.mark.parametrize("level", LESSER)
def test_other_cpus(level):
    """The same tests on code for lesser CPUs, in a process of their own."""
    code, text = passes_as(level, __file__, "floats or codes or chunks")
    assert code == 0, text
