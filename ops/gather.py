"""GATHER, GATHER_ND, EMBEDDING_LOOKUP: rows of a table picked by indices, every index checked by the kernel.

A table of integers looked up as floats (hybrid) is dequantised on the way: value * scale, with one scale for all, one
per row, or one per block of a row.
"""
from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import (
    load_f32,
    load_i8,
    load_i16,
    load_i32,
    load_i64,
    load_u8,
    load_u16,
    load_u32,
    load_u64,
    store_f16,
    store_f32,
    store_u8,
    store_u16,
    store_u32,
    store_u64,
)
from litejit.ops.base import Operator, Packed, Step, Target, chunked
from litejit.ops.copy import GRAIN, plain, strides
from litejit.ops.copy_kernels import put_rows
from litejit.planner.graph import Node, Value

Shape = tuple[int, ...]

MOST = 16                             # indexed dimensions of GATHER_ND
OUT_OF_BOUNDS = 1

GATHER = np.dtype([("x", "i8"), ("indices", "i8"), ("y", "i8"), ("width", "i8"), ("n", "i8"), ("outer", "i8"),
                   ("count", "i8"), ("run", "i8"), ("rows", "i8"), ("block", "i8")], align=True)
GATHER_ND = np.dtype([("x", "i8"), ("indices", "i8"), ("y", "i8"), ("width", "i8"), ("depth", "i8"), ("run", "i8"),
                      ("rows", "i8"), ("block", "i8"), ("extents", "i8", (MOST,)), ("steps", "i8", (MOST,))],
                     align=True)
LOOKUP = np.dtype([("table", "i8"), ("indices", "i8"), ("y", "i8"), ("scales", "i8"), ("n", "i8"), ("rows", "i8"),
                   ("columns", "i8"), ("blocks", "i8"), ("per_row", "i8"), ("block", "i8")], align=True)


