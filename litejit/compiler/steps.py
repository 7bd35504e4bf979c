"""How the threads of a team share a step, in Numba.

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
# mypy: allow-untyped-defs
from __future__ import annotations

from litejit.compiler.instructions import (
    ANYBODY,
    EVERYBODY,
    FUTEX_WAIT,
    FUTEX_WAKE,
    add,
    exchange,
    futex,
    has_futex,
    load,
    nap,
    native,
    pause,
    replace,
    store,
)
from litejit.compiler.lazy import device

RESULT_BITS = 40                                    # a driver's result: record index + 1 << 40 | kernel's result
VALUE_MASK = (1 << RESULT_BITS) - 1

# The team's memory in int64 words; words that different threads write are cache lines (8 words) apart.
EPOCH = 0           # odd: closed, no run; even: a run is open
STEP = 8            # number of steps that are finished, counted for ever; starts at 1
SLEEPERS = 16       # threads that sleep until STEP changes
DONE = 24           # finished parts of the current step
LOCAL = 32          # what STEP will be once thread 0 publishes; only thread 0 uses it
IDLE = 40           # workers that sleep until EPOCH changes: a bit each, from thread 32 on counted in units of 1 << 32
DRIVER, TABLE, BASE, THREADS, RUN_END, STOP, SPIN = 48, 49, 50, 51, 52, 53, 54
FAIL, FAIL_STEP, FAIL_VALUE = 56, 57, 58            # last step of the last failed run; its failing step; part, result
TICKETS = 64        # a line per thread: step << 16 | first part << 8 | end part, relative to the slice
INSIDE = TICKETS + 8 * 128                          # a line per thread: the epoch it is in, 0: none
MAX_THREADS = 128
WORDS = INSIDE + 8 * MAX_THREADS

PARTS = 8
NO_FAILURE = 1 << 62
LONGEST_NAP = 10_000                                # microseconds, without futex


# ---- waiting -------------------------------------------------------------------------------------

@device
def futex_sleep(team, word, value, mask, length):
    """Sleep while team[word] == value, to be woken with any bit of `mask`."""
    futex(team + 8 * word, FUTEX_WAIT, value & 0xFFFFFFFF, mask)
    return length


@device
def futex_wake(team, word, mask):
    futex(team + 8 * word, FUTEX_WAKE, EVERYBODY, mask)


@device
def nap_sleep(team, word, value, mask, length):
    """Sleep for `length` microseconds; returns how long to sleep the next time."""
    nap(length)
    return min(2 * length, LONGEST_NAP)


@device
def nap_wake(team, word, mask):
    return


sleep, wake = (futex_sleep, futex_wake) if has_futex() else (nap_sleep, nap_wake)


@device
def wait_for(team, number):
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
            length = sleep(team, STEP, now, ANYBODY, length)
        add(team, SLEEPERS, -1)


@device
def publish(team, number):
    """All steps below `number` are finished."""
    exchange(team, STEP, number)                    # sequentially consistent: ordered before the read of SLEEPERS
    if load(team, SLEEPERS) > 0:
        wake(team, STEP, ANYBODY)


# ---- one step ------------------------------------------------------------------------------------

@device
def take(team, tid, nthr, g, parts):
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
def fail(team, g, part, result):
    """Note a failure; of several in a step the first part's is kept."""
    value = (part << RESULT_BITS) | (result & VALUE_MASK)
    old = load(team, FAIL_VALUE)
    while value < old and replace(team, FAIL_VALUE, old, value) == 0:
        old = load(team, FAIL_VALUE)
    store(team, FAIL_STEP, g)
    exchange(team, FAIL, load(team, RUN_END) - 1)   # whoever holds a part is in the current run: RUN_END is its own


@device
def serial_step(team, tid, g, function, params, count):
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
def shared_step(team, tid, nthr, g, function, params, count):
    if tid == 0 and load(team, LOCAL) == g:
        if load(team, STEP) < g:
            publish(team, g)
    else:
        wait_for(team, g)
    if load(team, FAIL) >= g:
        return 1
    parts = min(count, PARTS * nthr)
    part, made = take(team, tid, nthr, g, parts), 0
    while part >= 0:
        result = native(function, params, count * part // parts, count * (part + 1) // parts)
        if result != 0:
            fail(team, g, part, result)
        made += 1
        part = take(team, tid, nthr, g, parts)
    if made > 0 and add(team, DONE, made) + made == parts:      # once: the threads take this line from each other
        store(team, DONE, 0)
        publish(team, g + 1)
    return 0


@device
def team_step(team, tid, nthr, g, function, params, count):
    if count <= 1:
        return serial_step(team, tid, g, function, params, count)
    return shared_step(team, tid, nthr, g, function, params, count)
