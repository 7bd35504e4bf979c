"""Lazy, zero-copy reading of verified files: views of tables, decoded field by field when asked for.

Nothing here checks an offset: a `Source` is read only after `verifier.verify` accepted it. Reading uses `struct` and
NumPy on the buffer; neither copies.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from struct import unpack, unpack_from
from typing import Any

import numpy as np

from .tables import UNIONS, Field, Table, table


class Source:
    """The bytes of a file as a memoryview and as a read-only uint8 array, and the decoded vtables of its tables."""

    __slots__ = ("array", "bytes", "vtables")

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.bytes = memoryview(array)
        self.vtables: dict[int, tuple[int, ...]] = {}

    def root(self) -> View:
        """The Model table."""
        return View(self, table("Model"), unpack_from("<I", self.bytes)[0])

    def slots(self, position: int) -> tuple[int, ...]:
        """Offsets of the fields of the table at `position`, by slot; 0 for absent; may be shorter than the table."""
        start = position - unpack_from("<i", self.bytes, position)[0]
        found = self.vtables.get(start)
        if found is None:
            size = unpack_from("<H", self.bytes, start)[0]
            found = self.vtables[start] = unpack(f"<{size // 2 - 2}H", self.bytes[start + 4 : start + size])
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
        field = self._table.fields.get(name)
        if field is None:
            raise AttributeError(f"{self._table.name} has no field {name!r}; it has: {', '.join(self._table.fields)}")
        offset = self._slots[field.slot] if field.slot < len(self._slots) else 0
        if not offset:
            return field.default
        at = self._position + offset
        if field.vector:
            return _VECTORS[field.kind](self._source, field, at + unpack_from("<I", self._source.bytes, at)[0])
        return _VALUES[field.kind](self, field, at)

    def __dir__(self) -> list[str]:
        return list(self._table.fields)

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={_shown(getattr(self, name))}" for name in self._table.fields)
        return f"{self._table.name}({values})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, View) and tree(self) == tree(other)

    __hash__ = None  # type: ignore[assignment]

    @property
    def table(self) -> str:
        """Name of the table in the schema."""
        return self._table.name

    def positions(self, name: str) -> list[int]:
        """Positions of the tables in a vector, for making views of them later."""
        field = self._table.fields[name]
        offset = self._slots[field.slot] if field.slot < len(self._slots) else 0
        if not offset:
            return []
        at = self._position + offset
        return _positions(self._source, at + unpack_from("<I", self._source.bytes, at)[0])


def _shown(value: Any) -> str:
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, np.ndarray):
        return repr(value.tolist()) if value.size <= 8 else f"<{value.size} x {value.dtype}>"
    if isinstance(value, tuple):
        return f"<{len(value)} tables>"
    return repr(value)


def _scalar(view: View, field: Field, at: int) -> Any:
    return unpack_from(field.format, view._source.bytes, at)[0]


def _enum(view: View, field: Field, at: int) -> Any:
    return field.members(unpack_from(field.format, view._source.bytes, at)[0])


def _string(view: View, field: Field, at: int) -> str:
    data = view._source.bytes
    at += unpack_from("<I", data, at)[0]
    size = unpack_from("<I", data, at)[0]
    return str(data[at + 4 : at + 4 + size], "utf-8", "replace")


def _table(view: View, field: Field, at: int) -> View:
    return View(view._source, table(field.type), at + unpack_from("<I", view._source.bytes, at)[0])


def _union(view: View, field: Field, at: int) -> View | None:
    offset = view._slots[field.slot - 1]
    tag = view._source.bytes[view._position + offset] if offset else 0
    if not tag:
        return None
    target = at + unpack_from("<I", view._source.bytes, at)[0]
    return View(view._source, table(UNIONS[field.type][tag]), target)


def _positions(source: Source, at: int) -> list[int]:
    offsets = numbers(source, at, "<u4")
    return (offsets + np.arange(at + 4, at + 4 + 4 * offsets.size, 4)).tolist()


def numbers(source: Source, at: int, dtype: str) -> np.ndarray:
    """The vector at `at` as a read-only array on the file's bytes."""
    size = unpack_from("<I", source.bytes, at)[0]
    return np.frombuffer(source.array, dtype, size, at + 4)


def _numbers(source: Source, field: Field, at: int) -> np.ndarray:
    if field.dtype == "?":  # any byte but 0 is true, which NumPy does not promise for views
        return numbers(source, at, "u1") != 0
    return numbers(source, at, field.dtype)


def _members(source: Source, field: Field, at: int) -> tuple[IntEnum, ...]:
    return tuple(map(field.members, numbers(source, at, field.dtype).tolist()))


def _tables(source: Source, field: Field, at: int) -> tuple[View, ...]:
    declared = table(field.type)
    return tuple(View(source, declared, position) for position in _positions(source, at))


_VALUES: dict[str, Callable[[View, Field, int], Any]] = {
    "scalar": _scalar,
    "enum": _enum,
    "string": _string,
    "table": _table,
    "union": _union,
}
_VECTORS: dict[str, Callable[[Source, Field, int], Any]] = {"scalar": _numbers, "enum": _members, "table": _tables}


def tree(view: View) -> dict[str, Any]:
    """A table as nested dictionaries, as `writer.write` takes them: fields that the file has, unions as
    `(table name, dictionary)`, vectors as lists (uint8 vectors as bytes)."""
    found: dict[str, Any] = {}
    for name, field in view._table.fields.items():
        if field.deprecated or field.slot >= len(view._slots) or not view._slots[field.slot]:
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
        if value is not None:
            found[name] = value
    return found
