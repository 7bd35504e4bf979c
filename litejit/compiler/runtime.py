"""Numba source of the run-time system, compiled once: the loop over a plan's table, and runs on a team of threads.

`lj_loop` runs a table (a driver), `lj_step` one step of it, `lj_run` starts a driver on the team, `lj_worker` is the
body of a worker thread. Every thread of a team runs the same driver over the same table; steps.py says how they share
a step, entries.py how Python calls.
"""
# mypy: allow-untyped-defs
from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from litejit.compiler.entries import ENTRIES, entries_source
from litejit.compiler.instructions import (
    ANYBODY,
    add,
    exchange,
    float_defaults,
    load,
    native,
    pause,
    read,
    read_byte,
    store,
)
from litejit.compiler.lazy import Function, core_digest, device, digest
from litejit.compiler.steps import (
    BASE,
    DRIVER,
    EPOCH,
    FAIL,
    FAIL_STEP,
    FAIL_VALUE,
    IDLE,
    INSIDE,
    LOCAL,
    NO_FAILURE,
    RESULT_BITS,
    RUN_END,
    SPIN,
    STEP,
    STOP,
    TABLE,
    THREADS,
    VALUE_MASK,
    publish,
    sleep,
    team_step,
    wait_for,
    wake,
)

if TYPE_CHECKING:
    from litejit.compiler.cpu import Cpu
    from litejit.compiler.load import Library
    from litejit.store import Store

KERNEL, JUMP_IF_ZERO, JUMP, END = range(4)          # kinds of records in a table
RECORD = 4                                          # int64 words of a record: kind, function, params, count


# ---- drivers -------------------------------------------------------------------------------------

def lj_step(team, tid, nthr, g, function, params, count):
    """Step number g: `count` chunks of a kernel. 0, or not: leave the driver (with nthr == 1: the kernel's result)."""
    if nthr == 1:
        return native(function, params, 0, count)
    return team_step(team, tid, nthr, g, function, params, count)


def lj_loop(team, ctl, table):
    """Driver for any table. ctl: thread | threads << 8 | number of the first step << 16."""
    tid, nthr, base = ctl & 255, (ctl >> 8) & 255, ctl >> 16
    i = 0
    while True:
        record = table + 8 * RECORD * i
        kind = read(record)
        if kind == KERNEL:
            if nthr == 1:
                result = native(read(record + 8), read(record + 16), 0, read(record + 24))
            else:
                result = team_step(team, tid, nthr, base + i, read(record + 8), read(record + 16),
                                   read(record + 24))
            if result != 0:
                return ((i + 1) << RESULT_BITS) | (result & VALUE_MASK)
            i += 1
        elif kind == JUMP_IF_ZERO:
            i = i + 1 if read_byte(read(record + 8)) != 0 else read(record + 24)
        elif kind == JUMP:
            i = read(record + 24)
        else:
            return 0


# ---- the team ------------------------------------------------------------------------------------

@device
def wait_for_run(team, tid, last):
    """The epoch of the next run after `last`, or 0: stop."""
    spin, length = load(team, SPIN), 50
    while True:
        epoch = load(team, EPOCH)
        if load(team, STOP) != 0:
            return 0
        if epoch != last and (epoch & 1) == 0:
            return epoch
        if spin > 0:
            pause()
            spin -= 1
            continue
        add(team, IDLE, 1 << min(tid, 32))
        if load(team, EPOCH) == epoch:
            length = sleep(team, EPOCH, epoch, 1 << min(tid, 31), length)
        add(team, IDLE, -(1 << min(tid, 32)))


@device
def wake_workers(team, nthr):
    """Wakes those of the first nthr threads that sleep, and no others."""
    if nthr >= 32:
        if load(team, IDLE) != 0:
            wake(team, EPOCH, ANYBODY)
    elif (load(team, IDLE) & ((1 << nthr) - 1)) != 0:
        wake(team, EPOCH, (1 << nthr) - 1)


def lj_worker(team, tid):
    """Body of worker thread tid >= 1: takes part in runs until STOP."""
    float_defaults()
    epoch = 0
    while True:
        epoch = wait_for_run(team, tid, epoch)
        if epoch == 0:
            return 0
        exchange(team, INSIDE + 8 * tid, epoch)     # before the epoch is read again: see Team.quiesce
        driver, table = load(team, DRIVER), load(team, TABLE)
        base, nthr = load(team, BASE), load(team, THREADS)
        if load(team, EPOCH) == epoch and tid < nthr:       # these four belong together
            native(driver, team, tid | (nthr << 8) | (base << 16), table)
        store(team, INSIDE + 8 * tid, 0)


