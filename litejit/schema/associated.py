"""Files that travel with a model, such as labels: a ZIP archive appended to the flatbuffer."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ModelError

#: What a name may unpack to, as a multiple of the model's size: archives are not trusted.
_MOST = 16
_END = b"PK\x05\x06"
_END_REACH = 22 + 65535


class AssociatedFiles(Mapping[str, bytes]):
    """The files of the archive at the end of a model by name, unpacked when asked for; empty if there is none."""

    __slots__ = ("_data", "_files")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._files: dict[str, Any] | None = None

    def _open(self) -> Any:
        import zipfile

        return zipfile.ZipFile(io.BufferedReader(_Stream(self._data)))

    def _names(self) -> dict[str, Any]:
        if self._files is None:
            self._files = {}
            if _END in bytes(self._data[-_END_REACH:]):
                try:
                    with self._open() as archive:
                        self._files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
                except Exception:  # whatever zipfile stumbles over: the bytes only looked like an archive
                    pass
        return self._files

    def __getitem__(self, name: str) -> bytes:
        info = self._names()[name]
        if info.file_size > _MOST * len(self._data) + (1 << 20):
            raise ModelError(f"The associated file {name!r} claims {info.file_size} bytes in {len(self._data)}")
        try:
            with self._open() as archive, archive.open(info) as file:
                return bytes(file.read(info.file_size))
        except Exception as error:
            raise ModelError(f"The associated file {name!r} is damaged: {error}") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        return f"AssociatedFiles({', '.join(self)})"


class _Stream(io.RawIOBase):
    """A memoryview as a seekable stream, without copying it."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self._at, len(self._data))[whence]
        if at < 0:
            raise ValueError(f"seek to {at}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
