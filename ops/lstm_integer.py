"""UNIDIRECTIONAL_SEQUENCE_LSTM on int8 activations with int16 cell state, in LiteRT's integers ("8x8 -> 16").

Gate sums are int16 of scale 2**-12 (with layer normalisation: of the intermediate tensors 0 to 3), the cell is int16 with a
power of two as scale, the hidden row has the scale and zero point of intermediate tensor 4. Sigmoid and tanh are gemmlowp's
16-bit fixed-point functions. Two slips of LiteRT belong to its numbers: the hidden row is saturated *minus* its zero point
in front of the projection; peephole weights are laid over the cells that a step works on (of all batches if time_major,
else of one) n_output by n_output, not n_cell by n_cell. With n_output > n_cell that leaves LiteRT's buffers: refused here.
"""
from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from litejit.compiler import device, kernel
from litejit.compiler.primitives import copy_bytes, load_i16, load_i32, load_i64, store_i8, store_i16, store_i32
from litejit.ops.arithmetic import I32_MAX, I32_MIN, mbqm, quantize_multiplier, rdivpot, saturate, srdhm, wrap32
from litejit.ops.base import Packed, Scratch, Step
from litejit.ops.integer_product import DOTS
from litejit.planner.graph import Node, Value

if TYPE_CHECKING:
    from litejit.ops.recurrent import Lstm

PARAMS = np.dtype([(name, "i8") for name in (
    "x", "y", "state", "cell", "weights", "recurrent", "bias", "peephole", "norm", "projection", "projection_bias", "numbers",
    "z", "hidden", "batch", "time", "depth", "cells", "outputs", "gates", "time_major", "x_zero", "h_zero", "cell_clip",
    "proj_clip", "log2", "hidden_zero", "hidden_multiplier", "hidden_shift", "projection_multiplier", "projection_shift")],
    align=True)
# per gate: multiplier and shift of the input, the recurrent, the peephole and the normalised sums, the least variance
INPUT, RECURRENT, PEEPHOLE, NORM, GUARD, ROW = 0, 2, 4, 6, 8, 9
F32 = np.float32


def check(node: Node, lstm: Lstm) -> None:
    """Refuse what the integer kernel does not take."""
    node.check(len(node.intermediates) == 5, f"an integer LSTM has 5 intermediate tensors, not {len(node.intermediates)}: "
               "the 8x8 -> 8 variant is not supported")
    node.types(lstm.cell, "i16")
    for value in (lstm.state, node.out):
        node.types(value, "i8")
    for value in (lstm.x, lstm.state, lstm.cell, node.out):
        node.check(value.quantised, f"{value!r} of an integer LSTM must be quantised")
    log2 = round(math.log2(float(lstm.cell.scale)))
    node.check(F32(2.0 ** log2) == lstm.cell.scale and -15 <= log2 <= -9,
               f"the scale of {lstm.cell!r} must be a power of two from 2**-15 to 2**-9")
    node.check(not any(lstm.peephole) or lstm.outputs <= lstm.cells, "a peephole needs n_output <= n_cell")
    node.check(not lstm.diagonal, "an integer LSTM takes no diagonal recurrent tensors")


