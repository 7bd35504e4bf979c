"""Single instructions and calls that the run-time system is made of: atomics, pause, futex, calls by address.

A word is named by an address and an index in int64 words. All orders are sequentially consistent, except that of
`store`, which is a release.
"""
from __future__ import annotations

import platform
import sys
from typing import Any

from litejit.compiler.primitives import Primitive

MACHINE = platform.machine()
RAISED = 255                                        # result of a kernel that raised (kernels must not)
FUTEX_CALL = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221}
FUTEX_WAIT, FUTEX_WAKE = 137, 138                   # the BITSET operations, FUTEX_PRIVATE_FLAG included
FLOAT_DEFAULTS = 0x1F80                             # x86 MXCSR: round to nearest, denormals kept, nothing traps
EVERYBODY, ANYBODY = 1 << 30, 0xFFFFFFFF            # how many to wake, and which
FLOAT_MODES = 0xFFC0                                # its bits that are modes, not flags of what happened


def has_futex() -> bool:
    """Whether threads can sleep on a word of memory here."""
    return sys.platform == "linux" and MACHINE in FUTEX_CALL


def is_arm() -> bool:
    """Whether code is made for 64-bit ARM."""
    return MACHINE in ("aarch64", "arm64")


def is_x86() -> bool:
    """Whether code is made for x86-64."""
    return MACHINE in ("x86_64", "AMD64")


def _instruction(name: str, result: str, count: int, emit: Any) -> Primitive:
    def python(*args: int) -> None:
        raise TypeError(f"{name} has no meaning in plain Python")
    return Primitive(name, result, ("int64",) * count, emit, python)


def _word(ir: Any, b: Any, address: Any, index: Any = None) -> Any:
    if index is not None:
        address = b.add(address, b.shl(index, index.type(3)))
    return b.inttoptr(address, ir.IntType(64).as_pointer())


def _emit_load(ir: Any, b: Any, a: Any) -> Any:
    return b.load_atomic(_word(ir, b, a[0], a[1]), "seq_cst", 8)


def _emit_store(ir: Any, b: Any, a: Any) -> None:
    b.store_atomic(a[2], _word(ir, b, a[0], a[1]), "release", 8)


def _emit_read(ir: Any, b: Any, a: Any) -> Any:
    return b.load(_word(ir, b, a[0]), align=8)


def _emit_read_byte(ir: Any, b: Any, a: Any) -> Any:
    byte = ir.IntType(8)
    return b.zext(b.load(b.inttoptr(a[0], byte.as_pointer()), align=1), ir.IntType(64))


def _emit_add(ir: Any, b: Any, a: Any) -> Any:
    return b.atomic_rmw("add", _word(ir, b, a[0], a[1]), a[2], "seq_cst")


def _emit_exchange(ir: Any, b: Any, a: Any) -> Any:
    return b.atomic_rmw("xchg", _word(ir, b, a[0], a[1]), a[2], "seq_cst")


def _emit_replace(ir: Any, b: Any, a: Any) -> Any:
    where = _word(ir, b, a[0], a[1])
    return b.zext(b.extract_value(b.cmpxchg(where, a[2], a[3], "seq_cst", "seq_cst"), 1), ir.IntType(64))


_PAUSE = {"x86_64": ("llvm.x86.sse2.pause", ()), "AMD64": ("llvm.x86.sse2.pause", ()),
          "aarch64": ("llvm.aarch64.isb", (15,)), "arm64": ("llvm.aarch64.isb", (15,))}


def _emit_pause(ir: Any, b: Any, a: Any) -> None:
    """A hint that this is a spin; isb waits longer than yield, which most AArch64 cores ignore."""
    name, args = _PAUSE.get(MACHINE, ("", ()))
    if name:
        i32 = ir.IntType(32)
        function = b.module.declare_intrinsic(name, (), ir.FunctionType(ir.VoidType(), [i32] * len(args)))
        b.call(function, [i32(value) for value in args])


def _emit_float_defaults(ir: Any, b: Any, a: Any) -> None:
    """Rounding and denormals of this thread as a new process has them."""
    i32, i64, void = ir.IntType(32), ir.IntType(64), ir.VoidType()
    if is_x86():
        with b.goto_entry_block():
            modes = b.alloca(i32)
        b.store(i32(FLOAT_DEFAULTS), modes)
        function = b.module.declare_intrinsic("llvm.x86.sse.ldmxcsr", (), ir.FunctionType(void, [modes.type]))
        b.call(function, [modes])
    elif is_arm():
        function = b.module.declare_intrinsic("llvm.aarch64.set.fpcr", (), ir.FunctionType(void, [i64]))
        b.call(function, [i64(0)])


def _declared(ir: Any, b: Any, name: str, function_type: Any) -> Any:
    return b.module.globals.get(name) or ir.Function(b.module, function_type, name)


def _emit_futex(ir: Any, b: Any, a: Any) -> None:
    """futex(address of word, operation, value, set of threads) through libc's syscall, without a timeout."""
    i64 = ir.IntType(64)
    function = _declared(ir, b, "syscall", ir.FunctionType(i64, [i64], var_arg=True))
    b.call(function, [i64(FUTEX_CALL[MACHINE]), *a[:3], i64(0), i64(0), a[3]])


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
futex = _instruction("team_futex", "void", 4, _emit_futex)                  # (address, operation, value, set)
float_defaults = _instruction("float_defaults", "void", 0, _emit_float_defaults)
nap = _instruction("team_nap", "void", 1, _emit_nap)
native = _instruction("native_call", "int64", 4, _emit_native)
