"""Run one operator: build a model of it, run it in litejit, give back its outputs."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from litejit.compiler.cpu import executable
from litejit.interpreter import Interpreter, OpResolverType
from litejit.schema.builder import ModelBuilder, Quant

MODES = {
    "auto": OpResolverType.AUTO,
    "ref": OpResolverType.BUILTIN_REF,
    "opt": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
}
LESSER = [cpu.name for cpu in executable()][1:]  # levels below that of this machine


def passes_as(level: str, file: str, chosen: str) -> tuple[int, str]:
    """(exit code, end of the output) of a file's `chosen` tests on code for a level, in a process of their own."""
    if "LITEJIT_TARGET" in os.environ:
        pytest.skip("runs for a chosen target already")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", file, "-k", chosen]
    environment = {**os.environ, "LITEJIT_TARGET": level}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout[-3000:]


class In:
    """An input of the operator: an array, with its quantisation, type (for sub-byte ones) and whether it is constant."""

    def __init__(
        self, value: Any, quant: Quant | None = None, *, type: str | None = None, constant: bool = False
    ) -> None:
        self.value, self.quant, self.type, self.constant = np.asarray(value), quant, type, constant


class Out:
    """An output of the operator: type, quantisation; the shape in the file is a placeholder unless given."""

    def __init__(self, type: str = "FLOAT32", quant: Quant | None = None, shape: Sequence[int] = ()) -> None:
        self.type, self.quant, self.shape = type, quant, tuple(shape)


FLOAT_OUT = Out()
_TYPE_NAMES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "float64": "FLOAT64",
    "bool": "BOOL",
    "bfloat16": "BFLOAT16",
    "complex64": "COMPLEX64",
}


def type_of(array: np.ndarray) -> str:
    """TFLite's name of an array's type."""
    return _TYPE_NAMES.get(array.dtype.name, array.dtype.name.upper())


def op_model(
    op: str,
    inputs: Sequence[In | np.ndarray | None],
    outputs: Out | Sequence[Out] = FLOAT_OUT,
    *,
    version: int = 1,
    **options: Any,
) -> bytes:
    """Content of a model of one operator; inputs that are not constant are the model's inputs, in order."""
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    refs = []
    for k, item in enumerate(inputs):
        if item is None:
            refs.append(None)
            continue
        given = item if isinstance(item, In) else In(item)
        kind = given.type or type_of(given.value)
        if given.constant:
            refs.append(graph.constant(f"in{k}", given.value, kind, given.quant))
        else:
            refs.append(graph.input(f"in{k}", given.value.shape, kind, given.quant))
    outs = [outputs] if isinstance(outputs, Out) else list(outputs)
    made = graph.add(
        op, refs, [(f"out{k}", o.shape, o.type, o.quant) for k, o in enumerate(outs)], version=version, **options
    )
    graph.outputs(*made)
    return builder.build()


def run_model(
    content: bytes, values: Sequence[np.ndarray], *, mode: str = "auto", **arguments: Any
) -> list[np.ndarray]:
    """Outputs of a model for the values of its inputs."""
    return run_planned(content, values, mode=mode, **arguments)[0]


def run_planned(
    content: bytes, values: Sequence[np.ndarray], *, mode: str = "auto", **arguments: Any
) -> tuple[list[np.ndarray], Any]:
    """Outputs of a model for the values of its inputs, and the plan that made them."""
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=MODES[mode], **arguments)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), values):
        interpreter.set_tensor(detail["index"], value)
    interpreter.invoke()
    return [np.asarray(interpreter.get_tensor(d["index"])) for d in interpreter.get_output_details()], interpreter.plan


def run_op(
    op: str,
    inputs: Sequence[In | np.ndarray | None],
    outputs: Out | Sequence[Out] = FLOAT_OUT,
    *,
    mode: str = "auto",
    version: int = 1,
    num_threads: int = 1,
    fuse: bool = True,
    precision: str = "float32",
    **options: Any,
) -> Any:
    """Output (or list of outputs, if a list of Out was given) of one operator."""
    given = [i if isinstance(i, In) or i is None else In(i) for i in inputs]
    content = op_model(op, given, outputs, version=version, **options)
    values = [i.value for i in given if i is not None and not i.constant]
    results = run_model(content, values, mode=mode, num_threads=num_threads, fuse=fuse, precision=precision)
    return results[0] if isinstance(outputs, Out) else results


def compiled(kernel: Any) -> Callable[[np.ndarray], int]:
    """A kernel as machine code for the target's level; called with its parameters it runs chunk 0 and returns its status."""
    from litejit.compiler.codegen import kernel_object
    from litejit.compiler.load import load_image, make_image

    library = load_image(make_image([kernel_object(kernel)], [kernel.symbol]))
    run = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64)(
        library.address(kernel.symbol))
    result = ctypes.c_int64()
    return lambda record: int(run(ctypes.addressof(result), None, record.ctypes.data, 0, 1))
