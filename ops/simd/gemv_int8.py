"""One row times the panels of ops/simd/gemm_int8.py, with the same ends "code" and "f32": bound by reading the panels.

Two panels side by side, and two groups of k at a time in accumulators of their own: enough chains to hide the latency.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litejit.compiler import device, micro_kernel
from litejit.ops.simd.gemm_f32 import store_tile
from litejit.ops.simd.gemm_int8 import _GROUPS, HEADER
from litejit.ops.simd.tiles import int8_columns, tiles

int8_group = _GROUPS[False]


def emit_vector(end: str, rows: bool) -> Callable[..., None]:
    """Generator: (a, first panel, second panel, c, groups, columns, terms, lo, hi, zero_point, out_flip).

    `columns` of both panels together. rows: the row's term is added ("f32": it multiplies the first numbers of columns).
    """
    def emit(v: Any, a: Any, one: Any, two: Any, c: Any, groups: Any, columns: Any, terms: Any, lo: Any, hi: Any,
             zero_point: Any, out_flip: Any) -> None:
        nv, size = tiles(v.cpu).int8[1], v.cpu.vbytes
        panels, count = (one, two), 2 * nv

        def header(ty: Any, at: int) -> list[Any]:
            return [v.load(ty, panel, (at * nv + j) * size) for panel in panels for j in range(nv)]

        def group(i: Any, acc: list[Any]) -> list[Any]:
            x, at = v.isplat(a, v.shl(i, 2)), v.mul(v.add(i, HEADER), nv * size)
            return [v.dot(acc[j], x, v.load(v.i32, panels[j // nv], v.add(at, j % nv * size))) for j in range(count)]

        def pair(i: Any, acc: list[Any]) -> list[Any]:
            return group(i, acc[:count]) + group(v.add(i, 1), acc[count:])
        acc = header(v.i32, 0)
        if rows or end == "f32":
            term = v.isplat(terms)
            acc = [v.mul(x, term) if end == "f32" else v.add(x, term) for x in acc]
        whole = v.and_(groups, -2)
        acc = v.loop(whole, acc + [v.zero(v.i32)] * count, pair, step=2)
        acc = [v.add(x, y) for x, y in zip(acc[:count], acc[count:])]
        acc = v.loop(groups, acc, group, start=whole)
        second = header(v.f32, 1)
        if end == "f32":
            low, high = (v.splat(v.bitcast(v.trunc(x, "i32"), v.type("f32"))) for x in (lo, hi))
            factor = v.fsplat(terms, 4)
            made = [v.clamp(v.fma(v.fmul(v.to_float(x), factor), s, t), low, high)
                    for x, s, t in zip(acc, second, header(v.f32, 2))]
            store_tile(v, made, [c], columns, count, size)
            return
        low, high = (v.splat(v.to_float(v.trunc(v.sub(x, zero_point), "i32"))) for x in (lo, hi))
        zero, flip = v.splat(v.trunc(zero_point, "i32")), v.splat(v.trunc(out_flip, "i8"), v.lanes)
        made = [v.xor(v.trunc(v.add(v.nearest(v.clamp(v.fmul(v.to_float(x), s), low, high)), zero), "i8"), flip)
                for x, s in zip(acc, second)]
        store_tile(v, made, [c], columns, count, v.lanes)
    return emit


def make_gemv(end: str, rows: bool = False) -> Any:
    """Device function (staged, panels, c, k, n, terms, lo, hi, zero_point, out_flip): all panels past one staged row."""
    vector = micro_kernel(f"gemv_int8_{end}{'_rows' if rows else ''}", "ppppiipiiii", emit_vector(end, rows))
    size_of = {"code": 1, "f32": 4}[end]

    @device
    def gemv(staged, panels, c, k, n, terms, lo, hi, zero_point, out_flip):
        nr, group = int8_columns(), int8_group()
        groups = (k + group - 1) // group
        size, count = (HEADER + groups) * nr * 4, (n + nr - 1) // nr
        for q in range(0, count, 2):
            panel = panels + q * size
            vector(staged, panel, panel + size if q + 1 < count else panel, c + q * nr * size_of, groups,
                   min(n - q * nr, (count - q) * nr), terms, lo, hi, zero_point, out_flip)
    return gemv
