"""Rule "pad": the same numbers without the step, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from litejit.interpreter import Interpreter, OpResolverType
from litejit.schema.builder import ModelBuilder, Quant

VALID = 1


def content(op: str, dtype: str, pads: list[list[int]], size: int = 3, stride: int = 2, channels: int = 5,
            value: float | None = None, padding: int = VALID) -> bytes:
    rng, builder = np.random.default_rng(3), ModelBuilder()
    g, shape = builder.subgraph(), (1, 11, 9, channels)
    float_ = dtype == "FLOAT32"
    zero = {"INT8": 7, "UINT8": 120}.get(dtype, 0)
    q = None if float_ else Quant(0.1, zero)
    x = g.input("x", shape, dtype, q)
    padded = tuple(n + a + b for n, (a, b) in zip(shape, pads))
    more = [] if value is None else [g.constant("value", np.array(value, dtype.lower()), dtype, q)]
    inputs = [x, g.constant("pads", np.array(pads, np.int32)), *more]
    p = g.add("PAD" if value is None else "PADV2", inputs, ("p", padded, dtype, q))
    deep = op == "DEPTHWISE_CONV_2D"
    w = rng.normal(size=(1, size, size, padded[3]) if deep else (6, size, size, padded[3]))
    outputs = padded[3] if deep else 6
    kind = {"UINT8": np.uint8, "FLOAT32": np.float32}.get(dtype, np.int8)
    values = w.astype(np.float32) if float_ else (40 * w).clip(-127, 127).astype(np.int8).view(kind)
    wq = None if float_ else Quant(0.01, 128 if dtype == "UINT8" else 0)
    weights = g.constant("w", values, "FLOAT32" if float_ else dtype if dtype == "UINT8" else "INT8", wq)
    bias = g.constant("b", np.zeros(outputs, np.float32 if float_ else np.int32), None if float_ else "INT32",
                      None if float_ else Quant(0.001, 0))
    h, w_ = ((n - size) // stride + 1 for n in padded[1:3])
    y = g.add(op, [p, weights, bias], ("y", (1, h, w_, outputs), dtype, None if float_ else Quant(0.3, zero)), padding=padding,
              stride_w=stride, stride_h=stride, **({"depth_multiplier": 1} if deep else {}))
    g.outputs(y)
    return builder.build()


def run(model: bytes, mode: OpResolverType = OpResolverType.AUTO) -> tuple[np.ndarray, Interpreter]:
    interpreter = Interpreter(model_content=model, experimental_op_resolver_type=mode)
    detail = interpreter.get_input_details()[0]
    rng = np.random.default_rng(1)
    kind, shape = np.dtype(detail["dtype"]), detail["shape"]
    x = (rng.normal(size=shape) if kind.kind == "f" else rng.integers(0, 100, shape)).astype(kind)
    return next(iter(interpreter.run([x]).values())), interpreter


@pytest.mark.parametrize("mode", [OpResolverType.AUTO, OpResolverType.BUILTIN_REF])
@pytest.mark.parametrize(("size", "stride"), [(3, 2), (3, 1), (2, 2), (5, 3)])
@pytest.mark.parametrize("dtype", ["FLOAT32", "INT8", "UINT8"])
@pytest.mark.parametrize("op", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_border_becomes_padding(op: str, dtype: str, size: int, stride: int, mode: OpResolverType,
                                monkeypatch: pytest.MonkeyPatch) -> None:
    model = content(op, dtype, [[0, 0], [1, 1], [0, 2 if size > 2 else 1], [0, 0]], size, stride)
    got, fused = run(model, mode)
    assert [s.node.op for s in fused.plan.steps if s.node.op.startswith("PAD")] == []
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "pad")
    want, plain = run(model, mode)
    assert any(s.node.op == "PAD" for s in plain.plan.steps) and want.std() > 0
    if dtype == "FLOAT32":
        assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
    else:
        assert np.array_equal(got, want)


@pytest.mark.parametrize("options", [
    {"pads": [[0, 0], [1, 1], [1, 1], [0, 2]]}, {"pads": [[0, 0], [1, 1], [1, 1], [0, 0]], "value": 1.0},
    {"pads": [[0, 0], [1, 1], [1, 1], [0, 0]], "padding": 0}, {"pads": [[0, 0], [1, 1], [1, 1], [0, 0]], "size": 1},
    {"pads": [[0, 0], [1, 1], [3, 0], [0, 0]]}, {"pads": [[0, 0], [0, 3], [0, 0], [0, 0]]}])
def test_other_borders_stay(options: dict) -> None:
    _, interpreter = run(content("CONV_2D", "FLOAT32", **options))
    assert any(s.node.op.startswith("PAD") for s in interpreter.plan.steps)
