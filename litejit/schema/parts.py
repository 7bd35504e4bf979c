"""The parts of a model: subgraphs, tensors, operators, signatures, as the file has them, immutable.

What every user of a part needs is decoded when the part is made, the rest when first asked for. Nothing is copied:
constants are views of the file's bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .enums import BuiltinOperator, TensorType
from .options import OPTIONS_OF
from .reader import View
from .tables import table

if TYPE_CHECKING:
    from ..model import Model

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


_set = object.__setattr__


class Part:
    """A part of a model: attributes are decoded by `_load_<name>` when first asked for, then kept; none can be set."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        load = getattr(type(self), "_load_" + name, None)
        if load is None:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        value = load(self)
        _set(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} objects are immutable")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} objects are immutable")

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Quantization(Part):
    """Affine quantisation of a tensor: real = scale * (stored - zero_point).

    `scales` float32 and `zero_points` int64 have one element, or one for each index of `dimension`. `min` and `max` are
    float32 arrays or None. `details` is the schema's CustomQuantization, BlockwiseQuantization or
    MultiAxisQuantization, or None; the latter two name *tensors* that hold scales and zero points.
    """

    __slots__ = ("details", "dimension", "max", "min", "scales", "zero_points")
    scales: np.ndarray
    zero_points: np.ndarray
    dimension: int
    min: np.ndarray | None
    max: np.ndarray | None
    details: View | None

    def __init__(self, view: View) -> None:
        _set(self, "scales", _or_empty(view.scale, np.float32))
        _set(self, "zero_points", _or_empty(view.zero_point, np.int64))
        _set(self, "dimension", view.quantized_dimension)
        _set(self, "min", view.min)
        _set(self, "max", view.max)
        _set(self, "details", view.details)

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


class Tensor(Part):
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
    _model: Model
    _view: View
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
        _set(self, "_model", model)
        _set(self, "_view", view)
        _set(self, "index", index)
        _set(self, "name", view.name or "")
        _set(self, "type", view.type)
        shape, signature = view.ints("shape"), view.ints("shape_signature")
        if shape and min(shape) < 0:  # happens in tensors of texts only; the verifier refuses others
            shape, signature = tuple(1 if extent < 0 else extent for extent in shape), signature or shape
        _set(self, "shape", shape)
        _set(self, "shape_signature", signature or None)
        _set(self, "has_rank", view.has_rank)
        _set(self, "is_variable", view.is_variable)
        _set(self, "buffer", view.buffer)

    def _load_dtype(self) -> np.dtype:
        return stored_dtype(self.type)

    def _load_sparsity(self) -> View | None:
        found: View | None = self._view.sparsity
        return found

    def _load_variant_tensors(self) -> tuple[View, ...] | None:
        found: tuple[View, ...] | None = self._view.variant_tensors
        return found

    def _load_external_buffer(self) -> int:
        found: int = self._view.external_buffer
        return found

    def _load_quantization(self) -> Quantization | None:
        view = self._view.quantization
        if view is None or (view.details is None and (view.scale is None or not view.scale.size)):
            return None
        return Quantization(view)

    def _load_data(self) -> np.ndarray | None:
        if self.external_buffer:
            return self._model.external_constant(self)
        return self._model.constant(self.buffer, min(self.dtype.itemsize, 8)) if self.buffer else None

    def __repr__(self) -> str:
        return f"Tensor({self.index}, {self.name!r}, {self.type.name}, {list(self.shape_signature or self.shape)})"


class Operator(Part):
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
    _model: Model
    _view: View
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
        code, name, version = model.operator_codes[view.opcode_index]
        _set(self, "_model", model)
        _set(self, "_view", view)
        _set(self, "index", index)
        _set(self, "code", code)
        _set(self, "name", name)
        _set(self, "version", version)
        _set(self, "is_custom", code == BuiltinOperator.CUSTOM)
        _set(self, "inputs", view.ints("inputs"))
        _set(self, "outputs", view.ints("outputs"))

    def _load_intermediates(self) -> tuple[int, ...]:
        return self._view.ints("intermediates")

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


class Subgraph(Part):
    """A graph of operators: `inputs` and `outputs` index `tensors`; operators are in the order of the file."""

    __slots__ = ("_model", "_view", "index", "inputs", "name", "operators", "outputs", "tensors")
    _model: Model
    _view: View
    index: int
    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def __init__(self, model: Model, index: int, view: View) -> None:
        _set(self, "_model", model)
        _set(self, "_view", view)
        _set(self, "index", index)
        _set(self, "name", view.name or "")
        _set(self, "inputs", view.ints("inputs"))
        _set(self, "outputs", view.ints("outputs"))

    def _load_tensors(self) -> tuple[Tensor, ...]:
        model, declared = self._model, table("Tensor")
        positions = enumerate(self._view.positions("tensors"))
        return tuple(Tensor(model, index, View(model.source, declared, at)) for index, at in positions)

    def _load_operators(self) -> tuple[Operator, ...]:
        model, declared = self._model, table("Operator")
        positions = enumerate(self._view.positions("operators"))
        return tuple(Operator(model, index, View(model.source, declared, at)) for index, at in positions)

    def __repr__(self) -> str:
        sizes = f"{len(self.tensors)} tensors, {len(self.operators)} operators"
        return f"Subgraph({self.index}, {self.name!r}, {sizes}, {list(self.inputs)} -> {list(self.outputs)})"


class Signature(Part):
    """A named entry: tensors of one subgraph by name, names in byte-wise order."""

    __slots__ = ("inputs", "key", "outputs", "subgraph")
    key: str
    subgraph: int
    inputs: dict[str, int]
    outputs: dict[str, int]

    def __init__(self, view: View) -> None:
        _set(self, "key", view.signature_key)
        _set(self, "subgraph", view.subgraph_index)
        _set(self, "inputs", _sorted_map(view.inputs))
        _set(self, "outputs", _sorted_map(view.outputs))

    def __repr__(self) -> str:
        return f"Signature({self.key!r}, subgraph {self.subgraph}, {self.inputs} -> {self.outputs})"


def _sorted_map(maps: tuple[View, ...] | None) -> dict[str, int]:
    pairs = [(view.name, view.tensor_index) for view in maps or ()]
    return dict(sorted(pairs, key=lambda pair: pair[0].encode("utf-8", "surrogatepass")))
