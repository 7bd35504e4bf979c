"""Micro-kernels of every CPU level as assembly: the instructions that matter, no unknown functions, few spills.

The quick run looks at one micro-kernel of each family; `pytest -m slow` at all of them.
"""
from __future__ import annotations

import functools
import importlib
import pkgutil
import platform
import re

import numpy as np
import pytest

import litejit.ops
from litejit.compiler import kernel, prange
from litejit.compiler.assembly import assembly
from litejit.compiler.codegen import kernel_assembly
from litejit.compiler.cpu import LEVELS, Cpu, compiling_for, target
from litejit.compiler.lazy import MICRO_KERNELS
from litejit.compiler.primitives import store_i64
from litejit.ops.depthwise_tiles import PARTS, SHAPES
from litejit.ops.simd import (
    best,
    depthwise_dot,
    depthwise_f32,
    few_classes,
    functions,
    one_number,
    reductions,
    windows,
    xnn_product,
    xnn_sum,
)
from litejit.ops.simd.gemm_int4 import block_rows
from litejit.ops.simd.lookup import lookup8
from litejit.ops.simd.tiles import f32_columns, tile_shape, tiles
from litejit.ops.tails import SCALAR
from litejit.ops.unary import OPERATORS
from tests.compiler.reading import Code, count, spills

CLASSES = {"avx512bf16": "512", "avx512vnni": "512", "avx512": "512", "avxvnni": "256", "avx2": "256", "sse4": "128",
           "neondot": "neon", "neon": "neon"}
REGISTER = {"512": "%zmm", "256": "%ymm", "128": "%xmm", "neon": r"v\d"}
KNOWN_FUNCTIONS = {"memset", "memcpy", "memmove"}             # LLVM makes calls of loops that fill or copy


def _every_micro_kernel() -> list[str]:
    """Names of all micro-kernels: those of modules, and those that functions make."""
    for module in pkgutil.iter_modules(litejit.ops.__path__):
        importlib.import_module(f"litejit.ops.{module.name}")
    for what in ("sum", "max", "min"):
        for kind in reductions.SIZE:
            reductions.columns(what, kind)
            reductions.runs(what, kind)
    reductions.runs("sum", "i16")
    for what in ("max", "average"):
        for kind in windows.SIZE:
            windows.windows(what, kind)
    for kind in best.SIZE:
        best.short_rows(kind, True)
        best.short_rows(kind, False)
    for width, stride in ((0, 1), *SHAPES):
        for part in PARTS:
            depthwise_f32.columns_f32(width, stride, part)
    for name in one_number.FORMULAS:
        one_number.one_number(name, True)
        one_number.one_number(name, False)
    for name in functions.FORMULAS:
        functions.stream(name, SCALAR.get(name) or OPERATORS[name.upper()].formula)
    for kind in ("i8", "u8"):
        xnn_sum.xnn_sum(kind)
        xnn_product.xnn_product(kind)
        few_classes.class_shares(kind, 2)
        few_classes.class_shares(kind, few_classes.MOST)
    return sorted(name for name in MICRO_KERNELS if not name.startswith(("peak_", "test_")))


NAMES = _every_micro_kernel()
SAMPLE = ("gemm_f32", "gemm_f32_table", "gemv_f32", "depthwise_f32_3s1", "winograd_input_2", "gemm_int8_code",
          "gemm_int8_i32_wide", "gemv_int8_code", "depthwise_i8_code", "gemm_int4_blocks_4", "stream_exp", "stream_log",
          "stream_rsqrt", "lookup8", "transpose_4", "repeat_4", "columns_max_i8", "runs_sum_i8", "windows_max_f32",
          "best_max_f32", "row_range", "stage_int8")


@functools.cache
def code(name: str, level: str) -> Code:
    if (rows := re.fullmatch(r"gemm_int4_blocks_(\d)", name)) and int(rows[1]) > block_rows(LEVELS[level]):
        pytest.skip("tiles of fewer rows there")
    if re.match("depthwise_dot_", name) and not depthwise_dot.has_dot_tiles(LEVELS[level]):
        pytest.skip("made for levels with 32 large registers and a dot product only")
    if re.fullmatch(r"gemm_.*_quarter|gemm_int8_.*_three", name) and LEVELS[level].vbytes < 64:
        pytest.skip("never called: half a register takes as long as a whole one")
    try:
        return Code(assembly(MICRO_KERNELS[name], LEVELS[level]))
    except RuntimeError as error:
        pytest.skip(f"this LLVM does not know {LEVELS[level].arch}: {error}")


