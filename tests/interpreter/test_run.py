"""Signatures, `run`, names, variables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter, SignatureRunner
from litejit.schema.builder import ModelBuilder


def content(signatures: tuple[str, ...] = ("serving_default",)) -> bytes:
    """difference = minuend - subtrahend, total = their sum; in a second subgraph, twice x."""
    builder = ModelBuilder()
    g, h = builder.subgraph("main"), builder.subgraph("twice")
    a, b = g.input("in:0", (-1, 2)), g.input("in:1", (-1, 2))
    d, s = g.add("SUB", [a, b], ("out:0", (-1, 2))), g.add("ADD", [a, b], ("out:1", (-1, 2)))
    g.outputs(d, s)
    x = h.input("x", (2,))
    y = h.add("ADD", [x, x], ("y", (2,)))
    h.outputs(y)
    for key in signatures:
        if key == "twice":
            builder.signature(key, h, {"x": x}, {"y": y})
        else:
            builder.signature(key, g, {"subtrahend": b, "minuend": a}, {"total": s, "difference": d})
    return builder.build()


A, B = np.array([[5, 6]], np.float32), np.array([[1, 2]], np.float32)


def test_signature_list_is_sorted_by_name() -> None:
    interpreter = Interpreter(model_content=content(("serving_default", "twice")))
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["minuend", "subtrahend"], "outputs": ["difference", "total"]},
        "twice": {"inputs": ["x"], "outputs": ["y"]},
    }
    assert Interpreter(model_content=content(())).get_signature_list() == {}


def test_runner_takes_names_and_any_batch() -> None:
    runner = Interpreter(model_content=content()).get_signature_runner()
    for batch in (1, 3, 2):
        a, b = np.tile(A, (batch, 1)), np.tile(B, (batch, 1))
        result = runner(subtrahend=b, minuend=a)
        assert list(result) == ["difference", "total"]
        assert np.array_equal(result["difference"], a - b) and np.array_equal(result["total"], a + b)
    assert runner.get_input_details()["minuend"]["shape"].tolist() == [2, 2]
    assert runner.get_output_details()["total"]["name"] == "out:1"
    assert "serving_default" in repr(runner)


def test_runner_of_another_subgraph() -> None:
    interpreter = Interpreter(model_content=content(("serving_default", "twice")))
    runner = interpreter.get_signature_runner("twice")
    assert runner(x=np.array([1, 2], np.float32))["y"].tolist() == [2, 4]
    assert interpreter.get_signature_runner("serving_default")(minuend=A, subtrahend=B)["total"].tolist() == [[6, 8]]


def test_runner_and_interpreter_share_tensors_and_do_not_block_each_other() -> None:
    interpreter = Interpreter(model_content=content())
    runner = interpreter.get_signature_runner()
    runner(minuend=np.tile(A, (2, 1)), subtrahend=np.tile(B, (2, 1)))
    assert interpreter.get_input_details()[0]["shape"].tolist() == [2, 2]
    interpreter.invoke()
    assert interpreter.get_tensor(interpreter.get_output_details()[1]["index"]).tolist() == [[6, 8]] * 2
    view = interpreter.tensor(0)()
    with pytest.raises(RuntimeError, match="reference to internal data"):
        runner(minuend=A, subtrahend=B)
    del view


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("nope", 'Invalid signature_key provided: "nope"'),
        ("", "None signature_key provided"),
        (None, "model has 2 Signatures. None is only allowed when"),
    ],
)
def test_bad_signature_keys(key: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Interpreter(model_content=content(("serving_default", "twice"))).get_signature_runner(key)
    with pytest.raises(ValueError, match="None interpreter provided"):
        SignatureRunner()


def test_bad_runner_calls_do_not_poison_the_next() -> None:
    runner = Interpreter(model_content=content()).get_signature_runner()
    for arguments, text in (
        ({"minuend": A}, "expected 2 vs provided 1"),
        ({"minuend": A, "x": B}, r"Invalid Input name \(x\) for SignatureDef"),
        ({"minuend": A.astype(np.float64), "subtrahend": B}, "Got value of type FLOAT64"),
        ({"minuend": np.zeros((2, 2), np.float32), "subtrahend": np.zeros((3, 2), np.float32)}, "broadcastable"),
    ):
        with pytest.raises(ValueError, match=text):
            runner(**arguments)
    assert runner(minuend=A, subtrahend=B)["difference"].tolist() == [[4, 4]]


def test_signature_input_called_self() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (2,))
    y = g.add("NEG", [x], ("y", (2,)))
    g.outputs(y)
    builder.signature("f", g, {"self": x}, {"result": y})
    runner = Interpreter(model_content=builder.build()).get_signature_runner()
    assert runner(**{"self": np.ones(2, np.float32)})["result"].tolist() == [-1, -1]


# ---- run -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "inputs", [{"minuend": A, "subtrahend": B}, {"in:0": A, "in:1": B}, {0: A, 1: B}, [A, B], (A, B)]
)
def test_run_by_name_and_in_order(inputs: Any) -> None:
    result = Interpreter(model_content=content()).run(inputs)
    assert list(result) == ["difference", "total"]
    assert result["difference"].tolist() == [[4, 4]] and result["total"].tolist() == [[6, 8]]


def test_run_without_signature_uses_tensor_names() -> None:
    assert list(Interpreter(model_content=content(())).run([A, B])) == ["out:0", "out:1"]


def test_run_resizes_and_fills_buffers() -> None:
    interpreter = Interpreter(model_content=content())
    out = np.empty((4, 2), np.float32)
    interpreter.run([np.tile(A, (4, 1)), np.tile(B, (4, 1))], out={"total": out})
    assert out.tolist() == [[6, 8]] * 4
    with pytest.raises(ValueError, match="has shape"):
        interpreter.run([A, B], out={1: out})


@pytest.mark.parametrize("inputs", [{"minuend": A}, [A], A, {"minuend": A, "other": B}, None])
def test_run_refuses_missing_and_unknown_inputs(inputs: Any) -> None:
    with pytest.raises(ValueError, match="inputs"):
        Interpreter(model_content=content()).run(inputs)


def test_single_array_for_a_single_input() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    g.outputs(g.add("NEG", [g.input("x", (2,))], ("y", (2,))))
    interpreter = Interpreter(model_content=builder.build())
    value = np.array([1, 2], np.float32)
    for given in (value, [value], {"x": value}):
        assert interpreter(given)["y"].tolist() == [-1, -2]


def test_positions_by_name() -> None:
    interpreter = Interpreter(model_content=content())
    assert interpreter.get_input_index("subtrahend") == 1 and interpreter.get_input_index("in:0") == 0
    assert interpreter.get_output_index("difference") == 0
    with pytest.raises(ValueError, match="minuend"):
        interpreter.get_input_index("nope")


# ---- variables and odd graphs -----------------------------------------------------------------------


def test_odd_graphs() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (2,))
    g.input("unused", (3,))
    one = g.constant("one", np.array([1, 1], np.float32))
    y = g.add("ADD", [x, one], ("y", (2,)))
    g.outputs(y, y, x, one)
    interpreter = Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.array([3, 4], np.float32))
    interpreter.invoke()
    got = [interpreter.get_tensor(d["index"]).tolist() for d in interpreter.get_output_details()]
    assert got == [[4, 5], [4, 5], [3, 4], [1, 1]]


def test_model_without_operators_inputs_or_outputs() -> None:
    builder = ModelBuilder()
    builder.subgraph()
    interpreter = Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert interpreter.run() == {} and interpreter.get_input_details() == []


def test_errors_do_not_pile_up() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x, i = g.input("x", (4,)), g.input("i", (2,), "INT32")
    g.outputs(g.add("GATHER", [x, i], ("y", (2,))))
    interpreter = Interpreter(model_content=builder.build(), num_threads=2)
    interpreter.allocate_tensors()
    lengths = set()
    for _ in range(50):
        interpreter.set_tensor(1, np.array([0, 9], np.int32))
        with pytest.raises(
            RuntimeError, match=r"gather index out of bounds.*Node number 0 \(GATHER\) failed to invoke"
        ) as caught:
            interpreter.invoke()
        lengths.add(len(str(caught.value)))
    assert len(lengths) == 1
    interpreter.set_tensor(1, np.array([0, 3], np.int32))
    interpreter.invoke()
