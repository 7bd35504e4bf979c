"""Fixed-point arithmetic of quantised operators: what is computed while planning, and what kernels compute.

Two families of formulas, as in LiteRT: those of its reference kernels (gemmlowp's: an int32 multiplier in
[2**30, 2**31) with a shift, rounded twice) and XNNPACK's (a float32 scale, rounded to nearest even).
Device functions take and return integers of 64 bits whose values fit 32 unless they say otherwise.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from litejit.compiler import device
from litejit.compiler.primitives import rint_f32, round_f32, round_f64
from litejit.planner.graph import Q_RANGE, Node
from litejit.schema.enums import ActivationFunctionType

I32_MIN, I32_MAX = -(1 << 31), (1 << 31) - 1
FLT_MAX = float(np.finfo(np.float32).max)

# name of a fused activation -> (lowest, highest) real value; all others do nothing
ACTIVATIONS: dict[str, tuple[float, float]] = {
    "RELU": (0.0, math.inf), "RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}

_ACTIVATION_NAMES = {int(a): a.name for a in ActivationFunctionType}

# ---- while planning ------------------------------------------------------------------------------


def activation(node: Node) -> str:
    """Name of the fused activation of a node ("NONE" where there are no options)."""
    return _ACTIVATION_NAMES.get(int(getattr(node.options, "fused_activation_function", 0)), "NONE")


def float_range(name: str, xnn: bool = False) -> tuple[float, float]:
    """Bounds of a fused activation on floats. Kernels clamp to the finite numbers, XNNPACK keeps infinities."""
    low, high = ACTIVATIONS.get(name, (-math.inf, math.inf))
    return (low, high) if xnn else (max(low, -FLT_MAX), min(high, FLT_MAX))


def integer_range(name: str, bits: int, signed: bool = True) -> tuple[int, int]:
    """Bounds of a fused activation on integers that are not quantised."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    least, most = ACTIVATIONS.get(name, (-math.inf, math.inf))
    return max(low, int(least)) if least > -math.inf else low, min(high, int(most)) if most < math.inf else high


def round_half_away(x: float) -> int:
    """C's round()."""
    whole = math.floor(abs(x))
    whole += abs(x) - whole >= 0.5
    return -whole if x < 0 else whole


def quantize_multiplier(real: float) -> tuple[int, int]:
    """(multiplier in [2**30, 2**31), shift) with real = multiplier * 2**(shift - 31); (0, 0) below 2**-32."""
    fraction, shift = math.frexp(float(real))
    multiplier = round_half_away(math.ldexp(fraction, 31))
    if abs(multiplier) == 1 << 31:
        multiplier //= 2
        shift += 1
    return (0, 0) if multiplier == 0 or shift < -31 else (multiplier, shift)


def quantize_multipliers(reals: Any) -> tuple[np.ndarray, np.ndarray]:
    """`quantize_multiplier` of every element: (int32 multipliers, int32 shifts)."""
    pairs = [quantize_multiplier(real) for real in np.asarray(reals, np.float64).ravel()]
    return np.array([m for m, _ in pairs], np.int32), np.array([s for _, s in pairs], np.int32)


