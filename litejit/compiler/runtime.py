"""Numba source of the run-time system: the loop over a plan's table, and the team of threads that shares its steps.

`lj_loop` runs a table (a driver), `lj_step` one step of it, `lj_run` starts a driver on the team, `lj_worker` is the
body of a worker thread, `lj_call` and `lj_team_call` are the entries for ctypes. Every thread of a team runs the same driver over the same
table. How threads share a step:

- A step of one chunk belongs to thread 0, who publishes nothing until others have to know.
- Other steps are cut into at most `PARTS` parts per thread. A thread takes parts from its own slice, then steals from
  the far end of the others'. A step may begin when all parts of the one before are done (STEP >= its number), not when
  all threads have arrived: a thread that is not running delays nobody unless it holds a part.
- Steps are numbered for ever. A slice's ticket word carries the step's number, so nothing is reset between steps or
  runs, and a thread that comes back late sees only expired tickets. What such a thread may still read (the table) has
  to stay as it is until `Team.quiesce`.
- A kernel that fails marks the run as failed (FAIL, the last step number of that run): every thread leaves at the next
  step it begins. The failure reported is that of the first part in the order of chunks, as with one thread.

Waiting is a spin of SPIN pauses, then a futex; where there is none, short sleeps.
"""
from __future__ import annotations

import platform
import struct
import sys
from typing import TYPE_CHECKING, Any

from litejit.compiler.lazy import Function, core_digest, device, digest
from litejit.compiler.primitives import Primitive

if TYPE_CHECKING:
    from litejit.compiler.cpu import Cpu
    from litejit.compiler.load import Library
    from litejit.store import Store

KERNEL, JUMP_IF_ZERO, JUMP, END = range(4)          # kinds of records in a table
RECORD = 4                                          # int64 words of a record: kind, function, params, count
RESULT_BITS = 40                                    # a driver's result: record index + 1 << 40 | kernel's result
RAISED = 255                                        # result of a kernel that raised (kernels must not)

# The team's memory in int64 words; words that different threads write are cache lines (8 words) apart.
EPOCH = 0           # odd: closed, no run; even: a run is open
STEP = 8            # number of steps that are finished, counted for ever; starts at 1
SLEEPERS = 16       # threads that sleep until STEP changes
DONE = 24           # finished parts of the current step
LOCAL = 32          # what STEP will be once thread 0 publishes; only thread 0 uses it
IDLE = 40           # workers that sleep until EPOCH changes
DRIVER, TABLE, BASE, THREADS, RUN_END, STOP, SPIN = 48, 49, 50, 51, 52, 53, 54
FAIL, FAIL_STEP, FAIL_VALUE = 56, 57, 58            # last step of the last failed run; its failing step; part, result
TICKETS = 64        # a line per thread: step << 16 | first part << 8 | end part, relative to the slice
INSIDE = TICKETS + 8 * 128                          # a line per thread: the epoch it is in, 0: none
MAX_THREADS = 128
WORDS = INSIDE + 8 * MAX_THREADS

PARTS = 8
NO_FAILURE = 1 << 62
VALUE_MASK = (1 << RESULT_BITS) - 1
FUTEX_WAIT, FUTEX_WAKE = 128, 129                   # FUTEX_PRIVATE_FLAG included
FUTEX_CALL = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
EVERYBODY = 1 << 30
LONGEST_NAP = 10_000                                # microseconds, without futex


def has_futex() -> bool:
    """Whether threads can sleep on a word of memory here."""
    return sys.platform == "linux" and platform.machine() in FUTEX_CALL


# ---- single instructions and calls ---------------------------------------------------------------

def _instruction(name: str, result: str, count: int, emit: Any) -> Primitive:
    def python(*args: int) -> None:
        raise TypeError(f"{name} has no meaning in plain Python")
    return Primitive(name, result, ("int64",) * count, emit, python)


def _word(ir: Any, b: Any, address: Any) -> Any:
    return b.inttoptr(address, ir.IntType(64).as_pointer())


def _emit_load(ir: Any, b: Any, a: Any) -> Any:
    return b.load_atomic(_word(ir, b, b.add(a[0], b.shl(a[1], ir.IntType(64)(3)))), "seq_cst", 8)


def _emit_store(ir: Any, b: Any, a: Any) -> None:
    b.store_atomic(a[2], _word(ir, b, b.add(a[0], b.shl(a[1], ir.IntType(64)(3)))), "release", 8)


