"""Attention becomes one node, transposes of heads, scale and mask with it, and gives the same numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.schema.builder import ModelBuilder
from tests.harness import run_model, run_planned

F32 = np.float32
SIZES = [(1, 4, 16, 16, 8, 8), (2, 3, 19, 37, 20, 12), (1, 1, 8, 1, 1, 1), (1, 2, 70, 130, 33, 65)]
ATTENTION = ["ATTENTION"] * 3  # two steps pack keys and values, one does the rest


class Net:
    """A model in the making; `sizes` are batches, heads, rows of q, rows of k, depth, columns of v."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.builder = ModelBuilder()
        self.g = self.builder.subgraph()
        self.sizes, self.count = sizes, 0
        self.values: list[np.ndarray] = []
        self.rng = np.random.default_rng(len(sizes) + sizes[2])

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def input(self, *shape: int) -> Any:
        self.values.append(self.rng.normal(0, 1.5, shape).astype(F32))
        return self.g.input(self.name(), shape)

    def constant(self, value: Any) -> Any:
        return self.g.constant(self.name(), np.asarray(value))

    def op(self, op: str, inputs: list[Any], shape: tuple[int, ...], **options: Any) -> Any:
        return self.g.add(op, inputs, (self.name(), shape), **options)

    def turn(self, x: Any, *axes: int) -> Any:
        shape = tuple(x.tree["shape"][a] for a in axes)
        return self.op("TRANSPOSE", [x, self.constant(np.array(axes, np.int32))], shape)

    def product(self, x: Any, w: Any, columns: int, **options: Any) -> Any:
        return self.op("BATCH_MATMUL", [x, w], (*x.tree["shape"][:-1], columns), **options)

    def finish(self, *outputs: Any) -> bytes:
        self.g.outputs(*outputs)
        return bytes(self.builder.build())


def attention(
    net: Net,
    heads: str = "qkvy",
    keys: str = "transposed",
    scale: str = "",
    mask: tuple[int, ...] | None = None,
    mask_first: bool = False,
    **options: Any,
) -> Any:
    """heads: which tensors are turned to [b, h, t, d] by a TRANSPOSE; keys: how k^T comes about."""
    b, h, m, n, d, e = net.sizes
    q = net.turn(net.input(b, m, h, d), 0, 2, 1, 3) if "q" in heads else net.input(b, h, m, d)
    if keys == "transposed":
        k = net.turn(net.input(b, n, h, d), 0, 2, 3, 1) if "k" in heads else net.input(b, h, d, n)
    else:
        k = net.turn(net.input(b, n, h, d), 0, 2, 1, 3) if "k" in heads else net.input(b, h, n, d)
        k = net.turn(k, 0, 1, 3, 2) if keys == "twice" else k
    v = net.turn(net.input(b, n, h, e), 0, 2, 1, 3) if "v" in heads else net.input(b, h, n, e)
    x = net.product(q, k, n, adj_y=keys == "adjoint")
    shape = (b, h, m, n)
    if scale:
        x = net.op(scale, [x, net.constant(F32(0.37 if scale == "MUL" else 4.0))], shape)
    if mask is not None:
        other = net.input(*mask)
        x = net.op("ADD", [other, x] if mask_first else [x, other], shape)
    y = net.product(net.op("SOFTMAX", [x], shape, **{"beta": 1.0, **options}), v, e)
    return net.turn(y, 0, 2, 1, 3) if "y" in heads else y


