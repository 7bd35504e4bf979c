"""Model: the immutable view of a .tflite file, shared by all interpreters made from it.

A model is verified as a whole when it is made (`schema.verifier`, `schema.checks`); its parts are decoded when first
asked for, and constants are views of the file's bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from .schema.associated import AssociatedFiles
from .schema.checks import check
from .schema.constants import constant_bytes
from .schema.enums import BuiltinOperator, TensorType
from .schema.opening import open_buffer, open_file
from .schema.options import OPTIONS_OF
from .schema.reader import Source, View
from .schema.tables import table
from .schema.verifier import verify

_NUMPY = {
    TensorType.FLOAT32: "f4",
    TensorType.FLOAT16: "f2",
    TensorType.INT32: "i4",
    TensorType.UINT8: "u1",
    TensorType.INT64: "i8",
    TensorType.STRING: "O",
    TensorType.BOOL: "?",
    TensorType.INT16: "i2",
    TensorType.COMPLEX64: "c8",
    TensorType.INT8: "i1",
    TensorType.FLOAT64: "f8",
    TensorType.COMPLEX128: "c16",
    TensorType.UINT64: "u8",
    TensorType.RESOURCE: "O",
    TensorType.VARIANT: "O",
    TensorType.UINT32: "u4",
    TensorType.UINT16: "u2",
    TensorType.INT4: "u1",
    TensorType.INT2: "u1",
    TensorType.UINT4: "u1",
    TensorType.FLOAT8_E4M3FN: "i1",
    TensorType.FLOAT8_E5M2: "i1",
}
_DTYPES = {type_: np.dtype(name) for type_, name in _NUMPY.items()}


def stored_dtype(type_: TensorType) -> np.dtype:
    """NumPy dtype of one stored element: packed types (INT4, UINT4, INT2) are uint8, the float8 types int8."""
    found = _DTYPES.get(type_)
    if found is None:  # BFLOAT16: importing ml_dtypes takes longer than reading a model
        import ml_dtypes

        found = _DTYPES[type_] = np.dtype(ml_dtypes.bfloat16)
    return found


class _Part:
    """A part of a model: attributes are decoded by `_load_<name>` when first asked for, then kept; none can be set."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        load = getattr(type(self), "_load_" + name, None)
        if load is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = load(self)
        object.__setattr__(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} objects are immutable")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Quantization(_Part):
    """Affine quantisation of a tensor: real = scale * (stored - zero_point).

    `scales` float32 and `zero_points` int64 have one element, or one for each index of `dimension`. `min` and `max` are
    float32 arrays or None. `details` is the schema's CustomQuantization, BlockwiseQuantization or
    MultiAxisQuantization, or None; the latter two name *tensors* that hold scales and zero points.
    """

    __slots__ = ("_view", "details", "dimension", "max", "min", "scales", "zero_points")
    scales: np.ndarray
    zero_points: np.ndarray
    dimension: int
    min: np.ndarray | None
    max: np.ndarray | None
    details: View | None

    def __init__(self, view: View) -> None:
        self._set(_view=view, details=view.details)

    def _load_scales(self) -> np.ndarray:
        return _or_empty(self._view.scale, np.float32)

    def _load_zero_points(self) -> np.ndarray:
        return _or_empty(self._view.zero_point, np.int64)

    def _load_dimension(self) -> int:
        return self._view.quantized_dimension

    def _load_min(self) -> np.ndarray | None:
        return self._view.min

    def _load_max(self) -> np.ndarray | None:
        return self._view.max

    @property
    def per_channel(self) -> bool:
        """Whether there is a scale for each index of `dimension`."""
        return self.scales.size > 1

    def __repr__(self) -> str:
        if self.details is not None:
            return f"Quantization({self.details!r})"
        if self.per_channel:
            return f"Quantization(<{self.scales.size} scales>, dimension={self.dimension})"
        return f"Quantization(scale={self.scales[0]:.9g}, zero_point={self.zero_points[0]})"


def _or_empty(vector: np.ndarray | None, dtype: type) -> np.ndarray:
    return np.zeros(0, dtype) if vector is None else vector


