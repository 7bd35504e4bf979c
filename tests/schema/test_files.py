"""Files from elsewhere: what LiteRT loads, litejit loads; what is rewritten stays the same."""

from __future__ import annotations

import json
import random
import zipfile

import pytest

from litejit.errors import ModelError
from litejit.model import Model
from litejit.schema.options import OPTIONS_OF
from litejit.schema.reader import tree
from litejit.schema.writer import write

#: Conformance cases that are refused although LiteRT makes an interpreter: it fails or misbehaves later.
_REFUSED = {
    ("CALL", "no_kernel"),  # calls itself
    ("CALL_ONCE", "bad_subgraph"),
    ("IF", "bad_subgraph"),
    ("STABLEHLO_CASE", "bad_subgraph"),
    ("STABLEHLO_COMPOSITE", "bad_subgraph"),
}
_BROKEN = {"fail_broken_model": "not a valid Flatbuffer buffer", "fail_no_subgraphs": "No subgraph in the model."}


def _check(model: Model, hand_made: bool = False) -> None:
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            assert tensor.data is None or tensor.data.dtype == "u1"
            assert len(tensor.shape) == len(tensor.shape_signature or tensor.shape)
            repr((tensor, tensor.quantization, tensor.dtype))
        for operator in subgraph.operators:
            stored = [operator._view.builtin_options, operator._view.builtin_options_2]
            assert hand_made or [operator.options, operator.options_2] == stored, operator
            repr(stored)
    assert len(repr(model)) > 20
    assert "<table>" in model._repr_html_()


def test_real_models(shared):
    files = sorted((shared / "models" / "real").glob("*.tflite"))
    assert len(files) > 50
    for path in files:
        if path.stem in _BROKEN:
            with pytest.raises(ModelError, match=_BROKEN[path.stem]):
                Model.from_file(path)
        else:
            _check(Model.from_file(path), hand_made=path.stem.startswith("fail_"))


def test_real_models_written_again_are_equal(shared):
    for path in sorted((shared / "models" / "real").glob("*.tflite")):
        if path.stem not in _BROKEN and path.stat().st_size < 200_000:
            before = tree(Model.from_file(path)._root)
            assert tree(Model.from_buffer(write(before))._root) == before, path.stem


@pytest.mark.parametrize("most", [3, pytest.param(10_000, marks=pytest.mark.slow)])
def test_conformance_models(shared, most):
    dice = random.Random(most)
    for path in sorted((shared / "conformance").glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            index = json.loads(archive.read("index.json"))
            for case in dice.sample(index["cases"], min(most, len(index["cases"]))):
                content = archive.read(f"{case['name']}.tflite")
                if (index["op"], case["name"]) in _REFUSED:
                    with pytest.raises(ModelError, match=r"subgraph|calls itself"):
                        Model.from_buffer(content)
                else:
                    _check(Model.from_buffer(content))


def test_options_of_operators_are_those_that_converters_write(shared):
    codes = {
        operator.code
        for path in (shared / "models" / "real").glob("*.tflite")
        if path.stem not in _BROKEN
        for subgraph in Model.from_file(path).subgraphs
        for operator in subgraph.operators
        if operator.options is not None or operator.options_2 is not None
    }
    assert len(codes) > 30
    assert codes <= set(OPTIONS_OF)
