"""Delegates: the names that programs import. litejit has none, so loading one always fails, as documented: ValueError."""

from __future__ import annotations

from typing import Any

from litejit.errors import LiteJitError


class Delegate:
    """A delegate of another runtime; cannot be made here."""

    def __init__(self, library: Any, options: dict[str, Any] | None = None) -> None:
        raise LiteJitError(
            f"Failed to load delegate from {library}\nlitejit runs every operator itself and has no delegates."
        )


def load_delegate(library: Any, options: dict[str, Any] | None = None) -> Delegate:
    """Always raises LiteJitError (a ValueError), which programs answer by running on the CPU."""
    return Delegate(library, options)
