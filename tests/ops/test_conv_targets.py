"""Convolutions compiled for every CPU level that this machine can execute: right results, and the instructions that matter."""
import os
import subprocess
import sys

import pytest

from litejit.compiler.cpu import LEVELS, executable

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
NAMES = [cpu.name for cpu in executable()]
# level -> instructions of the int8 and of the float32 tiles
INSTRUCTIONS = {"avx512bf16": ("vpdpbusd", "vfmadd", "zmm"), "avx512vnni": ("vpdpbusd", "vfmadd", "zmm"),
                "avx512": ("vpmaddwd", "vfmadd", "zmm"), "avxvnni": ("vpdpbusd", "vfmadd", "ymm"),
                "avx2": ("vpmaddwd", "vfmadd", "ymm"), "sse4": ("pmaddwd", "mulps", "xmm")}
SCRIPT = """
from litejit.compiler.assembly import assembly
from litejit.compiler.codegen import kernel_assembly
from litejit.compiler.cpu import target
from litejit.ops.conv_f32 import conv_f32
from litejit.ops.simd.gemm_int8 import tile_params
print(assembly(tile_params(target(), 32, "code")["tile"], target()), "=" * 40, kernel_assembly(conv_f32))
"""
SCRIPT_16X8 = """
from litejit.compiler.assembly import assembly
from litejit.compiler.codegen import kernel_assembly
from litejit.compiler.cpu import target
from litejit.ops.depthwise_16x8 import CODE_KERNELS
from litejit.ops.simd.gemm_int8 import tile_params
print(assembly(tile_params(target(), 32, "once", wide=True)["tile"], target()), "=" * 40, kernel_assembly(CODE_KERNELS["once"]))
"""


def run(level, *arguments):
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env={**os.environ, "LITEJIT_TARGET": level},
                          capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.parametrize("level", [name for name in NAMES if name in INSTRUCTIONS])
def test_instructions(level):
    done = run(level, "-c", SCRIPT)
    assert done.returncode == 0, done.stderr
    codes, floats = done.stdout.split("=" * 40)
    dot, multiply, register = INSTRUCTIONS[level]
    assert dot in codes and multiply in floats and register in floats
    if LEVELS[level].vbytes < 64:
        assert "zmm" not in codes + floats


@pytest.mark.parametrize("level", [name for name in NAMES if name in INSTRUCTIONS])
def test_instructions_of_16x8(level):
    """Pairs of int16 are multiplied and added in one instruction; the end multiplies without gathering lanes."""
    done = run(level, "-c", SCRIPT_16X8)
    assert done.returncode == 0, done.stderr
    dot = "vpdpwssd" if INSTRUCTIONS[level][0] == "vpdpbusd" else "pmaddwd"
    for code in done.stdout.split("=" * 40):
        assert dot in code and "pmuldq" in code and INSTRUCTIONS[level][2] in code


@pytest.mark.slow
@pytest.mark.parametrize("file", ["test_conv.py", "test_conv_16x8.py", "test_batch_matmul.py", "test_fully_connected.py",
                                  "test_block_weights.py"])
@pytest.mark.parametrize("level", NAMES[1:])
def test_results(level, file):
    done = run(level, "-m", "pytest", "-q", "-p", "no:cacheprovider", os.path.join(HERE, file))
    assert done.returncode == 0, done.stdout[-4000:]
