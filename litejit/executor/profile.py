"""Times of the steps of a plan, one by one, against what the machine can do at most."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from litejit.compiler.steps import RESULT_BITS, VALUE_MASK
from litejit.executor.runner import Runner, failure
from litejit.executor.work import multiplied, touched
from litejit.ops.base import Step
from litejit.planner.plan import JUMP, RECORD

if TYPE_CHECKING:
    from litejit.executor.peak import Peak
    from litejit.store import Store


class StepTime(NamedTuple):
    """A step's time in seconds (of all its calls in one run; the median of the runs), and what it did in them."""

    step: int
    node: str
    kernel: str
    seconds: float
    macs: int
    touched: int
    calls: int = 1
    type: str = "f32"  # what is multiplied: "f32", "bf16", "i8", "i16"
    fraction: float | None = None  # of the machine's peak; None: not measured

    @property
    def gflops(self) -> float:
        """Billions of multiplications and additions a second (two per MAC)."""
        return 2e-9 * self.macs / self.seconds if self.seconds else 0.0

    @property
    def bandwidth(self) -> float:
        """Gigabytes read and written a second."""
        return 1e-9 * self.touched / self.seconds if self.seconds else 0.0

    @property
    def rate(self) -> str:
        """GFLOP/s (GOP/s of integers) of a step with MACs, GB/s of another."""
        if not self.seconds:
            return ""
        if self.macs:
            return f"{self.gflops:.1f} {'GFLOP/s' if self.type in ('f32', 'bf16') else 'GOP/s'}"
        return f"{self.bandwidth:.1f} GB/s"


class Event(NamedTuple):
    """One call of a step in a run: its position in `Profile.steps`, and when it began (seconds), steps end to end."""

    position: int
    start: float
    seconds: float


