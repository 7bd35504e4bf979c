"""What this machine can do at most: multiply-accumulates a second, and bytes read a second from each level of memory.

Loops of our own without loads, stores or dependencies that matter, run on as many threads as a plan. The figures are a
yardstick for `Profile`: measured once per process and number of threads, in about 0.1 s.
"""
from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from litejit.compiler import kernel, micro_kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel, MicroKernel, code_parts, digest

if TYPE_CHECKING:
    from litejit.compiler.load import Library
    from litejit.store import Store

Loop = np.dtype([("data", "i8"), ("bytes", "i8"), ("rounds", "i8"), ("out", "i8")], align=True)
FLOATS = ("f32", "bf16")
OUT = 4096                                          # bytes of a thread's accumulators
SIZES = (1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 25)      # bytes per thread: from the first cache to memory
TURN = 3e-3                                         # seconds of a measurement
TURNS = 3                                           # the best of so many counts


class Peak(NamedTuple):
    """The most that `threads` threads of this machine were seen to do.

    macs: multiply-accumulates a second by type: "f32", "i8" (the level's int8 instructions), "i16", "bf16" where there is.
    bandwidth: bytes read a second, by how many bytes each thread read again and again.
    """

    cpu: str
    threads: int
    macs: dict[str, float]
    bandwidth: dict[int, float]

    def read(self, nbytes: int) -> float:
        """Bytes a second for reading `nbytes`, at most: those of the largest measured size that they fill."""
        sizes = sorted(self.bandwidth, reverse=True)
        return self.bandwidth[next((s for s in sizes if s * self.threads <= nbytes), sizes[-1])]

    def __str__(self) -> str:
        kinds = {"f32": "GFLOP/s float32", "bf16": "GFLOP/s bfloat16", "i8": "GOP/s int8", "i16": "GOP/s int16"}
        most = ", ".join(f"{2e-9 * rate:.0f} {kinds[kind]}" for kind, rate in self.macs.items())
        reads = " / ".join(f"{rate / 1e9:.0f}" for _, rate in sorted(self.bandwidth.items()))
        return f"{most}; reads of {' / '.join(_size(s) for s in sorted(self.bandwidth))} at {reads} GB/s"


def _size(nbytes: int) -> str:
    return f"{nbytes >> 20} MiB" if nbytes >> 20 else f"{nbytes >> 10} KiB"


# ---- loops ---------------------------------------------------------------------------------------

def accumulators(cpu: Cpu) -> int:
    """Independent sums: enough to hide the latency of an instruction, few enough for the registers."""
    return 24 if cpu.nregs >= 32 else 12


def macs_a_round(cpu: Cpu) -> dict[str, int]:
    """Multiply-accumulates of one round of each arithmetic loop."""
    sums = accumulators(cpu) * cpu.lanes
    return {"f32": sums, "i8": sums * (4 if cpu.dot else 2), "i16": sums * 2, **({"bf16": sums * 2} if cpu.bf16 else {})}


def _arithmetic(kind: str) -> Callable[..., None]:
    """acc = acc * x + y in every register; integers acc += x . acc, so that nothing is the same in two rounds, and pairs of
    bfloat16 acc += x . x."""
    def emit(v: Any, out: Any, rounds: Any) -> None:
        ty, vbytes = v.f32 if kind in FLOATS else v.i32, v.cpu.vbytes
        places = range(0, accumulators(v.cpu) * vbytes, vbytes)
        x = v.load(v.f32 if kind == "f32" else v.i32, out, OUT - vbytes)
        multiply: Callable[[Any], Any] = {"f32": lambda acc: v.fma(acc, x, x), "i8": lambda acc: v.dot(acc, x, acc),
                                          "i16": lambda acc: v.dot16(acc, x, acc),
                                          "bf16": lambda acc: v.dot_bf16(acc, x, x)}[kind]
        last = v.loop(rounds, [v.load(ty, out, at) for at in places], lambda _, accs: [multiply(acc) for acc in accs])
        for at, acc in zip(places, last):
            v.store(acc, out, at)
    return emit


def _read(v: Any, data: Any, bytes: Any, rounds: Any, out: Any) -> None:
    """Adds up memory, eight registers at a time."""
    vbytes, zeros = v.cpu.vbytes, [v.zero(v.i32)] * 8

    def once(_: Any, sums: list[Any]) -> list[Any]:
        return v.loop(bytes, sums, lambda i, s: [v.add(s[k], v.load(v.i32, v.at(data, i), k * vbytes)) for k in range(8)],
                      step=8 * vbytes)
    for k, total in enumerate(v.loop(rounds, zeros, once)):
        v.store(total, out, k * vbytes)


