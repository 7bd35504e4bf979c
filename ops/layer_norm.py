"""Layer normalisation along the last axis: what planner/fuse_layer_norm.py makes of the operators that spell it out."""
from __future__ import annotations

from functools import cache

import numpy as np

from litejit.compiler import kernel
from litejit.compiler.lazy import Kernel
from litejit.ops.base import Operator, Packed, Step, Target, chunked
from litejit.ops.simd.row_sweeps import NORM as ROWS
from litejit.planner.graph import Node

NORM = np.dtype([("a", "i8"), ("b", "i8"), ("x", "i8"), ("y", "i8"), ("gamma", "i8"), ("beta", "i8"), ("rows", "i8"),
                 ("n", "i8"), ("block", "i8"), ("epsilon", "f4"), ("share", "f4")], align=True)
GRAIN = 8192


class LayerNorm(Operator):
    """y = (x - mean) / sqrt(variance + epsilon) * gamma + beta along the last axis, float32.

    Not centred: y = x / sqrt(mean of x^2 + epsilon) * gamma + beta.

    Inputs: x, or two terms whose sum is x. Outputs: y, and x where others need that sum. Options: epsilon (float), gamma
    and beta (float32 arrays [n]), centred (bool).
    """

    def in_place(self, node: Node) -> tuple[int, ...]:
        return tuple(range(len(node.inputs)))

    def steps(self, node: Node, target: Target) -> list[Step]:
        y, options, residual = node.out, node.options, len(node.inputs) == 2
        n = y.dims[-1]
        rows = y.size // n
        chunks, block = chunked(rows, max(1, GRAIN // n))
        params = {"a": node[0], "y": y, "rows": rows, "n": n, "block": block, "epsilon": options.epsilon, "share": 1 / n}
        if residual:
            params.update(b=node[1], x=node.outputs[-1])
        for name in ("gamma", "beta"):
            params[name] = _packed(np.ascontiguousarray(getattr(options, name), np.float32))
        return [Step(node, norm_rows(options.centred, residual), params, chunks)]


def _packed(array: np.ndarray) -> Packed:
    return Packed(("layer norm", array.tobytes()), lambda: array)


LAYER_NORM = LayerNorm()


@cache
def norm_rows(centred: bool, residual: bool) -> Kernel:
    """The kernel of rows with or without their mean, of sums of two terms or of x alone."""
    run = ROWS[centred, residual]

    @kernel(NORM, name=f"{'residual_' if residual else ''}{'layer' if centred else 'rms'}_norm_f32")
    def norm(p, begin, end):
        first = begin * p.block
        at = 4 * first * p.n
        run(p.a + at, p.b + at, (p.x if residual else p.a) + at, p.y + at, p.gamma, p.beta, min(p.rows, end * p.block) - first,
            p.n, p.epsilon, p.share)
        return 0
    return norm
