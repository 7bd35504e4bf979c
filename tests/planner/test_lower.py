"""Views, memory in place, and control flow laid out flat."""

from __future__ import annotations

import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder

I32 = "INT32"


def chain(*ops: str, **arguments: object) -> Interpreter:
    """x -> op -> op ... -> y on 2x3 floats; RESHAPE makes 6 and 2x3 in turns."""
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (2, 3))
    shape: tuple[int, ...] = (2, 3)
    for k, op in enumerate(ops):
        name = "y" if k == len(ops) - 1 else f"t{k}"
        if op == "RESHAPE":
            shape = (6,) if len(shape) == 2 else (2, 3)
            x = g.add(op, [x, g.constant(f"s{k}", np.array(shape, np.int32))], (name, shape))
        else:
            x = g.add(op, [x], (name, shape))
    g.outputs(x)
    interpreter = Interpreter(model_content=builder.build(), **arguments)
    interpreter.allocate_tensors()
    return interpreter


def test_views_cost_nothing() -> None:
    interpreter = chain("NEG", "RESHAPE", "EXP")
    assert [s.node.op for s in interpreter.plan.steps] == ["NEG", "EXP"]


def test_view_between_input_and_output_is_a_copy() -> None:
    interpreter = chain("RESHAPE")
    assert [s.node.op for s in interpreter.plan.steps] == ["RESHAPE"]
    interpreter.run(np.ones((2, 3), np.float32))
    interpreter.set_tensor(0, np.zeros((2, 3), np.float32))
    assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist() == [1] * 6


def test_elementwise_operators_work_in_place() -> None:
    interpreter = chain("NEG", "EXP", "ABS", "NEG")
    plan = interpreter.plan
    assert len(plan.buffers) == 3  # input, one for the intermediates, output
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    for _ in range(2):
        interpreter.invoke()
    assert np.allclose(interpreter.run(x)["y"], -np.exp(-x))
    assert np.array_equal(interpreter.get_tensor(0), x)  # inputs stay as they are


def test_memory_that_an_output_views_is_not_taken_over() -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    t = g.add("ABS", [g.add("EXP", [g.input("x", (6,))], ("e", (6,)))], ("t", (6,)))  # ABS works in the memory of EXP
    n = g.add("NEG", [t], ("n", (6,)))
    view = g.add("RESHAPE", [t, g.constant("s", np.array([2, 3], np.int32))], ("view", (2, 3)))
    g.outputs(view, g.add("NEG", [n], ("y", (6,))))
    interpreter = Interpreter(model_content=builder.build())
    result = interpreter.run(np.linspace(-1, 1, 6, dtype=np.float32))
    assert np.array_equal(result["view"].ravel(), result["y"])
    assert (result["y"] > 0).all()


def test_preserved_tensors_have_memory_of_their_own() -> None:
    interpreter = chain("NEG", "RESHAPE", "EXP", "RESHAPE", "NEG", experimental_preserve_all_tensors=True)
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    interpreter.set_tensor(0, x)
    interpreter.invoke()
    got = {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_tensor_details()}
    assert np.array_equal(got["t0"], -x)
    assert np.array_equal(got["t1"], -x.ravel())
    assert np.allclose(got["t2"], np.exp(-x).ravel())
    assert np.array_equal(got["t3"].ravel(), got["t2"])
    with pytest.raises(ValueError, match="preserve_all_tensors"):
        chain("NEG", "EXP").get_tensor(1)


