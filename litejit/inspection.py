"""What an interpreter tells about its model: details of tensors and operators, names, signatures."""

from __future__ import annotations

from typing import Any

from litejit.arrays import index_of
from litejit.details import operator_details, tensor_details
from litejit.errors import LiteJitError
from litejit.executor.session import Session
from litejit.model import Model
from litejit.names import position
from litejit.ops.base import Target
from litejit.signature import SignatureRunner
from litejit.store import Store


class Inspection:
    """The read-only part of an Interpreter, and its sessions, one per subgraph."""

    _model: Model
    _main: Session
    _sessions: dict[int, Session]
    _target: Target
    _store: Store
    _threads: int
    _fuse: bool
    _compress: bool
    _closed: bool

    @property
    def num_subgraphs(self) -> int:
        return len(self._model.subgraphs)

    @property
    def experimental_compress_quantization_zero_points(self) -> bool:
        return self._compress

    # ---- details ---------------------------------------------------------------------------------

    def get_input_details(self) -> list[dict[str, Any]]:
        """A dictionary per input of subgraph 0: name, index, shape, shape_signature, dtype, quantisation, sparsity."""
        return [self._details(self._main, i) for i in self._main.spec.inputs]

    def get_output_details(self) -> list[dict[str, Any]]:
        """A dictionary per output of subgraph 0."""
        return [self._details(self._main, i) for i in self._main.spec.outputs]

    def get_tensor_details(self, subgraph_index: int = 0) -> list[dict[str, Any]]:
        """A dictionary per tensor of a subgraph."""
        session = self._session(
            self._check_subgraph(
                subgraph_index, "subgraph_index is out of range: {} for the model, which has {} subgraphs."
            )
        )
        return [self._details(session, tensor.index) for tensor in session.spec.tensors]

    def _details(self, session: Session, index: int) -> dict[str, Any]:
        self._check_open()
        self._check_index(session, index)
        return tensor_details(session.spec.tensors[index], session.shape(index), self._compress)

    def _get_tensor_details(self, tensor_index: int, subgraph_index: int = 0) -> dict[str, Any]:
        session = self._session(
            self._check_subgraph(
                subgraph_index, "subgraph_index is out of range: {} for the model, which has {} subgraphs."
            )
        )
        return self._details(session, index_of(tensor_index))

    def _get_op_details(self, op_index: int) -> dict[str, Any]:
        index = index_of(op_index, "node index")
        if not 0 <= index < len(self._main.spec.operators):
            raise LiteJitError(f"Invalid node index: {index}; subgraph 0 has {len(self._main.spec.operators)} nodes")
        return operator_details(self._model, index)

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return [operator_details(self._model, i) for i in range(len(self._main.spec.operators))]

    def get_input_index(self, name: str) -> int:
        """Position of an input among the inputs, by tensor or signature name. Raises LiteJitError listing the names."""
        return position(self._model, name, "inputs")

    def get_output_index(self, name: str) -> int:
        """Position of an output among the outputs, by tensor or signature name. Raises LiteJitError listing the names."""
        return position(self._model, name, "outputs")

    # ---- signatures ------------------------------------------------------------------------------

    def get_signature_list(self) -> dict[str, dict[str, list[str]]]:
        """{key: {"inputs": names, "outputs": names}}, names sorted."""
        return {
            key: {side: list(names) for side, names in sides.items()}
            for key, sides in self._get_full_signature_list().items()
        }

    def _get_full_signature_list(self) -> dict[str, dict[str, dict[str, int]]]:
        full: dict[str, dict[str, dict[str, int]]] = {}
        for s in self._model.signatures:
            full.setdefault(s.key, {"inputs": dict(s.inputs), "outputs": dict(s.outputs)})
        return full

    def get_signature_runner(self, signature_key: str | None = None) -> SignatureRunner:
        """A callable for a signature; the key may be left out where there is exactly one. Raises LiteJitError."""
        self._check_open()
        if signature_key is None:
            keys = list(self._get_full_signature_list())
            if len(keys) != 1:
                raise LiteJitError(
                    f"SignatureDef signature_key is None and model has {len(keys)} Signatures. None is only "
                    f"allowed when the model has 1 SignatureDef; keys: {keys}"
                )
            signature_key = keys[0]
        return SignatureRunner(self, signature_key)  # type: ignore[arg-type]

    # ---- sessions and checks ----------------------------------------------------------------------

    def _session(self, index: int) -> Session:
        session = self._sessions.get(index)
        if session is None:
            session = self._sessions[index] = Session(
                self._model, index, self._target, self._store, self._threads, self._fuse
            )
        return session

    def _check_open(self) -> None:
        if self._closed:
            raise LiteJitError("this interpreter is closed")

    def _check_index(self, session: Session, index: int) -> None:
        count = len(session.spec.tensors)
        if not 0 <= index < count:
            raise LiteJitError(f"Invalid tensor index {index} exceeds max tensor index {count}")

    def _check_subgraph(self, subgraph: Any, text: str) -> int:
        self._check_open()
        index, count = index_of(subgraph, "subgraph index"), len(self._model.subgraphs)
        if not 0 <= index < count:
            raise LiteJitError(text.format(index, count))
        return index
