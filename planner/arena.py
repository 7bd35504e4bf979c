"""Offsets of buffers in one arena: buffers that live at the same time do not overlap.

Greedy first fit, tried in several orders; the one with the lowest peak wins, the first of equals. The first order is by
size, as LiteRT does it, so the result is never above that. Deterministic.
"""

from __future__ import annotations

from bisect import insort
from typing import NamedTuple

ALIGNMENT = 64


class Buffer(NamedTuple):
    """A buffer of `size` bytes that lives from step `first` to step `last`, both included."""

    first: int
    last: int
    size: int


def aligned(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def assign(buffers: list[Buffer]) -> tuple[list[int], int]:
    """(offset of each buffer, size of the arena), in bytes."""
    sizes = [aligned(b.size) for b in buffers]
    bound = lower_bound(buffers, sizes)
    best: tuple[list[int], int] | None = None
    for order in _orders(buffers, sizes):
        offsets, peak = _place(buffers, sizes, order)
        if best is None or peak < best[1]:
            best = offsets, peak
        if peak == bound:
            break
    return best or ([], 0)


def lower_bound(buffers: list[Buffer], sizes: list[int]) -> int:
    """The most bytes that live at one step: no arena can be smaller."""
    change: dict[int, int] = {}
    for buffer, size in zip(buffers, sizes):
        change[buffer.first] = change.get(buffer.first, 0) + size
        change[buffer.last + 1] = change.get(buffer.last + 1, 0) - size
    live = most = 0
    for step in sorted(change):
        live += change[step]
        most = max(most, live)
    return most


def _orders(buffers: list[Buffer], sizes: list[int]) -> list[list[int]]:
    indices = range(len(buffers))
    keys = (
        lambda i: (-sizes[i], buffers[i].first, i),  # by size, as LiteRT
        lambda i: (-sizes[i] * (buffers[i].last - buffers[i].first + 1), buffers[i].first, i),  # by area
        lambda i: (buffers[i].first, -sizes[i], i),  # by time
        lambda i: (buffers[i].first - buffers[i].last, -sizes[i], i),  # by duration
        lambda i: (-buffers[i].last, -sizes[i], i),  # backwards
    )
    return [sorted(indices, key=key) for key in keys]


def _place(buffers: list[Buffer], sizes: list[int], order: list[int]) -> tuple[list[int], int]:
    offsets, peak = [0] * len(buffers), 0
    placed: list[tuple[int, int, int, int]] = []  # (offset, size, first, last), by offset
    for i in order:
        first, last, size = buffers[i].first, buffers[i].last, sizes[i]
        at = 0
        for offset, length, start, end in placed:
            if start <= last and end >= first:
                if offset - at >= size:
                    break
                at = max(at, offset + length)
        offsets[i] = at
        insort(placed, (at, size, first, last))
        peak = max(peak, at + size)
    return offsets, peak
