"""FULLY_CONNECTED with weights in the order of an old ARM kernel (weights_format SHUFFLED4x16INT8).

uint8 x uint8 -> int16, all zero points of 8-bit tensors 128. The weights are stored as int8 in blocks of 4 rows x 16 columns;
the second output is LiteRT's workspace, the input less 128.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_u8, store_u8
from litejit.ops.arithmetic import act_range, activation
from litejit.ops.base import Step, Target
from litejit.ops.integer_product import FIXED, Rounding
from litejit.ops.packed_product import quantised_steps
from litejit.planner.graph import Node

WORKSPACE = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8")], align=True)


def shapes(node: Node) -> list[tuple[int, ...]]:
    """The shapes of both outputs; refuses what the format cannot have."""
    x, w, bias, y = node[0], node[1], node.optional(2), node.out
    node.arity(3, 2)
    outputs, depth = w.dims
    node.check(x.type == w.type == "u8" and y.type == "i16" and node.outputs[1].type == "u8",
               "weights_format SHUFFLED4x16INT8 takes UINT8 inputs and weights, and gives INT16 and a UINT8 workspace")
    node.check(outputs % 4 == 0 and depth % 16 == 0 and w.data is not None and bias is not None and bias.data is not None,
               lambda: f"shuffled weights must be constant, in whole blocks of 4 x 16, with a constant bias: {w!r}")
    node.check(x.zero_point == w.zero_point == 128, "shuffled weights need the zero point 128")
    rows = x.size // depth
    node.check(rows in (1, 4), lambda: f"shuffled weights take 1 or 4 rows, not {rows}")
    return [(rows, outputs), node.outputs[1].dims]


def steps(node: Node, target: Target) -> list[Step]:
    """The product on weights in plain order, and the workspace."""
    x, w, y, workspace = node[0], node[1], node.out, node.outputs[1]
    outputs, depth = w.dims
    blocks = np.asarray(w.data).view(np.int8).reshape(outputs // 4, depth // 16, 4, 16)
    plain = w.derived("shuffled", np.ascontiguousarray(blocks.transpose(0, 2, 1, 3)).reshape(w.dims), "i8")
    real = np.float64(np.float32(x.scale * w.scale)) / np.float64(y.scale)
    rounding = Rounding(FIXED, real, 0, act_range(activation(node), y.scale, 0, "i16"))
    params = {"x": x, "y": workspace, "n": min(workspace.size, x.size)}
    return [*quantised_steps(node, target, x, y, plain, node[2], rounding), Step(node, flip_signs, params)]


@kernel(WORKSPACE)
def flip_signs(p, begin, end):
    """y = x ^ 0x80."""
    for _ in prange(begin, end):
        for i in range(p.n):
            store_u8(p.y, i, np.uint8(load_u8(p.x, i) ^ 128))
    return 0
