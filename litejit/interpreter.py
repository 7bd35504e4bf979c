"""Interpreter: `tf.lite.Interpreter` on litejit. `import litejit.interpreter as tflite` is the one changed import."""

from __future__ import annotations

import enum
import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from litejit.arguments import model_of, precision_of, thread_count
from litejit.arrays import as_array, checked, index_of, shape_of
from litejit.delegates import Delegate, load_delegate
from litejit.errors import LiteJitError
from litejit.executor.session import Session
from litejit.inspection import Inspection
from litejit.leases import Exclusive, Lease
from litejit.model import Model
from litejit.names import inputs_by_position, output_names
from litejit.ops.base import Target
from litejit.planner.build import refuse_missing_builtins
from litejit.signature import SignatureRunner, own_copy

if TYPE_CHECKING:
    from litejit.planner.plan import Plan

__all__ = ["Delegate", "Interpreter", "OpResolverType", "SignatureRunner", "load_delegate"]


@enum.unique
class OpResolverType(enum.Enum):
    """Which arithmetic: LiteRT's default, its reference kernels, or its kernels without XNNPACK."""

    AUTO = 0
    BUILTIN = 1
    BUILTIN_REF = 2
    BUILTIN_WITHOUT_DEFAULT_DELEGATES = 3


_MODES = {
    OpResolverType.AUTO: "auto",
    OpResolverType.BUILTIN: "auto",
    OpResolverType.BUILTIN_REF: "ref",
    OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES: "opt",
}


