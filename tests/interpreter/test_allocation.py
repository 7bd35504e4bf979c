"""Before, during and after allocation: the state machine, resizing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder
from tests.interpreter.samples import add

# ---- the state machine ----------------------------------------------------------------------------


def test_before_allocation() -> None:
    interpreter = add()
    interpreter.reset_all_variables()
    with pytest.raises(ValueError, match="Tensor data is null. Run allocate_tensors"):
        interpreter.get_tensor(0)
    with pytest.raises(ValueError, match="Tensor data is null. Run allocate_tensors"):
        interpreter.tensor(0)()
    with pytest.raises(ValueError, match="Tensor is unallocated"):
        interpreter.set_tensor(0, np.zeros((1, 4), np.float32))
    with pytest.raises(RuntimeError, match="Invoke called on model that is not ready"):
        interpreter.invoke()


def test_allocating_twice_keeps_the_inputs() -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.ones((1, 4), np.float32))
    interpreter.resize_tensor_input(0, (1, 4))
    interpreter.allocate_tensors()
    for _ in range(3):
        interpreter.invoke()
        assert interpreter.get_tensor(0).sum() == 4 and interpreter.get_tensor(3).sum() == -4


def test_intermediate_results_need_preserving() -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    interpreter.invoke()
    with pytest.raises(ValueError, match=r"Tensor data is null.*'c'.*experimental_preserve_all_tensors"):
        interpreter.get_tensor(2)


# ---- resizing ----------------------------------------------------------------------------------------


def test_resizing_a_batch() -> None:
    interpreter = add()
    for k in (0, 1):
        interpreter.resize_tensor_input(k, [3, 4])
    assert interpreter.get_input_details()[0]["shape"].tolist() == [3, 4]
    assert interpreter.get_output_details()[0]["shape"].tolist() == [1, 4]
    with pytest.raises(RuntimeError, match="not ready"):
        interpreter.invoke()
    interpreter.allocate_tensors()
    assert interpreter.get_output_details()[0]["shape"].tolist() == [3, 4]
    for k in (0, 1):
        interpreter.set_tensor(k, np.ones((3, 4), np.float32))
    interpreter.invoke()
    assert interpreter.get_tensor(3).tolist() == [[-2] * 4] * 3


@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (3, ValueError, "Shape should be 1D instead of 0"),
        ([[1, 4]], ValueError, "Shape should be 1D instead of 2"),
        ([None, 4], TypeError, "integer"),
        ([2.5, 4], TypeError, "integer"),
        (["1", "4"], TypeError, "integer"),
        ([1 << 31, 4], OverflowError, "int32"),
        ([-1, 4], RuntimeError, "number of elements overflowed"),
    ],
)
def test_bad_shapes(size: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        add().resize_tensor_input(0, size)


def test_only_inputs_can_be_resized() -> None:
    with pytest.raises(RuntimeError, match="Attempting to resize"):
        add().resize_tensor_input(2, (1, 4))
    with pytest.raises(RuntimeError, match="tensor_index >= 0 was not true"):
        add().resize_tensor_input(9, (1, 4))


def test_strict_resizing() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    g.outputs(g.add("NEG", [g.input("x", (-1, 4))], ("y", (-1, 4))))
    interpreter = Interpreter(model_content=builder.build())
    interpreter.resize_tensor_input(0, (5, 4), strict=True)
    with pytest.raises(RuntimeError, match="ResizeInputTensorStrict only allows mutating unknown dimensions"):
        interpreter.resize_tensor_input(0, (5, 6), strict=True)
    with pytest.raises(RuntimeError, match=r"\(2 != 3\)"):
        interpreter.resize_tensor_input(0, (5, 4, 1), strict=True)
    interpreter.allocate_tensors()
    assert interpreter.get_output_details()[0]["shape"].tolist() == [5, 4]


def test_failed_allocation_can_be_mended() -> None:
    interpreter = add((2, 4))
    interpreter.resize_tensor_input(0, (3, 4))
    with pytest.raises(RuntimeError, match=r"Node number 0 \(ADD\) failed to prepare"):
        interpreter.allocate_tensors()
    with pytest.raises(RuntimeError, match="not ready"):
        interpreter.invoke()
    interpreter.resize_tensor_input(0, (2, 4))
    interpreter.allocate_tensors()
    interpreter.invoke()
