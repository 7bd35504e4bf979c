"""Elementwise operators of one input on floats, in double precision, written to be read."""
from __future__ import annotations

import math

import numpy as np

_erfc = np.vectorize(math.erfc, otypes=[float])


def clamped(low, high):
    """NaN stays NaN."""
    return lambda x: np.where(np.isnan(x), x, np.clip(x, low, high))


FLOAT = {
    "ABS": np.abs, "NEG": np.negative, "EXP": np.exp, "LOG": np.log, "SQRT": np.sqrt, "RSQRT": lambda x: 1 / np.sqrt(x),
    "SQUARE": np.square, "SIN": np.vectorize(lambda v: math.sin(v) if math.isfinite(v) else math.nan, otypes=[float]),
    "COS": np.vectorize(lambda v: math.cos(v) if math.isfinite(v) else math.nan, otypes=[float]),
    "FLOOR": np.floor, "CEIL": np.ceil, "ROUND": np.rint, "SIGN": np.sign,
    "RELU": clamped(0, np.inf), "RELU6": clamped(0, 6), "RELU_N1_TO_1": clamped(-1, 1), "RELU_0_TO_1": clamped(0, 1),
    "LEAKY_RELU": lambda x: np.where(x > 0, x, x * 0.25),
    "ELU": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "LOGISTIC": lambda x: 1 / (1 + np.exp(-x)), "TANH": np.tanh,
    "HARD_SWISH": lambda x: x * np.clip(x + 3, 0, 6) / 6, "GELU": lambda x: 0.5 * x * _erfc(-x / math.sqrt(2)),
}
EXACT = {"ABS", "NEG", "FLOOR", "CEIL", "ROUND", "SIGN", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "LEAKY_RELU",
         "SQRT", "SQUARE"}


def gelu_tanh(x):
    """The approximation of GELU."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x ** 3)))


def softmax(x, beta):
    """Last axis."""
    e = np.exp((x - x.max(-1, keepdims=True)) * beta)
    return e / e.sum(-1, keepdims=True)


def log_softmax(x):
    """Last axis."""
    d = x - x.max(-1, keepdims=True)
    return d - np.log(np.exp(d).sum(-1, keepdims=True))


def l2_normalize(x):
    """Last axis."""
    return x / np.maximum(np.sqrt(np.square(x).sum(-1, keepdims=True)), 1e-6)


def cast(x, dtype):
    """One number after the other, with Python's integers and floats."""
    dtype = np.dtype(dtype)
    made = np.empty(x.shape, dtype)
    for at, v in np.ndenumerate(x):
        v = v.real if isinstance(v, np.complexfloating) and dtype.kind != "c" else v
        if dtype.kind == "b":
            made[at] = v != 0
        elif dtype.kind not in "iu":
            made[at] = v
        else:
            low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
            if x.dtype.kind in "iub":
                made[at] = (int(v) - low) % (high - low + 1) + low
            else:
                v = float(v)
                made[at] = high if math.isnan(v) or v >= high else low if v <= low else int(v)
    return made
