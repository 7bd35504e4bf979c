"""Makes .tflite models in a few lines of Python; LiteRT accepts them.

builder = ModelBuilder("a dense layer")
graph = builder.subgraph("main")
x = graph.input("x", (1, 4))
w = graph.constant("w", numpy.ones((8, 4), "f"))
y = graph.add("FULLY_CONNECTED", [x, w, None], ("y", (1, 8)), fused_activation_function="RELU")
graph.outputs(y)
builder.signature("serving_default", graph, {"x": x}, {"y": y})
content = builder.build()
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any, SupportsIndex

import numpy as np

from ..errors import ModelError
from .enums import BuiltinOperator, TensorType
from .options import OPTIONS_OF
from .pack import Quant, Sparse, pack
from .tables import SCHEMA_VERSION, UNIONS, table
from .writer import check_field, choices, member, write

__all__ = ["ModelBuilder", "Quant", "Sparse", "SubgraphBuilder", "TensorRef"]

#: (name, shape), then type and Quant if they are not FLOAT32 and None.
OutSpec = Sequence[Any]


class TensorRef:
    """A tensor under construction; stands for its index in its subgraph."""

    __slots__ = ("index", "name", "tree")

    def __init__(self, number: int, tree: dict[str, Any]) -> None:
        self.index = number
        self.name: str = tree["name"]
        self.tree = tree

    def __index__(self) -> int:
        return self.index

    def __repr__(self) -> str:
        return f"TensorRef({self.index}, {self.name!r})"


class SubgraphBuilder:
    """One subgraph of a model under construction; stands for its index where operators name subgraphs."""

    def __init__(self, model: ModelBuilder, number: int, name: str) -> None:
        self._model = model
        self.index = number
        self.tree: dict[str, Any] = {"tensors": [], "inputs": [], "outputs": [], "operators": [], "name": name}

    def __index__(self) -> int:
        return self.index

    def tensor(
        self,
        name: str,
        shape: Sequence[int | None],
        type: TensorType | str = "FLOAT32",
        quantization: Quant | None = None,
        *,
        shape_signature: Sequence[int] | None = None,
        **fields: Any,
    ) -> TensorRef:
        """A tensor that is computed. -1 or None in `shape` means unknown: 1 there, -1 in the shape signature.

        Further fields are those of the schema's Tensor (`is_variable`, `has_rank`, ...).
        """
        known = [1 if extent in (-1, None) else index(extent) for extent in shape]  # type: ignore[arg-type]
        if shape_signature is None and -1 in [-1 if extent is None else extent for extent in shape]:
            shape_signature = [-1 if extent is None else extent for extent in shape]
        tree = {
            "shape": known,
            "type": TensorType(member(table("Tensor").fields["type"], type)),
            "name": name,
            "quantization": quantization.tree() if quantization else None,
            "shape_signature": None if shape_signature is None else list(shape_signature),
            **fields,
        }
        for field in fields:
            check_field(table("Tensor"), field)
        self.tree["tensors"].append(tree)
        return TensorRef(len(self.tree["tensors"]) - 1, tree)

    def input(self, name: str, shape: Sequence[int | None], *args: Any, **fields: Any) -> TensorRef:
        """A tensor (arguments as for `tensor`) that is the next input of the graph."""
        found = self.tensor(name, shape, *args, **fields)
        self.tree["inputs"].append(found.index)
        return found

    def variable(self, name: str, shape: Sequence[int | None], *args: Any, **fields: Any) -> TensorRef:
        """A tensor that keeps its value between calls, zeros at first."""
        return self.tensor(name, shape, *args, is_variable=True, **fields)

    def constant(
        self,
        name: str,
        value: Any,
        type: TensorType | str | None = None,
        quantization: Quant | None = None,
        *,
        sparsity: Sparse | None = None,
        **fields: Any,
    ) -> TensorRef:
        """A constant. The type is that of the array if not given; INT4, UINT4 and INT2 values are given one in an
        element and packed, float8 ones as int8 bit patterns; texts make a STRING tensor. With `sparsity` the given
        dense array is stored compressed."""
        array = np.asarray(value)
        stored = array
        if sparsity:
            stored, fields["sparsity"] = sparsity.compress(array)
        data, code = pack(stored, None if type is None else member(table("Tensor").fields["type"], type))
        fields["buffer"] = self._model.buffer(data)
        return self.tensor(name, array.shape, TensorType(code), quantization, **fields)

    def add(
        self,
        operator: BuiltinOperator | str,
        inputs: Sequence[SupportsIndex | None],
        out: OutSpec | TensorRef | list[OutSpec | TensorRef] = (),
        *,
        version: int = 1,
        node: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """A node. Inputs that are None are omitted (-1). `out` is (name, shape, type, Quant), or an existing tensor, or
        a list of these; returns the output tensor, or a list of them if `out` is a list. Options are named as in the
        schema, which also decides their union; `node` has further fields of the schema's Operator (`intermediates`,
        ...)."""
        code = _operator(operator)
        name = OPTIONS_OF.get(code)
        fields = dict(node or {})
        if name:
            for option in options:
                check_field(table(name), option)
            union = "builtin_options" if name in UNIONS["BuiltinOptions"] else "builtin_options_2"
            fields[union] = (name, options)
        elif options:
            raise ModelError(f"{code.name} has no options; got {', '.join(options)}")
        return self._node(self._model.operator_code(code, None, version), inputs, out, fields)

    def custom(
        self,
        name: str,
        inputs: Sequence[SupportsIndex | None],
        out: OutSpec | TensorRef | list[OutSpec | TensorRef] = (),
        options: bytes = b"",
        *,
        version: int = 1,
        node: Mapping[str, Any] | None = None,
    ) -> Any:
        """A custom operator; its options are bytes (a flexbuffer by convention). Otherwise as `add`."""
        fields = {"custom_options": options or None, **(node or {})}
        return self._node(self._model.operator_code(BuiltinOperator.CUSTOM, name, version), inputs, out, fields)

    def _node(self, code: int, inputs: Sequence[Any], out: Any, fields: dict[str, Any]) -> Any:
        several = isinstance(out, list)
        specs = out if several else [out] if isinstance(out, TensorRef) or out else []
        outputs = [spec if isinstance(spec, TensorRef) else self.tensor(*spec) for spec in specs]
        node = {
            "opcode_index": code,
            "inputs": [-1 if tensor is None else index(tensor) for tensor in inputs],
            "outputs": [tensor.index for tensor in outputs],
            **fields,
        }
        self.tree["operators"].append(node)
        return outputs if several else outputs[0] if outputs else None

    def inputs(self, *tensors: SupportsIndex) -> None:
        """Set the inputs of the graph, in place of those that `input` collected."""
        self.tree["inputs"] = [index(tensor) for tensor in tensors]

    def outputs(self, *tensors: SupportsIndex) -> None:
        """Set the outputs of the graph."""
        self.tree["outputs"] = [index(tensor) for tensor in tensors]


class ModelBuilder:
    """A model under construction; `tree` is what `writer.write` will be given."""

    def __init__(self, description: str = "made by litejit") -> None:
        self.tree: dict[str, Any] = {
            "version": SCHEMA_VERSION,
            "operator_codes": [],
            "subgraphs": [],
            "description": description,
            "buffers": [{}],  # number 0: of tensors without a constant
            "metadata": [],
            "signature_defs": [],
        }
        self._codes: dict[tuple[int, str | None, int], int] = {}
        self._files: dict[str, bytes] = {}

    def subgraph(self, name: str = "main") -> SubgraphBuilder:
        """A new subgraph; the first one is the model's main graph."""
        graph = SubgraphBuilder(self, len(self.tree["subgraphs"]), name)
        self.tree["subgraphs"].append(graph.tree)
        return graph

    def buffer(self, data: bytes | np.ndarray) -> int:
        """A new buffer with the bytes of a constant; returns its number."""
        self.tree["buffers"].append({"data": data})
        return len(self.tree["buffers"]) - 1

    def operator_code(self, code: BuiltinOperator, custom_code: str | None, version: int) -> int:
        """Number of an operator code, declared when it is new."""
        key = (int(code), custom_code, version)
        if key not in self._codes:
            self._codes[key] = len(self._codes)
            placeholder = int(BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
            self.tree["operator_codes"].append(
                {
                    "deprecated_builtin_code": min(int(code), placeholder),  # what readers before schema 3a look at
                    "custom_code": custom_code,
                    "version": version,
                    "builtin_code": int(code),
                }
            )
        return self._codes[key]

    def signature(
        self,
        key: str,
        subgraph: SupportsIndex = 0,
        inputs: Mapping[str, SupportsIndex] | None = None,
        outputs: Mapping[str, SupportsIndex] | None = None,
    ) -> None:
        """A signature of a subgraph; by default all its inputs and outputs under their tensors' names."""
        graph = self.tree["subgraphs"][index(subgraph)]
        maps = {}
        for side, given in (("inputs", inputs), ("outputs", outputs)):
            if given is None:
                given = {graph["tensors"][number]["name"]: number for number in graph[side]}
            maps[side] = [{"name": name, "tensor_index": index(tensor)} for name, tensor in given.items()]
        self.tree["signature_defs"].append({**maps, "signature_key": key, "subgraph_index": index(subgraph)})

    def metadata(self, name: str, data: bytes) -> None:
        """A metadata entry."""
        self.tree["metadata"].append({"name": name, "buffer": self.buffer(data)})

    def associated_file(self, name: str, data: bytes) -> None:
        """A file that travels with the model, in a ZIP archive at its end."""
        self._files[name] = data

    def build(self, *, constants_outside: bool = False) -> bytes:
        """The file. `constants_outside` puts constants behind the flatbuffer, as files above 2 GB need it."""
        content = _outside(self.tree) if constants_outside else write(self.tree)
        if not self._files:
            return content
        stream = io.BytesIO()
        stream.write(content)
        with zipfile.ZipFile(stream, "a") as archive:
            for name, data in self._files.items():
                archive.writestr(zipfile.ZipInfo(name), data)  # without a date: equal models, equal bytes
        return stream.getvalue()


def _operator(operator: BuiltinOperator | str) -> BuiltinOperator:
    if isinstance(operator, str):
        if operator not in BuiltinOperator.__members__:
            near = choices(operator, list(BuiltinOperator.__members__))
            raise ModelError(f"There is no operator {operator!r}; {near}. Custom operators are added with `custom`")
        return BuiltinOperator[operator]
    return BuiltinOperator(operator)


def _outside(tree: Mapping[str, Any]) -> bytes:
    """The flatbuffer with buffers that only tell offset and size, then the constants at multiples of 16 bytes."""
    constants = [np.frombuffer(buffer.get("data", b""), np.uint8) for buffer in tree["buffers"]]

    def flatbuffer(start: int) -> tuple[bytes, list[int]]:
        offsets, buffers = [], []
        for data in constants:
            offsets.append(start)
            buffers.append({"offset": start, "size": data.size} if data.size else {})
            start += -(-data.size // 16) * 16
        return write({**tree, "buffers": buffers}), offsets

    size = len(flatbuffer(16)[0])  # does not depend on the offsets
    content, offsets = flatbuffer(-(-size // 16) * 16)
    parts = [content]
    length = len(content)
    for offset, data in zip(offsets, constants, strict=True):
        parts += [b"\0" * (offset - length), data.tobytes()] if data.size else []
        length = offset + data.size if data.size else length
    return b"".join(parts)
