"""Chains of float32 operators of single elements become one step, whose numbers are those of the operators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from litejit.interpreter import Interpreter
from litejit.ops import float_chain
from litejit.ops.float_chain import block_of, slots_of
from litejit.planner import fuse_float_chain
from litejit.planner.fuse_float_chain import LONGEST, PLACES
from litejit.schema.builder import ModelBuilder
from tests.harness import MODES

F32 = np.float32
SPECIAL = np.array([0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 1e-30, -1e-30, 1e-42], F32)


@pytest.fixture(autouse=True)
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chains of small tensors too."""
    monkeypatch.setattr(fuse_float_chain, "WORTH", 1)


class Net:
    """A model in the making: operators on tensors of one shape, or of shapes that broadcast to it."""

    def __init__(self, *shape: int) -> None:
        self.builder, self.shape, self.count, self.given = ModelBuilder(), shape, 0, 0
        self.g = self.builder.subgraph()
        self.rng = np.random.default_rng(sum(shape))

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def input(self, *shape: int, type: str = "FLOAT32") -> Any:
        return self.g.input(self.name(), shape or self.shape, type)

    def constant(self, *shape: int) -> Any:
        return self.g.constant(self.name(), self.rng.normal(1, 0.5, shape).astype(F32))

    def op(self, op: str, *inputs: Any, shape: Sequence[int] | None = None, **options: Any) -> Any:
        return self.g.add(op, list(inputs), (self.name(), self.shape if shape is None else tuple(shape)), **options)

    def finish(self, *outputs: Any) -> bytes:
        self.g.outputs(*outputs)
        return bytes(self.builder.build())


def run(content: bytes, threads: int = 1, special: bool = True, **arguments: Any) -> tuple[list[np.ndarray], Any]:
    """The outputs for random inputs with NaN, infinities and denormals among them, and the plan."""
    interpreter = Interpreter(model_content=content, num_threads=threads, **arguments)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(3)
    for detail in interpreter.get_input_details():
        x = rng.normal(0, 3, detail["shape"]).astype(detail["dtype"])
        if special and x.dtype == F32:
            x.reshape(-1)[::7] = np.resize(rng.permutation(SPECIAL), x.reshape(-1)[::7].size)
        interpreter.set_tensor(detail["index"], x)
    for _ in range(2):                                      # a second run finds its inputs as they were
        interpreter.invoke()
    return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()], interpreter.plan


def bits(arrays: Iterable[np.ndarray]) -> list[bytes]:
    return [array.tobytes() for array in arrays]


def same_bits(content: bytes, monkeypatch: pytest.MonkeyPatch, fused: int = 1) -> tuple[Any, Any]:
    """Plans with and without the rule, whose outputs have the same bits, on any number of threads."""
    got, plan = run(content)
    assert sum(step.node.op == "FLOAT_CHAIN" for step in plan.steps) == fused
    for threads in (2, 3):
        assert bits(run(content, threads)[0]) == bits(got)
    assert bits(run(content, fuse=False)[0]) == bits(got)
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "float_chain")
    want, plain = run(content)
    assert bits(want) == bits(got)
    return plan, plain


def affine(net: Net, x: Any) -> Any:
    return net.op("ADD", net.op("MUL", x, net.constant(net.shape[-1])), net.constant(net.shape[-1]))


def swapped(net: Net, x: Any) -> Any:
    """The chain is the second operand throughout."""
    y = net.op("SUB", net.constant(net.shape[-1]), x)
    y = net.op("DIV", net.constant(), y)
    y = net.op("MINIMUM", net.input(), y)
    return net.op("SUB", net.constant(1), y)


def residual(net: Net, x: Any) -> Any:
    """The chain's input is read again at its end."""
    return net.op("ADD", x, net.op("TANH", net.op("MUL", x, net.constant())))


def columns(net: Net, x: Any) -> Any:
    """One number for each row, and one that is not constant."""
    y = net.op("MUL", x, net.input(*net.shape[:-1], 1))
    return net.op("SQUARED_DIFFERENCE", y, net.input(1))


def outer(net: Net, x: Any) -> Any:
    """Nothing is as large as what the first operator makes."""
    y = net.op("ADD", net.input(*net.shape[:-1], 1), net.input(net.shape[-1]))
    return net.op("MAXIMUM", x, net.op("ELU", y))


