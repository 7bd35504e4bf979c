"""Elementwise operators of two inputs, written to be read."""
from __future__ import annotations

import math

import numpy as np

FLT_MAX = np.finfo(np.float32).max
BOUNDS = {"NONE": (-math.inf, math.inf), "RELU": (0, math.inf), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}


def clamp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """NaN stays NaN."""
    return np.where(x < low, x.dtype.type(low), np.where(x > high, x.dtype.type(high), x))


def fused(x: np.ndarray, activation: str, xnn: bool) -> np.ndarray:
    """Fused activation of floats: the kernels clamp to finite numbers, XNNPACK does not."""
    low, high = BOUNDS[activation]
    return clamp(x, low, high) if xnn else clamp(x, max(low, -FLT_MAX), min(high, FLT_MAX))


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a > b, a, b)


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(a < b, a, b)


def floor_mod(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """C's fmod, moved to the sign of the divisor; NaN for a zero divisor."""
    r = np.fmod(a.astype(np.float64), b.astype(np.float64))
    return np.where((r != 0) & ((b < 0) != (r < 0)), r + b, r).astype(a.dtype)


def floor_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.floor(a.astype(np.float64) / b.astype(np.float64)).astype(a.dtype)


def trunc_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([int(math.copysign(abs(int(x)) // abs(int(y)), int(x) * int(y))) for x, y in zip(a.flat, b.flat)],
                    a.dtype).reshape(a.shape)


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.power(a.astype(np.float64), b.astype(np.float64)).astype(np.float32)


def integer_power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Wraps around at 32 bits."""
    return np.array([((pow(int(x), int(y)) + (1 << 31)) % (1 << 32)) - (1 << 31) for x, y in zip(a.flat, b.flat)],
                    np.int32).reshape(a.shape)


FLOAT = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide, "MAXIMUM": maximum,
         "MINIMUM": minimum, "SQUARED_DIFFERENCE": lambda a, b: (a - b) * (a - b)}
FUSED = ("ADD", "SUB", "MUL", "DIV")