class Interpreter(Inspection):
    """Runs a TensorFlow Lite model.

    model_path or model_content: the file (any path) or its bytes (any buffer). num_threads: None or 0 is 1, -1 all cores.
    experimental_op_resolver_type: the arithmetic. experimental_preserve_all_tensors: keep intermediate tensors readable.
    The other arguments of the original are accepted; delegates must be None. Of litejit's own, keyword only:
    model (a `Model` to share instead of a file), fuse (one compiled function per subgraph, or step by step through a
    table), cache_dir (the store of compiled code), precision ("float32", or "bfloat16": float32 convolutions and matrix
    products of bfloat16 numbers, where the CPU has the instruction).

    Raises LiteJitError (a ValueError and a RuntimeError) for models that cannot be read or run, ValueError and TypeError
    for bad arguments.
    """

    def __init__(
        self,
        model_path: Any = None,
        model_content: Any = None,
        experimental_delegates: Any = None,
        num_threads: Any = None,
        experimental_op_resolver_type: OpResolverType = OpResolverType.AUTO,
        experimental_preserve_all_tensors: bool = False,
        experimental_disable_delegate_clustering: bool = False,
        experimental_default_delegate_latest_features: bool = False,
        experimental_compress_quantization_zero_points: bool = False,
        experimental_disable_delegate_node_fusion: bool = False,
        experimental_force_delegate_node_profiling: bool = False,
        *,
        model: Model | None = None,
        fuse: bool = True,
        cache_dir: Any = None,
        precision: str = "float32",
    ) -> None:
        self._closed = True
        if not isinstance(experimental_op_resolver_type, OpResolverType):
            raise ValueError(f"Unrecognized passed in op resolver type: {experimental_op_resolver_type}")
        if experimental_delegates:
            raise LiteJitError("litejit has no delegates: experimental_delegates must be None or empty")
        self._precision = precision_of(precision)
        self._threads = thread_count(num_threads)
        self._model = model_of(model_path, model_content, model)
        refuse_missing_builtins(self._model)
        from litejit.compiler.cpu import target
        from litejit.planner.fuse import switched_off
        from litejit.store import open_store

        self._resolver, self._fuse, self._cache_dir = experimental_op_resolver_type, bool(fuse), cache_dir
        self._compress = bool(experimental_compress_quantization_zero_points)
        self._target = Target(
            target(), _MODES[experimental_op_resolver_type], self._precision, bool(experimental_preserve_all_tensors),
            switched_off(),
        )
        self._store = open_store(cache_dir)
        self._sessions: dict[int, Session] = {}
        self._lock = threading.RLock()
        self._views: list[weakref.ref[Lease]] = []
        self._delegates: list[Any] = []
        self._closed = False
        self._main = self._session(0)

    # ---- life ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Free the memory; later calls raise ValueError. May be called again."""
        if not self._closed:
            with self._lock:
                for session in self._sessions.values():
                    session.close()
                self._closed = True

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __reduce__(self) -> Any:
        options = {
            "num_threads": self._threads,
            "experimental_op_resolver_type": self._resolver,
            "experimental_preserve_all_tensors": self._target.preserve,
            "model": self._model,
            "fuse": self._fuse,
            "experimental_compress_quantization_zero_points": self._compress,
            "cache_dir": self._cache_dir,
            "precision": self._precision,
        }
        return _restore, (options, list(self._main.shapes), self._main.ready)

    def __copy__(self) -> Interpreter:
        return self.__reduce__()[0](*self.__reduce__()[1])  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        state = "closed" if self._closed else "allocated" if self._main.ready else "not allocated"
        path = self._model.path
        name = os.fsdecode(path) if path else "a buffer"
        return f"<Interpreter of {name}, {self._threads} thread(s), {state}>"

    @property
    def model(self) -> Model:
        """The model, which other interpreters may share."""
        return self._model

    @property
    def plan(self) -> Plan:
        """The plan of subgraph 0; allocate_tensors must have been called."""
        self._check_ready(self._main, "the plan")
        return self._main.runner.plan  # type: ignore[union-attr]

    @property
    def source(self) -> str:
        """Readable source of the compiled function of subgraph 0."""
        from litejit.fusion.source import source

        return source(self.plan)

    # ---- running ---------------------------------------------------------------------------------

    def allocate_tensors(self) -> None:
        """Plan, compile (or load what is compiled) and give memory for the current input shapes.

        Raises LiteJitError naming the operator that cannot be prepared, RuntimeError while a view of `tensor()` lives.
        """
        with self._exclusive():
            self._check_views()
            self._main.allocate()

    def invoke(self) -> None:
        """Run the model. Releases the GIL.

        Raises RuntimeError before allocate_tensors, while a view of `tensor()` lives, or while another thread is
        inside a call of this interpreter; LiteJitError naming the operator that failed.
        """
        if not self._lock.acquire(False):
            raise LiteJitError("this interpreter is already running in another thread")
        try:
            if self._views:
                self._check_views()
            session = self._main
            if not session.ready:
                self._check_open()
                raise LiteJitError("Invoke called on model that is not ready. Call allocate_tensors() first.")
            session.runner.run()  # type: ignore[union-attr]
        finally:
            self._lock.release()

    def run(self, inputs: Any = None, out: Mapping[Any, np.ndarray] | None = None) -> dict[str, Any]:
        """Run on new inputs and return {output name: array}.

        inputs: a mapping by name (of a tensor, or of the only signature), a sequence in input order, or a single array for
        a model with one input. Inputs are resized to the values' shapes. out: {name or position: array to fill}.
        Raises LiteJitError for unknown or missing names, wrong types, and shapes that the model cannot take.
        """
        given = inputs_by_position(self._model, inputs)
        arrays = {self._main.spec.inputs[p]: as_array(value) for p, value in given.items()}
        outputs = list(self._main.spec.outputs)
        names = output_names(self._model)
        results = self._call(0, arrays, outputs)
        for key, buffer in (out or {}).items():
            result = results[self.get_output_index(key) if isinstance(key, str) else index_of(key, "output position")]
            if np.shape(buffer) != np.shape(result) or buffer.dtype != np.asarray(result).dtype:
                raise LiteJitError(
                    f"out[{key!r}] has shape {np.shape(buffer)} and type {buffer.dtype}, the output "
                    f"{np.shape(result)} and {np.asarray(result).dtype}"
                )
            buffer[...] = result
        return dict(zip(names, results))

    def __call__(self, inputs: Any) -> dict[str, Any]:
        """The same as `run`."""
        return self.run(inputs)

    def _call(self, subgraph: int, arrays: dict[int, np.ndarray], outputs: Sequence[int]) -> list[Any]:
        """Resize, allocate, set, run and copy the outputs of a subgraph."""
        with self._exclusive():
            self._check_views()
            session = self._session(subgraph)
            before = list(session.shapes)
            try:
                for tensor, array in arrays.items():
                    if session.spec.tensors[tensor].data is None and array.dtype.kind not in "OSU":
                        session.resize(tensor, tuple(array.shape))
                session.allocate()
                for tensor, array in arrays.items():
                    self._set(session, tensor, array)
            except Exception:
                if session.shapes != before:
                    session.shapes = before
                    session.forget()
                raise
            session.runner.run()  # type: ignore[union-attr]
            return [own_copy(self._memory(session, tensor)) for tensor in outputs]

    def reset_all_variables(self) -> None:
        """Variable tensors to their first contents."""
        with self._exclusive():
            for session in self._sessions.values():
                if session.runner is not None:
                    session.runner.reset_state()

    def profile(self, repeat: int = 20) -> Any:
        """Times of the steps of subgraph 0 on its current inputs: a `Profile`, which prints as a table.

        repeat: runs of which medians are taken. Variables are left as they were. Raises LiteJitError naming the operator
        that failed, ValueError for a `repeat` below 1.
        """
        from litejit.executor.profile import profile

        with self._exclusive():
            self._check_ready(self._main, "a profile")
            return profile(self._main.runner, repeat, self._store)  # type: ignore[arg-type]

    # ---- tensors ---------------------------------------------------------------------------------

    def set_tensor(self, tensor_index: int, value: Any) -> None:
        """Copy a value of exactly the tensor's type and shape into a tensor of subgraph 0. Raises LiteJitError."""
        if type(tensor_index) is int and type(value) is np.ndarray:
            memory = self._main.settable.get(tensor_index)
            if memory is not None and value.dtype == memory.dtype and value.shape == memory.shape:
                with self._lock:
                    memory[...] = value
                return
        with self._exclusive():
            self._set(self._main, index_of(tensor_index), value)

    def _set(self, session: Session, index: int, value: Any) -> None:
        self._check_index(session, index)
        spec = session.spec.tensors[index]
        if session.constant(index) is not None:
            raise LiteJitError(f"Cannot set tensor: tensor {index} '{spec.name}' is a constant of the model.")
        from litejit.planner.graph import SHORT, Value

        described = (
            session.value(index)
            if session.ready
            else Value(spec.name, index, session.index, SHORT[spec.type.name], session.shape(index))
        )
        array = checked(value, described, session.shape(index), index)
        if not session.ready:
            raise LiteJitError(
                "Cannot set tensor: Tensor is unallocated. Try calling allocate_tensors() first. "
                f"(tensor {index} '{spec.name}')"
            )
        memory = session.memory(index)
        if memory is None:
            raise LiteJitError(
                f"Cannot set tensor: tensor {index} '{spec.name}' is an intermediate result; it has memory of "
                "its own only with experimental_preserve_all_tensors=True."
            )
        memory[...] = array

    def get_tensor(self, tensor_index: int, subgraph_index: int = 0) -> Any:
        """A copy of a tensor's contents; scalars as NumPy scalars.

        Raises LiteJitError where the tensor has no contents of its own: before allocate_tensors, or an intermediate
        result without experimental_preserve_all_tensors.
        """
        if type(tensor_index) is int and subgraph_index == 0:
            memory = self._main.gettable.get(tensor_index)
            if memory is not None:
                with self._lock:
                    return own_copy(memory)
        with self._exclusive():
            session = self._session(
                self._check_subgraph(subgraph_index, "Invalid subgraph index {} exceeds max subgraph index {}")
            )
            return own_copy(self._memory(session, index_of(tensor_index)))

    def _memory(self, session: Session, index: int) -> np.ndarray:
        self._check_index(session, index)
        memory = session.memory(index)
        if memory is None:
            name = session.spec.tensors[index].name
            text = f"Tensor data is null. Run allocate_tensors() first. (tensor {index} '{name}'"
            if session.ready:
                text += (
                    " is an intermediate result whose memory is used again by others; it can be read with "
                    "experimental_preserve_all_tensors=True"
                )
            raise LiteJitError(text + ")")
        return memory

    def tensor(self, tensor_index: int) -> Any:
        """A function that gives a view of the tensor's current memory (constants read-only).

        While such a view lives, allocate_tensors, invoke, resize_tensor_input and run raise RuntimeError.
        """

        def view() -> np.ndarray:
            with self._exclusive():
                memory = self._memory(self._main, index_of(tensor_index))
                if not memory.flags.writeable or not memory.size:
                    return memory.view()
                lease = Lease(memory)
                self._views.append(weakref.ref(lease))
                return np.asarray(lease).view(memory.dtype)

        return view

    def resize_tensor_input(self, input_index: int, tensor_size: Any, strict: bool = False) -> None:
        """Change the shape of an input; call allocate_tensors afterwards. strict: only dimensions unknown in the file.

        Raises LiteJitError for tensors that are no inputs and shapes that are none.
        """
        with self._exclusive():
            self._check_views()
            index = index_of(input_index)
            count = len(self._main.spec.tensors)
            if not 0 <= index < count:
                raise LiteJitError(
                    "tensor_index < context_.tensors_size && tensor_index >= 0 was not true. "
                    f"(tensor index {index}, {count} tensors)"
                )
            self._main.resize(index, shape_of(tensor_size), bool(strict))

    # ---- checks ----------------------------------------------------------------------------------

    def _exclusive(self) -> Exclusive:
        self._check_open()
        return Exclusive(self._lock)

    def _check_ready(self, session: Session, what: str) -> None:
        self._check_open()
        if not session.ready:
            raise LiteJitError(f"{what} exists after allocate_tensors() only")

    def _safe_to_run(self) -> bool:
        self._views = [r for r in self._views if r() is not None]
        return not self._views

    def _ensure_safe(self) -> None:
        self._check_views()

    def _check_views(self) -> None:
        if self._views and not self._safe_to_run():
            raise LiteJitError(
                "There is at least 1 reference to internal data in the interpreter in the form of a numpy array or slice. "
                "Be sure to only hold the function returned from tensor() if you are using raw data access."
            )


def _restore(options: dict[str, Any], shapes: list[tuple[int, ...]], ready: bool) -> Interpreter:
    interpreter = Interpreter(**options)
    interpreter._main.shapes = list(shapes)
    if ready:
        interpreter.allocate_tensors()
    return interpreter