class Profile:
    """The steps in the order of the plan; printed, they are sorted by time.

    steps, invoke: seconds of a whole run (median), threads, repeat: runs, peak: the machine's (or None),
    timeline: the calls of the run with the median time.
    """

    HEAD = ("step", "node", "kernel", "us", "%", "rate", "of peak")

    def __init__(self, steps: list[StepTime], invoke: float, threads: int, repeat: int, timeline: list[Event],
                 peak: Peak | None = None) -> None:
        self.steps, self.timeline, self.peak = tuple(steps), tuple(timeline), peak
        self.invoke, self.threads, self.repeat = invoke, threads, repeat

    @property
    def seconds(self) -> float:
        """Sum of the steps."""
        return sum(s.seconds for s in self.steps)

    # ---- printing ----
    def rows(self) -> list[tuple[str, ...]]:
        """A row of text per step, the slowest first: the columns of HEAD."""
        total = self.seconds or 1.0
        return [(str(s.step), s.node, s.kernel + (f" x{s.calls}" if s.calls > 1 else ""), f"{1e6 * s.seconds:.1f}",
                 f"{100 * s.seconds / total:.1f}", s.rate, "" if s.fraction is None else f"{100 * s.fraction:.0f} %")
                for s in sorted(self.steps, key=lambda s: -s.seconds)]

    def summary(self) -> str:
        """One line: the sum, the whole run, threads."""
        return (f"sum {1e6 * self.seconds:.1f} us, invoke {1e6 * self.invoke:.1f} us, medians of {self.repeat} runs, "
                f"{self.threads} thread{'s' * (self.threads > 1)}")

    def __str__(self) -> str:
        rows = [self.HEAD, *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(self.HEAD))]
        left = (1, 2)
        lines = ["  ".join(cell.ljust(w) if k in left else cell.rjust(w) for k, (cell, w) in enumerate(zip(row, widths)))
                 for row in rows]
        return "\n".join([*(line.rstrip() for line in lines), self.summary(), *self._peak_line()])

    def __repr__(self) -> str:
        return f"<Profile of {len(self.steps)} steps: {self.summary()}>"

    def _peak_line(self) -> list[str]:
        return [] if self.peak is None else [f"peak of {self.peak.threads} thread(s), {self.peak.cpu}: {self.peak}"]

    def _repr_html_(self) -> str:
        from html import escape

        head = "".join(f"<th>{c}</th>" for c in self.HEAD)
        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in self.rows())
        notes = "".join(f"<p>{escape(line)}</p>" for line in (self.summary(), *self._peak_line()))
        return f"<table><tr>{head}</tr>{body}</table>{notes}"

    # ---- for programs ----
    def to_dict(self) -> dict[str, Any]:
        """All of it as plain data; times in seconds, rates a second, bytes."""
        peak = None if self.peak is None else {
            "cpu": self.peak.cpu, "threads": self.peak.threads, "macs": dict(self.peak.macs),
            "bandwidth": [{"bytes": size, "rate": rate} for size, rate in self.peak.bandwidth.items()]}
        total = self.seconds or 1.0
        return {"invoke": self.invoke, "sum": self.seconds, "threads": self.threads, "repeat": self.repeat, "peak": peak,
                "steps": [{**s._asdict(), "share": s.seconds / total} for s in self.steps]}

    def by_kernel(self) -> dict[str, float]:
        """Seconds by kernel, the slowest first."""
        found: dict[str, float] = {}
        for s in self.steps:
            found[s.kernel] = found.get(s.kernel, 0.0) + s.seconds
        return dict(sorted(found.items(), key=lambda item: -item[1]))

    def trace(self) -> dict[str, Any]:
        """One run in the Trace Event Format, which chrome://tracing and ui.perfetto.dev show (times in microseconds)."""
        events = []
        for position, start, seconds in self.timeline:
            s = self.steps[position]
            arguments = {"step": s.step, "kernel": s.kernel, "rate": s.rate, "median_us": 1e6 * s.seconds,
                         "macs": s.macs // s.calls, "bytes": s.touched // s.calls}
            events.append({"name": s.node, "cat": s.kernel, "ph": "X", "ts": 1e6 * start, "dur": 1e6 * seconds,
                           "pid": 0, "tid": 0, "args": arguments})
        return {"traceEvents": events, "displayTimeUnit": "ns"}

    def plot(self, axes: Any = None) -> Any:
        """Horizontal bars of the time by kernel, on new matplotlib axes or the ones given; the axes."""
        if axes is None:
            import matplotlib.pyplot as plt

            _, axes = plt.subplots(figsize=(8, 0.6 + 0.3 * len(self.by_kernel())), layout="constrained")
        total = self.seconds or 1.0
        times = self.by_kernel()
        bars = axes.barh(list(times), [1e6 * t for t in times.values()])
        axes.bar_label(bars, [f"{100 * t / total:.1f} %" for t in times.values()], padding=3)
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set_xlabel("us")
        axes.set_title(self.summary())
        return axes


# ---- measuring -------------------------------------------------------------------------------------


def profile(runner: Runner, repeat: int = 20, store: Store | None = None) -> Profile:
    """Run the plan `repeat` times step by step, and as often as a whole; the medians.

    Steps run on the runner's threads. The time that calling takes is measured beside each step, on an empty program, and
    taken off; what remains uncertain is some 0.1 us a call. Variables are left as they were. Loops are followed, and the
    times of a step's calls added up. store: where the loops that measure the machine's peak are kept. Raises LiteJitError
    naming the node that failed, ValueError for `repeat` below 1.
    """
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, not {repeat}")
    state, peak = runner.state.copy(), _peak(runner, store)
    program = Program(runner)
    runs: list[list[Call]] = []
    whole = []
    try:
        for turn in range(-1, repeat):  # the first one is for the caches
            start = time.perf_counter()
            runner.run()
            seconds = time.perf_counter() - start
            run = list(program.run())
            if turn >= 0:
                whole.append(seconds)
                runs.append(run)
    finally:
        runner.quiesce()
        runner.state[:] = state
    runs = _without_overhead(runs)
    whole = [seconds - min((call.overhead for call in runs[0]), default=0.0) for seconds in whole]
    steps = _steps(runner, runs, peak)
    return Profile(steps, statistics.median(whole), runner.threads, repeat, _timeline(runs, steps), peak)


def _peak(runner: Runner, store: Store | None) -> Peak | None:
    """The machine's peak, in bfloat16 too where the plan uses it; None where nothing may be compiled and the store lacks its
    loops."""
    from litejit.errors import StoreError
    from litejit.executor.peak import peak

    target = runner.plan.target
    try:
        return peak(target.cpu._replace(bf16=target.products == "bf16"), runner.threads, store)
    except StoreError:
        return None


class Call(NamedTuple):
    """One call of a step: its record, its seconds, and the seconds of a call of nothing after it."""

    at: int
    seconds: float
    overhead: float


class Program:
    """A runner's records, to be called one by one, each beside a call of nothing."""

    def __init__(self, runner: Runner) -> None:
        steps = [isinstance(record, Step) for record in runner.plan.records]
        self.runner = runner
        self.calls = [runner.step_call(at) if step else None for at, step in enumerate(steps)]
        self.nothing = [runner.empty_call() for _ in steps]

    def run(self) -> Iterator[Call]:
        """One run: the steps in the order in which they are called. Raises LiteJitError naming the node that failed."""
        words, clock, nothing = self.runner.words, time.perf_counter, self.nothing
        at = 0
        while at < len(self.calls):
            call = self.calls[at]
            if call is None:
                kind, flag, _, to = (int(word) for word in words[RECORD * at:RECORD * (at + 1)])
                at = to if kind == JUMP or not ctypes.c_uint8.from_address(flag).value else at + 1
                continue
            start = clock()
            result = call()
            end = clock()
            nothing[at]()
            idle = clock()
            if result:
                raise failure(self.runner.plan, ((at + 1) << RESULT_BITS) | (result & VALUE_MASK))
            yield Call(at, end - start, idle - end)
            at += 1


def _without_overhead(runs: list[list[Call]]) -> list[list[Call]]:
    """The calls without the time that calling takes: the median of the calls of nothing beside the same step."""
    beside: dict[int, list[float]] = {}
    for run in runs:
        for call in run:
            beside.setdefault(call.at, []).append(call.overhead)
    cost = {at: statistics.median(times) for at, times in beside.items()}
    return [[Call(at, max(0.0, seconds - cost[at]), cost[at]) for at, seconds, _ in run] for run in runs]


def _steps(runner: Runner, runs: list[list[Call]], peak: Peak | None) -> list[StepTime]:
    """The steps that were called, with the medians of their times per run."""
    totals: list[dict[int, float]] = [{} for _ in runs]
    for total, run in zip(totals, runs):
        for at, seconds, _ in run:
            total[at] = total.get(at, 0.0) + seconds
    calls: dict[int, int] = {}
    for at, _, _ in runs[-1]:
        calls[at] = calls.get(at, 0) + 1
    found = []
    for at, count in sorted(calls.items()):
        record = runner.plan.records[at]
        assert isinstance(record, Step)
        nbytes = touched(record)
        seconds = statistics.median(total.get(at, 0.0) for total in totals)
        type = multiplied(record)
        found.append(StepTime(at, f"{record.node.index} {record.node.op}", record.kernel.name, seconds,
                              count * record.macs, count * nbytes, count, type,
                              _fraction(peak, type, count, record.macs, nbytes, seconds)))
    return found


def _fraction(peak: Peak | None, type: str, count: int, macs: int, touched: int, seconds: float) -> float | None:
    """The least time that the machine could need for the arithmetic or for the bytes, over the time taken."""
    if peak is None or not seconds:
        return None
    return count * max(macs / peak.macs[type], touched / peak.read(touched)) / seconds


def _timeline(runs: list[list[Call]], steps: list[StepTime]) -> list[Event]:
    """The run whose time is the median, its steps end to end."""
    run = sorted(runs, key=lambda run: sum(call.seconds for call in run))[len(runs) // 2]
    position = {s.step: k for k, s in enumerate(steps)}
    events, now = [], 0.0
    for at, seconds, _ in run:
        if at in position:
            events.append(Event(position[at], now, seconds))
            now += seconds
    return events