def _emit_read(ir: Any, b: Any, a: Any) -> Any:
    return b.load(_word(ir, b, a[0]), align=8)


def _emit_read_byte(ir: Any, b: Any, a: Any) -> Any:
    byte = ir.IntType(8)
    return b.zext(b.load(b.inttoptr(a[0], byte.as_pointer()), align=1), ir.IntType(64))


def _emit_add(ir: Any, b: Any, a: Any) -> Any:
    return b.atomic_rmw("add", _word(ir, b, b.add(a[0], b.shl(a[1], ir.IntType(64)(3)))), a[2], "seq_cst")


def _emit_exchange(ir: Any, b: Any, a: Any) -> Any:
    return b.atomic_rmw("xchg", _word(ir, b, b.add(a[0], b.shl(a[1], ir.IntType(64)(3)))), a[2], "seq_cst")


def _emit_replace(ir: Any, b: Any, a: Any) -> Any:
    where = _word(ir, b, b.add(a[0], b.shl(a[1], ir.IntType(64)(3))))
    return b.zext(b.extract_value(b.cmpxchg(where, a[2], a[3], "seq_cst", "seq_cst"), 1), ir.IntType(64))


_PAUSE = {"x86_64": ("llvm.x86.sse2.pause", ()), "AMD64": ("llvm.x86.sse2.pause", ()),
          "aarch64": ("llvm.aarch64.isb", (15,)), "arm64": ("llvm.aarch64.isb", (15,))}


def _emit_pause(ir: Any, b: Any, a: Any) -> None:
    """A hint that this is a spin; isb waits longer than yield, which most AArch64 cores ignore."""
    name, args = _PAUSE.get(platform.machine(), ("", ()))
    if name:
        i32 = ir.IntType(32)
        function = b.module.declare_intrinsic(name, (), ir.FunctionType(ir.VoidType(), [i32] * len(args)))
        b.call(function, [i32(value) for value in args])


def _declared(ir: Any, b: Any, name: str, function_type: Any) -> Any:
    return b.module.globals.get(name) or ir.Function(b.module, function_type, name)


def _emit_futex(ir: Any, b: Any, a: Any) -> None:
    """futex(address of word, operation, value) through libc's syscall, without a timeout."""
    i64 = ir.IntType(64)
    function = _declared(ir, b, "syscall", ir.FunctionType(i64, [i64], var_arg=True))
    b.call(function, [i64(FUTEX_CALL[platform.machine()]), *a, i64(0), i64(0), i64(0)])


def _emit_nap(ir: Any, b: Any, a: Any) -> None:
    """Sleeps for a number of microseconds."""
    i32 = ir.IntType(32)
    if sys.platform == "win32":
        function = _declared(ir, b, "Sleep", ir.FunctionType(ir.VoidType(), [i32]))
        b.call(function, [b.trunc(b.udiv(b.add(a[0], ir.IntType(64)(999)), ir.IntType(64)(1000)), i32)])
    else:
        function = _declared(ir, b, "usleep", ir.FunctionType(i32, [i32]))
        b.call(function, [b.trunc(a[0], i32)])


def _emit_native(ir: Any, b: Any, a: Any) -> Any:
    """function(three int64) by Numba's native convention: its result, or RAISED."""
    i64, i32 = ir.IntType(64), ir.IntType(32)
    word = i64.as_pointer()
    native = ir.FunctionType(i32, [word, word.as_pointer(), i64, i64, i64])
    with b.goto_entry_block():
        result, error = b.alloca(i64), b.alloca(word)
    status = b.call(b.inttoptr(a[0], native.as_pointer()), [result, error, *a[1:]])
    return b.select(b.icmp_signed("==", status, i32(0)), b.load(result), i64(RAISED))


load = _instruction("team_load", "int64", 2, _emit_load)                    # (memory, word)
store = _instruction("team_store", "void", 3, _emit_store)
add = _instruction("team_add", "int64", 3, _emit_add)                       # returns the old value, as exchange does
exchange = _instruction("team_exchange", "int64", 3, _emit_exchange)
replace = _instruction("team_replace", "int64", 4, _emit_replace)           # (memory, word, old, new) -> done?
read = _instruction("table_read", "int64", 1, _emit_read)
read_byte = _instruction("table_read_byte", "int64", 1, _emit_read_byte)
pause = _instruction("team_pause", "void", 0, _emit_pause)
futex = _instruction("team_futex", "void", 3, _emit_futex)
nap = _instruction("team_nap", "void", 1, _emit_nap)
native = _instruction("native_call", "int64", 4, _emit_native)


