"""Checks that a well-formed flatbuffer is a consistent model: versions, indices, shapes, sizes, quantisation.

Runs on the columns that the verifier leaves, a check for all tables of a kind at once. The errors keep the original
runtime's distinctive words, and refuse as well what it accepts and crashes on later: graph outputs of -1, indices out
of range in graphs, operators, signatures and control flow, subgraphs that call themselves.
"""

from __future__ import annotations

import numpy as np

from ..errors import ModelError
from .constants import check_sparsity, check_strings
from .enums import BuiltinOperator, TensorType
from .facts import BITS, Facts, constant_sizes, element_counts
from .reader import Source
from .tables import SCHEMA_VERSION, UNIONS, table
from .verifier import Column, Columns

#: Tensors from here on could not be addressed on any machine; what is below cannot overflow 64 bits in kernels.
MOST_BYTES = 2.0**48


def check(source: Source, columns: dict[str, Columns]) -> None:
    """Run all checks in the order of the original runtime; ModelError on the first that fails."""
    facts = Facts(source, columns)
    _check_version(facts)
    _check_operator_codes(facts)
    if not facts.subgraphs:
        raise ModelError("No subgraph in the model.")
    _check_buffers(facts)
    _check_graphs(facts)
    if facts.rows("Tensor"):
        _check_tensors(facts)
        _check_quantization(facts)
        _check_details(facts)
    if facts.rows("Operator"):
        _check_operators(facts)
    _check_calls(facts)
    _check_signatures(facts)


def _check_version(facts: Facts) -> None:
    version = int(facts.values("Model", "version")[0])
    if version != SCHEMA_VERSION:
        raise ModelError(f"Model provided is schema version {version} not equal to supported version {SCHEMA_VERSION}.")


def _check_operator_codes(facts: Facts) -> None:
    if not facts.rows("OperatorCode"):
        return
    new = facts.values("OperatorCode", "builtin_code")
    code = np.maximum(facts.values("OperatorCode", "deprecated_builtin_code"), new)
    known = (new >= 0) & (code < len(BuiltinOperator))
    if not known.all():
        bad = int(np.where(new < 0, new, code)[np.argmin(known)])
        raise ModelError(
            f"Op builtin_code out of range: {bad}. Are you using old TFLite binary with newer model? "
            f"Registration failed. (litejit knows 0 to {len(BuiltinOperator) - 1})"
        )
    name = facts.column("OperatorCode", "custom_code")
    named = name.position != 0 if name else np.zeros(code.size, bool)
    bad = (code == BuiltinOperator.CUSTOM) & ~named
    if bad.any():
        raise ModelError(
            "Operator with CUSTOM builtin_code has no custom_code. Registration failed. "
            f"(operator code {np.argmax(bad)} of the file)"
        )


def _check_buffers(facts: Facts) -> None:
    if not facts.column("Model", "buffers"):
        raise ModelError("No buffers in the model.")
    if facts.buffers:
        _check_outside(facts, "Buffer", "offset", "size", "Constant buffer")
    if facts.rows("Operator"):
        _check_outside(
            facts, "Operator", "large_custom_options_offset", "large_custom_options_size", "Custom options of operator"
        )
    if facts.rows("Metadata"):
        _check_range(facts.values("Metadata", "buffer"), facts.buffers, "Metadata", "specifies out of range buffer")


def _check_range(index: np.ndarray, limit: int, what: str, problem: str) -> None:
    bad = (index < 0) | (index >= limit)
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(f"{what} {row} {problem} {index[row]} (only {limit}).")


def _check_outside(facts: Facts, name: str, offset: str, size: str, what: str) -> None:
    """Bytes outside the flatbuffer (offset above 1) are inside the file."""
    if not facts.column(name, offset):
        return
    start = facts.values(name, offset).view(np.uint64)
    count = facts.values(name, size).view(np.uint64)
    length = np.uint64(facts.source.array.size)
    bad = (start > 1) & ((start > length) | (count > length - np.minimum(start, length)))
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(
            f"{what} {row} specified an out of range offset: {count[row]} bytes at {start[row]} "
            f"in a file of {length} bytes"
        )
    if name == "Operator" and count.astype(np.float64).sum() > facts.source.most_decoded:
        raise ModelError(f"The custom options of its operators overlap: {count.sum()} bytes in a file of {length}")