def loop(limit: int, body_swaps: bool = False, **arguments: object) -> Interpreter:
    """WHILE i < limit: i += 1; (a, b) = (a + b, b), or (b, a + b) where the body swaps."""
    builder = ModelBuilder()
    main, cond, body = builder.subgraph("main"), builder.subgraph("cond"), builder.subgraph("body")

    def variables(g: object) -> list[object]:
        return [g.input("i", (), I32), g.input("a", (2,)), g.input("b", (2,))]  # type: ignore[attr-defined]

    i, *_ = variables(cond)
    cond.outputs(cond.add("LESS", [i, cond.constant("limit", np.array(limit, np.int32))], ("more", (), "BOOL")))
    i, a, b = variables(body)
    total = body.add("ADD", [a, b], ("total", (2,)))
    up = body.add("ADD", [i, body.constant("one", np.array(1, np.int32))], ("up", (), I32))
    body.outputs(up, *((b, total) if body_swaps else (total, b)))
    given = [main.constant("start", np.array(0, np.int32)), main.input("a", (2,)), main.input("b", (2,))]
    out = main.add(
        "WHILE",
        given,
        [("n", (), I32), ("first", (2,)), ("second", (2,))],
        cond_subgraph_index=1,
        body_subgraph_index=2,
    )
    main.outputs(*out)
    return Interpreter(model_content=builder.build(), **arguments)


@pytest.mark.parametrize(
    "arguments", [{}, {"fuse": False}, {"num_threads": 2}, {"experimental_preserve_all_tensors": True}]
)
def test_while(arguments: dict[str, object]) -> None:
    result = loop(5, **arguments).run([np.array([1, 2], np.float32), np.array([10, 20], np.float32)])
    assert result["n"] == 5
    assert result["first"].tolist() == [51, 102]
    assert result["second"].tolist() == [10, 20]


def test_while_whose_body_swaps_its_variables() -> None:
    result = loop(6, body_swaps=True).run([np.array([0, 0], np.float32), np.array([1, 2], np.float32)])
    assert result["first"].tolist() == [8, 16]  # Fibonacci
    assert result["second"].tolist() == [13, 26]


def test_while_that_never_runs_its_body() -> None:
    result = loop(0).run([np.array([1, 2], np.float32), np.array([3, 4], np.float32)])
    assert result["n"] == 0 and result["first"].tolist() == [1, 2]


@pytest.mark.parametrize("fuse", [True, False])
def test_if(fuse: bool) -> None:
    builder = ModelBuilder()
    main, then, other = builder.subgraph("main"), builder.subgraph("then"), builder.subgraph("else")
    then.outputs(then.add("NEG", [then.input("x", (2,))], ("y", (2,))))
    other.outputs(other.input("x", (2,)))
    cond, x = main.input("cond", (1,), "BOOL"), main.input("x", (2,))
    out = main.add("IF", [cond, x], ("y", (2,)), then_subgraph_index=1, else_subgraph_index=2)
    main.outputs(main.add("ABS", [out], ("z", (2,))), out)
    interpreter = Interpreter(model_content=builder.build(), fuse=fuse)
    value = np.array([1, -2], np.float32)
    for flag in (True, False, True):
        result = interpreter.run([np.array([flag]), value])
        assert result["y"].tolist() == ((-value) if flag else value).tolist()
        assert result["z"].tolist() == [1, 2]


def test_control_flow_that_calls_itself_is_refused() -> None:
    builder = ModelBuilder()
    main, body = builder.subgraph("main"), builder.subgraph("body")
    for g in (main, body):
        cond, x = g.input("cond", (1,), "BOOL"), g.input("x", (2,))
        g.outputs(g.add("IF", [cond, cond, x], ("y", (2,)), then_subgraph_index=1, else_subgraph_index=1))
    with pytest.raises(LiteJitError, match="calls itself"):
        Interpreter(model_content=builder.build()).allocate_tensors()


def test_bodies_that_multiply_are_refused() -> None:
    builder = ModelBuilder()
    graphs = [builder.subgraph(f"level {k}") for k in range(20)]
    for k, g in enumerate(graphs[:-1]):
        cond, x = g.input("cond", (1,), "BOOL"), g.input("x", (2,))
        g.outputs(g.add("IF", [cond, cond, x], ("y", (2,)), then_subgraph_index=k + 1, else_subgraph_index=k + 1))
    graphs[-1].input("cond", (1,), "BOOL")
    graphs[-1].outputs(graphs[-1].input("x", (2,)))
    with pytest.raises(LiteJitError, match="more than 1000 bodies"):
        Interpreter(model_content=builder.build()).allocate_tensors()
