"""Rule "concat": parts of larger tensors have their memory there, where nobody can tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.planner.graph import Value
from litejit.schema.builder import ModelBuilder, Quant

RNG = np.random.default_rng(5)
Build = Callable[[Any], Any]


def content(build: Build) -> bytes:
    builder = ModelBuilder()
    g = builder.subgraph()
    made = build(g)
    g.outputs(*(made if isinstance(made, (list, tuple)) else [made]))
    return builder.build()


def made(model: bytes, **arguments: Any) -> Interpreter:
    interpreter = Interpreter(model_content=model, **arguments)
    interpreter.allocate_tensors()
    return interpreter


def ops(interpreter: Interpreter) -> list[str]:
    return [step.node.op for step in interpreter.plan.steps]


def data(interpreter: Interpreter) -> list[np.ndarray]:
    found = []
    for detail in interpreter.get_input_details():
        x = np.random.default_rng(detail["index"]).standard_normal(detail["shape"]) * 3
        found.append(x.astype(detail["dtype"]))
    return found


def numbers(model: bytes, **arguments: Any) -> dict[str, np.ndarray]:
    interpreter = made(model, **arguments)
    given = data(interpreter)
    for _ in range(2):  # what the first run leaves behind changes nothing
        result = interpreter.run(given)
    return {name: np.array(value) for name, value in result.items()}


def differences(model: bytes) -> list[str]:
    """Outputs that have other bits with the rule than without: fused or not, on any number of threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITEJIT_FUSION_OFF", "concat,unread")
        wanted = numbers(model)
        assert not any("concat" in note.lower() or " part" in note for note in made(model).plan.fused)
    ways: list[dict[str, Any]] = [{}, {"fuse": False}, {"num_threads": 2}, {"num_threads": 3, "fuse": False},
                                  {"experimental_preserve_all_tensors": True}]
    return [f"{name} {arguments}: {got} instead of {wanted[name]}" for arguments in ways
            for name, got in numbers(model, **arguments).items() if not np.array_equal(got, wanted[name], equal_nan=True)]


def place(interpreter: Interpreter, name: str) -> int:
    value: Value = next(v for v in interpreter.plan.graph.values if v.name == name)
    found = interpreter.plan.place(value)
    assert found is not None and found.kind == "arena"
    return found.offset


# ---- joined ----------------------------------------------------------------------------------------

def joined(g: Any, op: str = "CONCATENATION", type: str = "FLOAT32") -> Any:
    """ABS(a), ABS(b) -> t -> ABS."""
    shapes = [(1, 5), (1, 3)] if op == "CONCATENATION" else [(5,), (5,)]
    parts = [g.add("ABS", [g.input(f"x{k}", shape, type)], (f"a{k}", shape, type)) for k, shape in enumerate(shapes)]
    if op == "CONCATENATION":
        t = g.add(op, parts, ("t", (1, 8), type), axis=-1)
        return g.add("ABS", [t], ("y", (1, 8), type))
    t = g.add(op, parts, ("t", (2, 5), type), axis=0, values_count=2)
    return g.add("ABS", [t], ("y", (2, 5), type))


@pytest.mark.parametrize("type", ["FLOAT32", "INT32"])
@pytest.mark.parametrize("op", ["CONCATENATION", "PACK"])
def test_inputs_are_written_in_place(op: str, type: str) -> None:
    model = content(lambda g: joined(g, op, type))
    interpreter = made(model)
    assert ops(interpreter) == ["ABS"] * 3
    assert place(interpreter, "a1") - place(interpreter, "a0") == 5 * 4
    assert place(interpreter, "t") == place(interpreter, "a0")
    assert interpreter.plan.fused == (f"node 2 {op}: inputs 0, 1 are written in place",)
    assert differences(model) == []


def test_views_and_joins_of_joins_in_between() -> None:
    def build(g: Any) -> Any:
        parts = []
        for k in range(3):
            a = g.add("EXP", [g.input(f"x{k}", (2, 3))], (f"a{k}", (2, 3)))
            parts.append(g.add("RESHAPE", [a, g.constant(f"s{k}", np.array([6], np.int32))], (f"r{k}", (6,))))
        two = g.add("CONCATENATION", parts[:2], ("two", (12,)), axis=0)
        three = g.add("CONCATENATION", [parts[2], two], ("three", (18,)), axis=0)
        return g.add("NEG", [three], ("y", (18,))), g.add("ABS", [two], ("z", (12,)))
    model = content(build)
    interpreter = made(model)
    assert ops(interpreter) == ["EXP"] * 3 + ["NEG", "ABS"]
    assert [place(interpreter, f"a{k}") - place(interpreter, "three") for k in range(3)] == [24, 48, 0]
    assert differences(model) == []


