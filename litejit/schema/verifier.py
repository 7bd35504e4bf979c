"""Checks that every offset of a flatbuffer stays inside the file, before anything else reads it.

The schema's tables are visited kind by kind, parents first, all tables of a kind at once as NumPy columns: the work
is linear in the number of tables, which is capped, and so is the sum of all vectors (a file may refer to one
vector many times). Rules on alignment, terminators and vtables are those of the flatbuffers verifier that the original
runtime runs. The columns are kept for `checks`.
"""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from ..errors import ModelError
from .enums import TensorType
from .reader import Source
from .tables import FILE_IDENTIFIER, TABLES, UNIONS, Field, Table, table

#: Flatbuffers address 2 GB; what a file has beyond that is data outside the flatbuffer.
MAX_FLATBUFFER = 2**31 - 1
MAX_TABLES = 1_000_000
INVALID = "The model is not a valid Flatbuffer buffer"


class Column:
    """A field of all tables of a kind: absolute positions of its values, 0 where a table does not have it.

    For strings and vectors: `start` of the first element and `count`; for tables, unions and vectors of tables:
    the `row` of the first child among the columns of its kind; for unions: the `tag`.
    """

    __slots__ = ("count", "position", "row", "start", "tag")

    def __init__(self, position: np.ndarray) -> None:
        self.position = position
        self.start = self.count = self.row = self.tag = position


class Columns:
    """All tables of a kind, in the order of their parents: positions, and the columns of the fields that occur."""

    __slots__ = ("field", "position", "table")

    def __init__(self, declared: Table, position: np.ndarray) -> None:
        self.table = declared
        self.position = position
        self.field: dict[str, Column] = {}


