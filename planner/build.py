"""Pass 1, resolve: a Model's subgraph becomes a Graph of Values and Nodes; every missing operator is named at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from litejit.errors import LiteJitError, UnresolvedCustomOperator, UnsupportedOperators
from litejit.ops.table import TABLE, operator
from litejit.planner.graph import SHORT, TYPES, Graph, Node, Value
from litejit.schema.enums import BuiltinOperator
from litejit.schema.options import OPTIONS_OF
from litejit.schema.tables import table

MAX_BODIES = 1000  # of control flow, laid out: bodies within bodies may multiply


def missing_operators(model: Any, custom: dict[str, Any] | None = None) -> tuple[list[str], list[str]]:
    """(builtin operators or versions that litejit lacks, unresolved custom operators) of a whole model, each once."""
    builtins: dict[str, None] = {}
    customs: dict[str, None] = {}
    for graph in model.subgraphs:
        for op in graph.operators:
            if op.is_custom:
                if op.name not in (custom or {}):
                    customs[op.name] = None
                continue
            row = TABLE.get(op.name)
            if row is None or operator(op.name) is None:
                builtins[op.name] = None
            elif not row.versions[0] <= op.version <= row.versions[1]:
                builtins[f"{op.name} version {op.version} (known: {row.versions[0]} to {row.versions[1]})"] = None
    return list(builtins), list(customs)


def refuse_missing_builtins(model: Any, custom: dict[str, Any] | None = None) -> None:
    """Raise UnsupportedOperators naming every builtin (and custom) operator that cannot run, if a builtin is missing."""
    builtins, customs = missing_operators(model, custom)
    if builtins:
        first = builtins[0].split(" version ")[0]
        text = (
            f"Didn't find op for builtin opcode '{first}'. Registration failed. Operators of this model that "
            f"litejit does not support yet: {', '.join(builtins)}"
        )
        if customs:
            text += f"; custom operators that nobody registered: {', '.join(customs)}"
        raise UnsupportedOperators(text + ".", tuple(builtins + customs))


def refuse_missing_customs(model: Any, custom: dict[str, Any] | None = None) -> None:
    """Raise UnresolvedCustomOperator naming every custom operator of the model that nobody registered."""
    _, customs = missing_operators(model, custom)
    if not customs:
        return
    name = customs[0]
    index = next(op.index for g in model.subgraphs for op in g.operators if op.is_custom and op.name == name)
    if any(c.startswith("Flex") for c in customs):
        text = "Select TensorFlow op(s), included in the given model, is(are) not supported by this interpreter."
    else:
        text = f"Encountered unresolved custom op: {name}."
    raise UnresolvedCustomOperator(
        f"{text} Unresolved: {', '.join(customs)}. Node number {index} ({name}) failed to prepare.", tuple(customs)
    )


def build_graph(model: Any, index: int, built: list[int] | None = None) -> Graph:
    """The Graph of subgraph `index`; bodies of control flow are built into their nodes. `built` collects subgraphs."""
    built = [] if built is None else built
    built.append(index)
    if len(built) > MAX_BODIES:
        raise LiteJitError(f"subgraph {index}: control flow has more than {MAX_BODIES} bodies when it is laid out")
    source = model.subgraphs[index]
    values = [_value(model, source, spec) for spec in source.tensors]
    for i in (*source.inputs, *source.outputs):
        _refuse_type(values[i], f"subgraph {index}", HELD_NOWHERE)
    nodes = [_node(model, source, values, op, built) for op in source.operators]
    return Graph(
        model,
        index,
        source.name,
        values,
        _in_order(nodes, values, source),
        tuple(values[i] for i in source.inputs),
        tuple(values[i] for i in source.outputs),
    )


def _value(model: Any, source: Any, spec: Any) -> Value:
    short = SHORT[spec.type.name]
    quantization = spec.quantization
    data = constant_array(spec, short) if spec.data is not None and not spec.is_variable else None
    return Value(
        spec.name,
        spec.index,
        source.index,
        short,
        tuple(spec.shape),
        signature=spec.shape_signature,
        scales=None if quantization is None or not len(quantization.scales) else quantization.scales,
        zero_points=None if quantization is None or not len(quantization.scales) else quantization.zero_points,
        dimension=0 if quantization is None else quantization.dimension,
        data=data,
        variable=bool(spec.is_variable),
        key=("buffer", spec.buffer, short, tuple(spec.shape)) if data is not None else None,
        spec=spec,
    )


def constant_array(spec: Any, short: str) -> np.ndarray | None:
    """The contents of a constant tensor, sub-byte types unpacked; None for strings and sparse tensors."""
    if short in ("str", "resource", "variant") or spec.sparsity is not None:
        return None
    count = 1
    for d in spec.shape:
        count *= d
    raw = np.frombuffer(spec.data, np.uint8) if not isinstance(spec.data, np.ndarray) else spec.data
    if short in ("i4", "u4", "i2"):
        return unpack(raw, short, count).reshape(spec.shape)
    dtype = Value("", 0, 0, short, ()).dtype
    return raw[: count * dtype.itemsize].view(dtype).reshape(spec.shape)


def unpack(raw: np.ndarray, short: str, count: int) -> np.ndarray:
    """One element per byte of packed i4, u4 (low nibble first) or i2 (low bits first)."""
    bits = 2 if short == "i2" else 4
    per, mask = 8 // bits, (1 << bits) - 1
    raw = raw[: -(-count // per)]
    parts = np.stack([(raw >> (bits * k)) & mask for k in range(per)], axis=-1).ravel()[:count]
    if short == "u4":
        return parts.astype(np.uint8)
    half = 1 << (bits - 1)
    return ((parts.astype(np.int16) ^ half) - half).astype(np.int8)


class DefaultOptions:
    """Options that a file leaves out: every field has the schema's default."""

    __slots__ = ("_fields",)

    def __init__(self, name: str) -> None:
        self._fields = table(name).fields

    def __getattr__(self, name: str) -> Any:
        if name not in self._fields:
            raise AttributeError(name)
        field = self._fields[name]
        return None if field.vector else field.default


