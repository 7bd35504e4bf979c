"""What rules may move, and what becomes of one that fails."""

from __future__ import annotations

import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.interpreter import Interpreter
from litejit.planner import fuse
from litejit.planner.graph import Graph, Node, Value
from litejit.planner.patterns import Uses
from litejit.schema.builder import ModelBuilder


def value(name: str, variable: bool = False) -> Value:
    return Value(name, 0, 0, "f32", (2,), variable=variable)


def uses(variable: bool) -> tuple[Uses, Value, Node]:
    x, y, z = value("x", variable), value("y"), value("z")
    nodes = [Node("NEG", None, 0, 0, [x], [y]), Node("ABS", None, 1, 0, [y], [z])]
    return Uses(Graph(None, 0, "", [x, y, z], nodes, (x,), (z,))), y, nodes[1]


def test_nothing_that_reads_a_variable_is_moved() -> None:
    plain, y, user = uses(False)
    assert plain.private(y) and plain.user(y, "ABS") is user
    held, y, _ = uses(True)
    assert not held.private(y) and held.user(y, "ABS") is None


def test_replaced_nodes_are_gone() -> None:
    found, y, user = uses(False)
    first = found.maker(y, "NEG")
    assert first is not None
    made = Node("BOTH", None, 1, 0, first.inputs, user.outputs)
    found.replace([first, user], made)
    assert found.graph.nodes == [made] and found.maker(y, "NEG") is None
    assert found.maker(user.out, "BOTH") is made and found.users[first[0]] == [made]


def test_a_rule_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(uses: Uses, target: object) -> list[str]:
        raise KeyError("what")
    monkeypatch.setitem(fuse.RULES, "swish", broken)
    builder = ModelBuilder()
    g = builder.subgraph()
    g.outputs(g.add("ABS", [g.input("x", (2,))], ("y", (2,))))
    content = builder.build()
    with pytest.raises(LiteJitError, match=r"subgraph 0: fusion rule swish failed: KeyError.*LITEJIT_FUSION_OFF=swish"):
        Interpreter(model_content=content).allocate_tensors()
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "swish")
    assert np.array_equal(Interpreter(model_content=content).run([np.array([-1, 2], np.float32)])["y"], [1, 2])
