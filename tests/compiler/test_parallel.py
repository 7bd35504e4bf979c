"""Kernels that are compiled by several processes: complete, whatever becomes of a process."""
from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from litejit.compiler import kernel, parallel, prange
from litejit.compiler.codegen import kernel_object
from litejit.compiler.cpu import target
from litejit.compiler.lazy import KERNELS, Kernel
from litejit.compiler.load import load_image, make_image
from litejit.ops.pack_panels import pack_panels_f32
from litejit.ops.reduce_loops import GRAIN  # noqa: F401  (its kernels are declared)
from litejit.ops.softmax import softmax_f32

COPY = np.dtype([("x", "i8")], align=True)


@kernel(COPY)
def of_this_test(p, begin, end):
    for _ in prange(begin, end):
        pass
    return 0


def compiled(kernels: list[Kernel]) -> dict[str, bytes]:
    """Object code by name; every kernel is reported once."""
    made: dict[str, bytes] = {}

    def done(one: Kernel, code: bytes, seconds: float) -> None:
        assert one.name not in made and seconds >= 0
        made[one.name] = code
    parallel.compile_kernels(kernels, target(), done)
    return made


SOME = [softmax_f32, of_this_test, pack_panels_f32, KERNELS["softmax_f16"], KERNELS["log_softmax_rows"]]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The processes that are started; two may compile."""
    monkeypatch.setenv("LITEJIT_COMPILE_PROCESSES", "2")
    popen, found = subprocess.Popen, []

    def start(*args: Any, **options: Any) -> Any:
        found.append(popen(*args, **options))
        return found[-1]
    monkeypatch.setattr(parallel.subprocess, "Popen", start)
    return found


def test_homes() -> None:
    """Where another process finds a kernel: the module that declares it; nowhere if it is made on demand."""
    from litejit.ops.attention import attention
    from litejit.ops.conv_winograd import KERNELS as PRODUCTS

    assert softmax_f32.home == "litejit.ops.softmax" and of_this_test.home == __name__
    assert {made.home for made in PRODUCTS.values()} == {"litejit.ops.conv_winograd"}          # not the factory's
    attention.cache_clear()
    assert attention("plain", "f32").home == ""


def test_another_process_makes_the_code(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """This one waits until the other has done all that it can."""
    asked: list[str] = []
    ask = parallel.Helper._ask

    def note(self: parallel.Helper, one: Kernel) -> bytes | None:
        code = ask(self, one)
        if code is not None:
            asked.append(one.name)
        return code
    monkeypatch.setattr(parallel.Helper, "_ask", note)
    queue = parallel._next

    def wait(kernels: Any) -> Any:
        while len(asked) < len(SOME) - 1 and len(kernels) > 0:
            pass
        return queue(kernels)
    monkeypatch.setattr(parallel, "_next", wait)
    made = compiled(SOME)
    assert set(asked) == {one.name for one in SOME} - {"of_this_test"} and len(started) == 1
    library = load_image(make_image(list(made.values()), [one.symbol for one in SOME]))
    assert all(library.address(one.symbol) for one in SOME)
    for one in SOME:                                # names within differ by numbers that Numba counts up
        assert abs(len(made[one.name]) - len(kernel_object(one))) < 200
    assert started[0].poll() is not None


def dies_at_once(helper: parallel.Helper) -> None:
    helper.process = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def cannot_start(helper: parallel.Helper) -> None:
    raise FileNotFoundError("no Python")


def answers_too_little(helper: parallel.Helper) -> None:
    code = "import sys; sys.stdin.readline(); sys.stdout.buffer.write((1000).to_bytes(8, 'little') + b'short')"
    helper.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def never_answers(helper: parallel.Helper) -> None:
    code = "import sys; [None for _ in sys.stdin]"
    helper.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@pytest.mark.parametrize("how", [dies_at_once, cannot_start, answers_too_little, never_answers])
def test_a_process_that_fails_costs_nothing_but_time(how: Callable[[parallel.Helper], None], monkeypatch: pytest.MonkeyPatch,
                                                     started: list[Any]) -> None:
    monkeypatch.setattr(parallel.Helper, "_start", how)
    monkeypatch.setattr(parallel, "PATIENCE", 0.2)
    assert set(compiled(SOME)) == {one.name for one in SOME}


def test_without_threads_everything_is_compiled_here(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert set(compiled(SOME)) == {one.name for one in SOME} and not started


def test_another_version_of_a_kernel_is_not_taken(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for one in SOME:
        monkeypatch.setattr(one, "_print", "an older fingerprint")
    assert set(compiled(SOME)) == {one.name for one in SOME}


def test_an_error_of_the_compiler_arrives(started: list[Any]) -> None:
    @kernel(COPY, name="wrong_of_this_test")
    def wrong(p, begin, end):  # type: ignore[no-untyped-def]
        return p.nothing
    with pytest.raises(Exception, match="nothing"):
        compiled([*SOME, wrong])
    assert all(process.poll() is not None for process in started)


@pytest.mark.parametrize("setting, kernels, wanted", [("1", 20, 1), ("3", 20, 3), ("3", 5, 2), ("3", 1, 1), ("0", 9, 1)])
def test_how_many(setting: str, kernels: int, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEJIT_COMPILE_PROCESSES", setting)
    assert parallel.processes(kernels) == wanted
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert parallel.processes(kernels) == 1
    monkeypatch.delattr(sys, "frozen")
    monkeypatch.setattr(sys, "executable", "/opt/app/server")
    assert parallel.processes(kernels) == 1


def test_a_wrong_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITEJIT_COMPILE_PROCESSES", "many")
    with pytest.raises(ValueError, match="LITEJIT_COMPILE_PROCESSES=many: expected a number of processes"):
        parallel.processes(4)
