"""SOFTMAX and LOG_SOFTMAX of 8-bit codes as LiteRT's default mode computes them: a float32 table of 256 exponentials made
while planning.

The sum of a row is taken in order, in float32, so that the codes are LiteRT's.
"""
from __future__ import annotations

import functools

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import ByAddress, Device, Kernel
from litejit.compiler.primitives import load_f32, rint_f32, round_f32, trunc_f32
from litejit.ops.base import Packed, Scratch, Step, chunked
from litejit.ops.simd.few_classes import MOST, SHARES_ARGUMENTS, class_shares
from litejit.ops.streams import LOAD, STORE
from litejit.ops.vector_math import log_f32
from litejit.planner.graph import Node

ROWS = np.dtype([
    ("x", "i8"), ("y", "i8"), ("rows", "i8"), ("depth", "i8"), ("block", "i8"), ("table", "i8"), ("zero", "i8"),
    ("shares", "i8"), ("class_shares", "i8"), ("scale", "f4")], align=True)
LOG_ROWS = np.dtype([
    ("x", "i8"), ("y", "i8"), ("rows", "i8"), ("depth", "i8"), ("block", "i8"), ("table", "i8"), ("zero", "i8"),
    ("shifts", "i8"), ("scale", "f4"), ("out_scale", "f4"), ("ratio", "f4")], align=True)
GRAIN = 8192
LANES = 4                             # rows whose sums run side by side: each is a chain of dependent additions


def exponentials(scale: float, beta: float) -> np.ndarray:
    """float32[256]: exp(-d * scale * beta) at 255 - d."""
    factor = np.float32(-np.float32(scale) * np.float32(beta))
    return np.exp((factor * np.arange(256, dtype=np.float32)).astype(np.float64)).astype(np.float32)[::-1].copy()


