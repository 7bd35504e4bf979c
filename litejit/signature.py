"""SignatureRunner: a model's function called by name, with keyword arguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from litejit.arrays import as_array
from litejit.details import tensor_details
from litejit.errors import LiteJitError

if TYPE_CHECKING:
    from litejit.interpreter import Interpreter


class SignatureRunner:
    """Runs one signature of a model: `runner(x=array) -> {output name: array}`.

    Every call resizes the inputs to the values' shapes. Made by `Interpreter.get_signature_runner`.
    """

    def __init__(self, interpreter: Interpreter | None = None, signature_key: str | None = None) -> None:
        if not interpreter:
            raise LiteJitError("None interpreter provided.")
        if not signature_key:
            raise LiteJitError("None signature_key provided.")
        found = [s for s in interpreter.model.signatures if s.key == signature_key]
        if not found:
            raise LiteJitError(
                f'Invalid signature_key provided: "{signature_key}". This model has '
                f"{[s.key for s in interpreter.model.signatures]}"
            )
        self._interpreter, self._signature_key, self._signature_def = interpreter, signature_key, found[0]
        self._subgraph_index = found[0].subgraph
        self._inputs: dict[str, int] = dict(found[0].inputs)
        self._outputs = dict(found[0].outputs).items()

    def __call__(self, /, **kwargs: Any) -> dict[str, Any]:
        """Run with all inputs by name. Returns copies of the outputs by name, names sorted.

        Raises LiteJitError for missing or unknown names, wrong types, and shapes that the model cannot take.
        """
        if len(kwargs) != len(self._inputs):
            raise LiteJitError(
                "Invalid number of inputs provided for running a SignatureDef, expected "
                f"{len(self._inputs)} vs provided {len(kwargs)}: the inputs are {list(self._inputs)}"
            )
        for name in kwargs:
            if name not in self._inputs:
                raise LiteJitError(f"Invalid Input name ({name}) for SignatureDef: the inputs are {list(self._inputs)}")
        arrays = {self._inputs[name]: as_array(value) for name, value in kwargs.items()}
        results = self._interpreter._call(self._subgraph_index, arrays, [i for _, i in self._outputs])
        return {name: result for (name, _), result in zip(self._outputs, results)}

    def get_input_details(self) -> dict[str, dict[str, Any]]:
        """Details of the inputs by the signature's names."""
        return {name: self._details(index) for name, index in self._inputs.items()}

    def get_output_details(self) -> dict[str, dict[str, Any]]:
        """Details of the outputs by the signature's names."""
        return {name: self._details(index) for name, index in self._outputs}

    def _details(self, index: int) -> dict[str, Any]:
        session = self._interpreter._session(self._subgraph_index)
        return tensor_details(session.spec.tensors[index], session.shape(index))

    def __repr__(self) -> str:
        names = ", ".join(self._inputs)
        return f"SignatureRunner('{self._signature_key}': ({names}) -> {', '.join(n for n, _ in self._outputs)})"


def own_copy(array: np.ndarray) -> Any:
    """A copy that the caller owns; scalars as NumPy scalars."""
    return array.copy() if array.ndim else array[()]
