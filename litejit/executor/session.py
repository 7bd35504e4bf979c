"""A subgraph in use: its current input shapes, its plan and its runner. What an Interpreter keeps per subgraph."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from litejit.errors import LiteJitError
from litejit.ops.base import Target
from litejit.planner.build import constant_array, refuse_missing_customs
from litejit.planner.graph import SHORT, Value

if TYPE_CHECKING:
    from litejit.executor.runner import Runner
    from litejit.model import Model
    from litejit.store import Store


class Session:
    """One subgraph of a model with memory of its own."""

    def __init__(self, model: Model, index: int, target: Target, store: Store, threads: int, fuse: bool) -> None:
        self.model, self.index, self.target, self.store = model, index, target, store
        self.threads, self.fuse = threads, fuse
        self.spec = model.subgraphs[index]
        self.shapes = [tuple(self.spec.tensors[i].shape) for i in self.spec.inputs]
        self.runner: Runner | None = None
        self.ready = False
        self.settable: dict[int, np.ndarray] = {}  # inputs' memory by tensor index: the quick way of set_tensor
        self.gettable: dict[int, np.ndarray] = {}  # what `memory` found
        self._constants: dict[int, np.ndarray | None] = {}

    # ---- shapes ----
    def shape(self, tensor: int) -> tuple[int, ...]:
        """The current shape of a tensor: of the plan if it is allocated, else resized or as in the file."""
        if tensor in self.spec.inputs:
            return self.shapes[self.spec.inputs.index(tensor)]
        if self.runner is not None:
            shape = self.runner.plan.graph.values[tensor].shape
            if shape is not None:
                return shape  # type: ignore[no-any-return]
        return tuple(self.spec.tensors[tensor].shape)

    def resize(self, tensor: int, shape: tuple[int, ...], strict: bool = False) -> None:
        """Set the shape of an input; the session has to be allocated again if it changed. Raises LiteJitError."""
        spec = self.spec.tensors[tensor]
        if tensor not in self.spec.inputs:
            kind = "a fixed-size tensor" if spec.data is not None else "a tensor that is not an input"
            raise LiteJitError(
                f"Attempting to resize {kind}. (tensor {tensor} '{spec.name}'; the inputs are "
                f"{[int(i) for i in self.spec.inputs]})"
            )
        if spec.data is not None:
            raise LiteJitError(
                f"Attempting to resize a fixed-size tensor. (tensor {tensor} '{spec.name}' is a constant)"
            )
        if strict:
            self._check_strict(tensor, shape)
        for position, index in enumerate(self.spec.inputs):
            if index == tensor and self.shapes[position] != shape:
                self.shapes[position] = shape
                self.forget()

    def _check_strict(self, tensor: int, shape: tuple[int, ...]) -> None:
        current = self.shape(tensor)
        if len(shape) != len(current):
            raise LiteJitError(
                f"tensor->dims->size != dims.size() ({len(current)} != {len(shape)}): strict resizing keeps the "
                f"rank of tensor {tensor}"
            )
        signature = self.spec.tensors[tensor].shape_signature or current
        for k, (old, new) in enumerate(zip(current, shape)):
            if signature[k] != -1 and old != new:
                raise LiteJitError(
                    f"Attempting to resize dimension {k} of tensor {tensor} with value {old} to {new}. "
                    "ResizeInputTensorStrict only allows mutating unknown dimensions identified by -1."
                )

    # ---- memory ----
    def allocate(self) -> None:
        """Plan, compile or load, and give memory; nothing happens if it is allocated for these shapes already.

        Raises LiteJitError naming the node that cannot be prepared; the session is not ready then.
        """
        if self.ready:
            return
        from litejit.executor.runner import Runner
        from litejit.planner.make import make_plan

        refuse_missing_customs(self.model)
        try:
            plan = make_plan(self.model, self.index, tuple(self.shapes), self.target)
            if self.runner is None or self.runner.plan is not plan:
                if self.runner is not None:
                    self.runner.quiesce()
                self.runner = Runner(plan, self.store, self.threads, self.fuse)
        except MemoryError as error:
            raise LiteJitError(
                f"not enough memory for subgraph {self.index} with inputs of shapes {self.shapes}"
            ) from error
        self.ready = True
        for value in plan.graph.inputs:
            view = self.runner.view(value)
            if value.data is None and value.type not in ("i4", "u4", "i2") and view is not None:
                self.settable[value.index] = view

    def forget(self) -> None:
        """The shapes changed: not ready until it is allocated again."""
        self.ready = False
        self.settable.clear()
        self.gettable.clear()

    def value(self, tensor: int) -> Value:
        """The graph's value of a tensor; the session must be allocated."""
        return self.runner.plan.graph.values[tensor]  # type: ignore[union-attr,no-any-return]

    def constant(self, tensor: int) -> np.ndarray | None:
        """The contents of a constant tensor, read-only, or None."""
        if tensor not in self._constants:
            spec = self.spec.tensors[tensor]
            found = None
            if spec.data is not None and not spec.is_variable:
                found = constant_array(spec, SHORT[spec.type.name])
                if found is not None:
                    found = found.view()
                    found.flags.writeable = False
            self._constants[tensor] = found
        return self._constants[tensor]

    def memory(self, tensor: int) -> np.ndarray | None:
        """The memory that holds a tensor's own contents now, or None: not allocated, or shared with other tensors."""
        found = self.gettable.get(tensor)
        if found is None:
            found = self._find_memory(tensor)
            if found is not None:
                self.gettable[tensor] = found
        return found

    def _find_memory(self, tensor: int) -> np.ndarray | None:
        constant = self.constant(tensor)
        if constant is not None:
            return constant
        if self.runner is None or not self.ready:
            return None
        value = self.value(tensor)
        graph = self.runner.plan.graph
        lasting = value in graph.inputs or value in graph.outputs or value.variable or value.data is not None
        return self.runner.view(value) if lasting or self.target.preserve else None

    def close(self) -> None:
        """Let go of the memory."""
        if self.runner is not None:
            self.runner.quiesce()
        self.runner = None
        self.forget()