@device
def finish_run(team, base, end, result):
    """Waits until nothing of the run is left to do; its result."""
    if result == 0 and load(team, LOCAL) != end:
        wait_for(team, end)
    if load(team, FAIL) >= base:
        failed = load(team, FAIL_STEP)
        if load(team, LOCAL) != failed + 1:
            wait_for(team, failed + 1)              # other parts of the failed step may still be running
        result = ((failed - base + 1) << RESULT_BITS) | (load(team, FAIL_VALUE) & VALUE_MASK)
    if load(team, STEP) < end:
        publish(team, end)
    return result


def lj_run(team, driver, table, nthr, steps):
    """Runs a driver on nthr threads, the caller being thread 0; `steps`: records of the table before END."""
    base = load(team, STEP)
    end = base + steps
    store(team, DRIVER, driver)
    store(team, TABLE, table)
    store(team, BASE, base)
    store(team, THREADS, nthr)
    store(team, RUN_END, end)
    store(team, FAIL_VALUE, NO_FAILURE)
    store(team, LOCAL, base)
    add(team, EPOCH, 1)                             # open
    wake_workers(team, nthr)
    result = native(driver, team, (nthr << 8) | (base << 16), table)
    result = finish_run(team, base, end, result)
    add(team, EPOCH, 1)                             # closed: nobody can enter any more
    return result


def lj_spin(count):
    """`count` pauses, to find out how long one takes."""
    for _ in range(count):
        pause()
    return 0


# ---- compiling -----------------------------------------------------------------------------------

FUNCTIONS: dict[str, tuple[Callable[..., int], int]] = {       # and their numbers of arguments
    "lj_step": (lj_step, 7), "lj_loop": (lj_loop, 3), "lj_worker": (lj_worker, 2), "lj_run": (lj_run, 5),
    "lj_spin": (lj_spin, 1)}

SYMBOLS = (*FUNCTIONS, *ENTRIES)


def compile_runtime(cpu: Cpu | None = None) -> list[bytes]:
    """Object code of everything here."""
    from llvmlite import binding
    from numba import types

    from litejit.compiler.codegen import emit_object, machine
    from litejit.compiler.cpu import target

    cpu = cpu or target()
    objects = [emit_object(Function(function, name, frozenset()).resolved(), (types.int64,) * count, name, cpu)
               for name, (function, count) in FUNCTIONS.items()]
    entries = binding.parse_assembly(entries_source())
    entries.verify()
    return [*objects, machine(cpu).emit_object(entries)]


def _key(cpu: Cpu) -> str:
    from litejit.store import make_key

    sources = []
    for name in ("runtime.py", "steps.py", "instructions.py", "entries.py"):
        with open(os.path.join(os.path.dirname(__file__), name), encoding="utf-8") as file:
            sources.append(file.read())
    return make_key(what="runtime", source=digest([core_digest(), *sources]), cpu=cpu.name)


def runtime_object(cpu: Cpu | None = None, store: Store | None = None) -> list[bytes]:
    """Object code of everything here, for linking with the kernels of a model; from the store if it is there."""
    from litejit.compiler.cpu import target
    from litejit.store import open_store

    cpu, store = cpu or target(), store or open_store()
    key = _key(cpu)
    packed = store.get_object(key)
    if packed is None:
        objects = compile_runtime(cpu)
        store.put_object(key, _pack(objects), {"kind": "runtime", "cpu": cpu.name})
        return objects
    return _unpack(packed)


def runtime_library(cpu: Cpu | None = None, store: Store | None = None) -> Library:
    """The run-time system, loaded; one per process and CPU level."""
    from litejit.compiler.cpu import target
    from litejit.compiler.load import make_image
    from litejit.store import open_store

    cpu = cpu or target()
    if cpu.name not in _libraries:
        store = store or open_store()
        key = _key(cpu)
        library = store.get_library(key)
        if library is None:
            with store.lock(key):
                library = store.get_library(key) or store.put_library(
                    key, make_image(runtime_object(cpu, store), SYMBOLS), {"kind": "runtime", "cpu": cpu.name})
        _libraries[cpu.name] = library
    return _libraries[cpu.name]


_libraries: dict[str, Library] = {}


def _pack(objects: list[bytes]) -> bytes:
    return struct.pack(f"<{1 + len(objects)}Q", len(objects), *map(len, objects)) + b"".join(objects)


def _unpack(packed: bytes) -> list[bytes]:
    count, = struct.unpack_from("<Q", packed)
    at, objects = 8 + 8 * count, []
    for size in struct.unpack_from(f"<{count}Q", packed, 8):
        objects.append(packed[at:at + size])
        at += size
    return objects