everywhere = pytest.mark.parametrize("level", list(LEVELS))
every_name = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.slow) for name in NAMES])


# ---- what must be there ------------------------------------------------------------------------------

FMA = {"512": r"^vfmadd\d+ps .*%zmm", "256": r"^vfmadd\d+ps .*%ymm", "128": r"^mulps .*%xmm", "neon": r"^fmla v\d+\.4s"}
DOT16 = {"512": r"^(vpmaddwd|vpdpwssd) .*%zmm", "256": r"^(vpmaddwd|{vex} vpdpwssd) .*%ymm", "128": "^pmaddwd .*%xmm",
         "neon": r"^smlal2? v\d+\.4s"}
DOT = {**DOT16, "avx512bf16": r"^vpdpbusd .*%zmm", "avx512vnni": r"^vpdpbusd .*%zmm", "avx512": r"^vpmaddwd .*%zmm",
       "avxvnni": r"^{vex} vpdpbusd .*%ymm", "neondot": r"^sdot v\d+\.4s"}
ADD32 = {"512": "^vpaddd .*%zmm", "256": "^vpaddd .*%ymm", "128": "^paddd", "neon": r"^add v\d+\.4s"}
# micro-kernels -> what their hot loop must have, by level or class of levels; the first row that fits
EXPECTED: tuple[tuple[str, dict[str, str]], ...] = (
    (r"gemm_f32.*_quarter", {**FMA, "512": r"^vfmadd\d+ps .*%ymm"}),
    (r"gemm_int8_.*_(three|quarter)", {**DOT, "avx512": "^vpmaddwd .*%[yz]mm", "avx512vnni": "^vpdpbusd .*%[yz]mm",
                                       "avx512bf16": "^vpdpbusd .*%[yz]mm"}),
    (r"gemm_f32.*|gemv_f32|depthwise_f32.*|winograd_(taps|weights).*", FMA),
    (r"scale_panel_f32", {"512": "^vmulps .*%zmm", "256": "^vmulps .*%ymm", "128": "^mulps", "neon": r"^fmul v\d+\.4s"}),
    (r"gem[mv]_bf16.*", {**FMA, "avx512bf16": r"^vdpbf16ps .*%zmm"}),
    (r"stage_bf16|pair_rows_bf16", {**ADD32, "avx512bf16": r"^vcvtne2ps2bf16 .*%zmm"}),
    (r"depthwise_dot_.*|pack_int8_interleave|pack_int8_sums|sum_int8", {**DOT, "neon": "^(ushll|saddw) v"}),
    (r"gemm_int8_\w+_wide.*|depthwise_(i8|u8|i16)_.*", DOT16),
    (r"gemm_int8_.*|gemv_int8.*|gemm_int4_.*", DOT),
    (r"winograd_int8_input_.*", {"512": "^vpsubw .*%zmm", "256": "^vpsubw .*%ymm", "128": "^psubw", "neon": r"^sub v\d+\.8h"}),
    (r"winograd_int8_output_.*", ADD32),
    (r"(residual_)?(layer|rms)_norm", {**FMA, "128": "^(mul|add)ps .*%xmm"}),
    (r"softmax_.*", {**FMA, "512": "^vscalefps .*%zmm"}),
    (r"winograd_.*", {"512": "^vsubps .*%zmm", "256": "^vsubps .*%ymm", "128": "^subps", "neon": r"^fsub v\d+\.4s"}),
    (r"stream_exp|stream_logistic|stream_swish|stream_gelu_tanh", {**FMA, "512": "^vscalefps .*%zmm"}),
    (r"stream_log", {**FMA, "512": "^vgetmantps .*%zmm"}),
    (r"stream_rsqrt", {"512": "^vrsqrt14ps .*%zmm", "256": "^vrsqrtps .*%ymm", "128": "^sqrtps", "neon": "^fsqrt"}),
    (r"stream_sqrt", {"512": "^vrsqrt14ps .*%zmm", "256": "^vsqrtps .*%ymm", "128": "^sqrtps", "neon": "^fsqrt"}),
    (r"stream_tanh|stream_gelu", {"512": "^vdivps .*%zmm", "256": "^vdivps .*%ymm", "128": "^divps", "neon": "^fdiv"}),
    (r"stream_.*", {"512": "^vmulps .*%zmm", "256": "^vmulps .*%ymm", "128": "^mulps", "neon": "^fmul"}),
    (r"lookup8", {"avx512bf16": r"^vperm(i|t)2b .*%zmm", "512": "^vpshufb .*%zmm", "256": "^vpshufb .*%ymm",
                  "128": "^pshufb", "neon": "^ldrb"}),
    (r"repeat_[124]", {"512": "^vpshufb .*%zmm", "256": "^vpshufb .*%ymm", "128": "^pshufb", "neon": "^tbl"}),
    (r"transpose_1", {"512": "^vpunpcklbw .*%[xyz]mm", "256": "^vpunpcklbw", "128": "^punpcklbw", "neon": "^(zip1|st2)"}),
    (r"transpose_2", {"512": "^vpunpcklwd", "256": "^vpunpcklwd", "128": "^punpcklwd", "neon": "^(zip1|st2)"}),
    (r"transpose_4", {"512": "^vperm(i|t)2q .*%zmm", "256": "^v(unpcklps|punpckldq) .*%ymm", "128": "^(unpcklps|punpckldq)",
                      "neon": "^(zip1|st2)"}),
    (r"transpose_8", {"512": "^vperm(i|t)2q .*%zmm", "256": "^v(unpcklpd|punpcklqdq) .*%ymm", "neon": "^zip1",
                      "128": "^(movlhps|unpcklpd|punpcklqdq)"}),
    (r"columns_sum_f32|runs_sum_f32|windows_average_f32", {
        "512": "^vaddps .*%zmm", "256": "^vaddps .*%ymm", "128": "^addps", "neon": r"^fadd v\d+\.4s"}),
    (r"runs_sum_i16", {**DOT16, "neon": r"^(s(m|ad)lal2?|sadalp|saddlp|saddw2?) v\d+\.4s"}),
    (r"(columns|runs)_sum_.*", {"512": "^vpmov[sz]xbw .*%zmm", "256": "^vpmov[sz]xbw .*%ymm", "128": "^pmov[sz]xbw",
                                "neon": r"^[su](addw|shll)"}),
    (r"(columns|runs|windows)_(max|min)_f32", {"512": "^v(max|min)ps .*%zmm", "256": "^v(max|min)ps .*%ymm",
                                               "128": "^(max|min)ps", "neon": r"^(fcmgt|fmaxnm|fminnm) v\d+\.4s"}),
    (r"(columns|runs|windows)_(max|min)_.*", {"512": "^vp(max|min)[su][bw] .*%zmm", "256": "^vp(max|min)[su][bw] .*%ymm",
                                              "128": "^p(max|min)[su][bw]", "neon": "^[su](max|min)v? "}),
    (r"windows_average_.*", {"512": "^vpaddd .*%zmm", "256": "^vpaddd .*%ymm", "128": "^paddd", "neon": "^[su]addw|^add v"}),
    (r"best_\w+_[iu]8", {"512": "^vpcmpeqb .*%zmm", "256": "^vpcmpeqb .*%ymm", "128": "^pcmpeqb", "neon": "^cmeq"}),
    (r"best_.*", {"512": "^vpcmpeqd .*%zmm", "256": "^vpcmpeqd .*%ymm", "128": "^pcmpeqd", "neon": "^cmeq"}),
    (r"row_range", {"512": "^vmaxps .*%zmm", "256": "^vmaxps .*%ymm", "128": "^maxps", "neon": "^(fcmgt|fmaxnm)"}),
    (r"xnn_product_.*", FMA),
    (r"quantise_rows|code_accumulators", {"512": "^vcvtps2dq .*%zmm", "256": "^vcvtps2dq .*%ymm", "128": "^cvtps2dq",
                                      "neon": "^fcvt[nz]s"}),
    (r"scale_accumulators", {"512": "^vcvtdq2ps .*%zmm", "256": "^vcvtdq2ps .*%ymm", "128": "^cvtdq2ps", "neon": "^scvtf"}),
    (r"add_accumulators", ADD32),
    (r"stage_int8|stage_pixels_int8", {"avx512bf16": "^vpxor.*%zmm", "avx512vnni": "^vpxor.*%zmm", "512": "^vpmovsxbw .*%zmm",
                                        "avxvnni": "^vpxor.*%ymm", "256": "^vpmovsxbw .*%ymm", "128": "^pmovsxbw",
                                        "neon": "^eor"}),
    (r"xnn_sum_.*", {"512": "^vpmaddwd .*%zmm", "256": "^vpmaddwd .*%ymm", "128": "^pmaddwd", "neon": r"^m(la|ul) v"}),
    (r"mix_pixels_f32", {"512": "^vsubps .*%zmm", "256": "^vsubps .*%ymm", "128": "^subps", "neon": r"^fsub v\d+\.4s"}),
    (r"mix_pixels_codes", {"512": "^vpmulld .*%zmm", "256": "^vpmulld .*%ymm", "128": "^pmulld", "neon": r"^ml[as] v|^mul v"}),
    (r"reverse_1", {"512": "^vp(ermb|shufb) .*%zmm", "256": "^vpshufb .*%ymm", "128": "^pshufb", "neon": "^rev64"}),
    (r"reverse_2", {"512": "^vp(ermw|shufb) .*%zmm", "256": "^vpshufb .*%ymm", "128": "^pshuf(b|d|lw)", "neon": "^rev64"}),
    (r"reverse_4", {"512": "^vperm(d|ps) .*%zmm", "256": "^vperm(d|ps) .*%ymm", "128": "^(pshufd|shufps)", "neon": "^rev64"}),
    (r"reverse_8", {"512": "^vperm(q|pd) .*%zmm", "256": "^vperm(q|pd) .*%ymm", "128": "^(pshufd|shufps)", "neon": "^ext"}),
    (r"class_shares_.*", {"512": "^vgatherdps .*%zmm", "256": "^vgatherdps .*%ymm", "128": "^divps", "neon": "^fdiv"}),
    *((rf"{name}_(of|by)_one", {
        "512": f"^v{x86}ps .*%zmm", "256": f"^v{x86}ps .*%ymm", "128": f"^{x86}ps",
        "neon": rf"^f({x86}|cmgt|maxnm|minnm) v\d+\.4s"})
      for name, x86 in (("add", "add"), ("sub", "sub"), ("mul", "mul"), ("div", "div"), ("maximum", "max"), ("minimum", "min"),
                        ("squared_difference", "mul"))),
    (r"powers_i32", {"512": "^vpmulld .*%zmm", "256": "^vpmulld .*%ymm", "128": "^pmulld", "neon": r"^mul v\d+\.4s"}),
    (r"spaced_rows|picked_pixels", {"512": "^vmov[du].*%[xyz]mm", "256": "^vmov[du].*%[xy]mm", "128": "^mov[du].*%xmm",
                                    "neon": r"^(st[rpu]+|ld[rpu]+) q"}),
    (r"stage_int16|fill|fill_int8|rows", {"512": "^vmov[du].*%zmm", "256": "^vmov[du].*%ymm", "128": "^mov[du].*%xmm",
                                          "neon": r"^st[rp] q"}),
)


