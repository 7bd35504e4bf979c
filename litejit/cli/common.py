"""Options and texts that the commands share."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

MODES = {"auto": "AUTO", "ref": "BUILTIN_REF", "opt": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}

model_argument = click.argument("model", type=click.Path(exists=True, dir_okay=False))
mode_option = click.option("--mode", type=click.Choice(list(MODES)), default="auto", show_default=True,
                           help="Arithmetic: LiteRT's default, its reference kernels, its kernels without XNNPACK.")
cache_option = click.option("--cache-dir", type=click.Path(file_okay=False), help="Where compiled code is kept.")


def resolver(mode: str) -> Any:
    """The OpResolverType of a --mode."""
    from litejit.interpreter import OpResolverType

    return OpResolverType[MODES[mode]]


def named(text: str, option: str) -> tuple[str, str]:
    """NAME=VALUE as a pair. Raises BadParameter."""
    name, equals, value = text.rpartition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint=option)
    return name, value


def shapes_of(texts: tuple[str, ...], find: Callable[[str], int]) -> dict[int, tuple[int, ...]]:
    """--input-shape NAME=1,224,224,3 as input position -> shape. Raises BadParameter."""
    found = {}
    for text in texts:
        name, value = named(text, "--input-shape")
        try:
            found[find(name)] = tuple(int(d) for d in value.split(","))
        except ValueError as error:
            raise click.BadParameter(f"{text!r}: {error}", param_hint="--input-shape") from error
    return found


def seconds(value: float) -> str:
    """A time for people."""
    if value < 1e-3:
        return f"{1e6 * value:.0f} us"
    return f"{1e3 * value:.1f} ms" if value < 1 else f"{value:.2f} s"


def size(count: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
