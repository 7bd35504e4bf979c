"""Bytes looked up in tables, on every level of instructions that this machine can execute."""
import os
import subprocess
import sys

import numpy as np
import pytest

from litejit.compiler.cpu import executable
from litejit.ops.simd.lookup import lookup8

SCRIPT = """
import numpy as np
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op
codes = np.arange(256, dtype=np.uint8)
q, o = Quant(0.37, 100), Quant(0.29, 31)
table = run_op("HARD_SWISH", [In(codes, q)], Out("UINT8", o, shape=(256,)))
assert len(set(table.tolist())) > 100
rng = np.random.default_rng(1)
for n in (1, 2, 15, 16, 17, 31, 63, 64, 65, 255, 1000, 70001):
    x = rng.integers(0, 256, n).astype(np.uint8)
    assert (run_op("HARD_SWISH", [In(x, q)], Out("UINT8", o, shape=(n,))) == table[x]).all(), n
"""


@pytest.mark.parametrize("level", [cpu.name for cpu in executable()])
def test_levels(level):
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = dict(os.environ, LITEJIT_TARGET=level, PYTHONPATH=root)
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, cwd=root, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_twin(rng):
    x, table, y = (rng.integers(0, 256, n).astype(np.uint8) for n in (100, 256, 100))
    lookup8(x.ctypes.data, y.ctypes.data, table.ctypes.data, 100)
    np.testing.assert_array_equal(y, table[x])
