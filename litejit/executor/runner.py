"""A plan bound to memory of its own: arena, state, parameters, and the call that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from litejit.compiler.steps import RESULT_BITS
from litejit.errors import LiteJitError
from litejit.executor.team import Lent, make_call, settle, team
from litejit.executor.work import shared
from litejit.fusion.driver import SYMBOL
from litejit.fusion.link import plan_library
from litejit.planner.constants import SLACK, padded
from litejit.planner.graph import Value
from litejit.planner.plan import END, RECORD, Plan

if TYPE_CHECKING:
    from litejit.store import Store


class Runner:
    """One plan with its memory. `run()` does one invoke; nothing is allocated or decided in it."""

    def __init__(self, plan: Plan, store: Store, threads: int = 1, fuse: bool = True) -> None:
        self.plan, self.threads = plan, threads
        self.library = plan_library(plan, fuse, store) if plan.records else None
        self.arena = memory(plan.arena_size)
        self.state = memory(plan.state_size)
        self.reset_state()
        image = plan.image
        self.words = padded(image.words)[: image.words.nbytes].view(np.int64)
        own = int(self.words.ctypes.data)
        self.words[image.arena] += int(self.arena.ctypes.data)
        self.words[image.state] += int(self.state.ctypes.data)
        self.words[image.own] += own
        for word, symbol in image.functions:
            self.words[word] = self.library.address(symbol)  # type: ignore[union-attr]
        self._shared = threads > 1 and shared(plan)
        self._call = self._make_call(fuse, own)
        self._views: dict[Value, np.ndarray] = {}

    def _make_call(self, fuse: bool, table: int) -> Callable[[], int]:
        if self.library is None:
            return lambda: 0
        if fuse:
            driver = self.library.address(SYMBOL)
        else:
            from litejit.compiler.runtime import runtime_library

            driver = runtime_library().address("lj_loop")
        if self._shared:
            return team().make_call(driver, table, len(self.plan.records), self.threads)
        return make_call(driver, table)

    def run(self) -> None:
        """One invoke. Raises LiteJitError naming the node that failed."""
        result = self._call()
        if result:
            raise failure(self.plan, result)

    def step_call(self, at: int) -> Callable[[], int]:
        """A callable that runs record `at`, a step, on this runner's threads, and returns the driver's result.

        Where a step of one chunk, or a plan that threads do not share, would run on one thread in a run, it does here.
        """
        return self._table_call(self.words[RECORD * at : RECORD * (at + 1)])

    def empty_call(self) -> Callable[[], int]:
        """A callable that runs nothing the way in which `step_call` runs a step."""
        return self._table_call(self.words[:0])

    def _table_call(self, records: np.ndarray) -> Callable[[], int]:
        from litejit.compiler.runtime import runtime_library

        table = padded(np.concatenate([records, [END, 0, 0, 0]])).view(np.int64)
        loop, address = runtime_library().address("lj_loop"), int(table.ctypes.data)
        if self._shared and records.size and records[3] > 1:
            call = team().make_call(loop, address, 1, self.threads)
        else:
            call = make_call(loop, address)

        lent = Lent(table)

        def run(keep: Lent = lent) -> int:
            return call()

        return run

    def view(self, value: Value) -> np.ndarray | None:
        """The value's own memory as an array (written by runs); None where it has none of its own."""
        if value in self._views:
            return self._views[value]
        place = self.plan.place(value)
        if place is None:
            return None
        if place.kind == "constant":
            array = place.array
        else:
            base = self.arena if place.kind == "arena" else self.state
            array = base[place.offset : place.offset + value.nbytes].view(value.dtype).reshape(value.dims)
        if array is not None:
            self._views[value] = array
        return array

    def reset_state(self) -> None:
        """Variables to zero, int8 ones to their zero point."""
        self.state[:] = 0
        for value, place in self.plan.places.items():
            if place.kind == "state" and value.variable and value.type in ("i8", "u8") and value.zero_point:
                self.state[place.offset : place.offset + value.nbytes] = value.zero_point & 255

    def __del__(self) -> None:
        if settle is not None:  # it is while the process ends; else before the table is freed
            settle()

    def quiesce(self) -> None:
        """Wait until no thread of the team can look at this runner's table any more."""
        if self.threads > 1:
            team().quiesce()


def memory(size: int) -> np.ndarray:
    """`size` bytes, zeroed, 64-byte aligned, with readable slack after them."""
    raw = np.zeros(size + SLACK + 128, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size + SLACK]


def failure(plan: Plan, result: int) -> LiteJitError:
    """The error that a driver's result stands for."""
    at, value = (result >> RESULT_BITS) - 1, result & ((1 << RESULT_BITS) - 1)
    node = plan.node_of(at)
    code, position = value & 255, value >> 8
    texts: dict[int, str] = getattr(node.operator, "errors", {})
    text = texts.get(code, f"kernel error {code}")
    where = f" (element {position})" if position else ""
    return LiteJitError(f"{text}{where} Node number {node.index} ({node.op}) failed to invoke. [{node.describe()}]")


def summary(runner: Any) -> str:
    """One line about a runner's memory."""
    return f"arena {runner.arena.nbytes:,} bytes, state {runner.state.nbytes:,} bytes, {runner.threads} thread(s)"
