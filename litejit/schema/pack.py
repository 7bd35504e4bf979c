"""How constants are stored: element types, packed and compressed values, quantisation; for building models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from ..errors import ModelError
from .enums import DimensionType, TensorType

_TYPES = {
    "float32": TensorType.FLOAT32,
    "float16": TensorType.FLOAT16,
    "float64": TensorType.FLOAT64,
    "bfloat16": TensorType.BFLOAT16,
    "bool": TensorType.BOOL,
    "int8": TensorType.INT8,
    "int16": TensorType.INT16,
    "int32": TensorType.INT32,
    "int64": TensorType.INT64,
    "uint8": TensorType.UINT8,
    "uint16": TensorType.UINT16,
    "uint32": TensorType.UINT32,
    "uint64": TensorType.UINT64,
    "complex64": TensorType.COMPLEX64,
    "complex128": TensorType.COMPLEX128,
    "int4": TensorType.INT4,
    "uint4": TensorType.UINT4,
    "int2": TensorType.INT2,
    "float8_e4m3fn": TensorType.FLOAT8_E4M3FN,
    "float8_e5m2": TensorType.FLOAT8_E5M2,
}
_LIMITS = {TensorType.INT4: (4, -8, 7), TensorType.UINT4: (4, 0, 15), TensorType.INT2: (2, -2, 1)}


class Quant:
    """Quantisation of a tensor under construction: a scale and a zero point, or one of each along `dimension`."""

    def __init__(
        self,
        scale: Any = (),
        zero_point: Any = 0,
        dimension: int = 0,
        *,
        min: Any = None,
        max: Any = None,
        details: tuple[str, dict[str, Any]] | None = None,
    ) -> None:
        self.scale = np.atleast_1d(np.asarray(scale, np.float32))
        self.zero_point = np.broadcast_to(np.asarray(zero_point, np.int64), self.scale.shape)
        self.dimension = dimension
        self.min, self.max = min, max
        self.details = details

    @classmethod
    def blockwise(
        cls, scales: SupportsIndex, block_size: int, zero_points: SupportsIndex | None = None, dimension: int = 0
    ) -> Quant:
        """Scales (and zero points) that are tensors, one for each `block_size` elements of a row."""
        zeros = -1 if zero_points is None else index(zero_points)
        tree = {"scales": index(scales), "zero_points": zeros, "block_size": block_size}
        return cls(dimension=dimension, details=("BlockwiseQuantization", tree))

    @classmethod
    def custom(cls, data: bytes) -> Quant:
        """Quantisation that only a custom operator understands."""
        return cls(details=("CustomQuantization", {"custom": data}))

    def tree(self) -> dict[str, Any]:
        """QuantizationParameters as the writer takes them."""
        return {
            "min": self.min if self.min is None else np.atleast_1d(self.min),
            "max": self.max if self.max is None else np.atleast_1d(self.max),
            "scale": self.scale if self.scale.size else None,
            "zero_point": self.zero_point if self.scale.size else None,
            "quantized_dimension": self.dimension,
            "details": self.details,
        }


def pack(array: np.ndarray, code: int | None) -> tuple[bytes, int]:
    """The stored bytes of an array as a type (that of its dtype for None), and the type."""
    if array.dtype.kind in "SUO":
        if code not in (None, TensorType.STRING):
            raise ModelError(f"texts are no {TensorType(code).name}")
        return pack_strings(array.reshape(-1).tolist()), TensorType.STRING
    if code is None:
        found = _TYPES.get(array.dtype.name)
        if found is None:
            raise ModelError(f"no tensor type stores {array.dtype}; the types are {', '.join(_TYPES)}")
        code = found
    if code in _LIMITS:
        return pack_bits(array, *_LIMITS[TensorType(code)]), code
    if code in (TensorType.FLOAT8_E4M3FN, TensorType.FLOAT8_E5M2):
        return np.ascontiguousarray(array).view(np.uint8).tobytes(), code
    name = next(name for name, type_ in _TYPES.items() if type_ == code)
    if name == "bfloat16":
        import ml_dtypes

        return array.astype(ml_dtypes.bfloat16).tobytes(), code
    return np.ascontiguousarray(array, np.dtype(name).newbyteorder("<")).tobytes(), code


def pack_bits(array: np.ndarray, bits: int, low: int, high: int) -> bytes:
    """Integers of a few bits, the first in the lowest bits of a byte; rows are not padded."""
    values = np.asarray(array).astype(np.int64).reshape(-1)
    if values.size and (values.min() < low or values.max() > high):
        raise ModelError(f"values of {bits} bits are in [{low}, {high}], not in [{values.min()}, {values.max()}]")
    per_byte = 8 // bits
    padded = np.zeros(-(-values.size // per_byte) * per_byte, np.uint8)
    padded[: values.size] = values & ((1 << bits) - 1)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    packed: np.ndarray = np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1)
    return packed.astype(np.uint8).tobytes()


def pack_strings(texts: Iterable[str | bytes]) -> bytes:
    """A STRING tensor's bytes: count, offsets of the texts from the start and their end, the texts; int32."""
    encoded = [text.encode() if isinstance(text, str) else bytes(text) for text in texts]
    lengths = np.array([0, *map(len, encoded)], np.int64)
    offsets = np.cumsum(lengths) + 4 * (len(encoded) + 2)
    return np.array([len(encoded), *offsets], "<i4").tobytes() + b"".join(encoded)


