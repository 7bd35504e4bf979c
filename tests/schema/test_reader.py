"""Views: values, defaults, absent fields, and what importing the reader does not load."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from litejit.model import Model
from litejit.schema.builder import ModelBuilder
from litejit.schema.enums import ActivationFunctionType, Padding, TensorType


def _operator(name, *args, **options):
    builder = ModelBuilder()
    graph = builder.subgraph()
    graph.add(name, [graph.input("x", (1,))], ("y", (1,)), *args, **options)
    return Model.from_buffer(builder.build()).subgraphs[0].operators[0]


def test_options_have_stored_values_and_schema_defaults():
    options = _operator("CONV_2D", padding="VALID", stride_w=3, fused_activation_function="RELU6").options
    assert options.padding is Padding.VALID
    assert options.fused_activation_function is ActivationFunctionType.RELU6
    assert (options.stride_w, options.stride_h, options.dilation_w_factor) == (3, 0, 1)
    assert options.quantized_bias_type is TensorType.FLOAT32
    assert _operator("ADD").options.pot_scale_int16 is True
    assert _operator("ADD", pot_scale_int16=False).options.pot_scale_int16 is False


def test_vectors_and_strings_of_options():
    assert _operator("RESHAPE", new_shape=[2, -1]).options.new_shape.tolist() == [2, -1]
    assert _operator("RESHAPE").options.new_shape is None
    assert _operator("VAR_HANDLE", shared_name="v").options.shared_name == "v"
    operator = _operator("STABLEHLO_CONVOLUTION", window_reversal=[True, False], precision_config=["HIGH"])
    assert operator.options is None
    assert operator.options_2.window_reversal.tolist() == [True, False]
    assert [member.name for member in operator.options_2.precision_config] == ["HIGH"]


def test_options_of_another_operator_count_as_none():
    builder = ModelBuilder()
    graph = builder.subgraph()
    graph.add("ADD", [])
    builder.tree["subgraphs"][0]["operators"][0]["builtin_options"] = ("PackOptions", {"axis": 1})
    assert Model.from_buffer(builder.build()).subgraphs[0].operators[0].options is None


def test_unknown_field_lists_the_fields():
    options = _operator("SOFTMAX", beta=2.0).options
    assert options.beta == 2
    with pytest.raises(AttributeError, match="SoftmaxOptions has no field 'alpha'; its fields: beta"):
        _ = options.alpha
    assert repr(options) == "SoftmaxOptions(beta=2.0)"
    assert dir(options) == ["beta"]
    assert options == _operator("SOFTMAX", beta=2.0).options
    assert options != _operator("SOFTMAX", beta=1.0).options


def test_vectors_are_views_of_the_file_that_nobody_can_write(dense):
    content = dense.build()
    data = Model.from_buffer(content).subgraphs[0].tensors[1].data
    assert np.shares_memory(data, np.frombuffer(content, np.uint8))
    with pytest.raises(ValueError):
        data[0] = 1


def test_reading_loads_neither_numba_nor_flatbuffers(dense, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(dense.build())
    heavy = "numba llvmlite flatbuffers ml_dtypes dataclasses zipfile hashlib importlib.metadata"
    code = (
        "import sys, numpy; before = set(sys.modules)\n"
        f"from litejit.model import Model; Model.from_file({str(path)!r}).subgraphs[0].tensors[0].name\n"
        f"print(sorted((set(sys.modules) - before) & set({heavy!r}.split())))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
