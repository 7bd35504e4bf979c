"""Making an Interpreter: arguments, sources, threads, life."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import litejit
from litejit.errors import LiteJitError, ModelFileError
from litejit.interpreter import Interpreter, OpResolverType, load_delegate
from litejit.model import Model
from litejit.schema.builder import ModelBuilder


def negate(shape: tuple[int, ...] = (1, 4), **fields: Any) -> bytes:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", shape, **fields)
    g.outputs(g.add("NEG", [x], ("y", shape)))
    return builder.build()


CONTENT = negate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "négation.tflite"
    file.write_bytes(CONTENT)
    return file


def test_names_users_import() -> None:
    import litejit.interpreter as tflite

    for name in ("Interpreter", "OpResolverType", "SignatureRunner", "load_delegate", "Delegate"):
        assert hasattr(tflite, name)
    assert litejit.Interpreter is Interpreter
    assert [(r.name, r.value) for r in OpResolverType] == [
        ("AUTO", 0),
        ("BUILTIN", 1),
        ("BUILTIN_REF", 2),
        ("BUILTIN_WITHOUT_DEFAULT_DELEGATES", 3),
    ]


@pytest.mark.parametrize("kind", [str, Path, os.fsencode])
def test_any_path(kind: Any, path: Path) -> None:
    assert Interpreter(kind(str(path))).get_input_details()[0]["name"] == "x"


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, lambda c: np.frombuffer(c, np.uint8)])
def test_any_buffer(kind: Any) -> None:
    assert Interpreter(model_content=kind(CONTENT)).get_input_details()[0]["name"] == "x"


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, ValueError, "must be specified"),
        ({"model_path": ""}, ValueError, "must be specified"),
        ({"model_content": b""}, ValueError, "must be specified"),
        ({"model_path": "x.tflite", "model_content": CONTENT}, ValueError, "Can't both provide"),
        ({"model_path": "nope.tflite"}, ValueError, "Could not open 'nope.tflite'"),
        ({"model_path": "nope.tflite"}, FileNotFoundError, "Could not open"),
        ({"model_path": 7}, TypeError, "PathLike"),
        ({"model_content": b"garbage" * 9}, ValueError, "not a valid Flatbuffer buffer"),
        ({"model_content": CONTENT[:-1]}, ValueError, "not a valid Flatbuffer buffer"),
        ({"model_content": CONTENT, "num_threads": -2}, ValueError, "num_threads should"),
        ({"model_content": CONTENT, "num_threads": 2.0}, ValueError, "type of num_threads should be int"),
        ({"model_content": CONTENT, "num_threads": "2"}, ValueError, "type of num_threads should be int"),
        (
            {"model_content": CONTENT, "experimental_op_resolver_type": None},
            ValueError,
            "Unrecognized passed in op resolver",
        ),
        ({"model_content": CONTENT, "experimental_op_resolver_type": "BUILTIN"}, ValueError, "Unrecognized passed in"),
        ({"model_content": CONTENT, "experimental_delegates": [object()]}, ValueError, "no delegates"),
        ({"model_content": CONTENT, "precision": "float8"}, ValueError, "'float32' or 'bfloat16'"),
        ({"model_content": CONTENT, "unknown": 1}, TypeError, "unexpected keyword"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        Interpreter(**arguments)


def test_missing_file_is_both_kinds_of_error() -> None:
    with pytest.raises(ModelFileError) as caught:
        Interpreter("nope.tflite")
    assert isinstance(caught.value, RuntimeError) and isinstance(caught.value, OSError)


def test_bad_file_names(tmp_path: Path) -> None:
    for name in ("with\0nul", str(tmp_path)):
        with pytest.raises(ValueError, match="."):
            Interpreter(name)


@pytest.mark.parametrize("threads", [None, 0, 1, 2, -1, True, np.int32(2), np.int64(1)])
def test_num_threads(threads: Any) -> None:
    interpreter = Interpreter(model_content=CONTENT, num_threads=threads)
    assert interpreter.run(np.ones((1, 4), np.float32))["y"].tolist() == [[-1] * 4]


def test_trailing_bytes_are_fine() -> None:
    interpreter = Interpreter(model_content=CONTENT + b"associated")
    assert interpreter.run(np.ones((1, 4), np.float32))["y"].tolist() == [[-1] * 4]


def test_file_may_change_afterwards(path: Path) -> None:
    interpreter = Interpreter(str(path))
    path.write_bytes(b"")
    assert interpreter.run(np.ones((1, 4), np.float32))["y"].tolist() == [[-1] * 4]


def test_several_interpreters_share_a_model() -> None:
    model = Model.from_buffer(CONTENT)
    one, two = Interpreter(model=model), Interpreter(model=model)
    a = one.run(np.full((1, 4), 2, np.float32))["y"]
    b = two.run(np.full((1, 4), 3, np.float32))["y"]
    assert (a == -2).all() and (b == -3).all()
    assert one.plan is two.plan
    with pytest.raises(ValueError, match="Can't both provide"):
        Interpreter(model_content=CONTENT, model=model)


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda i: pickle.loads(pickle.dumps(i))])
def test_copies_and_pickles(clone: Any) -> None:
    interpreter = Interpreter(model_content=negate((1, 2)), num_threads=2)
    interpreter.resize_tensor_input(0, (3, 2))
    interpreter.allocate_tensors()
    twin = clone(interpreter)
    assert twin.get_input_details()[0]["shape"].tolist() == [3, 2]
    twin.set_tensor(0, np.ones((3, 2), np.float32))
    twin.invoke()
    interpreter.invoke()
    assert (twin.get_tensor(1) == -1).all() and (interpreter.get_tensor(1) == 0).all()


def test_context_manager_and_close() -> None:
    with Interpreter(model_content=CONTENT) as interpreter:
        interpreter.allocate_tensors()
        interpreter.invoke()
    interpreter.close()
    for call in (
        interpreter.invoke,
        interpreter.allocate_tensors,
        interpreter.get_input_details,
        lambda: interpreter.get_tensor(0),
        lambda: interpreter.run(np.zeros((1, 4), np.float32)),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()


def test_memory_is_freed() -> None:
    interpreter = Interpreter(model_content=CONTENT)
    interpreter.allocate_tensors()
    gone = weakref.ref(interpreter)
    del interpreter
    gc.collect()
    assert gone() is None


def test_load_delegate_says_no() -> None:
    with pytest.raises(ValueError, match=r"Failed to load delegate from libedgetpu\.so\.1"):
        load_delegate("libedgetpu.so.1")


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    Interpreter(model_content=CONTENT).run(np.zeros((1, 4), np.float32))
    assert capfd.readouterr() == ("", "")


def test_repr_says_what_it_is(path: Path) -> None:
    interpreter = Interpreter(str(path))
    assert "not allocated" in repr(interpreter)
    interpreter.allocate_tensors()
    assert path.name in repr(interpreter) and "not allocated" not in repr(interpreter)


def test_out_of_memory_is_an_error() -> None:
    interpreter = Interpreter(model_content=negate((-1, 4)))
    interpreter.resize_tensor_input(0, (1 << 30, 4))
    with pytest.raises(LiteJitError, match="overflow|memory"):
        interpreter.allocate_tensors()