# ---- waiting -------------------------------------------------------------------------------------

@device
def futex_sleep(team, word, value, length):         # type: ignore[no-untyped-def]
    """Sleep while team[word] == value."""
    futex(team + 8 * word, FUTEX_WAIT, value & 0xFFFFFFFF)
    return length


@device
def futex_wake(team, word):                         # type: ignore[no-untyped-def]
    futex(team + 8 * word, FUTEX_WAKE, EVERYBODY)


@device
def nap_sleep(team, word, value, length):           # type: ignore[no-untyped-def]
    """Sleep for `length` microseconds; returns how long to sleep the next time."""
    nap(length)
    return min(2 * length, LONGEST_NAP)


@device
def nap_wake(team, word):                           # type: ignore[no-untyped-def]
    return


sleep, wake = (futex_sleep, futex_wake) if has_futex() else (nap_sleep, nap_wake)


@device
def wait_for(team, number):                         # type: ignore[no-untyped-def]
    """Until all steps below `number` are finished."""
    spin, length = load(team, SPIN), 50
    while load(team, STEP) < number:
        if spin > 0:
            pause()
            spin -= 1
            continue
        add(team, SLEEPERS, 1)                      # sequentially consistent, then STEP is read again: see publish
        now = load(team, STEP)
        if now < number:
            length = sleep(team, STEP, now, length)
        add(team, SLEEPERS, -1)


@device
def publish(team, number):                          # type: ignore[no-untyped-def]
    """All steps below `number` are finished."""
    exchange(team, STEP, number)                    # sequentially consistent: ordered before the read of SLEEPERS
    if load(team, SLEEPERS) > 0:
        wake(team, STEP)


# ---- one step ------------------------------------------------------------------------------------

@device
def take(team, tid, nthr, g, parts):                # type: ignore[no-untyped-def]
    """The next part of step g for thread tid, or -1."""
    for k in range(nthr):
        v = tid + k
        if v >= nthr:
            v -= nthr
        start = parts * v // nthr
        word = TICKETS + 8 * v
        while True:
            ticket = load(team, word)
            tag = ticket >> 16
            if tag > g:                             # this thread is late: the step is over
                return -1
            if tag == g:
                low, high = (ticket >> 8) & 255, ticket & 255
            else:                                   # nobody was here yet: the whole slice
                low, high = 0, parts * (v + 1) // nthr - start
            if low >= high:
                break
            if k == 0:
                part, low = low, low + 1
            else:
                high -= 1
                part = high
            if replace(team, word, ticket, (g << 16) | (low << 8) | high) != 0:
                return start + part
    return -1


@device
def fail(team, g, part, result):                    # type: ignore[no-untyped-def]
    """Note a failure; of several in a step the first part's is kept."""
    value = (part << RESULT_BITS) | (result & VALUE_MASK)
    old = load(team, FAIL_VALUE)
    while value < old and replace(team, FAIL_VALUE, old, value) == 0:
        old = load(team, FAIL_VALUE)
    store(team, FAIL_STEP, g)
    exchange(team, FAIL, load(team, RUN_END) - 1)   # whoever holds a part is in the current run: RUN_END is its own


@device
def serial_step(team, tid, g, function, params, count):     # type: ignore[no-untyped-def]
    """A step of one chunk: thread 0 runs it, the others go on to the next step of several."""
    if tid != 0:
        return 0
    if load(team, LOCAL) != g:
        wait_for(team, g)
        if load(team, FAIL) >= g:
            return 1
    result = native(function, params, 0, count)
    if result != 0:
        fail(team, g, 0, result)
    store(team, LOCAL, g + 1)
    return result


