"""The recurrence of an LSTM, float32 and hybrid: one kernel call runs all time steps of all batches.

z [T * B, gates * C] holds W x (+ bias). A step adds R h, then works gate by gate on rows of C values in the L1 cache.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device, kernel
from litejit.compiler.primitives import copy_bytes, load_f32, round_f64, sqrt_f32, store_f32, store_i8
from litejit.ops.hybrid import F32_0, F32_127, F32_128, nearest, row_range
from litejit.ops.integer_product import DOTS
from litejit.ops.simd.gemm_f32 import gemm_f32, gemv_f32
from litejit.ops.vector_math import logistic_f32, tanh_f32

COMMON = [(name, "i8") for name in (
    "z", "y", "state", "cell", "batch", "time", "cells", "outputs", "gates", "time_major", "peephole", "norm", "bias",
    "diagonal", "recurrent", "projection", "projection_bias", "projected", "activation", "gate", "hidden")]
CLIPS = [("cell_clip", "f4"), ("proj_clip", "f4")]
LSTM = np.dtype([*COMMON, *CLIPS], align=True)
HYBRID = np.dtype([*COMMON, ("scales", "i8"), ("asymmetric", "i8"), ("codes", "i8"), ("terms", "i8"), *CLIPS,
                   ("projection_scale", "f4")], align=True)
ACTIVATION_CODES = {"NONE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "TANH": 4, "SIGN_BIT": 5}
F32_1, F32_6, EPSILON = np.float32(1), np.float32(6), np.float32(1e-8)
F32_INF = np.float32(np.inf)


# ---- rows of one gate -----------------------------------------------------------------------------

@device
def logistic_row(x, n):
    for j in range(n):
        store_f32(x, j, logistic_f32(load_f32(x, j)))


@device
def activate_row(y, x, n, kind):
    """y = act(x)."""
    if kind == 4:
        for j in range(n):
            store_f32(y, j, tanh_f32(load_f32(x, j)))
    else:
        for j in range(n):
            v = load_f32(x, j)
            if kind == 1:
                v = max(v, F32_0)
            elif kind == 2:
                v = min(max(v, -F32_1), F32_1)
            elif kind == 3:
                v = min(max(v, F32_0), F32_6)
            store_f32(y, j, v)


@device
def add_row(y, x, n):
    """y += x."""
    for j in range(n):
        store_f32(y, j, load_f32(y, j) + load_f32(x, j))


@device
def add_product(y, a, b, n):
    """y += a * b."""
    for j in range(n):
        store_f32(y, j, load_f32(y, j) + load_f32(a, j) * load_f32(b, j))


@device(fastmath=("reassoc", "nsz"))
def normalise_row(x, coefficients, bias, n):
    """x = (x - mean) / sqrt(variance + 1e-8) * coefficients + bias."""
    total, squares = F32_0, F32_0
    for j in range(n):
        total += load_f32(x, j)
    mean = total / np.float32(n)
    for j in range(n):
        d = load_f32(x, j) - mean
        squares += d * d
    scale = F32_1 / sqrt_f32(squares / np.float32(n) + EPSILON)
    for j in range(n):
        store_f32(x, j, (load_f32(x, j) - mean) * scale * load_f32(coefficients, j) + load_f32(bias, j))


@device
def clip_row(x, n, limit):
    """x clamped to +-limit, if that is positive."""
    if limit > F32_0:
        for j in range(n):
            store_f32(x, j, min(max(load_f32(x, j), -limit), limit))


@device
def prepare_gate(z, g, cell, p):
    """Peephole and normalisation of gate g, whose row begins at z."""
    n = p.cells
    if p.peephole != 0 and g != 2:
        add_product(z, p.peephole + 4 * g * n, cell, n)
    if p.norm != 0:
        normalise_row(z, p.norm + 4 * g * n, p.bias + 4 * g * n, n)


@device
def gates_to_hidden(z, cell, hidden, p):
    """From the sums of a batch entry to its new cell state and hidden row."""
    n = p.cells
    zf, zc, zo = (z + 4 * n, z + 8 * n, z + 12 * n) if p.gates == 4 else (z, z + 4 * n, z + 8 * n)
    prepare_gate(zf, 1, cell, p)
    prepare_gate(zc, 2, cell, p)
    logistic_row(zf, n)
    activate_row(zc, zc, n, p.activation)
    if p.gates == 4:
        prepare_gate(z, 0, cell, p)
        logistic_row(z, n)
        for j in range(n):
            store_f32(cell, j, load_f32(zf, j) * load_f32(cell, j) + load_f32(z, j) * load_f32(zc, j))
    else:
        for j in range(n):
            f = load_f32(zf, j)
            store_f32(cell, j, f * load_f32(cell, j) + (F32_1 - f) * load_f32(zc, j))
    clip_row(cell, n, p.cell_clip)
    prepare_gate(zo, 3, cell, p)
    logistic_row(zo, n)
    activate_row(hidden, cell if p.activation != 0 else zc, n, p.activation)   # LiteRT: without activation, the candidate
    for j in range(n):
        store_f32(hidden, j, load_f32(hidden, j) * load_f32(zo, j))


@device
def add_inputs(t, p):
    """Add W x of step t to the sums of all batches, and the diagonal part of R h."""
    n, width = p.cells, p.gates * p.cells
    for b in range(p.batch):
        row = t * p.batch + b if p.time_major != 0 else b * p.time + t
        z = p.gate + 4 * b * width
        if p.diagonal != 0:
            copy_bytes(z, p.z + 4 * row * width, 4 * width)
            for g in range(p.gates):
                add_product(z + 4 * g * n, p.recurrent + 4 * (g + 4 - p.gates) * n, p.state + 4 * b * n, n)
        else:
            add_row(z, p.z + 4 * row * width, width)


@device
def deliver(t, p):
    """The new output state is also the output of step t."""
    bytes_ = 4 * p.outputs
    for b in range(p.batch):
        clip_row(p.state + b * bytes_, p.outputs, p.proj_clip if p.projected != 0 else F32_0)
        row = t * p.batch + b if p.time_major != 0 else b * p.time + t
        copy_bytes(p.y + row * bytes_, p.state + b * bytes_, bytes_)


# ---- float32 ------------------------------------------------------------------------------------

@device
def rows_product(x, panels, y, m, k, n):
    """y [m, n] = x [m, k] @ panels."""
    if m == 1:
        gemv_f32(x, panels, y, k, n, -F32_INF, F32_INF)
    else:
        gemm_f32(x, 4 * k, panels, y, 4 * n, m, k, n, 64, -F32_INF, F32_INF, 0)


@kernel(LSTM)
def lstm_f32(p, begin, end):
    for t in range(p.time):
        if p.diagonal == 0:
            rows_product(p.state, p.recurrent, p.gate, p.batch, p.outputs, p.gates * p.cells)
        add_inputs(t, p)
        hidden = p.hidden if p.projected != 0 else p.state
        for b in range(p.batch):
            gates_to_hidden(p.gate + 4 * b * p.gates * p.cells, p.cell + 4 * b * p.cells, hidden + 4 * b * p.cells, p)
        if p.projected != 0:
            rows_product(p.hidden, p.projection, p.state, p.batch, p.cells, p.outputs)
        deliver(t, p)
    return 0


# ---- hybrid -------------------------------------------------------------------------------------

_dot = DOTS["i8", "i8"]


@device
def quantise_row(x, q, n, asymmetric):
    """(scale, zero point) of a row and its codes, as in ops/hybrid.py."""
    low, high = row_range(x, 1, n)
    body = n - n % 8
    if asymmetric == 0:
        most = max(-low, high)
        inverse = F32_127 / most if most > F32_0 else F32_0
        for i in range(n):
            store_i8(q, i, np.int8(min(max(nearest(load_f32(x, i) * inverse, i, body), -F32_127), F32_127)))
        return most / F32_127, np.int64(0)
    scale, zero = np.float64(1.0), 0.0
    if low != high:
        scale = np.float64(high - low) / 255.0
        a, b = np.float64(low) / scale, np.float64(high) / scale
        zero = -128.0 - a if 128.0 + abs(a) < 127.0 + abs(b) else 127.0 - b
        zero = min(max(round_f64(zero), -128.0), 127.0)
    short, offset = np.float32(scale), np.float32(zero)
    inverse = F32_0 if short == F32_0 else np.float32(1.0 / np.float64(short))
    for i in range(n):
        store_i8(q, i, np.int8(min(max(nearest(load_f32(x, i) * inverse, i, body) + offset, -F32_128), F32_127)))
    return short, np.int64(zero)


@kernel(HYBRID)
def lstm_hybrid(p, begin, end):
    width = p.gates * p.cells
    for t in range(p.time):
        if p.diagonal == 0:
            for b in range(p.batch):
                scale, zero = quantise_row(p.state + 4 * b * p.outputs, p.codes, p.outputs, p.asymmetric)
                for j in range(width):
                    acc = _dot(p.codes, 1, p.recurrent + j * p.outputs, 1, p.outputs, zero, 0)
                    store_f32(p.gate, b * width + j, np.float32(acc) * (scale * load_f32(p.scales, j)))
        add_inputs(t, p)
        hidden = p.hidden if p.projected != 0 else p.state
        for b in range(p.batch):
            gates_to_hidden(p.gate + 4 * b * width, p.cell + 4 * b * p.cells, hidden + 4 * b * p.cells, p)
        if p.projected != 0:
            for b in range(p.batch):
                scale, zero = quantise_row(p.hidden + 4 * b * p.cells, p.codes, p.cells, p.asymmetric)
                for j in range(p.outputs):
                    acc = _dot(p.codes, 1, p.projection + j * p.cells, 1, p.cells, zero, 0)
                    bias = load_f32(p.projection_bias, j) if p.projection_bias != 0 else F32_0
                    store_f32(p.state, b * p.outputs + j, np.float32(acc) * (scale * p.projection_scale) + bias)
        deliver(t, p)
    return 0