def expected(name: str, level: str) -> str:
    """The instruction that matters to a micro-kernel, as a pattern."""
    rows = next(row for names, row in EXPECTED if re.fullmatch(names, name))
    return rows.get(level) or rows[CLASSES[level]]


@every_name
@pytest.mark.parametrize("level", list(CLASSES))
def test_a_loop_has_the_instruction_that_matters(name: str, level: str) -> None:
    wanted = expected(name, level)
    hot = code(name, level).hot(wanted)
    assert count(hot, wanted), f"no loop of {name} for {level} has {wanted}"


@every_name
@everywhere
def test_nothing_unknown_is_called(name: str, level: str) -> None:
    made = code(name, level)
    assert made.lines
    assert made.foreign <= KNOWN_FUNCTIONS


# ---- tiles -------------------------------------------------------------------------------------------

def _accumulators(cpu: Cpu, name: str) -> int:
    rows, vectors = getattr(tiles(cpu), "f32" if name.startswith("gemm_f32") else "int8")
    sums = "rows_segments" in name                                # of the rows, beside their products
    return rows * ((vectors // 2 if re.search("narrow|quarter", name) else vectors) + sums)


@pytest.mark.parametrize("name", [name for name in NAMES if re.fullmatch(
    r"gemm_f32(_table)?(_narrow)?|gemm_int8_(?!.*wide).*", name) and (name in SAMPLE or "code" in name or "f32" in name)])
@pytest.mark.parametrize("level", ["avx512bf16", "avx512vnni", "avx512", "avxvnni", "avx2", "neondot"])
def test_a_tile_multiplies_once_for_every_accumulator(name: str, level: str) -> None:
    """Of two steps along k, unrolled, or of one where few registers hold all products before the sums."""
    wanted, cpu = expected(name, level), LEVELS[level]
    times = 1 if "int8" in name and not cpu.dot and cpu.nregs < 32 else 2
    assert count(code(name, level).hot(wanted), wanted) == times * _accumulators(cpu, name)


# Moves to and from the stack in the hot loop, at most: (micro-kernels, levels, how many, why); 0 elsewhere.
SPILLS = (
    (r"depthwise_f32_[35]s2.*", r"neon.*", 2, "LLVM keeps inputs that several outputs see, on the stack"),
    (r"depthwise_f32_5s[12].*", r"avx2|avxvnni", 20, "the same: less time than reading them again for every tap"),
    (r"depthwise_f32_5s[12].*", "sse4", 82, "the same, and products need a register of their own"),
    (r"depthwise_f32_5s1_inner", "avx512.*", 2, "inputs kept for later columns: less time than reading them again"),
    (r"depthwise_dot_.*_5s[12].*", "avx512.*", 60, "two outputs that share weights are faster by more than that costs"),
    (r"depthwise_dot_i8_f32_3s1.*", "avx512.*", 34, "the same"),
    (r"depthwise_dot_.*_(code|positive).*_3s1.*", "avx512.*", 24, "the same"),
    (r"gemm_bf16.*", r"avx512vnni|avx512|avxvnni|avx2|neon.*", 44, "nobody runs what stands in for the instruction, but tests"),
    (r"gemm_f32_(segments_)?three", "avxvnni|avx2", 12, "never called: half a register takes as long as a whole one"),
    (r"gemm_int8_code_rows_segments.*", "avxvnni|avx2|neon.*", 83, "never called: only AVX-512 has registers for the sums"),
    (r"gemm_int8_code_signed.*", "avx2|neon.*", 24, "never called: only VNNI wants codes without their sign"),
    (r"gemm_int4_.*", "avx2|sse4", 12, "no time lost: there are more products than registers to unpack weights in"),
    (r"gemm_.*", "sse4", 8, "products need a register of their own without fused multiply-adds"),
)
TILES = [name for name in NAMES if re.match(r"gem[mv]_|depthwise_", name)]
REFERENCE_ONLY = "generic"                                     # its code has to be right, not fast


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in SAMPLE else pytest.mark.slow) for name in TILES])
@pytest.mark.parametrize("level", list(CLASSES))
def test_the_hot_loop_of_a_tile_keeps_its_registers(name: str, level: str) -> None:
    most = max((n for names, levels, n, _ in SPILLS if re.fullmatch(names, name) and re.fullmatch(levels, level)), default=0)
    hot = code(name, level).hot(expected(name, level))
    assert spills(hot) <= most


