"""Which way a convolution goes: rows read in place, groups merged, signals along their rows. Every way has the same numbers."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from litejit.compiler.assembly import assembly
from litejit.compiler.cpu import LEVELS, target
from litejit.interpreter import Interpreter
from litejit.ops import (
    conv,
    conv_band,
    conv_f32,
    conv_groups,
    conv_hybrid,
    conv_int8,
    conv_rows,
    conv_rows_int8,
    conv_ways,
    conv_winograd_int8,
    packed_product,
)
from litejit.ops.base import MAX_CHUNKS
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd import gemm_int8
from litejit.ops.simd.tiles import tiles
from litejit.planner.graph import Value
from litejit.schema.builder import ModelBuilder, Quant
from tests.harness import In, Out, op_model, run_model, run_op
from tests.twins.conv import conv_sums

VNNI = LEVELS["avx512vnni"]


def codes_model(rng: np.random.Generator, image: tuple[int, ...], kernel: tuple[int, ...], type: type = np.int8,
                out: Quant | None = None, **options: Any) -> bytes:
    """A CONV_2D of codes with constant weights."""
    zero, name = (120, "UINT8") if type is np.uint8 else (-3, "INT8")
    w = rng.integers(0 if type is np.uint8 else -127, 255 if type is np.uint8 else 127, kernel).astype(type)
    bias = rng.integers(-2000, 2000, kernel[0]).astype(np.int32)
    x = np.zeros(image, type)
    given = [In(x, Quant([0.02], [zero])), In(w, Quant([0.01], [117 if type is np.uint8 else 0]), constant=True),
             In(bias, constant=True)]
    options = {"padding": "SAME", "stride_w": 1, "stride_h": 1, **options}
    return op_model("CONV_2D", given, Out(name, out or Quant([0.3], [zero])), version=3, **options)


def outputs(content: bytes, image: tuple[int, ...], type: type = np.int8, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    interpreter, rng = Interpreter(model_content=content, num_threads=2), np.random.default_rng(seed)
    info = np.iinfo(type)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, rng.integers(info.min, info.max, image, type, endpoint=True))
    interpreter.invoke()
    return (interpreter.get_tensor(interpreter.get_output_details()[0]["index"]),
            [step.kernel.name for step in interpreter.plan.steps])


# ---- rows read in place ------------------------------------------------------------------------------

@pytest.mark.parametrize("dims, kernel, depth, strides, dilations, n, wanted", [
    ((1, 224, 224, 3), (3, 3), 3, (2, 2), (1, 1), 32, True), ((1, 56, 56, 16), (3, 3), 16, (1, 1), (1, 1), 16, True),
    ((1, 49, 10, 1), (10, 4), 1, (2, 2), (1, 1), 64, True), ((1, 14, 14, 64), (1, 1), 64, (2, 2), (1, 1), 64, False),
    ((1, 28, 28, 16), (3, 3), 4, (1, 1), (1, 1), 4, True), ((1, 28, 28, 16), (3, 3), 16, (1, 1), (1, 2), 16, True),
    ((1, 64, 64, 64), (3, 3), 64, (1, 1), (30, 30), 64, False),           # 61 rows for every row of the output
    ((1, 8, 8, 512), (3, 3), 512, (1, 1), (1, 1), 512, False), ((0, 8, 8, 3), (3, 3), 3, (1, 1), (1, 1), 8, False)])
def test_rows_are_read_in_place_where_that_pays(dims: tuple[int, ...], kernel: tuple[int, int], depth: int,
                                                strides: tuple[int, int], dilations: tuple[int, int], n: int,
                                                wanted: bool) -> None:
    windows = Windows(dims, kernel, depth, strides, dilations, "SAME")
    in_rows, gathered = (cost(VNNI, windows, n, False) for cost in (conv_ways.in_rows, conv_ways.gathered))
    assert (in_rows < gathered) is wanted


@pytest.mark.parametrize("dims, kernel, depth, dilations, wanted", [
    ((1, 9, 9, 8), (3, 5), 8, (1, 1), (3, 40)), ((1, 9, 9, 8), (3, 5), 8, (2, 1), (3, 40)),
    ((1, 9, 9, 8), (3, 5), 8, (1, 2), (15, 8)), ((1, 9, 9, 8), (3, 5), 4, (1, 1), (15, 4))])
def test_pieces_of_a_window(dims: tuple[int, ...], kernel: tuple[int, int], depth: int, dilations: tuple[int, int],
                            wanted: tuple[int, int]) -> None:
    assert conv_band.pieces(Windows(dims, kernel, depth, dilations=dilations)) == wanted


@pytest.mark.parametrize("type", [np.int8, np.uint8])
@pytest.mark.parametrize("image, kernel, options", [
    ((2, 9, 15, 3), (8, 3, 3, 3), {}), ((1, 30, 29, 3), (24, 7, 5, 3), {"stride_w": 2, "stride_h": 2}),
    ((1, 12, 40, 17), (33, 3, 3, 17), {"padding": "VALID"}), ((1, 20, 9, 2), (5, 4, 2, 2), {"dilation_h_factor": 3}),
    ((3, 2, 2, 5), (70, 5, 5, 5), {}), ((1, 64, 300, 3), (16, 3, 3, 3), {"stride_h": 3}),
    ((2, 11, 13, 24), (40, 3, 3, 24), {"dilation_w_factor": 2, "dilation_h_factor": 3}),
    ((1, 9, 16, 96), (96, 3, 3, 24), {}), ((2, 8, 10, 64), (160, 2, 3, 32), {"stride_w": 2, "padding": "VALID"}),
    ((1, 10, 17, 20), (20, 5, 3, 5), {"dilation_w_factor": 3}), ((1, 7, 30, 9), (9, 3, 3, 3), {"stride_h": 2})])
def test_rows_read_in_place_give_the_same_codes(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, type: type,
                                                image: tuple[int, ...], kernel: tuple[int, ...],
                                                options: dict[str, Any]) -> None:
    content = codes_model(rng, image, kernel, type, **options)
    monkeypatch.setattr(conv, "tile_size_int8", lambda *_: 0)
    monkeypatch.setattr(conv_int8, "gathered", lambda *_: math.inf)
    got, names = outputs(content, image, type)
    assert names == ["conv_rows_int8"]
    monkeypatch.setattr(conv_int8, "in_rows", lambda *_: math.inf)
    want, names = outputs(content, image, type)
    assert names == ["conv_int8"] and np.array_equal(got, want)


@pytest.mark.parametrize("image, kernel, options", [
    ((3, 9, 15, 3), (8, 3, 3, 3), {}), ((2, 30, 29, 3), (24, 7, 5, 3), {"stride_w": 2, "stride_h": 2}),
    ((1, 12, 40, 17), (33, 3, 3, 17), {"padding": "VALID"}), ((2, 11, 13, 24), (40, 3, 3, 24), {"dilation_w_factor": 2}),
    ((2, 9, 16, 96), (96, 3, 3, 24), {"fused_activation_function": "RELU6"}), ((2, 7, 30, 9), (9, 3, 3, 3), {"stride_h": 2})])
def test_hybrid_rows_read_in_place_give_the_same_numbers(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator,
                                                         image: tuple[int, ...], kernel: tuple[int, ...],
                                                         options: dict[str, Any]) -> None:
    """Every image has a scale and a zero point of its own, which is also its padding."""
    scales = np.arange(1, image[0] + 1)[:, None, None, None]
    x = (rng.standard_normal(image) * scales + scales).astype(np.float32)
    w = rng.integers(-127, 127, kernel).astype(np.int8)
    given = [In(x), In(w, Quant(rng.uniform(0.005, 0.02, kernel[0]), [0] * kernel[0]), constant=True),
             In(rng.standard_normal(kernel[0]).astype(np.float32), constant=True)]
    options = {"padding": "SAME", "stride_w": 1, "stride_h": 1, **options}
    content = op_model("CONV_2D", given, Out("FLOAT32"), version=5, **options)

    def run(wanted: str, threads: int) -> np.ndarray:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        found = next(iter(interpreter.run([x]).values()))
        assert [step.kernel.name for step in interpreter.plan.steps] == ["quantise_rows_xnn", wanted]
        return found
    for module in (conv_hybrid, conv_groups):
        monkeypatch.setattr(module, "gathered", lambda *_: math.inf)
    got = run("conv_rows_int8", 1)
    assert np.array_equal(got, run("conv_rows_int8", 2)) and got.std() > 0
    monkeypatch.setattr(conv_hybrid, "in_rows", lambda *_: math.inf)
    assert np.array_equal(got, run("conv_int8", 1))


def test_bands_of_tall_images_are_planned_at_once() -> None:
    """A million rows: what their tiles are is a formula, and few numbers of rows are looked at."""
    windows = Windows((1, 1_000_000, 3, 4), (3, 3), 4, padding="SAME")
    made = conv_band.band(VNNI, windows, 8)
    assert made.rows * MAX_CHUNKS >= windows.out_height and made.tiles * 7 >= windows.m
    small = conv_band.band(VNNI, Windows((1, 10, 10, 4), (3, 3), 4, padding="SAME"), 8)
    assert small.tiles == sum(-(-min(small.rows, 10 - top) * 10 // 7) for top in range(0, 10, small.rows))


# ---- codes of the whole range ------------------------------------------------------------------------

@pytest.mark.parametrize("image, kernel", [((2, 9, 7, 20), (70, 1, 1, 20)), ((1, 9, 9, 5), (40, 3, 3, 5)),
                                           ((1, 8, 9, 300), (33, 2, 2, 300))])
@pytest.mark.parametrize("type, zero, wanted", [(np.int8, -128, "positive"), (np.int8, 9, "whole"), (np.uint8, 0, "positive"),
                                                (np.uint8, 130, "whole")])
def test_packing_clamps_codes_of_the_whole_range(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, type: type,
                                                 zero: int, wanted: str, image: tuple[int, ...], kernel: tuple[int, ...]
                                                 ) -> None:
    monkeypatch.setattr(conv, "tile_size_int8", lambda *_: 0)
    content = codes_model(rng, image, kernel, type, out=Quant([0.01], [zero]))
    got, _ = outputs(content, image, type)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    marks = interpreter.plan.steps[-1].params["tile"].name.split("_")
    assert (wanted in marks) is (target().vbytes == 64)
    for module in (conv_int8, packed_product):
        monkeypatch.setattr(module, "range_of", lambda *_: "")
    want, _ = outputs(content, image, type)
    info = np.iinfo(type)
    assert np.array_equal(got, want) and got.min() == info.min and got.max() == info.max


# ---- few outputs -------------------------------------------------------------------------------------

@pytest.mark.parametrize("image, kernel", [((2, 9, 7, 20), (3, 1, 1, 20)), ((1, 9, 9, 5), (8, 3, 3, 5)),
                                           ((1, 8, 9, 200), (35, 2, 2, 200)), ((2, 7, 7, 12), (1, 3, 3, 12))])
@pytest.mark.parametrize("type", [np.int8, np.uint8])
def test_few_outputs_take_half_a_register(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, type: type,
                                          image: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    monkeypatch.setattr(conv, "tile_size_int8", lambda *_: 0)
    content = codes_model(rng, image, kernel, type)
    got, _ = outputs(content, image, type)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    last = interpreter.plan.steps[-1].params["last_tile"]
    halved = target().vbytes == 64 and not {"rows", "segments"} <= set(last.name.split("_"))     # of those sums take registers
    assert last.name.endswith("_quarter") is halved
    if halved:
        dots = [line for line in assembly(last, target()).splitlines() if "vpdpbusd" in line or "vpmaddwd" in line]
        assert dots and all("ymm" in line for line in dots)
    whole = gemm_int8.panel_tiles
    for module in (conv_rows_int8, gemm_int8):
        monkeypatch.setattr(module, "panel_tiles", lambda cpu, kind, n: whole(cpu, kind, 32))
    want, _ = outputs(content, image, type)
    assert np.array_equal(got, want) and got.std() > 0


@pytest.mark.parametrize("outputs_, wanted", [(8, True), (16, False)])
def test_winograd_weighs_half_registers(outputs_: int, wanted: bool) -> None:
    """Tiles of half a register make direct products worth more."""
    windows = Windows((1, 28, 28, 64), (3, 3), 64, padding="SAME")
    direct, *others = (conv_winograd_int8._cost(VNNI, windows, outputs_, m) for m in (0, 2, 4))
    assert (direct < min(others)) is wanted


# ---- merged groups -----------------------------------------------------------------------------------

@pytest.mark.parametrize("channels, depth, outputs_, wanted", [
    (128, 4, 128, 4), (64, 32, 128, 1), (12, 2, 6, 6), (512, 256, 512, 1), (16, 16, 32, 1)])
def test_as_many_groups_are_merged_as_fill_a_panel(channels: int, depth: int, outputs_: int, wanted: int) -> None:
    windows = Windows((1, 14, 14, channels), (3, 3), depth, padding="SAME")
    w = Value("w", 0, 0, "i8", (outputs_, 3, 3, depth), data=np.ones((outputs_, 3, 3, depth), np.int8), key="w")
    wider, made = conv_groups.merged(VNNI, w, windows, 0, in_place=False)
    assert made.depth == wider.dims[3] == wanted * depth and windows.depth == depth
    assert np.count_nonzero(wider.data) == w.size


@pytest.mark.parametrize("type", [np.int8, np.uint8])
def test_merged_groups_give_the_same_codes(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, type: type) -> None:
    for image, kernel in (((1, 7, 9, 64), (32, 3, 3, 2)), ((2, 6, 5, 48), (96, 3, 3, 12)), ((1, 5, 4, 30), (10, 1, 1, 3))):
        content = codes_model(rng, image, kernel, type)
        got, _ = outputs(content, image, type)
        with monkeypatch.context() as patch:
            patch.setattr(conv, "merged", lambda cpu, w, windows, zero, in_place: (w, windows))
            want, _ = outputs(content, image, type)
        assert np.array_equal(got, want)


# ---- groups of one channel ---------------------------------------------------------------------------

ONE_EACH = [((1, 7, 9, 64), (64, 3, 3, 1), {}), ((2, 6, 5, 3), (6, 5, 3, 1), {"stride_w": 2}),
            ((1, 9, 1, 5), (20, 3, 1, 1), {}), ((1, 12, 10, 2), (70, 3, 3, 1), {"padding": "VALID", "dilation_h_factor": 2})]


def test_when_groups_are_a_depthwise_convolution() -> None:
    def found(channels: int, kernel: tuple[int, ...], data: bool = True) -> bool:
        w = Value("w", 0, 0, "f32", kernel, data=np.ones(kernel, np.float32) if data else None, key="w")
        windows = Windows((1, 14, 14, channels), kernel[1:3], kernel[3], padding="SAME")
        return conv_groups.by_channels(VNNI, w, None, windows)
    assert found(8, (8, 3, 3, 1)) and found(4, (128, 3, 3, 1)) and found(16, (48, 1, 1, 1))
    assert not found(4, (128, 1, 1, 1)) and not found(1, (8, 3, 3, 1)) and not found(8, (8, 3, 3, 2))
    assert not found(8, (8, 3, 3, 1), data=False)


@pytest.mark.parametrize("image, kernel, options", ONE_EACH)
@pytest.mark.parametrize("type", [np.int8, np.uint8])
def test_depthwise_groups_give_the_same_codes(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, type: type,
                                              image: tuple[int, ...], kernel: tuple[int, ...],
                                              options: dict[str, Any]) -> None:
    content = codes_model(rng, image, kernel, type, **options)
    monkeypatch.setattr(conv, "by_channels", lambda *_: True)
    got, names = outputs(content, image, type)
    assert names[-1].startswith("depthwise")
    monkeypatch.setattr(conv, "by_channels", lambda *_: False)
    want, names = outputs(content, image, type)
    assert "conv" in names[-1] or "winograd" in names[-1]
    assert np.array_equal(got, want)


@pytest.mark.parametrize("image, kernel, options", ONE_EACH)
def test_depthwise_groups_give_the_same_sums(rng: np.random.Generator, image: tuple[int, ...], kernel: tuple[int, ...],
                                             options: dict[str, Any]) -> None:
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (image, kernel))
    bias = rng.standard_normal(kernel[0]).astype(np.float32)
    given = {"padding": "SAME", "stride_w": 1, "stride_h": 1, **options}
    want = conv_sums(x, w, (1, given["stride_w"]), (given.get("dilation_h_factor", 1), 1), given["padding"]) + bias
    inputs = [In(x), In(w, constant=True), In(bias, constant=True)]
    for mode in ("auto", "ref"):
        got = run_op("CONV_2D", inputs, Out("FLOAT32"), mode=mode, **given)
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
    half = [In(each.astype(np.float16), constant=constant) for each, constant in ((x, False), (w, True), (bias, True))]
    got = run_op("CONV_2D", half, Out("FLOAT16"), **given)
    np.testing.assert_allclose(got, want, atol=4e-3 * np.abs(want).max())


def test_depthwise_groups_keep_their_place_in_a_concatenation(rng: np.random.Generator) -> None:
    """Rows of a depthwise convolution lie side by side: its output is copied into the wider one."""
    image = (1, 6, 7, 8)
    x, w = rng.standard_normal(image).astype(np.float32), rng.standard_normal((16, 3, 3, 1)).astype(np.float32)
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    a = graph.input("x", image)
    plain = {"padding": "SAME", "stride_w": 1, "stride_h": 1}
    parts = [graph.add("CONV_2D", [a, graph.constant(f"w{k}", w * k), graph.constant(f"b{k}", np.zeros(16, np.float32))],
                       (f"y{k}", (1, 6, 7, 16)), **plain) for k in (1, 2)]
    graph.outputs(graph.add("CONCATENATION", parts, ("y", (1, 6, 7, 32)), axis=3))
    got = run_model(builder.build(), [x])[0]
    want = conv_sums(x, w)
    np.testing.assert_allclose(got, np.concatenate([want, 2 * want], 3), atol=1e-5 * np.abs(want).max())


# ---- signals -----------------------------------------------------------------------------------------

def test_a_column_lies_along_its_row() -> None:
    column = Windows((2, 300, 1, 8), (9, 1), 8, (2, 1), (3, 1), "SAME")
    row = column.lying()
    assert row.params() == Windows((2, 1, 300, 8), (1, 9), 8, (1, 2), (1, 3), "SAME").params() and column.height == 300
    image = Windows((1, 30, 2, 8), (3, 1), 8, padding="SAME")
    assert image.lying() is image


def test_a_single_row_is_cut_into_chunks() -> None:
    windows = Windows((1, 1, 4000, 16), (1, 9), 16, padding="SAME")
    columns = conv_rows._piece(target(), windows, 64)
    assert 0 < columns * 8 < 4000 and columns % tiles(target()).f32[0] == 0
    picture = Windows((1, 224, 224, 3), (3, 3), 3, (2, 2), padding="SAME")
    assert conv_rows._piece(target(), picture, 32) == picture.out_width


# ---- rows of floats ----------------------------------------------------------------------------------

@pytest.mark.parametrize("dims, kernel, depth, strides, dilations, n, wanted", [
    ((1, 28, 8, 3), (3, 3), 3, (1, 1), (1, 1), 32, True), ((1, 14, 14, 24), (5, 5), 24, (1, 1), (1, 1), 16, True),
    ((1, 7, 7, 24), (3, 3), 24, (2, 2), (1, 1), 64, False),              # chunks of one row of four pixels
    ((1, 14, 14, 32), (5, 5), 32, (1, 1), (1, 1), 16, False), ((1, 1, 900, 64), (1, 5), 64, (1, 1), (1, 1), 64, True),
    ((1, 28, 8, 3), (3, 3), 3, (1, 1), (1, 2), 32, True), ((1, 28, 8, 8), (3, 3), 4, (1, 1), (1, 1), 32, True),
    ((1, 14, 14, 96), (1, 1), 48, (1, 1), (1, 1), 32, True), ((1, 14, 14, 96), (1, 1), 48, (2, 2), (1, 1), 32, False),
    ((1, 300, 99, 8), (3, 3), 8, (1, 1), (90, 1), 32, False)])            # 181 rows for every row of the output
def test_where_rows_of_floats_are_staged(dims: tuple[int, ...], kernel: tuple[int, int], depth: int, strides: tuple[int, int],
                                         dilations: tuple[int, int], n: int, wanted: bool) -> None:
    windows = Windows(dims, kernel, depth, strides, dilations, "SAME")
    assert conv_rows.fits(VNNI, windows, n) is wanted


def test_bands_of_floats_fill_tiles_across_rows() -> None:
    narrow = Windows((1, 28, 8, 3), (3, 3), 3, padding="SAME")
    made = conv_band.band(VNNI, narrow, 16, "f32")
    assert made.block * 8 > 7 and made.tiles <= 33 < 28 * 2              # a row alone takes two tiles of seven pixels
    assert made.pitch >= 10 * 3 * 4 and made.staged == made.block + 2


@pytest.mark.parametrize("image, kernel, options", [
    ((2, 28, 8, 3), (16, 3, 3, 3), {}), ((1, 33, 17, 8), (24, 3, 3, 8), {"stride_w": 2, "stride_h": 2}),
    ((1, 11, 9, 24), (40, 5, 4, 24), {"padding": "VALID"}), ((3, 5, 3, 5), (70, 5, 5, 5), {"dilation_h_factor": 2}),
    ((1, 64, 300, 3), (8, 7, 7, 3), {"stride_h": 3}), ((1, 2, 3000, 4), (33, 2, 9, 4), {}),
    ((2, 1, 900, 40), (50, 1, 5, 40), {}), ((2, 9, 16, 24), (72, 3, 3, 8), {}), ((1, 30, 28, 40), (10, 1, 1, 8), {}),
    ((1, 12, 40, 6), (6, 3, 4, 3), {"dilation_w_factor": 3, "padding": "VALID"}),
    ((2, 11, 13, 20), (40, 3, 3, 5), {"dilation_w_factor": 2, "dilation_h_factor": 3, "stride_h": 2})])
def test_rows_of_floats_give_the_same_sums(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, image: tuple[int, ...],
                                           kernel: tuple[int, ...], options: dict[str, Any]) -> None:
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in (image, kernel))
    bias = rng.standard_normal(kernel[0]).astype(np.float32)
    given = {"padding": "SAME", "stride_w": 1, "stride_h": 1, **options}
    monkeypatch.setattr(conv, "_tiling", lambda *_: None)
    monkeypatch.setattr(conv, "_in_planes", lambda *_: False)
    content = op_model("CONV_2D", [In(x), In(w, constant=True), In(bias, constant=True)], Out("FLOAT32"), **given)

    def run(wanted: str, threads: int) -> np.ndarray:
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
        assert [step.kernel.name for step in interpreter.plan.steps] == [wanted]
        interpreter.set_tensor(0, x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    monkeypatch.setattr(conv_f32.conv_rows, "fits", lambda *_: True)
    got = run("conv_rows_f32", 1)
    assert np.array_equal(got, run("conv_rows_f32", 2))
    monkeypatch.setattr(conv_f32.conv_rows, "fits", lambda *_: False)
    np.testing.assert_allclose(got, run("conv_f32", 1), rtol=0, atol=2e-6 * np.abs(got).max())
