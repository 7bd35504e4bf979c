"""Powers of float32 (by logarithm and exponential in float64) and of integers."""
from __future__ import annotations

import math

import numpy as np

from litejit.compiler import device, kernel
from litejit.compiler.primitives import Primitive, bits_f32, load_i32
from litejit.ops.base import Step, chunked
from litejit.ops.simd.powers import powers_i32
from litejit.ops.streams import inlined
from litejit.planner.graph import Node

bits_f64 = Primitive("bits_f64", "int64", ("float64",), lambda ir, b, a: b.bitcast(a[0], ir.IntType(64)),
                     lambda x: np.float64(x).view(np.int64))
float64_bits = Primitive("float64_bits", "float64", ("int64",), lambda ir, b, a: b.bitcast(a[0], ir.DoubleType()),
                         lambda x: np.int64(x).view(np.float64))

_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD                     # bits of sqrt(1/2)
_MAGIC, _MAGIC_BITS = 6755399441055744.0, 0x4338000000000000   # 1.5 * 2**52: adding it rounds to an integer
_A1, _A2, _A3, _A4, _A5 = (1 / (2 * k + 1) for k in range(1, 6))                 # atanh(s) / s - 1 in s^2
_TWO_LOG2E = 2 / math.log(2)
_E1, _E2, _E3, _E4, _E5, _E6, _E7 = (math.log(2) ** k / math.factorial(k) for k in range(1, 8))
_INF, _NAN, _ONE, _EVEN = np.float32(np.inf), np.float32(np.nan), np.float32(1), np.float32(1 << 24)

ONE_EXPONENT = np.dtype([(name, "i8") for name in ("x", "y", "exponent", "n", "block")], align=True)
GRAIN = 8192                          # elements of a chunk


def one_exponent_step(node: Node) -> Step:
    """POW of int32 with an exponent of one element, which is not negative."""
    y = node.out
    chunks, block = chunked(y.size, GRAIN)
    return Step(node, power_one_i32, {"x": node[0], "y": y, "exponent": node[1], "n": y.size, "block": block}, chunks)


# ---- kernels ---------------------------------------------------------------------------------------

@kernel(ONE_EXPONENT)
def power_one_i32(p, begin, end):
    """x**exponent; wraps; 0**0 is 1."""
    first = begin * p.block
    powers_i32(p.x + 4 * first, p.y + 4 * first, min(p.n, end * p.block) - first, load_i32(p.exponent, 0))
    return 0


@device(fastmath=("contract",))
def log2_f64(x):
    """Binary logarithm of a positive normal float64 to 10 digits."""
    bits = bits_f64(x)
    exponent = (bits - _SQRT_HALF_BITS) >> 52
    m = float64_bits(bits - (exponent << 52))            # in [sqrt(1/2), sqrt(2))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    series = z * (_A1 + z * (_A2 + z * (_A3 + z * (_A4 + z * _A5))))
    return (float64_bits(exponent + _MAGIC_BITS) - _MAGIC) + _TWO_LOG2E * (s + s * series)


@device(fastmath=("contract",))
def exp2_f64(t):
    """2**t for |t| < 1000 to 8 digits."""
    shifted = t + _MAGIC
    f = t - (shifted - _MAGIC)
    p = 1.0 + f * (_E1 + f * (_E2 + f * (_E3 + f * (_E4 + f * (_E5 + f * (_E6 + f * _E7))))))
    return p * float64_bits((bits_f64(shifted) + 1023) << 52)


@inlined
@device
def power_f32(x, y):
    """x**y with the special cases of C's powf; no branches."""
    size = abs(x)
    t = log2_f64(np.float64(size))
    t = -1e300 if size == 0 else t
    t = 1e300 if size == _INF else t
    t *= min(max(np.float64(y), -1e30), 1e30)            # 1**inf is 1
    r = np.float32(exp2_f64(min(max(-999.0, t), 999.0)))
    even = min(max(-_EVEN, y), _EVEN)                    # beyond 2**24 every float32 is an even integer
    whole = np.int32(even)
    fraction = np.float32(whole) != even
    r = -r if (bits_f32(x) < 0) & ((whole & 1) != 0) & (not fraction) else r
    r = _NAN if (x != x) | (y != y) | ((x < 0) & fraction & (size != _INF)) else r
    return _ONE if (y == 0) | (x == 1) else r


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