def together(net: Net, content: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[np.ndarray, Any, float]:
    """Output, plan, and how far the output is from the separate operators' numbers, as a share of the largest; infinitely far,
    if the number of threads matters."""
    (got,), plan = run_planned(content, net.values)
    with monkeypatch.context() as patch:
        patch.setenv("LITEJIT_FUSION_OFF", "attention,float_chain")
        (want,), separate = run_planned(content, net.values)
    assert not separate.fused
    same = all(np.array_equal(run_model(content, net.values, num_threads=n)[0], got) for n in (2, 3))
    return got, plan, np.abs(got - want).max() / np.abs(want).max() if same else np.inf


def operators(plan: Any) -> list[str]:
    return [step.node.op for step in plan.steps]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("keys", ["transposed", "adjoint", "twice"])
def test_heads_in_rows_of_tokens(sizes: tuple[int, ...], keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(sizes)
    got, plan, error = together(net, net.finish(attention(net, keys=keys, scale="MUL")), monkeypatch)
    assert operators(plan) == ATTENTION
    assert error <= 1e-6
    assert len(plan.fused) == 1 and plan.fused[0].endswith("ATTENTION")
    q, k, v = (x.astype(np.float64) for x in net.values)
    t = np.einsum("bmhd,bnhd->bhmn", q, k) * F32(0.37)
    p = np.exp(t - t.max(axis=-1, keepdims=True))
    want = np.einsum("bhmn,bnhe->bmhe", p / p.sum(axis=-1, keepdims=True), v)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


@pytest.mark.parametrize("keys", ["transposed", "adjoint", "twice"])
@pytest.mark.usefixtures("bf16_cpu")
def test_products_of_bfloat16(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of the separate BATCH_MATMULs; a probability that differs in its last bit may be rounded the other way."""
    for sizes in SIZES:
        net = Net(sizes)
        content = net.finish(attention(net, keys=keys, scale="MUL"))
        (exact,), (got,) = (run_model(content, net.values, precision=p) for p in ("float32", "bfloat16"))
        with monkeypatch.context() as patch:
            patch.setenv("LITEJIT_FUSION_OFF", "attention,float_chain")
            (want,) = run_model(content, net.values, precision="bfloat16")
        assert np.abs(got - want).max() <= 2e-3 * np.abs(want).max()
        assert 1e-4 < np.abs(got - exact).max() / np.abs(exact).max() < 0.05
        assert np.array_equal(run_model(content, net.values, precision="bfloat16", num_threads=2)[0], got)


@pytest.mark.parametrize("heads", ["", "q", "kv", "y", "qy"])
def test_only_some_tensors_are_turned(heads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for keys in ("transposed", "adjoint"):
        net = Net(SIZES[1])
        _, plan, error = together(net, net.finish(attention(net, heads, keys)), monkeypatch)
        assert operators(plan) == ATTENTION
        assert error <= 1e-6


@pytest.mark.parametrize("mask", [(37,), (1, 1, 1, 37), (2, 1, 19, 37), (2, 3, 19, 37), (3, 1, 37), (1, 3, 19, 37)])
@pytest.mark.parametrize("scale", ["", "MUL", "DIV"])
def test_masks_broadcast(mask: tuple[int, ...], scale: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net(SIZES[1])
    content = net.finish(attention(net, scale=scale, mask=mask, mask_first=len(mask) == 1))
    net.values[-1][..., 5:9] = -np.inf
    _, plan, error = together(net, content, monkeypatch)
    assert operators(plan) == ATTENTION
    assert error <= 1e-6


def test_rows_without_a_key_are_nan() -> None:
    net = Net(SIZES[1])
    content = net.finish(attention(net, mask=(2, 1, 19, 37)))
    net.values[-1][1, 0, 3] = -np.inf
    (got,), plan = run_planned(content, net.values)
    assert len(plan.steps) == 3
    nan = np.zeros(got.shape, bool)
    nan[1, 3] = True
    assert np.array_equal(np.isnan(got), nan)


@pytest.mark.parametrize("adjoint", [False, True])
def test_three_dimensions(adjoint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net = Net((5, 1, 21, 30, 10, 18))
    b, _, m, n, d, e = net.sizes
    q, k, v = net.input(b, m, d), net.input(b, n, d), net.input(b, e, n) if adjoint else net.input(b, n, e)
    p = net.op("SOFTMAX", [net.product(q, k, n, adj_y=True)], (b, m, n), beta=1.0)
    _, plan, error = together(net, net.finish(net.product(p, v, e, adj_y=adjoint)), monkeypatch)
    assert operators(plan) == ATTENTION
    assert error <= 1e-6


def test_a_transpose_that_others_read_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """k and v are the same heads."""
    net = Net((1, 3, 20, 20, 16, 16))
    b, h, m, n, d, _ = net.sizes
    q, k = net.input(b, m, h, d), net.turn(net.input(b, n, h, d), 0, 2, 1, 3)
    p = net.op("SOFTMAX", [net.product(net.turn(q, 0, 2, 1, 3), k, n, adj_y=True)], (b, h, m, n), beta=1.0)
    _, plan, error = together(net, net.finish(net.product(p, k, d)), monkeypatch)
    assert operators(plan) == ["TRANSPOSE", *ATTENTION]
    assert error <= 1e-6


@pytest.mark.parametrize(
    "options",
    [{"beta": 0.5}, {"mask": (2, 3, 19, 1)}, {"scale": "SUB"}, {"heads": "Q"}, {"sizes": (2, 3, 7, 37, 20, 12)}],
)
def test_what_is_no_attention(options: dict[str, Any]) -> None:
    """Another beta, a mask of one column, a term instead of a factor, q whose rows are no rows of memory, few rows."""
    net = Net(options.pop("sizes", SIZES[1]))
    if options.get("heads") == "Q":
        b, h, m, n, d, e = net.sizes
        q = net.turn(net.input(b, d, h, m), 0, 2, 3, 1)
        p = net.op("SOFTMAX", [net.product(q, net.input(b, h, d, n), n)], (b, h, m, n), beta=1.0)
        y = net.product(p, net.input(b, h, n, e), e)
    else:
        y = attention(net, **options)
    _, plan = run_planned(net.finish(y), net.values)
    assert not plan.fused


def test_scores_that_are_an_output_are_computed() -> None:
    net = Net(SIZES[1])
    b, h, m, n, d, e = net.sizes
    p = net.op("SOFTMAX", [net.product(net.input(b, h, m, d), net.input(b, h, d, n), n)], (b, h, m, n), beta=1.0)
    (_, got), plan = run_planned(net.finish(net.product(p, net.input(b, h, n, e), e), p), net.values)
    assert not plan.fused
    np.testing.assert_allclose(got.sum(axis=-1), 1, rtol=1e-5)


def test_reference_kernels_are_left_alone() -> None:
    net = Net(SIZES[0])
    _, plan = run_planned(net.finish(attention(net)), net.values, mode="ref")
    assert not plan.fused
