"""Options and texts that the commands share."""
from __future__ import annotations

from collections.abc import Callable, Sequence, Sized
from typing import Any

import click

MODES = {"auto": "AUTO", "ref": "BUILTIN_REF", "opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}

model_argument = click.argument("model", type=click.Path(exists=True, dir_okay=False))
mode_option = click.option("--mode", type=click.Choice(list(MODES)), default="auto", show_default=True,
                           help="Arithmetic: LiteRT's default, its reference kernels, its kernels without XNNPACK.")
precision_option = click.option("--precision", type=click.Choice(["float32", "bfloat16"]), default="float32",
                                show_default=True, help="Of float32 products; bfloat16 where the CPU has the instruction.")
cache_option = click.option("--cache-dir", type=click.Path(file_okay=False), help="Where compiled code is kept.")


def resolver(mode: str) -> Any:
    """The OpResolverType of a --mode."""
    from litejit.interpreter import OpResolverType

    return OpResolverType[MODES[mode]]


def named(text: str, option: str) -> tuple[str, str]:
    """NAME=VALUE as a pair, split at the first "=". Raises BadParameter."""
    name, _, value = text.partition("=")
    if not name or not value:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value


def shapes_of(texts: tuple[str, ...], find: Callable[[str], int]) -> dict[int, tuple[int, ...]]:
    """--input-shape NAME=1,224,224,3 as input position -> shape. Raises BadParameter."""
    found = {}
    for name, value in (named(text, "--input-shape") for text in texts):
        try:
            shape = tuple(int(d) for d in value.split(","))
        except ValueError:
            shape = (-1,)
        if min(shape) < 0:
            raise click.BadParameter(f"{value!r} is not a shape like 1,224,224,3", param_hint="--input-shape")
        found[input_of(name, find, "--input-shape")] = shape
    return found


def input_of(name: str, find: Callable[[str], int], option: str) -> int:
    """Position of the input called `name`. Raises BadParameter listing the names that exist."""
    try:
        return find(name)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def seconds(value: float) -> str:
    """A time for people."""
    if value < 1e-3:
        return f"{1e6 * value:.0f} us"
    return f"{1e3 * value:.1f} ms" if value < 1 else f"{value:.2f} s"


def size(nbytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.2f} GB"


def count(things: Sized, noun: str) -> str:
    """How many there are: "1 tensor", "2 tensors"."""
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