@device
def shared_step(team, tid, nthr, g, function, params, count):   # type: ignore[no-untyped-def]
    if tid == 0 and load(team, LOCAL) == g:
        if load(team, STEP) < g:
            publish(team, g)
    else:
        wait_for(team, g)
    if load(team, FAIL) >= g:
        return 1
    parts = min(count, PARTS * nthr)
    part = take(team, tid, nthr, g, parts)
    while part >= 0:
        result = native(function, params, count * part // parts, count * (part + 1) // parts)
        if result != 0:
            fail(team, g, part, result)
        if add(team, DONE, 1) + 1 == parts:
            store(team, DONE, 0)
            publish(team, g + 1)
        part = take(team, tid, nthr, g, parts)
    return 0


@device
def team_step(team, tid, nthr, g, function, params, count):     # type: ignore[no-untyped-def]
    if count <= 1:
        return serial_step(team, tid, g, function, params, count)
    return shared_step(team, tid, nthr, g, function, params, count)


def lj_step(team, tid, nthr, g, function, params, count):   # type: ignore[no-untyped-def]
    """Step number g: `count` chunks of a kernel. 0, or not: leave the driver (with nthr == 1: the kernel's result)."""
    if nthr == 1:
        return native(function, params, 0, count)
    return team_step(team, tid, nthr, g, function, params, count)


# ---- drivers -------------------------------------------------------------------------------------

def lj_loop(team, ctl, table):                      # type: ignore[no-untyped-def]
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
def wait_for_run(team, last):                       # type: ignore[no-untyped-def]
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
        add(team, IDLE, 1)
        if load(team, EPOCH) == epoch:
            length = sleep(team, EPOCH, epoch, length)
        add(team, IDLE, -1)


def lj_worker(team, tid):                           # type: ignore[no-untyped-def]
    """Body of worker thread tid >= 1: takes part in runs until STOP."""
    epoch = 0
    while True:
        epoch = wait_for_run(team, epoch)
        if epoch == 0:
            return 0
        exchange(team, INSIDE + 8 * tid, epoch)     # before the epoch is read again: see Team.quiesce
        driver, table = load(team, DRIVER), load(team, TABLE)
        base, nthr = load(team, BASE), load(team, THREADS)
        if load(team, EPOCH) == epoch and tid < nthr:       # these four belong together
            native(driver, team, tid | (nthr << 8) | (base << 16), table)
        store(team, INSIDE + 8 * tid, 0)


@device
def finish_run(team, base, end, result):            # type: ignore[no-untyped-def]
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


def lj_run(team, driver, table, nthr, steps):       # type: ignore[no-untyped-def]
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
    if load(team, IDLE) > 0:
        wake(team, EPOCH)
    result = native(driver, team, (nthr << 8) | (base << 16), table)
    result = finish_run(team, base, end, result)
    add(team, EPOCH, 1)                             # closed: nobody can enter any more
    return result


def lj_spin(count):                                 # type: ignore[no-untyped-def]
    """`count` pauses, to find out how long one takes."""
    for _ in range(count):
        pause()
    return 0


# ---- compiling -----------------------------------------------------------------------------------

FUNCTIONS = {"lj_step": (lj_step, 7), "lj_loop": (lj_loop, 3), "lj_worker": (lj_worker, 2), "lj_run": (lj_run, 5),
             "lj_spin": (lj_spin, 1)}

_ENTRIES = {"lj_call": 3, "lj_team_call": 5}        # entries for ctypes: a driver, lj_run
SYMBOLS = (*FUNCTIONS, *_ENTRIES)


def _entry(name: str, count: int) -> str:
    """LLVM source of `int64 name(block)`: calls block[0] with the words after it, and returns its result."""
    lines = [f"define i64 @{name}(ptr %block) {{", "%ret = alloca i64", "%exc = alloca ptr",
             "%function = load ptr, ptr %block"]
    for i in range(1, count + 1):
        lines += [f"%p{i} = getelementptr i64, ptr %block, i64 {i}", f"%a{i} = load i64, ptr %p{i}"]
    args = ", ".join(f"i64 %a{i}" for i in range(1, count + 1))
    lines += [f"%status = call i32 %function(ptr %ret, ptr %exc, {args})", "%fine = icmp eq i32 %status, 0",
              "%value = load i64, ptr %ret", f"%result = select i1 %fine, i64 %value, i64 {RAISED}",
              "ret i64 %result", "}"]
    return "\n".join(lines)


def compile_runtime(cpu: Cpu | None = None) -> list[bytes]:
    """Object code of everything here."""
    from llvmlite import binding
    from numba import types

    from litejit.compiler.codegen import emit_object, machine
    from litejit.compiler.cpu import target

    cpu = cpu or target()
    objects = [emit_object(Function(function, name, frozenset()).resolved(), (types.int64,) * count, name, cpu)
               for name, (function, count) in FUNCTIONS.items()]
    entries = binding.parse_assembly("\n".join(_entry(name, count) for name, count in _ENTRIES.items()))
    entries.verify()
    return [*objects, machine(cpu).emit_object(entries)]


def _key(cpu: Cpu) -> str:
    from litejit.store import make_key

    with open(__file__, encoding="utf-8") as file:
        return make_key(what="runtime", source=digest([file.read(), core_digest()]), cpu=cpu.name)


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