def _options(op: Any) -> Any:
    if op.options is not None:
        return op.options
    if op.options_2 is not None:
        return op.options_2
    name = None if op.is_custom else OPTIONS_OF.get(BuiltinOperator(op.code))
    return DefaultOptions(name) if name else None


HELD_NOWHERE = ("str", "resource", "variant")


def _refuse_type(value: Value, where: str, types: tuple[str, ...]) -> None:
    if value.type in types:
        raise LiteJitError(f"{where}: {TYPES[value.type][0]} tensors are not supported yet ({value!r})")


BODIES = {"WHILE": ("cond_subgraph_index", "body_subgraph_index"), "IF": ("then_subgraph_index", "else_subgraph_index")}


def _node(model: Any, source: Any, values: list[Value], op: Any, built: list[int]) -> Node:
    options = _options(op)
    node = Node(
        op.name,
        operator(op.name),
        op.index,
        source.index,
        (None if i < 0 else values[i] for i in op.inputs),
        (values[i] for i in op.outputs),
        options,
        bytes(op.custom_options or b""),
        op.version,
        op,
        (values[i] for i in op.intermediates or () if i >= 0),
    )
    for value in (*node.inputs, *node.outputs):
        if value is not None:
            _refuse_type(value, node.describe(), (*HELD_NOWHERE, "c128", "f8e4", "f8e5"))
    node.bodies = tuple(build_graph(model, getattr(options, field), built) for field in BODIES.get(op.name, ()))
    return node


def _in_order(nodes: list[Node], values: list[Value], source: Any) -> list[Node]:
    """Nodes in execution order: the file's, where that is one, else sorted by what they read."""
    known = {id(values[i]) for i in source.inputs}
    known.update(id(v) for v in values if v.data is not None or v.variable or v.spec.data is not None)
    made_later = {id(v) for node in nodes for v in node.outputs}
    waiting, done = list(nodes), []
    while waiting:
        rest = []
        for node in waiting:
            if all(v is None or id(v) in known or id(v) not in made_later for v in node.inputs):
                done.append(node)
                known.update(id(v) for v in node.outputs)
            else:
                rest.append(node)
        if len(rest) == len(waiting):
            raise LiteJitError(
                f"{rest[0].describe()}: the operators of subgraph {source.index} depend on each other in a circle"
            )
        waiting = rest
    return done
