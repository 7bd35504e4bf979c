"""Write, verify, read: every table of the schema comes back as it was given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from litejit.errors import ModelError
from litejit.schema.opening import open_buffer
from litejit.schema.reader import Source, tree
from litejit.schema.tables import UNIONS, table
from litejit.schema.verifier import verify
from litejit.schema.writer import write


def _numbers(field):
    if field.dtype == "?":
        return st.booleans()
    if field.dtype == "<f4":
        return st.floats(width=32, allow_nan=False)
    limits = np.iinfo(field.dtype)
    return st.integers(int(limits.min), int(limits.max))


def _values(field):
    if field.kind == "scalar":
        one = _numbers(field)
    elif field.kind == "enum":
        one = st.sampled_from(list(field.members))
    elif field.kind == "string":
        one = st.text(max_size=5)
    elif field.kind == "table":
        one = st.deferred(lambda: trees(field.type))
    else:
        one = st.sampled_from(UNIONS[field.type][1:]).flatmap(
            lambda name: st.tuples(st.just(name), st.deferred(lambda: trees(name)))
        )
    if not field.vector:
        return one
    return st.binary(max_size=20) if field.dtype == "<u1" else st.lists(one, max_size=3)


def trees(name):
    """Any table as a tree, with some of its fields."""
    fields = {f.name: f for f in table(name).fields.values() if not f.deprecated}
    if not fields:
        return st.just({})
    some = st.lists(st.sampled_from(sorted(fields)), max_size=4, unique=True)
    return some.flatmap(lambda names: st.fixed_dictionaries({n: _values(fields[n]) for n in names}))


def _without_defaults(name, value):
    found = {}
    for key, item in value.items():
        field = table(name).fields[key]
        if field.kind == "table":
            item = (
                [_without_defaults(field.type, part) for part in item]
                if field.vector
                else _without_defaults(field.type, item)
            )
        elif field.kind == "union":
            item = (item[0], _without_defaults(*item))
        if field.vector or item != field.default:
            found[key] = item
    return found


@settings(max_examples=150)
@given(trees("Model"))
def test_round_trip(model):
    source = Source(open_buffer(write(model)))
    columns = verify(source)
    assert tree(source.root()) == _without_defaults("Model", model)
    assert columns["Model"].position.size == 1


@pytest.mark.parametrize("union", ["BuiltinOptions", "BuiltinOptions2"])
@settings(max_examples=100)
@given(data=st.data())
def test_round_trip_of_options(union, data):
    name = data.draw(st.sampled_from(UNIONS[union][1:]))
    options = data.draw(trees(name))
    field = {"BuiltinOptions": "builtin_options", "BuiltinOptions2": "builtin_options_2"}[union]
    source = Source(open_buffer(write({"subgraphs": [{"operators": [{field: (name, options)}]}]})))
    verify(source)
    operator = source.root().subgraphs[0].operators[0]
    assert tree(getattr(operator, field)) == _without_defaults(name, options)


def test_constants_are_aligned_to_16_bytes():
    for sizes in ((1, 2, 3), (5, 17, 33)):
        source = Source(open_buffer(write({"buffers": [{"data": bytes(range(size))} for size in sizes]})))
        columns = verify(source)["Buffer"].field["data"]
        assert (columns.start % 16 == 0).all()
        assert columns.count.tolist() == list(sizes)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ({"versoin": 3}, "Model has no field 'versoin'; there are: version, operator_codes"),
        ({"version": -1}, "Model.version is a uint32: -1 does not fit"),
        ({"version": "3"}, "Model.version is a uint32, not '3'"),
        ({"metadata_buffer": [2**40]}, "metadata_buffer is a vector of int32"),
        ({"subgraphs": [{"tensors": [{"type": "FLOAT"}]}]}, "TensorType has no member 'FLOAT'; there are: FLOAT32"),
        ({"subgraphs": [{"operators": [{"builtin_options": ("Nope", {})}]}]}, "has no 'Nope'"),
    ],
)
def test_errors_name_what_there_is(model, text):
    with pytest.raises(ModelError) as caught:
        write(model)
    assert text in str(caught.value)
