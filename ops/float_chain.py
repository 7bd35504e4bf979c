"""Float32 operators of single elements that follow each other, block by block: what planner/fuse_float_chain.py makes of them.

A block is taken from the first operator to the last while it is in the first level of the cache. Each operator is the step
that it would be on its own, called by its address for one chunk, and a chunk is a block: nothing is compiled for a chain,
and the numbers are those of the operators. What is between two of them lies where the chain's output comes to lie.
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.instructions import native
from litejit.compiler.primitives import load_i64
from litejit.ops.base import Operator, Step, Target, chunked
from litejit.ops.binary import same_places
from litejit.ops.elementwise import GRAIN
from litejit.planner.graph import Node, Value

CHAIN = np.dtype([("calls", "i8"), ("count", "i8"), ("blocks", "i8"), ("per", "i8")], align=True)
BLOCKS = {1 << 16: 4096, 1 << 20: 2048}    # most elements of the output -> those of a block
SMALL_BLOCK = 1024                    # where they do not stay in a cache: the next block arrives meanwhile


class FloatChain(Operator):
    """Inputs: those of the operators without what is between them. Option chain: their nodes, in order."""

    def in_place(self, node: Node) -> tuple[int, ...]:
        """Inputs that the first operator reads and no other: the second one finds the first one's output there."""
        later = {value for part in node.options.chain[1:] for value in part.inputs}
        return tuple(i for i in same_places(node) if node.inputs[i] not in later)

    def steps(self, node: Node, target: Target) -> list[Step]:
        parts, n = node.options.chain, node.out.size
        block = block_of(n)
        between = {part.out for part in parts[:-1]}
        calls = [_call(part, node.out, between, block, target) for part in parts]
        blocks = -(-n // block)
        chunks, per = chunked(blocks, max(1, GRAIN // block // len(parts)))
        return [Step(node, float_chain, {"count": len(calls), "blocks": blocks, "per": per}, chunks, calls=calls)]


def block_of(n: int) -> int:
    """Elements of a block of so many: few enough for the first level of the cache, and worth the calls."""
    return next((block for most, block in BLOCKS.items() if n <= most), SMALL_BLOCK)


def _call(part: Node, y: Value, between: set[Value], block: int, target: Target) -> Step:
    """The step of an operator, a block a chunk, with y in the place of what is between."""
    (step,) = part.operator.steps(part, target)
    for name, value in step.params.items():
        if isinstance(value, Value) and value in between:
            step.params[name] = y
    step.params["block"] = block
    return step


FLOAT_CHAIN = FloatChain()


@kernel(CHAIN, name="float_chain")
def float_chain(p, begin, end):
    calls, count, blocks, per = p.calls, p.count, p.blocks, p.per
    for c in prange(begin, end):
        for block in range(c * per, min(blocks, (c + 1) * per)):
            for k in range(count):
                native(load_i64(calls, 2 * k), load_i64(calls, 2 * k + 1), block, block + 1)
    return 0
