"""Numba's front end with fewer passes and a memory: the same machine code, and nothing that Numba takes is refused."""
from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from numba.core import compiler, typing
from numba.core.errors import TypingError

from litejit.compiler import device, frontend, kernel, prange
from litejit.compiler.codegen import kernel_assembly, kernel_object
from litejit.compiler.lazy import MICRO_KERNELS, ByAddress, Kernel, MicroKernel, linked, micro_kernel
from litejit.compiler.load import load_image, make_image
from litejit.compiler.primitives import load_f32, load_i64, store_f32, store_i64
from tests.harness import compiled

NUMBERS = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8"), ("scale", "f4")], align=True)
CALL = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8"), ("f", "i8"), ("factor", "f4")], align=True)


def sums(name: str, fastmath: tuple[str, ...] = ()) -> Kernel:
    """A kernel with integers, floats, comparisons and overloads of Numba; a new one, since Numba's objects are kept."""
    @device(fastmath=fastmath)
    def clamped(x, least):
        return max(min(x, np.float32(2)), least)

    @kernel(NUMBERS, name=name, fastmath=fastmath)
    def made(p, begin, end):
        for c in prange(begin, end):
            total, i = np.float32(0), np.int64(0)
            while i < p.n and not (i > 7 and total > np.float32(100)):
                total += clamped(load_f32(p.x, i) * p.scale, np.float32(-i // 3))
                i += 1 + (i & 1)
            store_f32(p.y, c, total)
        return 0
    return made


def instructions(made: Kernel) -> list[str]:
    """Assembly of a kernel without names, which count what has been compiled before."""
    lines = (line.split("#")[0].strip() for line in kernel_assembly(made).splitlines())
    code = [line for line in lines if line.startswith(("v", "mov", "add", "cmp", "j"))]
    return [re.sub(r"\b_Z\S+|\.?lj_\S+|\.L\S+", "name", line) for line in code]


@pytest.mark.parametrize("fastmath", [(), ("contract", "nnan")])
def test_the_machine_code_is_that_of_all_passes(fastmath: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    mark = "_".join(fastmath)
    ours = instructions(sums(f"test_short_{mark}", fastmath))
    monkeypatch.setattr(frontend.Passes, "define_pipelines", compiler.Compiler.define_pipelines)
    monkeypatch.setattr(frontend._Typing, "resolve_function_type", typing.Context.resolve_function_type)
    assert len(ours) > 20 and instructions(sums(f"test_full_{mark}", fastmath)) == ours


def test_operators_are_typed_once() -> None:
    kernel_object(sums("test_first"))
    known = frontend.target_of(frontend.target()).typing_context.remembered
    before = dict(known)
    kernel_object(sums("test_second"))
    assert before and known == before


def test_what_the_short_list_refuses_goes_through_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function within a function needs a pass that is left out."""
    @kernel(NUMBERS, name="test_closure")
    def closure(p, begin, end):
        def twice(value):
            return value + value
        for c in prange(begin, end):
            store_i64(p.y, c, twice(load_i64(p.x, c)))
        return 0
    x, y, block = np.array([21], np.int64), np.zeros(1, np.int64), np.zeros(1, NUMBERS)
    block["x"], block["y"] = x.ctypes.data, y.ctypes.data
    assert compiled(closure)(block) == 0 and y[0] == 42

    def short_only(self: Any) -> list[Any]:
        return whole(self)[:1]
    whole = frontend.Passes.define_pipelines
    monkeypatch.setattr(frontend.Passes, "define_pipelines", short_only)
    with pytest.raises(Exception, match="make_function"):
        kernel_object(closure)


def test_errors_are_numbas() -> None:
    @kernel(NUMBERS, name="test_wrong")
    def wrong(p, begin, end):
        return p.n + "one"
    with pytest.raises(TypingError, match="No implementation of function"):
        kernel_object(wrong)


# ---- micro-kernels by their address ------------------------------------------------------------------

def doubled(name: str, times: float) -> MicroKernel:
    def emit(v: Any, x: Any, y: Any, n: Any, factor: Any) -> None:
        whole = v.splat(v.b.fmul(factor, v.const(v.type("f32"), times)))
        v.vectors(n, lambda i, store: store(v.fmul(v.load(v.f32, x, v.shl(i, 2)), whole), y, v.shl(i, 2)))
    return micro_kernel(name, "ppif", emit)


_scale, PARTS = ByAddress("ppif"), [doubled("test_times_2", 2.0), doubled("test_times_3", 3.0)]


@kernel(CALL, name="test_by_address")
def by_address(p, begin, end):
    for _ in prange(begin, end):
        _scale(p.f, p.x, p.y, p.n, p.factor)
    return 0


def test_a_kernel_calls_the_micro_kernel_it_is_given() -> None:
    """One kernel, compiled without any of them."""
    library = load_image(make_image([kernel_object(one) for one in (by_address, *PARTS)],
                                    [one.symbol for one in (by_address, *PARTS)]))
    x = np.linspace(-1, 1, 37, dtype=np.float32)
    for part, times in zip(PARTS, (2, 3)):
        y, block = np.zeros_like(x), np.zeros(1, CALL)
        block["x"], block["y"], block["n"], block["factor"] = x.ctypes.data, y.ctypes.data, x.size, 0.5
        block["f"] = library.address(part.symbol)
        assert compiled(by_address)(block) == 0
        np.testing.assert_array_equal(y, x * np.float32(0.5 * times))


def test_symbols_lead_to_what_they_name() -> None:
    part = doubled("test_times_2", 2.0)
    assert part is PARTS[0]                                             # one of a name
    assert linked(part.symbol) is part is MICRO_KERNELS["test_times_2"] and linked(by_address.symbol) is by_address
    assert linked("micro.none") is None and linked("lj_none") is None
    assert part.symbol != by_address.symbol and part.home == __name__


def test_a_call_by_address_is_not_python() -> None:
    with pytest.raises(TypeError, match="by_address_ppif"):
        _scale(0, 0, 0, 0, 0.0)
