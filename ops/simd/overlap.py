"""Tiles below each other, the end of each made beside the first products of the next one.

The end of a tile (clamp, convert, scale, pack, store) is for other units of a CPU than its multiply-adds, but waits for all of
them: put between two tiles it takes its whole time, beside the products of the next one little of it (Zen 4: 512-bit
multiply-adds or dot products that fill every cycle leave conversions, minima, sums and shuffles free; products, saturating sums
and stores are not). Some rows at a time end, and begin anew: no more registers are needed for sums.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

Ends = Sequence[Callable[[], None]]
"""What is to be done before the first products of some rows: of each of so many parts of a tile's rows."""


def all_segments(v: Any, segments: Any, sums: list[Any], segment: Callable[..., list[Any]], ends: Ends) -> list[Any]:
    """The sums with the products of all segments, segment(s, sums[, ends]); the ends are beside those of the first one."""
    first = segment(v.i(0), sums, ends) if ends else sums
    made: list[Any] = v.loop(segments, first, segment, start=1 if ends else 0)
    return made


def overlapped(v: Any, m: Any, rows: int, parts: int, places: list[Any], move: Callable[[list[Any]], list[Any]],
               products: Callable[[list[Any], Ends], list[Any]], finish: Callable[[int, list[Any], list[Any]], None]) -> None:
    """Tiles of `rows` of m rows; m: a multiple, also none, or less than those of one.

    places: what differs from tile to tile, which `move` takes to the next one; products(places, ends): the sums of a tile, with
    the ends of the one before; finish(part, places, sums): the end of a part of a tile's rows.
    """
    def next_tile(_: Any, carried: list[Any]) -> list[Any]:
        before, sums = carried[:len(places)], carried[len(places):]
        here = move(before)
        return [*here, *products(here, [partial(finish, part, before, sums) for part in range(parts)])]

    def tiles() -> None:
        last = v.loop(v.sub(m, rows), [*places, *products(places, ())], next_tile, step=rows)
        for part in range(parts):
            finish(part, last[:len(places)], last[len(places):])
    v.either(v.icmp(">", m, 0), tiles)

