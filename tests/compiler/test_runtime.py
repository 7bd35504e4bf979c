"""The loop over a table on one thread: order, jumps, failures, float modes; and what compiling it leaves behind."""
import ctypes
import os
import subprocess
import sys
import timeit

import numpy as np
import pytest

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_f32, load_i64, store_f32, store_i64
from litejit.compiler.runtime import (
    END,
    FUNCTIONS,
    JUMP,
    JUMP_IF_ZERO,
    KERNEL,
    RESULT_BITS,
    SYMBOLS,
    compile_runtime,
    runtime_library,
    runtime_object,
)
from litejit.executor.team import make_call
from litejit.store import open_store

Log = np.dtype([("log", "i8"), ("name", "i8"), ("bad", "i8"), ("flag", "i8")], align=True)


@kernel(Log)
def runtime_log(p, begin, end):
    """Appends its name and chunks to a log; clears a flag; fails at chunk `bad`."""
    n = load_i64(p.log, 0)
    store_i64(p.log, 1 + n, p.name * 10000 + begin * 100 + end)
    store_i64(p.log, 0, n + 1)
    if p.flag != 0:
        store_i64(p.flag, 0, load_i64(p.flag, 0) - 1)
    for i in prange(begin, end):
        if i == p.bad:
            return 9 | (i + 5) << 8
    return 0


Scale = np.dtype([("x", "i8"), ("y", "i8"), ("factor", "f4")], align=True)


@kernel(Scale)
def runtime_scale(p, begin, end):
    for i in prange(begin, end):
        store_f32(p.y, i, load_f32(p.x, i) * p.factor)
    return 0


@pytest.fixture(scope="module")
def library():
    from litejit.compiler.codegen import kernel_object
    from litejit.compiler.load import load_image, make_image

    kernels = (runtime_log, runtime_scale)
    return load_image(make_image([kernel_object(k) for k in kernels], [k.symbol for k in kernels]))


@pytest.fixture(scope="module")
def loop():
    return runtime_library().address("lj_loop")