def clamped(net: Net, x: Any) -> Any:
    y = net.op("MUL", net.op("ADD", x, net.constant(), fused_activation_function="RELU6"), net.constant())
    return net.op("MUL", y, x, fused_activation_function="RELU")


def unary(*names: str) -> Callable[[Net, Any], Any]:
    def make(net: Net, x: Any) -> Any:
        for name in names:
            options = {"alpha": 0.2} if name == "LEAKY_RELU" else {"approximate": True} if name == "GELU" else {}
            x = net.op(name, x, **options)
        return x
    return make


def prelu(net: Net, x: Any) -> Any:
    """As it was spelled before there was an operator of this name."""
    falls = net.op("NEG", net.op("RELU", net.op("NEG", x)))
    return net.op("ADD", net.op("RELU", x), net.op("MUL", falls, net.constant(net.shape[-1])))


def cell(net: Net, x: Any) -> Any:
    """What a recurrent network keeps: both operands of the sum are made on the way."""
    kept = net.op("MUL", net.op("LOGISTIC", x), net.input())
    return net.op("ADD", kept, net.op("MUL", net.op("LOGISTIC", net.input()), net.op("TANH", net.input())))


def again(net: Net, x: Any) -> Any:
    """What is on the way is read several times, also by one operator twice."""
    t = affine(net, x)
    y = net.op("MUL", net.op("NEG", net.op("ABS", t)), t)
    return net.op("SUB", net.op("MUL", y, y), t)


def long(net: Net, x: Any) -> Any:
    for k in range(20):
        x = net.op("ADD", x, net.constant(net.shape[-1])) if k % 3 else net.op("MUL", net.constant(), x)
    return x


