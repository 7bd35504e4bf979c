"""Resolve, infer and fold: shapes, constants, and errors that name the node."""

from __future__ import annotations

import numpy as np
import pytest

from litejit.errors import LiteJitError, UnresolvedCustomOperator, UnsupportedOperators
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder


def test_shape_arithmetic_is_folded() -> None:
    """SHAPE -> STRIDED_SLICE -> PACK -> RESHAPE is resolved while planning, whatever the batch."""
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (-1, 2, 3))
    shape = g.add("SHAPE", [x], ("shape", (3,), "INT32"), out_type="INT32")
    ints = {name: g.constant(name, np.array(v, np.int32)) for name, v in (("zero", [0]), ("one", [1]), ("six", 6))}
    batch = g.add(
        "STRIDED_SLICE", [shape, ints["zero"], ints["one"], ints["one"]], ("batch", (), "INT32"), shrink_axis_mask=1
    )
    both = g.add("PACK", [batch, ints["six"]], ("both", (2,), "INT32"), values_count=2)
    g.outputs(g.add("RESHAPE", [x, both], ("y", (-1, 6))))
    interpreter = Interpreter(model_content=builder.build())
    interpreter.resize_tensor_input(0, (4, 2, 3))
    interpreter.allocate_tensors()
    assert [s.node.op for s in interpreter.plan.steps] == ["RESHAPE"]
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    assert np.array_equal(interpreter.run(values)["y"], values.reshape(4, 6))


def test_constant_output_needs_no_step() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    a, b = (g.constant(n, np.array([1, 2], np.float32)) for n in "ab")
    g.outputs(g.add("ADD", [a, b], ("y", (2,))))
    interpreter = Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    assert not interpreter.plan.steps
    interpreter.invoke()
    assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist() == [2, 4]


def test_error_names_node_tensors_and_shapes() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    a, b = g.input("left", (2,)), g.input("right", (3,))
    g.outputs(g.add("ADD", [a, b], ("sum", (2,))))
    interpreter = Interpreter(model_content=builder.build())
    with pytest.raises(RuntimeError, match=r"not broadcastable.*Node number 0 \(ADD\) failed to prepare") as caught:
        interpreter.allocate_tensors()
    for part in ("left", "right", "sum", "FLOAT32[2]", "FLOAT32[3]", "subgraph 0"):
        assert part in str(caught.value)
    with pytest.raises(RuntimeError, match="not ready"):
        interpreter.invoke()


def test_all_missing_operators_are_named_at_once() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (4,))
    y = g.add("RFFT2D", [x, x], ("y", (4,), "COMPLEX64"))
    z = g.add("UNIQUE", [x], [("z", (4,)), ("i", (4,), "INT32")])
    w = g.custom("MyOperator", [x], ("w", (4,)))
    g.outputs(y, *z, w)
    with pytest.raises(UnsupportedOperators, match="Didn't find op for builtin opcode") as caught:
        Interpreter(model_content=builder.build())
    assert set(caught.value.operators) == {"RFFT2D", "UNIQUE", "MyOperator"}
    assert all(name in str(caught.value) for name in caught.value.operators)


def test_unknown_version_is_refused() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (4,))
    g.outputs(g.add("ADD", [x, x], ("y", (4,)), version=99))
    with pytest.raises(ValueError, match="ADD version 99"):
        Interpreter(model_content=builder.build())


@pytest.mark.parametrize(
    ("name", "text"),
    [("MyOperator", "Encountered unresolved custom op: MyOperator."), ("FlexErf", "Select TensorFlow op")],
)
def test_custom_operator_is_refused_when_allocating(name: str, text: str) -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (4,))
    g.outputs(g.custom(name, [x], ("y", (4,))))
    interpreter = Interpreter(model_content=builder.build())
    with pytest.raises(UnresolvedCustomOperator, match=text.split("(")[0]) as caught:
        interpreter.allocate_tensors()
    assert f"Node number 0 ({name}) failed to prepare" in str(caught.value)


def test_nodes_are_sorted() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (2,))
    middle = g.tensor("middle", (2,))
    y = g.add("NEG", [middle], ("y", (2,)))
    g.add("ABS", [x], middle)
    g.outputs(y)
    interpreter = Interpreter(model_content=builder.build())
    assert interpreter.run(np.array([-3, 4], np.float32))["y"].tolist() == [-3, -4]


def test_circle_is_refused() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    g.input("x", (2,))
    a, b = g.tensor("a", (2,)), g.tensor("b", (2,))
    g.add("NEG", [a], b)
    g.add("NEG", [b], a)
    g.outputs(a)
    with pytest.raises(LiteJitError, match="circle"):
        Interpreter(model_content=builder.build()).allocate_tensors()


def test_input_that_nobody_writes() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    g.input("x", (2,))
    g.outputs(g.add("NEG", [g.tensor("nothing", (2,))], ("y", (2,))))
    with pytest.raises(LiteJitError, match="lacks data"):
        Interpreter(model_content=builder.build()).allocate_tensors()