def steps(node: Node, lstm: Lstm) -> list[Step]:
    """One step: all time steps of all batches."""
    log2 = round(math.log2(float(lstm.cell.scale)))
    hidden = node.intermediates[4]
    multiplier, shift = quantize_multiplier(float(F32(2.0 ** -15 / float(hidden.scale) * 2.0 ** -15)))
    params: dict[str, Any] = {
        "x": lstm.x, "y": node.out, "state": lstm.state, "cell": lstm.cell, "weights": _joined(lstm, lstm.weights, "weights"),
        "recurrent": _joined(lstm, lstm.recurrent, "recurrent"), "bias": _table(lstm, lstm.biases, np.int32),
        "peephole": _table(lstm, lstm.peephole, np.int16), "norm": _table(lstm, lstm.norm, np.int16),
        "projection": lstm.projection, "projection_bias": lstm.projection_bias, "numbers": _numbers(node, lstm, log2),
        "z": Scratch(16 * lstm.cells), "hidden": Scratch(lstm.cells + 64), "batch": lstm.batch, "time": lstm.time,
        "depth": lstm.depth, "cells": lstm.cells, "outputs": lstm.outputs, "gates": len(lstm.gates),
        "time_major": lstm.time_major, "x_zero": lstm.x.zero_point, "h_zero": lstm.state.zero_point, "log2": log2,
        "cell_clip": _clip(node.options.cell_clip, lstm.cell.scale, 32767),
        "proj_clip": _clip(node.options.proj_clip, lstm.state.scale, 127), "hidden_zero": hidden.zero_point,
        "hidden_multiplier": multiplier, "hidden_shift": shift}
    if lstm.projection is not None:
        real = F32(lstm.projection.scale * hidden.scale) / lstm.state.scale
        params["projection_multiplier"], params["projection_shift"] = quantize_multiplier(float(F32(real)))
    macs = lstm.time * lstm.batch * len(lstm.gates) * lstm.cells * (lstm.depth + lstm.outputs)
    return [Step(node, lstm_integer, params, macs=macs)]


def _clip(limit: float, scale: Any, most: int) -> int:
    return 0 if limit <= 0 else min(most, max(0, int(F32(limit) / F32(scale))))


def _joined(lstm: Lstm, values: tuple[Value | None, ...], what: str) -> Packed:
    chosen = [v for v in values if v is not None]
    return Packed((*(v.key for v in chosen), what, "int8"), lambda: np.concatenate([np.asarray(v.data) for v in chosen]))


def _table(lstm: Lstm, values: tuple[Value | None, ...], dtype: Any) -> Packed | None:
    """[4, C] of one kind of input, zeros where a gate has none."""
    if not any(values):
        return None
    cells = lstm.cells

    def build() -> np.ndarray:
        return np.stack([np.zeros(cells, dtype) if v is None else np.asarray(v.data, dtype).ravel() for v in values])
    return Packed(("lstm", np.dtype(dtype).name, cells, *(None if v is None else v.key for v in values)), build)


def _numbers(node: Node, lstm: Lstm, log2: int) -> Packed:
    table = np.zeros((4, ROW), np.int64)
    normed = any(lstm.norm)
    for g in lstm.gates:
        gate = node.intermediates[g].scale if normed else F32(2.0 ** -12)
        w, r, p, n = lstm.weights[g], lstm.recurrent[g], lstm.peephole[g], lstm.norm[g]
        assert w is not None and r is not None
        table[g, INPUT:INPUT + 2] = quantize_multiplier(float(F32(w.scale * lstm.x.scale) / gate))
        table[g, RECURRENT:RECURRENT + 2] = quantize_multiplier(float(F32(r.scale * lstm.state.scale) / gate))
        if p is not None:
            real = F32(2.0 ** log2 * float(p.scale) / float(gate))
            table[g, PEEPHOLE:PEEPHOLE + 2] = quantize_multiplier(float(real))
        if n is not None:
            table[g, NORM:NORM + 2] = quantize_multiplier(float(n.scale))
            table[g, GUARD] = max(1, int(F32(10000) * n.scale))
    return Packed(("lstm numbers", table.tobytes()), lambda: table)


# ---- gemmlowp's functions on int16 -----------------------------------------------------------------

@device
def high16(a, b):
    """a * b / 2**15, halves up, saturated."""
    return min((a * b + (1 << 14)) >> 15, 32767)


@device
def exp16(a, bits):
    """exp of a <= 0 with `bits` integer bits, as a fraction of 2**15."""
    fraction = 15 - bits
    quarter = 1 << (fraction - 2)
    part = (a & (quarter - 1)) - quarter
    x = (part << bits) + (1 << 12)
    x2 = high16(x, x)
    x3, x4 = high16(x2, x), high16(x2, x2)
    t = rdivpot(high16(rdivpot(x4, 2) + x3, 10923) + x2, 1)
    r = saturate(28918 + high16(28918, x + t), -32768, 32767)                             # exp(-1/8)
    rest = part - a
    r = high16(r, 25520) if rest & (1 << (fraction - 2)) else r
    r = high16(r, 19875) if rest & (1 << (fraction - 1)) else r
    r = high16(r, 12055) if bits > 0 and rest & (1 << fraction) else r
    r = high16(r, 4435) if bits > 1 and rest & (1 << (fraction + 1)) else r
    r = high16(r, 600) if bits > 2 and rest & (1 << (fraction + 2)) else r
    r = high16(r, 11) if bits > 3 and rest & (1 << (fraction + 3)) else r
    r = high16(r, 0) if bits > 4 and rest & (1 << (fraction + 4)) else r
    return 32767 if a == 0 else r