class Program:
    """A table whose kernels write a log."""

    def __init__(self, library, steps, flag=0):
        self.log = np.zeros(1000, np.int64)
        self.flag = np.array([flag], np.int64)
        self.records = np.zeros((len(steps) + 1, 4), np.int64)
        self.params = np.zeros(len(steps), Log)
        self.params["log"], self.params["bad"] = self.log.ctypes.data, -1
        size, base = Log.itemsize, self.params.ctypes.data
        for i, step in enumerate(steps):
            kind, *rest = step
            if kind == KERNEL:
                name, count, *bad = rest
                self.params[i]["name"] = name
                if bad:
                    self.params[i]["bad"] = bad[0]
                self.records[i] = KERNEL, library.address("lj_runtime_log"), base + size * i, count
            else:
                self.records[i] = kind, self.flag.ctypes.data, 0, rest[0]
        self.records[-1] = END, 0, 0, 0

    def decrement_in(self, step):
        self.params[step]["flag"] = self.flag.ctypes.data

    def run(self, loop):
        return make_call(loop, self.records.ctypes.data)()

    @property
    def calls(self):
        return [(v // 10000, v // 100 % 100, v % 100) for v in self.log[1:1 + self.log[0]].tolist()]


def test_steps_run_in_order_each_once_over_all_chunks(library, loop):
    program = Program(library, [(KERNEL, 1, 5), (KERNEL, 2, 1), (KERNEL, 3, 0), (KERNEL, 4, 99)])
    assert program.run(loop) == 0
    assert program.calls == [(1, 0, 5), (2, 0, 1), (3, 0, 0), (4, 0, 99)]


def test_an_empty_program(library, loop):
    assert Program(library, []).run(loop) == 0


def test_a_while_loop(library, loop):
    steps = [(KERNEL, 1, 1), (JUMP_IF_ZERO, 4), (KERNEL, 2, 3), (JUMP, 1), (KERNEL, 3, 1)]
    for times in range(4):
        program = Program(library, steps, flag=times)
        program.decrement_in(2)
        assert program.run(loop) == 0
        assert [name for name, _, _ in program.calls] == [1] + [2] * times + [3]


def test_a_condition_is_a_byte(library, loop):
    program = Program(library, [(JUMP_IF_ZERO, 2), (KERNEL, 1, 1), (KERNEL, 2, 1)], flag=256)
    assert program.run(loop) == 0
    assert program.calls == [(2, 0, 1)]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_failure_ends_the_program_and_says_where(library, loop, at):
    steps = [(KERNEL, i, 8) for i in range(3)]
    steps[at] += (6,)
    program = Program(library, steps)
    assert program.run(loop) == (at + 1) << RESULT_BITS | 9 | 11 << 8
    assert [name for name, _, _ in program.calls] == list(range(at + 1))


class Scaling:
    """One step that multiplies a few numbers, denormals among them."""

    def __init__(self, library):
        self.x = np.array([1e-38, 3e-42, 0.1, 1 / 3, 1e30], np.float32)
        self.y = np.zeros_like(self.x)
        self.params = np.array([(self.x.ctypes.data, self.y.ctypes.data, 0.1)], Scale)
        address = library.address("lj_runtime_scale")
        self.table = np.array([[KERNEL, address, self.params.ctypes.data, len(self.x)], [END, 0, 0, 0]])
        self.call = make_call(runtime_library().address("lj_loop"), self.table.ctypes.data)


@pytest.mark.skipif(not sys.platform.startswith("linux") or os.uname().machine != "x86_64", reason="sets MXCSR")
def test_results_do_not_depend_on_the_float_modes_of_the_caller(library):
    """Some libraries flush denormals, or round otherwise, for the whole thread."""
    from llvmlite import binding

    from litejit.compiler.load import load_image, make_image

    text = """
        declare void @llvm.x86.sse.ldmxcsr(ptr)
        declare void @llvm.x86.sse.stmxcsr(ptr)
        define i64 @set(i64 %v) { %p = alloca i32
          %w = trunc i64 %v to i32
          store i32 %w, ptr %p
          call void @llvm.x86.sse.ldmxcsr(ptr %p)
          ret i64 0 }
        define i64 @get() { %p = alloca i32
          call void @llvm.x86.sse.stmxcsr(ptr %p)
          %v = load i32, ptr %p
          %w = zext i32 %v to i64
          ret i64 %w }"""
    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    modes = load_image(make_image([machine.emit_object(binding.parse_assembly(text))], ["set", "get"]))
    set_modes = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(modes.address("set"))
    get_modes = ctypes.CFUNCTYPE(ctypes.c_int64)(modes.address("get"))
    plain, other = Scaling(library), Scaling(library)
    odd = 0x1F80 | 0x8040 | 0x6000                  # flush to zero, denormals are zero, round towards zero
    assert plain.call() == 0
    before = get_modes()
    set_modes(odd)
    try:
        assert other.call() == 0
        after = get_modes()
    finally:
        set_modes(before)
    assert after & 0xFFC0 == odd, "the caller's modes are restored"
    assert plain.y.tobytes() == other.y.tobytes()
    assert plain.y[1] != 0


def test_the_cheapest_call_is_cheap(loop):
    table = np.array([[END, 0, 0, 0]], np.int64)
    call = make_call(loop, table.ctypes.data)
    assert min(timeit.repeat(call, number=1000, repeat=20)) / 1000 < 2e-6


def test_runtime_comes_from_the_store_the_second_time(tmp_path):
    from litejit.compiler import runtime

    store = open_store(tmp_path)
    objects = runtime_object(store=store)
    assert len(objects) == len(FUNCTIONS) + 1
    assert (store.statistics.misses, store.statistics.compiled) == (1, 1)
    assert runtime_object(store=store) == objects
    assert (store.statistics.hits, store.statistics.compiled) == (1, 1)
    saved, runtime._libraries = runtime._libraries, {}
    try:
        library = runtime_library(store=store)
        assert all(name in library for name in SYMBOLS)
        assert store.statistics.compiled == 2
    finally:
        runtime._libraries = saved


def test_objects_need_nothing_but_the_c_library():
    from litejit.compiler.elf import undefined
    from litejit.compiler.load import loader

    if loader() != "elf":
        pytest.skip("reads x86-64 ELF objects")
    assert undefined(compile_runtime()) <= {"syscall", "usleep"}


def test_aarch64_code_is_made_of_the_right_instructions():
    """Wait hint and atomics of the generated code, for a CPU that is not here."""
    from llvmlite import binding

    binding.initialize_all_targets()
    binding.initialize_all_asmprinters()
    text = """target triple = "aarch64-unknown-linux-gnu"
        declare void @llvm.aarch64.isb(i32)
        declare i64 @llvm.aarch64.get.fpcr()
        declare void @llvm.aarch64.set.fpcr(i64)
        define i64 @f(ptr %p) { call void @llvm.aarch64.isb(i32 15)
          %old = call i64 @llvm.aarch64.get.fpcr()
          call void @llvm.aarch64.set.fpcr(i64 0)
          ret i64 %old }"""
    machine = binding.Target.from_triple("aarch64-unknown-linux-gnu").create_target_machine(reloc="pic")
    assembly = machine.emit_assembly(binding.parse_assembly(text))
    assert "isb" in assembly and "FPCR" in assembly.upper()


@pytest.mark.parametrize("machine", ["aarch64", "riscv64", "unknown"])
def test_other_machines_have_entries(machine, monkeypatch):
    """The source of the entries parses for every machine; whether it runs is for those machines to say."""
    from litejit.compiler import entries, instructions

    monkeypatch.setattr(instructions, "MACHINE", machine)
    from llvmlite import binding

    triple = {"aarch64": "aarch64-unknown-linux-gnu"}.get(machine, "x86_64-unknown-linux-gnu")
    module = binding.parse_assembly(f'target triple = "{triple}"\n' + entries.entries_source())
    module.verify()
    assert {function.name for function in module.functions if not function.is_declaration} == set(entries.ENTRIES)


def test_with_llvmlite_as_loader(tmp_path):
    """The whole run-time system, threads included, through the loader of the other platforms."""
    code = ("import sys\n"
            "from litejit.executor.team import team\n"
            "from litejit.compiler.runtime import runtime_library\n"
            "import numpy as np\n"
            "table = np.array([[3, 0, 0, 0]])\n"
            "t = team()\n"
            "print(runtime_library().kind, t.run(runtime_library().address('lj_loop'), table.ctypes.data, 0, 2))\n")
    environment = {**os.environ, "LITEJIT_LOADER": "llvm", "LITEJIT_CACHE_DIR": str(tmp_path)}
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["llvm", "0"], done.stderr
