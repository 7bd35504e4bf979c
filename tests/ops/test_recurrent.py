"""UNIDIRECTIONAL_SEQUENCE_LSTM: float32 against a twin in float64, hybrid near it, integers against the oracle."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder, Quant
from tests.twins.products import lstm

F32 = np.float32
T, B, I, C, P = 5, 3, 11, 20, 7


class Cell:
    """Random weights of an LSTM, and a model of it."""

    def __init__(self, rng, *, cifg=False, peephole=False, norm=False, projection=False, diagonal=False, kind="FLOAT32"):
        p = P if projection else C
        self.kind, self.cifg, self.outputs, self.diagonal = kind, cifg, p, diagonal
        gates = [g for g in range(4) if not (cifg and g == 0)]

        def each(*shape):
            return [self._weights(rng, shape) if g in gates else None for g in range(4)]
        self.weights, self.recurrent = each(C, I), each(*((C,) if diagonal else (C, p)))
        self.peephole = [None if g == 2 else v for g, v in enumerate(each(C))] if peephole else [None] * 4
        self.biases = [rng.standard_normal(C).astype(F32) if g in gates else None for g in range(4)]
        self.norm = [rng.standard_normal(C).astype(F32) if g in gates else None for g in range(4)] if norm else [None] * 4
        self.projection = self._weights(rng, (P, C)) if projection else None
        self.projection_bias = rng.standard_normal(P).astype(F32) if projection else None

    def _weights(self, rng, shape):
        if self.kind == "FLOAT32":
            return (rng.standard_normal(shape) * 0.4).astype(F32)
        return rng.integers(-127, 127, shape, np.int8, endpoint=True)

    def model(self, time_major, **options):
        """One operator; x is the input, the states are variables."""
        builder = ModelBuilder()
        graph = builder.subgraph("main")
        quant = None if self.kind == "FLOAT32" else Quant([0.004], [0])
        x = graph.input("x", (T, B, I) if time_major else (B, T, I))

        def constant(value, name, float_=False):
            return None if value is None else graph.constant(name, value, None, None if float_ else quant)
        inputs = [x, *(constant(v, f"w{g}") for g, v in enumerate(self.weights)),
                  *(constant(v, f"r{g}") for g, v in enumerate(self.recurrent)),
                  *(constant(self.peephole[g], f"p{g}") for g in (0, 1, 3)),
                  *(constant(v, f"b{g}", True) for g, v in enumerate(self.biases)),
                  constant(self.projection, "proj"), constant(self.projection_bias, "proj_bias", True),
                  graph.variable("h", (B, self.outputs)), graph.variable("c", (B, C)),
                  *(constant(v, f"n{g}", True) for g, v in enumerate(self.norm))]
        shape = ((T, B) if time_major else (B, T)) + (self.outputs,)
        made = graph.add("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [("y", shape, "FLOAT32", None)], time_major=time_major,
                         fused_activation_function="TANH", diagonal_recurrent_tensors=self.diagonal, **options)
        graph.outputs(*made)
        return builder.build()

    def real(self, value):
        return None if value is None else value * (1.0 if self.kind == "FLOAT32" else np.float64(F32(0.004)))

    def twin(self, x, h, c, **clips):
        """(outputs, h, c) of x [t, b, i]."""
        def each(values):
            return [self.real(v) for v in values]
        return lstm(x, each(self.weights), each(self.recurrent), self.biases, h, c,
                    peephole=each(self.peephole) if any(v is not None for v in self.peephole) else None,
                    norm=self.norm if self.norm[1] is not None else None, projection=self.real(self.projection),
                    projection_bias=self.projection_bias, **clips)


VARIANTS = [{}, {"cifg": True}, {"peephole": True}, {"norm": True}, {"projection": True}, {"diagonal": True},
            {"cifg": True, "peephole": True, "norm": True, "projection": True}, {"cifg": True, "diagonal": True}]


def called(cell, rng, time_major, **options):
    """Outputs of a call, of one that goes on from its state, and of one after a reset; and their largest error in units
    of the twin's largest number."""
    interpreter = Interpreter(model_content=cell.model(time_major, **options))
    interpreter.allocate_tensors()
    x = rng.standard_normal((T, B, I)).astype(F32)
    h, c = np.zeros((B, cell.outputs)), np.zeros((B, C))
    clips = {k: v for k, v in options.items() if k.endswith("clip")}
    results, errors = [], []
    for k in range(3):
        if k == 2:
            interpreter.reset_all_variables()
            h, c = np.zeros((B, cell.outputs)), np.zeros((B, C))
        want, h, c = cell.twin(x, h, c, **clips)
        interpreter.set_tensor(0, x if time_major else np.ascontiguousarray(x.transpose(1, 0, 2)))
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        results.append(got)
        got = got if time_major else got.transpose(1, 0, 2)
        errors.append(np.abs(got - want).max() / np.abs(want).max())
    return results, np.max(errors)


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "+".join(v) or "plain")
def test_floats(rng, variant, time_major):
    (first, _, again), error = called(Cell(rng, **variant), rng, time_major)
    assert error <= 1e-5
    np.testing.assert_array_equal(again, first)


