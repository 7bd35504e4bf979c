"""Groups of a few float32 channels: picked channels in planes, then a depthwise convolution; its pieces, and against sums."""
from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from litejit.compiler import kernel
from litejit.compiler.cpu import LEVELS, Cpu, executable, target
from litejit.interpreter import Interpreter
from litejit.ops import conv_planes
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.picks import pick_pixels, pick_table
from litejit.planner.graph import Value
from litejit.schema.builder import ModelBuilder
from tests.harness import In, Out, compiled, op_model, run_model, run_op
from tests.twins.conv import conv_sums

F32 = np.float32
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VNNI = LEVELS["avx512vnni"]
FIELDS = ("y", "x", "table", "pixels", "registers", "spans", "x_pixel", "y_pixel")
CALL = np.dtype([(name, "i8") for name in FIELDS], align=True)
ORDERS = [np.arange(3), np.arange(40)[::-1], np.arange(64) % 32 * 2, np.repeat(np.arange(7), 5),
          np.array([99, 0, 50, 98] * 3)]


@kernel(CALL, name="test_picks")
def call_pick(p, begin, end):
    pick_pixels(p.y, p.x, p.table, p.pixels, p.registers, p.spans, p.x_pixel, p.y_pixel)
    return 0


def compare() -> None:
    """Compiled and interpreted against NumPy; runs in a process of its own for each level."""
    run, rng, cpu = compiled(call_pick), np.random.default_rng(0), target()
    for order in ORDERS:
        channels, table = order.max() + 1, pick_table(cpu, order)
        x, wide = rng.standard_normal((5, channels)).astype(F32), len(table) * cpu.lanes
        held = np.concatenate([x.ravel(), np.full(32, 7, F32)])
        for call in (run, lambda p: call_pick(p.view(np.recarray)[0], 0, 1)):
            y, p = np.full((5, wide + 16), 99, F32), np.zeros(1, CALL)
            p["y"], p["x"], p["table"], p["pixels"] = y.ctypes.data, held.ctypes.data, table.ctypes.data, 5
            p["registers"], p["spans"], p["x_pixel"], p["y_pixel"] = *table.shape[:2], 4 * channels, 4 * (wide + 16)
            call(p)
            assert np.array_equal(y[:, :len(order)], x[:, order]) and (y[:, wide:] == 99).all()


