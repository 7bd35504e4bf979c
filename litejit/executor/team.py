"""The process's team of threads, and the cheapest way to run a plan on one.

A team has one run at a time; a second invoke at the same moment runs on its caller's thread alone, with the same
results. Workers are daemon threads of Python inside one foreign call, so that they never hold the GIL; they are
started when they are first needed. What they do is in compiler/runtime.py and compiler/steps.py.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from litejit.compiler.instructions import ANYBODY, EVERYBODY, FUTEX_CALL, FUTEX_WAKE, MACHINE, has_futex
from litejit.compiler.runtime import runtime_library
from litejit.compiler.steps import EPOCH, INSIDE, MAX_THREADS, SPIN, STEP, STOP, WORDS

if TYPE_CHECKING:
    from litejit.compiler.load import Library

_Word = ctypes.c_int64
_Entry = ctypes.CFUNCTYPE(ctypes.c_int64)  # releases the GIL; no argument types: prepared ones are passed
SPIN_SECONDS = 40e-6  # then a thread sleeps
PATIENCE = 5.0  # seconds that `close` waits for a run
ALONE = 1 << 8  # ctl of a run on one thread


class Team:
    """Threads that share the steps of one run after the other."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self._team_call = _Entry(library.address("lj_team_call"))
        self._closed = False
        self._spin = _pauses(library, SPIN_SECONDS) if _cores() > 1 else 0
        self._reset()

    def _reset(self) -> None:
        """A team without threads: new memory, for threads of a forked parent do not exist here."""
        self._lock = threading.Lock()
        memory = (_Word * (WORDS + 8))()
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))  # for ever: threads outlive every object at exit
        self._address = (ctypes.addressof(memory) + 63) & -64
        self._words = (_Word * WORDS).from_address(self._address)
        self._words[SPIN], self._words[EPOCH], self._words[STEP] = self._spin, 1, 1
        self._threads: list[threading.Thread] = []

    @property
    def size(self) -> int:
        """Threads that exist, the caller's included."""
        return len(self._threads) + 1

    # ---- running ---------------------------------------------------------------------------------

    def make_call(self, driver: int, table: int, nsteps: int, nthr: int) -> Callable[[], int]:
        """A callable without arguments that runs a driver on up to `nthr` threads and returns its result.

        nsteps: records of the table before END. The table and what it points to must stay as they are until
        `quiesce` has returned.
        """
        alone = make_call(driver, table, self._library)
        block = (_Word * 6)(self._library.address("lj_run"), 0, driver, table, 0, nsteps)
        argument, entry = ctypes.byref(block), self._team_call

        def call() -> int:
            lock = self._lock
            if not lock.acquire(False):
                return alone()
            try:
                threads = nthr if nthr <= len(self._threads) + 1 else self._grow(nthr)
                if threads == 1:
                    return alone()
                block[1], block[4] = self._address, threads
                return int(entry(argument))
            finally:
                lock.release()

        return call if nthr > 1 else alone

    def run(self, driver: int, table: int, nsteps: int, nthr: int) -> int:
        """Runs a driver once; its result."""
        return self.make_call(driver, table, nsteps, nthr)()

    def _grow(self, nthr: int) -> int:
        """Starts workers; how many threads there are for a run that wants `nthr`."""
        nthr = min(nthr, MAX_THREADS)
        entry = self._library.address("lj_worker")
        while not self._closed and len(self._threads) + 1 < nthr:
            worker = threading.Thread(
                target=_work,
                args=(entry, self._address, len(self._threads) + 1),
                name=f"litejit-{len(self._threads) + 1}",
                daemon=True,
            )
            try:
                worker.start()
            except RuntimeError:  # no more threads, or the interpreter is shutting down
                break
            self._threads.append(worker)
        return min(nthr, len(self._threads) + 1)

    # ---- the end of things -----------------------------------------------------------------------

    def quiesce(self) -> None:
        """Returns when no worker is inside a run that has ended: tables may be changed or freed then."""
        words, epoch = self._words, self._words[EPOCH]
        for tid in range(1, len(self._threads) + 1):
            while 0 < words[INSIDE + 8 * tid] < epoch:
                time.sleep(0)

    def close(self) -> None:
        """Stops the workers. Later runs have one thread."""
        self._closed = True
        if not self._lock.acquire(timeout=PATIENCE):  # a run that does not end: its threads end with the process
            return
        try:
            self._words[STOP] = 1
            self._words[EPOCH] += 2  # the word that sleeping workers compare
            for thread in self._threads:
                while thread.is_alive():
                    _wake(self._address + 8 * EPOCH)
                    thread.join(0.01)
            self._threads = []
        finally:
            self._lock.release()


def _work(entry: int, team: int, tid: int) -> None:
    """A worker's life, in one foreign call."""
    result, error = _Word(), _Word()
    ctypes.CFUNCTYPE(ctypes.c_int32)(entry)(ctypes.byref(result), ctypes.byref(error), _Word(team), _Word(tid))


def _wake(address: int) -> None:
    if has_futex():
        arguments = (FUTEX_CALL[MACHINE], address, FUTEX_WAKE, EVERYBODY, 0, 0, ANYBODY)
        ctypes.CDLL(None).syscall(*map(ctypes.c_long, arguments))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pauses(library: Library, seconds: float) -> int:
    """How many pauses take so long. A pause is 10 to 150 cycles, depending on the CPU."""
    count, result, error = 1000, _Word(), _Word()
    spin = ctypes.CFUNCTYPE(ctypes.c_int32)(library.address("lj_spin"))
    best = 1.0
    for _ in range(3):
        start = time.perf_counter()
        spin(ctypes.byref(result), ctypes.byref(error), _Word(count))
        best = min(best, time.perf_counter() - start)
    return max(100, min(int(count * seconds / best), 100_000))


def make_call(driver: int, table: int, library: Library | None = None) -> Callable[[], int]:
    """A callable without arguments that runs a driver on the caller's thread and returns its result (0.1 us)."""
    entry = _Entry((library or runtime_library()).address("lj_call"))
    return functools.partial(entry, ctypes.byref((_Word * 4)(driver, 0, ALONE, table)))


# ---- the one team --------------------------------------------------------------------------------

_team: Team | None = None
_making = threading.Lock()


def team() -> Team:
    """The process's team. The first call loads, or compiles, the run-time system; threads start with the first run."""
    global _team
    if _team is None:
        with _making:
            if _team is None:
                import atexit

                made = Team(runtime_library())
                atexit.register(made.close)
                _team = made
    return _team


def settle() -> None:
    """Returns when no worker can look at the table of a run that has ended, which may be freed then."""
    if _team is not None:
        _team.quiesce()


class Lent:
    """An array that workers may still read after a run: it is let go when none of them can."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def __del__(self) -> None:
        if settle is not None:  # it is while the process ends
            settle()


def _after_fork() -> None:
    global _making
    _making = threading.Lock()  # another thread of the parent may have held it
    if _team is not None:
        _team._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
