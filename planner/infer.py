"""Passes 2 and 3, infer shapes and fold constants: one walk, because shapes depend on folded constants.

A node whose inputs are all constants and whose operator can compute them in NumPy disappears; its outputs become
constants. Which nodes LiteRT gives to XNNPACK is decided here too, since that chooses the arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from litejit.errors import LiteJitError
from litejit.ops.base import Target
from litejit.planner.graph import DynamicShape, Graph, Node, PrepareError, Value, refuse

MAX_ELEMENTS = (1 << 31) - 1
FOLD_BYTES = 1 << 20  # larger constants are folded only if they do not grow much


def infer(graph: Graph, shapes: dict[int, tuple[int, ...]], target: Target) -> None:
    """Give every value its shape, given the graph inputs' (position -> shape); fold; drop folded nodes.

    Raises LiteJitError naming the node that cannot be prepared.
    """
    for position, shape in shapes.items():
        value = graph.inputs[position]
        if value.data is None:
            check_extents(tuple(shape))
            value.shape = tuple(shape)
    kept = []
    ready = {id(v) for v in graph.inputs} | {id(v) for v in graph.values if v.data is not None or v.variable}
    for node in graph.nodes:
        for given in node.inputs:
            if given is not None and id(given) not in ready:
                refuse(node, f"Input tensor {given.index} lacks data: no operator writes it")
        prepare(node, graph, target)
        ready.update(id(v) for v in node.outputs)
        if not _fold(node):
            kept.append(node)
    for value in graph.outputs:
        if id(value) not in ready:
            raise LiteJitError(f"subgraph {graph.index}: no operator writes output {value!r}")
    graph.nodes = kept


def prepare(node: Node, graph: Graph, target: Target) -> None:
    """Shapes of a node's outputs."""
    node.xnn = False
    try:
        shapes = node.operator.prepare(node) if not node.bodies else node.operator.prepare_bodies(node, target)
        if len(shapes) != len(node.outputs):
            raise PrepareError(f"NumOutputs(node) != {len(shapes)} ({len(node.outputs)} != {len(shapes)})")
        for value, shape in zip(node.outputs, shapes):
            check_extents(tuple(shape))
            value.shape = tuple(int(d) for d in shape)
        node.xnn = delegated(node, target)
    except DynamicShape as error:
        raise LiteJitError(
            f"Node number {node.index} ({node.op}) failed to prepare: {error}; shapes that are known only "
            f"while running are not supported yet [{node.describe()}]"
        ) from error
    except PrepareError as error:
        refuse(node, str(error), error)
    except LiteJitError:
        raise
    except Exception as error:  # options or tensors of a kind that prepare did not expect
        refuse(node, f"{type(error).__name__}: {error}", error)


def check_extents(shape: tuple[int, ...]) -> None:
    """Refuse shapes that no array can have, empty ones included. Raises PrepareError."""
    count = 1
    for d in shape:
        count *= max(d, 1)
    if count > MAX_ELEMENTS or any(d < 0 for d in shape):
        raise PrepareError(f"BytesRequired number of elements overflowed: {shape}")


def delegated(node: Node, target: Target) -> bool:
    """Whether LiteRT's default mode gives the node to XNNPACK: the conditions that hold for every operator, then its own."""
    if target.mode != "auto" or node.subgraph != 0:
        return False
    for value in (*node.inputs, *node.outputs):
        if value is None:
            continue
        if value.rank > 6 or value.size == 0:
            return False
        if value.data is None and not _taken(value):
            return False
    return bool(node.operator.delegates(node))


def _taken(value: Value) -> bool:
    if value.type in ("i8", "u8"):
        return value.scales is not None and len(value.scales) == 1
    return value.type in ("f32", "f16")


def _fold(node: Node) -> bool:
    operator = node.operator
    if operator.random or not node.outputs or any(v.variable for v in node.outputs):
        return False
    known = all(v is None or v.data is not None for v in node.inputs)
    if not known and not getattr(operator, "folds_shape", False):
        return False
    given = sum(v.nbytes for v in node.inputs if v is not None)
    if sum(v.nbytes for v in node.outputs) > 4 * given + FOLD_BYTES:
        return False
    with np.errstate(all="ignore"):
        try:
            results = operator.fold(node)
        except Exception as error:
            refuse(node, f"{type(error).__name__}: {error}", error)
    if results is None:
        return False
    for value, result in zip(node.outputs, results):
        array = np.ascontiguousarray(result, value.dtype)
        if array.shape != value.shape:
            array = array.reshape(value.dims)
        value.data, value.key = array, _content_key(array, value.type)
    return True


def _content_key(array: np.ndarray, type: str) -> tuple[Any, ...]:
    from hashlib import blake2b

    return ("folded", type, array.shape, blake2b(array.tobytes(), digest_size=16).hexdigest())
