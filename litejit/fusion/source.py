"""The readable source of a fused function: a named line per step, shapes in comments."""

from __future__ import annotations

from litejit.compiler.lazy import Linked
from litejit.ops.base import Packed, Scratch, Step
from litejit.planner.graph import TYPES, Value
from litejit.planner.lower import Jump
from litejit.planner.plan import Plan


def source(plan: Plan) -> str:
    """Source text of the function that `fusion.driver` compiles: what runs, in order, on which memory."""
    labels = {r.to.at for r in plan.records if isinstance(r, Jump)}
    lines = [
        f'"""{plan.summary()}"""',
        "",
        f"def fused_{_word(plan.graph.name) or plan.graph.index}(arena, state, constants):",
    ]
    for at, record in enumerate(plan.records):
        if at in labels:
            lines.append(f"  label_{at}:")
        if isinstance(record, Jump):
            condition = "" if record.flag is None else f"if not {_name(plan, record.flag)}: "
            lines.append(f"    {condition}goto label_{record.to.at}")
        else:
            lines += _step(plan, at, record)
    if len(plan.records) in labels:
        lines.append(f"  label_{len(plan.records)}:")
    return "\n".join([*lines, "    return 0", ""])


def _step(plan: Plan, at: int, step: Step) -> list[str]:
    node = step.node
    shapes = ", ".join(f"{TYPES[v.type][0].lower()}[{'x'.join(map(str, v.dims))}]" for v in node.outputs)
    head = f"    # step {at}: node {node.index} {node.op} -> {shapes}" + (f"  [{step.note}]" if step.note else "")
    called = [f"        # node {call.node.index} {call.node.op}: {_call(plan, call)}" for call in step.calls]
    return [head, f"    {_call(plan, step)}", *called]


def _call(plan: Plan, step: Step) -> str:
    arguments = []
    for name, value in step.params.items():
        if isinstance(value, Value):
            text = _name(plan, value)
        elif isinstance(value, Packed):
            text = f"constants[{value.key!r}]" if len(repr(value.key)) < 60 else "constants[...]"
        elif isinstance(value, Scratch):
            text = f"arena + {plan.offsets[value]}"
        elif isinstance(value, Linked):
            text = value.name
        else:
            text = "None" if value is None else str(value)
        arguments.append(f"{name}={text}")
    return f"{step.kernel.name}({', '.join(arguments)}, chunks={step.chunks})"


def _name(plan: Plan, value: Value) -> str:
    place = plan.place(value)
    if place is None:
        return f"T{value.index}"
    return f"constants[T{value.index}]" if place.kind == "constant" else f"{place.kind} + {place.offset}"


def _word(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in text)