# ---- whole kernels -----------------------------------------------------------------------------------

PARAMS = np.dtype([("x", "i8"), ("y", "i8"), ("table", "i8"), ("n", "i8"), ("columns", "i8")], align=True)


@kernel(PARAMS, name="test_level_of_a_kernel")
def level_of_a_kernel(p, begin, end):
    """A micro-kernel, and a number of the level."""
    for _ in prange(begin, end):
        lookup8(p.x, p.y, p.table, p.n)
        store_i64(p.columns, 0, f32_columns())
    return 0


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="Numba compiles for its own architecture only")
@pytest.mark.parametrize("level", ["avx512bf16", "avx512vnni", "avxvnni", "sse4"])
def test_a_whole_kernel_for_a_level(level: str) -> None:
    before = target()
    made = Code(kernel_assembly(level_of_a_kernel, LEVELS[level]))
    wanted = expected("lookup8", level)
    assert count(made.hot(wanted), wanted)
    assert count(made.lines, rf"^movq \${tile_shape(LEVELS[level], 'f32')[1]}, ")
    assert made.foreign <= KNOWN_FUNCTIONS
    assert target() == before


def test_the_sample_names_micro_kernels() -> None:
    assert set(SAMPLE) <= set(NAMES)


def test_the_target_comes_back_after_an_error() -> None:
    before = target()
    with pytest.raises(ZeroDivisionError), compiling_for(LEVELS["neon"]):
        assert target().name == "neon"
        raise ZeroDivisionError
    assert target() == before
