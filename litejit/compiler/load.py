"""Loads compiled code into the process.

Objects are first made into an image, the bytes that the store keeps: on x86-64 Linux a shared library, loaded by
dlopen; elsewhere, or with LITEJIT_LOADER=llvm, the objects one after the other, loaded by llvmlite. Libraries stay
loaded until the process ends: addresses in a plan or in a late thread can never dangle.
"""
from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from typing import Any

_BUNDLE = b"LJBUNDLE"
_MFD_CLOEXEC, _MFD_EXEC = 1, 16
_handles: dict[int, Any] = {}                       # dlopen handle -> what must live as long as the library


class LoadError(Exception):
    """An image cannot be loaded into this process."""


class Library:
    """Machine code in memory. `path` is the file it came from, or None."""

    __slots__ = ("_addresses", "_keep", "_lookup", "kind", "path")

    def __init__(self, kind: str, path: str | None, lookup: Any, keep: Any) -> None:
        self.kind, self.path = kind, path
        self._lookup, self._keep = lookup, keep
        self._addresses: dict[str, int] = {}

    def address(self, symbol: str) -> int:
        """Address of a symbol. Raises LookupError where there is none."""
        found = self._addresses.get(symbol)
        if found is None:
            found = self._addresses[symbol] = self._lookup(symbol)
        return found

    def __contains__(self, symbol: str) -> bool:
        try:
            return bool(self.address(symbol))
        except LookupError:
            return False

    def __repr__(self) -> str:
        return f"<Library {self.kind} from {self.path or 'memory'}>"


def loader() -> str:
    """How code is loaded in this process: "elf" or "llvm". Images of one are not for the other."""
    wanted = os.environ.get("LITEJIT_LOADER", "")
    if wanted not in ("", "elf", "llvm"):
        raise ValueError(f"LITEJIT_LOADER={wanted}: expected elf or llvm")
    able = sys.platform == "linux" and os.uname().machine == "x86_64" and sys.maxsize > 1 << 32
    if wanted == "elf" and not able:
        raise ValueError("LITEJIT_LOADER=elf works on x86-64 Linux only")
    return wanted or ("elf" if able else "llvm")


def make_image(objects: Sequence[bytes], exports: Sequence[str]) -> bytes:
    """The bytes to keep for a set of objects that belong together; `exports` are the symbols to be looked up."""
    if loader() == "elf":
        from litejit.compiler.elf import link_shared

        return link_shared(objects, exports)
    names = "\0".join(exports).encode()
    head = _BUNDLE + struct.pack(f"<{2 + len(objects)}Q", len(names), len(objects), *map(len, objects))
    return b"".join((head, names, *objects))


def load_image(image: bytes) -> Library:
    """Loads an image from memory. Raises LoadError."""
    return _load_bundle(image, None) if image[:8] == _BUNDLE else _load_shared(image)


def load_file(path: str, image: bytes) -> Library:
    """Loads a file whose verified content starts with `image`; from memory where the file cannot be mapped (noexec)."""
    if image[:8] == _BUNDLE:
        return _load_bundle(image, path)
    try:
        return _shared(ctypes.CDLL(path), path, None)
    except OSError:
        return _load_shared(image)


# ---- dlopen --------------------------------------------------------------------------------------

def _shared(cdll: ctypes.CDLL, path: str | None, keep: Any) -> Library:
    _handles.setdefault(cdll._handle, keep)

    def lookup(symbol: str) -> int:
        try:
            return ctypes.addressof(ctypes.c_char.in_dll(cdll, symbol))
        except ValueError:
            raise LookupError(f"{path or 'library in memory'} has no symbol {symbol}") from None
    return Library("elf", path, lookup, (cdll, keep))


def _load_shared(image: bytes) -> Library:
    try:
        return _through_memory(image)
    except OSError as first:
        try:
            return _through_temporary(image)
        except OSError as second:
            raise LoadError(f"compiled code cannot be loaded: {first}; {second}") from None


def _through_memory(image: bytes) -> Library:
    """dlopen of a file in memory.

    The loader knows libraries by the name they were opened with. The descriptor is therefore never closed: a reused
    number would give back the old library. Where somebody else has closed it (a daemon closing all descriptors), the
    handle tells, and a higher number is tried.
    """
    import fcntl

    descriptor = _memory_file()
    try:
        view = memoryview(image)
        while view:
            view = view[os.write(descriptor, view):]
        for _ in range(64):
            cdll = ctypes.CDLL(f"/proc/self/fd/{descriptor}")
            if cdll._handle not in _handles:
                return _shared(cdll, None, descriptor)
            higher = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, descriptor + 1)
            os.close(descriptor)
            descriptor = higher
        raise OSError("every descriptor number belongs to another library")
    except BaseException:
        os.close(descriptor)
        raise


def _memory_file() -> int:
    if not hasattr(os, "memfd_create"):
        raise OSError("this Python has no memfd_create")
    try:
        return os.memfd_create("litejit", _MFD_CLOEXEC | _MFD_EXEC)
    except OSError:                                 # Linux before 6.3 does not know MFD_EXEC
        return os.memfd_create("litejit", _MFD_CLOEXEC)


def _through_temporary(image: bytes) -> Library:
    """dlopen of a file in a new private directory, removed as soon as it is mapped."""
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="litejit-")
    try:
        path = os.path.join(folder, "library.so")
        with open(path, "xb") as file:
            file.write(image)
        return _shared(ctypes.CDLL(path), None, None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---- llvmlite ------------------------------------------------------------------------------------

def _load_bundle(image: bytes, path: str | None) -> Library:
    """Lets llvmlite relocate the objects: ORC, because MCJIT aborts the process where a symbol is missing."""
    from llvmlite import binding

    exports, objects = _unpack(image)
    if not _jit:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
        _jit.append(binding.create_lljit_compiler(machine, suppress_errors=True))
    builder = binding.JITLibraryBuilder().add_current_process()
    for data in objects:
        builder.add_object_img(data)
    for name in exports:
        builder.export_symbol(name)
    try:
        tracker = builder.link(_jit[0], f"litejit{len(_bundles)}")
    except RuntimeError as error:
        raise LoadError(f"compiled code cannot be loaded: {error}") from None

    def lookup(symbol: str) -> int:
        if symbol not in exports:
            raise LookupError(f"{path or 'library in memory'} has no symbol {symbol}")
        return int(tracker[symbol])
    library = Library("llvm", path, lookup, tracker)
    _bundles.append(library)
    return library


_jit: list[Any] = []                                # the one JIT, once it is needed
_bundles: list[Library] = []                        # never unloaded, as with dlopen


def _unpack(image: bytes) -> tuple[list[str], list[bytes]]:
    """Exported names and objects of a bundle."""
    try:
        names_size, count = struct.unpack_from("<QQ", image, 8)
        if count > len(image):
            raise struct.error
        sizes = struct.unpack_from(f"<{count}Q", image, 24)
        at = 24 + 8 * count
        exports = image[at:at + names_size].decode().split("\0")
    except (struct.error, UnicodeDecodeError):
        raise LoadError("compiled code cannot be loaded: not a bundle of objects") from None
    at += names_size
    objects = []
    for size in sizes:
        objects.append(image[at:at + size])
        at += size
    return exports, objects
