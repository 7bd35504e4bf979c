"""The exceptions of litejit.

Everything inherits from RuntimeError and ValueError, because the original runtime raises the first where its
documents promise the second, and programs catch either.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class LiteJitError(RuntimeError, ValueError):
    """Base of all errors of litejit: a model, a tensor or a call that cannot be served."""


class ModelError(LiteJitError):
    """A model file that is damaged, inconsistent, or not a model at all."""


class ModelFileError(ModelError, FileNotFoundError):
    """A model file that does not exist; `errno`, `strerror` and `filename` are set as for any OSError."""

    # Without this, `__new__` of RuntimeError is found first, which refuses to make an OSError.
    def __new__(cls, *args: Any) -> ModelFileError:
        return FileNotFoundError.__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        FileNotFoundError.__init__(self, *args)

    def __str__(self) -> str:
        return str(self.strerror) if self.strerror else FileNotFoundError.__str__(self)


class UnsupportedOperators(LiteJitError):
    """Operators, or versions of operators, that no registered implementation covers; all of them, in `operators`."""

    operators: tuple[str, ...]

    def __init__(self, message: str, operators: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.operators = tuple(operators)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.operators)


class UnresolvedCustomOperator(UnsupportedOperators):
    """Custom operators (or Select TensorFlow operators) of the model that nobody registered."""


class StoreError(LiteJitError):
    """The store of compiled code was required but cannot be used."""