CHAINS: dict[str, tuple[Callable[[Net, Any], Any], int]] = {   # how it is made, how many operators it has
    "affine": (affine, 2), "swapped": (swapped, 4), "residual": (residual, 3), "columns": (columns, 2), "outer": (outer, 3),
    "clamped": (clamped, 3), "prelu": (prelu, 6), "cell": (cell, 6), "again": (again, 7),
    "roots": (unary("ABS", "SQRT", "RSQRT", "LOG"), 4), "long": (long, 20),
    "rounded": (unary("NEG", "FLOOR", "SQUARE", "CEIL", "ROUND", "SIGN"), 6),
    "functions": (unary("TANH", "LOGISTIC", "GELU", "ELU", "HARD_SWISH", "EXP"), 6),
    "clamps": (unary("LEAKY_RELU", "RELU_0_TO_1", "RELU6", "RELU_N1_TO_1", "RELU"), 5),
}
SHAPES = [(1, 1), (3, 7), (1, 5, 37, 19), (333, 64), (3, 30011)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_one_step(name: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    make, count = CHAINS[name]
    net = Net(*shape)
    plan, plain = same_bits(net.finish(make(net, net.input())), monkeypatch)
    repeated = ("copy_rows", "repeat_channels")                 # steps that write short operands several times over
    assert [sum(step.kernel.name not in repeated for step in p.steps) for p in (plan, plain)] == [1, count]


def test_short_operands_are_repeated_before_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(40, 50, 6)
    x = net.op("MUL", net.input(), net.input(1, 1, 6))
    plan, _ = same_bits(net.finish(net.op("SUB", net.input(40, 50, 1), net.op("ADD", x, net.input()))), monkeypatch)
    assert [step.kernel.name for step in plan.steps] == ["copy_rows", "repeat_channels", "float_chain"]


def test_large_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """The more there is to read and write, the smaller the blocks."""
    net = Net(1030, 1025)
    x = net.input()
    y = net.op("MUL", net.op("SUB", x, net.constant(1025)), net.constant(1030, 1))
    plan, _ = same_bits(net.finish(net.op("ADD", y, net.input())), monkeypatch)
    (step,) = plan.steps
    assert step.chunks > 1 and {call.params["block"] for call in step.calls} == {block_of(step.node)} == {1024}
    assert plan.arena_size < 3.1 * step.node.out.nbytes


@pytest.mark.parametrize("block", [1, 3, 64, 1000])
def test_any_block_gives_the_same(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the sign of NaN: elements beside whole vectors may have their operands exchanged."""
    net = Net(23, 101)
    content = net.finish(cell(net, swapped(net, again(net, net.input()))))
    wanted = bits(map(np.nan_to_num, run(content)[0]))
    monkeypatch.setattr(float_chain, "BLOCKS", {})
    monkeypatch.setattr(float_chain, "SMALL_BLOCK", block)
    for threads in (1, 3):
        got, plan = run(content, threads)
        assert bits(map(np.nan_to_num, got)) == wanted and plan.steps[0].calls[0].params["block"] == block


def test_memory_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an input that is read for the last time, wherever in the chain."""
    for late in (False, True):
        net = Net(6, 50)
        axis = net.g.constant("axis", np.array(1, np.int32))
        x, y = net.op("CUMSUM", net.input(), axis), net.input()
        z = net.op("MUL", net.op("TANH", net.op("ADD", x, y)), x) if late else net.op("TANH", net.op("ADD", x, y))
        with monkeypatch.context() as patch:
            plan, _ = same_bits(net.finish(net.op("CUMSUM", z, axis)), patch)
        step = next(step for step in plan.steps if step.node.op == "FLOAT_CHAIN")
        assert plan.place(step.node.out).offset == plan.place(step.node[0]).offset


@pytest.mark.parametrize("swap", [False, True])
def test_both_operands_are_chains(swap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(9, 33)
    x = net.input()
    parts = [affine(net, x), net.op("TANH", net.op("NEG", x))]
    plan, _ = same_bits(net.finish(net.op("ADD", *(parts[::-1] if swap else parts))), monkeypatch)
    assert len(plan.steps) == 1


def test_swish_is_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(5, 20)
    x = net.op("SUB", net.input(), net.constant(20))
    y = net.op("ABS", net.op("MUL", x, net.op("LOGISTIC", x)))
    plan, _ = same_bits(net.finish(y), monkeypatch)
    assert [call.node.op for call in plan.steps[0].calls] == ["SUB", "SWISH", "ABS"]


def test_places_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of products, made one after the other, needs two; a balanced tree of sixteen leaves would need five."""
    net = Net(4, 30)
    x = net.input()
    products = [net.op("MUL", x, net.constant(30)) for _ in range(9)]
    y = products[0]
    for product in products[1:]:
        y = net.op("ADD", y, product)
    plan, _ = same_bits(net.finish(y), monkeypatch)
    slots = slots_of(plan.steps[0].node.options.chain)
    assert len(slots) == 16 and set(slots.values()) == {0, 1}
    net = Net(4, 30)
    x = net.input()
    level = [net.op("MUL", x, net.constant(30)) for _ in range(16)]
    while len(level) > 1:
        level = [net.op("ADD", a, b) for a, b in zip(level[::2], level[1::2])]
    monkeypatch.delenv("LITEJIT_FUSION_OFF")
    plan, _ = same_bits(net.finish(*level), monkeypatch, fused=2)
    for step in plan.steps:
        assert not step.calls or max(slots_of(step.node.options.chain).values()) < PLACES


def test_endless_chains_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(3, 5)
    plan, _ = same_bits(net.finish(unary(*["NEG"] * (LONGEST + 7))(net, net.input())), monkeypatch, fused=2)
    assert [len(step.calls) for step in plan.steps] == [7, LONGEST]


# ---- what is no chain ----------------------------------------------------------------------------------


def needed_elsewhere(net: Net) -> bytes:
    t = net.op("EXP", net.input())
    y = net.op("NEG", t)
    return net.finish(y, net.op("COS", t))


def output_too(net: Net) -> bytes:
    t = net.op("EXP", net.input())
    return net.finish(t, net.op("NEG", t))


def grows(net: Net) -> bytes:
    t = net.op("EXP", net.input(1, net.shape[-1]), shape=(1, net.shape[-1]))
    return net.finish(net.op("MUL", t, net.input()))


def integers(net: Net) -> bytes:
    x = net.g.add("ADD", [net.input(type="INT32"), net.input(type="INT32")], ("s", net.shape, "INT32"))
    return net.finish(net.g.add("SUB", [x, net.input(type="INT32")], ("d", net.shape, "INT32")))


def sines(net: Net) -> bytes:
    return net.finish(net.op("COS", net.op("SIN", net.input())))


@pytest.mark.parametrize("make", [needed_elsewhere, output_too, grows, integers, sines])
def test_what_is_not_fused(make: Callable[[Net], bytes]) -> None:
    _, plan = run(make(Net(6, 10)))
    assert not plan.fused and len(plan.steps) == 2 + (make is needed_elsewhere)


def test_a_value_in_the_middle_that_others_read_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(6, 10)
    t = affine(net, net.input())
    plan, _ = same_bits(net.finish(net.op("NEG", net.op("ABS", t)), t), monkeypatch, fused=2)
    assert len(plan.steps) == 2


def test_large_tensors_are_not_kept_for_later() -> None:
    """A sum of two that is needed only after other operators stays where it is; one of a tensor and a number may move."""
    for operands, steps in ((2, 3), (1, 2)):
        net = Net(40, 30)
        x = net.input()
        t = net.op("ADD", x, net.input() if operands == 2 else net.constant(30))
        other = net.op("CUMSUM", x, net.g.constant("axis", np.array(0, np.int32)))
        _, plan = run(net.finish(net.op("MUL", t, other)), special=False)
        assert len(plan.steps) == steps


@pytest.mark.parametrize(("rows", "terms", "steps"), [(64, 7, 1), (64, 12, 2), (400, 4, 3), (400, 2, 1)])
def test_sums_of_many_large_tensors(rows: int, terms: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them in turns is slower. Seven of 256 KB and their sum are not large; two of 1.6 MB are few, three are not."""
    net = Net(rows, 1000)
    y = net.input()
    for _ in range(terms - 1):
        y = net.op("ADD", y, net.input())
    y = net.op("TANH", y) if terms == 2 else y
    plan, _ = same_bits(net.finish(y), monkeypatch, fused=max(1, steps) if steps < 3 else 0)
    assert len(plan.steps) == steps


def test_several_large_tensors_that_are_used_often(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(400, 1001)
    plan, _ = same_bits(net.finish(cell(net, net.input())), monkeypatch)
    assert len(plan.steps) == 1


def test_small_tensors_are_not_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for size, count, steps in ((2047, 2, 2), (2048, 2, 1), (1024, 4, 1)):
        net = Net(size)
        assert len(run(net.finish(unary(*["NEG"] * count)(net, net.input())))[1].steps) == steps


def test_no_elements() -> None:
    net = Net(0, 10)
    (y,), plan = run(net.finish(affine(net, net.input())))
    assert y.shape == (0, 10) and not plan.fused and not plan.steps


def test_reference_kernels_are_left_alone() -> None:
    net = Net(3, 10)
    content = net.finish(affine(net, net.input()))
    assert not run(content, experimental_op_resolver_type=MODES["ref"])[1].fused
    assert run(content, experimental_op_resolver_type=MODES["opt"])[1].fused


def test_preserved_tensors_are_made() -> None:
    net = Net(3, 10)
    interpreter = Interpreter(model_content=net.finish(affine(net, net.input())), experimental_preserve_all_tensors=True)
    x = np.linspace(-1, 1, 30, dtype=F32).reshape(3, 10)
    y = interpreter.run(x)["t5"]
    got = {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_tensor_details()}
    assert len(interpreter.plan.steps) == 2 and np.array_equal(got["t1"] * got["t2"], got["t3"])
    assert np.array_equal(got["t3"] + got["t4"], y)


# ---- what people see -------------------------------------------------------------------------------------


def test_the_nodes_are_named() -> None:
    net = Net(3, 10)
    interpreter = Interpreter(model_content=net.finish(net.op("ABS", affine(net, net.input()))))
    interpreter.allocate_tensors()
    plan = interpreter.plan
    assert plan.fused == ("node 0 MUL, node 1 ADD, node 2 ABS into node 2 FLOAT_CHAIN",)
    assert plan.steps[0].node.notes == ["node 0 MUL", "node 1 ADD", "node 2 ABS"]
    assert "fused: node 0 MUL, node 1 ADD" in str(plan) and "2 FLOAT_CHAIN" in str(plan)
    (step,) = interpreter.profile(3).steps
    assert (step.node, step.kernel, step.touched) == ("2 FLOAT_CHAIN", "float_chain", 4 * (30 + 10 + 10 + 30))
    assert "# node 1 ADD: add_f32" in interpreter.source
