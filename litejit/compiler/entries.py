"""LLVM source of the entries that ctypes calls: `int64 name(int64 *block)` calls block[0] with the words after it.

One pointer in, an integer out: the cheapest call that ctypes has. While it runs, floats are rounded to nearest and
denormals are kept, whatever the caller's thread was set to (some libraries flush denormals for a whole process), so
that results do not depend on the thread that computes them.
"""
from __future__ import annotations

from litejit.compiler.instructions import FLOAT_DEFAULTS, FLOAT_MODES, RAISED, is_arm, is_x86

ENTRIES = {"lj_call": 3, "lj_team_call": 5}         # arguments after the function: of a driver, of lj_run

_PLAIN = {"declare": "", "save": "br label %go", "set": "br label %go", "restore": "br label %out"}
_X86 = {
    "declare": "declare void @llvm.x86.sse.stmxcsr(ptr)\ndeclare void @llvm.x86.sse.ldmxcsr(ptr)",
    "save": f"""
  %modes = alloca i32
  %wanted = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %modes)
  %old = load i32, ptr %modes
  %bits = and i32 %old, {FLOAT_MODES}
  %usual = icmp eq i32 %bits, {FLOAT_DEFAULTS}
  br i1 %usual, label %go, label %set""",
    "set": f"""
  store i32 {FLOAT_DEFAULTS}, ptr %wanted
  call void @llvm.x86.sse.ldmxcsr(ptr %wanted)
  br label %go""",
    "restore": "call void @llvm.x86.sse.ldmxcsr(ptr %modes)\n  br label %out"}
_ARM = {
    "declare": "declare i64 @llvm.aarch64.get.fpcr()\ndeclare void @llvm.aarch64.set.fpcr(i64)",
    "save": """
  %old = call i64 @llvm.aarch64.get.fpcr()
  %usual = icmp eq i64 %old, 0
  br i1 %usual, label %go, label %set""",
    "set": "call void @llvm.aarch64.set.fpcr(i64 0)\n  br label %go",
    "restore": "call void @llvm.aarch64.set.fpcr(i64 %old)\n  br label %out"}


def entries_source() -> str:
    """LLVM assembly of all entries."""
    modes = _X86 if is_x86() else _ARM if is_arm() else _PLAIN
    return modes["declare"] + "".join(_entry(name, count, modes) for name, count in ENTRIES.items())


def _entry(name: str, count: int, modes: dict[str, str]) -> str:
    words = "\n".join(f"  %p{i} = getelementptr i64, ptr %block, i64 {i}\n  %a{i} = load i64, ptr %p{i}"
                      for i in range(1, count + 1))
    arguments = ", ".join(f"i64 %a{i}" for i in range(1, count + 1))
    leave = "br label %out" if modes is _PLAIN else "br i1 %usual, label %out, label %restore"
    return f"""
define i64 @{name}(ptr %block) {{
  %ret = alloca i64
  %exc = alloca ptr
  %function = load ptr, ptr %block
{words}
  {modes["save"]}
set:
  {modes["set"]}
go:
  %status = call i32 %function(ptr %ret, ptr %exc, {arguments})
  %value = load i64, ptr %ret
  {leave}
restore:
  {modes["restore"]}
out:
  %fine = icmp eq i32 %status, 0
  %result = select i1 %fine, i64 %value, i64 {RAISED}
  ret i64 %result
}}
"""
