"""Chains of float32 operators: every operator in front and behind, blocks, places, memory."""
from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.ops.float_chain import BLOCKS, FLOAT_CHAIN, SMALL_BLOCK, block_of, slots_of
from litejit.planner import fuse_float_chain
from litejit.planner.fuse_float_chain import BINARY, UNARY
from litejit.planner.graph import Node, Value
from litejit.schema.builder import ModelBuilder

F32 = np.float32
SPECIAL = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-30, -1e-30, 1e-42, 0.5, -2.5], F32)
OPTIONS: dict[str, dict[str, Any]] = {"LEAKY_RELU": {"alpha": 0.3}, "GELU": {"approximate": False}}
ROWS, COLUMNS = 43, 59


def outputs(content: bytes, threads: int = 1) -> tuple[np.ndarray, Any]:
    """(bits of the output, the plan) for numbers at random, special ones among them."""
    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(1)
    for detail in interpreter.get_input_details():
        x = rng.normal(0, 3, detail["shape"]).astype(F32)
        x.reshape(-1)[::5] = np.resize(rng.permutation(SPECIAL), x.reshape(-1)[::5].size)
        interpreter.set_tensor(detail["index"], x)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).view(np.uint32), interpreter.plan


def model(op: str, other: tuple[int, ...], swap: bool, behind: bool) -> bytes:
    """The operator in front of NEG or behind it, on a tensor and (if it takes two) one of a shape that broadcasts to it."""
    builder = ModelBuilder()
    g = builder.subgraph()
    shape = (ROWS, COLUMNS)
    x = g.input("x", shape)
    y = g.add("NEG", [x], ("n", shape)) if behind else x
    given = [y, g.input("b", other)] if op in BINARY else [y]
    y = g.add(op, given[::-1] if swap else given, ("y", shape), **OPTIONS.get(op, {}))
    y = y if behind else g.add("NEG", [y], ("n", shape))
    g.outputs(y)
    return bytes(builder.build())


FUNCTIONS = [(op, (), False) for op in UNARY if op != "SWISH"]          # which another rule makes
ARITHMETIC = itertools.product(BINARY, [(ROWS, COLUMNS), (), (COLUMNS,), (1, COLUMNS), (ROWS, 1)], [False, True])


@pytest.mark.parametrize("behind", [False, True], ids=["in front", "behind"])
@pytest.mark.parametrize("op, other, swap", [*FUNCTIONS, *ARITHMETIC], ids=str)
def test_bits_are_those_of_the_operators_alone(op: str, other: tuple[int, ...], swap: bool, behind: bool,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    content = model(op, other, swap, behind)
    got, plan = outputs(content)
    assert [step.kernel.name for step in plan.steps] == ["float_chain"]
    np.testing.assert_array_equal(outputs(content, threads=2)[0], got)
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "float_chain")
    want, plan = outputs(content)
    assert len(plan.steps) == 2
    np.testing.assert_array_equal(got, want)


# ---- plans -----------------------------------------------------------------------------------------------


def value(name: str, *shape: int) -> Value:
    return Value(name, 0, 0, "f32", shape)


def chain_of(n: int, *others: int) -> Node:
    """A node of a chain with inputs of so many elements."""
    inputs = [value("x", n), *(value(f"o{k}", size) for k, size in enumerate(others))]
    return Node("FLOAT_CHAIN", FLOAT_CHAIN, 0, 0, inputs, [value("y", n)])


def test_blocks_depend_on_what_is_as_large_as_the_output() -> None:
    (most, large), (_, medium) = BLOCKS.items()
    n = most // 8
    assert block_of(chain_of(n, 1, n // 2)) == large
    assert block_of(chain_of(n, n)) == block_of(chain_of(n + 1)) == medium
    assert block_of(chain_of(n, n, n, n)) == SMALL_BLOCK
    assert [block_of(chain_of(size)) for size in (1, 64, 65)] == [64, 64, 128]


def test_places_are_used_again() -> None:
    x, a, b, c, d, y = (value(name, 4) for name in "xabcdy")
    chain = [Node("NEG", None, k, 0, given, [made]) for k, (given, made) in enumerate((
        ([x], a), ([a], b), ([x], c), ([b, c], d), ([d, a], y)))]
    assert slots_of(chain) == {a: 0, b: 1, c: 2, d: 1}


def test_memory_may_be_taken_over_from_inputs_of_the_same_shape() -> None:
    node = Node("FLOAT_CHAIN", FLOAT_CHAIN, 0, 0, [value("a", 3, 4), value("b", 4), value("c", 3, 4), value("d", 12)],
                [value("y", 3, 4)])
    assert FLOAT_CHAIN.in_place(node) == (0, 2)


@pytest.mark.parametrize("n,chunks,blocks", [(2000, 1, 1), (5000, 1, 3), (200_000, 13, 98)])
def test_copies_are_for_chunks_that_run_at_the_same_time(n: int, chunks: int, blocks: int) -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (n,))
    g.outputs(g.add("ABS", [g.add("MUL", [x, g.constant("c", F32(2))], ("t", (n,)))], ("y", (n,))))
    content = bytes(builder.build())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuse_float_chain, "WORTH", 1)
        plans = [outputs(content, threads)[1] for threads in (1, 2, 3)]
    for plan in plans:                                      # whatever the number of threads
        (step,) = plan.steps
        assert (step.chunks, step.params["blocks"]) == (chunks, blocks)
        assert (step.params["copied"] > 0) == (chunks > 1) and (step.params["moved"] > 0) == (blocks > 1)
        assert step.room - sum(call.room for call in step.calls) >= step.kernel.params.itemsize + 16 * len(step.calls)
