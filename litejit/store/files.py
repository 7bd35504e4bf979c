"""The format of a stored file: payload, description, trailer; how it is written, and verified before it is used.

dlopen ignores what follows a shared library, so a verified file is loaded as it is. A file is never changed in place:
it is written under a temporary name and renamed, so that whoever has the old one mapped keeps it. There is no fsync:
after a power cut the checksum tells.
"""
from __future__ import annotations

import os
import stat
import struct
import time
from binascii import crc32
from contextlib import suppress
from typing import Any

MAGIC = b"litejit\x01"
TRAILER = struct.Struct("<8sQII40s")                # magic, payload bytes, description bytes, crc32 of both, key
FORMAT = 1                                          # of files and of the ABI of compiled code; part of every key
TEMPORARY = ".tmp"
_OPEN = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


class Damaged(Exception):
    """A file that is not what its name says."""


class Foreign(Exception):
    """A file or directory that somebody else may have written."""


def make_folder(root: str, *below: str) -> str:
    """A directory below `root`, all of them ours alone. Raises OSError."""
    os.makedirs(os.path.dirname(root), exist_ok=True)
    path = ""
    for name in (root, *below):
        path = os.path.join(path, name)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return path


def check_owner(status: os.stat_result, path: str) -> None:
    """Machine code must be ours or root's, and nobody else may be able to write it. Raises Foreign."""
    if not hasattr(os, "geteuid"):                  # Windows: access lists, not bits
        return
    if status.st_uid not in (os.geteuid(), 0):
        raise Foreign(f"{path} belongs to user {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Foreign(f"{path} can be written by others (mode {stat.S_IMODE(status.st_mode):o})")


def read(path: str, key: str, discard: bool = True) -> tuple[bytes, bytes]:
    """Payload and description of a file, verified. Raises OSError, Foreign, or Damaged after removing the file."""
    descriptor = os.open(path, _OPEN)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Foreign(f"{path} is not a file")
        check_owner(status, path)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read()
    finally:
        os.close(descriptor)
    try:
        return unpack(data, key)
    except Damaged:
        if discard:
            _remove_damaged(path, status)
        raise


def unpack(data: bytes, key: str) -> tuple[bytes, bytes]:
    """Payload and description of a file's bytes. Raises Damaged."""
    end = len(data) - TRAILER.size
    if end < 0:
        raise Damaged("the file is too short")
    magic, size, extra, checksum, name = TRAILER.unpack_from(data, end)
    if magic != MAGIC or size + extra != end:
        raise Damaged("the file has no valid trailer")
    if name.rstrip(b"\0") != key.encode():
        raise Damaged("the file belongs to another key")
    if crc32(memoryview(data)[:end]) != checksum:
        raise Damaged("the checksum does not match")
    return data[:size], data[size:end]


def pack(payload: bytes, description: bytes, key: str) -> bytes:
    """The bytes of a file."""
    checksum = crc32(description, crc32(payload))
    return b"".join((payload, description, TRAILER.pack(MAGIC, len(payload), len(description), checksum,
                                                        key.encode())))


def write(path: str, data: bytes) -> None:
    """Puts a file in place at once or not at all. Raises OSError."""
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns():x}{TEMPORARY}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        remove(temporary)
        raise


def remove(path: str) -> bool:
    """Removes a file; whether it was there and could be."""
    try:
        os.unlink(path)
        return True
    except OSError:
        return False


def _remove_damaged(path: str, status: os.stat_result) -> None:
    """Removes a file, unless somebody has replaced it meanwhile."""
    try:
        if os.path.samestat(os.stat(path, follow_symlinks=False), status):
            os.unlink(path)
    except OSError:
        pass


def describe(description: bytes) -> dict[str, Any]:
    """The description as it was given to the store; empty if it cannot be read."""
    import json

    try:
        found = json.loads(description)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
