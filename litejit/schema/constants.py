"""Checks of constants whose bytes have a structure: texts of STRING tensors, and the parameters of sparse tensors."""

from __future__ import annotations

import math

import numpy as np

from .enums import DimensionType
from .facts import Facts
from .opening import address
from .reader import Source, View
from .tables import table


def _tensor(facts: Facts, row: int) -> View:
    return View(facts.source, table("Tensor"), int(facts.columns["Tensor"].position[row]))


def constant_bytes(source: Source, buffer: View) -> np.ndarray | None:
    """Bytes of a buffer, inside or outside the flatbuffer, as a read-only uint8 array; None if it has none.

    A vector without elements counts as one: it is the constant of a tensor without elements.
    """
    data: np.ndarray | None = buffer.data
    if data is not None:
        return data
    if buffer.offset > 1:
        return source.array[buffer.offset : buffer.offset + buffer.size]
    return None


def _constant(facts: Facts, tensor: View) -> np.ndarray | None:
    buffer = View(facts.source, table("Buffer"), int(facts.columns["Buffer"].position[tensor.buffer]))
    return constant_bytes(facts.source, buffer) if tensor.buffer else None


def check_strings(facts: Facts, rows: list[int]) -> None:
    """The constants of STRING tensors: int32 count, count + 1 offsets in ascending order, all inside the buffer."""
    counts: dict[tuple[int, int], int] = {}
    total = 0
    for row in rows:
        tensor = _tensor(facts, row)
        data = _constant(facts, tensor)
        if data is None:
            continue
        key = address(data), data.size
        if key not in counts:
            total += data.size
            if total > facts.source.most_decoded:
                facts.tensor_error(row, f"Constants of texts overlap: {total} bytes.")
            counts[key] = _string_count(data)
        wanted = 1 if tensor.shape is None else math.prod(tensor.shape.tolist())
        if counts[key] < max(wanted, 0):
            found = "its offsets are not inside" if counts[key] < 0 else f"it holds {counts[key]}"
            facts.tensor_error(row, f"Its constant should hold {wanted} strings; {found}.")


def _string_count(data: np.ndarray) -> int:
    """Number of texts in the bytes of a STRING tensor, -1 if their offsets are not inside."""
    count = int.from_bytes(data[:4].tobytes(), "little")
    if count == 0:
        return 0
    if 4 * (count + 2) > data.size:
        return -1
    offsets = np.frombuffer(data, "<i4", count + 1, 4)
    bad = offsets[0] < 4 * (count + 2) or offsets[-1] > data.size or (offsets[1:] < offsets[:-1]).any()
    return -1 if bad else count


def check_sparsity(facts: Facts, row: int, bits: int) -> None:
    """The parameters of a sparse tensor: orders are permutations, segments ascend, indices are inside, sizes agree."""
    tensor = _tensor(facts, row)
    fault = _sparsity_fault(tensor.sparsity, [] if tensor.shape is None else tensor.shape.tolist())
    if isinstance(fault, int):
        data = _constant(facts, tensor)
        if data is None or fault * bits <= 8 * data.size:
            return
        fault = f"{fault} stored values in {data.size} bytes"
    facts.tensor_error(row, f"Its sparsity parameters do not fit its shape: {fault}.")


def _sparsity_fault(sparsity: View, shape: list[int]) -> int | str:
    """What is wrong with the parameters, or the number of stored values."""
    dims = sparsity.dim_metadata or ()
    order = [] if sparsity.traversal_order is None else sparsity.traversal_order.tolist()
    blocks = [] if sparsity.block_map is None else sparsity.block_map.tolist()
    rank = len(shape)
    if not len(dims) == len(order) == rank + len(blocks) or sorted(order) != list(range(len(order))):
        return f"traversal order {order} with {len(dims)} dimensions and {len(blocks)} blocks"
    if not all(0 <= block < rank for block in blocks) or len(set(blocks)) < len(blocks):
        return f"block map {blocks}"
    sizes = shape + [0] * len(blocks)
    for level, dimension in zip(dims, order, strict=True):
        if dimension >= rank:
            size = level.dense_size
            blocked = blocks[dimension - rank]
            if level.format != DimensionType.DENSE or size < 1 or sizes[blocked] % size:
                return f"blocks of {size} in dimension {blocked}"
            sizes[dimension] = size
            sizes[blocked] //= size
    count = 1
    for number, (level, dimension) in enumerate(zip(dims, order, strict=True)):
        found = _level(level, sizes[dimension], count)
        if isinstance(found, str):
            return f"dimension {number} in traversal order: {found}"
        count = found
    return count


def _level(level: View, size: int, count: int) -> int | str:
    """Entries below one level that has `count` of them above, or what is wrong with it."""
    if level.format == DimensionType.DENSE:
        return count * size if level.dense_size == size else f"{level.dense_size} entries for an extent of {size}"
    segments = None if level.array_segments is None else level.array_segments.values
    indices = None if level.array_indices is None else level.array_indices.values
    if segments is None or segments.size != count + 1:
        return f"segments missing or not {count + 1}"
    segments = segments.astype(np.int64)
    stored = np.zeros(0, np.int64) if indices is None else indices.astype(np.int64)
    if segments[0] != 0 or (segments[1:] < segments[:-1]).any() or segments[-1] != stored.size:
        return f"segments that do not ascend from 0 to {stored.size}"
    if stored.size and (stored.min() < 0 or stored.max() >= size):
        return f"indices outside 0 to {size - 1}"
    return int(segments[-1])
