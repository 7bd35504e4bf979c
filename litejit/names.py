"""Names of a model's inputs and outputs: of the only signature of subgraph 0, or of the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litejit.arrays import index_of
from litejit.errors import LiteJitError
from litejit.model import Model


def only_signature(model: Model) -> Any:
    """The signature of subgraph 0, if there is exactly one."""
    own = [s for s in model.signatures if s.subgraph == 0]
    return own[0] if len(own) == 1 else None


def position(model: Model, name: str, side: str) -> int:
    """Where the tensor called `name` stands among the "inputs" or "outputs". Raises LiteJitError listing the names."""
    graph = model.subgraphs[0]
    indices = list(getattr(graph, side))
    names = [graph.tensors[i].name for i in indices]
    signature = only_signature(model)
    own = getattr(signature, side) if signature is not None else {}
    if name in own:
        return indices.index(own[name])
    if name in names:
        return names.index(name)
    raise LiteJitError(f"no {side[:-1]} is called {name!r}; the {side} are {[*own, *names]}")


def output_names(model: Model) -> list[str]:
    """A name for every output, all different: the signature's, the tensor's, or output_<position>."""
    graph = model.subgraphs[0]
    names = [graph.tensors[i].name or "" for i in graph.outputs]
    signature = only_signature(model)
    if signature is not None:
        own = {index: name for name, index in signature.outputs.items()}
        names = [own.get(i, n) for i, n in zip(graph.outputs, names)]
    return [n if n and names.count(n) == 1 else f"output_{k}" for k, n in enumerate(names)]


def inputs_by_position(model: Model, inputs: Any) -> dict[int, Any]:
    """{position: value} from a mapping by name or position, a sequence in order, or a single value.

    Raises LiteJitError for names that are unknown or missing.
    """
    graph = model.subgraphs[0]
    count = len(graph.inputs)
    if inputs is None:
        found = {}
    elif isinstance(inputs, Mapping):
        found = {
            position(model, k, "inputs") if isinstance(k, str) else index_of(k, "input position"): v
            for k, v in inputs.items()
        }
    elif isinstance(inputs, (list, tuple)) and not (count == 1 and len(inputs) != 1):
        found = dict(enumerate(inputs))
    else:
        found = {0: inputs}
    if sorted(found) != list(range(count)):
        names = [graph.tensors[i].name for i in graph.inputs]
        raise LiteJitError(f"the model has {count} inputs, {names}; given were values for {sorted(found)}")
    return found