@device
def reciprocal16(x):
    """1 / (1 + x), three Newton steps; the result has two integer bits."""
    half = (x + 32768) >> 1
    y = 23130 + high16(half, -15420)
    for _ in range(3):
        y += saturate(high16(y, (1 << 13) - high16(half, y)) << 2, -32768, 32767)
    return y


@device
def logistic16(x):
    """Sigmoid of Q3.12 as Q0.15."""
    if x == 0:
        return 16384
    positive = saturate(reciprocal16(exp16(-abs(x), 3)) << 1, -32768, 32767)
    return positive if x > 0 else 32767 - positive


@device
def tanh16(x, bits):
    """Tanh of a value with `bits` integer bits as Q0.15."""
    if x == 0:
        return 0
    t = saturate((reciprocal16(exp16(-abs(x), bits + 1)) - (1 << 13)) << 2, -32768, 32767)
    return -t if x < 0 else t


# ---- layer normalisation ------------------------------------------------------------------------------

@device
def quotient(a, b):
    """a / b toward zero, b > 0."""
    return a // b if a >= 0 else -(-a // b)


@device
def inverse_root(v):
    """(multiplier, shift) of 1 / sqrt(v) for v >= 1: five Newton steps in Q3.28."""
    if v <= 1:
        return I32_MAX, 0
    shift = 11
    while v >= (1 << 29):
        v //= 4
        shift += 1
    pairs = -1
    while (v << (2 * (pairs + 1))) < (1 << 29):
        pairs += 1
    shift -= pairs
    half = rdivpot((v << (2 * pairs)) >> 1, 1)
    x = 1 << 28
    for _ in range(5):
        cube = saturate(srdhm(srdhm(x, x), x) << 6, I32_MIN, I32_MAX)
        x = saturate((srdhm((1 << 28) + (1 << 27), x) - srdhm(half, cube)) << 3, I32_MIN, I32_MAX)
    x = srdhm(x, 1518500250)
    return (x << -shift, 0) if shift < 0 else (x, -shift)


