"""Who uses an interpreter's memory: views that callers hold, and one call at a time."""

from __future__ import annotations

from typing import Any

import numpy as np


class Lease:
    """What views of a tensor have as their base, slices of them too: it lives as long as any of them."""

    __slots__ = ("__array_interface__", "__weakref__", "_memory")

    def __init__(self, memory: np.ndarray) -> None:
        self._memory = memory
        plain = memory if memory.dtype.kind in "biufc" else memory.view(f"u{memory.dtype.itemsize}")
        self.__array_interface__ = plain.__array_interface__


class Exclusive:
    """One call of an interpreter at a time; waits for the others, unless it would wait for itself."""

    __slots__ = ("_lock",)

    def __init__(self, lock: Any) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()
