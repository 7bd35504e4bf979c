"""Writes trees of dictionaries as flatbuffers, by the declarations; the inverse of `reader.tree`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from operator import index
from typing import Any

import numpy as np

from ..errors import ModelError
from .enums import ENUMS
from .tables import FILE_IDENTIFIER, UNIONS, Field, Table, table

_MOST_CHOICES = 60


def write(tree: Mapping[str, Any]) -> bytes:
    """The .tflite file of a Model table.

    A tree has the fields of the schema by name. Enumerations may be members, their names or numbers; vectors any
    sequence or array (uint8 ones also `bytes`); unions are `(table name, tree)`; None and defaults are left out.
    ModelError names unknown fields, members and values out of range.
    """
    import flatbuffers  # type: ignore[import-untyped]

    builder = flatbuffers.Builder(1024)
    root = _table(builder, table("Model"), tree)
    builder.Finish(root, FILE_IDENTIFIER)
    return bytes(builder.Output())


def _table(builder: Any, declared: Table, tree: Mapping[str, Any]) -> int:
    values: list[tuple[Field, Any, str | None]] = []
    for name, value in tree.items():
        field = check_field(declared, name)
        if value is None:
            continue
        if field.kind == "union":
            member, content = value
            values.append((field, _union(builder, declared, field, member, content), member))
        elif field.vector:
            values.append((field, _vector(builder, declared, field, value), None))
        elif field.kind == "string":
            values.append((field, builder.CreateString(value), None))
        elif field.kind == "table":
            values.append((field, _table(builder, table(field.type), value), None))
        else:
            values.append((field, scalar(declared, field, value), None))
    builder.StartObject(declared.slots)
    for field, value, member in sorted(values, key=lambda item: -item[0].size):
        if field.format and field.kind in ("scalar", "enum") and not field.vector:
            _SLOTS[field.dtype](builder, field.slot, value, field.default)
        else:
            builder.PrependUOffsetTRelativeSlot(field.slot, value, 0)
        if member is not None:
            builder.PrependUint8Slot(field.slot - 1, UNIONS[field.type].index(member), 0)
    return int(builder.EndObject())


_SLOTS = {
    dtype: lambda builder, slot, value, default, name=name: getattr(builder, f"Prepend{name}Slot")(
        slot, value, int(default) if name != "Float32" else default
    )
    for dtype, name in {
        "?": "Bool",
        "<i1": "Int8",
        "<u1": "Uint8",
        "<i2": "Int16",
        "<u2": "Uint16",
        "<i4": "Int32",
        "<u4": "Uint32",
        "<i8": "Int64",
        "<u8": "Uint64",
        "<f4": "Float32",
    }.items()
}


def check_field(declared: Table, name: str) -> Field:
    """The field of a table; ModelError lists the fields there are."""
    field = declared.fields.get(name)
    if field is None or field.deprecated:
        raise ModelError(f"{declared.name} has no field {name!r}; {choices(name, list(declared.fields))}")
    return field


def choices(name: str, names: Sequence[str]) -> str:
    """What to say after an unknown name: all of them, or the nearest of many."""
    if len(names) > _MOST_CHOICES:
        near = get_close_matches(name, names, 5)
        return f"there are {len(names)}, among them {', '.join(near or names[:5])}"
    return f"there are: {', '.join(names) or 'none'}"


def scalar(declared: Table, field: Field, value: Any) -> int | float | bool:
    """A value as the field stores it: enumerations by name, everything with `__index__` as an integer."""
    try:
        if field.kind == "enum":
            return member(field, value)
        if field.dtype == "<f4":
            return float(value)
        if field.dtype == "?":
            return bool(value)
        number = index(value)
    except TypeError:
        raise ModelError(f"{declared.name}.{field.name} is a {field.type}, not {value!r}") from None
    limits = np.iinfo(field.dtype)
    if not limits.min <= number <= limits.max:
        raise ModelError(f"{declared.name}.{field.name} is a {field.type}: {number} does not fit")
    return number


def member(field: Field, value: Any) -> int:
    """The number of a member of an enumeration given by name, number or member."""
    members = ENUMS[field.type][0]
    if isinstance(value, str):
        if value not in members.__members__:
            raise ModelError(f"{field.type} has no member {value!r}; {choices(value, list(members.__members__))}")
        return int(members[value])
    return index(value)


def _union(builder: Any, declared: Table, field: Field, name: str, content: Mapping[str, Any]) -> int:
    if name not in UNIONS[field.type][1:]:
        raise ModelError(f"{declared.name}.{field.name} has no {name!r}; {choices(name, UNIONS[field.type][1:])}")
    return _table(builder, table(name), content)


def _vector(builder: Any, declared: Table, field: Field, values: Any) -> int:
    if field.kind == "table":
        offsets = [_table(builder, table(field.type), item) for item in values]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())
    if field.kind == "enum":
        values = [member(field, value) for value in values]
    if isinstance(values, (bytes, bytearray, memoryview)):
        data = np.frombuffer(values, np.uint8)
    else:
        data = np.asarray(values)
        if data.dtype == object:  # things that stand for an index
            data = np.array([index(value) for value in values])
        stored = data.astype(field.dtype)
        if data.size and not field.dtype.endswith("f4") and not np.array_equal(data, stored):
            raise ModelError(f"{declared.name}.{field.name} is a vector of {field.type}: its values do not fit")
        data = stored
    return _bytes(builder, np.ascontiguousarray(data).reshape(-1), field.align)


def _bytes(builder: Any, data: np.ndarray, align: int) -> int:
    builder.StartVector(data.itemsize, data.size, align)
    builder.head -= data.nbytes
    builder.Bytes[builder.head : builder.head + data.nbytes] = data.tobytes()
    return int(builder.EndVector())
