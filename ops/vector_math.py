"""exp, log, sin, cos, tanh, logistic, gelu ... of one float32, as branch-free device functions that LLVM vectorises.

Coefficients are minimax fits made for these reductions. Largest errors over all float32, in units in the last place:
exp 3, expm1 1, log 1.2, sin and cos 3 below `TRIG_LIMIT` and 2 above (`sin_large`), tanh 5, logistic 6, GELU 9 within
[-1, 1] and 80 in its far negative tail. NaN stays NaN. exp gives 0 instead of denormals, and slightly before. A product
and a sum may be rounded once where the CPU has fused multiply-add, so last bits differ between instruction sets.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device
from litejit.compiler.primitives import abs_f32, bits_f32, float_bits, load_f64, sqrt_f32
from litejit.ops.streams import sra_i32

_f = np.float32
ZERO, HALF, ONE, TWO = _f(0), _f(0.5), _f(1), _f(2)
LOG2E = _f(1.4426950408889634)
# Adding 1.5 * 2^23 rounds to an integer, which is left in the low bits; adding 127 more makes them a biased exponent.
MAGIC = _f(12582912.0)
BIASED, BIASED_HALF = _f(12582912.0 + 127), _f(12582912.0 + 126)
LN2, LN2_HIGH, LN2_LOW = _f(0.6931471805599453), _f(0.693359375), _f(-2.12194440e-4)
EXP_TOP, EXP_BOTTOM, EXP_LIMIT = _f(89.0), _f(-87.3), _f(88.0)
E0, E1, E2, E3, E4 = (_f(c) for c in (1.00000005, 0.49999127, 0.16666356, 0.04190044, 0.00837958))   # (exp(r) - 1) / r
D0, D1, D2, D3, D4 = (_f(2 * c) for c in (1.00000005, 0.49999127, 0.16666356, 0.04190044, 0.00837958))
# (exp(r) - 1 - r) / r^2; all on |r| <= ln 2 / 2
X0, X1, X2, X3, X4 = (_f(c) for c in (0.50000001, 0.16666518, 0.0416662, 0.00836903, 0.00139507))
# (log(1 + f) - f + f^2 / 2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1]
L0, L1, L2, L3, L4, L5, L6 = (_f(c) for c in (
    0.33333858, -0.25001747, 0.19965396, -0.16565635, 0.14876985, -0.14350201, 0.08917791))
SQRT_HALF_BITS, SMALLEST_NORMAL, TWO_23 = np.int32(0x3F3504F3), _f(1.17549435e-38), _f(8388608.0)
EXPONENT_BITS = np.int32(23)
INFINITY, NAN = _f(np.inf), _f(np.nan)
TRIG_LIMIT = _f(8192.0)
ONE_OVER_PI = _f(0.3183098861837907)
PI_A, PI_B, PI_C = _f(3.140625), _f(9.67502593994140625e-4), _f(1.509957990978376432e-7)     # few bits: exact products
S0, S1, S2, S3 = _f(-1.66666604e-01), _f(8.33308744e-03), _f(-1.98110531e-04), _f(2.60878896e-06)
TANH_TOP = _f(9.02)
TP = tuple(_f(c) for c in (9.9999998515e-01, 1.3387061814e-01, 3.5026005864e-03, 2.0717458251e-05, 1.3490457254e-08))
TQ = tuple(_f(c) for c in (4.6720382016e-01, 2.5904075694e-02, 3.2968085512e-04, 7.8352343966e-07))
GELU_TOP = _f(13.26)                    # exp(-t^2 / 2) is 0 there
GP = tuple(_f(c) for c in (4.999998243e-01, 3.606150652e-01, 1.187539928e-01, 1.686366000e-02))
GQ = tuple(_f(c) for c in (1.519097125e+00, 9.497123423e-01, 2.974572379e-01, 4.227637001e-02))
HALF_LOG2E, TWO_LN2 = _f(-0.7213475204444817), _f(1.3862943611198906)
G0, G1, G2, G3, G4 = (_f(c * -0.5 * scale) for c, scale in zip(      # exp(-r / 2) - 1 over r
    (1.00000005, 0.49999127, 0.16666356, 0.04190044, 0.00837958), (1, -0.5, 0.25, -0.125, 0.0625)))
GELU_A, GELU_B = _f(1.5957691216057308), _f(1.5957691216057308 * 0.044715)     # 2 sqrt(2/pi), and times 0.044715
THREE, SIX, SIXTH = _f(3), _f(6), _f(1 / 6)

_fused = device(fastmath=("contract",))


# ---- exponential -----------------------------------------------------------------------------------

@_fused
def _exponent(t):
    """The float whose exponent is in the low bits of t."""
    return float_bits(np.int32(bits_f32(t) << 23))


@_fused
def exp_f32(x):
    """exp(x): inf above 88.7, 0 below -87 (instead of denormals)."""
    x = EXP_TOP if x > EXP_TOP else x
    x = EXP_BOTTOM if x < EXP_BOTTOM else x
    t = x * LOG2E + BIASED_HALF
    n = t - BIASED_HALF
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    return (((((D4 * r + D3) * r + D2) * r + D1) * r + D0) * r + TWO) * _exponent(t)     # 2 exp(r) * 2^(n - 1)


@_fused
def _exp_limited(x):
    """exp(x), |x| <= 88; 0 at -88."""
    t = x * LOG2E + BIASED
    r = x - (t - BIASED) * LN2
    return (((((E4 * r + E3) * r + E2) * r + E1) * r + E0) * r + ONE) * _exponent(t)


@_fused
def exp_nonpositive(x):
    """exp(x) for x <= 0 (or NaN); 0 below -88."""
    return _exp_limited(-EXP_LIMIT if x < -EXP_LIMIT else x)


@_fused
def expm1_nonpositive(x):
    """exp(x) - 1 for x <= 0 (or NaN), without cancellation."""
    x = -EXP_LIMIT if x < -EXP_LIMIT else x
    t = x * LOG2E + BIASED
    n = t - BIASED
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    q = (((X4 * r + X3) * r + X2) * r + X1) * r + X0
    scale = _exponent(t)
    return scale * (q * (r * r) + r) + (scale - ONE)


# ---- logarithm -------------------------------------------------------------------------------------

@_fused
def log_f32(x):
    """Natural logarithm; log(0) = -inf, of negative numbers NaN."""
    small = x < SMALLEST_NORMAL
    bits = bits_f32(x * TWO_23 if small else x)
    e = sra_i32(np.int32(bits - SQRT_HALF_BITS), EXPONENT_BITS)
    f = float_bits(np.int32(bits - (e << 23))) - ONE
    n = _f(e) - (_f(23) if small else ZERO)
    p = (((((L6 * f + L5) * f + L4) * f + L3) * f + L2) * f + L1) * f + L0
    r = n * LN2 + ((p * f - HALF) * (f * f) + f)
    r = x if x == INFINITY else r
    r = -INFINITY if x == ZERO else r
    return r if x >= ZERO else NAN


# ---- sine and cosine -------------------------------------------------------------------------------

@_fused
def _sine(r):
    """sin(r), |r| <= pi / 2."""
    z = r * r
    return (((S3 * z + S2) * z + S1) * z + S0) * (z * r) + r


@_fused
def _reduced(x, n):
    """x - n * pi."""
    return ((x - n * PI_A) - n * PI_B) - n * PI_C


@_fused
def _signed(y, turns):
    """-y where the lowest bit of turns is set."""
    return float_bits(np.int32(bits_f32(y) ^ (turns << 31)))


@_fused
def sin_f32(x):
    """sin(x), |x| <= TRIG_LIMIT."""
    t = x * ONE_OVER_PI + MAGIC
    return _signed(_sine(_reduced(x, t - MAGIC)), bits_f32(t))


@_fused
def cos_f32(x):
    """cos(x), |x| <= TRIG_LIMIT: with n + 1/2 half turns taken off."""
    t = (x * ONE_OVER_PI - HALF) + MAGIC
    return -_signed(_sine(_reduced(x, (t - MAGIC) + HALF)), bits_f32(t))


@device
def sin_large(x, quarters, table):
    """sin(x + quarters * pi / 2), quarters 0 or 1, of any x; table: the address of `trig_table()`.

    |x| = m * 2^(e - 23); the table has 2^(e - 23) / pi modulo 4 in three parts of 28 bits, whose products with m are
    exact.
    """
    bits = np.int64(bits_f32(abs_f32(x)))
    exponent = (bits >> 23) - 127
    row = 3 * exponent if exponent > 0 else 0
    m = np.float64(abs_f32(x)) * 8388608.0 if bits < 0x3F800000 else np.float64((bits & 0x7FFFFF) | 0x800000)
    whole = m * load_f64(table, row)
    n = np.floor(whole + 0.5)
    turns = (whole - n) + m * load_f64(table, row + 1) + m * load_f64(table, row + 2) + 0.5 * quarters
    k = np.floor(turns + 0.5)
    y = _sine(_f((turns - k) * 3.141592653589793))
    y = -y if (np.int64(n) + np.int64(k)) & 1 else y
    y = -y if x < ZERO and quarters == 0 else y                 # sin is odd, cos even
    return y if bits < 0x7F800000 else NAN


_TWO_OVER_PI_BITS = int(
    "A2F9836E4E441529FC2757D1F534DDC0DB6295993C439041FE5163ABDEBBC561B7246E3A424DD2E006492EEA09D1921C", 16)
_TWO_OVER_PI_LENGTH = 384


def trig_table() -> np.ndarray:
    """float64 (129, 3): row e has 2^(e - 23) / pi modulo 4, for the exponents 0 <= e <= 128."""
    rows = np.zeros((129, 3))
    for e in range(128):
        # fixed point with 82 fraction bits, 2 bits before them
        value = (_TWO_OVER_PI_BITS >> (_TWO_OVER_PI_LENGTH - 82 - (e - 24))) & ((1 << 84) - 1)
        for part, shift in enumerate((56, 28, 0)):
            rows[e, part] = float((value >> shift) & ((1 << 28) - 1)) * 2.0 ** (shift - 82)
    return rows


# ---- sigmoids --------------------------------------------------------------------------------------

@_fused
def logistic_f32(x):
    """1 / (1 + exp(-x)): nothing cancels on either side."""
    x = EXP_LIMIT if x > EXP_LIMIT else x
    x = -EXP_LIMIT if x < -EXP_LIMIT else x
    return ONE / (_exp_limited(-x) + ONE)


@_fused
def swish_f32(x):
    """x * logistic(x)."""
    return x * logistic_f32(x)


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
def gelu_f32(x):
    """x / 2 * erfc(-x / sqrt 2), as x or 0 minus |x| times the smaller tail of the normal distribution.

    The tail is exp(-x^2 / 2) times a smooth ratio: no cancellation where x is negative.
    """
    distance = abs_f32(x)
    t = GELU_TOP if distance > GELU_TOP else distance
    p = ((GP[3] * t + GP[2]) * t + GP[1]) * t + GP[0]
    q = (((GQ[3] * t + GQ[2]) * t + GQ[1]) * t + GQ[0]) * t + ONE
    z = t * t
    k = z * HALF_LOG2E + BIASED
    r = z + (k - BIASED) * TWO_LN2
    e = (((((G4 * r + G3) * r + G2) * r + G1) * r + G0) * r + ONE) * _exponent(k)
    tail = e * (p / q)
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