def _check_graphs(facts: Facts) -> None:
    tensors = facts.column("SubGraph", "tensors")
    missing = tensors.position == 0 if tensors else np.ones(facts.subgraphs, bool)
    if missing.any():
        raise ModelError(f"Did not get tensors in subgraph {np.argmax(missing)}.")
    for field in ("inputs", "outputs"):
        subgraph, index = facts.ints("SubGraph", field)
        bad = (index < 0) | (index >= facts.tensor_count[subgraph])
        if bad.any():
            at = int(np.argmax(bad))
            raise ModelError(
                f"Invalid tensor index {index[at]} in graph {field} of subgraph {subgraph[at]}. "
                f"The subgraph has {facts.tensor_count[subgraph[at]]} tensors"
            )


def _check_operators(facts: Facts) -> None:
    code = facts.values("Operator", "opcode_index")
    bad = code >= facts.rows("OperatorCode")
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(
            f"Missing registration for opcode_index {code[row]}: {facts.operator(row)}; "
            f"the model has {facts.rows('OperatorCode')} operator codes"
        )
    limit = np.repeat(facts.tensor_count, facts.operator_count)
    for field in ("inputs", "outputs", "intermediates"):
        row_of, index = facts.ints("Operator", field)
        bad = (index < -1) | (index >= limit[row_of])
        if bad.any():
            at = int(np.argmax(bad))
            row = int(row_of[at])
            raise ModelError(
                f"Invalid tensor index {index[at]} in node {field}. The subgraph has {limit[row]} tensors "
                f"({facts.operator(row)})"
            )


def _check_tensors(facts: Facts) -> None:
    buffer = facts.values("Tensor", "buffer")
    bad = (buffer >= facts.buffers) & (buffer > 0)
    if bad.any():
        row = int(np.argmax(bad))
        raise ModelError(
            f"Tensor {facts.owner(row, facts.tensor_row, facts.tensor_count)[1]} specifies out of range buffer "
            f"{buffer[row]} (only {facts.buffers} buffers). It is {facts.tensor(row)}"
        )
    type_ = facts.values("Tensor", "type")
    bits = BITS[type_]
    size = np.ceil(element_counts(facts, bits > 0) * bits / 8)
    if (bad := size >= MOST_BYTES).any():
        facts.tensor_error(int(np.argmax(bad)), "BytesRequired number of elements overflowed.")
    available = constant_sizes(facts)[buffer] if facts.buffers else np.full(buffer.size, -1)
    sparsity = facts.column("Tensor", "sparsity")
    sparse = sparsity.position != 0 if sparsity else np.zeros(buffer.size, bool)
    bad = (available >= 0) & (available < size) & ~sparse
    if bad.any():
        row = int(np.argmax(bad))
        facts.tensor_error(
            row,
            "required_bytes <= bytes was not true: "
            f"its shape needs {int(size[row])} bytes, its buffer has {available[row]}.",
        )
    variable = facts.values("Tensor", "is_variable") != 0
    if (bad := variable & (available >= 0)).any():
        row = int(np.argmax(bad))
        facts.tensor_error(row, "A variable with constant data.", "is a variable tensor with buffer")
    check_strings(facts, np.nonzero((type_ == TensorType.STRING) & (available >= 0))[0].tolist())
    for row in np.nonzero(sparse)[0].tolist():
        check_sparsity(facts, row, int(bits[row]))


