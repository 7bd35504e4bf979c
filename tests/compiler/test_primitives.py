"""Loads and stores of kernels, on every level that this machine can execute: compiled against NumPy."""

from __future__ import annotations

import ctypes

import ml_dtypes
import numpy as np
import pytest

from litejit.compiler import cpu as cpu_module
from litejit.compiler import kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import load_bf16, load_f16, load_f32, store_bf16, store_f16, store_f32

PARAMS = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8")], align=True)


@kernel(PARAMS, name="test_widen_f16")
def widen_f16(p, begin, end):
    for i in prange(begin, end):
        store_f32(p.y, i, load_f16(p.x, i))
    return 0


@kernel(PARAMS, name="test_narrow_f16")
def narrow_f16(p, begin, end):
    for i in prange(begin, end):
        store_f16(p.y, i, load_f32(p.x, i))
    return 0


@kernel(PARAMS, name="test_narrow_bf16")
def narrow_bf16(p, begin, end):
    for i in prange(begin, end):
        store_bf16(p.y, i, load_f32(p.x, i))
    return 0


@kernel(PARAMS, name="test_widen_bf16")
def widen_bf16(p, begin, end):
    for i in prange(begin, end):
        store_f32(p.y, i, load_bf16(p.x, i))
    return 0


def run(made: Kernel, x: np.ndarray, y: np.ndarray, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from litejit.compiler.codegen import kernel_object
    from litejit.compiler.load import load_image, make_image

    monkeypatch.setenv("LITEJIT_TARGET", level)
    library = load_image(make_image([kernel_object(made)], [made.symbol]))
    block = np.zeros(1, PARAMS)
    block["x"], block["y"], block["n"] = x.ctypes.data, y.ctypes.data, x.size
    entry = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * 5)(library.address(made.symbol))
    ret, exc = ctypes.c_int64(), ctypes.c_int64()
    assert entry(ctypes.addressof(ret), ctypes.addressof(exc), block.ctypes.data, 0, x.size) == 0
    assert ret.value == 0


@pytest.fixture(autouse=True)
def level_again(monkeypatch: pytest.MonkeyPatch):
    yield
    monkeypatch.undo()
    cpu_module._chosen = None


LEVELS = [cpu.name for cpu in cpu_module.executable()]
ALL16 = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize("level", LEVELS)
def test_every_float16_is_read(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    y = np.zeros(1 << 16, np.float32)
    run(widen_f16, ALL16, y, level, monkeypatch)
    want = ALL16.view(np.float16).astype(np.float32)
    assert np.array_equal(y, want, equal_nan=True)


@pytest.mark.parametrize("level", LEVELS)
def test_float16_is_rounded_to_even(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    edges = ALL16.view(np.float16).astype(np.float32)
    with np.errstate(all="ignore"):
        halves = (edges[:-1].astype(np.float64) + edges[1:]) / 2
        x = np.concatenate([edges, halves.astype(np.float32), np.float32(10) ** rng.uniform(-12, 8, 20000).astype(np.float32),
                            np.array([65519, 65520, 65536, 1e30, -1e30, np.inf, -np.inf], np.float32)]).astype(np.float32)
        want = x.astype(np.float16)
    y = np.zeros(x.size, np.float16)
    run(narrow_f16, x, y, level, monkeypatch)
    same = (y.view(np.uint16) == want.view(np.uint16)) | (np.isnan(y) & np.isnan(want))
    assert same.all(), (x[~same][:5], y[~same][:5], want[~same][:5])


def test_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    level = LEVELS[0]
    wide = np.zeros(1 << 16, np.float32)
    run(widen_bf16, ALL16, wide, level, monkeypatch)
    assert np.array_equal(wide, ALL16.view(ml_dtypes.bfloat16).astype(np.float32), equal_nan=True)
    x = np.random.default_rng(6).standard_normal(50000).astype(np.float32)
    y = np.zeros(x.size, ml_dtypes.bfloat16)
    run(narrow_bf16, x, y, level, monkeypatch)
    assert (y == x.astype(ml_dtypes.bfloat16)).all()