class Tensor(_Part):
    """A tensor of a subgraph.

    `shape` has placeholders where `shape_signature` (None if the file has none) says -1. `data` holds the stored bytes
    of a constant as a read-only uint8 array, None if the tensor is none. `dtype` is that of one stored element.
    """

    __slots__ = (
        "_model",
        "_view",
        "buffer",
        "data",
        "dtype",
        "external_buffer",
        "has_rank",
        "index",
        "is_variable",
        "name",
        "quantization",
        "shape",
        "shape_signature",
        "sparsity",
        "type",
        "variant_tensors",
    )
    index: int
    name: str
    type: TensorType
    dtype: np.dtype
    shape: tuple[int, ...]
    shape_signature: tuple[int, ...] | None
    has_rank: bool
    is_variable: bool
    buffer: int
    quantization: Quantization | None
    sparsity: View | None
    variant_tensors: tuple[View, ...] | None
    external_buffer: int
    data: np.ndarray | None

    def __init__(self, model: Model, index: int, view: View) -> None:
        self._set(_model=model, _view=view, index=index)

    def __getattr__(self, name: str) -> Any:
        if name in _TENSOR_FIELDS:
            value = getattr(self._view, name)
            object.__setattr__(self, name, value)
            return value
        return _Part.__getattr__(self, name)

    def _load_name(self) -> str:
        return self._view.name or ""

    def _load_dtype(self) -> np.dtype:
        return stored_dtype(self.type)

    def _load_shape(self) -> tuple[int, ...]:
        return _ints(self._view.shape)

    def _load_shape_signature(self) -> tuple[int, ...] | None:
        signature = self._view.shape_signature
        return None if signature is None or not signature.size else tuple(signature.tolist())

    def _load_quantization(self) -> Quantization | None:
        view = self._view.quantization
        if view is None or (view.details is None and (view.scale is None or not view.scale.size)):
            return None
        return Quantization(view)

    def _load_data(self) -> np.ndarray | None:
        data = self._model._constant(self.buffer) if self.buffer else None
        if data is None or data.ctypes.data % min(self.dtype.itemsize, 8) == 0 or self.type == TensorType.STRING:
            return data
        return open_buffer(memoryview(data).tobytes())  # old writers did not align constants

    def __repr__(self) -> str:
        return f"Tensor({self.index}, {self.name!r}, {self.type.name}, {list(self.shape_signature or self.shape)})"


_TENSOR_FIELDS = frozenset(
    ("type", "buffer", "is_variable", "has_rank", "sparsity", "variant_tensors", "external_buffer")
)


def _ints(vector: np.ndarray | None) -> tuple[int, ...]:
    return () if vector is None else tuple(vector.tolist())


class Operator(_Part):
    """A node of a subgraph. `inputs` and `outputs` are tensor indices, -1 for an omitted one.

    `options` (`options_2` for operators whose options live in the schema's second union) has the schema's fields as
    attributes; None when the file has no options, or those of another operator. `name` is that of the operator code,
    or the custom code of a custom operator.
    """

    __slots__ = (
        "_model",
        "_view",
        "code",
        "custom_options",
        "index",
        "inputs",
        "intermediates",
        "is_custom",
        "mutating_variable_inputs",
        "name",
        "options",
        "options_2",
        "outputs",
        "version",
    )
    index: int
    code: BuiltinOperator
    name: str
    is_custom: bool
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...]
    mutating_variable_inputs: tuple[bool, ...]
    options: View | None
    options_2: View | None
    custom_options: bytes

    def __init__(self, model: Model, index: int, view: View) -> None:
        code, name, version = model._operator_codes[view.opcode_index]
        self._set(_model=model, _view=view, index=index, code=code, name=name, version=version)

    def _load_is_custom(self) -> bool:
        return self.code == BuiltinOperator.CUSTOM

    def _load_inputs(self) -> tuple[int, ...]:
        return _ints(self._view.inputs)

    def _load_outputs(self) -> tuple[int, ...]:
        return _ints(self._view.outputs)

    def _load_intermediates(self) -> tuple[int, ...]:
        return _ints(self._view.intermediates)

    def _load_mutating_variable_inputs(self) -> tuple[bool, ...]:
        found = self._view.mutating_variable_inputs
        return () if found is None else tuple(found.tolist())

    def _load_options(self) -> View | None:
        return self._own(self._view.builtin_options)

    def _load_options_2(self) -> View | None:
        return self._own(self._view.builtin_options_2)

    def _own(self, options: View | None) -> View | None:
        return options if options is not None and options.table == OPTIONS_OF.get(self.code) else None

    def _load_custom_options(self) -> bytes:
        view = self._view
        start = view.large_custom_options_offset
        if start > 1:
            return bytes(self._model.buffer[start : start + view.large_custom_options_size])
        found = view.custom_options
        return b"" if found is None else found.tobytes()

    def __repr__(self) -> str:
        return f"Operator({self.index}, {self.name}, {list(self.inputs)} -> {list(self.outputs)})"


