"""Small models for the tests of the interpreter."""

from __future__ import annotations

from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder, Quant


def add(shape: tuple[int, ...] = (1, 4), kind: str = "FLOAT32") -> Interpreter:
    """c = a + b, d = -c."""
    builder = ModelBuilder()
    g = builder.subgraph()
    a, b = g.input("a", shape, kind), g.input("b", shape, kind)
    c = g.add("ADD", [a, b], ("c", shape, kind))
    g.outputs(g.add("NEG", [c], ("d", shape, kind)))
    return Interpreter(model_content=builder.build())


def passes(kind: str, shape: tuple[int, ...] = (3,), quant: Quant | None = None) -> Interpreter:
    """A tensor that is input and output."""
    builder = ModelBuilder()
    g = builder.subgraph()
    g.outputs(g.input("x", shape, kind, quant))
    interpreter = Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    return interpreter
