"""Channel multipliers: elements repeated in registers, for every size of them, against NumPy."""
import numpy as np
import pytest

from litejit.compiler.cpu import LEVELS
from litejit.ops.simd.moves import LANE
from litejit.ops.simd.repeats import picks
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op

CPUS = [cpu for cpu in LEVELS.values() if cpu.arch]
TIMES = (2, 3, 4, 5, 7, 8, 16, 33)
TYPES = {"FLOAT32": np.float32, "INT8": np.int8, "INT16": np.int16}


def picked(x: np.ndarray, table: np.ndarray) -> np.ndarray:
    """What registers have after the shuffles of `table`, as the instructions define them."""
    made = []
    for *lanes, order in table:
        moved = x.view(np.uint32)[lanes[0].view(np.int32)].view(np.uint8) if lanes else x
        assert order.max() < LANE
        made.append(moved.reshape(-1, LANE)[np.arange(order.size) // LANE, order])
    return np.concatenate(made)


@pytest.mark.parametrize("cpu", CPUS, ids=[cpu.name for cpu in CPUS])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_tables(rng, cpu, size):
    for times in TIMES:
        x = rng.integers(0, 256, cpu.vbytes, np.uint8)
        want = np.repeat(x.view(f"u{size}"), times).view(np.uint8)
        np.testing.assert_array_equal(picked(x, picks(cpu, size, times)), want)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("image", [(1, 1, 1, 1), (1, 3, 5, 3), (2, 9, 7, 21), (1, 40, 41, 30)])
def test_channels(rng, kind, image):
    """A 1x1 kernel of ones repeats channels."""
    for times in TIMES:
        channels = image[3] * times
        x = rng.standard_normal(image).astype(np.float32) if kind == "FLOAT32" else rng.integers(-128, 128, image)
        x, quant = x.astype(TYPES[kind]), None if kind == "FLOAT32" else Quant([0.5], [0])
        w = np.ones((1, 1, 1, channels), np.float32 if quant is None else np.int8)
        bias = np.zeros(channels, {"FLOAT32": np.float32, "INT8": np.int32, "INT16": np.int64}[kind])
        given = [In(x, quant), In(w, quant and Quant([1.0], [0]), constant=True), In(bias, constant=True)]
        for threads in (1, 3):
            got = run_op("DEPTHWISE_CONV_2D", given, Out(kind, quant), padding="SAME", stride_w=1, stride_h=1,
                         depth_multiplier=times, num_threads=threads)
            np.testing.assert_array_equal(got, np.repeat(x, times, axis=3))
