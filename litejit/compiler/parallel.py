"""Compiles kernels in several processes: Numba has one lock, and a cold start waits for nothing else.

A helper is a Python process of its own that imports a kernel's module and sends its object code back. It takes a kernel only
if that has the fingerprint that is asked for, so that it cannot give another one's code; kernels that do not come with
litejit, and those that a module makes on demand, are compiled here. A helper that cannot start, dies or hangs costs time, not
the result. LITEJIT_COMPILE_PROCESSES: how many processes compile at most; by default as many as there are cores, up to 4.
"""
from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Linked, linked

MOST = 4                              # processes
PATIENCE = 60.0                       # seconds without anything from a helper, after which this process does its work
PER_HELPER = 2                        # kernels at least that make up for starting a helper
_SIZE = struct.Struct("<q")
_REFUSED = -1
_START = "import sys; sys.path[:] = sys.argv[1].split(sys.argv[2]); from litejit.compiler.parallel import serve; serve()"

Done = Callable[[Linked, bytes, float], None]


def processes(count: int) -> int:
    """How many processes are to compile so many kernels, this one included. Raises ValueError for a wrong setting."""
    wanted = os.environ.get("LITEJIT_COMPILE_PROCESSES", "")
    if wanted and not wanted.isdecimal():
        raise ValueError(f"LITEJIT_COMPILE_PROCESSES={wanted}: expected a number of processes")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = int(wanted) if wanted else min(MOST, cores)
    return max(1, min(most, count // PER_HELPER)) if _python() else 1


def _shared(kernel: Linked) -> bool:
    """Whether another process has the kernel, too."""
    return kernel.home.startswith("litejit.")


def _python() -> bool:
    """Whether sys.executable is a Python that can be started once more, not a program with Python in it."""
    name = os.path.basename(sys.executable or "").lower()
    return name.startswith(("python", "pypy")) and not getattr(sys, "frozen", False)


def compile_kernels(kernels: Sequence[Linked], cpu: Cpu, done: Done) -> None:
    """Compile kernels; `done`(kernel, object code, seconds) is called in this thread as they are finished."""
    queue, finished = deque(sorted(kernels, key=_shared)), deque[tuple[Linked, bytes, float]]()
    helpers = []
    with contextlib.suppress(RuntimeError):                     # no thread can be started: fewer helpers
        for _ in range(processes(sum(map(_shared, kernels))) - 1):
            helpers.append(Helper(cpu, queue, finished))
    thresholds = gc.get_threshold()
    gc.set_threshold(100 * thresholds[0], *thresholds[1:])      # Numba's many objects all live until a kernel is done
    heard = time.monotonic()
    try:
        while True:
            kernel = _next(queue)
            while finished:
                done(*finished.popleft())
                heard = time.monotonic()
            if kernel is not None:
                from litejit.compiler.codegen import kernel_object

                start = time.perf_counter()
                done(kernel, kernel_object(kernel, cpu), time.perf_counter() - start)
                heard = time.monotonic()
            elif all(helper.stopped() for helper in helpers) and not finished and not queue:
                return
            elif time.monotonic() - heard > PATIENCE:
                for helper in helpers:
                    helper.stop()                               # what it was at goes back into the queue
    finally:
        gc.set_threshold(*thresholds)
        for helper in helpers:
            helper.stop()


def _next(queue: deque[Linked]) -> Linked | None:
    try:
        return queue.popleft()
    except IndexError:
        return None


class Helper:
    """A process, and a thread that gives it kernels from the end of a queue until none is left."""

    def __init__(self, cpu: Cpu, queue: deque[Linked], finished: deque[tuple[Linked, bytes, float]]) -> None:
        self.cpu, self.queue, self.finished = cpu, queue, finished
        self.process: subprocess.Popen[bytes] | None = None
        self.ended = False
        self.thread = threading.Thread(target=self._run, name="litejit-compile", daemon=True)
        self.thread.start()

    def stopped(self) -> bool:
        """Whether it has nothing left to do; waits a moment."""
        self.thread.join(0.01)
        return not self.thread.is_alive()

    def stop(self) -> None:
        """End the process."""
        self.ended = True
        if self.process is not None:
            self.process.kill()
        self.thread.join(10)

    def _run(self) -> None:
        kept: list[Linked] = []                     # what the process refuses, and what it was at when it died
        try:
            self._start()
            while not self.ended:
                try:
                    kernel = self.queue.pop()
                except IndexError:
                    break
                kept.append(kernel)
                start = time.perf_counter()
                code = self._ask(kernel)
                if code is not None:
                    kept.remove(kernel)
                    self.finished.append((kernel, code, time.perf_counter() - start))
        except (OSError, EOFError, ValueError):
            pass
        finally:
            self.queue.extend(kept)
            if self.process is not None:
                self.process.kill()
                self.process.communicate()          # closes the pipes

    def _start(self) -> None:
        environment = {**os.environ, "LITEJIT_TARGET": self.cpu.name}
        hidden: dict[str, Any] = {"creationflags": 0x08000000} if sys.platform == "win32" else {}    # no window
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, os.pathsep.join(map(str, sys.path)), os.pathsep, json.dumps(self.cpu)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, **hidden)

    def _ask(self, kernel: Linked) -> bytes | None:
        """The object code of a kernel, None where the process has no such kernel."""
        if not _shared(kernel) or self.process is None:
            return None
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([kernel.home, kernel.symbol, kernel.fingerprint()]).encode() + b"\n")
        self.process.stdin.flush()
        head = self.process.stdout.read(_SIZE.size)
        if len(head) < _SIZE.size:
            raise EOFError
        size: int = _SIZE.unpack(head)[0]
        if size == _REFUSED:
            return None
        code = self.process.stdout.read(size)
        if len(code) < size:
            raise EOFError
        return code


# ---- in the other process --------------------------------------------------------------------------

def serve() -> None:
    """Answer the requests of a `Helper`, one per line: [module, symbol, fingerprint] -> size and object code, or -1."""
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())                       # what others print is not an answer
    from litejit.compiler.codegen import kernel_object
    from litejit.compiler.cpu import target

    cpu = target()
    if json.loads(json.dumps(cpu)) != json.loads(sys.argv[3]):
        return
    gc.disable()
    for line in sys.stdin.buffer:
        module, symbol, fingerprint = json.loads(line)
        importlib.import_module(module)
        kernel = linked(symbol)
        if kernel is None or kernel.fingerprint() != fingerprint:
            out.write(_SIZE.pack(_REFUSED))
        else:
            code = kernel_object(kernel, cpu)
            out.write(_SIZE.pack(len(code)) + code)
        out.flush()
