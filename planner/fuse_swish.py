"""Rule "swish": x * LOGISTIC(x) is one operator."""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.patterns import Uses, merged


def fuse_swish(uses: Uses, target: Target) -> list[str]:
    """LOGISTIC and the MUL of its input and output become SWISH; the numbers stay the same."""
    from litejit.ops.activation import FUSED
    from litejit.ops.arithmetic import activation

    notes = []
    for logistic in [node for node in uses.graph.nodes if node.op == "LOGISTIC" and node[0].type == "f32"]:
        x, product = logistic[0], uses.user(logistic.out, "MUL")
        if product is None or not product.xnn or activation(product) != "NONE" or {product[0], product[1]} != {x, logistic.out}:
            continue
        node = merged("SWISH", FUSED["SWISH"], [logistic, product], [x])
        uses.replace([logistic, product], node)
        notes.append(f"node {logistic.index} LOGISTIC and node {product.index} MUL: SWISH")
    return notes