def test_the_joined_tensor_may_be_an_output() -> None:
    model = content(lambda g: g.add("CONCATENATION", [
        g.add("EXP", [g.input(f"x{k}", (7,))], (f"a{k}", (7,))) for k in range(2)], ("y", (14,)), axis=0))
    assert ops(made(model)) == ["EXP", "EXP"]
    assert differences(model) == []


def test_parts_that_others_read_and_work_on() -> None:
    """NEG would take the memory of EXP's result, which is in the joined tensor by then."""
    def build(g: Any) -> Any:
        a = g.add("EXP", [g.input("x", (9,))], ("a", (9,)))
        b = g.add("NEG", [a], ("b", (9,)))
        c = g.add("ABS", [b], ("c", (9,)))
        t = g.add("CONCATENATION", [a, c], ("t", (18,)), axis=0)
        d = g.add("NEG", [a], ("d", (9,)))
        return g.add("NEG", [t], ("y", (18,))), g.add("EXP", [d], ("z", (9,)))
    model = content(build)
    assert "CONCATENATION" not in ops(made(model))
    assert differences(model) == []


# ---- what keeps its copy ---------------------------------------------------------------------------

def other(g: Any, name: str = "other") -> Any:
    return g.add("EXP", [g.input(f"x_{name}", (4,))], (name, (4,)))


def join(g: Any, *parts: Any, type: str = "FLOAT32", quant: Quant | None = None) -> Any:
    t = g.add("CONCATENATION", list(parts), ("t", (4 * len(parts),), type, quant), axis=0)
    return g.add("NEG", [t], ("y", (4 * len(parts),))) if type == "FLOAT32" else t


def constant_part(g: Any) -> Any:
    return join(g, other(g), g.constant("c", np.arange(4, dtype=np.float32)))


def variable_part(g: Any) -> Any:
    return join(g, other(g), g.variable("v", (4,)))


def input_part(g: Any) -> Any:
    return join(g, other(g), g.input("x", (4,)))


def view_of_input_part(g: Any) -> Any:
    x = g.input("x", (2, 2))
    return join(g, other(g), g.add("RESHAPE", [x, g.constant("s", np.array([4], np.int32))], ("r", (4,))))


def output_part(g: Any) -> Any:
    a = other(g, "a")
    return join(g, other(g), a), a


def same_part_twice(g: Any) -> Any:
    a = other(g)
    return join(g, a, a)


def part_of_two(g: Any) -> Any:
    a, b = other(g), other(g, "b")
    first = g.add("CONCATENATION", [b, a], ("first", (8,)), axis=0)
    return g.add("NEG", [first], ("z", (8,))), join(g, other(g, "c"), a)


def part_that_is_a_part(g: Any) -> Any:
    x = g.add("EXP", [g.input("x", (8,))], ("e", (8,)))
    a, _ = g.add("SPLIT", [g.constant("axis", np.array(0, np.int32)), x], [("p", (4,)), ("q", (4,))], num_splits=2)
    return join(g, other(g), a)


@pytest.mark.parametrize("build", [constant_part, variable_part, input_part, view_of_input_part, output_part, same_part_twice,
                                   part_of_two, part_that_is_a_part])
def test_one_input_keeps_its_copy(build: Build) -> None:
    model = content(build)
    interpreter = made(model)
    assert ops(interpreter).count("CONCATENATION") == 1
    (join,) = (step for step in interpreter.plan.steps if step.node.op == "CONCATENATION")
    assert join.params["count"] == 1 and len(join.node.placed) == 1
    assert differences(model) == []


def test_codes_with_another_quantisation_keep_their_copy() -> None:
    def build(g: Any) -> Any:
        parts = [g.add("QUANTIZE", [g.input(f"x{k}", (4,))], (f"a{k}", (4,), "UINT8", Quant(0.1 * (k + 1), 128)))
                 for k in range(2)]
        return join(g, *parts, type="UINT8", quant=Quant(0.1, 128))
    model = content(build)
    interpreter = made(model)
    assert ops(interpreter).count("CONCATENATION") == 1
    assert place(interpreter, "a0") == place(interpreter, "t")
    assert differences(model) == []


def test_rows_are_no_ranges() -> None:
    def build(g: Any) -> Any:
        parts = [g.add("EXP", [g.input(f"x{k}", (3, 2))], (f"a{k}", (3, 2))) for k in range(2)]
        return g.add("CONCATENATION", parts, ("t", (3, 4)), axis=1)
    model = content(build)
    assert ops(made(model)) == ["EXP", "EXP", "CONCATENATION"]
    assert differences(model) == []


def test_preserved_tensors_keep_their_copies() -> None:
    interpreter = made(content(joined), experimental_preserve_all_tensors=True)
    assert "CONCATENATION" in ops(interpreter)
    x = data(interpreter)
    for k, value in enumerate(x):
        interpreter.set_tensor(interpreter.get_input_details()[k]["index"], value)
    interpreter.invoke()
    got = {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_tensor_details()}
    assert np.array_equal(got["t"], np.abs(np.concatenate(x, -1)))
    assert np.array_equal(got["a1"], np.abs(x[1]))


