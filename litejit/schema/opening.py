"""Opening model files: their bytes as one aligned read-only uint8 array that nothing else can change.

Files are read into memory; above 64 MB they are mapped copy-on-write instead, which starts without a copy. (A mapped
file must not be truncated while it is in use: no mapping survives that.)
"""

from __future__ import annotations

import errno
import mmap
import os
from typing import Any

import numpy as np

from ..errors import ModelError, ModelFileError

MAP_ABOVE = 64 << 20
ALIGNMENT = 64


def open_file(path: str | bytes | os.PathLike[Any]) -> tuple[np.ndarray, str | bytes]:
    """The bytes of a file and its path as `str` or `bytes`; ModelFileError, or ModelError if it cannot be read."""
    name = os.fspath(path)
    shown = os.fsdecode(name).encode("utf-8", "backslashreplace").decode()
    if (b"\0" if isinstance(name, bytes) else "\0") in name:  # type: ignore[operator]
        raise ModelError(f"Could not open {shown!r}: the path contains a NUL character")
    try:
        with open(name, "rb", buffering=0) as file:
            return _contents(file, os.fstat(file.fileno()).st_size), name
    except FileNotFoundError as error:
        raise ModelFileError(errno.ENOENT, f"Could not open '{shown}'. There is no such file", name) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ModelError(f"Could not open '{shown}'. {reason}") from error


def _contents(file: Any, size: int) -> np.ndarray:
    if size > MAP_ABOVE:
        array = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
    else:
        array = _aligned(size)
        filled = 0
        while filled < size:
            count = file.readinto(array.data[filled:])
            if not count:
                break
            filled += count
        array = array[:filled]
        rest = file.read()  # what cannot tell its size, such as a pipe, or grew meanwhile
        if rest:
            array = _copy(array.tobytes() + rest)
    array.flags.writeable = False
    return array


def open_buffer(buffer: Any) -> np.ndarray:
    """The bytes of any object with the buffer protocol; copied unless they are `bytes` (which cannot change)."""
    if isinstance(buffer, str):
        raise TypeError("a buffer with the contents of a model is expected, not str; use Model.from_file for paths")
    try:
        view = memoryview(buffer)
    except TypeError:
        raise TypeError(f"a bytes-like object with a model is expected, not {type(buffer).__name__}") from None
    if isinstance(view.obj, bytes) and view.c_contiguous:
        array = np.frombuffer(view, np.uint8)
        if address(array) % 16 == 0:
            return array
    array = _copy(view.tobytes() if not view.c_contiguous else view.cast("B") if view.nbytes else b"")
    array.flags.writeable = False
    return array


def aligned(data: np.ndarray, alignment: int) -> np.ndarray:
    """The array itself, or a read-only copy if its address is no multiple of `alignment`."""
    return data if alignment == 1 or address(data) % alignment == 0 else open_buffer(data.tobytes())


def address(array: np.ndarray) -> int:
    """Address of the first element (`array.ctypes` would take four times as long)."""
    return int(array.__array_interface__["data"][0])


def _aligned(size: int) -> np.ndarray:
    array = np.empty(size + ALIGNMENT, np.uint8)
    start = -address(array) % ALIGNMENT
    return array[start : start + size]


def _copy(data: bytes | memoryview) -> np.ndarray:
    array = _aligned(len(data))
    array[:] = np.frombuffer(data, np.uint8)
    return array
