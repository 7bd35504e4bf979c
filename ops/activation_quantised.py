"""Codes of quantised activations: what fills their tables (see tables.py), element by element in NumPy.

16-bit LOGISTIC and TANH interpolate a table of sigmoids; where the scale is a power of two LiteRT's optimised kernels
do something else, its reference kernels and litejit do not.
"""
from __future__ import annotations

import functools
import math

import numpy as np

from litejit.ops.arithmetic import I32_MAX, quantize_multiplier, round_half_away
from litejit.ops.tables import by_function, by_interpolation, f32, mbqm, rdivpot, to_codes
from litejit.planner.graph import Node

# ---- piecewise linear ------------------------------------------------------------------------------

def relu_codes(node: Node, q: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rescaled, clamped to the codes of [low, high]."""
    x, y = node[0], node.out

    def code(bound: float) -> int:
        return y.zero_point + round_half_away(float(f32(bound) / y.scale))
    v = y.zero_point + mbqm(q - x.zero_point, *quantize_multiplier(float(x.scale / y.scale)))
    v = np.maximum(v, code(low))
    return to_codes(v if math.isinf(high) else np.minimum(v, code(high)), y)


def leaky_relu_codes(node: Node, q: np.ndarray) -> np.ndarray:
    x, y, alpha = node[0], node.out, f32(node.options.alpha)
    v = q - x.zero_point
    if node.xnn:
        ratio = x.scale / y.scale
        return to_codes(eight_bit_multiplier(v, np.where(v >= 0, *(int(np.rint(f32(256) * r)) for r in (
            ratio, ratio * alpha)))) + y.zero_point, y)
    rise = mbqm(v, *quantize_multiplier(float(x.scale / y.scale)))
    multiplier, shift = quantize_multiplier(float(x.scale * alpha / y.scale))
    fall = mbqm(v, abs(multiplier), shift) * (-1 if multiplier < 0 else 1)
    return to_codes(np.where(v >= 0, rise, fall) + y.zero_point, y)


def eight_bit_multiplier(v: np.ndarray, multiplier: np.ndarray | int) -> np.ndarray:
    """v * multiplier / 256 as XNNPACK's 8-bit rescaling rounds it, saturated to 16 bits."""
    return np.clip(((-v << 7) * -np.asarray(multiplier, np.int64) + (1 << 14)) >> 15, -32768, 32767)


# ---- float functions ---------------------------------------------------------------------------------

def logistic_codes(node: Node, q: np.ndarray) -> np.ndarray:
    if node[0].type == "i16":
        return logistic_int16(q, float(node[0].scale))
    return by_function(node, q, lambda v: f32(1) / (f32(1) + np.exp(-v.astype(np.float64)).astype(f32)))


def tanh_codes(node: Node, q: np.ndarray) -> np.ndarray:
    if node[0].type == "i16":
        return tanh_int16(q, float(node[0].scale))
    return by_function(node, q, lambda v: np.tanh(v.astype(np.float64)).astype(f32))


def elu_codes(node: Node, q: np.ndarray) -> np.ndarray:
    return by_function(node, q, lambda v: np.where(v < 0, np.expm1(v.astype(np.float64)).astype(f32), v))


def gelu_codes(node: Node, q: np.ndarray) -> np.ndarray:
    function = gelu_tanh if node.options.approximate else gelu
    return (by_interpolation if node[0].type == "i16" else by_function)(node, q, function)


def gelu(v: np.ndarray) -> np.ndarray:
    """x / 2 * erfc(-x / sqrt 2), float32."""
    erfc = np.array([math.erfc(t) for t in (-v * f32(0.70710678)).tolist()]).astype(f32)
    return f32(0.5) * v * erfc


def gelu_tanh(v: np.ndarray) -> np.ndarray:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))), float32."""
    t = f32(math.sqrt(2 / math.pi)) * (v + f32(0.044715) * v * v * v)
    return f32(0.5) * v * (f32(1) + np.tanh(t.astype(np.float64)).astype(f32))


# ---- 16-bit sigmoids ---------------------------------------------------------------------------------

@functools.lru_cache(maxsize=1)
def sigmoids() -> np.ndarray:
    """65536 / (1 + exp(-i / 24)), raised by 0.06 of the second difference to balance interpolation; the last 65535."""
    i = np.arange(-1.0, 257.0)
    s = 65536.0 / (1.0 + np.exp(-i / 24.0))
    table = np.floor(s[1:-1] - 0.06 * (s[2:] - 2 * s[1:-1] + s[:-2]) + 0.5).astype(np.int64)
    table[255] = 65535
    return table


def sigmoid_argument(q: np.ndarray, scale: float, doubled: bool) -> np.ndarray:
    """Codes in steps of 1 / 12288; `doubled`: TANH, whose power-of-two scales reach one further."""
    log2 = f32(np.log(f32(scale))) * f32(f32(1) / f32(np.log(f32(2))))
    nearest = round_half_away(float(log2))
    left = 12 + nearest
    if abs(log2 - f32(nearest)) < f32(1e-3) and (left == 0 or (doubled and left == 1)):
        return (q * (3 << left)).astype(np.int32).astype(np.int64)
    multiplier, shift = scale * 4096.0 * 3.0, 0
    while multiplier <= 32767.0 / 2.0 and shift <= 30:
        multiplier, shift = multiplier * 2.0, shift + 1
    rounding = 1 << shift - 1 if shift else 0
    return (q * int(multiplier) + rounding).astype(np.int32).astype(np.int64) >> shift


def _interpolated(a: np.ndarray, bits: int) -> np.ndarray:
    """sigmoids() at |argument| a, with `bits` fraction bits; beyond the table its highest number."""
    table, whole = sigmoids(), a >> bits
    i = np.minimum(whole, 254)
    between = (table[i] << bits) + (a & (1 << bits) - 1) * (table[i + 1] - table[i])
    return np.where(whole >= 255, (0x7FFF << 10) if bits == 9 else (0xFFFF << 8), between)


def logistic_int16(q: np.ndarray, scale: float) -> np.ndarray:
    """int16 codes of the logistic function, in steps of 1 / 32768."""
    d = sigmoid_argument(q, scale, False)
    r = _interpolated(np.abs(d), 9)
    return (np.where(d >= 0, r + (1 << 9), (1 << 25) - r + (1 << 9) - 1) >> 10).astype(np.int16)


def tanh_int16(q: np.ndarray, scale: float) -> np.ndarray:
    """int16 codes of the hyperbolic tangent, in steps of 1 / 32768."""
    d = sigmoid_argument(q, scale, True)
    r = _interpolated(np.abs(d), 8)
    return (np.where(d >= 0, r - (1 << 23) + (1 << 7), -r + (1 << 23) + (1 << 7) - 1) >> 8).astype(np.int16)


# ---- HARD_SWISH --------------------------------------------------------------------------------------

def _srdhm16(a: np.ndarray, b: int) -> np.ndarray:
    return np.minimum((a * b + (1 << 14)) >> 15, 32767)


def _shifted(v: np.ndarray, left: int) -> np.ndarray:
    return np.clip(v << left, -32768, 32767)


def hard_swish_codes(node: Node, q: np.ndarray) -> np.ndarray:
    """x * relu6(x + 3) / 6 in 16-bit fixed point: inputs in steps of scale / 128, the factor in [0, 1)."""
    x, y = node[0], node.out
    fine = f32(1 / 128) * x.scale
    (out, out_shift), (factor, factor_shift) = (
        quantize_multiplier(float(fine / s)) for s in (y.scale, f32(3) / f32(32768)))
    out, factor = (32767 if m >= I32_MAX - (1 << 15) else (m + (1 << 15)) >> 16 for m in (out, factor))
    v = (q - x.zero_point) << 7
    r = _srdhm16(_shifted(v, factor_shift - 1) if factor_shift > 0 else v, factor)
    r = _shifted(r, 1) if factor_shift > 0 else rdivpot(r, -factor_shift)
    product = ((r + (1 << 15)) >> 1) * _srdhm16(v, out)
    product = np.where(product >= 0, product >> 15, -(-product >> 15))
    made = product << out_shift if out_shift > 0 else rdivpot(product, -out_shift)
    return to_codes(made + y.zero_point, y)
