"""Micro-kernels on rows of floats (layer normalisation, softmax) against their twins, on every level that can be executed."""
import os
import subprocess
import sys

import numpy as np
import pytest

from litejit.compiler import kernel
from litejit.compiler.cpu import LEVELS, executable
from litejit.ops.simd.row_sweeps import LONG, NORM, SCORES, softmax
from tests.harness import compiled

F32 = np.float32
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAMES = ("a", "b", "c", "x", "y", "z", "r", "gamma", "beta", "soft", "plain", "scaled", "masked", "mask")
CALL = np.dtype([*((name, "i8") for name in NAMES), ("rows", "i8"), ("n", "i8"), ("pitch", "i8"), ("share", "f4")], align=True)
SIZES = [(1, 1), (3, 7), (4, 8), (5, 33), (9, 100), (2, LONG), (5, LONG + 3)]
_layer_norm, _residual_layer_norm, _rms_norm, _residual_rms_norm = (NORM[key] for key in (
    (True, False), (True, True), (False, False), (False, True)))
_plain, _scaled, _masked = (SCORES[how] for how in ("plain", "scaled", "masked"))


@kernel(CALL, name="test_row_sweeps")
def call_all(p, begin, end):
    _layer_norm(p.a, p.a, p.a, p.z, p.gamma, p.beta, p.rows, p.n, 1e-3, p.share)
    _rms_norm(p.a, p.a, p.a, p.r, p.gamma, p.beta, p.rows, p.n, 1e-3, p.share)
    _residual_layer_norm(p.a, p.b, p.x, p.y, p.gamma, p.beta, p.rows, p.n, 1e-3, p.share)
    _residual_layer_norm(p.a, p.b, p.b, p.b, p.gamma, p.beta, p.rows, p.n, 1e-3, p.share)        # in place
    _residual_rms_norm(p.a, p.c, p.c, p.c, p.gamma, p.beta, p.rows, p.n, 1e-3, p.share)
    softmax(p.a, p.soft, p.rows, p.n, 0.7)
    _plain(p.plain, p.mask, 0, p.rows, p.n, p.pitch, 1.0)
    _scaled(p.scaled, p.mask, 0, p.rows, p.n, p.pitch, 0.3)
    _masked(p.masked, p.mask, 4 * p.n, p.rows, p.n, p.pitch, 0.3)
    return 0


def buffers(rows, n):
    """Inputs, and outputs with a guard behind them; scores lie in rows of whole registers."""
    r = np.random.default_rng(n)
    wide = -(-n // 16) * 16
    made = {name: np.concatenate([r.normal(0, 3, rows * n), np.full(16, 99)]).astype(F32) for name in NAMES}
    made.update({name: r.normal(0, 3, rows * wide + 16).astype(F32) for name in ("plain", "scaled", "masked")})
    p = np.zeros(1, CALL)
    for name, array in made.items():
        p[name] = array.ctypes.data
    p["rows"], p["n"], p["pitch"], p["share"] = rows, n, 4 * wide, 1 / n
    return made, p


def compare():
    """Compiled against interpreted; runs in a process of its own for each level."""
    run = compiled(call_all)
    for rows, n in SIZES:
        (got, p), (want, q) = buffers(rows, n), buffers(rows, n)
        assert run(p) == 0
        call_all(q.view(np.recarray)[0], 0, 1)
        for name in NAMES:
            one, other = got[name], want[name]
            if name in ("plain", "scaled", "masked"):
                one, other = (array[:-16].reshape(rows, -1)[:, :n] for array in (one, other))
            size = np.abs(other[:rows * n] if other.ndim == 1 else other).max()
            assert np.abs(one - other).max() <= 2e-6 * max(size, 1), (name, rows, n)
        assert all((got[name][rows * n:] == 99).all() for name in NAMES if name not in ("plain", "scaled", "masked"))


@pytest.mark.parametrize("level", [cpu.name for cpu in executable()])
def test_vectors_agree_with_their_twins(level):
    done = subprocess.run([sys.executable, __file__], env={**os.environ, "LITEJIT_TARGET": level, "PYTHONPATH": ROOT},
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("level,words", [("avx512", ("zmm", "vscalefps", "vfmadd")), ("avx2", ("ymm", "vfmadd")),
                                         ("sse4", ("mulps",))])
def test_instructions(level, words):
    """Code for any level can be made, also where it cannot run."""
    done = subprocess.run([sys.executable, __file__, level], env={**os.environ, "LITEJIT_TARGET": "", "PYTHONPATH": ROOT},
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in words)


def show(level):
    """Print the assembly for a level."""
    from litejit.compiler import cpu
    from litejit.compiler.codegen import kernel_assembly

    cpu._chosen = LEVELS[level]
    print(kernel_assembly(call_all))


def test_a_row_does_not_depend_on_those_beside_it():
    from tests.harness import Out, run_op

    row = np.random.default_rng(5).normal(0, 3, 77).astype(F32)
    x = np.tile(row, (11, 1))
    got = run_op("SOFTMAX", [x], Out(shape=x.shape), beta=1.0)
    assert all(np.array_equal(r, run_op("SOFTMAX", [row], Out(shape=row.shape), beta=1.0)) for r in got)


if __name__ == "__main__":
    show(sys.argv[1]) if len(sys.argv) > 1 else compare()
