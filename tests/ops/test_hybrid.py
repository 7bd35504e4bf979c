"""Rows quantised while running: codes, zero points and scales as LiteRT's, for all three ways."""
import numpy as np
import pytest

from litejit.compiler.cpu import LEVELS
from litejit.ops import hybrid
from litejit.ops.simd.row_codes import row_range
from litejit.ops.simd.stage_int8 import staged_offset

F32 = np.float32


def rows(rng):
    """Rows of some lengths: ordinary, of one sign, zeros, tiny, huge."""
    for depth in (1, 3, 8, 17, 64, 130):
        x = (rng.standard_normal((6, depth)) * 10.0 ** rng.integers(-3, 3, (6, 1))).astype(F32)
        x[1], x[2], x[3] = abs(x[1]), -abs(x[2]), 0
        yield x


def interpreted(how, x, cpu=None, part=0):
    """Codes [rows, depth], terms of the kernel run as plain Python; part: elements of the parts that a row is cut into."""
    count, depth = x.shape
    wide = cpu is not None and not cpu.dot
    q = np.zeros((count, depth), np.int16 if wide else np.uint8)
    terms = np.zeros((count, 2), np.int32)
    p = np.zeros(1, hybrid.ROWS)
    for name, value in {"x": x.ctypes.data, "q": q.ctypes.data, "terms": terms.ctypes.data, "rows": count, "depth": depth,
                        "inner": count, "x_row": depth, "x_step": 1, "pitch": depth * q.itemsize, "block": count,
                        "offset": 0 if cpu is None else staged_offset(cpu, "i8"), "wide": wide, "parts": 1,
                        "part": depth}.items():
        p[name] = value
    chunks = 1
    if part:
        p["parts"], p["part"], p["block"] = -(-depth // part), part, 1
        chunks = count * int(p["parts"][0])
        ranges = np.zeros((chunks, 2), F32)
        p["ranges"] = ranges.ctypes.data
        hybrid.part_ranges(p.view(np.recarray)[0], 0, chunks)
    hybrid.KERNELS[how](p.view(np.recarray)[0], 0, chunks)
    return q if wide or cpu is not None else q.view(np.int8), terms[:, 0], terms[:, 1].view(F32)


@pytest.mark.parametrize("how", ["xnn", "symmetric", "asymmetric"])
def test_rows(rng, arithmetic, how):
    for x in rows(rng):
        q, zero, scale = interpreted(how, x)
        for r, row in enumerate(x):
            if how == "xnn":
                factor, inverse, z = arithmetic.qd8_params(row.min(), row.max())
                want = (arithmetic.qd8_quantize(row, factor, z), inverse, z)
            elif how == "symmetric":
                want = (*arithmetic.sym_quant_f32(row), 0)
            else:
                want = arithmetic.asym_quant_f32(row)
            np.testing.assert_array_equal(q[r], want[0])
            assert scale[r] == want[1] and zero[r] == want[2]


@pytest.mark.parametrize("level", ["avx512vnni", "avx2", "neondot"])
def test_staged_rows(rng, arithmetic, level):
    cpu = LEVELS[level]
    for x in rows(rng):
        q, zero, _ = interpreted("xnn", x, cpu)
        offset = staged_offset(cpu, "i8")
        for r, row in enumerate(x):
            factor, _, z = arithmetic.qd8_params(row.min(), row.max())
            want = arithmetic.qd8_quantize(row, factor, z) + offset
            np.testing.assert_array_equal(q[r].astype(np.int64) & 255 if cpu.dot else q[r], want & 255 if cpu.dot else want)
            assert zero[r] == z + offset


def test_rows_in_parts(rng):
    for x in rows(rng):
        for got, want in zip(interpreted("asymmetric", x, part=64), interpreted("asymmetric", x)):
            np.testing.assert_array_equal(got, want)


def test_twin_of_the_range(rng):
    x, out = rng.standard_normal(37).astype(F32), np.zeros(2, F32)
    row_range(x.ctypes.data, 37, out.ctypes.data)
    assert out[0] == x.min() and out[1] == x.max()
