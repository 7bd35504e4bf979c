"""The store: where files are looked for and written, what each mode allows, and what happens when a disk fails.

The search path is LITEJIT_CACHE_DIR (entries separated as in PATH, read-only ones allowed), and the user's cache
directory if that is not set or nothing in it can be written. Files go into the first entry that can be written. A
store that is damaged, foreign, full or unwritable never breaks a run: one warning, and code is compiled again.
"""
from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from litejit.compiler.load import Library, LoadError, load_file, load_image
from litejit.store import files
from litejit.store.locks import LOCK, locked

MODES = ("use", "require", "refresh", "off")
LIBRARY, OBJECT = ".lib", ".obj"
GENERATION = f"v{files.FORMAT}"
_DAY = 86_400


class Statistics:
    """What a store did: entries found, entries not found, entries compiled and handed to it."""

    __slots__ = ("compiled", "hits", "misses")

    def __init__(self) -> None:
        self.hits = self.misses = self.compiled = 0

    def __repr__(self) -> str:
        return f"{self.hits} hits, {self.misses} misses, {self.compiled} compiled"


class Store:
    """Compiled code on disk. Made by `open_store`.

    mode: "use" reads and writes; "require" only reads, and raises StoreError for what is missing; "refresh" compiles
    everything once more and replaces it; "off" touches no disk.
    """

    def __init__(self, roots: Sequence[str], mode: str = "use", fallback: bool = False) -> None:
        if mode not in MODES:
            raise ValueError(f"mode of the store is {mode!r}: expected one of {', '.join(MODES)}")
        self.mode = mode
        self.statistics = Statistics()
        self._roots = [os.path.abspath(os.path.expanduser(root)) for root in roots]
        self._fallback = fallback                   # the user's directory is still to be added if need be
        self._refused: set[str] = set()
        self._checked: set[str] = set()
        self._loaded: dict[str, Library] = {}
        self._fresh: set[str] = set()               # written by this process, which "refresh" may read again
        self._warned = False
        self._swept = False

    def __repr__(self) -> str:
        return f"<Store {os.pathsep.join(self._roots) or 'without a place'}: {self.mode}; {self.statistics}>"

    @property
    def roots(self) -> tuple[str, ...]:
        """Directories in the order in which they are searched, refused ones included."""
        list(self._places())                        # adds the user's directory if it takes part
        return tuple(self._roots)

    # ---- entries ---------------------------------------------------------------------------------

    def get_library(self, key: str) -> Library | None:
        """The library stored under a key, verified and loaded; None if there is none. Raises StoreError: see mode."""
        library = self._loaded.get(key)
        if library is not None:
            self.statistics.hits += 1
            return library
        for path, payload in self._find(key + LIBRARY, key):
            try:
                library = load_file(path, payload)
            except LoadError as error:
                self._warn(f"{path} cannot be loaded ({error})")
                continue
            self.statistics.hits += 1
            self._loaded[key] = library
            return library
        self._miss(key, "library")
        return None

    def put_library(self, key: str, image: bytes, describe: dict[str, Any]) -> Library:
        """Stores an image (compiler/load.py) and loads it, from memory where nothing can be stored.

        describe: what it is, for `litejit cache ls`: JSON values. Raises LoadError for an image that cannot be loaded.
        """
        path = self._write(key, LIBRARY, image, describe)
        library = load_image(image) if path is None else load_file(path, image)
        self._loaded[key] = library
        return library

    def get_object(self, key: str) -> bytes | None:
        """The bytes stored under a key; None if there are none. Raises StoreError: see mode."""
        for _, payload in self._find(key + OBJECT, key):
            self.statistics.hits += 1
            return payload
        self._miss(key, "object")
        return None

    def put_object(self, key: str, data: bytes, describe: dict[str, Any]) -> None:
        """Stores bytes, if anything can be stored."""
        self._write(key, OBJECT, data, describe)

    def lock(self, key: str) -> AbstractContextManager[bool]:
        """Held while `key` is compiled, so that other processes wait for the result; look again when you have it."""
        if self.mode in ("off", "require"):
            return locked(None)
        for root in self._places():
            folder = self._folder(root, key, create=True)
            if folder is not None and os.access(folder, os.W_OK):
                return locked(os.path.join(folder, key + LOCK))
        return locked(None)

    # ---- reading ---------------------------------------------------------------------------------

    def _find(self, name: str, key: str) -> Iterator[tuple[str, bytes]]:
        """(path, payload) of the verified files of this name, along the search path."""
        if self.mode == "off" or (self.mode == "refresh" and name not in self._fresh):
            return
        for root in self._places():
            folder = self._folder(root, key, create=False)
            if folder is None:
                continue
            path = os.path.join(folder, name)
            try:
                payload, _ = files.read(path, key)
            except OSError:
                continue                            # not there, or not for us to read
            except files.Foreign as error:
                self._warn(f"{error}: not used")
                continue
            except files.Damaged as error:
                self._warn(f"{path} is damaged ({error}): not used")
                continue
            self._touch(path)
            yield path, payload

    def _miss(self, key: str, kind: str) -> None:
        self.statistics.misses += 1
        if self.mode == "require":
            from litejit.errors import StoreError

            places = os.pathsep.join(self._roots) or "no directory"
            raise StoreError(
                f"The {kind} {key} is not in the store ({places}), and mode 'require' forbids compiling it. Run once "
                "with LITEJIT_CACHE=use, with the same litejit and Numba on the same kind of CPU.")

    def _places(self) -> Iterator[str]:
        """The search path; the user's directory is found out only if nothing before it can be written."""
        yield from [root for root in self._roots if root not in self._refused]
        if self._fallback and not any(self._can_write(root) for root in self._roots):
            self._fallback = False
            root = user_directory()
            if os.path.isabs(root):                 # not so where a user has no home
                self._roots.append(root)
                yield root

    def _can_write(self, root: str) -> bool:
        """Whether files can be put below a directory; in a mode that writes it is made for that."""
        if root in self._refused:
            return False
        try:
            folder = os.path.join(root, GENERATION) if self.mode == "require" else files.make_folder(root, GENERATION)
        except OSError:
            return False
        return os.access(folder, os.W_OK)

    def _folder(self, root: str, key: str, create: bool) -> str | None:
        """The directory of a key below a root; None where there is none, or none that is ours alone."""
        if root in self._refused:
            return None
        folder = os.path.join(root, GENERATION, key[:2])
        try:
            if create:
                files.make_folder(root, GENERATION, key[:2])
            for path in (root, os.path.join(root, GENERATION), folder):
                if path not in self._checked:
                    files.check_owner(os.stat(path), path)
                    self._checked.add(path)
        except OSError:
            return None
        except files.Foreign as error:
            self._refused.add(root)
            self._warn(f"the store {root} is refused: {error}")
            return None
        return folder

    @staticmethod
    def _touch(path: str) -> None:
        """Notes a use, once a day, for `sweep`."""
        try:
            if os.stat(path).st_mtime < time.time() - _DAY:
                os.utime(path)
        except OSError:
            pass

    # ---- writing ---------------------------------------------------------------------------------

    def _write(self, key: str, suffix: str, payload: bytes, describe: dict[str, Any]) -> str | None:
        """The path of the file written, or None."""
        self.statistics.compiled += 1
        if self.mode in ("off", "require"):
            return None
        data = files.pack(payload, self._description(describe, suffix), key)
        problem = "no directory"
        for root in self._places():
            folder = self._folder(root, key, create=True)
            if folder is None:
                problem = f"{root} cannot be used"
                continue
            path = os.path.join(folder, key + suffix)
            try:
                files.write(path, data)
            except OSError as error:
                problem = str(error)
                continue
            self._fresh.add(key + suffix)
            self._sweep_once(root)
            return path
        self._warn(f"compiled code cannot be stored ({problem}); it is compiled again in every process")
        return None

    @staticmethod
    def _description(describe: dict[str, Any], suffix: str) -> bytes:
        import json

        entry = {"kind": "library" if suffix == LIBRARY else "object", **describe, "created": int(time.time())}
        return json.dumps(entry, sort_keys=True, default=str).encode()

    def _sweep_once(self, root: str) -> None:
        """After the first write of a process, when compiling has cost more than this."""
        if not self._swept:
            from litejit.store.upkeep import sweep

            self._swept = True
            sweep(root)

    def _warn(self, text: str) -> None:
        """One warning per store and process; the rest is for those who ask for it."""
        import logging

        logging.getLogger("litejit").log(logging.DEBUG if self._warned else logging.WARNING, "%s", text)
        self._warned = True