def _micro(name: str, args: str, emit: Callable[..., None]) -> MicroKernel:
    """The store finds code by names, and for generators outside ops/simd by what they consist of."""
    return micro_kernel(f"peak_{name}_{digest(code_parts(emit))[:12]}", args, emit)


def _arithmetic_kernel(kind: str) -> Kernel:
    multiply = _micro(kind, "pi", _arithmetic(kind))

    @kernel(Loop, name=f"peak_{kind}")
    def loop(p: Any, begin: int, end: int) -> int:
        for c in prange(begin, end):
            multiply(p.out + c * OUT, p.rounds)
        return 0
    return loop


_read_memory = _micro("read", "piip", _read)


@kernel(Loop)
def peak_read(p: Any, begin: int, end: int) -> int:
    """Every chunk reads `bytes` of its own, `rounds` times."""
    for c in prange(begin, end):
        _read_memory(p.data + c * p.bytes, p.bytes, p.rounds, p.out + c * OUT)
    return 0


ARITHMETIC = {kind: _arithmetic_kernel(kind) for kind in ("f32", "i8", "i16", "bf16")}


# ---- measuring -----------------------------------------------------------------------------------

_measured: dict[tuple[Cpu, int], Peak] = {}


def peak(cpu: Cpu, threads: int = 1, store: Store | None = None) -> Peak:
    """The peak of a level on this machine, measured when first asked for.

    Raises StoreError where the store is required and does not have the loops.
    """
    key = cpu, threads
    if key not in _measured:
        _measured[key] = _measure(cpu, threads, _library(cpu, store))
    return _measured[key]


def _library(cpu: Cpu, store: Store | None) -> Library:
    """The loops, compiled or from the store."""
    from litejit.compiler.lazy import system_digest
    from litejit.compiler.load import make_image
    from litejit.fusion.link import kernel_objects
    from litejit.store import make_key, open_store

    store = store or open_store()
    kernels = [*(ARITHMETIC[kind] for kind in macs_a_round(cpu)), peak_read]
    key = make_key(what="peak", system=system_digest(), cpu=cpu.name, kernels=[k.fingerprint() for k in kernels])
    library = store.get_library(key)
    if library is None:
        with store.lock(key):
            library = store.get_library(key) or store.put_library(
                key, make_image(kernel_objects(kernels, cpu, store), [k.symbol for k in kernels]),
                {"kind": "peak", "cpu": cpu.name})
    return library


def _measure(cpu: Cpu, threads: int, library: Library) -> Peak:
    out = np.full(threads * OUT + 64, 1, np.uint8)
    out = out[-out.ctypes.data % 64:][:threads * OUT]
    rates = {}
    for kind, macs in macs_a_round(cpu).items():
        out.view(np.float32 if kind in FLOATS else np.int32)[:] = 0.5 if kind in FLOATS else 1
        run = functools.partial(_seconds, library.address(ARITHMETIC[kind].symbol), threads, out, None, 0)
        rates[kind] = threads * macs * _most(run, 1000)
    data = np.ones(threads * SIZES[-1] + 64, np.uint8)
    data = data[-data.ctypes.data % 64:]
    read = library.address(peak_read.symbol)
    bandwidth = {size: threads * size * _most(functools.partial(_seconds, read, threads, out, data, size), 1)
                 for size in SIZES}
    return Peak(cpu.name, threads, rates, bandwidth)


def _most(run: Callable[[int], float], rounds: int) -> float:
    """The most rounds a second; `run(rounds)` gives the seconds that they take."""
    taken = run(rounds)
    while taken < TURN / 4:
        rounds *= 4
        taken = run(rounds)
    rounds = max(1, int(rounds * TURN / taken))
    return rounds / min(run(rounds) for _ in range(TURNS))


def _seconds(function: int, threads: int, out: np.ndarray, data: np.ndarray | None, nbytes: int, rounds: int) -> float:
    """Seconds of one run of a loop, a chunk per thread."""
    from litejit.compiler.runtime import END, KERNEL, runtime_library
    from litejit.executor.team import team

    params = np.array([(0 if data is None else data.ctypes.data, nbytes, rounds, out.ctypes.data)], Loop)
    table = np.array([[KERNEL, function, params.ctypes.data, threads], [END, 0, 0, 0]], np.int64)
    call = team().make_call(runtime_library().address("lj_loop"), table.ctypes.data, 1, threads)
    start = time.perf_counter()
    call()
    taken = time.perf_counter() - start
    team().quiesce()
    return taken
