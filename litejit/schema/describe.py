"""Models in words: what `repr(model)` and notebooks show."""

from __future__ import annotations

import os
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..model import Model, Subgraph, Tensor

#: Subgraphs, signatures and tensors of each that are shown.
_MOST = 12


def describe(model: Model) -> str:
    """Several lines: source and size, graphs with inputs and outputs, operators by frequency, signatures, metadata."""
    lines = [_title(model)]
    for subgraph in model.subgraphs[:_MOST]:
        name = f" {subgraph.name!r}" if subgraph.name else ""
        lines.append(
            f"  subgraph {subgraph.index}{name}: {len(subgraph.operators)} operators, {len(subgraph.tensors)} tensors"
        )
        lines += [f"    in   {tensor_line(tensor)}" for tensor in _some(subgraph, subgraph.inputs)]
        lines += [f"    out  {tensor_line(tensor)}" for tensor in _some(subgraph, subgraph.outputs)]
        if subgraph.operators:
            lines.append(f"    {histogram(subgraph)}")
    if len(model.subgraphs) > _MOST:
        lines.append(f"  ... and {len(model.subgraphs) - _MOST} more subgraphs")
    for signature in model.signatures[:_MOST]:
        lines.append(
            f"  signature {signature.key!r}: ({', '.join(signature.inputs)}) -> ({', '.join(signature.outputs)})"
        )
    if len(model.signatures) > _MOST:
        lines.append(f"  ... and {len(model.signatures) - _MOST} more signatures")
    if model.metadata:
        lines.append(f"  metadata: {', '.join(f'{name} ({len(data)} B)' for name, data in model.metadata.items())}")
    if model.associated_files:
        lines.append(f"  files: {', '.join(model.associated_files)}")
    return "\n".join(lines)


def describe_html(model: Model) -> str:
    """A small table: graphs, inputs, outputs, operators."""
    rows = []
    for subgraph in model.subgraphs[:_MOST]:
        cells = [
            f"{subgraph.index} {escape(subgraph.name)}",
            "<br>".join(escape(tensor_line(tensor)) for tensor in _some(subgraph, subgraph.inputs)),
            "<br>".join(escape(tensor_line(tensor)) for tensor in _some(subgraph, subgraph.outputs)),
            escape(histogram(subgraph)),
        ]
        rows.append("<tr>" + "".join(f"<td style='text-align:left'>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(
        f"<th style='text-align:left'>{name}</th>" for name in ("subgraph", "inputs", "outputs", "operators")
    )
    return f"<p>{escape(_title(model))}</p><table><tr>{head}</tr>{''.join(rows)}</table>"


def histogram(subgraph: Subgraph) -> str:
    """Operators of a graph by frequency: `CONV_2D 35, ADD 10`."""
    counts = Counter(operator.name for operator in subgraph.operators)
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def tensor_line(tensor: Tensor) -> str:
    """Name, type, shape (with -1 for unknown extents) and quantisation."""
    quantization = tensor.quantization
    line = f"{tensor.name!r} {tensor.type.name} {list(tensor.shape_signature or tensor.shape)}"
    return f"{line} {quantization!r}" if quantization else line


def _some(subgraph: Subgraph, indices: tuple[int, ...]) -> list[Tensor]:
    return [subgraph.tensors[index] for index in indices[:_MOST]]


def _title(model: Model) -> str:
    name = f"{os.path.basename(os.fsdecode(model.path))!r}, " if model.path else ""
    text = f", {model.description!r}" if model.description else ""
    return f"Model({name}{_bytes(len(model.buffer))}{text})"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
