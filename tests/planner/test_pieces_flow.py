"""Rule "concat" in loops and branches, and in graphs at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from litejit.schema.builder import ModelBuilder
from tests.planner.test_pieces import content, differences, made, ops

# ---- control flow ----------------------------------------------------------------------------------

def loop(body: Callable[[Any, Any], Any]) -> bytes:
    """WHILE i < 3: i += 1; x [6] = body(x); y = NEG(x)."""
    builder = ModelBuilder()
    main, cond, inner = builder.subgraph("main"), builder.subgraph("cond"), builder.subgraph("body")
    i, _ = cond.input("i", (), "INT32"), cond.input("x", (6,))
    cond.outputs(cond.add("LESS", [i, cond.constant("limit", np.array(3, np.int32))], ("more", (), "BOOL")))
    i, x = inner.input("i", (), "INT32"), inner.input("x", (6,))
    up = inner.add("ADD", [i, inner.constant("one", np.array(1, np.int32))], ("up", (), "INT32"))
    inner.outputs(up, body(inner, x))
    start = main.add("EXP", [main.input("a", (6,))], ("start", (6,)))
    before = main.add("CONCATENATION", [start, main.add("ABS", [start], ("s", (6,)))], ("before", (12,)), axis=0)
    given = [main.constant("zero", np.array(0, np.int32)), start]
    _, x = main.add("WHILE", given, [("n", (), "INT32"), ("x", (6,))], cond_subgraph_index=1, body_subgraph_index=2)
    after = main.add("CONCATENATION", [x, before], ("after", (18,)), axis=0)
    main.outputs(main.add("NEG", [after], ("y", (18,))))
    return builder.build()


def halves(g: Any, x: Any) -> Any:
    return g.add("SPLIT", [g.constant("axis", np.array(0, np.int32)), x], [("p", (3,)), ("q", (3,))], num_splits=2)


def swapped(g: Any, x: Any) -> Any:
    """The halves of a loop's variable change places, one of them negated."""
    p, q = halves(g, x)
    return g.add("CONCATENATION", [g.add("NEG", [q], ("n", (3,))), p], ("t", (6,)), axis=0)


def joined_and_viewed(g: Any, x: Any) -> Any:
    """The body's output is a view of a part."""
    p, q = halves(g, x)
    big = g.add("CONCATENATION", [g.add("ABS", [p], ("m", (3,))), g.add("ADD", [p, q], ("d", (3,))),
                                  g.add("NEG", [q], ("n", (3,)))], ("big", (9,)), axis=0)
    begin, size = g.constant("begin", np.array([3], np.int32)), g.constant("size", np.array([6], np.int32))
    cut = g.add("SLICE", [big, begin, size], ("cut", (6,)))
    return g.add("RESHAPE", [cut, g.constant("s", np.array([6], np.int32))], ("view", (6,)))


@pytest.mark.parametrize("body", [swapped, joined_and_viewed])
def test_loops(body: Callable[[Any, Any], Any]) -> None:
    model = loop(body)
    found = ops(made(model))
    assert "SPLIT" not in found
    assert found.count("CONCATENATION") == (1 if body is swapped else 0)
    assert differences(model) == []


def test_branches() -> None:
    builder = ModelBuilder()
    main, then, other = builder.subgraph("main"), builder.subgraph("then"), builder.subgraph("else")
    for g, op in ((then, "NEG"), (other, "EXP")):
        p, q = halves(g, g.input("x", (6,)))
        made_ = g.add(op, [q], ("n", (3,)))
        g.outputs(g.add("CONCATENATION", [made_, p, made_], ("out", (9,)), axis=0))
    cond, x = main.input("cond", (1,), "BOOL"), main.input("x", (6,))
    t = main.add("ABS", [x], ("t", (6,)))
    out = main.add("IF", [cond, t], ("o", (9,)), then_subgraph_index=1, else_subgraph_index=2)
    both = main.add("CONCATENATION", [t, out], ("both", (15,)), axis=0)
    main.outputs(main.add("NEG", [both], ("y", (15,))))
    model = builder.build()
    for flag in (True, False):
        value = np.linspace(-1, 1, 6, dtype=np.float32)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LITEJIT_FUSION_OFF", "concat")
            wanted = made(model).run([np.array([flag]), value])["y"]
        for fuse in (True, False):
            assert np.array_equal(made(model, fuse=fuse).run([np.array([flag]), value])["y"], wanted)
    assert differences(model) == []


# ---- at random -------------------------------------------------------------------------------------

def random_graph(g: Any, rng: np.random.Generator) -> list[Any]:
    """Elementwise operators, joins, cuts and views of vectors."""
    known = [(g.input(f"x{k}", (n,)), n) for k, n in enumerate((4, 6, 9))]
    known.append((g.constant("c", np.arange(5, dtype=np.float32)), 5))
    for k in range(24):
        x, n = known[rng.integers(len(known))]
        kind = rng.integers(4)
        if kind == 0:
            known.append((g.add(str(rng.choice(["NEG", "ABS", "RELU"])), [x], (f"t{k}", (n,))), n))
        elif kind == 1:
            parts = [(x, n), *(known[rng.integers(len(known))] for _ in range(rng.integers(1, 3)))]
            total = sum(size for _, size in parts)
            if total < 80:
                known.append((g.add("CONCATENATION", [part for part, _ in parts], (f"t{k}", (total,)), axis=0), total))
        elif kind == 2:
            at = int(rng.integers(1, n)) if n > 1 else 1
            given = [g.constant(f"{k} {i}", np.array(v, np.int32)) for i, v in enumerate(((at, n - at), 0))]
            out = g.add("SPLIT_V", [x, *given], [(f"t{k}", (at,)), (f"u{k}", (n - at,))], num_splits=2)
            known += [p for p in zip(out, (at, n - at)) if p[1]]
        else:
            shape = np.array([1, n], np.int32)
            row = g.add("RESHAPE", [x, g.constant(f"{k} s", shape)], (f"r{k}", (1, n)))
            known.append((g.add("RESHAPE", [row, g.constant(f"{k} t", shape[1:])], (f"t{k}", (n,))), n))
    made_here = {tensor.index: tensor for tensor, _ in known[4:]}
    chosen = rng.choice(list(made_here), min(4, len(made_here)), replace=False)
    return [made_here[int(i)] for i in chosen]


@pytest.mark.parametrize("seed", range(24))
def test_random_graphs(seed: int) -> None:
    assert differences(content(lambda g: random_graph(g, np.random.default_rng(seed)))) == []


# ---- tensors that two nodes write --------------------------------------------------------------------

def test_what_is_written_twice_is_copied() -> None:
    """The second one comes when the first joined tensor is still needed."""
    def build(g: Any) -> Any:
        x = g.input("x", (4,))
        a, b = g.add("EXP", [x], ("a", (4,))), g.add("ABS", [x], ("b", (4,)))
        t = g.add("CONCATENATION", [a, b], ("t", (8,)), axis=0)
        g.add("NEG", [x], a)
        return g.add("NEG", [t], ("y", (8,))), g.add("ABS", [a], ("z", (4,)))
    model = content(build)
    interpreter = made(model)
    assert "CONCATENATION" in ops(interpreter)
    assert interpreter.plan.fused == ("node 2 CONCATENATION: inputs 1 are written in place",)
    x = np.array([1, -2, 3, -4], np.float32)
    assert np.allclose(interpreter.run([x])["y"], -np.concatenate([np.exp(x), np.abs(x)]))