def fixed_point(reals: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 (multipliers, shifts) [count] of real scales, for vectors.

    Left shifts by more than a word leave nothing, as zeros do.
    """
    pair = np.stack(quantize_multipliers(np.broadcast_to(np.asarray(reals, np.float64), (count,))))
    pair = np.ascontiguousarray(np.where(pair[1] > 31, 0, pair).astype(np.int32))
    return pair[0], pair[1]


def act_range(name: str, scale: Any, zero_point: int, type: str) -> tuple[int, int]:
    """Bounds of a fused activation on codes of a quantised type, as LiteRT's kernels clamp."""
    low, high = Q_RANGE[type]
    least, most = ACTIVATIONS.get(name, (-math.inf, math.inf))
    if least > -math.inf:
        low = max(low, zero_point + round_half_away(_steps(least, scale)))
    if most < math.inf:
        high = min(high, zero_point + round_half_away(_steps(most, scale)))
    return low, high


def _steps(real: float, scale: Any) -> float:
    """real / scale in float32; finite also where the scale is zero or tiny."""
    with np.errstate(all="ignore"):
        return float(np.clip(np.nan_to_num(np.float32(real) / np.float32(scale)), -1e12, 1e12))


def xnn_act_range(name: str, scale: Any, zero_point: int, type: str) -> tuple[int, int]:
    """Bounds of a fused activation on codes of a quantised type, as XNNPACK clamps."""
    low, high = Q_RANGE[type]

    def code(bound: float) -> int:
        real = np.float32(_steps(bound, scale)) + np.float32(zero_point)
        return int(np.rint(min(max(real, np.float32(low)), np.float32(high))))
    least, most = ACTIVATIONS.get(name, (-math.inf, math.inf))
    return low if least == -math.inf else code(least), high if most == math.inf else code(most)


# ---- device: rounding and saturation -------------------------------------------------------------

_LOW32, _SIGN32 = 0xFFFFFFFF, 0x80000000


@device
def wrap32(x):
    """The low 32 bits as a signed number."""
    return ((x & _LOW32) ^ _SIGN32) - _SIGN32


@device
def saturate(x, low, high):
    """x clamped to [low, high]."""
    return min(max(x, low), high)


@device
def round_away_f32(x):
    """Nearest integer to a float32 as int64, halves away from zero."""
    return np.int64(round_f32(x))


@device
def round_away_f64(x):
    """Nearest integer to a float64 as int64, halves away from zero."""
    return np.int64(round_f64(x))


# ---- device: gemmlowp's fixed point ----------------------------------------------------------------

@device
def srdhm(a, b):
    """a * b / 2**31 rounded (saturating rounding doubling high multiply).

    gemmlowp divides a nudged product truncating towards zero; that is the same as rounding halves up.
    """
    return min((a * b + (1 << 30)) >> 31, I32_MAX)


@device
def rdivpot(x, exponent):
    """x / 2**exponent rounded to nearest, halves away from zero; exponent >= 0."""
    half = (1 << exponent) >> 1
    return (x + half - (1 if x < 0 and half != 0 else 0)) >> exponent


@device
def mbqm(x, multiplier, shift):
    """x * multiplier * 2**(shift - 31), rounded twice (MultiplyByQuantizedMultiplier); multiplier >= 0."""
    high = (wrap32(x << max(shift, 0)) * multiplier + (1 << 30)) >> 31
    return rdivpot(high, max(-shift, 0))


@device
def short_multiplier(multiplier):
    """A multiplier of 31 bits rounded to 16."""
    return (multiplier + (1 << 15)) >> 16 if multiplier < 0x7FFF0000 else 0x7FFF


@device
def mbqm64(x, multiplier, shift):
    """The same for accumulators of 64 bits (16x8 kernels): the multiplier is rounded to 16 bits."""
    return wrap32((x * short_multiplier(multiplier) + (1 << (14 - shift))) >> (15 - shift))


@device
def exp_on_negative(a, integer_bits):
    """exp(a * 2**(integer_bits - 31)) for a <= 0, as a fraction of 2**31 (gemmlowp's exp_on_negative_values)."""
    fraction = 31 - integer_bits
    quarter = 1 << (fraction - 2)
    part = (a & (quarter - 1)) - quarter                     # in [-1/4, 0)
    x = (part << integer_bits) + (1 << 28)                   # around -1/8
    x2 = srdhm(x, x)
    x4 = rdivpot(srdhm(x2, x2), 2)
    series = rdivpot(srdhm(x4 + srdhm(x2, x), 715827883) + x2, 1)
    r = wrap32(1895147668 + srdhm(1895147668, x + series))   # exp(-1/8) * (1 + ...)
    rest = part - a                                          # a multiple of 1/4
    r = srdhm(r, 1672461947) if rest & (1 << (fraction - 2)) else r                        # exp(-1/4)
    r = srdhm(r, 1302514674) if rest & (1 << (fraction - 1)) else r                        # exp(-1/2)
    r = srdhm(r, 790015084) if integer_bits > 0 and rest & (1 << fraction) else r          # exp(-1)
    r = srdhm(r, 290630308) if integer_bits > 1 and rest & (1 << (fraction + 1)) else r
    r = srdhm(r, 39332535) if integer_bits > 2 and rest & (1 << (fraction + 2)) else r
    r = srdhm(r, 720401) if integer_bits > 3 and rest & (1 << (fraction + 3)) else r
    r = srdhm(r, 242) if integer_bits > 4 and rest & (1 << (fraction + 4)) else r
    if integer_bits > 5 and a < -(1 << (fraction + 5)):
        r = 0
    return I32_MAX if a == 0 else r


@device
def one_over_one_plus_x(x):
    """1 / (1 + x) for x in [0, 1) as a fraction of 2**31; three Newton steps (gemmlowp)."""
    total = x + I32_MAX
    half = (total + 1) >> 1 if total >= 0 else -((1 - total) >> 1)
    y = 1515870810 + srdhm(half, -1010580540)                # 48/17 - 32/17 * half
    for _ in range(3):
        error = (1 << 29) - srdhm(half, y)
        y = wrap32(y + saturate(srdhm(y, error) << 2, I32_MIN, I32_MAX))
    return saturate(y << 1, I32_MIN, I32_MAX)


# ---- device: XNNPACK's requantisation ----------------------------------------------------------------

@device
def xnn_requant(accumulator, scale, low, high, zero_point):
    """Code of an int32 accumulator: float32 product, clamp, nearest even, plus the zero point.

    low, high: float32 bounds of the code minus the zero point.
    """
    x = np.float32(np.int32(accumulator)) * scale
    return np.int32(rint_f32(min(max(x, low), high))) + zero_point