def softmax_table_steps(node: Node, beta: float) -> list[Step]:
    """SOFTMAX of int8 to int8 or uint8 to uint8."""
    x, y = node[0], node.out
    scale, depth = float(x.scale), x.dims[-1]
    rows = x.size // depth
    chunks, block = chunked(rows, max(LANES, GRAIN // depth // LANES * LANES))
    few = depth <= MOST
    return [Step(node, softmax_few if few else softmax_table(x.type), {
        "class_shares": class_shares(x.type, depth) if few else None,
        "x": x, "y": y, "rows": rows, "depth": depth, "block": block, "zero": y.zero_point, "scale": y.scale,
        "shares": None if few else Scratch(chunks * LANES * 4 * depth + 64),
        "table": Packed(("float exponentials", scale, beta), lambda: exponentials(scale, beta))}, chunks)]


def log_softmax_table_steps(node: Node) -> list[Step]:
    """LOG_SOFTMAX of int8 or uint8."""
    x, y = node[0], node.out
    scale, depth = float(x.scale), x.dims[-1]
    rows = x.size // depth
    chunks, block = chunked(rows, max(1, GRAIN // depth))
    return [Step(node, log_softmax_table(x.type), {
        "x": x, "y": y, "rows": rows, "depth": depth, "block": block, "zero": y.zero_point, "scale": x.scale,
        "out_scale": y.scale, "ratio": x.scale / y.scale, "shifts": Scratch(chunks * 8 * block + 64),
        "table": Packed(("float exponentials", scale, 1.0), lambda: exponentials(scale, 1.0))}, chunks)]


ONE, HALF = np.float32(1), np.float32(0.5)


_load_f32, _store_f32 = LOAD["f32"], STORE["f32"]


_BOUNDS = {"i8": (np.int32(-128), np.int32(127)), "u8": (np.int32(0), np.int32(255))}


@functools.cache
def _largest(type: str) -> Device:
    """Device function: the largest code of n from element `first` on."""
    load, low = LOAD[type], _BOUNDS[type][0]

    @device
    def largest(x, first, n):
        most = low
        for i in range(first, first + n):
            most = max(most, np.int32(load(x, i)))
        return np.int64(most)
    made: Device = largest
    return made


@functools.cache
def softmax_table(type: str) -> Kernel:
    """Rows of exp / (sum * scale), exp = table[255 + x - max]."""
    load, store, largest, (low, high) = LOAD[type], STORE[type], _largest(type), _BOUNDS[type]
    signed = type == "i8"

    @kernel(ROWS, name=f"softmax_table_{type}")
    def run(p, begin, end):
        x, y, depth, zero, part = p.x, p.y, p.depth, np.int32(p.zero), 4 * p.depth
        shares = p.shares + begin * LANES * part
        e0, e1, e2, e3 = shares, shares + part, shares + 2 * part, shares + 3 * part
        for c in prange(begin, end):
            first, last = c * p.block, min(p.rows, (c + 1) * p.block)
            for r in range(first, last, LANES):
                # the last rows are computed again where fewer than LANES are left: the same codes, the same places
                r0 = r * depth
                r1, r2, r3 = min(r + 1, last - 1) * depth, min(r + 2, last - 1) * depth, min(r + 3, last - 1) * depth
                t0, t1 = p.table + 4 * (255 - largest(x, r0, depth)), p.table + 4 * (255 - largest(x, r1, depth))
                t2, t3 = p.table + 4 * (255 - largest(x, r2, depth)), p.table + 4 * (255 - largest(x, r3, depth))
                s0 = s1 = s2 = s3 = np.float32(0)
                for i in range(depth):
                    v0, v1 = _load_f32(t0, load(x, r0 + i)), _load_f32(t1, load(x, r1 + i))
                    v2, v3 = _load_f32(t2, load(x, r2 + i)), _load_f32(t3, load(x, r3 + i))
                    s0, s1, s2, s3 = s0 + v0, s1 + v1, s2 + v2, s3 + v3
                    _store_f32(e0, i, v0)
                    _store_f32(e1, i, v1)
                    _store_f32(e2, i, v2)
                    _store_f32(e3, i, v3)
                for k in range(min(LANES, last - r)):
                    row, exps = (r + k) * depth, shares + k * part
                    share = ONE / ((s0 if k == 0 else s1 if k == 1 else s2 if k == 2 else s3) * p.scale)
                    for i in range(depth):
                        q = load_f32(exps, i) * share
                        if signed:
                            code = np.int32(np.int32(round_f32(q)) + zero)
                        else:
                            code = np.int32(trunc_f32(q + HALF))
                        store(y, row + i, min(max(code, low), high))
        return 0
    return run


_class_shares = ByAddress(SHARES_ARGUMENTS)


@kernel(ROWS)
def softmax_few(p, begin, end):
    """The same of a few classes."""
    first = begin * p.block
    _class_shares(p.class_shares, p.x + first * p.depth, p.y + first * p.depth, min(p.rows, end * p.block) - first, p.table,
                  p.scale, p.zero)
    return 0


@functools.cache
def log_softmax_table(type: str) -> Kernel:
    """Rows of x * ratio - (max * scale + log(sum)) / out_scale."""
    load, store, largest, (low, high) = LOAD[type], STORE[type], _largest(type), _BOUNDS[type]

    @kernel(LOG_ROWS, name=f"log_softmax_table_{type}")
    def run(p, begin, end):
        x, y, depth, ratio, zero = p.x, p.y, p.depth, p.ratio, np.int32(p.zero)
        for c in prange(begin, end):
            first = c * p.block
            rows = min(p.rows - first, p.block)
            shifts = p.shifts + 8 * first
            mosts = shifts + 4 * p.block
            for r in range(rows):
                row = (first + r) * depth
                most = largest(x, row, depth)
                table, total = p.table + 4 * (255 - most), np.float32(0)
                for i in range(row, row + depth):
                    total += load_f32(table, load(x, i))
                _store_f32(shifts, r, total)
                _store_f32(mosts, r, np.float32(most))
            for r in range(rows):
                _store_f32(shifts, r, (p.scale * _load_f32(mosts, r) + log_f32(_load_f32(shifts, r))) / p.out_scale)
            for r in range(rows):
                row, shift = (first + r) * depth, load_f32(shifts, r)
                for i in range(row, row + depth):
                    code = np.int32(np.int32(rint_f32(ratio * np.float32(np.int32(load(x, i))) - shift)) + zero)
                    store(y, i, min(max(code, low), high))
        return 0
    return run