def _check_quantization(facts: Facts) -> None:
    quantization = facts.column("Tensor", "quantization")
    scale = facts.column("QuantizationParameters", "scale")
    if quantization is None or scale is None:
        return
    rows = np.nonzero(quantization.position)[0]
    row = quantization.row[rows]
    scales = scale.count[row]
    zero_point = facts.column("QuantizationParameters", "zero_point")
    zero_points = zero_point.count[row] if zero_point else np.zeros(rows.size, np.int64)
    details = facts.column("QuantizationParameters", "details")
    plain = (scales > 0) & ((details.tag[row] == 0) if details else True)
    closing = "has invalid quantization parameters"
    if (bad := plain & (scales != zero_points)).any():
        at = int(np.argmax(bad))
        null = zero_point is None or not zero_point.position[row[at]]
        facts.tensor_error(
            int(rows[at]),
            ("Quantization parameters has non-null scale but null zero_point. " if null else "")
            + f"QuantizationParam has {zero_points[at]} zero_point values and {scales[at]} scale values. "
            "Must have same number.",
            closing,
        )
    shape = facts.column("Tensor", "shape")
    rank = shape.count[rows] if shape else np.zeros(rows.size, np.int64)
    dimension = facts.values("QuantizationParameters", "quantized_dimension")[row]
    if (bad := plain & (rank > 0) & ((dimension < 0) | (dimension >= rank))).any():
        at = int(np.argmax(bad))
        facts.tensor_error(
            int(rows[at]), f"quantized_dimension must be in range [0, {rank[at]}). Was {dimension[at]}.", closing
        )
    several = np.nonzero(plain & (rank > 0) & (scales > 1))[0]
    if several.size and shape:
        extent = facts.at("<i4", 4)[(shape.start[rows[several]] >> 2) + dimension[several]]
        if (bad := extent != scales[several]).any():
            at = int(several[np.argmax(bad)])
            facts.tensor_error(
                int(rows[at]),
                "num_scales must be 1 for per-layer quantization, or "
                f"{extent[np.argmax(bad)]} for per-axis quantization, but got {scales[at]}.",
                closing,
            )


def _check_details(facts: Facts) -> None:
    """Scales and zero points of blockwise and multi-axis quantisation are tensors of the same subgraph."""
    quantization = facts.column("Tensor", "quantization")
    details = facts.column("QuantizationParameters", "details")
    if quantization is None or details is None:
        return
    rows = np.nonzero(quantization.position)[0]
    limit = np.repeat(facts.tensor_count, facts.tensor_count)[rows]
    row = quantization.row[rows]
    for tag, name in ((2, "BlockwiseQuantization"), (3, "MultiAxisQuantization")):
        at = np.nonzero(details.tag[row] == tag)[0]
        if not at.size:
            continue
        for field, least in (("scales", 0), ("zero_points", -1)):
            index = facts.values(name, field)[details.row[row[at]]]
            bad = (index < least) | (index >= limit[at])
            if bad.any():
                first = int(np.argmax(bad))
                facts.tensor_error(
                    int(rows[at[first]]),
                    f"{name}.{field} names tensor {index[first]} of {limit[at[first]]}.",
                    "has invalid quantization parameters",
                )
    _check_axes(facts, rows, details)


def _check_axes(facts: Facts, rows: np.ndarray, details: Column) -> None:
    """The dimensions of multi-axis quantisation are there and in range."""
    count = facts.rows("MultiAxisQuantization")
    row = facts.columns["Tensor"].field["quantization"].row[rows]
    several = details.tag[row] == 3
    tensor, rank = np.zeros(count, np.int64), np.zeros(count, np.int64)
    tensor[details.row[row[several]]] = rows[several]
    shape = facts.column("Tensor", "shape")
    if shape:
        rank = shape.count[tensor]
    owner, axis = facts.ints("MultiAxisQuantization", "quantized_dimensions")
    bad = np.bincount(owner, minlength=count) == 0
    bad[owner[(axis < 0) | (axis >= rank[owner])]] = True
    if bad.any():
        first = int(np.argmax(bad))
        facts.tensor_error(
            int(tensor[first]),
            f"MultiAxisQuantization quantized_dimensions must be in range [0, {rank[first]}). "
            f"They are {axis[owner == first].tolist()}.",
            "has invalid quantization parameters",
        )


