"""Callers' values to arrays, with the checks and messages of `set_tensor`."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from litejit.errors import LiteJitError
from litejit.planner.graph import TYPES, Value

_NAMES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "float64": "FLOAT64",
    "bfloat16": "BFLOAT16",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "bool": "BOOL",
    "complex64": "COMPLEX64",
    "complex128": "COMPLEX128",
}


def index_of(value: Any, what: str = "tensor index") -> int:
    """An index as an int. Raises TypeError for anything that is not an integer."""
    try:
        return operator.index(value)
    except TypeError:
        pass
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iub":
        return int(value)
    if isinstance(value, np.bool_):
        return int(value)
    raise TypeError(f"{what} must be an integer, not {type(value).__name__} {str(value)[:40]!r}")


def type_name(dtype: np.dtype) -> str:
    """TFLite's name of a NumPy dtype, as messages have it."""
    if dtype.kind in "OSUT":
        return "STRING"
    if dtype.kind in "iu":
        return f"{'U' if dtype.kind == 'u' else ''}INT{8 * dtype.itemsize}"
    return _NAMES.get(dtype.name, "NOTYPE")


def as_array(value: Any) -> np.ndarray:
    """A caller's value as an array, native byte order. Raises LiteJitError for ragged lists."""
    if not isinstance(value, np.ndarray):
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            value = np.from_dlpack(value)
        try:
            value = np.asarray(value)
        except ValueError as error:
            raise LiteJitError(f"Failed to convert value into readable tensor. ({error})") from error
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    return value


def checked(value: Any, target: Value, shape: tuple[int, ...], index: int) -> np.ndarray:
    """`value` as an array of exactly the tensor's type and shape. Raises LiteJitError."""
    array = as_array(value)
    wanted = target.dtype
    if array.dtype != wanted and not (
        array.dtype.kind == wanted.kind and array.dtype.kind in "iu" and array.dtype.itemsize == wanted.itemsize
    ):
        hint = ""
        if target.quantised and array.dtype.kind == "f":
            hint = f" (the tensor is quantised, scale {target.scale:.9g}, zero point {target.zero_point})"
        raise LiteJitError(
            f"Cannot set tensor: Got value of type {type_name(array.dtype)} but expected type "
            f"{TYPES[target.type][0]} for input {index}, name: {target.name} {hint}".rstrip()
            + " "
        )
    if array.ndim != len(shape):
        raise LiteJitError(
            f"Cannot set tensor: Dimension mismatch. Got {array.ndim} but expected {len(shape)} for input "
            f"{index}. (name: {target.name}, shape given {array.shape}, expected {shape})"
        )
    for k, (got, expected) in enumerate(zip(array.shape, shape)):
        if got != expected:
            raise LiteJitError(
                f"Cannot set tensor: Dimension mismatch. Got {got} but expected {expected} for dimension {k} "
                f"of input {index}. (name: {target.name}, shape given {array.shape}, expected {shape})"
            )
    if target.type in ("i4", "u4", "i2") and array.size:
        low, high = {"i4": (-8, 7), "u4": (0, 15), "i2": (-2, 1)}[target.type]
        if array.min() < low or array.max() > high:
            raise LiteJitError(
                f"Values for {TYPES[target.type][0]} input must be between {low} and {high}. (input {index}, "
                f"name: {target.name})"
            )
    return array


def shape_of(size: Any) -> tuple[int, ...]:
    """A caller's shape as a tuple of ints.

    Raises LiteJitError where it is not one-dimensional or has negative entries, TypeError where entries are no integers,
    OverflowError where they do not fit int32.
    """
    array = np.asarray(size)
    if array.ndim != 1:
        raise LiteJitError(f"Shape should be 1D instead of {array.ndim}.")
    dims = tuple(index_of(d, "a dimension") for d in (array.tolist() if array.dtype.kind in "iub" else list(size)))
    for d in dims:
        if d > (1 << 31) - 1:
            raise OverflowError(f"Python integer {d} out of bounds for int32")
        if d < 0:
            raise LiteJitError(
                f"BytesRequired number of elements overflowed. (negative dimension in shape {list(dims)})"
            )
    return dims
