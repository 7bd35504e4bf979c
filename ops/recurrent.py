"""UNIDIRECTIONAL_SEQUENCE_LSTM: a long short-term memory over a sequence, with state that lasts from run to run.

Inputs: 0 x [T, B, I] if time_major else [B, T, I]; gates in the order i, f, c, o (i absent: CIFG, i = 1 - f): 1-4 weights
[C, I], 5-8 recurrent weights [C, P] ([C] if diagonal), 9-11 peephole [C] of i, f, o, 12-15 biases [C]; 16 projection [P, C],
17 its bias; 18 output state [B, P] and 19 cell state [B, C] (variables); 20-23 layer normalisation [C]. Output [.., P].

    z = W x + R h (+ peephole * c), with normalisation: (z - mean) / sqrt(var + 1e-8) * coefficient, then + bias
    c = clip(sigmoid(zf) * c + sigmoid(zi) * act(zc)); h = clip(projection(sigmoid(zo) * act(c)))

The products W x of all steps are one product in front; the recurrence reads packed weights that stay in the cache. float32;
or hybrid with int8 (or uint8) weights, where rows of x and h are quantised while running, as LiteRT's kernels do.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.ops import lstm_integer
from litejit.ops.base import Operator, Packed, Scratch, Step, Target
from litejit.ops.float_product import Matrix, float_steps
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import HYBRID, Layout, Rounding, product_step
from litejit.ops.lstm_kernels import ACTIVATION_CODES, lstm_f32, lstm_hybrid
from litejit.ops.simd.gemm_f32 import pack_f32
from litejit.planner.graph import Node, Value

X, WEIGHTS, RECURRENT, PEEPHOLE, BIAS, PROJECTION, PROJECTION_BIAS, STATE, CELL, NORM = 0, 1, 5, 9, 12, 16, 17, 18, 19, 20
INPUT, FORGET, CANDIDATE, OUTPUT = range(4)


class Lstm:
    """The inputs of a node by what they are, with its sizes."""

    __slots__ = (
        "batch",
        "biases",
        "cell",
        "cells",
        "depth",
        "diagonal",
        "gates",
        "hybrid",
        "norm",
        "outputs",
        "peephole",
        "projection",
        "projection_bias",
        "recurrent",
        "state",
        "time",
        "time_major",
        "weights",
        "x",
    )

    def __init__(self, node: Node) -> None:
        count = len(node.inputs)
        node.check(count in (20, 24), lambda: f"The LSTM Full kernel expects 20 or 24 inputs. Got {count} inputs")
        self.x, self.state, self.cell = node[X], node[STATE], node[CELL]
        self.weights = tuple(node.optional(WEIGHTS + g) for g in range(4))
        self.recurrent = tuple(node.optional(RECURRENT + g) for g in range(4))
        self.peephole = (node.optional(PEEPHOLE), node.optional(PEEPHOLE + 1), None, node.optional(PEEPHOLE + 2))
        self.biases = tuple(node.optional(BIAS + g) for g in range(4))
        self.projection, self.projection_bias = node.optional(PROJECTION), node.optional(PROJECTION_BIAS)
        self.norm = tuple(node.optional(NORM + g) for g in range(4))
        self.gates = tuple(g for g in range(4) if g != INPUT or self.weights[INPUT] is not None)
        self.time_major = bool(getattr(node.options, "time_major", False))
        self.diagonal = bool(getattr(node.options, "diagonal_recurrent_tensors", False))
        node.check(self.x.rank == 3, lambda: f"input->dims->size != 3 ({self.x.rank} != 3)")
        first, second, self.depth = self.x.dims
        self.time, self.batch = (first, second) if self.time_major else (second, first)
        forget = node[WEIGHTS + FORGET]
        node.check(forget.rank == 2, lambda: f"weights of the gates need two dimensions: {forget!r}")
        self.cells = forget.dims[0]
        self.outputs = self.state.dims[-1]
        self.hybrid = forget.type in ("i8", "u8")

    def check(self, node: Node) -> None:
        """Refuse what does not fit together."""
        cells, outputs, kind = self.cells, self.outputs, self.weights[FORGET].type          # type: ignore[union-attr]
        bias, norm, peephole = ("i32", "i16", "i16") if self.x.type == "i8" else ("f32", "f32", kind)
        rest = (cells,) if self.diagonal else (cells, outputs)
        for g in range(4):
            if g not in self.gates:
                node.check(self.recurrent[g] is None and self.peephole[g] is None,
                           "CIFG: without an input gate there can be no recurrent or peephole weights for it")
                continue
            self._need(node, self.weights[g], (cells, self.depth), kind)
            self._need(node, self.recurrent[g], rest, kind)
            self._need(node, self.biases[g], (cells,), bias)
            if any(self.norm):
                self._need(node, self.norm[g], (cells,), norm)
        if any(self.peephole):
            for g in self.gates:
                if g != CANDIDATE:
                    self._need(node, self.peephole[g], (cells,), peephole)
        if self.projection is not None:
            self._need(node, self.projection, (outputs, cells), kind)
        else:
            node.check(cells == outputs, lambda: f"n_output != n_cell ({outputs} != {cells}) without a projection")
        if self.projection_bias is not None:
            self._need(node, self.projection_bias, (outputs,), bias)
        for value, size in ((self.state, self.batch * outputs), (self.cell, self.batch * cells)):
            node.check(value.variable, f"{value!r} must be a variable tensor")
            node.check(value.size == size, f"NumElements({value.name}) != n_batch * n_output ({value.size} != {size})")
        node.check(not (self.diagonal and outputs != cells), "diagonal recurrent weights need n_output == n_cell")

    def _need(self, node: Node, value: Value | None, shape: tuple[int, ...], kind: str) -> None:
        if value is None:
            node.fail(f"an LSTM input of shape {shape} is missing")
            return
        node.types(value, kind)
        node.check(value.dims == shape, lambda: f"{value!r} of the LSTM should have the shape {shape}")
        node.check(value.data is not None, lambda: f"{value!r}: LSTM weights that are not constant are not supported")


class UnidirectionalSequenceLstm(Operator):
    """Options: fused_activation_function, cell_clip, proj_clip, time_major, asymmetric_quantize_inputs,
    diagonal_recurrent_tensors."""

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        lstm = Lstm(node)
        if lstm.x.type == "i8":
            lstm.check(node)
            lstm_integer.check(node, lstm)
            return [(*lstm.x.dims[:2], lstm.outputs)]
        for value in (lstm.x, lstm.state, lstm.cell, node.out):
            node.types(value, "f32")
        node.types(node[WEIGHTS + FORGET], "f32", "i8", "u8")
        lstm.check(node)
        return [(*lstm.x.dims[:2], lstm.outputs)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        lstm = Lstm(node)
        if lstm.x.type == "i8":
            return lstm_integer.steps(node, lstm)
        gates = len(lstm.gates) * lstm.cells
        before = Scratch(4 * lstm.time * lstm.batch * gates)
        made = _hybrid_inputs if lstm.hybrid else _float_inputs
        steps = made(node, target, lstm, before)
        options = node.options
        params: dict[str, Any] = {
            "z": before, "y": node.out, "state": lstm.state, "cell": lstm.cell, "batch": lstm.batch, "time": lstm.time,
            "cells": lstm.cells, "outputs": lstm.outputs, "gates": len(lstm.gates), "time_major": lstm.time_major,
            "peephole": _rows(lstm, lstm.peephole, "peephole"), "norm": _rows(lstm, lstm.norm, "norm"),
            "bias": _rows(lstm, lstm.biases, "biases"), "diagonal": lstm.diagonal,
            "projection_bias": lstm.projection_bias, "projected": lstm.projection is not None,
            "activation": ACTIVATION_CODES.get(options.fused_activation_function.name, 0),
            "cell_clip": options.cell_clip, "proj_clip": options.proj_clip,
            "gate": Scratch(4 * lstm.batch * gates), "hidden": Scratch(4 * lstm.batch * max(lstm.cells, lstm.outputs))}
        macs = lstm.time * lstm.batch * gates * lstm.outputs
        if lstm.hybrid:
            return [*steps, Step(node, lstm_hybrid, {**params, **_hybrid_weights(node, lstm)}, macs=macs)]
        recurrent = _rows(lstm, lstm.recurrent, "diagonal") if lstm.diagonal else _panels(lstm, target, lstm.recurrent)
        projection = None
        if lstm.projection is not None:
            matrix = Matrix(lstm.projection, lstm.outputs, lstm.cells, transposed=True)
            projection, _ = matrix.pack(node, lstm.projection_bias, target.cpu)
        return [*steps, Step(node, lstm_f32, {**params, "recurrent": recurrent, "projection": projection}, macs=macs)]


def _data(value: Value) -> np.ndarray:
    """A constant as float32; quantised ones times their scale."""
    assert value.data is not None
    if value.type == "f32":
        return np.asarray(value.data)
    return np.asarray(value.data).view(np.int8).astype(np.float32) * value.scale


def _chosen(lstm: Lstm, values: tuple[Value | None, ...]) -> list[Value]:
    return [value for g in lstm.gates if (value := values[g]) is not None]


def _rows(lstm: Lstm, values: tuple[Value | None, ...], what: str) -> Packed | None:
    """[4, C] of one kind of input, zeros where a gate has none; None if no gate has one."""
    if not any(values):
        return None
    cells = lstm.cells

    def build() -> np.ndarray:
        return np.stack([np.zeros(cells, np.float32) if v is None else _data(v).ravel() for v in values])
    return Packed(("lstm", what, cells, *(None if v is None else (v.key, float(v.scale)) for v in values)), build)


def _panels(lstm: Lstm, target: Target, values: tuple[Value | None, ...]) -> Packed:
    """The weights of all gates as the panels of one product."""
    chosen = _chosen(lstm, values)
    return Packed((*(v.key for v in chosen), "lstm panels", target.cpu.name),
                  lambda: pack_f32(target.cpu, np.concatenate([_data(v) for v in chosen])))


class _Joined(Value):
    """Constants of several gates, one after the other."""

    __slots__ = ()

    def __init__(self, values: list[Value], type: str) -> None:
        first = values[0]
        data = np.concatenate([np.asarray(v.data) for v in values])
        super().__init__(first.name, first.index, first.subgraph, type, data.shape, data=data,
                         key=(*(v.key for v in values), "joined"))

    def packed(self) -> Packed:
        """The contents, as a parameter of a kernel."""
        data = self.data
        assert data is not None
        return Packed(self.key, lambda: data)


def _early_bias(lstm: Lstm) -> _Joined | None:
    """The biases, which come last with layer normalisation."""
    return None if any(lstm.norm) else _Joined(_chosen(lstm, lstm.biases), "f32")


def _float_inputs(node: Node, target: Target, lstm: Lstm, before: Scratch) -> list[Step]:
    weights = _Joined(_chosen(lstm, lstm.weights), "f32")
    matrix = Matrix(weights, weights.dims[0], lstm.depth, transposed=True)
    bounds = (-np.inf, np.inf)
    return float_steps(node, target.exact(), lstm.x, before, matrix, _early_bias(lstm), bounds=bounds,
                       m=lstm.time * lstm.batch)


# ---- hybrid -------------------------------------------------------------------------------------

def _hybrid_inputs(node: Node, target: Target, lstm: Lstm, before: Scratch) -> list[Step]:
    chosen, m = _chosen(lstm, lstm.weights), lstm.time * lstm.batch
    weights = _Joined(chosen, "i8")
    rows = quantise_rows(node, lstm.x, m, lstm.depth, _how(node))
    rounding = Rounding(HYBRID, np.repeat([v.scale for v in chosen], lstm.cells), 0, (-np.inf, np.inf))
    out = Value("", -1, node.subgraph, "f32", (m, weights.dims[0]))
    bias = _early_bias(lstm)
    step = product_step(node, rows.codes, weights, out, bias, Layout(m, weights.dims[0], lstm.depth), rounding,
                        x_type="i8", terms=rows.terms)
    step.params.update(y=before, w=weights.packed(), bias=None if bias is None else bias.packed())
    return [*rows.steps, step]


def _how(node: Node) -> str:
    return "asymmetric" if getattr(node.options, "asymmetric_quantize_inputs", False) else "symmetric"


def _hybrid_weights(node: Node, lstm: Lstm) -> dict[str, Any]:
    """int8 weights [gates * C, P] and [P, C], with a float32 scale for each row."""
    chosen = _chosen(lstm, lstm.recurrent)
    scales = tuple(float(v.scale) for v in chosen)
    made: dict[str, Any] = {
        "recurrent": _rows(lstm, lstm.recurrent, "diagonal") if lstm.diagonal else _Joined(chosen, "i8").packed(),
        "scales": Packed(("lstm scales", scales, lstm.cells), lambda: np.repeat(np.array(scales, np.float32), lstm.cells)),
        "projection": lstm.projection, "asymmetric": _how(node) == "asymmetric",
        "projection_scale": 0 if lstm.projection is None else lstm.projection.scale,
        "codes": Scratch(max(lstm.cells, lstm.outputs) + 64), "terms": Scratch(64)}
    return made


OPERATORS = {"UNIDIRECTIONAL_SEQUENCE_LSTM": UnidirectionalSequenceLstm()}