class Sparse:
    """How a constant is compressed: the format of each level in traversal order, after splitting blocks off.

    `block_map` and `block_size` name the blocked dimensions and their extents; `order` is a permutation of the
    dimensions, then the blocks (numbered from the rank on); `formats` are DENSE or SPARSE_CSR in that order.
    """

    def __init__(
        self,
        formats: Sequence[DimensionType | str],
        order: Sequence[int] | None = None,
        block_map: Sequence[int] = (),
        block_size: Sequence[int] = (),
    ) -> None:
        self.formats = [DimensionType[name] if isinstance(name, str) else name for name in formats]
        self.order = list(range(len(self.formats))) if order is None else list(order)
        self.block_map, self.block_size = list(block_map), list(block_size)

    def compress(self, array: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
        """Stored values of a dense array, and its SparsityParameters."""
        split: list[int] = []
        for extent, block in ((extent, self._block(axis)) for axis, extent in enumerate(array.shape)):
            split += [extent // block, block]
        axes = [2 * axis for axis in range(array.ndim)] + [2 * axis + 1 for axis in self.block_map]
        units = [axis for axis in range(2 * array.ndim) if axis not in axes]  # extent 1
        blocked = array.reshape(split).transpose([axes[level] for level in self.order] + units)
        blocked = blocked.reshape(blocked.shape[: len(axes)])
        levels = []
        entries = blocked.reshape(1, *blocked.shape)
        for format_ in self.formats:
            entries, metadata = _compress_level(entries, format_)
            levels.append(metadata)
        tree = {"traversal_order": self.order, "block_map": self.block_map or None, "dim_metadata": levels}
        return entries.reshape(-1), tree

    def _block(self, axis: int) -> int:
        return self.block_size[self.block_map.index(axis)] if axis in self.block_map else 1


def _compress_level(entries: np.ndarray, format_: DimensionType) -> tuple[np.ndarray, dict[str, Any]]:
    """Entries (count, extent, ...) as (kept, ...), and the metadata of their second dimension."""
    count, extent = entries.shape[:2]
    if format_ == DimensionType.DENSE:
        return entries.reshape(count * extent, *entries.shape[2:]), {"format": format_, "dense_size": extent}
    kept = (entries != 0).any(axis=tuple(range(2, entries.ndim)))
    segments = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    indices = np.nonzero(kept)[1]
    metadata = {
        "format": format_,
        "array_segments": _index_vector(segments),
        "array_indices": _index_vector(indices),
    }
    return entries[kept], metadata


def _index_vector(values: np.ndarray) -> tuple[str, dict[str, Any]]:
    most = int(values.max(initial=0))
    name = "Uint8Vector" if most < 256 else "Uint16Vector" if most < 65536 else "Int32Vector"
    return name, {"values": values}
