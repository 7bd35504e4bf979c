"""`litejit demo`: draws handwritten digits, classifies them, and says how long everything took."""
from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import click
import numpy as np

from litejit.cli.common import cache_option, seconds

if TYPE_CHECKING:
    from litejit.interpreter import Interpreter

SHADES = " ░▒▓█"


@click.command()
@click.option("--model", type=click.Choice(["float", "int8"]), default="int8", show_default=True)
@click.option("--count", default=5, show_default=True, type=click.IntRange(1, 12), help="How many digits to draw.")
@click.option("--seed", default=None, type=int, help="Which digits; random ones by default.")
@cache_option
def command(model: str, count: int, seed: int | None, cache_dir: str | None) -> None:
    """Classify handwritten digits that the model has never seen."""
    from litejit.demo import MODELS, digits, model_input
    from litejit.interpreter import Interpreter
    from litejit.store import open_store

    images, labels = digits()
    chosen = np.random.default_rng(seed).choice(len(images), count, replace=False)
    start = time.perf_counter()
    interpreter = Interpreter(str(MODELS[model]), cache_dir=cache_dir)
    loaded = time.perf_counter()
    interpreter.allocate_tensors()
    ready = time.perf_counter()
    inputs, outputs = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    pixels = model_input(images, inputs)
    scale, zero_point = outputs["quantization"] if outputs["dtype"] == np.int8 else (1.0, 0)
    answers, first = [], 0.0
    for i in chosen:
        interpreter.set_tensor(inputs["index"], pixels[i:i + 1])
        begin = time.perf_counter()
        interpreter.invoke()
        first = first or time.perf_counter() - begin
        scores = (interpreter.get_tensor(outputs["index"])[0].astype(np.float32) - zero_point) * scale
        answers.append((int(scores.argmax()), float(scores.max())))
    click.echo("\n".join(_draw(images[chosen])))
    click.echo("".join(f"{answer} ({100 * sure:.0f} %)".center(18) for answer, sure in answers).rstrip())
    right = sum(answer == labels[i] for (answer, _), i in zip(answers, chosen))
    click.echo(f"\n{right} of {count} right; over all {len(images)} unseen digits "
               f"{100 * _accuracy(interpreter, pixels, labels):.1f} %")
    compiled = open_store(cache_dir).statistics.compiled
    code = f"{compiled} entries compiled" if compiled else "all code from the store"
    click.echo(f"load {seconds(loaded - start)}, plan and compile {seconds(ready - loaded)} "
               f"({code}), first run {seconds(first)}, then {seconds(_steady(interpreter))} a run")


def _draw(images: np.ndarray) -> list[str]:
    """The digits side by side, two characters a pixel."""
    shades = [2 * SHADES[value * len(SHADES) // 17] for value in range(17)]
    return ["  ".join("".join(shades[p] for p in image[row]) for image in images).rstrip() for row in range(8)]


def _accuracy(interpreter: Interpreter, pixels: np.ndarray, labels: np.ndarray) -> float:
    inputs, outputs = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    right = 0
    for image, label in zip(pixels, labels):
        interpreter.set_tensor(inputs, image[None])
        interpreter.invoke()
        right += int(interpreter.get_tensor(outputs)[0].argmax() == label)
    return right / len(labels)


def _steady(interpreter: Interpreter) -> float:
    """Median seconds of an invoke."""
    times = []
    for _ in range(500):
        begin = time.perf_counter()
        interpreter.invoke()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)