# ---- opening -------------------------------------------------------------------------------------

_stores: dict[tuple[Any, ...], Store] = {}


def open_store(cache_dir: str | os.PathLike[str] | Sequence[str] | None = None, mode: str | None = None) -> Store:
    """The process's store for a place and a mode.

    cache_dir: a directory, or several; by default LITEJIT_CACHE_DIR, then the user's cache directory. mode: "use",
    "require", "refresh" or "off"; by default LITEJIT_CACHE, then "use". Raises ValueError for another mode.
    """
    mode = mode or os.environ.get("LITEJIT_CACHE") or "use"
    fallback = cache_dir is None
    if cache_dir is None:
        roots = [root for root in os.environ.get("LITEJIT_CACHE_DIR", "").split(os.pathsep) if root]
    elif isinstance(cache_dir, (str, os.PathLike)):
        roots = [os.fspath(cache_dir)]
    else:
        roots = [os.fspath(root) for root in cache_dir]
    identity = (tuple(roots), mode, fallback)
    if identity not in _stores:
        _stores[identity] = Store(roots, mode, fallback)
    return _stores[identity]


def user_directory() -> str:
    """The user's cache directory, as platformdirs has it; importing that costs 20 ms, which Linux need not pay."""
    if sys.platform == "linux":
        base = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")
        return os.path.join(base, "litejit")
    from platformdirs import user_cache_dir

    return user_cache_dir("litejit", appauthor=False)
