"""What the team of threads costs: calls, steps, and a machine on which somebody else takes a core.

    python benchmarks/threads.py
"""
from __future__ import annotations

import os
import statistics
import time
from contextlib import nullcontext

import numpy as np
from common import busy_core

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import store_i64
from litejit.compiler.runtime import END, KERNEL, runtime_library
from litejit.executor.team import Team

Work = np.dtype([("out", "i8"), ("units", "i8")], align=True)


@kernel(Work)
def benchmark_work(p, begin, end):
    """`units` of arithmetic per chunk."""
    for i in prange(begin, end):
        x = i + 1
        for _ in range(p.units):
            x = x * 6364136223846793005 + 1442695040888963407
        store_i64(p.out, 64 * (i & 63), x)
    return 0


class Program:
    """A table of equal steps."""

    def __init__(self, team: Team, address: int, steps: int, chunks: int, units: int) -> None:
        self.out = np.zeros(64 * 64, np.int64)
        self.params = np.array([(self.out.ctypes.data, units)], Work)
        self.table = np.array([[KERNEL, address, self.params.ctypes.data, chunks]] * steps + [[END, 0, 0, 0]])
        self.team, self.steps = team, steps

    def times(self, threads: int, repeats: int) -> list[float]:
        """Seconds of each of `repeats` runs, sorted."""
        loop = runtime_library().address("lj_loop")
        call = self.team.make_call(loop, self.table.ctypes.data, self.steps, threads)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        self.team.quiesce()
        return sorted(seconds)


def calls(team: Team, address: int) -> None:
    loop = runtime_library().address("lj_loop")
    program = Program(team, address, 0, 0, 0)
    for threads in (1, 2):
        call = team.make_call(loop, program.table.ctypes.data, 0, threads)
        best = 1.0
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(5000):
                call()
            best = min(best, (time.perf_counter() - start) / 5000)
        print(f"an empty program, {threads} thread(s): {best * 1e9:.0f} ns")


def steps(team: Team, address: int) -> None:
    print("\n60 steps: chunks, microseconds of a chunk; run on 1 thread, on 2 (min, us); above the half, per step")
    for chunks, units in ((1, 0), (2, 0), (8, 0), (16, 0), (4, 1000), (8, 1000), (8, 4000), (32, 1000)):
        program = Program(team, address, 60, chunks, units)
        one, two = program.times(1, 400)[0], program.times(2, 400)[0]
        share = one / 2 if chunks > 1 else one
        print(f"{chunks:3d} x {one / 60 / chunks * 1e6:6.3f}  {one * 1e6:9.1f} {two * 1e6:9.1f}"
              f"   {(two - share) / 60 * 1e6:+.3f} us")


def busy(team: Team, address: int) -> None:
    """A process of its own session keeps the first core busy."""
    program = Program(team, address, 60, 8, 4000)
    core = min(os.sched_getaffinity(0))
    print("\n60 steps x 8 chunks, median and 95th percentile, us")
    for label in ("idle machine", "one core busy"):
        texts = []
        with busy_core(core) if label.startswith("one") else nullcontext():
            for threads in (1, 2):
                seconds = program.times(threads, 300)
                texts.append(f"{threads} thread(s) {statistics.median(seconds) * 1e6:7.0f} {seconds[285] * 1e6:7.0f}")
        print(f"{label:14s}", "   ".join(texts))


def main() -> None:
    from litejit.compiler.codegen import kernel_object
    from litejit.compiler.load import load_image, make_image

    library = load_image(make_image([kernel_object(benchmark_work)], [benchmark_work.symbol]))
    team, address = Team(runtime_library()), library.address(benchmark_work.symbol)
    calls(team, address)
    steps(team, address)
    busy(team, address)
    team.close()


if __name__ == "__main__":
    main()
