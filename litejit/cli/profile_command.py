"""`litejit profile`: how long every step of a model takes, and how near that is to the machine's peak."""
from __future__ import annotations

import json
import os

import click
import numpy as np

from litejit.cli.common import cache_option, mode_option, model_argument, precision_option, resolver
from litejit.cli.run_command import random_inputs


@click.command()
@model_argument
@click.option("--threads", default=1, show_default=True, type=click.IntRange(-1), help="Threads; -1: all cores.")
@click.option("--repeat", default=50, show_default=True, type=click.IntRange(1), help="Runs of which medians are taken.")
@click.option("--trace", type=click.Path(dir_okay=False), help="Write a run for chrome://tracing or ui.perfetto.dev.")
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
@mode_option
@precision_option
@cache_option
def command(model: str, threads: int, repeat: int, trace: str | None, as_json: bool, mode: str,
            precision: str, cache_dir: str | None) -> None:
    """Time the steps of MODEL on random inputs, the slowest first."""
    from litejit.interpreter import Interpreter

    interpreter = Interpreter(model, num_threads=threads, experimental_op_resolver_type=resolver(mode), precision=precision,
                              cache_dir=cache_dir)
    interpreter.allocate_tensors()
    for detail, value in zip(interpreter.get_input_details(), random_inputs(interpreter.model, np.random.default_rng(0))):
        interpreter.set_tensor(detail["index"], value)
    profile = interpreter.profile(repeat)
    if trace:
        with open(trace, "w", encoding="utf-8") as file:
            json.dump(profile.trace(), file)
    if as_json:
        click.echo(json.dumps({"model": model, **profile.to_dict()}, indent=1))
        return
    click.echo(f"{os.path.basename(model)}: {interpreter.plan.summary()}")
    click.echo(str(profile))
    if trace:
        click.echo(f"wrote {trace}")
