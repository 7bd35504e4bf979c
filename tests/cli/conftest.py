"""The command, called in this process: `litejit("run", path)` gives its exit code and what it printed."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from litejit.cli import main
from litejit.schema.builder import ModelBuilder


class Said(NamedTuple):
    """What a call of the command did."""

    code: int
    out: str
    err: str


Litejit = Callable[..., Said]


@pytest.fixture
def litejit(capsys: pytest.CaptureFixture[str]) -> Litejit:
    def call(*arguments: object) -> Said:
        code = 0
        capsys.readouterr()
        try:
            main([str(a) for a in arguments])
        except SystemExit as exit:
            code = int(exit.code or 0)
        return Said(code, *capsys.readouterr())
    return call


@pytest.fixture
def adds(tmp_path: Path) -> Path:
    """y = a + b of float32[?x3]."""
    builder = ModelBuilder("adds")
    graph = builder.subgraph("main")
    a, b = graph.input("a", (-1, 3)), graph.input("b", (-1, 3))
    y = graph.add("ADD", [a, b], ("y/sum:0", (-1, 3)))
    graph.outputs(y)
    builder.signature("serving_default", graph, {"left": a, "right": b}, {"total": y})
    builder.metadata("purpose", b"tests")
    return write(tmp_path / "adds.tflite", builder)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Pixels out as they came in, uint8[1x2x3x3]."""
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x = graph.input("image", (1, 2, 3, 3), "UINT8")
    shape = graph.constant("shape", np.array([1, 18], np.int32))
    graph.outputs(graph.add("RESHAPE", [x, shape], ("pixels", (1, 18), "UINT8"), new_shape=[1, 18]))
    return write(tmp_path / "picture.tflite", builder)


@pytest.fixture
def unservable(tmp_path: Path) -> Path:
    """A model whose custom operator nobody has."""
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x = graph.input("x", (2,))
    graph.outputs(graph.custom("Mystery", [x], ("y", (2,))))
    return write(tmp_path / "mystery.tflite", builder)


def write(path: Path, builder: ModelBuilder) -> Path:
    path.write_bytes(builder.build())
    return path