def test_clips(rng):
    (first, _, again), error = called(Cell(rng, projection=True), rng, False, cell_clip=0.3, proj_clip=0.2)
    assert error <= 1e-5
    np.testing.assert_array_equal(again, first)


@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("variant", VARIANTS[:5], ids=lambda v: "+".join(v) or "plain")
def test_hybrid_is_near(rng, variant, asymmetric):
    """Quantising rows costs some precision, no more."""
    (first, _, again), error = called(Cell(rng, kind="INT8", **variant), rng, False, asymmetric_quantize_inputs=asymmetric)
    assert error <= 0.05
    np.testing.assert_array_equal(again, first)


def test_integers(rng, arithmetic):
    """8x8 -> 16 of random weights, two calls, bit for bit."""
    for cifg in (False, True):
        gates = "fco" if cifg else "ifco"
        w = {g: rng.integers(-127, 128, (C, I)) for g in gates}
        r = {g: rng.integers(-127, 128, (C, C)) for g in gates}
        b = {g: rng.integers(-5000, 5000, C) for g in gates}
        s_x, s_w, s_h, cell_scale = F32(0.02), F32(0.003), F32(1 / 128), F32(2.0 ** -11)
        builder = ModelBuilder()
        graph = builder.subgraph("main")

        def each(values, dtype, scale, what, graph=graph):
            return [graph.constant(f"{what}{g}", values[g].astype(dtype), None, Quant([scale], [0])) if g in values else None
                    for g in "ifco"]
        x = graph.input("x", (B, T, I), "INT8", Quant([s_x], [5]))
        inputs = [x, *each(w, np.int8, s_w, "w"), *each(r, np.int8, s_w, "r"), None, None, None,
                  *each(b, np.int32, s_x * s_w, "b"), None, None,
                  graph.variable("h", (B, C), "INT8", Quant([s_h], [-3])),
                  graph.variable("c", (B, C), "INT16", Quant([cell_scale], [0])), None, None, None, None]
        between = [graph.tensor(f"between{k}", (), "INT8" if k == 4 else "INT16", Quant([s_h if k == 4 else 2.0 ** -12],
                                                                                  [-3 if k == 4 else 0])) for k in range(5)]
        made = graph.add("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [("y", (B, T, C), "INT8", Quant([s_h], [-3]))],
                         fused_activation_function="TANH", cell_clip=4.0)
        graph.tree["operators"][-1]["intermediates"] = [tensor.index for tensor in between]
        graph.outputs(*made)
        interpreter = Interpreter(model_content=builder.build())
        interpreter.allocate_tensors()
        values = rng.integers(-128, 127, (B, T, I), np.int8, endpoint=True)
        q = {"sx": s_x, "zx": 5, "sh": s_h, "zh": -3, "sw": dict.fromkeys(gates, s_w), "sr": dict.fromkeys(gates, s_w),
             "cell": -11, "hid": (s_h, -3)}
        want = arithmetic.lstm_int8(values.transpose(1, 0, 2), w, r, b, np.full((B, C), -3), np.zeros((B, C)), q,
                                    cell_clip=int(4.0 / cell_scale))
        interpreter.set_tensor(0, values)
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        np.testing.assert_array_equal(got, want.transpose(1, 0, 2))


def test_refusals(rng):
    cell = Cell(rng)
    cell.recurrent[2] = cell.recurrent[2][:, :-1]
    with pytest.raises(LiteJitError, match="should have the shape"):
        Interpreter(model_content=cell.model(False)).allocate_tensors()
    cell = Cell(rng)
    cell.biases[1] = None
    with pytest.raises(LiteJitError, match="missing"):
        Interpreter(model_content=cell.model(False)).allocate_tensors()
