"""One runtime and one model in a process of its own: a line with seconds in, a line of JSON with times out.

Run as a file, not as a module, so that the process loads nothing of litejit (or of the command) but what it measures:

    python bench_worker.py RUNTIME MODEL THREADS INPUTS.npz         # INPUTS: "names", and the arrays "0", "1", ...

The first line says what starting took and how much memory there is after half a second of running; every further one
answers a line of the parent. A runtime that cannot serve is answered with {"error": ...}.
"""
from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

WARM = 0.5                  # seconds of running before anything counts
SAMPLES = 20_000            # times that are kept of a turn; between them, a fast model runs unobserved

Inputs = list[tuple[str, Any]]          # (name, array) in the order of the model
Runtime = Callable[[str, int, Inputs, Callable[[], None]], Callable[[], Any]]


class Peer(NamedTuple):
    """A runtime: what to install, what to import, and how to make a callable that runs a model once.

    make(path, threads, inputs, loaded) calls `loaded` between reading the model and preparing it to run.
    """

    install: str
    module: str
    make: Runtime


# ---- the runtimes --------------------------------------------------------------------------------

def _interpreter(module: str, **options: Any) -> Runtime:
    """Everything with the interface of tf.lite.Interpreter."""
    def make(path: str, threads: int, inputs: Inputs, loaded: Callable[[], None]) -> Callable[[], Any]:
        interpreter = import_module(module).Interpreter(model_path=path, num_threads=threads, **options)
        loaded()
        interpreter.allocate_tensors()
        for detail, (_, value) in zip(interpreter.get_input_details(), inputs):
            interpreter.set_tensor(detail["index"], value)
        invoke: Callable[[], Any] = interpreter.invoke
        return invoke
    return make


def _openvino(**options: Any) -> Runtime:
    """OpenVINO on the CPU, for the latency of single runs."""
    def make(path: str, threads: int, inputs: Inputs, loaded: Callable[[], None]) -> Callable[[], Any]:
        openvino: Any = import_module("openvino")
        core = openvino.Core()
        model = core.read_model(path)
        ports = {port: _value(port, position, inputs) for position, port in enumerate(model.inputs)}
        if model.is_dynamic():
            model.reshape({port: list(value.shape) for port, value in ports.items()})
        loaded()
        compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1,
                                                     "INFERENCE_NUM_THREADS": threads, **options})
        request = compiled.create_infer_request()
        for position, value in enumerate(ports.values()):
            request.set_input_tensor(position, openvino.Tensor(value))
        infer: Callable[[], Any] = request.infer
        return infer
    return make


def _value(port: Any, position: int, inputs: Inputs) -> Any:
    """The array for a port: by name, where the runtime kept it, else by position."""
    names = port.get_names()
    return next((value for name, value in inputs if name in names), inputs[position][1])


PEERS = {
    "litejit": Peer("litejit", "litejit", _interpreter("litejit.interpreter")),
    "litejit_bf16": Peer("litejit", "litejit", _interpreter("litejit.interpreter", precision="bfloat16")),
    "litert": Peer("ai-edge-litert", "ai_edge_litert", _interpreter("ai_edge_litert.interpreter")),
    "openvino": Peer("openvino", "openvino", _openvino(INFERENCE_PRECISION_HINT="f32")),
    "openvino_default": Peer("openvino", "openvino", _openvino()),
}


# ---- measuring -----------------------------------------------------------------------------------

def start(runtime: str, path: str, threads: int, inputs: Inputs) -> tuple[Callable[[], Any], dict[str, Any]]:
    """A callable that runs the model once, and seconds: load (import and read), compile (prepare to run), first run."""
    clock, marks = time.perf_counter, [time.perf_counter()]
    invoke = PEERS[runtime].make(path, threads, inputs, lambda: marks.append(clock()))
    marks.append(clock())
    invoke()
    marks.append(clock())
    names = ("load", "compile", "first")
    return invoke, {name: after - before for name, before, after in zip(names, marks, marks[1:])}


def turn(invoke: Callable[[], Any], seconds: float) -> dict[str, float]:
    """Median and 99th percentile of the times of running for so long, at least three times."""
    from array import array

    clock = time.perf_counter
    begin = clock()
    for _ in range(3):
        invoke()
    skip = int(seconds / ((clock() - begin) / 3) / SAMPLES)
    times, until = array("d"), clock() + seconds
    while len(times) < 3 or clock() < until:
        begin = clock()
        invoke()
        times.append(clock() - begin)
        for _ in range(skip):
            invoke()
    ordered = sorted(times)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return {"median": median, "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], "runs": len(ordered)}


def memory() -> int:
    """Bytes of memory that this process had at most.

    Linux's ru_maxrss begins with the size of the process that started this one; VmHWM does not.
    """
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return 1024 * int(next(line.split()[1] for line in file if line.startswith("VmHWM:")))
    except (OSError, StopIteration):
        try:
            import resource
        except ImportError:                         # Windows
            return 0
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def version(runtime: str) -> str:
    """The version of the package that serves."""
    from importlib import metadata

    try:
        return metadata.version(PEERS[runtime].install)
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules[PEERS[runtime].module], "__version__", "unknown"))


def reason(runtime: str, error: BaseException) -> str:
    """Why a runtime is left out."""
    peer = PEERS[runtime]
    if isinstance(error, ModuleNotFoundError) and (error.name or "").split(".")[0] == peer.module:
        return f"not installed (pip install {peer.install})"
    return f"{type(error).__name__}: {error}".split("\n")[0][:300]


def main(runtime: str, path: str, threads: int, inputs_path: str) -> None:
    """Serve the parent until it closes the pipe."""
    import numpy as np

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)                                   # what a runtime prints is not an answer

    def answer(**fields: Any) -> None:
        print(json.dumps(fields), file=answers, flush=True)

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    with np.load(inputs_path) as stored:
        inputs = [(str(name), stored[str(position)]) for position, name in enumerate(stored["names"])]
    try:
        invoke, seconds = start(runtime, path, threads, inputs)
        until = time.perf_counter() + WARM
        while time.perf_counter() < until:
            invoke()
    except Exception as error:
        answer(error=reason(runtime, error))
        return
    answer(**seconds, memory=memory(), version=version(runtime))
    for line in sys.stdin:
        answer(**turn(invoke, float(line)))


if __name__ == "__main__":
    # in place of this folder, whose modules are nobody's business: the one that holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