@device
def normalise(z, g, n, p):
    """Integer layer normalisation of the row of gate g."""
    total, squares = 0, 0
    for j in range(n):
        v = np.int64(load_i32(z, j))
        total += v
        squares += v * v
    mean = quotient(total * 1024, n)
    variance = quotient(squares * ((1 << 20) // n) - mean * mean, 1 << 20)
    numbers = p.numbers + 8 * ROW * g
    multiplier, shift = inverse_root(variance if variance >= 1 else load_i64(numbers, GUARD))
    for j in range(n):
        t = mbqm(1024 * np.int64(load_i32(z, j)) - mean, multiplier, shift)
        t = wrap32(t * np.int64(load_i16(p.norm, g * n + j))) + np.int64(load_i32(p.bias, g * n + j))
        t = quotient(t + 512, 1024) if t > 0 else quotient(t - 512, 1024)
        t = mbqm(wrap32(t), load_i64(numbers, NORM), load_i64(numbers, NORM + 1) + 12)
        store_i32(z, j, np.int32(saturate(t, -32768, 32767)))


# ---- the kernel ---------------------------------------------------------------------------------------

_dot = DOTS["i8", "i8"]


@device
def gate_sums(x, b, g, p):
    """Sums W x + R h of gate g into its row of z."""
    n, row, numbers = p.cells, g - 4 + p.gates, p.numbers + 8 * ROW * g
    for j in range(n):
        at = row * n + j
        acc = _dot(x, 1, p.weights + at * p.depth, 1, p.depth, p.x_zero, 0)
        if p.norm == 0:
            acc += np.int64(load_i32(p.bias, g * n + j))
        v = saturate(mbqm(wrap32(acc), load_i64(numbers, INPUT), load_i64(numbers, INPUT + 1)), -32768, 32767)
        acc = _dot(p.state + b * p.outputs, 1, p.recurrent + at * p.outputs, 1, p.outputs, p.h_zero, 0)
        v += mbqm(wrap32(acc), load_i64(numbers, RECURRENT), load_i64(numbers, RECURRENT + 1))
        store_i32(p.z, g * n + j, np.int32(saturate(v, -32768, 32767)))


@device
def finish_gate(cell, b, g, p):
    """Peephole and normalisation of gate g of batch entry b."""
    n, numbers, z = p.cells, p.numbers + 8 * ROW * g, p.z + 4 * g * p.cells
    if p.peephole != 0 and g != 2:
        first, end = (b * n, p.batch * p.outputs) if p.time_major != 0 else (0, p.outputs)
        for j in range(min(n, end - first)):
            weight = np.int64(load_i16(p.peephole, g * n + (first + j) % p.outputs))
            v = weight * np.int64(load_i16(cell, j))
            v = mbqm(v, load_i64(numbers, PEEPHOLE), load_i64(numbers, PEEPHOLE + 1)) + np.int64(load_i32(z, j))
            store_i32(z, j, np.int32(saturate(v, -32768, 32767)))
    if p.norm != 0:
        normalise(z, g, n, p)


@device
def new_cell(cell, p):
    """c = f * c + i * tanh(g), clipped."""
    n = p.cells
    for j in range(n):
        f = logistic16(np.int64(load_i32(p.z, n + j)))
        i = logistic16(np.int64(load_i32(p.z, j))) if p.gates == 4 else 32767 - f
        c = rdivpot(f * np.int64(load_i16(cell, j)), 15)
        c += rdivpot(i * tanh16(np.int64(load_i32(p.z, 2 * n + j)), 3), 30 + p.log2)
        c = saturate(c, -32768, 32767)
        if p.cell_clip > 0:
            c = saturate(c, -p.cell_clip, p.cell_clip)
        store_i16(cell, j, np.int16(c))


@device
def new_state(cell, state, p):
    """h = o * tanh(c), projected."""
    n = p.cells
    for j in range(n):
        v = logistic16(np.int64(load_i32(p.z, 3 * n + j))) * tanh16(np.int64(load_i16(cell, j)), 15 + p.log2)
        v = mbqm(v, p.hidden_multiplier, p.hidden_shift)
        if p.projection == 0:
            store_i8(state, j, np.int8(saturate(v + p.hidden_zero, -128, 127)))
        else:
            store_i8(p.hidden, j, np.int8(saturate(v - p.hidden_zero, -128, 127)))
    if p.projection != 0:
        for j in range(p.outputs):
            acc = _dot(p.hidden, 1, p.projection + j * n, 1, n, -p.hidden_zero, 0)
            if p.projection_bias != 0:
                acc += np.int64(load_i32(p.projection_bias, j))
            v = mbqm(wrap32(acc), p.projection_multiplier, p.projection_shift) + p.h_zero
            v = saturate(v, -128, 127)
            if p.proj_clip > 0:
                v = saturate(v, -p.proj_clip, p.proj_clip)
            store_i8(state, j, np.int8(v))


@kernel(PARAMS)
def lstm_integer(p, begin, end):
    for t in range(p.time):
        for b in range(p.batch):
            row = t * p.batch + b if p.time_major != 0 else b * p.time + t
            cell, state = p.cell + 2 * b * p.cells, p.state + b * p.outputs
            for g in range(4 - p.gates, 4):
                gate_sums(p.x + row * p.depth, b, g, p)
            for g in range(4 - p.gates, 3):
                finish_gate(cell, b, g, p)
            new_cell(cell, p)
            finish_gate(cell, b, 3, p)
            new_state(cell, state, p)
            copy_bytes(p.y + row * p.outputs, state, p.outputs)
    return 0
