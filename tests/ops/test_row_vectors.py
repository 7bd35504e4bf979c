"""Micro-kernels on rows (row_codes.py, accumulators) against their plain twins, on every level this machine can execute."""
import os
import subprocess
import sys

import numpy as np
import pytest

from litejit.compiler import kernel
from litejit.compiler.cpu import executable
from litejit.ops.simd.accumulators import add_accumulators, code_accumulators, scale_accumulators
from litejit.ops.simd.row_codes import quantise_xnn, row_range
from tests.harness import compiled

F32 = np.float32
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CALL = np.dtype([("acc", "i8"), ("other", "i8"), ("scales", "i8"), ("bias", "i8"), ("x", "i8"), ("codes", "i8"), ("q", "i8"),
                 ("wide", "i8"), ("floats", "i8"), ("range", "i8"), ("terms", "i8"), ("n", "i8"), ("low", "f4"),
                 ("high", "f4"), ("scale", "f4")], align=True)
ROWS = 6                              # four at once, and two one by one


@kernel(CALL, name="test_row_vectors")
def call_all(p, begin, end):
    add_accumulators(p.acc, p.other, p.n)
    code_accumulators(p.acc, p.scales, p.codes, p.n, p.low, p.high, 3)
    scale_accumulators(p.acc, p.scales, p.bias, p.floats, p.n, p.scale, p.low, p.high)
    row_range(p.x, p.n, p.range)
    quantise_xnn(p.x, 4 * (p.n + 3), p.q, p.n + 16, p.terms, ROWS, p.n, 128, 0)
    quantise_xnn(p.x, 4 * (p.n + 3), p.wide, 2 * (p.n + 16), p.terms, ROWS, p.n, 0, 1)
    return 0


def buffers(n):
    """Inputs, and outputs with a guard behind them."""
    r = np.random.default_rng(n)
    made = {"acc": r.integers(-99999, 99999, n + 16, np.int32), "other": r.integers(-9999, 9999, n + 16, np.int32),
            "scales": r.uniform(0.0005, 0.002, n + 16).astype(F32), "bias": r.standard_normal(n + 16).astype(F32),
            "x": (r.standard_normal((ROWS, n + 3)) * [[5], [0.1], [0], [900], [1], [1e-3]]).astype(F32),
            "codes": np.full(n + 16, 99, np.int8), "q": np.full((ROWS, n + 16), 99, np.uint8),
            "wide": np.full((ROWS, n + 16), 99, np.int16), "floats": np.full(n + 16, 99, F32), "range": np.zeros(2, F32),
            "terms": np.zeros((ROWS, 2), np.int32)}
    made["x"][1] = abs(made["x"][1])                     # of one sign: the other end of the range is zero
    made["x"][4] = -abs(made["x"][4])
    p = np.zeros(1, CALL)
    for name, array in made.items():
        p[name] = array.ctypes.data
    p["n"], p["low"], p["high"], p["scale"] = n, -100.0, 90.0, 7.5
    return made, p


def compare():
    """Compiled against interpreted; runs in a process of its own for each level."""
    run = compiled(call_all)
    for n in (1, 7, 16, 33, 64, 100, 131):
        (got, p), (want, q) = buffers(n), buffers(n)
        assert run(p) == 0
        call_all(q.view(np.recarray)[0], 0, 1)
        for name in want:
            near = 1e-6 if name == "floats" else 0
            np.testing.assert_allclose(got[name], want[name], rtol=near, atol=near, err_msg=f"{name} of {n}")


@pytest.mark.parametrize("level", [cpu.name for cpu in executable()])
def test_level(level):
    done = subprocess.run([sys.executable, __file__], env={**os.environ, "LITEJIT_TARGET": level, "PYTHONPATH": ROOT},
                          capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("level", [cpu.name for cpu in executable()][1:])
def test_operators(level):
    """The tests of the operators that are built on these kernels, compiled for another level."""
    files = [os.path.join(os.path.dirname(__file__), f"test_{name}.py")
             for name in ("fully_connected", "batch_matmul", "transpose_conv", "recurrent")]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files], cwd=ROOT, text=True,
                          env={**os.environ, "LITEJIT_TARGET": level}, capture_output=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


if __name__ == "__main__":
    compare()
