"""Memory of packed constants: aligned, with room behind for what kernels read past the end, copied as rarely as possible."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

SLACK = 64  # bytes that kernels may read past a buffer
ALIGNED = 64  # bytes


def roomy(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Zeros where `padded` leaves them."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + SLACK + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED
    return memory[start : start + size].view(dtype).reshape(shape)


def joined(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Arrays one after the other, flat; a single one is not copied."""
    flat = [part.reshape(-1) for part in parts]
    return flat[0] if len(flat) == 1 else np.concatenate(flat)


def padded(array: Any) -> np.ndarray:
    """The bytes of an array, 64-byte aligned and with SLACK readable bytes after it: a copy, unless it is `roomy`."""
    whole = getattr(array, "base", None)
    if isinstance(whole, np.ndarray) and whole.base is None and whole.dtype == np.uint8 and array.flags.c_contiguous:
        start = array.ctypes.data - whole.ctypes.data
        if array.ctypes.data % ALIGNED == 0 and whole.ndim == 1 and start + array.nbytes + SLACK <= whole.nbytes:
            return whole[start : start + array.nbytes + SLACK]
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    made = roomy((raw.nbytes + SLACK,), np.uint8)
    made[: raw.nbytes] = raw
    return made