def _gather_step(node: Node, x: Value, indices: Value, outer: int, n: int, count: int, run: int) -> list[Step]:
    """y[s, i] = x[s, indices[s // outer, i]] for segments s of n elements of `run` bytes, `count` indices each."""
    rows = node.out.nbytes // run if run else 0
    if not rows:
        return []
    chunks, block = chunked(rows, max(1, GRAIN // (run + 16)))
    return [Step(node, gather_rows, {
        "x": x, "indices": indices, "y": node.out, "width": indices.itemsize, "n": n, "outer": outer, "count": count,
        "run": run, "rows": rows, "block": block}, chunks)]


class Gather(Operator):
    """Inputs x, indices (int16, int32, int64); options: axis, batch_dims (negative ones count from the end)."""

    errors = {OUT_OF_BOUNDS: "gather index out of bounds"}

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        x, indices = node[0], node[1]
        plain(node, x, node.out)
        node.same_type(x, node.out)
        node.check(indices.type in ("i16", "i32", "i64"),
                   f"Positions of type {indices.dtype} are not supported by gather: {indices!r}")
        axis, batch = self._axes(node)
        return [(*x.dims[:axis], *indices.dims[batch:], *x.dims[axis + 1:])]

    def _axes(self, node: Node) -> tuple[int, int]:
        x, indices = node[0], node[1]
        axis = int(getattr(node.options, "axis", 0))
        batch = int(getattr(node.options, "batch_dims", 0))
        axis += x.rank if axis < 0 else 0
        batch += indices.rank if batch < 0 else 0
        node.check(0 <= axis < x.rank, f"0 <= axis && axis < NumDimensions(input) was not true: axis {axis} of {x!r}")
        node.check(0 <= batch <= min(axis, indices.rank),
                   f"batch_dims <= axis was not true: batch_dims {batch}, axis {axis}, {indices!r}")
        node.check(x.dims[:batch] == indices.dims[:batch],
                   f"input->dims->data[i] != positions->dims->data[i]: {x!r}, {indices!r}, batch_dims {batch}")
        return axis, batch

    def fold(self, node: Node) -> list[np.ndarray] | None:
        x, indices = node.constant(0), node.constant(1)
        axis, batch = self._axes(node)
        if indices.size and (indices.min() < 0 or indices.max() >= x.shape[axis]):
            return None
        if batch == 0:
            return [np.take(x, indices, axis)]
        count = prod(x.shape[:batch])
        pairs = zip(x.reshape(count, *x.shape[batch:]), indices.reshape(count, *indices.shape[batch:]))
        picked = [np.take(s, i, axis - batch) for s, i in pairs]
        return [np.array(picked, x.dtype).reshape(node.out.dims)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, indices = node[0], node[1]
        axis, batch = self._axes(node)
        outer, count = prod(x.dims[batch:axis]), prod(indices.dims[batch:])
        return _gather_step(node, x, indices, outer, x.dims[axis], count, prod(x.dims[axis + 1:]) * x.itemsize)


class GatherNd(Operator):
    """Inputs x, indices (int16, int32, int64), whose last dimension holds one index per leading dimension of x."""

    errors = {OUT_OF_BOUNDS: "gather_nd index out of bounds"}

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        x, indices = node[0], node[1]
        plain(node, x, node.out)
        node.same_type(x, node.out)
        node.check(indices.type in ("i16", "i32", "i64"),
                   f"Indices of type {indices.dtype} are not supported by gather_nd: {indices!r}")
        node.check(x.rank >= 1, "Params must be at least a vector.")
        node.check(indices.rank >= 1, "Indices must be at least a vector.")
        depth = indices.dims[-1]
        node.check(depth <= min(x.rank, MOST),
                   f"Index innermost dimension length must be in [0, params rank]: {depth} of {x.rank}")
        return [(*indices.dims[:-1], *x.dims[depth:])]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        x, indices = node.constant(0), node.constant(1)
        depth = indices.shape[-1]
        if indices.size and ((indices < 0).any() or (indices >= np.array(x.shape[:depth])).any()):
            return None
        return [np.asarray(x[tuple(np.moveaxis(indices, -1, 0))]) if depth else
                np.broadcast_to(x, node.out.dims)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, indices = node[0], node[1]
        depth, size = indices.dims[-1], x.itemsize
        run = prod(x.dims[depth:]) * size
        rows = prod(indices.dims[:-1])
        if not rows * run:
            return []
        rest = (0,) * (MOST - depth)
        chunks, block = chunked(rows, max(1, GRAIN // (run + 16)))
        return [Step(node, gather_nd_rows, {
            "x": x, "indices": indices, "y": node.out, "width": indices.itemsize, "depth": depth, "run": run,
            "rows": rows, "block": block, "extents": x.dims[:depth] + rest,
            "steps": tuple(s * size for s in strides(x.dims)[:depth]) + rest}, chunks)]


class EmbeddingLookup(Operator):
    """Inputs ids (int32 [n]), table [rows, ...]; a table of 8 bits or less may give float32 or float16 (symmetric)."""

    errors = {OUT_OF_BOUNDS: "Embedding Lookup: index out of bounds"}

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        ids, table = node[0], node[1]
        node.types(ids, "i32")
        node.check(ids.rank == 1, f"NumDimensions(lookup) != 1 ({ids.rank} != 1)")
        plain(node, table, node.out)
        node.check(table.rank >= 2, f"NumDimensions(value) >= 2 was not true: {table!r}")
        if table.type != node.out.type:
            self._check_hybrid(node, table)
        return [(*ids.dims, *table.dims[1:])]

    def _check_hybrid(self, node: Node, table: Value) -> None:
        node.types(table, "i8", "u8", "i4", "i2")
        node.types(node.out, "f32", "f16")
        scales, columns = self._scales(node)
        node.check(scales.size > 0, f"a table of integers needs scales: {table!r}")
        node.check(table.zero_points is None or not np.any(table.zero_points),
                   f"qparams->zero_point->data[0] == 0 was not true: {table!r}")
        row = prod(table.dims[1:])
        node.check(columns > 0 and row % columns == 0 and scales.size in (1, table.dims[0] * max(1, row // columns)),
                   f"{scales.size} scales for {table!r} in blocks of {columns}")

    def _scales(self, node: Node) -> tuple[np.ndarray, int]:
        """Scales as float32, and how many elements of a row share one."""
        table = node[1]
        details = table.spec.quantization.details if table.spec is not None and table.spec.quantization else None
        if details is not None and getattr(details, "block_size", None):
            held = table.spec._model.subgraphs[table.subgraph].tensors[details.scales]
            node.check(held.data is not None, f"the scales of {table!r} must be constant")
            return held.data.view(held.dtype).astype(np.float32), int(details.block_size)
        given = np.zeros(0, np.float32) if table.scales is None else np.asarray(table.scales, np.float32)
        return given, max(1, prod(table.dims[1:]))

    def fold(self, node: Node) -> list[np.ndarray] | None:
        ids, table = node.constant(0), node.constant(1)
        if table.dtype != node.out.dtype or (ids.size and (ids.min() < 0 or ids.max() >= len(table))):
            return None
        return [table[ids]]

    def steps(self, node: Node, target: Target) -> list[Step]:
        ids, table = node[0], node[1]
        row = prod(table.dims[1:])
        if table.type == node.out.type:
            return _gather_step(node, table, ids, 1, table.dims[0], ids.size, row * table.itemsize)
        scales, columns = self._scales(node)
        per_row = 0 if scales.size == 1 else row // columns
        packed = Packed((table.key, "scales of rows"), lambda: scales)
        chunks, block = chunked(ids.size, max(1, (1 << 15) // max(1, row)))
        return [Step(node, LOOKUPS["u8" if table.type == "u8" else "i8", node.out.type], {
            "table": table, "indices": ids, "y": node.out, "scales": packed, "n": table.dims[0], "rows": ids.size,
            "columns": columns, "blocks": row // columns, "per_row": per_row, "block": block}, chunks)]


OPERATORS = {"GATHER": Gather(), "GATHER_ND": GatherNd(), "EMBEDDING_LOOKUP": EmbeddingLookup()}


# ---- kernels -------------------------------------------------------------------------------------

@device
def load_index(base, i, width):
    """The i-th index, of `width` bytes."""
    if width == 4:
        return np.int64(load_i32(base, i))
    if width == 8:
        return load_i64(base, i)
    return np.int64(load_i16(base, i))


@device
def put_row(y, x, run):
    """`run` bytes; single elements without a call."""
    if run == 4:
        store_u32(y, 0, load_u32(x, 0))
    elif run == 1:
        store_u8(y, 0, load_u8(x, 0))
    elif run == 8:
        store_u64(y, 0, load_u64(x, 0))
    elif run == 2:
        store_u16(y, 0, load_u16(x, 0))
    else:
        put_rows(y, x, 0, 0, 1, run)


@kernel(GATHER)
def gather_rows(p, begin, end):
    """y[s, i] = x[s, indices[s // outer, i]], rows of `run` bytes."""
    n, run, width = p.n, p.run, p.width
    for c in prange(begin, end):
        r = c * p.block
        stop = min(p.rows, r + p.block)
        while r < stop:
            segment = r // p.count
            first = r - segment * p.count
            last = min(p.count, first + stop - r)
            at = segment // p.outer * p.count
            x, y = p.x + segment * n * run, p.y + segment * p.count * run
            for i in range(first, last):
                k = load_index(p.indices, at + i, width)
                if k < 0 or k >= n:
                    return OUT_OF_BOUNDS | (at + i) << 8
                put_row(y + i * run, x + k * run, run)
            r += last - first
    return 0


@kernel(GATHER_ND)
def gather_nd_rows(p, begin, end):
    """y[i] = x[indices[i, 0], indices[i, 1], ...], rows of `run` bytes."""
    for c in prange(begin, end):
        for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
            x = p.x
            for d in range(p.depth):
                k = load_index(p.indices, r * p.depth + d, p.width)
                if k < 0 or k >= p.extents[d]:
                    return OUT_OF_BOUNDS | (r * p.depth + d) << 8
                x += k * p.steps[d]
            put_row(p.y + r * p.run, x, p.run)
    return 0


def _lookup_kernel(integer: str, real: str) -> Any:
    load = {"i8": load_i8, "u8": load_u8}[integer]
    store = {"f32": store_f32, "f16": store_f16}[real]

    @kernel(LOOKUP, name=f"lookup_{integer}_{real}")
    def lookup(p, begin, end):
        for c in prange(begin, end):
            for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
                k = np.int64(load_i32(p.indices, r))
                if k < 0 or k >= p.n:
                    return OUT_OF_BOUNDS | r << 8
                row = p.blocks * p.columns
                for b in range(p.blocks):
                    scale = load_f32(p.scales, k * p.per_row + b if p.per_row else 0)
                    first, to = k * row + b * p.columns, r * row + b * p.columns
                    for i in range(p.columns):
                        store(p.y, to + i, np.float32(load(p.table, first + i)) * scale)
        return 0
    return lookup


LOOKUPS = {(integer, real): _lookup_kernel(integer, real) for integer in ("i8", "u8") for real in ("f32", "f16")}