def _calls(facts: Facts) -> list[tuple[int, int]]:
    """Pairs (subgraph, subgraph that one of its operators names), all in range."""
    calls: list[tuple[int, int]] = []
    caller = np.repeat(np.arange(facts.subgraphs), facts.operator_count)
    for union in ("builtin_options", "builtin_options_2"):
        options = facts.column("Operator", union)
        if options is None:
            continue
        for name, columns in list(facts.columns.items()):
            for field in columns.table.fields.values():
                if field.type in ("subgraph", "usubgraph"):
                    calls += _calls_of(facts, name, field.name, field.vector, union, caller)
    return calls


def _calls_of(
    facts: Facts, name: str, field: str, vector: bool, union: str, caller: np.ndarray
) -> list[tuple[int, int]]:
    members = UNIONS[table("Operator").fields[union].type]
    if name not in members:
        return []
    options = facts.columns["Operator"].field[union]
    operators = np.nonzero(options.tag == members.index(name))[0]
    if vector:
        owner, callee = facts.ints(name, field)
        operators = operators[np.argsort(options.row[operators], kind="stable")][owner]
    else:
        callee = facts.values(name, field)[options.row[operators]]
    bad = (callee < 0) | (callee >= facts.subgraphs)
    if bad.any():
        at = int(np.argmax(bad))
        raise ModelError(
            f"Invalid subgraph index {callee[at]} exceeds max subgraph index {facts.subgraphs}: "
            f"{name}.{field} of {facts.operator(int(operators[at]))}"
        )
    return list(zip(caller[operators].tolist(), callee.tolist(), strict=True))


def _check_calls(facts: Facts) -> None:
    """No subgraph calls itself, directly or through others: it would never end."""
    callees: dict[int, set[int]] = {}
    for caller, callee in _calls(facts):
        callees.setdefault(caller, set()).add(callee)
    state: dict[int, bool] = {}  # True: on the path from the root; False: done
    for root in callees:
        path = [] if root in state else [(root, iter(callees[root]))]
        if path:
            state[root] = True
        while path:
            subgraph, rest = path[-1]
            callee = next(rest, -1)
            if callee < 0:
                state[subgraph] = False
                path.pop()
            elif callee not in state:
                state[callee] = True
                path.append((callee, iter(callees.get(callee, ()))))
            elif state[callee]:
                raise ModelError(f"Subgraph {callee} calls itself, through subgraph {subgraph}")


def _check_signatures(facts: Facts) -> None:
    count = facts.rows("SignatureDef")
    if not count:
        return
    key = facts.column("SignatureDef", "signature_key")
    if key is None or not key.position.all():
        raise ModelError("Missing exported method name for SignatureDef")
    subgraph = facts.values("SignatureDef", "subgraph_index")
    sides = [(field, *facts.children("SignatureDef", field)) for field in ("inputs", "outputs")]
    index = facts.values("TensorMap", "tensor_index") if facts.rows("TensorMap") else subgraph
    for row in range(count):
        where = f"signature '{facts.text('SignatureDef', 'signature_key', row)}'"
        if not subgraph[row] < facts.subgraphs:
            raise ModelError(
                f"Invalid subgraph index {subgraph[row]} exceeds max subgraph index {facts.subgraphs} in {where}"
            )
        limit = int(facts.tensor_count[subgraph[row]])
        for field, first, size in sides:
            maps = range(int(first[row]), int(first[row] + size[row]))
            _check_maps(facts, index, maps, limit, f"{field} of {where}")


def _check_maps(facts: Facts, index: np.ndarray, maps: range, limit: int, where: str) -> None:
    name = facts.column("TensorMap", "name")
    for row in maps:
        if name is None or not name.position[row]:
            raise ModelError(f"A tensor without a name in the {where}")
        if index[row] >= limit:
            raise ModelError(
                f"Invalid tensor index {index[row]} exceeds max tensor index {limit} in the {where} "
                f"('{facts.text('TensorMap', 'name', row)}')"
            )
