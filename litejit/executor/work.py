"""What a step multiplies and moves, and whether threads would gain from sharing the steps of a plan.

    shared(plan)    False: a run on one thread is estimated to be as fast
"""
from __future__ import annotations

from litejit.ops.base import Step
from litejit.planner.graph import Value
from litejit.planner.plan import Plan

WIDE, NARROW = {"i16"}, {"i8", "u8", "i4", "u4", "i2"}  # types of inputs that make products of integers
PICKS = ("GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "SLICE", "STRIDED_SLICE")
"""Operators that read as much of their input as they write, whatever its size."""
RATES = {"f32": 60e9, "bf16": 120e9, "i8": 150e9, "i16": 15e9}  # estimates: multiply-accumulates a second of a core
BYTES = 80e9  # and bytes a second
LEAST = 5e-6
"""Seconds on one thread of the steps that are cut, from which on a team is used. A run on two threads costs 0.4 us more where
cores share a cache line in 55 ns, and each step that is cut 0.1 to 0.3 us; in 300 ns (virtual cores on the move) several
times as much. Of 45 small models on two cores of Zen 4 those under it took 0.92 to 1.98 of the time with two threads; those
above it take 0.56 to 1.14 (one 2.3 while cache lines were slow)."""


def shared(plan: Plan) -> bool:
    """Whether a team of threads runs the steps of a plan; they never share those with jumps."""
    return plan.straight and sum(seconds(step) for step in plan.steps if step.chunks > 1) > LEAST


def seconds(step: Step) -> float:
    """An estimate of a step's time on one thread."""
    return max(step.macs / RATES[multiplied(step)], touched(step) / BYTES)


def touched(step: Step) -> int:
    """Bytes read and written. Of steps with MACs, whose weights are packed, those of the node's tensors."""
    if step.touched:
        return step.touched
    if step.node.op in PICKS:
        return 2 * sum(v.nbytes for v in step.node.outputs)
    values = (*step.node.inputs, *step.node.outputs) if step.macs else step.named
    return sum(v.nbytes for v in {v for v in values if isinstance(v, Value)})


def multiplied(step: Step) -> str:
    """Whose products a step adds up: what the step says; else floats, or integers where an input or the weights are such."""
    if step.products:
        return step.products
    types = {v.type for v in step.node.inputs[:3] if v is not None}
    return "i16" if types & WIDE else "i8" if types & NARROW else "f32"
