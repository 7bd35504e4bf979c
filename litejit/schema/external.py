"""Constants that a model keeps in other files beside its own (the schema's external buffers)."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ModelError
from .facts import BITS
from .opening import aligned, open_file
from .reader import View

if TYPE_CHECKING:
    from .parts import Tensor

_PACKINGS = (None, "", "unpacked")


def external_bytes(root: View, path: str | bytes | None, tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor's external buffer as a read-only uint8 array.

    The file is read privately. It has to be beside the model: a model's word is no reason to open other files.
    ModelError or ModelFileError, when there is no such buffer or file, or it is too short.
    """
    number = tensor.external_buffer
    where = f"tensor {tensor.index} ({tensor.name!r})"
    entry = next((entry for entry in root.external_buffers or () if entry.id == number), None)
    groups = root.external_buffer_groups or ()
    if entry is None or entry.group >= len(groups):
        raise ModelError(f"The constant of {where} is external buffer {number}, which the model does not describe")
    name = groups[entry.group].name or ""
    if path is None:
        raise ModelError(f"The constant of {where} is in the file {name!r}; load the model from a file beside it")
    if name in ("", ".", "..") or os.path.basename(name) != name or "\\" in name or ":" in name:
        raise ModelError(f"The constant of {where} is in {name!r}, which is not the name of a file beside the model")
    if entry.packing not in _PACKINGS:
        raise ModelError(f"The constant of {where} in {name!r} is packed as {entry.packing!r}, which is unknown")
    data, _ = open_file(os.path.join(os.path.dirname(os.fsdecode(path)), name))
    if entry.offset + entry.length > data.size:
        raise ModelError(
            f"The constant of {where} is {entry.length} bytes at {entry.offset} of {name!r}, which has {data.size}"
        )
    needed = -(-math.prod(tensor.shape) * int(BITS[tensor.type]) // 8)
    if entry.length < needed and tensor.sparsity is None:
        raise ModelError(f"The constant of {where} has {entry.length} bytes in {name!r}; its shape needs {needed}")
    return aligned(data[entry.offset : entry.offset + entry.length], min(tensor.dtype.itemsize, 8))
