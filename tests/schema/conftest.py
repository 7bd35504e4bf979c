"""A model that the tests of this folder share."""

from __future__ import annotations

import numpy as np
import pytest

from litejit.schema.builder import ModelBuilder


@pytest.fixture
def dense() -> ModelBuilder:
    """y = relu(x w) + 1 with a signature, metadata and a label file."""
    builder = ModelBuilder("a dense layer")
    graph = builder.subgraph("main")
    x = graph.input("x", (None, 4))
    w = graph.constant("w", np.arange(-16, 16).reshape(8, 4).astype("f"))
    hidden = graph.add("FULLY_CONNECTED", [x, w, None], ("hidden", (1, 8)), fused_activation_function="RELU")
    one = graph.constant("one", np.float32(1))
    graph.outputs(graph.add("ADD", [hidden, one], ("y", (1, 8))))
    builder.signature("serving_default", graph)
    builder.metadata("min_runtime_version", b"1.5.0".ljust(16, b"\0"))
    builder.associated_file("labels.txt", b"cat\ndog\n")
    return builder
