"""The graph that the passes work on: Values (tensors) and Nodes (operators), with shapes and constants as known so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from litejit.errors import LiteJitError

# short names as in the operator tables: (TFLite's name, NumPy dtype of an element as kernels see it, bytes)
TYPES: dict[str, tuple[str, str, int]] = {
    "f32": ("FLOAT32", "float32", 4),
    "f16": ("FLOAT16", "float16", 2),
    "bf16": ("BFLOAT16", "bfloat16", 2),
    "f64": ("FLOAT64", "float64", 8),
    "i8": ("INT8", "int8", 1),
    "u8": ("UINT8", "uint8", 1),
    "i16": ("INT16", "int16", 2),
    "u16": ("UINT16", "uint16", 2),
    "i32": ("INT32", "int32", 4),
    "u32": ("UINT32", "uint32", 4),
    "i64": ("INT64", "int64", 8),
    "u64": ("UINT64", "uint64", 8),
    "bool": ("BOOL", "bool", 1),
    "c64": ("COMPLEX64", "complex64", 8),
    "c128": ("COMPLEX128", "complex128", 16),
    "i4": ("INT4", "int8", 1),
    "u4": ("UINT4", "uint8", 1),
    "i2": ("INT2", "int8", 1),
    "str": ("STRING", "object", 0),
    "resource": ("RESOURCE", "object", 0),
    "variant": ("VARIANT", "object", 0),
    "f8e4": ("FLOAT8_E4M3FN", "int8", 1),
    "f8e5": ("FLOAT8_E5M2", "int8", 1),
}
SHORT = {long: short for short, (long, _, _) in TYPES.items()}
QUANTISED = frozenset(("i8", "u8", "i16", "i4", "u4", "i2"))
Q_RANGE = {
    "i8": (-128, 127),
    "u8": (0, 255),
    "i16": (-32768, 32767),
    "i4": (-8, 7),
    "u4": (0, 15),
    "i2": (-2, 1),
    "i32": (-(1 << 31), (1 << 31) - 1),
}


class PrepareError(LiteJitError):
    """An operator refuses a node; the planner adds which node it was."""


class DynamicShape(LiteJitError):
    """A shape depends on values that are known only while running."""


class Value:
    """A tensor of the graph. Sub-byte types are held unpacked, one element per byte, everywhere in the plan."""

    __slots__ = (
        "data",
        "dimension",
        "index",
        "key",
        "name",
        "scales",
        "shape",
        "signature",
        "spec",
        "subgraph",
        "type",
        "variable",
        "zero_points",
    )

    def __init__(
        self,
        name: str,
        index: int,
        subgraph: int,
        type: str,
        shape: tuple[int, ...] | None,
        *,
        signature: tuple[int, ...] | None = None,
        scales: np.ndarray | None = None,
        zero_points: np.ndarray | None = None,
        dimension: int = 0,
        data: np.ndarray | None = None,
        variable: bool = False,
        key: Any = None,
        spec: Any = None,
    ) -> None:
        self.name, self.index, self.subgraph, self.type, self.shape = name, index, subgraph, type, shape
        self.signature, self.scales, self.zero_points, self.dimension = signature, scales, zero_points, dimension
        self.data = data  # constant: array of `dtype` and `shape`
        self.variable = variable  # is_variable: keeps its contents from run to run
        self.key = key  # names the constant's contents among all of the Model
        self.spec = spec  # the Model's tensor

    def derived(self, purpose: Any, data: np.ndarray, type: str = "") -> Value:
        """A constant made of this one for a purpose, which tells it from others: with its name and quantisation per tensor or
        per channel of the first dimension."""
        return Value(self.name, self.index, self.subgraph, type or self.type, data.shape, scales=self.scales,
                     zero_points=self.zero_points, data=data, key=(self.key, purpose), spec=self.spec)

    @property
    def folded(self) -> bool:
        """A constant that is not in the file: computed from others while planning."""
        return self.key is not None and self.key[0] == "folded"

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of an element as kernels see it."""
        name = TYPES[self.type][1]
        if name == "bfloat16":
            import ml_dtypes

            return np.dtype(ml_dtypes.bfloat16)
        return np.dtype(name)

    @property
    def rank(self) -> int:
        return len(self.dims)

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape; raises DynamicShape where it is not known."""
        if self.shape is None:
            raise DynamicShape(f"the shape of tensor {self.index} '{self.name}' is known only while running")
        return self.shape

    @property
    def size(self) -> int:
        """Elements."""
        n = 1
        for d in self.dims:
            n *= d
        return n

    @property
    def itemsize(self) -> int:
        return TYPES[self.type][2]

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def constant(self) -> bool:
        return self.data is not None

    @property
    def quantised(self) -> bool:
        """Has quantisation parameters."""
        return self.scales is not None and len(self.scales) > 0

    @property
    def per_channel(self) -> bool:
        return self.scales is not None and len(self.scales) > 1

    @property
    def scale(self) -> np.float32:
        """Scale of a per-tensor quantisation (0 if there is none)."""
        return np.float32(self.scales[0]) if self.quantised else np.float32(0)  # type: ignore[index]

    @property
    def zero_point(self) -> int:
        """Zero point of a per-tensor quantisation (0 if there is none)."""
        has = self.zero_points is not None and len(self.zero_points) > 0
        return int(self.zero_points[0]) if has else 0  # type: ignore[index]

    def __repr__(self) -> str:
        shape = "?" if self.shape is None else "x".join(map(str, self.shape)) or "scalar"
        return f"T{self.index} '{self.name}' {TYPES[self.type][0]}[{shape}]"


class Node:
    """An operator of the graph, with the helpers that `prepare` checks with."""

    __slots__ = (
        "bodies",
        "custom_options",
        "index",
        "inputs",
        "intermediates",
        "mean",
        "notes",
        "op",
        "operator",
        "options",
        "outputs",
        "pixel",
        "placed",
        "scale",
        "spec",
        "subgraph",
        "tail",
        "version",
        "wide",
        "xnn",
    )

    def __init__(
        self,
        op: str,
        operator: Any,
        index: int,
        subgraph: int,
        inputs: Iterable[Value | None],
        outputs: Iterable[Value],
        options: Any = None,
        custom_options: bytes = b"",
        version: int = 1,
        spec: Any = None,
        intermediates: Iterable[Value] = (),
    ) -> None:
        self.op, self.operator, self.index, self.subgraph = op, operator, index, subgraph
        self.inputs: tuple[Value | None, ...] = tuple(inputs)
        self.outputs: tuple[Value, ...] = tuple(outputs)
        self.intermediates: tuple[Value, ...] = tuple(intermediates)
        self.options, self.custom_options, self.version, self.spec = options, custom_options, version, spec
        self.xnn = False  # LiteRT's default mode gives this node to XNNPACK: use its formulas
        self.bodies: tuple[Any, ...] = ()  # graphs of control flow
        self.scale: Any = None  # ops/float_product.py: `Scale` of the weights, made while running
        self.tail: Any = None  # ops/tails.py: what is done with the output while it is in the cache
        self.mean: Value | None = None  # planner/fuse_mean.py: output 1, the mean of the pixels of output 0
        self.wide: Any = None  # planner/fuse_concat.py: `Wide`, where the output lies in a wider one
        self.pixel = 0  # the same: bytes from pixel to pixel of input 0, where that lies in a wider one
        self.placed: frozenset[int] = frozenset()  # planner/pieces.py: inputs (or outputs) that need no copy
        self.notes: list[str] = []  # what was fused into this node, for print(plan)

    def __getitem__(self, i: int) -> Value:
        """Input i, which must be there."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise PrepareError(f"input {i} is missing")
        return value

    def optional(self, i: int) -> Value | None:
        """Input i, or None where it is omitted."""
        return self.inputs[i] if i < len(self.inputs) else None

    @property
    def out(self) -> Value:
        return self.outputs[0]

    # ---- checks ----
    def fail(self, text: str) -> NoReturn:
        """Refuse the node."""
        raise PrepareError(text)

    def check(self, condition: Any, text: str | Callable[[], str]) -> None:
        """Refuse the node unless `condition` holds."""
        if not condition:
            raise PrepareError(text if isinstance(text, str) else text())

    def arity(self, inputs: int | tuple[int, int], outputs: int | tuple[int, int] = 1) -> None:
        """Numbers of inputs and outputs, exact or (least, most)."""
        for word, wanted, got in (("NumInputs", inputs, len(self.inputs)), ("NumOutputs", outputs, len(self.outputs))):
            least, most = wanted if isinstance(wanted, tuple) else (wanted, wanted)
            if not least <= got <= most:
                text = str(least) if least == most else f"{least}..{most}"
                raise PrepareError(f"{word}(node) != {text} ({got} != {text})")

    def types(self, value: Value, *allowed: str) -> None:
        """The type of a value must be one of the short names `allowed`."""
        if value.type not in allowed:
            names = ", ".join(TYPES[t][0] for t in allowed)
            raise PrepareError(
                f"type {TYPES[value.type][0]} of {value!r} is not supported by {self.op}; it takes {names}"
            )

    def same_type(self, a: Value, b: Value) -> None:
        if a.type != b.type:
            raise PrepareError(f"input1->type != input2->type ({TYPES[a.type][0]} != {TYPES[b.type][0]}): {a!r}, {b!r}")

    def constant(self, i: int) -> np.ndarray:
        """The contents of input i, which must be known while planning; raises DynamicShape otherwise."""
        value = self[i]
        if value.data is None:
            raise DynamicShape(
                f"the output shape of {self.op} depends on the contents of {value!r}, known only while running"
            )
        return value.data

    def __repr__(self) -> str:
        return f"node {self.index} {self.op}"

    def describe(self) -> str:
        """Where and what this node is, for error texts."""
        given = ", ".join("none" if v is None else repr(v) for v in self.inputs)
        made = ", ".join(map(repr, self.outputs))
        return f"subgraph {self.subgraph}, node {self.index} {self.op}({given}) -> {made}"


def refuse(node: Node, text: str, cause: BaseException | None = None) -> NoReturn:
    """Raise LiteJitError: the node cannot be prepared, and why."""
    text = text if text.endswith(".") else text + "."
    raise LiteJitError(f"{text} Node number {node.index} ({node.op}) failed to prepare. [{node.describe()}]") from cause


class Graph:
    """A subgraph in the making: values by tensor index, nodes in execution order."""

    __slots__ = ("index", "inputs", "model", "name", "nodes", "outputs", "values")

    def __init__(
        self,
        model: Any,
        index: int,
        name: str,
        values: list[Value],
        nodes: list[Node],
        inputs: tuple[Value, ...],
        outputs: tuple[Value, ...],
    ) -> None:
        self.model, self.index, self.name, self.values, self.nodes = model, index, name, values, nodes
        self.inputs, self.outputs = inputs, outputs
