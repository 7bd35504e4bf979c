"""What the checks of a model read: columns decoded, sizes of tensors and constants, names for errors."""

from __future__ import annotations

from typing import NoReturn

import numpy as np

from ..errors import ModelError
from .reader import Source
from .verifier import Column, Columns, elements

#: Bits of one element by TensorType; 0 where the bytes of a tensor do not follow from its shape.
BITS = np.array(
    [32, 16, 32, 8, 64, 0, 8, 16, 64, 8, 64, 128, 64, 0, 0, 32, 16, 4, 16, 2, 4, 8, 8],
    np.int64,
)


class Facts:
    """The columns of one file with what the checks share: which tensors each subgraph has, and how to name them."""

    def __init__(self, source: Source, columns: dict[str, Columns]) -> None:
        self.source = source
        self.columns = columns
        self.subgraphs = self.rows("SubGraph")
        self.buffers = self.rows("Buffer")
        self.tensor_row, self.tensor_count = self.children("SubGraph", "tensors")
        self.operator_row, self.operator_count = self.children("SubGraph", "operators")

    def rows(self, name: str) -> int:
        """Number of tables of a kind."""
        found = self.columns.get(name)
        return found.position.size if found else 0

    def column(self, name: str, field: str) -> Column | None:
        """A field that occurs in the file, or None."""
        found = self.columns.get(name)
        return found.field.get(field) if found else None

    def values(self, name: str, field: str) -> np.ndarray:
        """A scalar field of all tables of a kind, int64 (wrapped for uint64), with the schema's default."""
        columns = self.columns[name]
        declared = columns.table.fields[field]
        found = np.full(columns.position.size, int(declared.default or 0), np.int64)
        column = columns.field.get(field)
        if column:
            rows = column.position.nonzero()[0]
            at = column.position[rows]
            dtype = "u1" if declared.dtype == "?" else declared.dtype
            found[rows] = self.at(dtype, declared.size)[at // declared.size].astype(np.int64)
        return found

    def at(self, dtype: str, width: int) -> np.ndarray:
        """The whole file as elements of a type."""
        return self.source.array[: self.source.array.size // width * width].view(dtype)

    def children(self, name: str, field: str) -> tuple[np.ndarray, np.ndarray]:
        """For each table of a kind: row of the first child in a vector of tables, and the number of them."""
        column = self.column(name, field)
        if column is None:
            zeros = np.zeros(self.rows(name), np.int64)
            return zeros, zeros
        return column.row, column.count

    def ints(self, name: str, field: str) -> tuple[np.ndarray, np.ndarray]:
        """All elements of a vector of int32: the rows they belong to, and their values (int64)."""
        column = self.column(name, field)
        if column is None:
            empty = np.zeros(0, np.int64)
            return empty, empty
        owner, position = elements(column, column.count.nonzero()[0], 4)
        return owner, self.at("<i4", 4)[position >> 2].astype(np.int64)

    def text(self, name: str, field: str, row: int) -> str:
        """A string of one table, '' if it has none."""
        column = self.column(name, field)
        if column is None or not column.position[row]:
            return ""
        start = int(column.start[row])
        return bytes(self.source.bytes[start : start + int(column.count[row])]).decode("utf-8", "replace")

    def owner(self, row: int, first: np.ndarray, count: np.ndarray) -> tuple[int, int]:
        """Subgraph and index in it of a tensor's or operator's row."""
        subgraph = int(np.nonzero((first <= row) & (row < first + count))[0][0])
        return subgraph, row - int(first[subgraph])

    def tensor(self, row: int) -> str:
        """How messages name a tensor."""
        subgraph, index = self.owner(row, self.tensor_row, self.tensor_count)
        return f"tensor {index} ('{self.text('Tensor', 'name', row)}') of subgraph {subgraph}"

    def operator(self, row: int) -> str:
        """How messages name an operator."""
        subgraph, index = self.owner(row, self.operator_row, self.operator_count)
        return f"node {index} of subgraph {subgraph}"

    def tensor_error(self, row: int, text: str, closing: str = "is invalidly specified in schema") -> NoReturn:
        """ModelError about a tensor, ending in the original's sentence."""
        _, index = self.owner(row, self.tensor_row, self.tensor_count)
        raise ModelError(f"{text} Tensor {index} {closing}. It is {self.tensor(row)}")


def element_counts(facts: Facts, counted: np.ndarray) -> np.ndarray:
    """Number of elements of each tensor as float64 (exact below 2**53); infinite where a dimension is negative.

    Only for the tensors that are `counted`, 0 for the others: the original does not look at the shapes of texts.
    """
    counts = np.ones(facts.rows("Tensor"))
    row, dimension = facts.ints("Tensor", "shape")
    if row.size:
        dimension = np.where(dimension < 0, np.inf, dimension.astype(np.float64))
        first = np.nonzero(np.diff(row, prepend=-1))[0]
        with np.errstate(over="ignore", invalid="ignore"):
            counts[row[first]] = np.nan_to_num(np.multiply.reduceat(dimension, first), nan=np.inf, posinf=np.inf)
    return np.where(counted, counts, 0)


def constant_sizes(facts: Facts) -> np.ndarray:
    """Bytes of each buffer, inside or outside the flatbuffer; -1 for those without data, as number 0 always is."""
    column = facts.column("Buffer", "data")
    inside = np.where(column.position > 0, column.count, -1) if column else np.full(facts.buffers, -1)
    outside = np.where(facts.values("Buffer", "offset").view(np.uint64) > 1, facts.values("Buffer", "size"), -1)
    sizes = np.where(inside >= 0, inside, outside)
    sizes[0] = -1
    return sizes
