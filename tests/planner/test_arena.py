"""The arena: buffers that live together do not overlap, aligned, deterministic, never above greedy by size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from litejit.planner.arena import ALIGNMENT, Buffer, aligned, assign, lower_bound


@st.composite
def buffers(draw: st.DrawFn) -> list[Buffer]:
    count = draw(st.integers(0, 40))
    made = []
    for _ in range(count):
        first = draw(st.integers(0, 30))
        made.append(Buffer(first, first + draw(st.integers(0, 12)), draw(st.integers(1, 5000))))
    return made


def overlap_in_time(a: Buffer, b: Buffer) -> bool:
    return a.first <= b.last and b.first <= a.last


def greedy_by_size(items: list[Buffer]) -> int:
    """Peak of the plain algorithm: largest first, each into the best gap among those that live at the same time."""
    order = sorted(range(len(items)), key=lambda i: (-items[i].size, items[i].first, i))
    placed: list[tuple[int, int]] = []  # (offset, buffer)
    peak = 0
    for i in order:
        size = aligned(items[i].size)
        busy = sorted((o, o + aligned(items[j].size)) for o, j in placed if overlap_in_time(items[i], items[j]))
        at, best, gap = 0, None, 1 << 62
        for start, end in busy:
            if start >= at + size and start - at < gap:
                best, gap = at, start - at
            at = max(at, end)
        offset = at if best is None else best
        placed.append((offset, i))
        peak = max(peak, offset + size)
    return peak


@given(buffers())
def test_no_two_live_buffers_overlap(items: list[Buffer]) -> None:
    offsets, size = assign(items)
    spans = [(o, o + b.size) for o, b in zip(offsets, items)]
    for i, (low, high) in enumerate(spans):
        assert low % ALIGNMENT == 0
        assert low >= 0 and high <= size
        for j in range(i):
            if overlap_in_time(items[i], items[j]):
                assert high <= spans[j][0] or spans[j][1] <= low


@given(buffers())
def test_peak_is_between_the_bounds(items: list[Buffer]) -> None:
    _, size = assign(items)
    sizes = [aligned(b.size) for b in items]
    assert lower_bound(items, sizes) <= size <= sum(sizes)


@given(buffers())
def test_deterministic(items: list[Buffer]) -> None:
    assert assign(items) == assign(list(items))


def test_gap_between_two_is_used() -> None:
    items = [Buffer(0, 3, 640), Buffer(0, 0, 128), Buffer(1, 3, 128)]
    assert assign(items) == ([0, 640, 640], 768)


def test_nothing_needs_nothing() -> None:
    assert assign([]) == ([], 0)
