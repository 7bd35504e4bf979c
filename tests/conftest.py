"""Fixtures of all tests: one store for a whole run, the shared reference material, a fixed seed."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import settings

HERE = Path(__file__).resolve().parent
SHARED = HERE.parent.parent / "shared"

settings.register_profile("litejit", deadline=None)  # a loaded machine is no failure
settings.load_profile("litejit")

# Kernels are compiled once per run: before anything imports litejit.
if "LITEJIT_CACHE_DIR" not in os.environ:
    _store = tempfile.TemporaryDirectory(prefix="litejit-store-")
    os.environ["LITEJIT_CACHE_DIR"] = _store.name


def load_module(name: str, path: Path) -> ModuleType:
    """Import a file as module `name` (once)."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session", autouse=True)
def threads_share_small_plans() -> Iterator[None]:
    """Plans of few microseconds, which one thread would run, are run by teams as well: tests are small."""
    from litejit.executor import work

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "LEAST", 0.0)
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared reference material, models and cases, beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the reference material in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def arithmetic(shared: Path) -> ModuleType:
    """NumPy oracles of LiteRT's arithmetic."""
    return load_module("litejit_reference_arithmetic", shared / "reference" / "arithmetic.py")


@pytest.fixture(scope="session")
def models(shared: Path) -> ModuleType:
    """The tool that expands the architecture models: `models.load(name) -> (bytes, cases)`."""
    return load_module("litejit_shared_models", shared / "tools" / "models.py")


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator, the same in every run."""
    return np.random.default_rng(20240229)


@pytest.fixture
def bf16_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine's CPU level as one with bfloat16 products; where it has none, the kernels compute them otherwise."""
    from litejit.compiler import cpu

    monkeypatch.setattr(cpu, "_chosen", cpu.target()._replace(bf16=True))
