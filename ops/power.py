"""Powers of float32 (by logarithm and exponential in float64) and of integers."""
from __future__ import annotations

import math

import numpy as np

from litejit.compiler import device
from litejit.compiler.primitives import Primitive

bits_f64 = Primitive("bits_f64", "int64", ("float64",), lambda ir, b, a: b.bitcast(a[0], ir.IntType(64)),
                     lambda x: np.float64(x).view(np.int64))
float64_bits = Primitive("float64_bits", "float64", ("int64",), lambda ir, b, a: b.bitcast(a[0], ir.DoubleType()),
                         lambda x: np.int64(x).view(np.float64))

_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD                     # bits of sqrt(1/2)
_EXPONENT = 0x7FF << 52
_LOG2E = 1 / math.log(2)
_A1, _A2, _A3, _A4, _A5, _A6, _A7 = (1 / (2 * k + 1) for k in range(1, 8))       # atanh(s) / s - 1 in s^2
_E2, _E3, _E4, _E5, _E6, _E7, _E8, _E9 = (math.log(2) ** k / math.factorial(k) for k in range(2, 10))
_E1 = math.log(2)
_INF, _NAN, _ONE, _ZERO = np.float32(np.inf), np.float32(np.nan), np.float32(1), np.float32(0)
_MAGIC = 6755399441055744.0                              # 1.5 * 2**52: adding it rounds to an integer


@device
def log2_f64(x):
    """Binary logarithm of a positive normal float64 to about 13 digits."""
    bits = bits_f64(x)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    m = float64_bits(bits - (exponent << 52))            # in [sqrt(1/2), sqrt(2))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = z * (_A1 + z * (_A2 + z * (_A3 + z * (_A4 + z * (_A5 + z * (_A6 + z * _A7))))))
    return np.float64(exponent) + (2.0 * _LOG2E) * (s + s * series)


@device
def exp2_f64(t):
    """2**t for |t| < 1000 to about 11 digits."""
    shifted = t + _MAGIC
    whole = shifted - _MAGIC
    f = t - whole
    p = _E5 + f * (_E6 + f * (_E7 + f * (_E8 + f * _E9)))
    p = 1.0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * p))))
    return p * float64_bits((np.int64(whole) + 1023) << 52)


@device
def power_f32(x, y):
    """x**y with the special cases of C's powf."""
    size = abs(np.float64(x))
    z = np.float64(y)
    t = z * log2_f64(size)
    t = -999.0 if size == 0 else t
    magnitude = np.float32(exp2_f64(min(max(t, -999.0), 999.0)))
    tiny_or_huge = size == 0 or size == np.inf
    magnitude = (_INF if (size == 0) == (z < 0) else _ZERO) if tiny_or_huge else magnitude
    even_part = np.int64(z * 0.5 if abs(z) < 1e9 else 0.0)
    half = z - 2.0 * np.float64(even_part)
    integral = abs(z) >= 1e9 or half == 1.0 or half == -1.0 or half == 0.0
    odd = abs(z) < 1e9 and (half == 1.0 or half == -1.0)
    negative = bits_f64(np.float64(x)) < 0
    magnitude = -magnitude if odd and negative else magnitude
    magnitude = _NAN if x < 0 and not integral and size != np.inf else magnitude
    magnitude = _NAN if x != x or y != y else magnitude
    return _ONE if y == 0 or x == 1 or (x == -1 and abs(z) == np.inf) else magnitude


@device
def power_int(x, y):
    """x**y for y >= 0; wraps; 0**0 is 1."""
    result, base, rest = np.int64(1), np.int64(x), np.int64(y)
    while rest > 0:
        if rest & 1:
            result *= base
        base *= base
        rest >>= 1
    return result
