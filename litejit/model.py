"""Model: the immutable view of a .tflite file, shared by all interpreters made from it.

A model is verified as a whole when it is made (`schema.verifier`, `schema.checks`); its parts are decoded when first
asked for, and constants are views of the file's bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import ModelError
from .release import let_go
from .schema.associated import AssociatedFiles
from .schema.checks import check
from .schema.constants import constant_bytes
from .schema.enums import BuiltinOperator
from .schema.external import external_bytes
from .schema.opening import aligned, open_buffer, open_file
from .schema.parts import Operator, Part, Quantization, Signature, Subgraph, Tensor
from .schema.reader import Source, View
from .schema.tables import table
from .schema.verifier import verify

__all__ = ["Model", "Operator", "Quantization", "Signature", "Subgraph", "Tensor"]

_set = object.__setattr__


class Model(Part):
    """A .tflite model, verified. Make one with `Model.from_file` or `Model.from_buffer`.

    `packed` and `plans` are caches that interpreters on one model share.
    """

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_root",
        "associated_files",
        "buffer",
        "description",
        "metadata",
        "operator_codes",
        "packed",
        "path",
        "plans",
        "signatures",
        "source",
        "subgraphs",
        "version",
    )
    _root: View
    source: Source
    buffer: memoryview
    path: str | bytes | None
    version: int
    description: str
    operator_codes: list[tuple[BuiltinOperator, str, int]]
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    metadata: dict[str, bytes]
    associated_files: Mapping[str, bytes]
    packed: dict[Any, Any]
    plans: dict[Any, Any]

    def __init__(self, array: np.ndarray, path: str | bytes | None = None) -> None:
        source = Source(array)
        check(source, verify(source))
        _set(self, "source", source)
        _set(self, "_root", source.root())
        _set(self, "buffer", source.bytes)
        _set(self, "path", path)
        _set(self, "packed", {})
        _set(self, "plans", {})

    @classmethod
    def from_file(cls, path: str | bytes | os.PathLike[Any]) -> Model:
        """Open a model file. ModelFileError if there is none, ModelError if it is damaged or no model."""
        array, name = open_file(path)
        return cls(array, name)

    @classmethod
    def from_buffer(cls, buffer: Any) -> Model:
        """A model from bytes, a bytearray, a memoryview, an mmap or a uint8 array. Only `bytes` are not copied."""
        return cls(open_buffer(buffer))

    def _load_version(self) -> int:
        return int(self._root.version)

    def _load_description(self) -> str:
        return self._root.description or ""

    def _load_operator_codes(self) -> list[tuple[BuiltinOperator, str, int]]:
        found = []
        for view in self._root.operator_codes or ():
            code = BuiltinOperator(max(view.deprecated_builtin_code, view.builtin_code))
            name = view.custom_code if code == BuiltinOperator.CUSTOM else code.name
            found.append((code, name, view.version))
        return found

    def _load__buffers(self) -> list[int]:
        return self._root.positions("buffers")

    def constant(self, buffer: int, alignment: int = 1) -> np.ndarray | None:
        """Bytes of a buffer as a read-only uint8 array, None if it has none; a copy only where the file misaligns
        them (old writers did)."""
        data = constant_bytes(self.source, View(self.source, table("Buffer"), self._buffers[buffer]))
        return None if data is None else aligned(data, alignment)

    def let_go(self) -> None:
        """Give the memory of a mapped file back to the system, until somebody looks at the file again."""
        let_go(self.source.array)

    def external_constant(self, tensor: Tensor) -> np.ndarray:
        """Bytes of a constant that the model keeps in another file beside its own."""
        return external_bytes(self._root, self.path, tensor)

    def _load_subgraphs(self) -> tuple[Subgraph, ...]:
        return tuple(Subgraph(self, index, view) for index, view in enumerate(self._root.subgraphs))

    def _load_signatures(self) -> tuple[Signature, ...]:
        found: dict[str, Signature] = {}
        for view in self._root.signature_defs or ():
            found.setdefault(view.signature_key, Signature(view))
        return tuple(found.values())

    def _load_metadata(self) -> dict[str, bytes]:
        entries: dict[str, bytes] = {}
        total = 0
        for view in self._root.metadata or ():
            data = self.constant(view.buffer)
            total += 0 if data is None else data.size
            if total > self.source.most_decoded:
                raise ModelError(f"The metadata entries overlap: {total} bytes in a file of {len(self.buffer)}")
            entries[view.name or ""] = b"" if data is None else data.tobytes()
        return entries

    def _load_associated_files(self) -> Mapping[str, bytes]:
        return AssociatedFiles(self.buffer)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (bytes(self.buffer), self.path)

    def __repr__(self) -> str:
        from .schema.describe import describe

        return describe(self)

    def _repr_html_(self) -> str:
        from .schema.describe import describe_html

        return describe_html(self)


def _restored(content: bytes, path: str | bytes | None) -> Model:
    """The model of a pickle: its bytes travel with it, whatever happens to the file."""
    return Model(open_buffer(content), path)
