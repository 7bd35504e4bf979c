"""Rule "unread": what nobody reads is not computed, unless it has an effect or may refuse its input."""
from __future__ import annotations

import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.interpreter import Interpreter, OpResolverType
from litejit.planner.plan import Plan
from litejit.schema.builder import ModelBuilder


def planned(content: bytes) -> Plan:
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return interpreter.plan


def steps(content: bytes) -> list[str]:
    return [step.node.op for step in planned(content).steps]


def chain(kept: bool = False) -> bytes:
    """y = abs(x), and exp(-x) that nobody reads."""
    builder = ModelBuilder()
    g = builder.subgraph()
    x = g.input("x", (4,))
    late = g.add("EXP", [g.add("NEG", [x], ("negative", (4,)))], ("late", (4,)))
    y = g.add("ABS", [x], ("y", (4,)))
    g.outputs(*([y, late] if kept else [y]))
    return builder.build()


def test_a_chain_that_nobody_reads_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    content, x = chain(), np.array([-1, 2, -3, 0], np.float32)
    interpreter = Interpreter(model_content=content)
    assert np.array_equal(interpreter.run([x])["y"], np.abs(x))
    assert steps(content) == ["ABS"]
    assert interpreter.plan.fused[:2] == ("node 0 NEG: nobody reads it", "node 1 EXP: nobody reads it")
    monkeypatch.setenv("LITEJIT_FUSION_OFF", "all")
    assert steps(content) == ["NEG", "EXP", "ABS"]


def test_outputs_and_preserved_tensors_are_read() -> None:
    assert not [note for note in planned(chain(kept=True)).fused if "nobody" in note]
    content, x = chain(), np.array([-1, 2, -3, 0], np.float32)
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.run([x])
    assert np.array_equal(interpreter.get_tensor(1), -x)


@pytest.mark.parametrize("mode", [OpResolverType.BUILTIN_REF, OpResolverType.AUTO])
def test_what_may_refuse_its_input_stays(mode: OpResolverType) -> None:
    builder = ModelBuilder()
    g = builder.subgraph()
    x, at = g.input("x", (4,)), g.input("at", (1,), "INT32")
    g.add("GATHER", [x, at], ("picked", (1,)))
    g.outputs(g.add("ABS", [x], ("y", (4,))))
    interpreter = Interpreter(model_content=builder.build(), experimental_op_resolver_type=mode)
    interpreter.allocate_tensors()
    interpreter.set_tensor(1, np.array([9], np.int32))
    with pytest.raises(LiteJitError, match="GATHER"):
        interpreter.invoke()
