"""Rule "turned": a transposed convolution with stride 1 becomes a convolution, with its weights turned around.

Every output is the sum of the same products, in another order. LiteRT gives both to the same kernels of XNNPACK in the end.
"""

from __future__ import annotations

import numpy as np

from litejit.ops.base import Target
from litejit.planner.fuse_pad import Padded
from litejit.planner.graph import Node
from litejit.planner.patterns import Uses

TYPES = (("f32", "f32"), ("f32", "i8"), ("i8", "i8"), ("u8", "u8"))  # of input and weights


def turn_transposed(uses: Uses, target: Target) -> list[str]:
    """TRANSPOSE_CONV becomes CONV_2D where its patches lie one pixel apart."""
    from litejit.ops.conv import OPERATORS, fits_xnn

    notes = []
    for node in [node for node in uses.graph.nodes if node.op == "TRANSPOSE_CONV" and _fits(node, target)]:
        w = node[1]
        turned = w.derived("turned", np.ascontiguousarray(np.asarray(w.data).reshape(w.dims)[:, ::-1, ::-1]))
        inputs, options = (node[2], turned, node.optional(3)), Padded(node.options, _pads(node))
        made = Node("CONV_2D", OPERATORS["CONV_2D"], node.index, node.subgraph, inputs, node.outputs, options,
                    version=node.version, spec=node.spec)
        made.xnn = node.xnn
        if w.type != node[2].type or w.type == "f32" or fits_xnn(made, target):
            uses.replace([node], made)
            notes.append(f"node {node.index} {node.op} as {made.op}")
    return notes


def _fits(node: Node, target: Target) -> bool:
    """XNNPACK takes it, and CONV_2D has the same numbers: it has products of bfloat16, and quantises the pixels of hybrid nodes
    with a single tap, not their images."""
    x, w = node[2], node[1]
    other = w.dims[1:3] == (1, 1) if w.type != x.type else x.type == "f32" and target.products != "f32"
    return node.xnn and (x.type, w.type) in TYPES and node.options.stride_h == node.options.stride_w == 1 and not other


def _pads(node: Node) -> tuple[int, int, int, int]:
    """Zeros above, below, left and right of the image: as many as patches reach beyond it within the output."""
    from litejit.ops.transpose_conv import geometry

    fields = geometry(node)
    made = []
    for size, k, first, out in (("h", "kh", "top", "oh"), ("width", "kw", "left", "ow")):
        before = fields[k] - 1 - fields[first]
        made += [before, fields[out] + fields[k] - 1 - fields[size] - before]
    return made[0], made[1], made[2], made[3]
