"""Tensors in and out: details, set, get."""

from __future__ import annotations

import gc
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder, Quant
from tests.interpreter.samples import add, passes

# ---- details -----------------------------------------------------------------------------------


def test_details_have_the_keys_and_types() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (-1, 4), "INT8", Quant(0.5, 3))
    w = g.constant("w", np.ones((2, 4), np.int8), "INT8", Quant([0.25, 0.5], [0, 0], 0))
    g.outputs(g.add("FULLY_CONNECTED", [x, w, None], ("y", (-1, 2), "INT8", Quant(1.0, 0))))
    interpreter = Interpreter(model_content=builder.build())
    detail = interpreter.get_input_details()[0]
    assert list(detail) == [
        "name",
        "index",
        "shape",
        "shape_signature",
        "dtype",
        "quantization",
        "quantization_parameters",
        "sparsity_parameters",
    ]
    assert detail["name"] == "x" and detail["dtype"] is np.int8 and detail["quantization"] == (0.5, 3)
    assert detail["shape"].tolist() == [1, 4] and detail["shape"].dtype == np.int32
    assert detail["shape_signature"].tolist() == [-1, 4]
    assert detail["sparsity_parameters"] == {}
    weights = interpreter.get_tensor_details()[1]
    assert weights["quantization"] == (0.0, 0)
    parameters = weights["quantization_parameters"]
    assert parameters["scales"].tolist() == [0.25, 0.5] and parameters["zero_points"].dtype == np.int32
    assert parameters["quantized_dimension"] == 0 and parameters["block_size"] == 0
    detail["shape"][:] = 99
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 4]


def test_compressed_zero_points() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    g.outputs(g.constant("w", np.ones((3, 4), np.int8), "INT8", Quant([1, 2, 3], [0, 0, 0], 0)))
    interpreter = Interpreter(model_content=builder.build(), experimental_compress_quantization_zero_points=True)
    assert interpreter.get_tensor_details()[0]["quantization_parameters"]["zero_points"].tolist() == [0]


def test_operator_details() -> None:
    details = add()._get_ops_details()
    assert [d["op_name"] for d in details] == ["ADD", "NEG"]
    assert details[0]["inputs"].tolist() == [0, 1] and details[0]["operand_types"] == [np.float32, np.float32]
    with pytest.raises(ValueError, match="Invalid node index"):
        add()._get_op_details(2)


def test_subgraph_index_out_of_range() -> None:
    with pytest.raises(ValueError, match="subgraph_index is out of range: 1 for the model, which has 1 subgraphs"):
        add().get_tensor_details(1)
    with pytest.raises(ValueError, match="Invalid subgraph index 1 exceeds max subgraph index 1"):
        add().get_tensor(0, 1)


# ---- set and get ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros((1, 4)), "Got value of type FLOAT64 but expected type FLOAT32 for input 0, name: a"),
        ([[1.0, 2.0, 3.0, 4.0]], "Got value of type FLOAT64"),
        (np.zeros((1, 4), np.int32), "Got value of type INT32"),
        (np.array([["a"] * 4]), "Got value of type STRING"),
        (None, "Got value of type STRING"),
        (np.zeros((1, 4), "M8[s]"), "Got value of type NOTYPE"),
        (np.zeros(4, np.float32), "Dimension mismatch. Got 1 but expected 2 for input 0"),
        (np.zeros((1, 5), np.float32), "Dimension mismatch. Got 5 but expected 4 for dimension 1 of input 0"),
        ([[1.0], [2.0, 3.0]], "Failed to convert value into readable tensor"),
    ],
)
def test_set_tensor_refuses(value: Any, text: str) -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    with pytest.raises(ValueError, match=text):
        interpreter.set_tensor(0, value)


class Arrayed:
    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.full((1, 4), 7, np.float32)


@pytest.mark.parametrize(
    "value",
    [
        np.full((1, 4), 7, np.float32),
        np.full((1, 8), 7, np.float32)[:, ::2],
        np.full((1, 4), 7, np.float32)[:, ::-1],
        np.asfortranarray(np.full((1, 4), 7, np.float32)),
        np.broadcast_to(np.float32(7), (1, 4)),
        np.full((1, 4), 7, ">f4"),
        [[np.float32(7)] * 4],
        np.ma.masked_array(np.full((1, 4), 7, np.float32)),
        Arrayed(),
    ],
)
def test_set_tensor_takes(value: Any) -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, value)
    assert interpreter.get_tensor(0).tolist() == [[7] * 4]