class Subgraph(_Part):
    """A graph of operators: `inputs` and `outputs` index `tensors`; operators are in the order of the file."""

    __slots__ = ("_model", "_view", "index", "inputs", "name", "operators", "outputs", "tensors")
    index: int
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __init__(self, model: Model, index: int, view: View) -> None:
        self._set(_model=model, _view=view, index=index)

    def _load_name(self) -> str:
        return self._view.name or ""

    def _load_inputs(self) -> tuple[int, ...]:
        return _ints(self._view.inputs)

    def _load_outputs(self) -> tuple[int, ...]:
        return _ints(self._view.outputs)

    def _load_tensors(self) -> tuple[Tensor, ...]:
        source, kind = self._model._source, table("Tensor")
        found = enumerate(self._view.positions("tensors"))
        return tuple(Tensor(self._model, index, View(source, kind, at)) for index, at in found)

    def _load_operators(self) -> tuple[Operator, ...]:
        source, kind = self._model._source, table("Operator")
        found = enumerate(self._view.positions("operators"))
        return tuple(Operator(self._model, index, View(source, kind, at)) for index, at in found)

    def __repr__(self) -> str:
        sizes = f"{len(self.tensors)} tensors, {len(self.operators)} operators"
        return f"Subgraph({self.index}, {self.name!r}, {sizes}, {list(self.inputs)} -> {list(self.outputs)})"


class Signature(_Part):
    """A named entry: tensors of one subgraph by name, names in byte-wise order."""

    __slots__ = ("inputs", "key", "outputs", "subgraph")
    key: str
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]

    def __init__(self, view: View) -> None:
        self._set(
            key=view.signature_key,
            subgraph=view.subgraph_index,
            inputs=_sorted_map(view.inputs),
            outputs=_sorted_map(view.outputs),
        )

    def __repr__(self) -> str:
        return f"Signature({self.key!r}, subgraph {self.subgraph}, {self.inputs} -> {self.outputs})"


def _sorted_map(maps: tuple[View, ...] | None) -> dict[str, int]:
    pairs = [(view.name, view.tensor_index) for view in maps or ()]
    return dict(sorted(pairs, key=lambda pair: pair[0].encode("utf-8", "surrogatepass")))


class Model(_Part):
    """A .tflite model, verified. Make one with `Model.from_file` or `Model.from_buffer`.

    `packed` and `plans` are caches that interpreters on one model share.
    """

    __slots__ = (
        "__weakref__",
        "_buffers",
        "_operator_codes",
        "_root",
        "_source",
        "associated_files",
        "buffer",
        "description",
        "metadata",
        "packed",
        "path",
        "plans",
        "signatures",
        "subgraphs",
        "version",
    )
    buffer: memoryview
    path: str | bytes | None
    version: int
    description: str
    subgraphs: tuple[Subgraph, ...]
    signatures: tuple[Signature, ...]
    metadata: dict[str, bytes]
    associated_files: Mapping[str, bytes]
    packed: dict[Any, Any]
    plans: dict[Any, Any]

    def __init__(self, array: np.ndarray, path: str | bytes | None = None) -> None:
        source = Source(array)
        check(source, verify(array))
        self._set(_source=source, _root=source.root(), buffer=source.bytes, path=path, packed={}, plans={})

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
        return self._root.version

    def _load_description(self) -> str:
        return self._root.description or ""

    def _load__operator_codes(self) -> list[tuple[BuiltinOperator, str, int]]:
        found = []
        for view in self._root.operator_codes or ():
            code = BuiltinOperator(max(view.deprecated_builtin_code, view.builtin_code))
            name = view.custom_code if code == BuiltinOperator.CUSTOM else code.name
            found.append((code, name, view.version))
        return found

    def _load__buffers(self) -> list[int]:
        return self._root.positions("buffers")

    def _constant(self, buffer: int) -> np.ndarray | None:
        return constant_bytes(self._source, View(self._source, table("Buffer"), self._buffers[buffer]))

    def _load_subgraphs(self) -> tuple[Subgraph, ...]:
        return tuple(Subgraph(self, index, view) for index, view in enumerate(self._root.subgraphs))

    def _load_signatures(self) -> tuple[Signature, ...]:
        found: dict[str, Signature] = {}
        for view in self._root.signature_defs or ():
            found.setdefault(view.signature_key, Signature(view))
        return tuple(found.values())

    def _load_metadata(self) -> dict[str, bytes]:
        entries = {}
        for view in self._root.metadata or ():
            data = self._constant(view.buffer)
            entries[view.name or ""] = b"" if data is None else data.tobytes()
        return entries

    def _load_associated_files(self) -> Mapping[str, bytes]:
        return AssociatedFiles(self.buffer)

    def __reduce__(self) -> tuple[Any, ...]:
        return Model.from_buffer, (bytes(self.buffer),)

    def __repr__(self) -> str:
        from .schema.describe import describe

        return describe(self)

    def _repr_html_(self) -> str:
        from .schema.describe import describe_html

        return describe_html(self)
