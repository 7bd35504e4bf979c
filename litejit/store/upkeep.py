"""Looking after a store: what is in it, whether it is whole, and what can go.

All of it works on a root directory and may run while other processes use the store.
"""
from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from litejit.store import files
from litejit.store.locks import LOCK, locked

LIMIT = 2 << 30                                     # bytes of a store before the least recently used entries go
ABANDONED = 3600                                    # seconds after which a temporary file belongs to nobody
_SUFFIXES = (".lib", ".obj")


class Entry(NamedTuple):
    """A file of the store."""

    key: str
    path: str
    size: int                                       # bytes
    used: float                                     # seconds since the epoch, to the day
    description: dict[str, Any]                     # kind, name, created, ...; empty if damaged
    problem: str                                    # why it would not be used; empty if it would


def _paths(root: str) -> Iterator[str]:
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            yield os.path.join(folder, name)


def entries(root: str) -> Iterator[Entry]:
    """Every entry below a root directory, verified."""
    for path in _paths(root):
        key, suffix = os.path.splitext(os.path.basename(path))
        if suffix not in _SUFFIXES:
            continue
        description, problem = b"", ""
        try:
            status = os.stat(path)
            _, description = files.read(path, key, discard=False)
        except FileNotFoundError:
            continue                                # removed meanwhile
        except (OSError, files.Damaged, files.Foreign) as error:
            problem = str(error)
        yield Entry(key, path, status.st_size, status.st_mtime, files.describe(description), problem)


def remove(root: str, key: str = "") -> int:
    """Removes the entries whose key starts with `key` (all by default) and what was abandoned; how many there were."""
    count = 0
    for path in _paths(root):
        name, suffix = os.path.splitext(os.path.basename(path))
        if suffix in _SUFFIXES and name.startswith(key):
            count += files.remove(path)
    sweep(root)
    return count


def sweep(root: str, limit: int = LIMIT, abandoned: float = ABANDONED) -> int:
    """Removes abandoned files, and the least recently used entries above `limit` bytes; how many bytes went."""
    kept: list[tuple[float, int, str]] = []
    gone, now = 0, time.time()
    for path in _paths(root):
        try:
            status = os.stat(path)
        except OSError:
            continue
        if path.endswith(files.TEMPORARY) and status.st_mtime < now - abandoned:
            gone += status.st_size * files.remove(path)
        elif path.endswith(LOCK) and status.st_mtime < now - abandoned:
            with locked(path, patience=0):          # nobody holds it: taking it removes it
                pass
        elif path.endswith(_SUFFIXES):
            kept.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in kept)
    for _, size, path in sorted(kept):
        if total <= limit:
            break
        if files.remove(path):
            total -= size
            gone += size
    return gone
