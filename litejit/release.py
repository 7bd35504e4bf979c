"""Memory given back to the system: of a mapped file that has been read, and of the heap."""
from __future__ import annotations

import mmap
import sys
from typing import Any

import numpy as np


def let_go(array: np.ndarray) -> None:
    """Give the memory of a mapped file back, which the system reads again when it is looked at.

    Does nothing for other arrays, and where the system has no such call.
    """
    base = owner(array)
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def owner(array: np.ndarray) -> Any:
    """What holds the memory of an array: an array, an mmap, bytes."""
    base: Any = array
    while isinstance(base, np.ndarray) and base.base is not None:
        base = base.base
    return base.obj if isinstance(base, memoryview) else base


def trim() -> None:
    """Give back what the heap has free between what is used. glibc keeps it otherwise; about a millisecond."""
    if sys.platform != "linux":
        return
    from ctypes import CDLL

    call = getattr(CDLL(None), "malloc_trim", None)
    if call is not None:
        call(0)
