"""What the code is compiled for: a table of CPU levels and the detection of the host's level.

Code is compiled for a level, not for a model of CPU, so that a store filled on one machine serves every machine
of the same level or a higher one. `LITEJIT_TARGET=avx2` (any name of the table) overrides the detection.
"""
from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Cpu(NamedTuple):
    """A level of an instruction set, as the generators of micro-kernels see it."""

    name: str
    arch: str           # "x86_64", "aarch64" or "" for anything
    vbytes: int         # bytes of a vector register
    nregs: int          # vector registers
    fma: bool           # fused multiply-add on these vectors
    dot: str            # int8 dot product: "vnni", "avxvnni", "sdot" or "" (none: 16-bit multiply-add)
    bf16: bool          # bfloat16 dot product
    llvm_cpu: str       # name for LLVM
    llvm_features: str  # features for LLVM, on top of the name
    needs: tuple[str, ...]  # flags as the kernel of the operating system lists them

    @property
    def lanes(self) -> int:
        """32-bit lanes of a vector."""
        return self.vbytes // 4


_V3 = ("avx2", "fma", "bmi1", "bmi2", "f16c", "movbe", "abm")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")
_V4_TUNING = "-prefer-256-bit"

# fmt: off
LEVELS: dict[str, Cpu] = {cpu.name: cpu for cpu in (
    Cpu("avx512bf16", "x86_64", 64, 32, True, "vnni", True, "x86-64-v4",
        f"+avx512vnni,+avx512vbmi,+avx512bf16,{_V4_TUNING}", (*_V4, "avx512_vnni", "avx512vbmi", "avx512_bf16")),
    Cpu("avx512vnni", "x86_64", 64, 32, True, "vnni", False, "x86-64-v4",
        f"+avx512vnni,{_V4_TUNING}", (*_V4, "avx512_vnni")),
    Cpu("avx512", "x86_64", 64, 32, True, "", False, "x86-64-v4", _V4_TUNING, _V4),
    Cpu("avxvnni", "x86_64", 32, 16, True, "avxvnni", False, "x86-64-v3", "+avxvnni", (*_V3, "avx_vnni")),
    Cpu("avx2", "x86_64", 32, 16, True, "", False, "x86-64-v3", "", _V3),
    Cpu("sse4", "x86_64", 16, 16, False, "", False, "x86-64-v2", "", ("sse4_1", "sse4_2", "ssse3", "popcnt")),
    Cpu("neondot", "aarch64", 16, 32, True, "sdot", False, "generic", "+neon,+dotprod", ("asimd", "asimddp")),
    Cpu("neon", "aarch64", 16, 32, True, "", False, "generic", "+neon", ("asimd",)),
    Cpu("generic", "", 16, 16, False, "", False, "", "", ()),
)}
# fmt: on

_ARCH = {"AMD64": "x86_64", "x86-64": "x86_64", "arm64": "aarch64"}
_chosen: Cpu | None = None
_forced: Cpu | None = None


def host_flags() -> frozenset[str]:
    """Feature flags of this machine, as Linux lists them; elsewhere LLVM's names in the same spelling."""
    try:
        with open("/proc/cpuinfo", "rb") as file:
            for line in file:
                if line.startswith((b"flags", b"Features")):
                    return frozenset(line.split(b":", 1)[1].decode().split())
    except OSError:
        pass
    from llvmlite import binding

    names = {"avx512vnni": "avx512_vnni", "avx512bf16": "avx512_bf16", "avxvnni": "avx_vnni", "sse4.1": "sse4_1",
             "sse4.2": "sse4_2", "lzcnt": "abm", "bmi": "bmi1", "neon": "asimd", "dotprod": "asimddp"}
    return frozenset(names.get(name, name) for name, on in binding.get_host_cpu_features().items() if on)


def executable() -> list[Cpu]:
    """The levels that this machine can execute, best first."""
    machine = platform.machine()
    arch, flags = _ARCH.get(machine, machine), host_flags()
    return [cpu for cpu in LEVELS.values() if cpu.arch in ("", arch) and flags.issuperset(cpu.needs)]


def target() -> Cpu:
    """The level to compile for: `LITEJIT_TARGET`, or the best one of this machine.

    Raises ValueError for an unknown name or a level that this machine cannot execute.
    """
    global _chosen
    if _forced is not None:
        return _forced
    wanted = os.environ.get("LITEJIT_TARGET", "")
    if _chosen is None or (wanted and wanted != _chosen.name):
        levels = executable()
        if not wanted:
            _chosen = levels[0]
        else:
            found = [cpu for cpu in levels if cpu.name == wanted]
            if not found:
                names = ", ".join(cpu.name for cpu in levels)
                raise ValueError(f"LITEJIT_TARGET={wanted}: this machine can execute {names}")
            _chosen = found[0]
    return _chosen


@contextmanager
def compiling_for(cpu: Cpu) -> Iterator[None]:
    """Makes `cpu` the target, whether or not this machine can execute it: for code that is looked at, not run.

    For the whole process; other threads must not compile meanwhile.
    """
    global _forced
    before, _forced = _forced, cpu
    try:
        yield
    finally:
        _forced = before