class Verifier:
    """One verification; after `run`, `columns` has a `Columns` for each kind of table that occurs."""

    def __init__(self, source: Source) -> None:
        self.array = source.array[:MAX_FLATBUFFER]
        self.max_decoded = source.most_decoded
        self.size = size = self.array.size
        self.u16 = self.array[: size // 2 * 2].view("<u2")
        self.u32 = self.array[: size // 4 * 4].view("<u4")
        self.max_tables = min(MAX_TABLES, size // 4)
        self.tables = 0
        self.decoded = 0
        self.columns: dict[str, Columns] = {}
        self._found: dict[str, list[np.ndarray]] = {}
        self._rows: dict[str, int] = {}

    def run(self) -> None:
        """Verify everything; ModelError with the place of the first fault."""
        if self.size < 8 or self.array[4:8].tobytes() != FILE_IDENTIFIER:
            what = "it is empty" if not self.size else "bytes 4 to 8 should be 'TFL3'"
            raise ModelError(f"{INVALID}: {what} ({self.size} bytes)")
        self._push("Model", np.array([self._root()]))
        for name in TABLES:
            found = self._found.pop(name, None)
            if found:
                self._kind(table(name), found[0] if len(found) == 1 else np.concatenate(found))

    def _root(self) -> int:
        root = int(self.u32[0])
        if not 0 < root <= self.size - 4:
            raise ModelError(f"{INVALID}: the root table would be at byte {root} of {self.size}")
        return root

    def _push(self, name: str, positions: np.ndarray) -> int:
        """Queue tables of a kind; returns the row that the first of them will have."""
        row = self._rows.get(name, 0)
        self._rows[name] = row + positions.size
        self._found.setdefault(name, []).append(positions)
        self.tables += positions.size
        return row

    def _kind(self, declared: Table, position: np.ndarray) -> None:
        columns = self.columns[declared.name] = Columns(declared, position)
        offsets = self._vtables(declared, position)
        for field in declared.fields.values():
            if field.deprecated:
                continue
            offset = offsets[:, field.slot]
            if field.kind == "union":
                offset = offset * (offsets[:, field.slot - 1] != 0)
            rows = offset.nonzero()[0]
            if rows.size:
                at = position[rows] + offset[rows]
                found = np.zeros(position.size, np.int64)
                found[rows] = at
                column = columns.field[field.name] = Column(found)
                if field.kind == "union":
                    self._union(columns, field, column, rows, offsets[:, field.slot - 1])
                elif field.vector:
                    self._vector(declared, field, column, rows, at)
                else:
                    self._value(declared, field, column, rows, at)

    def _vtables(self, declared: Table, position: np.ndarray) -> np.ndarray:
        """Offsets of the fields, an int64 array of tables x slots."""
        self._require(declared, None, position, (position & 3 == 0) & (position + 4 <= self.size), "its start")
        start = position - self.u32[position >> 2].view("<i4")
        fits = (start >= 0) & (start & 1 == 0) & (start + 4 <= self.size)
        self._require(declared, None, position, fits, "its vtable")
        half = start >> 1
        size = self.u16[half].astype(np.int64)
        fits = (size >= 4) & (size & 1 == 0) & (start + size <= self.size)
        self._require(declared, None, position, fits, "the end of its vtable")
        slot = np.arange(2, declared.slots + 2)
        inside = slot < (size >> 1)[:, None]
        offsets: np.ndarray = self.u16[np.minimum(half[:, None] + slot, self.u16.size - 1)].astype(np.int64)
        return np.where(inside, offsets, 0)

    def _value(self, declared: Table, field: Field, column: Column, rows: np.ndarray, at: np.ndarray) -> None:
        fits = (at & (field.size - 1) == 0) & (at + field.size <= self.size)
        self._require(declared, field, rows, fits, "the value")
        if field.kind == "enum":
            self._enum(declared, field, rows, self._gather(at, field))
        elif field.kind != "scalar":
            target = self._follow(declared, field, rows, at)
            if field.kind == "string":
                self._sized(declared, field, column, rows, target, 1)
            else:
                column.row = np.zeros(column.position.size, np.int64)
                column.row[rows] = self._push(field.type, target) + np.arange(rows.size)

    def _vector(self, declared: Table, field: Field, column: Column, rows: np.ndarray, at: np.ndarray) -> None:
        fits = (at & 3 == 0) & (at + 4 <= self.size)
        self._require(declared, field, rows, fits, "the offset of the vector")
        self._sized(declared, field, column, rows, self._follow(declared, field, rows, at), 0)
        if field.kind == "enum":
            owner, element = elements(column, rows, field.size)
            self._enum(declared, field, owner, self._gather(element, field))
        elif field.kind == "table":
            owner, element = elements(column, rows, 4)
            target = self._follow(declared, field, owner, element)
            column.row = self._push(field.type, target) + np.cumsum(column.count) - column.count

    def _sized(
        self, declared: Table, field: Field, column: Column, rows: np.ndarray, at: np.ndarray, terminator: int
    ) -> None:
        """Strings and vectors at `at`: their length and all their elements are in the file."""
        fits = (at & 3 == 0) & (at + 4 <= self.size)
        self._require(declared, field, rows, fits, "the length")
        count = self.u32[at >> 2].astype(np.int64)
        size = 1 if field.kind == "string" else field.size
        end = at + 4 + count * size
        self._require(declared, field, rows, end + terminator <= self.size, "the last element")
        if terminator:
            self._require(declared, field, rows, self.array[end] == 0, "the zero after the text")
        column.start = np.zeros(column.position.size, np.int64)
        column.count = np.zeros(column.position.size, np.int64)
        column.start[rows] = at + 4
        column.count[rows] = count
        self._count(field, int(count.sum()))

    def _count(self, field: Field, elements: int) -> None:
        """Keep what reading would decode in proportion to the file: it may refer to one vector many times."""
        if field.align == 16:  # constants are never decoded
            return
        self.decoded += elements * field.size
        if self.decoded > self.max_decoded:
            raise ModelError(f"{INVALID}: its vectors overlap: {self.decoded} bytes of them in {self.size}")
        if field.kind == "table" and self.tables + elements > self.max_tables:
            raise ModelError(f"{INVALID}: more than {self.max_tables} tables in {self.size} bytes")

    def _union(self, columns: Columns, field: Field, column: Column, rows: np.ndarray, tag_offset: np.ndarray) -> None:
        declared = columns.table
        tag_at = columns.position[rows] + tag_offset[rows]
        self._require(declared, field, rows, tag_at < self.size, "the tag")
        column.tag = np.zeros(column.position.size, np.int64)
        column.row = np.zeros(column.position.size, np.int64)
        column.tag[rows] = tag = self.array[tag_at].astype(np.int64)
        members = UNIONS[field.type]
        self._require(declared, field, rows, tag < len(members), "a known tag")
        at = column.position[rows]
        fits = (at & 3 == 0) & (at + 4 <= self.size)
        self._require(declared, field, rows, fits | (tag == 0), "the offset")
        for value in sorted(set(tag.tolist()) - {0}):           # np.unique would import numpy.ma
            of_kind = tag == value
            target = self._follow(declared, field, rows[of_kind], at[of_kind])
            row = self._push(members[value], target)
            column.row[rows[of_kind]] = row + np.arange(target.size)

    def _follow(self, declared: Table, field: Field, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Targets of the offsets stored at `at`."""
        offset: np.ndarray = self.u32[at >> 2].astype(np.int64)
        self._require(declared, field, rows, (offset > 0) & (at + offset + 4 <= self.size), "the target")
        target: np.ndarray = at + offset
        return target

    def _gather(self, at: np.ndarray, field: Field) -> np.ndarray:
        found: np.ndarray = self.array[at].view("i1") if field.size == 1 else self.u32[at >> 2].view("<i4")
        return found

    def _enum(self, declared: Table, field: Field, rows: np.ndarray, value: np.ndarray) -> None:
        # Members of every enumeration are 0, 1, 2, ...
        known = (value >= 0) & (value < len(field.members))
        if known.all() or field.type == "BuiltinOperator":  # `checks` has the original's words for operators
            return
        bad = int(np.argmin(known))
        if declared.name == "Tensor":
            raise ModelError(
                f"Unsupported data type {value[bad]} in tensor: {declared.name} {rows[bad]} of the file; "
                f"the schema has types 0 to {len(TensorType) - 1}"
            )
        raise ModelError(
            f"{declared.name} {rows[bad]} of the model: {field.name} is {value[bad]}, "
            f"which is no {field.type} (0 to {len(field.members) - 1})"
        )

    def _require(self, declared: Table, field: Field | None, rows: np.ndarray, good: np.ndarray, what: str) -> None:
        if not good.all():
            self._fail(declared, field, int(rows[np.argmin(good)]) if field else int(np.argmin(good)), what)

    def _fail(self, declared: Table, field: Field | None, row: int, what: str) -> NoReturn:
        name = f"{declared.name}.{field.name}" if field else declared.name
        raise ModelError(
            f"{INVALID}: {name} (number {row} of its kind in the file): {what} is outside the {self.size} bytes of "
            "the file, misaligned or wrong. The file is truncated or damaged, or not a .tflite model"
        )


def elements(column: Column, rows: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For the vectors of some rows: the row that each element belongs to, and the element's position."""
    count = column.count[rows]
    owner = np.repeat(rows, count)
    first = np.repeat(column.start[rows] - (np.cumsum(count) - count) * size, count)
    return owner, first + np.arange(owner.size) * size


def verify(source: Source) -> dict[str, Columns]:
    """Verify the flatbuffer at the start of a file; returns its columns by table name."""
    verifier = Verifier(source)
    verifier.run()
    return verifier.columns
