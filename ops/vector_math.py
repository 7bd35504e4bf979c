"""exp, log, sin, cos, tanh, logistic, erf, gelu ... of one float32, as branch-free device functions that LLVM vectorises.

Coefficients are minimax fits made for these reductions (relative error of a fit below 3e-8). Measured over all float32
against double precision, in units in the last place: exp 1.1, expm1 1.7, log 1.0, sin and cos 1.6 below `TRIG_LIMIT`
and 0.5 above (`sin_large`), tanh 3, logistic 2, erf 4. NaN stays NaN. A product and its sum may contract to one rounding
where the CPU has fused multiply-add, so last bits differ between instruction sets.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device
from litejit.compiler.primitives import abs_f32, bits_f32, float_bits, load_f64, sqrt_f32

_f = np.float32
ZERO, HALF, ONE, TWO = _f(0), _f(0.5), _f(1), _f(2)
LOG2E = _f(1.4426950408889634)
MAGIC, MAGIC_BITS = _f(12582912.0), 0x4B400000      # 1.5 * 2^23: adding it rounds to an integer in the low bits
LN2_HIGH, LN2_LOW = _f(0.693359375), _f(-2.12194440e-4)
EXP_TOP, EXP_BOTTOM, EXP_FLUSH = _f(89.0), _f(-104.0), _f(-88.0)
# (exp(r) - 1 - r) / r^2 on |r| <= ln 2 / 2
X0, X1, X2, X3, X4 = (_f(c) for c in (0.50000001, 0.16666518, 0.0416662, 0.00836903, 0.00139507))
# (log(1 + f) - f + f^2 / 2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1]
L0, L1, L2, L3, L4, L5, L6, L7, L8 = (_f(c) for c in (
    0.3333331, -0.24999987, 0.20002227, -0.1666925, 0.14218655, -0.12384368, 0.11873021, -0.11789712, 0.06915156))
SQRT_HALF_BITS, SMALLEST_NORMAL, TWO_23 = 0x3F3504F3, _f(1.17549435e-38), _f(8388608.0)
INFINITY, NAN = _f(np.inf), _f(np.nan)
TRIG_LIMIT = _f(8192.0)
TWO_OVER_PI = _f(0.6366197723675814)
PIO2_A, PIO2_B, PIO2_C, PIO2_D = _f(1.5703125), _f(4.837512969970703e-4), _f(7.54953362047672e-8), _f(
    2.5633440954325e-12)
S0, S1, S2 = _f(-0.16666654), _f(0.00833213), _f(-0.00019511)      # (sin(r) - r) / r^3 in r^2
C0, C1, C2 = _f(0.0416666457), _f(-0.0013887306), _f(2.44312024e-05)   # (cos(r) - 1 + r^2 / 2) / r^4 in r^2
TANH_TOP = _f(9.02)
TP = tuple(_f(c) for c in (9.9999998515e-01, 1.3387061814e-01, 3.5026005864e-03, 2.0717458251e-05, 1.3490457254e-08))
TQ = tuple(_f(c) for c in (4.6720382016e-01, 2.5904075694e-02, 3.2968085512e-04, 7.8352343966e-07))
ERF_TOP = _f(3.92)
EP = tuple(_f(c) for c in (1.1283791534, 1.8865165155e-01, 5.2529805640e-02, 3.6948776313e-03, 2.8406973723e-04,
                           2.0731382147e-06))
EQ = tuple(_f(c) for c in (5.0052107990e-01, 1.1339599068e-01, 1.4825738484e-02, 1.1469077220e-03, 3.8289500132e-05))
GELU_TOP = _f(13.3)                     # tail of the normal distribution / exp(-t^2 / 2), 0 <= t <= GELU_TOP
GP = tuple(_f(c) for c in (4.999999355839e-01, 3.399836822960e-01, 1.076702345105e-01, 1.437689815776e-02,
                           2.369366568067e-07))
GQ = tuple(_f(c) for c in (1.477844945084, 8.94550825815e-01, 2.69331989401e-01, 3.6065488396e-02))
GELU_A, GELU_B = _f(1.5957691216057308), _f(1.5957691216057308 * 0.044715)     # 2 sqrt(2/pi), and times 0.044715
THREE, SIX, SIXTH = _f(3), _f(6), _f(1 / 6)

_fused = device(fastmath=("contract",))


# ---- exponential -----------------------------------------------------------------------------------

@_fused
def _power_of_two(k: Any) -> Any:
    """2^k, -127 < k < 128."""
    return float_bits(np.int32((k + 127) << 23))


@_fused
def _exp_tail(r):
    """exp(r) - 1, |r| <= ln 2 / 2."""
    q = (((X4 * r + X3) * r + X2) * r + X1) * r + X0
    return q * (r * r) + r


@_fused
def exp_f32(x):
    """exp(x): down to denormals, up to inf."""
    x = EXP_TOP if x > EXP_TOP else x
    x = EXP_BOTTOM if x < EXP_BOTTOM else x
    t = x * LOG2E + MAGIC
    n = t - MAGIC
    p = _exp_tail((x - n * LN2_HIGH) - n * LN2_LOW) + ONE
    k = np.int32(bits_f32(t) - MAGIC_BITS)
    half = k >> 1
    return p * _power_of_two(half) * _power_of_two(k - half)


@_fused
def exp_nonpositive(x):
    """exp(x) for x <= 0 (or NaN); 0 below -88."""
    x = EXP_FLUSH if x < EXP_FLUSH else x
    t = x * LOG2E + MAGIC
    n = t - MAGIC
    p = _exp_tail((x - n * LN2_HIGH) - n * LN2_LOW) + ONE
    return p * _power_of_two(np.int32(bits_f32(t) - MAGIC_BITS))


@_fused
def expm1_nonpositive(x):
    """exp(x) - 1 for x <= 0 (or NaN), without cancellation."""
    x = EXP_FLUSH if x < EXP_FLUSH else x
    t = x * LOG2E + MAGIC
    n = t - MAGIC
    scale = _power_of_two(np.int32(bits_f32(t) - MAGIC_BITS))
    return scale * _exp_tail((x - n * LN2_HIGH) - n * LN2_LOW) + (scale - ONE)


# ---- logarithm -------------------------------------------------------------------------------------

@_fused
def log_f32(x):
    """Natural logarithm; log(0) = -inf, of negative numbers NaN."""
    small = x < SMALLEST_NORMAL
    bits = bits_f32(x * TWO_23 if small else x)
    e = np.int32((bits - SQRT_HALF_BITS) >> 23)
    f = float_bits(np.int32(bits - (e << 23))) - ONE
    n = _f(e) - (_f(23) if small else ZERO)
    z = f * f
    p = (((((((L8 * f + L7) * f + L6) * f + L5) * f + L4) * f + L3) * f + L2) * f + L1) * f + L0
    r = (f * z) * p + n * LN2_LOW
    r = n * LN2_HIGH + (f + (r - HALF * z))
    r = x if x == INFINITY else r
    r = -INFINITY if x == ZERO else r
    r = NAN if x < ZERO else r
    return r if x == x else x


# ---- sine and cosine -------------------------------------------------------------------------------

@_fused
def _sin_cos(r, quadrant):
    """sin(r + quadrant * pi / 2), |r| <= pi / 4."""
    z = r * r
    s = ((S2 * z + S1) * z + S0) * z * r + r
    c = ((C2 * z + C1) * z + C0) * (z * z) + (ONE - HALF * z)
    y = c if quadrant & 1 else s
    return -y if quadrant & 2 else y


@_fused
def _trig(x, turn):
    t = x * TWO_OVER_PI + MAGIC
    n = t - MAGIC
    r = (((x - n * PIO2_A) - n * PIO2_B) - n * PIO2_C) - n * PIO2_D
    return _sin_cos(r, np.int32(bits_f32(t) + turn))


@_fused
def sin_f32(x):
    """sin(x), |x| <= TRIG_LIMIT."""
    return _trig(x, 0)


@_fused
def cos_f32(x):
    """cos(x), |x| <= TRIG_LIMIT."""
    return _trig(x, 1)


@device
def sin_large(x, turn, table):
    """sin(x + turn * pi / 2) of any x; table: the address of `trig_table()`.

    x = m * 2^e; the table has 2^e * 2 / pi modulo 4 in three parts of 28 bits, whose products with m are exact.
    """
    bits = bits_f32(abs_f32(x))
    row = 3 * max((bits >> 23) - 127, 0)
    m = np.float64((bits & 0x7FFFFF) | 0x800000)
    if bits < 0x3F800000:
        m = np.float64(abs_f32(x)) * 8388608.0
    top = m * load_f64(table, row)
    n = np.floor(top + 0.5)
    f = (top - n) + m * load_f64(table, row + 1) + m * load_f64(table, row + 2)
    k = np.floor(f + 0.5)
    r = _f((f - k) * 1.5707963267948966)
    quadrant = np.int64(n) + np.int64(k) + turn
    odd = turn & 1                                              # sin is odd, cos even
    y = _sin_cos(r, np.int32(quadrant & 3))
    y = -y if x < ZERO and odd == 0 else y
    return y if bits < 0x7F800000 else NAN


_TWO_OVER_PI_BITS = int(
    "A2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A424DD2E006492EEA09D1921C", 16)
_TWO_OVER_PI_LENGTH = 384


def trig_table() -> np.ndarray:
    """float64 (129, 3): row e has 2^(e - 23) * 2 / pi modulo 4, for the exponents 0 <= e <= 128."""
    rows = np.zeros((129, 3))
    for e in range(128):
        # fixed point with 82 fraction bits: bits of 2/pi from 2^1 down to 2^-82 after the shift by e - 23
        value = (_TWO_OVER_PI_BITS >> (_TWO_OVER_PI_LENGTH - 82 - (e - 23))) & ((1 << 84) - 1)
        for part, shift in enumerate((56, 28, 0)):
            rows[e, part] = float((value >> shift) & ((1 << 28) - 1)) * 2.0 ** (shift - 82)
    return rows


# ---- sigmoids --------------------------------------------------------------------------------------

@_fused
def logistic_f32(x):
    """1 / (1 + exp(-x)), without cancellation on either side."""
    e = exp_nonpositive(-abs_f32(x))
    return (e if x < ZERO else ONE) / (e + ONE)


@_fused
def tanh_f32(x):
    """Hyperbolic tangent."""
    x = TANH_TOP if x > TANH_TOP else x
    x = -TANH_TOP if x < -TANH_TOP else x
    z = x * x
    p = (((TP[4] * z + TP[3]) * z + TP[2]) * z + TP[1]) * z + TP[0]
    q = (((TQ[3] * z + TQ[2]) * z + TQ[1]) * z + TQ[0]) * z + ONE
    return (x * p) / q


@_fused
def erf_f32(x):
    """Error function."""
    x = ERF_TOP if x > ERF_TOP else x
    x = -ERF_TOP if x < -ERF_TOP else x
    z = x * x
    p = ((((EP[5] * z + EP[4]) * z + EP[3]) * z + EP[2]) * z + EP[1]) * z + EP[0]
    q = ((((EQ[4] * z + EQ[3]) * z + EQ[2]) * z + EQ[1]) * z + EQ[0]) * z + ONE
    return (x * p) / q


@_fused
def gelu_f32(x):
    """x / 2 * erfc(-x / sqrt 2), as x or 0 minus |x| times the smaller tail of the normal distribution.

    The tail is exp(-x^2 / 2) times a smooth ratio: no cancellation where x is negative.
    """
    distance = abs_f32(x)
    t = GELU_TOP if distance > GELU_TOP else distance
    p = (((GP[4] * t + GP[3]) * t + GP[2]) * t + GP[1]) * t + GP[0]
    q = (((GQ[3] * t + GQ[2]) * t + GQ[1]) * t + GQ[0]) * t + ONE
    tail = exp_nonpositive(t * t * -HALF) * (p / q)
    return x - t * tail if x > ZERO else x * tail


@_fused
def gelu_tanh_f32(x):
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), written with the logistic function."""
    return x * logistic_f32(x * ((x * x) * GELU_B + GELU_A))


@_fused
def elu_f32(x):
    """x, or exp(x) - 1 below 0."""
    y = expm1_nonpositive(x if x < ZERO else ZERO)
    return y if x < ZERO else x


@_fused
def hard_swish_f32(x):
    """x * min(6, max(0, x + 3)) / 6."""
    t = x + THREE
    t = ZERO if t < ZERO else t
    t = SIX if t > SIX else t
    return x * (t * SIXTH)


@device
def rsqrt_f32(x):
    """1 / sqrt(x)."""
    return ONE / sqrt_f32(x)
