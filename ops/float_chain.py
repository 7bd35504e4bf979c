"""Float32 operators of single elements that read each other's results: what planner/fuse_float_chain.py makes of them.

They run block by block, so that a block stays in the first level of the cache from the first operator to the last. Each is
the step that it would be on its own, called by its address for one chunk, and a chunk is a block: nothing is compiled for a
chain, and the numbers are those of the operators. What is between them has places of one block in scratch memory. Operators
count from the start of a tensor to their chunk, so the address of a place is moved back by as much for every block; chunks
of a chain that run at the same time have copies of the operators' parameters.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.instructions import native
from litejit.compiler.primitives import copy_bytes, load_i64, store_i64
from litejit.ops.base import Operator, Packed, Scratch, Step, Target, chunked
from litejit.ops.binary import same_places
from litejit.ops.elementwise import GRAIN
from litejit.planner.graph import Node, Value

CHAIN = np.dtype([(name, "i8") for name in (
    "calls", "count", "places", "moved", "scratch", "scratch_bytes", "copied", "blocks", "per", "block_bytes")], align=True)
BLOCKS = {8 << 20: 2048, 16 << 20: 1024}    # most bytes read and written as large as the output -> elements of a block
SMALL_BLOCK = 512                     # where they come from memory: what operators read next is asked for meanwhile


class FloatChain(Operator):
    """Inputs: those of the operators without what is between them. Option chain: their nodes, in order."""

    def in_place(self, node: Node) -> tuple[int, ...]:
        return same_places(node)

    def steps(self, node: Node, target: Target) -> list[Step]:
        chain, n = node.options.chain, node.out.size
        block, slots = block_of(node), slots_of(chain)
        blocks, count = -(-n // block), max(slots.values()) + 1
        chunks, per = chunked(blocks, max(1, GRAIN // block // len(chain)))
        fixed = [Scratch(4 * block) if blocks == 1 else None for _ in range(count)]
        calls, places, at, first = [], [], 0, []
        for part in chain:
            step, moved, before = _call(part, block, {value: (slot, fixed[slot]) for value, slot in slots.items()}, target)
            calls.append(step)
            first += before
            places += [(at // 8 + word, 4 * block * slot) for word, slot in moved]
            at += step.room
        copied = at if chunks > 1 else 0
        size = copied + 4 * block * count + 64
        return [*first, Step(node, float_chain, {
            "count": len(calls), "moved": len(places) if blocks > 1 else 0, "blocks": blocks, "per": per, "copied": copied,
            "block_bytes": 4 * block, "places": Packed(("places", tuple(places)), lambda: np.array(places, np.int64)),
            "scratch": Scratch(chunks * size) if blocks > 1 else None, "scratch_bytes": size}, chunks, calls=calls)]


def slots_of(chain: Sequence[Node]) -> dict[Value, int]:
    """For each value between the operators of a chain the number of the place that it has until it was last read."""
    last = {value: k for k, part in enumerate(chain) for value in part.inputs if value is not None}
    made: dict[Value, int] = {}
    live: dict[Value, int] = {}
    for k, part in enumerate(chain[:-1]):
        live = {value: slot for value, slot in live.items() if last[value] > k}
        made[part.out] = live[part.out] = next(slot for slot in range(len(chain)) if slot not in live.values())
    return made


def block_of(node: Node) -> int:
    """Elements of a block of a chain: few enough for the first level of the cache, and worth the calls."""
    n = node.out.size
    total = sum(v.nbytes for v in (*node.inputs, node.out) if v is not None and v.size == n)
    return min(next((block for most, block in BLOCKS.items() if total <= most), SMALL_BLOCK), -(-n // 64) * 64)


def _call(part: Node, block: int, slots: dict[Value, tuple[int, Scratch | None]], target: Target
          ) -> tuple[Step, list[tuple[int, int]], list[Step]]:
    """The step of an operator, a block a chunk; (word of its parameters, place of what is between that it names); and the steps
    that make operands for it out of smaller ones, before the chain runs."""
    *before, step = part.operator.steps(part, target)
    fields = step.kernel.params.fields
    named = {name: slots[value] for name, value in step.params.items() if isinstance(value, Value) and value in slots}
    step.params.update({name: scratch for name, (_, scratch) in named.items()}, block=block)
    return step, [(fields[name][1] // 8, slot) for name, (slot, _) in named.items()], before


FLOAT_CHAIN = FloatChain()


@kernel(CHAIN, name="float_chain")
def float_chain(p, begin, end):
    calls, count, places, moved, copied, per = p.calls, p.count, p.places, p.moved, p.copied, p.per
    first = load_i64(calls, 1)
    for c in prange(begin, end):
        between = p.scratch + c * p.scratch_bytes + copied
        params = first
        if copied != 0:
            params = between - copied
            copy_bytes(params, first, copied)
        for block in range(c * per, min(p.blocks, (c + 1) * per)):
            start = between - block * p.block_bytes
            for i in range(moved):
                store_i64(params, load_i64(places, 2 * i), start + load_i64(places, 2 * i + 1))
            for k in range(count):
                native(load_i64(calls, 2 * k), params + load_i64(calls, 2 * k + 1) - first, block, block + 1)
    return 0
