"""Pass 5, lifetimes: from the first to the last record that names a buffer, longer for loops, inputs and outputs."""

from __future__ import annotations

from litejit.ops.base import Scratch
from litejit.planner.arena import Buffer
from litejit.planner.graph import Value
from litejit.planner.lower import Jump, Program, mentioned


def lifetimes(program: Program) -> dict[Value | Scratch, Buffer]:
    """The buffers that need memory in the arena, with their lives, in order of first mention."""
    spans: dict[Value | Scratch, list[int]] = {}
    end = len(program.records)
    for value in program.graph.inputs:
        if value.data is None and not value.variable:
            spans[value] = [-1, end]  # inputs keep their contents through any number of runs
    for at, record in enumerate(program.records):
        for item in mentioned(record):
            if isinstance(item, Value):
                item = program.root(item)
                if item.data is not None or item.variable:
                    continue
            spans.setdefault(item, [at, at])[1] = max(at, spans.get(item, [at, at])[1])
    for value in program.graph.outputs:
        root = program.root(value)
        if root.data is None and not root.variable:
            spans.setdefault(root, [-1, end])[1] = end
    _stretch_over_loops(program, spans)
    if program.target.preserve:
        for item, span in spans.items():
            if isinstance(item, Value):
                span[:] = [-1, end]
    return {item: Buffer(first, last, max(item.nbytes, 1)) for item, (first, last) in spans.items()}


def _stretch_over_loops(program: Program, spans: dict[Value | Scratch, list[int]]) -> None:
    """What lives when a loop begins and is named within it lives until it ends."""
    for at, record in enumerate(program.records):
        if isinstance(record, Jump) and record.to.at <= at:
            start = record.to.at
            for span in spans.values():
                if span[0] < start <= span[1]:
                    span[1] = max(span[1], at)
