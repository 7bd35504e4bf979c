"""What makes a key: everything that changes machine code or how it is called, and nothing else.

The caller names what is special to an entry (source digest, parameter types, options, CPU level, plan); added here:
the format, the machine, the system's ABI, the loader, and the versions of Numba and llvmlite (which brings LLVM).
Paths, times, host names and weights never are part of a key.
"""
from __future__ import annotations

import os
import platform
import sys
from typing import Any

from litejit.store.files import FORMAT

_versions: tuple[tuple[str, ...], dict[str, str]] | None = None


def make_key(**parts: Any) -> str:
    """40 hexadecimal digits for a set of parts: text, bytes, numbers, None, and lists, tuples and dicts of them."""
    from litejit.compiler.load import loader

    parts["environment"] = (FORMAT, platform.machine(), sys.platform, _libc(), loader(), toolchain())
    return _digest(_canonical(parts))


def _digest(text: str) -> str:
    try:
        from _blake2 import blake2b  # hashlib would load OpenSSL, 3 ms
    except ImportError:
        from hashlib import blake2b
    return blake2b(text.encode(), digest_size=20).hexdigest()


def _canonical(value: Any) -> str:
    """A text that is equal for equal values only, in this and every other process."""
    if value is None or isinstance(value, (bool, int, str, bytes)):
        return repr(value)
    if hasattr(value, "__index__"):
        return repr(int(value))
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_canonical, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key!r}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    raise TypeError(f"a {type(value).__name__} cannot be part of a key")


def _libc() -> str:
    """glibc or another one: a library linked against one need not load with the other."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").split()[0]     # type: ignore[union-attr]
    except (AttributeError, ValueError, OSError):
        return ""


def toolchain() -> dict[str, str]:
    """Versions of numba and llvmlite: names of dist-info folders (importlib.metadata would cost 35 ms)."""
    global _versions
    path = tuple(sys.path)
    if _versions is None or _versions[0] != path:
        _versions = path, {name: _version(name, path) for name in ("numba", "llvmlite")}
    return _versions[1]


def _version(name: str, path: tuple[str, ...]) -> str:
    start = name + "-"
    for folder in path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        found = sorted(entry[len(start):].rsplit(".", 1)[0] for entry in names
                       if entry.startswith(start) and entry.endswith((".dist-info", ".egg-info")))
        if found:
            return ",".join(found)
    try:                                            # an unusual installation: ask the package itself
        return str(__import__(name).__version__)
    except ImportError:
        return ""
