"""Stored forms of constants against slow twins: packed bits, texts, compressed tensors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from litejit.errors import ModelError
from litejit.schema.enums import DimensionType, TensorType
from litejit.schema.pack import Sparse, pack, pack_bits, pack_strings

_BITS = {"INT4": (4, -8, 7), "UINT4": (4, 0, 15), "INT2": (2, -2, 1)}


def unpack_twin(data: bytes, bits: int, signed: bool, count: int) -> list[int]:
    """Element by element: the first in the lowest bits."""
    number = int.from_bytes(data, "little")
    values = [(number >> (bits * place)) & ((1 << bits) - 1) for place in range(count)]
    return [value - (1 << bits) if signed and value >> (bits - 1) else value for value in values]


@given(st.data())
@pytest.mark.parametrize("name", _BITS)
def test_packed_bits(name, data):
    bits, low, high = _BITS[name]
    values = data.draw(st.lists(st.integers(low, high), max_size=20))
    stored = pack_bits(np.array(values, np.int64), bits, low, high)
    assert len(stored) == -(-len(values) * bits // 8)
    assert unpack_twin(stored, bits, low < 0, len(values)) == values
    assert pack(np.array(values, np.int8), TensorType[name]) == (stored, TensorType[name])


@pytest.mark.parametrize(("name", "value"), [("INT4", 8), ("INT4", -9), ("UINT4", -1), ("UINT4", 16), ("INT2", 2)])
def test_values_that_do_not_fit_are_refused(name, value):
    with pytest.raises(ModelError, match=r"values of . bits are in"):
        pack(np.array([0, value]), TensorType[name])


def test_texts():
    data = pack_strings(["ab", b"", "\N{SNOWMAN}"])
    head = np.frombuffer(data, "<i4", 5)
    assert head.tolist() == [3, 20, 22, 22, 25]
    assert data[20:] == "ab\N{SNOWMAN}".encode()
    assert pack(np.array([["x"]]), None) == (pack_strings(["x"]), TensorType.STRING)
    with pytest.raises(ModelError, match="texts are no INT8"):
        pack(np.array(["x"]), TensorType.INT8)


def test_types_follow_from_arrays():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert pack(np.array([1.0]), None)[1] == TensorType.FLOAT64
    assert pack(np.array([1], ml_dtypes.bfloat16), None) == (b"\x80\x3f", TensorType.BFLOAT16)
    assert pack(np.array([1.0]), TensorType.BFLOAT16)[0] == b"\x80\x3f"
    assert pack(np.array([-1], np.int8), TensorType.FLOAT8_E5M2)[0] == b"\xff"
    assert pack(np.array([1], ">i4"), None) == (b"\1\0\0\0", TensorType.INT32)
    with pytest.raises(ModelError, match="no tensor type stores"):
        pack(np.array([1], "M8[s]"), None)


def densify_twin(values: np.ndarray, tree: dict, shape: tuple[int, ...]) -> np.ndarray:
    """Follow every stored value down the levels."""
    rank, order, blocks = len(shape), tree["traversal_order"], tree["block_map"] or []
    found = np.zeros(shape, values.dtype)
    sizes = {level: m["dense_size"] for level, m in zip(order, tree["dim_metadata"], strict=True) if "dense_size" in m}

    def walk(level: int, entry: int, place: dict[int, int]) -> None:
        if level == len(order):
            at = [place[axis] for axis in range(rank)]
            for number, axis in enumerate(blocks):
                at[axis] = at[axis] * sizes[rank + number] + place[rank + number]
            found[tuple(at)] = values[entry]
            return
        metadata = tree["dim_metadata"][level]
        if metadata["format"] == DimensionType.DENSE:
            children = [(entry * metadata["dense_size"] + i, i) for i in range(metadata["dense_size"])]
        else:
            segments = metadata["array_segments"][1]["values"]
            indices = metadata["array_indices"][1]["values"]
            children = [(child, int(indices[child])) for child in range(segments[entry], segments[entry + 1])]
        for child, index in children:
            walk(level + 1, child, {**place, order[level]: index})

    walk(0, 0, {})
    return found


@settings(max_examples=60)
@given(arrays.arrays(np.int8, (4, 6), elements=st.sampled_from([0, 0, 0, 1, -2])), st.data())
def test_compressed_constants(dense, data):
    blocked = data.draw(st.booleans())
    blocks = ((0, 1), (2, 3)) if blocked else ((), ())
    order = data.draw(st.sampled_from(list(itertools.permutations(range(2)))))
    formats = data.draw(st.lists(st.sampled_from(["DENSE", "SPARSE_CSR"]), min_size=2, max_size=2))
    sparse = Sparse([*formats, *["DENSE"] * len(blocks[0])], [*order, *([2, 3] if blocked else [])], *blocks)
    values, tree = sparse.compress(dense)
    assert np.array_equal(densify_twin(values, tree, dense.shape), dense)
