"""The declarations against the schema's reference, and what readers and verifier assume about them."""

from __future__ import annotations

import json

import pytest

from litejit.schema.enums import ENUMS, BuiltinOperator
from litejit.schema.facts import BITS
from litejit.schema.options import OPTIONS_OF
from litejit.schema.tables import TABLES, UNIONS, table

_STORED = {"uint": "uint32"}


@pytest.fixture(scope="module")
def reference(shared):
    return json.loads((shared / "reference" / "schema.json").read_text())


def test_enums_equal_the_reference(reference):
    found = {name: (storage, dict(members.__members__)) for name, (members, storage) in ENUMS.items()}
    expected = {
        name: (_STORED.get(enum["underlying"], enum["underlying"]), enum["members"])
        for name, enum in reference["enums"].items()
    }
    assert found == expected


def test_unions_equal_the_reference(reference):
    assert {name: {m: tag for tag, m in enumerate(members)} for name, members in UNIONS.items()} == reference["unions"]


def test_tables_equal_the_reference(reference):
    assert set(TABLES) == set(reference["tables"])
    for name, expected in reference["tables"].items():
        found = table(name).fields
        fields = {field["name"]: field for field in expected["fields"] if field["kind"] != "union_type"}
        assert list(found) == list(fields), name
        for field in fields.values():
            _compare(name, found[field["name"]], field)


def _compare(name, found, expected):
    where = f"{name}.{found.name}"
    assert found.slot == expected["slot"], where
    assert found.vector == expected["vector"], where
    assert ("vector_of_" if found.vector else "") + found.kind == expected["kind"], where
    declared = {"subgraph": "int32", "usubgraph": "uint32"}.get(found.type, found.type)
    assert declared == expected["type"], where
    assert found.default == expected["default"] or (found.default is None and expected["default"] is None), where
    assert found.deprecated == expected.get("deprecated", False), where
    assert found.align == expected.get("force_align", found.size), where


def test_parents_are_declared_before_children_so_that_depth_is_bounded():
    place = {name: number for number, name in enumerate(TABLES)}
    for name in TABLES:
        for field in table(name).fields.values():
            children = {"table": [field.type], "union": UNIONS.get(field.type, [])[1:]}.get(field.kind, [])
            assert all(place[child] > place[name] for child in children), field.name


def test_members_of_enums_count_from_zero():
    for members, _ in ENUMS.values():
        assert [int(member) for member in members] == list(range(len(members)))
    assert len(BITS) == len(ENUMS["TensorType"][0])


def test_every_options_table_belongs_to_an_operator():
    members = {*UNIONS["BuiltinOptions"], *UNIONS["BuiltinOptions2"]} - {"NONE"}
    assert set(OPTIONS_OF.values()) == members
    assert OPTIONS_OF[BuiltinOperator.MAX_POOL_2D] == "Pool2DOptions"
    assert BuiltinOperator.RELU not in OPTIONS_OF