@pytest.mark.parametrize("index", [0, np.int64(0), np.array(0), False])
def test_any_integer_is_an_index(index: Any) -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    interpreter.set_tensor(index, np.ones((1, 4), np.float32))
    assert interpreter.get_tensor(index).sum() == 4


@pytest.mark.parametrize("index", [0.0, "a", None, np.array([0])])
def test_other_indices_are_type_errors(index: Any) -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    for call in (interpreter.get_tensor, lambda i: interpreter.set_tensor(i, np.zeros((1, 4), np.float32))):
        with pytest.raises(TypeError):
            call(index)


@pytest.mark.parametrize("index", [99, -1])
def test_index_out_of_range(index: int) -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    for call in (
        interpreter.get_tensor,
        lambda i: interpreter.set_tensor(i, np.zeros((1, 4), np.float32)),
        lambda i: interpreter.tensor(i)(),
    ):
        with pytest.raises(ValueError, match=f"Invalid tensor index {index} exceeds max tensor index 4"):
            call(index)


@pytest.mark.parametrize(
    "kind",
    [
        "FLOAT32",
        "FLOAT16",
        "FLOAT64",
        "BFLOAT16",
        "INT8",
        "INT16",
        "INT32",
        "INT64",
        "UINT8",
        "UINT16",
        "UINT32",
        "UINT64",
        "BOOL",
        "COMPLEX64",
        "COMPLEX128",
    ],
)
def test_every_type_passes(kind: str) -> None:
    interpreter = passes(kind)
    dtype = ml_dtypes.bfloat16 if kind == "BFLOAT16" else np.dtype(kind.lower()).type
    assert interpreter.get_input_details()[0]["dtype"] is (np.bool_ if kind == "BOOL" else dtype)
    value = np.array([0, 1, 2]).astype(dtype)
    interpreter.set_tensor(0, value)
    interpreter.invoke()
    got = interpreter.get_tensor(0)
    assert got.dtype == dtype and (got == value).all()


def test_longlong_is_int64() -> None:
    interpreter = passes("INT64")
    interpreter.set_tensor(0, np.array([1, 2, 3], np.longlong))
    assert interpreter.get_tensor(0).tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("kind", "dtype", "low", "high"), [("INT4", np.int8, -8, 7), ("UINT4", np.uint8, 0, 15), ("INT2", np.int8, -2, 1)]
)
def test_sub_byte_types(kind: str, dtype: type, low: int, high: int) -> None:
    interpreter = passes(kind, quant=Quant(1.0, 0))
    assert interpreter.get_input_details()[0]["dtype"] is dtype
    interpreter.set_tensor(0, np.array([low, 0, high], dtype))
    assert interpreter.get_tensor(0).tolist() == [low, 0, high]
    assert interpreter.tensor(0)().tolist() == [low, 0, high]
    with pytest.raises(ValueError, match=f"Values for {kind} input must be between {low} and {high}"):
        interpreter.set_tensor(0, np.array([low, 0, high + 1], dtype))


def test_scalars_come_back_as_numpy_scalars() -> None:
    interpreter = passes("FLOAT32", ())
    interpreter.set_tensor(0, np.float32(2.5))
    value = interpreter.get_tensor(0)
    assert isinstance(value, np.float32) and value == 2.5
    interpreter.tensor(0)()[...] = 7
    assert interpreter.get_tensor(0) == 7


def test_zero_size_tensors() -> None:
    interpreter = add((0, 4))
    assert interpreter.run([np.zeros((0, 4), np.float32)] * 2)["d"].shape == (0, 4)


def test_constants_can_be_read_but_not_set() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x, w = g.input("x", (2,)), g.constant("w", np.array([3, 4], np.float32))
    g.outputs(g.add("ADD", [x, w], ("y", (2,))))
    content = builder.build()
    interpreter = Interpreter(model_content=content)
    assert interpreter.get_tensor(1).tolist() == [3, 4]  # before allocate_tensors, too
    interpreter.allocate_tensors()
    with pytest.raises(ValueError, match="constant"):
        interpreter.set_tensor(1, np.zeros(2, np.float32))
    view = interpreter.tensor(1)()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 9
    interpreter.invoke()  # a constant's view is no reference to the arena
    del interpreter, content
    gc.collect()
    assert view.tolist() == [3, 4]


def test_outputs_are_copies_that_can_be_written() -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    interpreter.invoke()
    first = interpreter.get_tensor(3)
    first[:] = 5
    assert interpreter.get_tensor(3).sum() == 0
