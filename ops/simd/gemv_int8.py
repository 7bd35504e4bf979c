"""One row times the panels of ops/simd/gemm_int8.py, with the same ends "code", "f32" and "real": bound by reading the panels.

Panels lie one after the other, so that the weights are one stream; four groups of k at a time, in accumulators of their
own, are enough chains to hide the latency. Weights are bytes in memory on every CPU: where products are of int16, they are
widened on the way, which costs less than reading twice as much. Those of 4 bits stay nibbles.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litejit.compiler import device, micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress, MicroKernel
from litejit.ops.simd.gemm_f32 import store_tile
from litejit.ops.simd.gemm_int8 import PAIR
from litejit.ops.simd.nibbles import STEP, unpacked
from litejit.ops.simd.stage_int8 import k_group
from litejit.ops.simd.tile_int8 import FLOATS, HEADER, float_end
from litejit.ops.simd.tiles import int8_columns, tiles

CHAINS = 4
AHEAD = 4096                          # bytes that are asked for before they are widened: the CPU keeps less in flight


def emit_vector(end: str, rows: bool, held: str = "") -> Callable[..., None]:
    """Generator: (a, panel, c, groups, columns, terms, lo, hi, zero_point, out_flip).

    rows: the row's term is added (FLOATS: it multiplies the first numbers of columns). held: how weights lie in panels:
    bytes, "wide" (as for tiles, of int16 where the CPU has no dot product), "nibbles" (whole `PAIR`s).
    """
    def emit(v: Any, a: Any, panel: Any, c: Any, groups: Any, columns: Any, terms: Any, lo: Any, hi: Any,
             zero_point: Any, out_flip: Any) -> None:
        nv, size = tiles(v.cpu).int8[1], v.cpu.vbytes
        step = size if held or v.cpu.dot else size // 2                          # bytes of a vector of weights
        per = STEP // v.group if held == "nibbles" else 1                        # groups in it

        def header(ty: Any, at: int) -> list[Any]:
            return [v.load(ty, panel, (at * nv + j) * size) for j in range(nv)]

        def group(i: Any, acc: list[Any], t: int = 0) -> list[Any]:
            x, at = v.isplat(a, v.add(v.shl(i, 2), 4 * t)), v.add(v.mul(i, nv * step // per), HEADER * nv * size)
            return [v.dot(acc[j], x, weights(v.add(at, (t // per * nv + j) * step), t % per)) for j in range(nv)]

        def weights(at: Any, t: int) -> Any:
            if step == size:
                x = v.load(v.i32, panel, at)
                return x if per == 1 else unpacked(v, x, t)
            return v.bitcast(v.sext(v.load(v.type("i8", step), panel, at), "i16"), v.i32)

        def chains(i: Any, acc: list[Any]) -> list[Any]:
            if step < size:
                ahead = v.add(v.mul(i, nv * step), HEADER * nv * size + AHEAD)
                for line in range(0, CHAINS * nv * step, 64):
                    v.prefetch(panel, v.add(ahead, line))
            return [y for t in range(CHAINS) for y in group(i, acc[t * nv:(t + 1) * nv], t)]
        begin = header(v.i32, 0)
        if rows or end in FLOATS:
            term = v.isplat(terms)
            begin = [v.mul(x, term) if end in FLOATS else v.add(x, term) for x in begin]
        whole, zeros = v.and_(groups, -CHAINS), [v.zero(v.i32)] * nv
        parts = v.loop(whole, (begin if per == 1 else zeros) + zeros * (CHAINS - 1), chains, step=CHAINS)
        acc = list(parts[:nv])
        for t in range(1, CHAINS):
            acc = [v.add(x, y) for x, y in zip(acc, parts[t * nv:(t + 1) * nv])]
        acc = v.loop(groups, acc, group, start=whole) if per == 1 else acc
        if per > 1:
            acc = [v.add(v.ashr(x, 4) if per == 2 else x, y) for x, y in zip(acc, begin)]
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


def _vector(end: str, rows: bool, held: str) -> MicroKernel:
    marks = "".join(f"_{mark}" for mark in ("rows" if rows else "", held) if mark)
    return micro_kernel(f"gemv_int8_{end}{marks}", _ARGS, emit_vector(end, rows, held))


_VECTORS = {kind: _vector(*kind) for kind in (
    *((end, False, held) for end in FLOATS for held in ("", "nibbles")),
    ("code", False, ""), ("code", False, "wide"), ("code", False, "nibbles"), ("code", True, ""), ("code", True, "wide"))}
VECTOR = [(name, "i8") for name in ("vector", "k_step", "step_groups", "term_bytes", "out_bytes")]
"""Fields of kernels that multiply by `make_gemv`: the micro-kernel, values of k of which a panel has whole multiples, groups in
them, bytes of the row's term (0: none) and of an output."""


def vector_params(cpu: Cpu, end: str, rows: bool = False, narrow: int = 8) -> dict[str, Any]:
    """Values of the fields VECTOR for an end; narrow: bits of a weight in the panels, 0: as for tiles."""
    held = {8: "", 4: "nibbles", 0: "" if cpu.dot else "wide"}[narrow]
    step = PAIR if narrow == 4 else k_group(cpu)
    return {"vector": _VECTORS[end, rows, held],
            "k_step": step, "step_groups": step // k_group(cpu), "term_bytes": 8 if rows or end in FLOATS else 0,
            "out_bytes": 4 if end in FLOATS else 1}


def make_gemv() -> Any:
    """Device function (p, staged, panels, c, k, n, terms, lo, hi, zero_point, out_flip): all panels past one staged row; p: a
    record with the fields VECTOR and `column_bytes`, of which every kind has a function of its own."""
    run = ByAddress(_ARGS)

    @device
    def gemv(p, staged, panels, c, k, n, terms, lo, hi, zero_point, out_flip):
        nr, groups = int8_columns(), (k + p.k_step - 1) // p.k_step * p.step_groups
        size = p.column_bytes * nr
        for q in range((n + nr - 1) // nr):
            run(p.vector, staged, panels + q * size, c + q * nr * p.out_bytes, groups, n - q * nr, terms, lo, hi, zero_point,
                out_flip)
    return gemv
