"""Pass 4, lower: nodes become steps and jumps in one flat program; views become aliases.

A view (RESHAPE, SQUEEZE ...) shares the memory of its input where nobody can tell, and so do parts of larger tensors
(planner/pieces.py). Control flow is laid out flat: the records of its bodies, jumps between them, and copies of the loop's
variables.
"""

from __future__ import annotations

from typing import Any

from litejit.errors import LiteJitError
from litejit.ops.base import Scratch, Step, Target
from litejit.planner.graph import Graph, Node, PrepareError, Value, refuse
from litejit.planner.pieces import Pieces


class Label:
    """A place in the program that jumps go to."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at = -1


class Jump:
    """Goes to `to`: always, or if the bool `flag` is false."""

    __slots__ = ("flag", "node", "to")

    def __init__(self, to: Label, node: Node, flag: Value | None = None) -> None:
        self.to, self.flag, self.node = to, flag, node


class Program:
    """Steps and jumps in order; which values share the memory of another."""

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph, self.target = graph, target
        self.records: list[Step | Jump] = []
        self.alias: dict[Value, Value] = {}
        self.shift: dict[Value, int] = {}  # bytes from where the alias begins, if it is a part of it
        self.notes: list[str] = []
        self.outside = set(graph.inputs) | {v for v in graph.values if v.variable}

    def root(self, value: Value) -> Value:
        """The value whose memory this one uses."""
        return self.spot(value)[0]

    def spot(self, value: Value) -> tuple[Value, int]:
        """The value whose memory this one uses, and the bytes from there on."""
        at = 0
        while value in self.alias:
            at += self.shift.get(value, 0)
            value = self.alias[value]
        return value, at

    def lower(self, graph: Graph) -> None:
        """Append the nodes of a graph."""
        pieces = Pieces(self, graph)
        for node in graph.nodes:
            pieces.place(node)
            if node.bodies:
                node.operator.lower(node, self)
            elif not (node.operator.view and self._shares(node)):
                self.records += _steps(node, self.target)

    def mark(self, label: Label) -> None:
        """Put a label here."""
        label.at = len(self.records)

    def _shares(self, node: Node) -> bool:
        """Let a view use its input's memory, unless a caller could see it."""
        if self.target.preserve:
            return False
        source, out = self.root(node[0]), node.out
        if source.data is not None or source.variable or out.variable:
            return False
        if out in self.graph.outputs and source in self.outside:
            return False
        if out in self.alias or out is source:
            return False
        self.alias[out] = node[0]
        return True


def _steps(node: Node, target: Target) -> list[Step]:
    try:
        if any(v.size == 0 for v in node.outputs) and all(v.size == 0 for v in node.outputs):
            return []
        return node.operator.steps(node, target)
    except (MemoryError, LiteJitError) as error:
        if isinstance(error, LiteJitError) and not isinstance(error, PrepareError):
            raise
        refuse(node, str(error) or "not enough memory", error)
    except Exception as error:  # options or tensors of a kind that prepare did not expect
        refuse(node, f"{type(error).__name__}: {error}", error)
    return []


def lower(graph: Graph, target: Target) -> Program:
    """The program of a graph and of the bodies of its control flow."""
    program = Program(graph, target)
    program.lower(graph)
    if not target.preserve:
        _take_over(program)
    return program


def mentioned(record: Step | Jump) -> list[Any]:
    """The Values and Scratches that a record names, in order."""
    if isinstance(record, Jump):
        return [record.flag] if record.flag is not None else []
    return [v for v in record.named if isinstance(v, (Value, Scratch))]


def _take_over(program: Program) -> None:
    """In place: let an output have the memory of an input that nobody needs afterwards."""
    if any(isinstance(r, Jump) for r in program.records):
        return
    last: dict[Value, int] = {}
    steps_of: dict[int, int] = {}
    for at, record in enumerate(program.records):
        steps_of[id(record.node)] = steps_of.get(id(record.node), 0) + 1
        for value in mentioned(record):
            if isinstance(value, Value):
                last[program.root(value)] = at
    kept = {program.root(v) for v in program.graph.outputs} | program.outside
    for at, record in enumerate(program.records):
        node = record.node
        if steps_of[id(node)] != 1 or len(node.outputs) != 1 or node.out in program.alias or node.out.variable:
            continue
        if node.out in program.graph.outputs:
            continue
        for position in node.operator.in_place(node):
            value = node.optional(position)
            if value is None or value.data is not None:
                continue
            source = program.root(value)
            if source in kept or last.get(source) != at or source is node.out:
                continue
            if not source.nbytes == value.nbytes == node.out.nbytes:  # a part: the rest may be needed
                continue
            program.alias[node.out] = source
            last[source] = last.get(node.out, at)
            if node.out in kept:  # an output is a view of it
                kept.add(source)
            break
