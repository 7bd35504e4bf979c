"""Locks between processes, only against doing the same work twice: without them everything is still correct.

flock dies with its process, so nothing is ever stale. The file is removed by whoever holds it last.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
        if descriptor is not None:
            try:
                os.unlink(path)                     # type: ignore[arg-type]
            except OSError:
                pass
            os.close(descriptor)


def _acquire(path: str | None, patience: float) -> int | None:
    end, pause = time.monotonic() + patience, 0.002
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)    # type: ignore[arg-type]
        except OSError:
            return None
        if _try(descriptor, path):
            return descriptor
        os.close(descriptor)
        if time.monotonic() > end:
            return None
        time.sleep(pause)
        pause = min(2 * pause, 0.05)


def _try(descriptor: int, path: str | None) -> bool:
    """Whether the lock is ours, and on the file that has this name now: its last holder removes it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(path))    # type: ignore[arg-type]
    except OSError:
        return False
