"""litejit: TensorFlow Lite models from Python at the speed of the machine, on Numba kernels one can read."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Interpreter": "interpreter",
    "OpResolverType": "interpreter",
    "SignatureRunner": "signature",
    "load_delegate": "delegates",
    "Delegate": "delegates",
    "Model": "model",
    "LiteJitError": "errors",
    "ModelError": "errors",
    "ModelFileError": "errors",
    "UnsupportedOperators": "errors",
    "StoreError": "errors",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"litejit.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'litejit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