# ---- cut -------------------------------------------------------------------------------------------

def split(g: Any, x: Any, shape: tuple[int, ...]) -> list[Any]:
    axis = g.constant("axis", np.array(0, np.int32))
    return g.add("SPLIT", [axis, x], [(f"p{k}", (shape[0] // 2, *shape[1:])) for k in range(2)], num_splits=2)  # type: ignore


def split_v(g: Any, x: Any, shape: tuple[int, ...]) -> list[Any]:
    sizes, axis = g.constant("sizes", np.array([1, -1], np.int32)), g.constant("axis", np.array(0, np.int32))
    outputs = [("p0", (1, *shape[1:])), ("p1", (shape[0] - 1, *shape[1:]))]
    return g.add("SPLIT_V", [x, sizes, axis], outputs, num_splits=2)  # type: ignore[no-any-return]


def unpack(g: Any, x: Any, shape: tuple[int, ...]) -> list[Any]:
    return g.add("UNPACK", [x], [(f"p{k}", shape[1:]) for k in range(shape[0])], num=shape[0], axis=0)  # type: ignore


def slice_(g: Any, x: Any, shape: tuple[int, ...]) -> list[Any]:
    begin, size = g.constant("begin", np.array([1, 0], np.int32)), g.constant("size", np.array([2, -1], np.int32))
    return [g.add("SLICE", [x, begin, size], ("p0", (2, shape[1])))]


def strided_slice(g: Any, x: Any, shape: tuple[int, ...]) -> list[Any]:
    vectors = [g.constant(f"v{k}", np.array(v, np.int32)) for k, v in enumerate([(2, 1), (3, 4), (1, 1)])]
    return [g.add("STRIDED_SLICE", [x, *vectors], ("p0", (3,)), shrink_axis_mask=1)]


CUTS = [split, split_v, unpack, slice_, strided_slice]


@pytest.mark.parametrize("of_input", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_outputs_are_parts_of_the_input(cut: Any, of_input: bool) -> None:
    def build(g: Any) -> Any:
        x = g.input("x", (4, 5))
        t = x if of_input else g.add("EXP", [x], ("t", (4, 5)))
        parts = cut(g, t, (4, 5))
        made = [g.add("NEG", [part], (f"y{k}", (1,))) for k, part in enumerate(parts)]
        return [*made, g.add("ABS", [t], ("z", (4, 5)))]
    model = content(build)
    interpreter = made(model)
    assert set(ops(interpreter)) <= {"EXP", "NEG", "ABS"}
    begin = {split: 0, split_v: 0, unpack: 0, slice_: 20, strided_slice: 44}[cut]
    assert place(interpreter, "p0") == place(interpreter, "x" if of_input else "t") + begin
    if cut is split_v:
        assert place(interpreter, "p1") == place(interpreter, "p0") + 20
    assert differences(model) == []


@pytest.mark.parametrize("cut", CUTS)
def test_outputs_of_the_graph_are_copied(cut: Any) -> None:
    def build(g: Any) -> Any:
        return cut(g, g.add("EXP", [g.input("x", (4, 5))], ("t", (4, 5))), (4, 5))
    model = content(build)
    interpreter = made(model)
    assert ops(interpreter)[0] == "EXP" and len(ops(interpreter)) == 2
    assert all(step.node.placed == frozenset() for step in interpreter.plan.steps)
    assert differences(model) == []


def test_parts_of_variables_and_rows_are_copied() -> None:
    def of_variable(g: Any) -> Any:
        parts = split(g, g.variable("v", (4, 5)), (4, 5))
        return [g.add("NEG", [part], (f"y{k}", (2, 5))) for k, part in enumerate(parts)]

    def across(g: Any) -> Any:
        t = g.add("EXP", [g.input("x", (4, 6))], ("t", (4, 6)))
        axis = g.constant("axis", np.array(1, np.int32))
        parts = g.add("SPLIT", [axis, t], [("p", (4, 3)), ("q", (4, 3))], num_splits=2)
        return [g.add("NEG", [part], (f"y{k}", (4, 3))) for k, part in enumerate(parts)]
    for build in (of_variable, across):
        model = content(build)
        assert "SPLIT" in ops(made(model))
        assert differences(model) == []


def test_work_in_place_leaves_the_other_parts_alone() -> None:
    """NEG could take the memory of its input, where that were not a part of something needed later."""
    def build(g: Any) -> Any:
        t = g.add("EXP", [g.input("x", (4, 5))], ("t", (4, 5)))
        a, b = split(g, t, (4, 5))
        n = g.add("NEG", [a], ("n", (2, 5)))
        m = g.add("ABS", [n], ("m", (2, 5)))
        return g.add("ADD", [m, b], ("y", (2, 5))), g.add("NEG", [t], ("z", (4, 5)))
    model = content(build)
    assert "SPLIT" not in ops(made(model))
    assert differences(model) == []
