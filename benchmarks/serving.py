"""Rows about models that runtimes serve in processes of their own: inputs for them, and the table."""
from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from litejit.cli.run_command import random_inputs
from litejit.errors import LiteJitError
from litejit.model import Model

OURS, PEER = "litejit", "litert"


@contextmanager
def stored_inputs(path: str) -> Iterator[str]:
    """Path of a file with random inputs of a model, as bench_worker.py takes them."""
    model = Model.from_file(path)
    graph, arrays = model.subgraphs[0], random_inputs(model, np.random.default_rng(0))
    names = np.array([graph.tensors[i].name for i in graph.inputs], np.str_)
    with tempfile.TemporaryDirectory() as folder:
        inputs = os.path.join(folder, "inputs.npz")
        np.savez(inputs, names=names, **{str(k): array for k, array in enumerate(arrays)})
        yield inputs


def serve(head: Sequence[str], paths: Sequence[str], measure: Callable[[str], Sequence[tuple[str, ...]]]
          ) -> list[tuple[str, ...]]:
    """Print the rows of all models under a head, each as soon as it is there; the rows."""
    widths = [max(len(os.path.basename(path)) for path in paths), *map(len, head[1:])]
    print(_line(head, widths), flush=True)
    rows: list[tuple[str, ...]] = []
    for path in paths:
        try:
            found = measure(path)
        except (LiteJitError, RuntimeError) as error:
            print(error, file=sys.stderr)
            continue
        rows += found
        print("\n".join(_line(row, widths) for row in found), flush=True)
    return rows


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(cells, widths))).rstrip()
