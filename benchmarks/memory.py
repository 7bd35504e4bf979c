"""Memory of a process that runs a model, against LiteRT: at most, and what stays after some runs.

    python benchmarks/memory.py MODEL.tflite ...

Each runtime serves in a process of its own (the one of `litejit bench`): it imports NumPy and the runtime, loads the model,
allocates, and runs for half a second. The store is filled before. Needs Linux.
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

from serving import OURS, PEER, serve, stored_inputs

from litejit.cli.bench_command import Worker

HEAD = ("model", "file", "litejit at most", "LiteRT at most", "difference", "litejit stays", "LiteRT stays")
MB = 1e6


class Use(NamedTuple):
    """Bytes of memory: at most, and after the runs."""

    most: int
    stays: int


def use(worker: Worker) -> Use:
    """Of a worker that has started."""
    return Use(worker.start["memory"], resident(worker.process.pid))


def resident(pid: int) -> int:
    """Bytes of memory that a process has now."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def measure(path: str, threads: int) -> tuple[str, ...]:
    """The row of a model. Raises LiteJitError for a file that is no model, RuntimeError if litejit does not serve."""
    with stored_inputs(path) as inputs:
        with Worker(OURS, path, threads, inputs, {}):          # compiles what the store lacks
            pass
        found: dict[str, Use | str] = {}
        for runtime in (OURS, PEER):
            with Worker(runtime, path, threads, inputs, {}) as worker:
                found[runtime] = worker.failed or use(worker)
    mine, peer = found[OURS], found[PEER]
    if isinstance(mine, str):
        raise RuntimeError(f"{path}: {mine}")
    row = [Path(path).stem, f"{Path(path).stat().st_size / MB:.1f}", f"{mine.most / MB:.1f}"]
    if isinstance(peer, str):
        return (*row, "-", "-", f"{mine.stays / MB:.1f}", peer)
    return (*row, f"{peer.most / MB:.1f}", f"{(mine.most - peer.most) / MB:+.1f}", f"{mine.stays / MB:.1f}",
            f"{peer.stays / MB:.1f}")


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    parser = argparse.ArgumentParser(description="Megabytes of memory of a process that runs a model.")
    parser.add_argument("models", nargs="+", metavar="MODEL.tflite")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(argv)
    return serve(HEAD, arguments.models, lambda path: [measure(path, arguments.threads)])


if __name__ == "__main__":
    main()
