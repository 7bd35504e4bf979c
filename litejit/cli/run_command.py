"""`litejit run`: a model on files, images or random numbers."""
from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from litejit.cli.common import (
    cache_option,
    columns,
    input_of,
    mode_option,
    model_argument,
    named,
    precision_option,
    resolver,
    seconds,
    shapes_of,
)

if TYPE_CHECKING:
    from litejit.model import Model

RANGES = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1)}       # of types that NumPy sees as bytes


@click.command()
@model_argument
@click.option("--input", "inputs", multiple=True, metavar="NAME=VALUE",
              help="FILE.npy, 'random', 'zeros', or an image file; once per input. Others are random.")
@click.option("--input-shape", multiple=True, metavar="NAME=1,224,224,3", help="Resize an input.")
@click.option("--output", type=click.Path(file_okay=False), help="Directory to write NAME.npy of every output to.")
@click.option("--threads", default=1, show_default=True, type=click.IntRange(-1), help="Threads; -1: all cores.")
@click.option("--seed", default=0, show_default=True, help="Of the random inputs.")
@click.option("--mean", default=127.5, show_default=True, help="Subtracted from pixels of float and quantised inputs.")
@click.option("--std", default=127.5, show_default=True, help="What pixels are divided by then.")
@mode_option
@precision_option
@cache_option
def command(model: str, inputs: tuple[str, ...], input_shape: tuple[str, ...], output: str | None, threads: int,
            seed: int, mean: float, std: float, mode: str, precision: str, cache_dir: str | None) -> None:
    """Run MODEL once and show its outputs."""
    from litejit.interpreter import Interpreter
    from litejit.names import output_names

    start = time.perf_counter()
    interpreter = Interpreter(model, num_threads=threads, experimental_op_resolver_type=resolver(mode),
                              precision=precision, cache_dir=cache_dir)
    details = interpreter.get_input_details()
    for position, shape in shapes_of(input_shape, interpreter.get_input_index).items():
        interpreter.resize_tensor_input(details[position]["index"], shape)
    sources = {input_of(name, interpreter.get_input_index, "--input"): value
               for name, value in (named(text, "--input") for text in inputs)}
    rng = np.random.default_rng(seed)
    values = {}
    for position, detail in enumerate(interpreter.get_input_details()):
        kind = interpreter.model.subgraphs[0].tensors[detail["index"]].type.name
        values[position] = make_input(sources.get(position, "random"), detail, rng, mean, std, RANGES.get(kind))
        if values[position].shape != tuple(detail["shape"]):
            interpreter.resize_tensor_input(detail["index"], values[position].shape)
    interpreter.allocate_tensors()
    loaded = time.perf_counter()
    for position, detail in enumerate(details):
        interpreter.set_tensor(detail["index"], values[position])
    interpreter.invoke()
    done = time.perf_counter()
    names = output_names(interpreter.model)
    results = [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]
    _show(dict(zip(names, results)))
    click.echo(f"load and plan {seconds(loaded - start)}, run {seconds(done - loaded)}")
    if output:
        _write(output, dict(zip(names, results)))


def random_inputs(model: Model, rng: np.random.Generator) -> list[np.ndarray]:
    """Random arrays for the inputs of subgraph 0, in their order and in the shapes of the file."""
    from litejit.details import tensor_details

    tensors = [model.subgraphs[0].tensors[i] for i in model.subgraphs[0].inputs]
    return [make_input("random", tensor_details(t, t.shape), rng, 0.0, 1.0, RANGES.get(t.type.name)) for t in tensors]


def make_input(source: str, detail: dict[str, Any], rng: np.random.Generator, mean: float, std: float,
               limits: tuple[int, int] | None = None) -> np.ndarray:
    """An array for an input; `limits` of random integers. Raises ClickException for files that cannot be read."""
    shape, dtype = tuple(int(d) for d in detail["shape"]), np.dtype(detail["dtype"])
    if source == "zeros":
        return np.zeros(shape, dtype)
    if source == "random":
        return _random(shape, dtype, rng, limits)
    if not os.path.exists(source):
        raise click.ClickException(f"input {detail['name']!r}: there is no file {source!r}")
    if source.endswith(".npy"):
        try:
            array: np.ndarray = np.load(source, allow_pickle=False)
        except ValueError as error:
            raise click.ClickException(f"input {detail['name']!r}: {source} is not a .npy file: {error}") from error
        return array
    return _image(source, detail, mean, std)


def _random(shape: tuple[int, ...], dtype: np.dtype, rng: np.random.Generator,
            limits: tuple[int, int] | None) -> np.ndarray:
    if dtype.kind not in "iub":
        return rng.uniform(-1, 1, shape).astype(dtype)
    if limits is None:                     # above 8 bits, these are ids and lengths: small, so that they are in range
        limits = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" and dtype.itemsize == 1 else (0, 1)
    return rng.integers(*limits, shape, dtype, endpoint=True)


def _image(path: str, detail: dict[str, Any], mean: float, std: float) -> np.ndarray:
    """An image resized to the input's height and width; uint8 inputs take pixels, others (pixel - mean) / std."""
    try:
        from PIL import Image
    except ImportError as error:
        raise click.ClickException("images need Pillow: pip install Pillow") from error
    shape, dtype = tuple(int(d) for d in detail["shape"]), np.dtype(detail["dtype"])
    if len(shape) not in (3, 4) or shape[-1] not in (1, 3, 4):
        raise click.ClickException(f"input {detail['name']!r} of shape {shape} takes no image")
    height, width, channels = shape[-3:]
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels]).resize((width, height)))
    except OSError as error:
        raise click.ClickException(f"input {detail['name']!r}: {error}") from error
    pixels = pixels.reshape(height, width, channels)
    if dtype == np.uint8:
        value = pixels
    elif dtype.kind == "f":
        value = ((pixels - mean) / std).astype(dtype)
    else:
        scale, zero = detail["quantization"]
        info = np.iinfo(dtype)
        real = (pixels - mean) / std
        value = np.clip(np.rint(real / (scale or 1.0)) + zero, info.min, info.max).astype(dtype)
    return np.broadcast_to(value, (*shape[:-3], height, width, channels)).copy()


def _show(results: dict[str, Any]) -> None:
    rows = [["output", "type", "shape", "min", "mean", "max", "first values"]]
    for name, value in results.items():
        array = np.asarray(value)
        shape = "x".join(map(str, array.shape)) or "scalar"
        first = " ".join(f"{v:.4g}" for v in array.ravel()[:5].tolist())
        spread = ["", "", ""]
        if array.size and array.dtype.kind != "c":
            numbers = array.astype(np.float64)
            spread = [f"{v:.5g}" for v in (numbers.min(), numbers.mean(), numbers.max())]
        rows.append([name, array.dtype.name, shape, *spread, first])
    click.echo(columns(rows))


def _write(folder: str, results: dict[str, Any]) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, value in results.items():
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in name) or "output"
        path = os.path.join(folder, safe + ".npy")
        np.save(path, np.asarray(value))
        click.echo(f"wrote {path}")
