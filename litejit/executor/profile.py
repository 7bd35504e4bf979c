"""Times of the steps of a plan, one by one on one thread."""

from __future__ import annotations

import statistics
import time
from typing import NamedTuple

from litejit.executor.runner import Runner
from litejit.ops.base import Step


class StepTime(NamedTuple):
    """A step's median time in seconds, and what it did."""

    step: int
    node: str
    kernel: str
    seconds: float
    macs: int
    touched: int

    @property
    def gflops(self) -> float:
        """Billions of multiplications and additions a second (two per MAC)."""
        return 2e-9 * self.macs / self.seconds if self.seconds else 0.0


class Profile:
    """The steps in order; `print` sorts them by time."""

    def __init__(self, steps: list[StepTime]) -> None:
        self.steps = tuple(steps)

    @property
    def seconds(self) -> float:
        """Sum of the steps."""
        return sum(s.seconds for s in self.steps)

    def __str__(self) -> str:
        total = self.seconds or 1.0
        lines = [f"{'step':>4}  {'node':28} {'kernel':32} {'us':>9} {'%':>5} {'GFLOP/s':>8}"]
        for s in sorted(self.steps, key=lambda s: -s.seconds):
            rate = f"{s.gflops:8.1f}" if s.macs else " " * 8
            lines.append(
                f"{s.step:4}  {s.node:28.28} {s.kernel:32.32} {1e6 * s.seconds:9.1f} {100 * s.seconds / total:5.1f} {rate}"
            )
        return "\n".join([*lines, f"sum {1e6 * self.seconds:.1f} us"])


def profile(runner: Runner, repeat: int = 20) -> Profile:
    """Run the plan `repeat` times step by step; the median time of each step. Plans with jumps are refused.

    Raises ValueError for plans with control flow.
    """
    plan = runner.plan
    if not plan.straight:
        raise ValueError("a plan with control flow cannot be profiled step by step")
    calls = [runner.step_call(at) for at in range(len(plan.records))]
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(repeat):
        for at, call in enumerate(calls):
            start = time.perf_counter()
            call()
            times[at].append(time.perf_counter() - start)
    found = []
    for at, record in enumerate(plan.records):
        if isinstance(record, Step):
            touched = record.touched or sum(
                v.nbytes for v in (*record.node.inputs, *record.node.outputs) if v is not None
            )
            found.append(
                StepTime(
                    at,
                    f"{record.node.index} {record.node.op}",
                    record.kernel.name,
                    statistics.median(times[at]),
                    record.macs,
                    touched,
                )
            )
    return Profile(found)
