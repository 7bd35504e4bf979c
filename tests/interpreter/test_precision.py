"""The argument `precision`: what it takes, what it changes in a plan, and that nothing else changes the bits."""

from __future__ import annotations

import copy
import logging
import pickle
from typing import Any

import numpy as np
import pytest

from litejit.compiler import cpu
from litejit.demo import MODELS, digits, model_input
from litejit.interpreter import Interpreter, OpResolverType
from litejit.model import Model


def run(interpreter: Interpreter) -> Any:
    """Probabilities of the first hundred digits."""
    images, _ = digits()
    interpreter.resize_tensor_input(0, (100, 8, 8, 1))
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, model_input(images[:100], interpreter.get_input_details()[0]))
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


@pytest.mark.parametrize("precision", ["float8", "bf16", "", None, 16])
def test_other_precisions_are_refused(precision: Any) -> None:
    with pytest.raises(ValueError, match=r"must be 'float32' or 'bfloat16', not "):
        Interpreter(MODELS["float"], precision=precision)


@pytest.mark.usefixtures("bf16_cpu")
def test_plans_show_it() -> None:
    model = Model.from_file(MODELS["float"])
    names = {}
    for precision in ("float32", "bfloat16"):
        interpreter = Interpreter(model=model, precision=precision)
        interpreter.allocate_tensors()
        names[precision] = {s.kernel.name for s in interpreter.plan.steps if s.macs}
        assert ("bfloat16" in str(interpreter.plan)) == ("bfloat16" in interpreter.source) == (precision == "bfloat16")
    assert names["bfloat16"] == {"conv_bf16", "product_bf16_row"}
    assert not any("bf16" in name for name in names["float32"])


@pytest.mark.usefixtures("bf16_cpu")
def test_every_way_gives_the_same_bits() -> None:
    model = Model.from_file(MODELS["float"])
    exact = run(Interpreter(model=model))
    made = Interpreter(model=model, precision="bfloat16")
    once = run(made)
    assert not np.array_equal(once, exact) and np.abs(once - exact).max() < 0.02
    others = [
        Interpreter(model=model, precision="bfloat16", num_threads=2),
        Interpreter(model=model, precision="bfloat16", fuse=False),
        Interpreter(model=model, precision="bfloat16", experimental_preserve_all_tensors=True),
        copy.copy(made),
        pickle.loads(pickle.dumps(made)),
    ]
    for other in others:
        np.testing.assert_array_equal(run(other), once)
    np.testing.assert_array_equal(run(Interpreter(model=model)), exact)


@pytest.mark.usefixtures("bf16_cpu")
def test_reference_kernels_and_integers_are_left_alone() -> None:
    for name, resolver in (("float", OpResolverType.BUILTIN_REF), ("int8", OpResolverType.AUTO)):
        a, b = (
            Interpreter(MODELS[name], experimental_op_resolver_type=resolver, precision=precision)
            for precision in ("float32", "bfloat16")
        )
        np.testing.assert_array_equal(run(a), run(b))


def test_without_the_instruction(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(cpu, "_chosen", cpu.target()._replace(bf16=False))
    caplog.set_level(logging.DEBUG, "litejit")
    made = Interpreter(MODELS["float"], precision="bfloat16")
    lines = [r.getMessage() for r in caplog.records if r.name == "litejit" and "bfloat16" in r.getMessage()]
    assert lines == [f"no bfloat16 instructions on {cpu.target().name}: computing in float32"]
    np.testing.assert_array_equal(run(made), run(Interpreter(MODELS["float"])))
    assert "bfloat16" not in str(made.plan)
    assert pickle.loads(pickle.dumps(made))._precision == "bfloat16"
