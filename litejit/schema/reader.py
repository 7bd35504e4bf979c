"""Lazy, zero-copy reading of verified files: views of tables, decoded field by field when asked for.

Nothing here checks an offset: a `Source` is read only after `verifier.verify` accepted it. Reading uses `struct` and
NumPy on the buffer; neither copies.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from struct import Struct, unpack, unpack_from
from typing import Any

import numpy as np

from .tables import UNIONS, Field, Table, table

_offset = Struct("<I").unpack_from
#: Appended to every vtable, so that fields newer than the file are absent without a test.
_ABSENT = (0,) * 32


class Source:
    """The bytes of a file as a memoryview and as a read-only uint8 array, and the decoded vtables of its tables."""

    __slots__ = ("array", "bytes", "most_decoded", "vtables")

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.bytes: memoryview = array.data
        self.vtables: dict[int, tuple[int, ...]] = {}
        #: What may be decoded (not viewed) in bytes: a hostile file refers to the same bytes again and again.
        self.most_decoded = 4 * array.size + (1 << 20)

    def root(self) -> View:
        """The Model table."""
        return View(self, table("Model"), _offset(self.bytes)[0])

    def slots(self, position: int) -> tuple[int, ...]:
        """Offsets of the fields of the table at `position`, by slot; 0 for absent."""
        start = position - unpack_from("<i", self.bytes, position)[0]
        found = self.vtables.get(start)
        if found is None:
            size = unpack_from("<H", self.bytes, start)[0]
            found = self.vtables[start] = unpack(f"<{size // 2 - 2}H", self.bytes[start + 4 : start + size]) + _ABSENT
        return found


class View:
    """One table of a file; fields are attributes, named and defaulted as in the schema.

    Scalars are Python numbers, enumerations IntEnum members, strings `str`, vectors of numbers read-only NumPy arrays
    on the file's bytes, vectors of tables tuples of views, unions views (None for NONE). Vectors, strings, tables and
    unions that the file does not have are None.
    """

    __slots__ = ("_position", "_slots", "_source", "_table")

    def __init__(self, source: Source, declared: Table, position: int) -> None:
        self._source = source
        self._table = declared
        self._position = position
        self._slots = source.slots(position)

    def __getattr__(self, name: str) -> Any:
        readers = _readers.get(self._table.name) or _make_readers(self._table)
        try:
            slot, default, read = readers[name]
        except KeyError:
            fields = ", ".join(readers) or "none"
            raise AttributeError(f"{self._table.name} has no field {name!r}; its fields: {fields}") from None
        offset = self._slots[slot]
        return read(self, self._position + offset) if offset else default

    def __dir__(self) -> list[str]:
        return list(self._table.fields)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in self._table.fields)
        return f"{self._table.name}({values})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and self._table is other._table and tree(self) == tree(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def table(self) -> str:
        """Name of the table in the schema."""
        return self._table.name

    def positions(self, name: str) -> list[int]:
        """Positions of the tables in a vector, for making views of them later."""
        offset = self._slots[self._table.fields[name].slot]
        if not offset:
            return []
        at = self._position + offset
        return _positions(self._source, at + _offset(self._source.bytes, at)[0])

    def ints(self, name: str) -> tuple[int, ...]:
        """A vector of int32 as a tuple, () if the file has none."""
        offset = self._slots[self._table.fields[name].slot]
        if not offset:
            return ()
        data = self._source.bytes
        at = self._position + offset
        at += _offset(data, at)[0]
        return unpack_from(f"<{_offset(data, at)[0]}i", data, at + 4)


def _shown(value: Any) -> str:
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, np.ndarray):
        return repr(value.tolist()) if value.size <= 8 else f"<{value.size} x {value.dtype}>"
    if isinstance(value, tuple):
        return f"<{len(value)} tables>"
    return repr(value)


_Read = Callable[[View, int], Any]
_readers: dict[str, dict[str, tuple[int, Any, _Read]]] = {}


def _make_readers(declared: Table) -> dict[str, tuple[int, Any, _Read]]:
    """For each field its slot, its default, and the function that reads a value at a position."""
    found = _readers[declared.name] = {
        name: (field.slot, field.default, (_vector if field.vector else _value)(field))
        for name, field in declared.fields.items()
    }
    return found


def _value(field: Field) -> _Read:
    """Reader of one value that is no vector."""
    if field.kind == "scalar":
        number = Struct(field.format).unpack_from
        return lambda view, at: number(view._source.bytes, at)[0]
    if field.kind == "enum":
        number = Struct(field.format).unpack_from
        members: tuple[IntEnum, ...] = tuple(field.members)
        return lambda view, at: members[number(view._source.bytes, at)[0]]
    if field.kind == "string":
        return _string
    if field.kind == "table":
        declared = table(field.type)
        return lambda view, at: View(view._source, declared, at + _offset(view._source.bytes, at)[0])
    return _union(field)


def _string(view: View, at: int) -> str:
    data = view._source.bytes
    at += _offset(data, at)[0]
    return str(data[at + 4 : at + 4 + _offset(data, at)[0]], "utf-8", "replace")


def _union(field: Field) -> _Read:
    members = UNIONS[field.type]
    tag_slot = field.slot - 1

    def read(view: View, at: int) -> View | None:
        offset = view._slots[tag_slot]
        data = view._source.bytes
        tag = data[view._position + offset] if offset else 0
        return View(view._source, table(members[tag]), at + _offset(data, at)[0]) if tag else None

    return read


def _vector(field: Field) -> _Read:
    """Reader of a vector."""
    if field.kind == "table":
        declared = table(field.type)
        return lambda view, at: tuple(
            View(view._source, declared, position) for position in _positions(view._source, _follow(view, at))
        )
    if field.kind == "enum":
        members: tuple[IntEnum, ...] = tuple(field.members)
        return lambda view, at: tuple(
            members[value] for value in _numbers(view._source, _follow(view, at), field.dtype).tolist()
        )
    if field.dtype == "?":  # any byte but 0 is true, which NumPy does not promise for views
        return lambda view, at: _numbers(view._source, _follow(view, at), "u1") != 0
    return lambda view, at: _numbers(view._source, _follow(view, at), field.dtype)


def _follow(view: View, at: int) -> int:
    offset: int = _offset(view._source.bytes, at)[0]
    return at + offset


def _numbers(source: Source, at: int, dtype: str) -> np.ndarray:
    return np.frombuffer(source.array, dtype, _offset(source.bytes, at)[0], at + 4)


def _positions(source: Source, at: int) -> list[int]:
    offsets = _numbers(source, at, "<u4")
    positions: list[int] = (offsets + np.arange(at + 4, at + 4 + 4 * offsets.size, 4)).tolist()
    return positions


def tree(view: View) -> dict[str, Any]:
    """A table as nested dictionaries, as `writer.write` takes them: without absent fields and defaults, unions as
    `(table name, dictionary)`, vectors as lists (uint8 vectors as bytes)."""
    found: dict[str, Any] = {}
    for name, field in view._table.fields.items():
        if field.deprecated or not view._slots[field.slot]:
            continue
        value = getattr(view, name)
        if field.kind == "union":
            value = None if value is None else (value.table, tree(value))
        elif isinstance(value, View):
            value = tree(value)
        elif isinstance(value, np.ndarray):
            value = value.tobytes() if field.dtype == "<u1" else value.tolist()
        elif field.vector:
            value = [tree(item) if isinstance(item, View) else item for item in value]
        if value is not None and (field.vector or value != field.default):
            found[name] = value
    return found
