"""What the scripts of this folder share: one-operator models, timed step by step and against LiteRT, as a table.

    us        sum of the steps of the operator (median of the runs, the call from Python taken off)
    rate      GFLOP/s or GOP/s of products, else GB/s read and written
    of peak   the least time that the machine could need, over the time taken; see docs/performance.md
    /LiteRT   litejit's time over LiteRT's, both of whole calls, in turns: below 1.00 litejit is faster
"""
from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from litejit.executor.profile import Profile
from litejit.interpreter import Interpreter

HEAD = ("shape", "kernel", "us", "rate", "of peak", "/LiteRT")
ROUNDS = 7                             # turns of each runtime
TURN = 0.02                            # seconds of a turn


class Case(NamedTuple):
    """A model to time: what its row says, and how it is made."""

    label: str
    build: Callable[[], bytes]


def run(title: str, cases: Sequence[Case], tiny: Case, argv: list[str] | None = None) -> list[tuple[str, ...]]:
    """Time the cases (with `--quick`, only `tiny`) and print a row for each; the rows."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="one tiny shape, few runs: whether it works")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=100, help="runs of which medians are taken (default: %(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose label contains this")
    parser.add_argument("--no-litert", action="store_true", help="no comparison")
    arguments = parser.parse_args(argv)
    wanted = [tiny] if arguments.quick else [case for case in cases if arguments.only in case.label]
    if not wanted:
        parser.error(f"no row contains {arguments.only!r}")
    widths = [max(len(case.label) for case in wanted), 30, 9, 14, 7, 7]
    print(title)
    print(_line(HEAD, widths), flush=True)
    rows = []
    for case in wanted:
        rows.append(measure(case, arguments.threads, 3 if arguments.quick else arguments.repeat,
                            not arguments.no_litert, arguments.quick))
        print(_line(rows[-1], widths), flush=True)
    return rows


def measure(case: Case, threads: int, repeat: int, compare: bool, quick: bool = False) -> tuple[str, ...]:
    """The row of a case."""
    content = case.build()
    mine = prepared(Interpreter(model_content=content, num_threads=threads))
    profile = mine.profile(repeat)
    seconds = profile.seconds
    kernels = "+".join(dict.fromkeys(step.kernel for step in profile.steps))
    ratio = ""
    peer = _litert(content, threads) if compare else None
    if peer is not None:
        rounds, turn = (1, 1e-4) if quick else (ROUNDS, TURN)
        ours, theirs = in_turns([mine.invoke, peer.invoke], rounds, turn)
        ratio = f"{ours / theirs:.2f}"
    return case.label, kernels, f"{1e6 * seconds:.1f}", rate(profile), of_peak(profile), ratio


def rate(profile: Profile) -> str:
    """Of all steps together."""
    macs, seconds = sum(step.macs for step in profile.steps), profile.seconds
    if not seconds:
        return ""
    if macs:
        kind = next(step.type for step in profile.steps if step.macs)
        return f"{2e-9 * macs / seconds:.1f} {'GFLOP/s' if kind == 'f32' else 'GOP/s'}"
    return f"{1e-9 * sum(step.touched for step in profile.steps) / seconds:.1f} GB/s"


def of_peak(profile: Profile) -> str:
    """The least time of all steps over the time taken."""
    least = [step.fraction * step.seconds for step in profile.steps if step.fraction is not None]
    return f"{100 * sum(least) / profile.seconds:.0f} %" if least and profile.seconds else ""


def prepared(interpreter: Any) -> Any:
    """The interpreter with memory and random inputs."""
    rng = np.random.default_rng(0)
    interpreter.allocate_tensors()
    for detail in interpreter.get_input_details():
        kind = np.dtype(detail["dtype"])
        value = rng.standard_normal(detail["shape"]) if kind.kind == "f" else rng.integers(-128, 128, detail["shape"])
        interpreter.set_tensor(detail["index"], value.astype(kind))
    return interpreter


def in_turns(calls: Sequence[Callable[[], Any]], rounds: int = ROUNDS, seconds: float = TURN) -> list[float]:
    """Seconds of a call of each: the median of turns of so many seconds, of which every one takes the median."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds + 1):
        for call, found in zip(calls, times):
            found.append(_median(call, seconds))
    return [statistics.median(found[1:]) for found in times]


@contextmanager
def busy_core(core: int) -> Iterator[None]:
    """A process of its own session spins on a core meanwhile."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.sched_setaffinity(0, {core})
        while True:
            pass
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _median(call: Callable[[], Any], seconds: float) -> float:
    clock, found = time.perf_counter, []
    call()
    until = clock() + seconds
    while not found or clock() < until:
        start = clock()
        call()
        found.append(clock() - start)
    return statistics.median(found)


def _litert(content: bytes, threads: int) -> Any:
    """LiteRT with the model, or None where it is not installed or cannot run it."""
    try:
        from ai_edge_litert.interpreter import Interpreter as LiteRT
    except ImportError:
        return None
    try:
        return prepared(LiteRT(model_content=content, num_threads=threads))
    except (RuntimeError, ValueError):
        return None


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1)
    return "  ".join(c.ljust(w) if k in left else c.rjust(w) for k, (c, w) in enumerate(zip(cells, widths))).rstrip()
