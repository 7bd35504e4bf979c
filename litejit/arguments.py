"""Arguments of an Interpreter: how many threads, which precision, and which model."""

from __future__ import annotations

import os
from typing import Any

from litejit.arrays import index_of
from litejit.model import Model

PRECISIONS = ("float32", "bfloat16")


def precision_of(precision: Any) -> str:
    """The precision, if it is one; says in the debug log where the CPU computes in float32 all the same."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be {' or '.join(map(repr, PRECISIONS))}, not {precision!r}")
    if precision == "bfloat16":
        from litejit.compiler.cpu import target

        if not target().bf16:
            import logging

            logging.getLogger("litejit").debug("no bfloat16 instructions on %s: computing in float32", target().name)
    return str(precision)


def thread_count(num_threads: Any) -> int:
    if num_threads is None:
        return 1
    try:
        count = index_of(num_threads)
    except TypeError:
        raise ValueError("type of num_threads should be int") from None
    if count < -1:
        raise ValueError(f"num_threads should be >= -1, not {count}")
    if count == -1:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(count, 1)


def model_of(path: Any, content: Any, model: Model | None) -> Model:
    if model is not None:
        if path is not None or content is not None:
            raise ValueError("Can't both provide `model` and `model_path` or `model_content`")
        return model
    has_content = (
        content is not None and memoryview(content).nbytes > 0 if not isinstance(content, str) else bool(content)
    )
    if path and has_content:
        raise ValueError("Can't both provide `model_path` and `model_content`")
    if path:
        return Model.from_file(path)
    if has_content:
        return Model.from_buffer(content)
    if path is not None and not isinstance(path, (str, bytes, os.PathLike)):
        os.fspath(path)
    raise ValueError("`model_path` or `model_content` must be specified.")
