"""How steady the times of a model are, and what becomes of two threads when somebody else takes a core.

    python benchmarks/contention.py MODEL.tflite ... [--seconds S]

`p99` is the 99th percentile over the median, on the machine as it is: run it when nothing else runs. `busy` is the median
of two threads on two cores, one of which a spinning process keeps busy, over the median of one thread without it. Each
runtime serves in a process of its own. Needs Linux and two cores.
"""
from __future__ import annotations

import argparse
import os
from pathlib import Path

from common import busy_core
from serving import OURS, PEER, serve, stored_inputs

from litejit.cli.bench_command import Worker

HEAD = ("model", "runtime", "1 thread, ms", "p99", "2 threads, ms", "p99", "two / one", "busy")


def measure(path: str, seconds: float) -> list[tuple[str, ...]]:
    """A row for each runtime. Raises LiteJitError for a file that is no model."""
    with stored_inputs(path) as inputs:
        return [row(path, runtime, inputs, seconds) for runtime in (OURS, PEER)]


def row(path: str, runtime: str, inputs: str, seconds: float) -> tuple[str, ...]:
    name = Path(path).stem
    with Worker(runtime, path, 1, inputs, {}) as one, Worker(runtime, path, 2, inputs, {}) as two:
        if one.failed or two.failed:
            return name, runtime, one.failed or two.failed
        one.turn(seconds)
        two.turn(seconds)
        with busy_core(min(os.sched_getaffinity(0))):
            two.turn(seconds)
    alone, both, beside = (turn["median"] for turn in (one.turns[0], *two.turns))
    return (name, runtime, f"{1e3 * alone:.4g}", f"{one.turns[0]['p99'] / alone:.2f}", f"{1e3 * both:.4g}",
            f"{two.turns[0]['p99'] / both:.2f}", f"{both / alone:.2f}", f"{beside / alone:.2f}")


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    parser = argparse.ArgumentParser(description="Steadiness of a model's times, alone and beside a busy process.")
    parser.add_argument("models", nargs="+", metavar="MODEL.tflite")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each turn (default: %(default)s)")
    arguments = parser.parse_args(argv)
    if len(os.sched_getaffinity(0)) < 2:
        parser.error("two cores are needed")
    return serve(HEAD, arguments.models, lambda path: measure(path, arguments.seconds))


if __name__ == "__main__":
    main()
