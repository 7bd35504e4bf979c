"""ARG_MAX, ARG_MIN and TOPK_V2: positions of the largest (or smallest) elements; of equal ones the first.

Elements are compared as integers: the bits of a float32, reordered, with -0 as 0 and NaN below everything. So a NaN
never wins, except where it is the first element of an ARG_MAX or ARG_MIN, which LiteRT's comparisons never replace.
"""
from __future__ import annotations

from functools import cache

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Device, Kernel
from litejit.compiler.primitives import LOAD, STORE, bits_f32, load_i32, load_i64, store_i16, store_i32, store_i64
from litejit.ops.base import Operator, Scratch, Step, Target, chunked
from litejit.ops.simd.best import REGISTERS, SIZE, short_rows
from litejit.planner.graph import Node

ARG = np.dtype([(name, "i8") for name in ("x", "y", "found", "count", "inner", "wide", "short", "total", "block")],
               align=True)
TOP = np.dtype([(name, "i8") for name in ("x", "values", "indices", "heap", "count", "k", "short", "total", "block")],
               align=True)
GRAIN = 1 << 15                       # elements read by a chunk
FEW = 6                               # elements that are compared one by one
BLOCK = 1024                          # elements of a run whose best is found before it is looked at closely


class ArgBest(Operator):
    """ARG_MAX (`largest`) or ARG_MIN. Inputs: tensor, axis (a scalar); output i32 or i64, without the axis."""

    def __init__(self, largest: bool) -> None:
        self.largest = largest

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        node.types(node[0], "f32", "i8", "u8", "i32", "bool")
        node.types(node[1], "i32", "i64")
        node.types(node.out, "i32", "i64")
        axis = axis_of(node)
        dims = node[0].dims
        node.check(dims[axis] > 0, "Cannot compute ArgMin/ArgMax over an empty axis.")
        return [dims[:axis] + dims[axis + 1:]]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        x = node[0].data
        if x is None or x.dtype.kind == "f":
            return None
        best = np.argmax if self.largest else np.argmin
        return [np.asarray(best(x, axis=axis_of(node)))]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, axis = node[0], axis_of(node)
        count = x.dims[axis]
        inner = int(np.prod(x.dims[axis + 1:], dtype=np.int64))
        chunks, block = chunked(node.out.size, max(1, GRAIN // count))
        made = arg_kernel("u8" if x.type == "bool" else x.type, self.largest)
        return [Step(node, made, {
            "x": x, "y": node.out, "found": Scratch(chunks * 4 * block), "count": count, "inner": inner,
            "wide": node.out.type == "i64", "short": inner == 1 and FEW < count <= REGISTERS * target.cpu.lanes,
            "total": node.out.size, "block": block}, chunks)]


def axis_of(node: Node) -> int:
    """The axis in input 1, counted from the front."""
    rank = node[0].rank
    node.check(node[1].size == 1, lambda: f"the axis of {node.op} must be a scalar, not {node[1]!r}")
    axis = int(node.constant(1).ravel()[0])
    node.check(-rank <= axis < rank, lambda: f"Invalid axis value. The axis {axis} of {node.op} must be in "
               f"[{-rank}, {rank})")
    return axis % rank


class TopK(Operator):
    """TOPK_V2: the k largest along the last axis, in descending order, and their positions (i32 or i16)."""

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2, 2)
        x, values, indices = node[0], node.out, node.outputs[1]
        node.types(x, "f32", "i8", "u8", "i16", "i32", "i64")
        node.same_type(x, values)
        node.types(node[1], "i32", "i16")
        node.types(indices, "i32", "i16")
        node.check(node[1].size == 1, lambda: f"k of TOPK_V2 must be a scalar, not {node[1]!r}")
        node.check(x.rank >= 1, "TopK k must have 1 or more dimensions.")
        k = int(node.constant(1).ravel()[0])
        node.check(k >= 0, lambda: f"k of TOPK_V2 must not be negative: {k}")
        node.check(k <= x.dims[-1], lambda: "TopK k is higher than the internal dimension. "
                   f"({k} of {x.dims[-1]} elements)")
        node.check(indices.type == "i32" or x.dims[-1] <= 1 << 15,
                   lambda: f"{x.dims[-1]} positions do not fit {indices!r}")
        return [(*x.dims[:-1], k)] * 2

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, values, indices = node[0], node.out, node.outputs[1]
        count, k = x.dims[-1], values.dims[-1]
        total = x.size // count
        chunks, block = chunked(total, max(1, GRAIN // (4 * count)))
        return [Step(node, top_kernel(x.type), {
            "x": x, "values": values, "indices": indices, "heap": Scratch(chunks * 8 * k), "count": count, "k": k,
            "short": indices.type == "i16", "total": total, "block": block}, chunks)]


OPERATORS: dict[str, Operator] = {"ARG_MAX": ArgBest(True), "ARG_MIN": ArgBest(False), "TOPK_V2": TopK()}

# ---- kernels -------------------------------------------------------------------------------------

LEAST, MAGNITUDE, ZERO = -(1 << 31), 0x7FFFFFFF, np.float32(0)


@cache
def key_of(type: str, largest: bool) -> Device:
    """load(base, i) -> an integer that is larger for a better element."""
    plain = LOAD[type]
    flip = 0 if largest else -1
    if type == "f32":
        @device
        def key(base, i):
            value = plain(base, i)
            bits = bits_f32(value + ZERO)
            return np.int32(np.int32(bits ^ ((bits >> 31) & MAGNITUDE)) ^ flip) if value == value else np.int32(LEAST)
    elif type == "i64":
        @device
        def key(base, i):
            return plain(base, i) ^ flip
    else:
        @device
        def key(base, i):
            return np.int32(plain(base, i) ^ flip)
    return key


@device
def put(y, at, position, wide):
    if wide:
        store_i64(y, at, np.int64(position))
    else:
        store_i32(y, at, np.int32(position))


@cache
def arg_kernel(type: str, largest: bool) -> Kernel:
    """The kernel of ARG_MAX or ARG_MIN for a type; a unit is an output."""
    plain, key, best_of_rows, size = LOAD[type], key_of(type, largest), short_rows(type, largest), SIZE[type]

    @device
    def in_run(x, base, n):
        """Position of the best in a run of neighbours: its block first, then the place in the block."""
        best, start, first = np.int32(LEAST), 0, plain(x, base)
        if first != first:
            return 0
        for b in range(0, n, BLOCK):
            found = np.int32(LEAST)
            for i in range(base + b, base + min(b + BLOCK, n)):
                found = max(found, key(x, i))
            if found > best:
                best, start = found, b
        at = np.int32(n)
        for i in range(start, min(start + BLOCK, n)):
            at = min(at, np.int32(i) if key(x, base + i) == best else np.int32(n))
        return at if at < n else 0

    @device
    def in_few(x, base, step, n):
        """The same, element by element, `step` apart. A NaN is never better, nor is anything than a first NaN."""
        best, at = plain(x, base), 0
        for i in range(1, n):
            other = plain(x, base + i * step)
            better = other > best if largest else other < best
            best, at = other if better else best, i if better else at
        return at

    @kernel(ARG, name=f"arg_{'max' if largest else 'min'}_{type}")
    def arg(p, begin, end):
        x, y, n, inner, wide = p.x, p.y, p.count, p.inner, p.wide
        for c in prange(begin, end):
            start = c * p.block
            stop = min(p.total, start + p.block)
            if p.short:
                found = p.found + 4 * start
                best_of_rows(x + start * n * size, found, stop - start, n)
                for i in range(stop - start):
                    put(y, start + i, load_i32(found, i), wide)
                continue
            for u in range(start, stop):
                base = u * n
                if inner != 1:
                    outer = u // inner
                    base = outer * n * inner + (u - outer * inner)
                put(y, u, in_run(x, base, n) if inner == 1 and n > FEW else in_few(x, base, inner, n), wide)
        return 0
    return arg


@cache
def entries(type: str) -> tuple[Device, Device, Device]:
    """How the heap of TOPK_V2 holds elements: (entry of element i, whether one entry is worse than another, its i).

    Key and position share an int64, so that entries compare as numbers; for i64 the entry is the position.
    """
    key = key_of(type, True)
    if type == "i64":
        @device
        def entry(x, base, i):
            return i

        @device
        def worse(x, base, a, b):
            one, other = key(x, base + a), key(x, base + b)
            return one < other or (one == other and a > b)

        @device
        def position(e):
            return e
    else:
        @device
        def entry(x, base, i):
            return (np.int64(key(x, base + i)) << 32) | (MAGNITUDE - i)

        @device
        def worse(x, base, a, b):
            return a < b

        @device
        def position(e):
            return MAGNITUDE - (e & MAGNITUDE)
    return entry, worse, position


@cache
def top_kernel(type: str) -> Kernel:
    """The kernel of TOPK_V2 for a type; a unit is a row. A heap of k entries has the worst of them on top."""
    plain, store = LOAD[type], STORE[type]
    entry, worse, position = entries(type)

    @kernel(TOP, name=f"top_k_{type}")
    def top_k(p, begin, end):
        x, n, k = p.x, p.count, p.k
        for c in prange(begin, end):
            heap = p.heap + c * 8 * k
            for u in range(c * p.block, min(p.total, (c + 1) * p.block)):
                base = u * n
                for i in range(k):                       # each of the first k rises from the end of the heap
                    new, at = entry(x, base, i), i
                    while at > 0:
                        above = load_i64(heap, (at - 1) >> 1)
                        if not worse(x, base, new, above):
                            break
                        store_i64(heap, at, above)
                        at = (at - 1) >> 1
                    store_i64(heap, at, new)
                worst = load_i64(heap, 0)
                size = k
                for i in range(k, n + k - 1):        # the others replace the worst; then the worst are taken out
                    if i < n:
                        new = entry(x, base, i)
                        if not worse(x, base, worst, new):
                            continue
                    else:
                        size -= 1
                        new = load_i64(heap, size)
                        store_i64(heap, size, worst)
                    at, child = 0, 1
                    while child < size:
                        below = load_i64(heap, child)
                        if child + 1 < size:
                            other = load_i64(heap, child + 1)
                            if worse(x, base, other, below):
                                below, child = other, child + 1
                        if worse(x, base, new, below):
                            break
                        store_i64(heap, at, below)
                        at, child = child, 2 * child + 1
                    store_i64(heap, at, new)
                    worst = load_i64(heap, 0)
                for i in range(k):                       # now best first
                    at = position(load_i64(heap, i))
                    store(p.values, u * k + i, plain(x, base + at))
                    if p.short:
                        store_i16(p.indices, u * k + i, np.int16(at))
                    else:
                        store_i32(p.indices, u * k + i, np.int32(at))
        return 0
    return top_k
