"""`litejit bench`: models against the runtimes that one would use instead, in processes that take turns."""
from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Any

import click
import numpy as np

from litejit import __version__
from litejit.cli import bench_worker
from litejit.cli.bench_worker import PEERS
from litejit.cli.common import cache_option, precision_option, size
from litejit.cli.run_command import random_inputs
from litejit.compiler.cpu import target

OURS = {"float32": "litejit", "bfloat16": "litejit_bf16"}                # by --precision
USUAL = {"float32": "litert,openvino", "bfloat16": "litert,openvino_default"}   # peers, unless they are named
HEAD = ("model", "thr", "runtime", "load", "cold", "warm", "first", "median", "p99", "memory", "ratio")
WIDTHS = (26, 3, 16, 8, 8, 8, 8, 8, 8, 8, 5)


def _threads(context: click.Context, option: click.Parameter, text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise click.BadParameter(f"{text!r} is not a list of numbers of threads like 1,2")
    return found


def _peers(context: click.Context, option: click.Parameter, text: str | None) -> list[str] | None:
    if text is None:
        return None
    found = [part for part in text.split(",") if part]
    known = [name for name in PEERS if name not in OURS.values()]
    for name in found:
        if name not in known:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(known)}")
    return found


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--threads", default="1", show_default=True, callback=_threads, help="Numbers of threads, like 1,2.")
@click.option("--peers", callback=_peers, help="Of litert, openvino (in float32), openvino_default (its own choice of "
              "precision); '' for none.  [default: litert,openvino; in bfloat16 litert,openvino_default]")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Turns of every runtime.")
@click.option("--seconds", "length", default=0.4, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Length of a turn.")
@click.option("--cold/--no-cold", default=True, show_default=True, help="Compile with an empty store first, in a process "
              "of its own; without that, the user's store serves.")
@click.option("--json", "path", type=click.Path(dir_okay=False), help="Write all figures, in seconds and bytes.")
@precision_option
@cache_option
def command(models: tuple[str, ...], threads: list[int], peers: list[str] | None, rounds: int, length: float, cold: bool,
            path: str | None, precision: str, cache_dir: str | None) -> None:
    """Time MODELS on litejit and its peers, in turns; a ratio below 1 says that litejit is the fastest."""
    if precision == "bfloat16" and not target().bf16:
        click.echo(f"no bfloat16 instructions on {target().name}: {OURS[precision]} computes in float32", err=True)
    click.echo(_line(HEAD))
    rows, broken = [], 0
    peers = USUAL[precision].split(",") if peers is None else peers
    for model in models:
        try:
            found = _model(model, threads, [OURS[precision], *peers], rounds, length, cold, cache_dir)
            for row in found:
                rows.append(row)
                click.echo("\n".join(lines(row)))
        except (RuntimeError, ValueError) as error:
            broken += 1
            click.echo(f"{model}: {error}", err=True)
    if any("ratio" in row for row in rows):
        click.echo(verdict(rows))
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(report(rows, rounds, length), file, indent=1)
    if broken:
        raise click.ClickException(f"{broken} of {len(models)} models could not be read")


# ---- measuring -----------------------------------------------------------------------------------

class Worker:
    """A runtime with a model, in a process of its own (bench_worker.py)."""

    def __init__(self, runtime: str, model: str, threads: int, inputs: str, environment: dict[str, str]) -> None:
        self.runtime, self.turns = runtime, list[dict[str, float]]()
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        self.process = subprocess.Popen(            # with byte code on disk, as packages have it that pip installed
            [sys.executable, bench_worker.__file__, runtime, model, str(threads), inputs], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**inherited, **environment})
        self.start = self.answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self.process.kill()
        self.process.communicate()

    @property
    def failed(self) -> str:
        """Why the runtime is out; empty while it serves."""
        return str(next((a["error"] for a in (self.start, *self.turns) if "error" in a), ""))

    def answer(self) -> dict[str, Any]:
        """The next line of the process, {"error": ...} if it ended."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {"error": f"ended with code {self.process.wait()}"}
        return found

    def turn(self, length: float) -> None:
        """Let it run for so many seconds."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):             # `answer` says what became of it
            print(length, file=self.process.stdin, flush=True)
        self.turns.append(self.answer())

    def figures(self) -> dict[str, Any]:
        """Seconds and bytes: medians of the turns."""
        return {**self.start, **{key: statistics.median(t[key] for t in self.turns) for key in ("median", "p99")}}


