"""Detail dictionaries of tensors and operators, as `tf.lite.Interpreter` gives them: fresh objects on every call."""

from __future__ import annotations

from typing import Any

import numpy as np

from litejit.model import Tensor
from litejit.planner.graph import SHORT, TYPES


def numpy_type(tensor: Tensor) -> type:
    """The NumPy scalar type that details and `get_tensor` show for a tensor."""
    name = TYPES[SHORT[tensor.type.name]][1]
    if tensor.type.name == "STRING":
        return np.bytes_
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16  # type: ignore[no-any-return]
    return np.dtype(name).type


def tensor_details(tensor: Tensor, shape: tuple[int, ...], compress_zero_points: bool = False) -> dict[str, Any]:
    """The dictionary of one tensor, `shape` being its current one."""
    scales, zero_points, dimension, block = _quantization(tensor)
    per_tensor = scales.size == 1 and block == 0
    if compress_zero_points and zero_points.size > 1 and (zero_points == zero_points[0]).all():
        zero_points = zero_points[:1].copy()
    signature = tensor.shape_signature if tensor.shape_signature else shape
    return {
        "name": tensor.name or "",
        "index": tensor.index,
        "shape": np.array(shape, np.int32),
        "shape_signature": np.array(signature, np.int32),
        "dtype": numpy_type(tensor),
        "quantization": (float(scales[0]), int(zero_points[0])) if per_tensor else (0.0, 0),
        "quantization_parameters": {
            "scales": scales,
            "zero_points": zero_points,
            "quantized_dimension": dimension,
            "block_size": block,
        },
        "sparsity_parameters": _sparsity(tensor),
    }


def _quantization(tensor: Tensor) -> tuple[np.ndarray, np.ndarray, int, int]:
    quantization = tensor.quantization
    if quantization is None:
        return np.zeros(0, np.float32), np.zeros(0, np.int32), 0, 0
    block = int(getattr(quantization.details, "block_size", 0) or 0) if quantization.details is not None else 0
    zero_points = np.clip(quantization.zero_points, -(1 << 31), (1 << 31) - 1).astype(np.int32)
    return np.array(quantization.scales, np.float32), zero_points, int(quantization.dimension), block


def _sparsity(tensor: Tensor) -> dict[str, Any]:
    sparsity = tensor.sparsity
    if sparsity is None:
        return {}
    found: dict[str, Any] = {"traversal_order": np.array(sparsity.traversal_order, np.int32)}
    if sparsity.block_map is not None and len(sparsity.block_map):
        found["block_map"] = np.array(sparsity.block_map, np.int32)
    dims: list[dict[str, Any]] = []
    for part in sparsity.dim_metadata or ():
        if int(part.format) == 0:
            dims.append({"format": 0, "dense_size": int(part.dense_size)})
        else:
            dims.append(
                {
                    "format": 1,
                    "array_segments": _indices(part.array_segments),
                    "array_indices": _indices(part.array_indices),
                }
            )
    found["dim_metadata"] = dims
    return found


def _indices(union: Any) -> np.ndarray:
    values = getattr(union, "values", union)
    return np.array(values if values is not None else (), np.int32)


def operator_details(model: Any, index: int) -> dict[str, Any]:
    """The dictionary of operator `index` of subgraph 0 (`_get_op_details`)."""
    graph = model.subgraphs[0]
    op = graph.operators[index]
    tensors = graph.tensors
    return {
        "index": index,
        "op_name": op.name,
        "inputs": np.array(op.inputs, np.int32),
        "outputs": np.array(op.outputs, np.int32),
        "operand_types": [numpy_type(tensors[i]) for i in op.inputs if i >= 0],
        "result_types": [numpy_type(tensors[i]) for i in op.outputs if i >= 0],
    }
