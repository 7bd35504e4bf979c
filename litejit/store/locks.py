"""Locks between processes, only against doing the same work twice: without them everything is still correct.

flock dies with its process, so nothing is ever stale. The file is removed by whoever holds it last.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

try:
    import fcntl
except ImportError:                                 # Windows: two processes may compile the same
    fcntl = None                                    # type: ignore[assignment]

LOCK = ".lock"
PATIENCE = 120.0                                    # seconds; then the work is done twice rather than never


@contextmanager
def locked(path: str | None, patience: float = PATIENCE) -> Iterator[bool]:
    """Holds the lock file `path`; yields whether it is held. None, or a place that cannot be written: not held."""
    descriptor = _acquire(path, patience) if path and fcntl else None
    try:
        yield descriptor is not None
    finally:
        if path and descriptor is not None:
            with suppress(OSError):
                os.unlink(path)
            os.close(descriptor)


def _acquire(path: str, patience: float) -> int | None:
    end, pause = time.monotonic() + patience, 0.002
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _names(path, descriptor):
                return descriptor
        except BlockingIOError:
            pass                                    # somebody holds it
        except OSError:
            os.close(descriptor)                    # a file system without locks
            return None
        os.close(descriptor)
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _names(path: str, descriptor: int) -> bool:
    """Whether the path still names this file: the last holder of a lock removes its file."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