def _model(path: str, threads: Sequence[int], runtimes: Sequence[str], rounds: int, length: float, cold: bool,
           cache_dir: str | None) -> list[dict[str, Any]]:
    """The rows of a model, one per number of threads; the first runtime is ours. Raises LiteJitError for a file that is no
    model."""
    from litejit.model import Model

    model = Model.from_file(path)
    arrays = random_inputs(model, np.random.default_rng(0))
    graph = model.subgraphs[0]
    with tempfile.TemporaryDirectory() as folder:
        inputs = os.path.join(folder, "inputs.npz")
        named: dict[str, Any] = {str(k): array for k, array in enumerate(arrays)}
        np.savez(inputs, names=np.array([graph.tensors[i].name for i in graph.inputs], np.str_), **named)
        environment = {} if cache_dir is None else {"LITEJIT_CACHE_DIR": cache_dir}
        if cold:
            environment = {"LITEJIT_CACHE_DIR": os.path.join(folder, "store"), "LITEJIT_CACHE": "use"}
        with Worker(runtimes[0], path, 1, inputs, environment) as first:      # also fills a store that is not empty
            compiled = first.start.get("compile") if cold else None
        rows = []
        for count in threads:
            row = _row(path, count, runtimes, rounds, length, inputs, environment)
            for name, figures in row["runtimes"].items():
                figures["cold"] = compiled if name == runtimes[0] else figures["compile"]
            rows.append(row)
        return rows


def _row(path: str, threads: int, runtimes: Sequence[str], rounds: int, length: float, inputs: str,
         environment: dict[str, str]) -> dict[str, Any]:
    """One model on so many threads: every round starts with another runtime."""
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker(name, path, threads, inputs, environment)) for name in runtimes]
        for k in range(rounds):
            serving = [w for w in workers if not w.failed]
            for position in range(len(serving)):
                serving[(position + k) % len(serving)].turn(length)
        row: dict[str, Any] = {"model": os.path.basename(path), "threads": threads,
                               "failed": {w.runtime: w.failed for w in workers if w.failed}}
    serving = [w for w in workers if not w.failed]
    row["runtimes"] = {w.runtime: w.figures() for w in serving}
    ours, peers = [w for w in serving if w.runtime == runtimes[0]], [w for w in serving if w.runtime != runtimes[0]]
    if ours and peers:
        row["ratios"] = [ours[0].turns[k]["median"] / min(w.turns[k]["median"] for w in peers) for k in range(rounds)]
        row["ratio"] = statistics.median(row["ratios"])
        row["fastest_peer"] = min(peers, key=lambda w: w.figures()["median"]).runtime
    return row


# ---- saying it -----------------------------------------------------------------------------------

def _line(cells: Sequence[str]) -> str:
    """Cells in fixed widths, names to the left and numbers to the right: rows are printed while others are measured."""
    return "  ".join(cell[:w].ljust(w) if k in (0, 2) else cell.rjust(w)
                     for k, (cell, w) in enumerate(zip(cells, WIDTHS))).rstrip()


def _time(value: float | None) -> str:
    """A time in three digits."""
    if value is None:
        return "-"
    scaled, unit = next(((value * f, u) for f, u in ((1e6, "us"), (1e3, "ms")) if value * f < 1000), (value, "s"))
    return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"


def lines(row: dict[str, Any]) -> list[str]:
    """A row of the table: a line per runtime, and one for each that is left out."""
    found, head = [], (row["model"], str(row["threads"]))
    for name, f in row["runtimes"].items():
        times = [_time(f[key]) for key in ("load", "cold", "compile", "first", "median", "p99")]
        ratio = f"{row['ratio']:.2f}" if name in OURS.values() and "ratio" in row else ""
        found.append(_line((*head, name, *times, size(f["memory"]), ratio)))
        head = ("", "")
    for name, why in row["failed"].items():
        found.append(f"{_line((*head, name))}  left out: {why}")
        head = ("", "")
    return found


def verdict(rows: Sequence[dict[str, Any]]) -> str:
    """Geometric mean and worst of the ratios."""
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return (f"geometric mean {mean:.2f}, worst {max(ratios):.2f}, litejit is the fastest in "
            f"{sum(r < 1 for r in ratios)} of {len(ratios)} rows")


def report(rows: Sequence[dict[str, Any]], rounds: int, length: float) -> dict[str, Any]:
    """Everything as plain data, with what it was measured on."""
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    return {"litejit": __version__, "python": platform.python_version(), "system": platform.platform(),
            "cpu": {"name": _cpu_name(), "level": target().name, "cores": os.cpu_count()},
            "rounds": rounds, "seconds": length, "rows": list(rows),
            "geometric_mean": math.exp(statistics.fmean(map(math.log, ratios))) if ratios else None}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