@pytest.mark.parametrize("level", [cpu.name for cpu in executable()])
def test_picks(level: str) -> None:
    done = subprocess.run([sys.executable, "-c", "from tests.ops.test_conv_planes import compare; compare()"], cwd=ROOT,
                          env={**os.environ, "LITEJIT_TARGET": level}, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("cpu", LEVELS.values(), ids=list(LEVELS))
def test_tables_read_few_registers(cpu: Cpu) -> None:
    assert pick_table(cpu, np.repeat(np.arange(0, 64, 2), 2)).shape[:2] == (64 // cpu.lanes, 1)
    assert pick_table(cpu, np.arange(cpu.lanes) * 2).shape[:2] == (1, 2)


# ---- choice --------------------------------------------------------------------------------------

@pytest.mark.parametrize("image, kernel, options, wanted", [
    ((1, 28, 28, 32), (32, 3, 3, 2), {}, True), ((1, 28, 28, 32), (32, 3, 3, 4), {}, True),
    ((1, 14, 14, 64), (64, 3, 3, 8), {}, False), ((1, 14, 14, 32), (512, 3, 3, 2), {}, False),
    ((1, 512, 512, 32), (32, 3, 3, 2), {}, False), ((1, 28, 28, 32), (32, 3, 3, 2), {"dilations": (1, 2)}, False),
    ((1, 28, 28, 2), (32, 3, 3, 2), {}, False)])
def test_when_planes_pay(image: tuple[int, ...], kernel: tuple[int, ...], options: dict[str, Any], wanted: bool) -> None:
    windows = Windows(image, kernel[1:3], kernel[3], padding="SAME", **options)
    w = Value("w", 0, 0, "f32", kernel, data=np.ones(kernel, F32), key="w")
    assert conv_planes.pays(VNNI, w, None, windows) is wanted
    assert not conv_planes.pays(VNNI, Value("w", 0, 0, "f32", kernel), None, windows)


# ---- numbers -------------------------------------------------------------------------------------

CASES = [((1, 28, 28, 32), (32, 3, 3, 2), {}), ((2, 9, 7, 12), (6, 3, 3, 2), {"fused_activation_function": "RELU6"}),
         ((1, 11, 13, 48), (48, 5, 2, 4), {"padding": "VALID"}),
         ((3, 8, 15, 64), (32, 3, 3, 2), {"stride_w": 2, "stride_h": 2}),
         ((1, 12, 10, 21), (14, 3, 3, 3), {"dilation_h_factor": 2}), ((1, 30, 1, 40), (40, 9, 1, 2), {}),
         ((1, 1, 30, 64), (32, 1, 7, 2), {"stride_w": 3}), ((1, 6, 5, 96), (96, 1, 1, 2), {})]


@pytest.mark.parametrize("image, kernel, options", CASES)
def test_sums(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, image: tuple[int, ...], kernel: tuple[int, ...],
              options: dict[str, Any]) -> None:
    monkeypatch.setattr(conv_planes, "pays", lambda *_: True)
    x, w = (rng.standard_normal(shape).astype(F32) for shape in (image, kernel))
    bias = rng.standard_normal(kernel[0]).astype(F32)
    given: dict[str, Any] = {"padding": "SAME", "stride_w": 1, "stride_h": 1, **options}
    strides, dilations = (given["stride_h"], given["stride_w"]), (given.get("dilation_h_factor", 1), 1)
    want = conv_sums(x, w, strides, dilations, given["padding"]) + bias
    want = want.clip(0, 6) if "fused_activation_function" in options else want
    content = op_model("CONV_2D", [In(x), In(w, constant=True), In(bias, constant=True)], Out("FLOAT32"), **given)
    found = []
    for threads in (1, 2):
        interpreter = Interpreter(model_content=content, num_threads=threads)
        found.append(next(iter(interpreter.run([x]).values())))
        assert [step.kernel.name for step in interpreter.plan.steps] == ["pick_channels", "depthwise_tiles"]
    assert np.array_equal(*found)
    np.testing.assert_allclose(found[0], want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_groups_do_not_see_each_other(rng: np.random.Generator) -> None:
    """Not even an infinity times zero."""
    x, w = rng.standard_normal((1, 6, 6, 64)).astype(F32), rng.standard_normal((64, 3, 3, 2)).astype(F32)
    plain = run_op("CONV_2D", [In(x), In(w, constant=True)], Out("FLOAT32"), padding="SAME", stride_w=1, stride_h=1)
    x[0, 2, 2, 20] = np.inf
    got = run_op("CONV_2D", [In(x), In(w, constant=True)], Out("FLOAT32"), padding="SAME", stride_w=1, stride_h=1)
    assert np.array_equal(np.delete(got, (20, 21), axis=3), np.delete(plain, (20, 21), axis=3))
    assert not np.isfinite(got[0, 1:4, 1:4, 20]).any() or np.abs(got[0, 1:4, 1:4, 20]).max() > 1e38


def test_float16_and_concatenation(rng: np.random.Generator) -> None:
    x, w = rng.standard_normal((1, 6, 7, 32)).astype(F32), rng.standard_normal((32, 3, 3, 2)).astype(F32)
    want, options = conv_sums(x, w), {"padding": "SAME", "stride_w": 1, "stride_h": 1}
    half = run_op("CONV_2D", [In(x.astype(np.float16)), In(w.astype(np.float16), constant=True)], Out("FLOAT16"), **options)
    np.testing.assert_allclose(half, want, rtol=0, atol=4e-3 * np.abs(want).max())
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    a = graph.input("x", x.shape)
    parts = [graph.add("CONV_2D", [a, graph.constant(f"w{k}", w * k), graph.constant(f"b{k}", np.zeros(32, F32))],
                       (f"y{k}", (1, 6, 7, 32)), **options) for k in (1, 2)]
    graph.outputs(graph.add("CONCATENATION", parts, ("y", (1, 6, 7, 64)), axis=3))
    got = run_model(builder.build(), [x])[0]
    np.testing.assert_allclose(got, np.concatenate([want, 2 * want], 3), rtol=0, atol=1e-5 * 2 * np.abs(want).max())
