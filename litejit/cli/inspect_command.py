"""`litejit inspect`: signatures, tensors, operators, metadata, plan and memory of a model; compiles nothing."""
from __future__ import annotations

import json
from typing import Any

import click

from litejit.cli.common import columns, count, mode_option, model_argument, precision_option, size
from litejit.errors import LiteJitError
from litejit.model import Model, Subgraph, Tensor


@click.command()
@model_argument
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
@click.option("--plan", "with_plan", is_flag=True, help="Show every step of the plan.")
@mode_option
@precision_option
def command(model: str, as_json: bool, with_plan: bool, mode: str, precision: str) -> None:
    """Show what MODEL is made of."""
    facts = describe(Model.from_file(model), mode, precision)
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    _print(facts, with_plan)


def describe(model: Model, mode: str = "auto", precision: str = "float32") -> dict[str, Any]:
    """Everything about a model that can be had without running it, as plain data."""
    return {
        "path": str(model.path) if model.path else None,
        "bytes": model.buffer.nbytes,
        "version": model.version,
        "description": model.description,
        "signatures": [{"key": s.key, "subgraph": s.subgraph, "inputs": dict(s.inputs), "outputs": dict(s.outputs)}
                       for s in model.signatures],
        "subgraphs": [_subgraph(g) for g in model.subgraphs],
        "metadata": {name: len(data) for name, data in model.metadata.items()},
        "associated_files": {name: len(model.associated_files[name]) for name in model.associated_files},
        "plan": _plan(model, mode, precision),
    }


def _subgraph(graph: Subgraph) -> dict[str, Any]:
    counts: dict[str, int] = {}
    for op in graph.operators:
        counts[op.name] = counts.get(op.name, 0) + 1
    return {
        "name": graph.name,
        "inputs": [_tensor(graph.tensors[i]) for i in graph.inputs],
        "outputs": [_tensor(graph.tensors[i]) for i in graph.outputs],
        "operators": dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        "tensors": [_tensor(t) for t in graph.tensors],
        "nodes": [{"index": op.index, "op": op.name, "version": op.version, "inputs": [int(i) for i in op.inputs],
                   "outputs": [int(i) for i in op.outputs]} for op in graph.operators],
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    found: dict[str, Any] = {"index": tensor.index, "name": tensor.name, "type": tensor.type.name,
                             "shape": [int(d) for d in tensor.shape]}
    if tensor.shape_signature:
        found["shape_signature"] = [int(d) for d in tensor.shape_signature]
    if tensor.quantization is not None and tensor.quantization.scales.size:
        q = tensor.quantization
        found["quantization"] = {"scales": [float(s) for s in q.scales[:4]],
                                 "zero_points": [int(z) for z in q.zero_points[:4]],
                                 "count": int(q.scales.size), "dimension": int(q.dimension)}
    if tensor.data is not None:
        found["constant_bytes"] = int(tensor.data.nbytes)
    if tensor.is_variable:
        found["variable"] = True
    return found


def _plan(model: Model, mode: str, precision: str) -> dict[str, Any]:
    """Steps and memory of subgraph 0, or why there is no plan."""
    from litejit.compiler.cpu import target
    from litejit.ops.base import Target
    from litejit.planner.build import refuse_missing_builtins, refuse_missing_customs
    from litejit.planner.make import make_plan

    graph = model.subgraphs[0]
    shapes = tuple(tuple(graph.tensors[i].shape) for i in graph.inputs)
    try:
        refuse_missing_builtins(model)
        refuse_missing_customs(model)
        plan = make_plan(model, 0, shapes, Target(target(), mode, precision))
    except LiteJitError as error:
        return {"error": str(error)}
    return {"summary": plan.summary(), "steps": [list(row) for row in plan.rows()], "fused": list(plan.fused),
            "kernels": [k.name for k in plan.kernels], "arena_bytes": plan.arena_size, "state_bytes": plan.state_size,
            "macs": plan.macs}


def _print(facts: dict[str, Any], with_plan: bool) -> None:
    echo = click.echo
    about = facts["description"] or "no description"
    echo(f"{facts['path']}: {size(facts['bytes'])}, schema {facts['version']}, {about}")
    for graph in facts["subgraphs"]:
        constant = sum(t.get("constant_bytes", 0) for t in graph["tensors"])
        echo(f"\nsubgraph {graph['name'] or '(no name)'}: {count(graph['nodes'], 'operator')}, "
             f"{count(graph['tensors'], 'tensor')}, {size(constant)} of constants")
        for side in ("inputs", "outputs"):
            for tensor in graph[side]:
                echo(f"  {side[:-1]:6} {_line(tensor)}")
        echo("  " + ", ".join(f"{name} {count}" for name, count in graph["operators"].items()))
    for s in facts["signatures"]:
        echo(f"\nsignature '{s['key']}': ({', '.join(s['inputs'])}) -> ({', '.join(s['outputs'])})")
    for what in ("metadata", "associated_files"):
        if facts[what]:
            echo(f"{what.replace('_', ' ')}: " + ", ".join(f"{name} ({size(n)})" for name, n in facts[what].items()))
    plan = facts["plan"]
    if "error" in plan:
        echo(f"\nno plan: {plan['error']}")
        return
    echo(f"\nplan: {plan['summary']}")
    echo(f"memory: arena {size(plan['arena_bytes'])}, state {size(plan['state_bytes'])}")
    if with_plan:
        from litejit.planner.plan import Plan

        echo(columns([Plan.HEAD, *plan["steps"]]))
        for note in plan["fused"]:
            echo(f"fused: {note}")


def _line(tensor: dict[str, Any]) -> str:
    shape = "x".join("?" if d == -1 else str(d) for d in tensor.get("shape_signature", tensor["shape"])) or "scalar"
    q = tensor.get("quantization")
    text = f", scale {q['scales'][0]:.6g} zero point {q['zero_points'][0]}" if q else ""
    return f"{tensor['index']:4} '{tensor['name']}' {tensor['type'].lower()}[{shape}]{text}"
