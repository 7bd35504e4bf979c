"""One row times the panels of ops/simd/gemm_int8.py, with the same ends "code", "f32" and "real": bound by reading the panels.

Panels lie one after the other, so that the weights are one stream; four groups of k at a time, in accumulators of their
own, are enough chains to hide the latency. Weights are bytes in memory on every CPU: where products are of int16, they are
widened on the way, which costs less than reading twice as much.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litejit.compiler import device, micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress, MicroKernel
from litejit.ops.simd.gemm_f32 import store_tile
from litejit.ops.simd.gemm_int8 import FLOATS, HEADER, float_end, int8_group, k_group
from litejit.ops.simd.tiles import int8_columns, tiles

CHAINS = 4
AHEAD = 4096                          # bytes that are asked for before they are widened: the CPU keeps less in flight


def emit_vector(end: str, rows: bool, wide: bool = False) -> Callable[..., None]:
    """Generator: (a, panel, c, groups, columns, terms, lo, hi, zero_point, out_flip).

    rows: the row's term is added (FLOATS: it multiplies the first numbers of columns). wide: panels as the tiles have
    them, of int16 where the CPU has no dot product.
    """
    def emit(v: Any, a: Any, panel: Any, c: Any, groups: Any, columns: Any, terms: Any, lo: Any, hi: Any,
             zero_point: Any, out_flip: Any) -> None:
        nv, size = tiles(v.cpu).int8[1], v.cpu.vbytes
        step = size if wide or v.cpu.dot else size // 2                          # bytes of a vector of weights

        def header(ty: Any, at: int) -> list[Any]:
            return [v.load(ty, panel, (at * nv + j) * size) for j in range(nv)]

        def group(i: Any, acc: list[Any]) -> list[Any]:
            x, at = v.isplat(a, v.shl(i, 2)), v.add(v.mul(i, nv * step), HEADER * nv * size)
            return [v.dot(acc[j], x, weights(v.add(at, j * step))) for j in range(nv)]

        def weights(at: Any) -> Any:
            if step == size:
                return v.load(v.i32, panel, at)
            return v.bitcast(v.sext(v.load(v.type("i8", step), panel, at), "i16"), v.i32)

        def chains(i: Any, acc: list[Any]) -> list[Any]:
            if step < size:
                ahead = v.add(v.mul(i, nv * step), HEADER * nv * size + AHEAD)
                for line in range(0, CHAINS * nv * step, 64):
                    v.prefetch(panel, v.add(ahead, line))
            return [y for t in range(CHAINS) for y in group(v.add(i, t), acc[t * nv:(t + 1) * nv])]
        acc = header(v.i32, 0)
        if rows or end in FLOATS:
            term = v.isplat(terms)
            acc = [v.mul(x, term) if end in FLOATS else v.add(x, term) for x in acc]
        whole = v.and_(groups, -CHAINS)
        parts = v.loop(whole, acc + [v.zero(v.i32)] * ((CHAINS - 1) * nv), chains, step=CHAINS)
        acc = list(parts[:nv])
        for t in range(1, CHAINS):
            acc = [v.add(x, y) for x, y in zip(acc, parts[t * nv:(t + 1) * nv])]
        acc = v.loop(groups, acc, group, start=whole)
        second = header(v.f32, 1)
        if end in FLOATS:
            real, factor = float_end(v, end, lo, hi), v.fsplat(terms, 4)
            made = [real(x, factor, s, t) for x, s, t in zip(acc, second, header(v.f32, 2))]
            store_tile(v, made, [c], columns, nv, size)
            return
        low, high = (v.splat(v.to_float(v.trunc(v.sub(x, zero_point), "i32"))) for x in (lo, hi))
        zero, flip = v.splat(v.trunc(zero_point, "i32")), v.splat(v.trunc(out_flip, "i8"), v.lanes)
        made = [v.xor(v.trunc(v.add(v.nearest(v.clamp(v.fmul(v.to_float(x), s), low, high)), zero), "i8"), flip)
                for x, s in zip(acc, second)]
        store_tile(v, made, [c], columns, nv, v.lanes)
    return emit


_ARGS = "pppiipiiii"


def _vector(end: str, rows: bool, wide: bool) -> MicroKernel:
    marks = "".join(f"_{mark}" for mark, on in (("rows", rows), ("wide", wide)) if on)
    return micro_kernel(f"gemv_int8_{end}{marks}", _ARGS, emit_vector(end, rows, wide))


_VECTORS = {kind: _vector(*kind) for kind in (*((end, False, False) for end in FLOATS), *(
    ("code", rows, wide) for rows in (False, True) for wide in (False, True)))}
VECTOR = [(name, "i8") for name in ("vector", "lane_bytes", "term_bytes", "out_bytes")]
"""Fields of kernels that multiply by `make_gemv`: the micro-kernel, bytes of the weights of a lane, of the row's term (0: none)
and of an output."""


def vector_params(cpu: Cpu, end: str, rows: bool = False, wide: bool = False) -> dict[str, Any]:
    """Values of the fields VECTOR for an end."""
    return {"vector": _VECTORS[end, rows, wide],
            "lane_bytes": 4 if wide else k_group(cpu), "term_bytes": 8 if rows or end in FLOATS else 0,
            "out_bytes": 4 if end in FLOATS else 1}


def make_gemv() -> Any:
    """Device function (p, staged, panels, c, k, n, terms, lo, hi, zero_point, out_flip): all panels past one staged row; p: a
    record with the fields VECTOR, of which every kind has a function of its own."""
    run = ByAddress(_ARGS)

    @device
    def gemv(p, staged, panels, c, k, n, terms, lo, hi, zero_point, out_flip):
        nr, group = int8_columns(), int8_group()
        groups = (k + group - 1) // group
        size, count = (HEADER * 4 + groups * p.lane_bytes) * nr, (n + nr - 1) // nr
        for q in range(count):
            run(p.vector, staged, panels + q * size, c + q * nr * p.out_bytes, groups, n - q * nr, terms, lo, hi, zero_point,
                out_flip)
    return gemv
