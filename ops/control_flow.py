"""IF and WHILE: their bodies are laid out flat in the program, with jumps; loop variables live in the outputs' memory.

Loop variables that the body hands on unchanged are not copied; those that are constant besides are constants of the body.
"""

from __future__ import annotations

from typing import Any

from litejit.ops.base import Operator, Scratch, Step, Target
from litejit.ops.copy import Move, copy_steps
from litejit.planner.graph import DynamicShape, Graph, Node, Value


class _Bodies(Operator):
    """What both have in common: bodies take the node's inputs and give its outputs."""

    random = True  # never folded: a body may not end

    def prepare_bodies(self, node: Node, target: Target) -> list[tuple[int, ...]]:
        """Infer the bodies; the shapes of the outputs."""
        raise TypeError(f"{type(self).__name__}.prepare_bodies is missing")

    def lower(self, node: Node, program: Any) -> None:
        """Append the node's records to a program."""
        raise TypeError(f"{type(self).__name__}.lower is missing")


class If(_Bodies):
    """IF cond, inputs: then_subgraph or else_subgraph."""

    def prepare_bodies(self, node: Node, target: Target) -> list[tuple[int, ...]]:
        node.arity((1, 1 << 20), (0, 1 << 20))
        node.types(node[0], "bool")
        node.check(node[0].size == 1, lambda: f"the condition has {node[0].size} elements, not 1: {node[0]!r}")
        given = [node[i] for i in range(1, len(node.inputs))]
        for name, body in zip(("then", "else"), node.bodies):
            _infer(node, name, body, given, target, [v.data is not None for v in given])
        then, other = ([v.dims for v in body.outputs] for body in node.bodies)
        if then != other:
            raise DynamicShape(f"the branches of IF give different shapes, {then} and {other}")
        return then

    def lower(self, node: Node, program: Any) -> None:
        from litejit.planner.lower import Jump, Label

        otherwise, end = Label(), Label()
        program.records.append(Jump(otherwise, node, node[0]))
        for body, label in zip(node.bodies, (end, otherwise)):
            for value, given in zip(body.inputs, node.inputs[1:]):
                if value.data is None:
                    program.alias[value] = given
            program.lower(body)
            program.records += _moves(node, program, body.outputs, node.outputs)
            if label is end:
                program.records.append(Jump(end, node))
                program.mark(otherwise)
        program.mark(end)


class While(_Bodies):
    """WHILE inputs: as long as cond_subgraph says so, inputs = body_subgraph(inputs)."""

    def prepare_bodies(self, node: Node, target: Target) -> list[tuple[int, ...]]:
        node.arity((1, 1 << 20), len(node.inputs))
        cond, body = node.bodies
        given = [node[i] for i in range(len(node.inputs))]
        node.check(
            len(body.outputs) == len(given), lambda: f"the body gives {len(body.outputs)} of {len(given)} variables"
        )
        node.check(len(cond.outputs) == 1 and cond.outputs[0].type == "bool", "the condition must give one bool")
        fixed = [value.data is not None and out is into for value, into, out in zip(given, body.inputs, body.outputs)]
        _infer(node, "condition", cond, given, target, fixed)
        _infer(node, "body", body, given, target, fixed)
        node.check(cond.outputs[0].size == 1, lambda: f"the condition gives {cond.outputs[0]!r}, not one bool")
        for value, out in zip(given, body.outputs):
            if value.dims != out.dims:
                raise DynamicShape(f"a loop variable of WHILE changes its shape from {value.dims} to {out.dims}")
        for out, value, is_fixed in zip(node.outputs, given, fixed):
            if is_fixed:
                out.data, out.key = value.data, value.key
        return [v.dims for v in given]

    def lower(self, node: Node, program: Any) -> None:
        from litejit.planner.lower import Jump, Label

        cond, body = node.bodies
        start, end = Label(), Label()
        program.records += _moves(node, program, node.inputs, node.outputs)
        for graph in (cond, body):
            for value, variable in zip(graph.inputs, node.outputs):
                if value.data is None:
                    program.alias[value] = variable
        program.mark(start)
        program.lower(cond)
        program.records.append(Jump(end, node, cond.outputs[0]))
        program.lower(body)
        program.records += _moves(node, program, body.outputs, node.outputs)
        program.records.append(Jump(start, node))
        program.mark(end)


def _infer(node: Node, name: str, body: Graph, given: list[Value], target: Target, fixed: list[bool]) -> None:
    """Infer a body for the values it is given; the `fixed` ones are constants in it."""
    from litejit.planner.infer import infer

    node.check(
        len(body.inputs) == len(given),
        lambda: f"the {name} subgraph takes {len(body.inputs)} inputs, the node has {len(given)}",
    )
    for value, into, is_fixed in zip(given, body.inputs, fixed):
        node.check(value.type == into.type, f"{value!r} becomes {into!r} of the {name} subgraph: types differ")
        if is_fixed:
            into.data, into.key, into.shape = value.data, value.key, value.shape
    infer(body, {k: v.dims for k, v in enumerate(given)}, target)
    if name != "condition":
        node.check(
            len(body.outputs) == len(node.outputs),
            lambda: f"the {name} subgraph gives {len(body.outputs)} outputs, the node has {len(node.outputs)}",
        )
        for value, out in zip(body.outputs, node.outputs):
            node.check(value.type == out.type, f"{value!r} of the {name} subgraph becomes {out!r}: types differ")


def _moves(node: Node, program: Any, sources: Any, targets: Any) -> list[Step]:
    """Steps that assign all targets at once: what would be overwritten too early goes through scratch memory."""
    pairs = [
        (s, t)
        for s, t in zip(sources, targets)
        if program.spot(s) != program.spot(t) and t.data is None and t.nbytes
    ]
    written = {program.root(t) for _, t in pairs}
    first: list[Step] = []
    last: list[Step] = []
    for source, to in pairs:
        if program.root(source) in written:
            scratch = Scratch(source.nbytes)
            first += _copy(node, source, scratch, source.nbytes)
            last += _copy(node, scratch, to, source.nbytes)
        else:
            last += _copy(node, source, to, source.nbytes)
    return first + last


def _copy(node: Node, source: Value | Scratch, to: Value | Scratch, nbytes: int) -> list[Step]:
    return copy_steps(node, source, to, Move((nbytes,), (1,), (1,)), 1)


OPERATORS = {"IF": If(), "WHILE": While()}
