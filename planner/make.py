"""All passes in a row: `make_plan(model, subgraph, shapes, target)`, remembered by the Model."""

from __future__ import annotations

from typing import Any

from litejit.ops.base import Scratch, Target
from litejit.planner.arena import aligned, assign
from litejit.planner.build import build_graph
from litejit.planner.fuse import fuse
from litejit.planner.graph import Graph, Value
from litejit.planner.infer import infer
from litejit.planner.lifetimes import lifetimes
from litejit.planner.lower import Program, lower
from litejit.planner.plan import Image, ImageMaker, Place, Plan


def make_plan(model: Any, subgraph: int, shapes: tuple[tuple[int, ...], ...], target: Target) -> Plan:
    """The Plan of a subgraph for the shapes of its inputs (all of them, in order).

    Raises LiteJitError naming the node that cannot be prepared.
    """
    key = (subgraph, shapes, target)
    plan = model.plans.get(key)
    if plan is None:
        plan = model.plans[key] = _make(model, subgraph, shapes, target)
    return plan


def _make(model: Any, subgraph: int, shapes: tuple[tuple[int, ...], ...], target: Target) -> Plan:
    graph = build_graph(model, subgraph)
    infer(graph, dict(enumerate(shapes)), target)
    notes = [] if target.preserve else fuse(graph, target)
    program = lower(graph, target)
    buffers = lifetimes(program)
    placed, arena_size = assign(list(buffers.values()))
    offsets = dict(zip(buffers, placed))
    places, state_size = _places(program, offsets)

    def make_image() -> Image:
        return ImageMaker(program.records, places, offsets, program.root, model).image()

    notes += program.notes
    return Plan(graph, target, program.records, buffers, offsets, arena_size, places, state_size, make_image, notes)


def _places(program: Program, offsets: dict[Any, int]) -> tuple[dict[Value, Place], int]:
    """Where every value is, and the size of the state (variables)."""
    places: dict[Value, Place] = {}
    state = 0
    for value in _all_values(program.graph):
        root, at = program.spot(value)
        if root.data is not None:
            places[value] = Place("constant", array=root.data)
        elif root.variable:
            if root not in places:
                places[root] = Place("state", state)
                state += aligned(root.nbytes + 64)
            places[value] = places[root]
        elif root in offsets:
            places[value] = Place("arena", offsets[root] + at)
    return places, state


def _all_values(graph: Graph) -> list[Value]:
    values = list(graph.values)
    for node in graph.nodes:
        for body in node.bodies:
            values += _all_values(body)
    return [v for v in values if not isinstance(v, Scratch)]
