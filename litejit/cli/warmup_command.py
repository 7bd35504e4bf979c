"""`litejit warmup`: compile models ahead of time, with a progress bar and a report."""
from __future__ import annotations

import os
import time

import click

from litejit.cli.common import cache_option, columns, mode_option, precision_option, resolver, seconds, shapes_of


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--input-shape", multiple=True, metavar="NAME=1,224,224,3", help="Resize an input (of every model).")
@mode_option
@precision_option
@cache_option
def command(models: tuple[str, ...], input_shape: tuple[str, ...], mode: str, precision: str,
            cache_dir: str | None) -> None:
    """Fill the store with the compiled code of MODELS, so that later processes compile nothing."""
    from litejit.store import open_store

    store = open_store(cache_dir)
    rows = [("model", "kernels", "steps", "compiled", "time")]
    failed = 0
    for path in models:
        before = store.statistics.compiled
        start = time.perf_counter()
        try:
            kernels, steps = _warm(path, input_shape, mode, precision, cache_dir)
        except (RuntimeError, ValueError) as error:
            failed += 1
            click.echo(f"{path}: {error}", err=True)
            continue
        rows.append((os.path.basename(path), str(kernels), str(steps), str(store.statistics.compiled - before),
                     seconds(time.perf_counter() - start)))
    if len(rows) > 1:
        click.echo(columns(rows))
        click.echo("store: " + (", ".join(store.roots) or "none; what was compiled is lost when this process ends"))
    if failed:
        raise click.ClickException(f"{failed} of {len(models)} models could not be prepared")


def _warm(path: str, input_shape: tuple[str, ...], mode: str, precision: str, cache_dir: str | None) -> tuple[int, int]:
    """Compile one model; (kernels, steps)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from litejit.compiler.runtime import runtime_library
    from litejit.fusion.link import plan_library
    from litejit.interpreter import Interpreter
    from litejit.planner.make import make_plan

    interpreter = Interpreter(path, experimental_op_resolver_type=resolver(mode), precision=precision, cache_dir=cache_dir)
    details = interpreter.get_input_details()
    for position, shape in shapes_of(input_shape, interpreter.get_input_index).items():
        interpreter.resize_tensor_input(details[position]["index"], shape)
    store, target = interpreter._store, interpreter._target
    subgraphs = sorted({0, *(s.subgraph for s in interpreter.model.signatures)})
    kernels = steps = 0
    console = Console(stderr=True)
    with Progress(TextColumn("{task.description:40.40}"), BarColumn(), MofNCompleteColumn(), transient=True,
                  console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(os.path.basename(path), total=None)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=f"{os.path.basename(path)} {what}", completed=done, total=total)
        runtime_library(target.cpu, store)
        for index in subgraphs:
            session = interpreter._session(index)
            plan = make_plan(interpreter.model, index, tuple(session.shapes), target)
            if plan.records:
                plan_library(plan, True, store, progress)
            kernels, steps = kernels + len(plan.kernels), steps + len(plan.steps)
    return kernels, steps
