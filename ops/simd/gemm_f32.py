"""float32 GEMM: C[m, n] = clamp(A[m, k] @ B[k, n] + bias[n]) on packed panels.

B is packed once (`pack_f32`) into panels of `nr` columns, each [bias nr][k][nr], zero padded. acc = bias, then one fused
multiply-add per k in order: XNNPACK's numbers where the CPU has it.

    gemm_f32(a, lda, panels, c, ldc, m, k, n, block, lo, hi, other)    any number of rows, `lda` bytes apart
    gemv_f32(a, panels, c, k, n, lo, hi)                               one row
    panel_gemm_f32(a, lda, panel, c, ldc, m, k, columns, tall, lo, hi) few rows, one panel; tall from `tall_rows`
    table_gemm_f32(table, segments, moved, panels, c, ldc, m, ...)     rows in pieces found through a table
    segment_gemm_f32(tile, last_tile, a, starts, segments, offsets, ...)   rows in pieces, at the same offsets in every row

are device functions on the same panels; strides in bytes, block from `row_block`. other: what is added to C before it is
clamped lies so many bytes after C; 0: nothing. A part of the columns is computed by
starting at a later panel: panel q begins q * nr * (k + 1) * 4 bytes after the first.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import device, micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress, MicroKernel
from litejit.ops.simd.overlap import Ends, all_segments, overlapped
from litejit.ops.simd.tiles import f32_columns, f32_halves, f32_rows, tile_shape, tiles
from litejit.planner.constants import roomy

BLOCK_BYTES = 1 << 17             # rows of A that stay in L2 while all panels pass
UNROLL = 2
LINE = 64                         # bytes of a cache line


# ---- packing -----------------------------------------------------------------------------------

def panel_columns(cpu: Cpu) -> int:
    """Columns of a panel: nr."""
    return tile_shape(cpu, "f32")[1]


def pack_f32(cpu: Cpu, weights: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """weights [n, k], bias [n] or None -> float32 panels [ceil(n / nr), k + 1, nr]."""
    nr, (n, k) = panel_columns(cpu), weights.shape
    whole = np.zeros((-(-n // nr) * nr, k + 1), np.float32)
    whole[:n, 1:] = weights
    if bias is not None:
        whole[:n, 0] = bias
    made = roomy((len(whole) // nr, k + 1, nr), np.float32)
    made[...] = whole.reshape(-1, nr, k + 1).transpose(0, 2, 1)
    return made


def row_block(cpu: Cpu, k: int, m: int = 0) -> int:
    """Rows that pass one panel before the next panel is taken: whole tiles that fit the cache beside it; m: in even parts."""
    rows = tiles(cpu).f32[0]
    most = max(1, min(16, BLOCK_BYTES // max(1, 4 * k * rows)))
    count = -(-m // rows)
    return (-(-count // -(-count // most)) if count else most) * rows


# ---- generators --------------------------------------------------------------------------------

def tall_rows(cpu: Cpu) -> int:
    """Rows of the tallest tile: with AVX-512 one more than usual, elsewhere the registers are full."""
    return tiles(cpu).f32[0] + (cpu.vbytes == 64)


def usual_rows(cpu: Cpu) -> int:
    """Rows of a tile."""
    return tiles(cpu).f32[0]


def emit_tile(kind: str, quarters: int = 4, rows_of: Callable[[Cpu], int] = usual_rows,
              times: Callable[..., list[Any]] | None = None, overlap: bool = True) -> Callable[..., None]:
    """Generator of tiles below each other, of whole tiles or of one with fewer rows, and up to nr * quarters / 4 columns.

    "rows": rows as they lie, (a, lda, panel, c, ldc, m, k, columns, lo, hi[, other]). "table": (table, segments, ..., moved),
    each row's piece of k values lies `moved` bytes after the address at table[tile][segment][row of the tile]. "segments":
    (a, starts, ..., segments, offsets), row r begins starts[r] (i64) bytes after a, its piece s offsets[s] bytes further. m: a
    multiple of a tile's rows, or less than those of one. times: what adds the products, if not `multiply`. overlap: see
    ops/simd/overlap.py; without, code compiles in half the time.
    """
    def emit(v: Any, a: Any, lda: Any, panel: Any, c: Any, ldc: Any, m: Any, k: Any, columns: Any, lo: Any,
             hi: Any, other: Any = None, offsets: Any = None) -> None:
        mr, width = rows_of(v.cpu), tiles(v.cpu).f32[1]
        size, pitch = v.cpu.vbytes, width * v.cpu.vbytes
        types = _vectors(v, width * v.lanes * quarters // 4)
        nv, bounds = len(types), [(v.splat(lo, ty.count), v.splat(hi, ty.count)) for ty in types]
        row = [v.min(v.i(r), v.sub(m, 1)) if r else v.i(0) for r in range(mr)]
        c_rows, weights = [v.mul(ldc, r) for r in row], v.at(panel, pitch)
        a_rows = [v.mul(lda, r) for r in row] if kind == "rows" else []
        down = 8 * mr if kind == "segments" else v.mul(lda, 8 * mr if kind == "table" else mr)

        def products(places: list[Any], ends: Ends = ()) -> list[Any]:
            here, acc = places[0], [v.load(ty, panel, j * size) for j, ty in enumerate(types)] * mr
            if kind == "rows":
                return (times or multiply)(v, acc, [v.at(here, r) for r in a_rows], weights, pitch, k, nv,
                                           v.mul(v.add(k, 1), pitch), ends=ends)
            at = [v.at(a, v.load(v.type("i64"), here, v.shl(r, 3), 8)) for r in row] if kind == "segments" else []
            segments = lda if kind == "table" else other
            whole = v.mul(v.add(v.mul(segments, k), 1), pitch)

            def segment(s: Any, acc: list[Any], ends: Ends = ()) -> list[Any]:
                place, pieces, moved = v.at(weights, v.mul(v.mul(s, k), pitch)), at, None
                if kind == "table":
                    pieces = [v.at(v.load(v.type("ptr"), here, v.add(v.mul(s, 8 * mr), 8 * r), 8), other) for r in range(mr)]
                else:
                    moved = v.load(v.type("i64"), offsets, v.shl(s, 3), 8)
                return multiply(v, acc, pieces, place, pitch, k, nv, whole, moved, ends)
            return all_segments(v, segments, acc, segment, ends)

        def move(places: list[Any]) -> list[Any]:
            return [v.at(places[0], down), v.at(places[1], v.mul(ldc, mr))]

        def tile(_: Any, places: list[Any]) -> list[Any]:
            rows, acc = [v.at(places[1], r) for r in c_rows], products(places)
            if residual:
                acc = v.choose(v.icmp("==", other, 0), lambda: acc, lambda: [
                    v.fadd(x, v.load(x.type, v.at(rows[i // nv], other), i % nv * size)) for i, x in enumerate(acc)])
            store_tile(v, [v.clamp(x, *bounds[i % nv]) for i, x in enumerate(acc)], rows, columns, nv, size)
            return move(places)

        def finish(r: int, places: list[Any], acc: list[Any]) -> None:
            for j, x in enumerate(acc[r * nv:(r + 1) * nv]):
                v.store(v.clamp(x, *bounds[j]), v.at(places[1], c_rows[r]), j * size)
        residual, places = kind == "rows" and other is not None, [lda if kind == "segments" else a, c]
        if not overlap or v.cpu.vbytes < 64:
            v.loop(m, places, tile, step=mr)
            return
        fits = v.and_(v.icmp(">=", columns, sum(ty.count for ty in types)), v.icmp(">", k, 0))
        v.either(v.and_(fits, v.icmp("==", other, 0)) if residual else fits,
                 lambda: overlapped(v, m, mr, mr, places, move, products, finish), lambda: v.loop(m, places, tile, step=mr))
    return emit


def _vectors(v: Any, columns: int) -> list[Any]:
    """Types of the vectors that hold so many columns; where the CPU halves its registers, half of one takes half the time."""
    whole, left = divmod(columns, v.lanes)
    return [v.f32] * whole + ([v.type("f32", left)] if left else [])


def multiply(v: Any, acc: list[Any], rows: list[Any], weights: Any, pitch: int, k: Any, nv: int, panel: Any,
             moved: Any = None, ends: Ends = ()) -> list[Any]:
    """acc[r][j] += rows[r][0:k] * weights[0:k][j], the weights of one k `pitch` bytes apart.

    The same weights of the next panel, `panel` bytes further, are asked for: all rows wait for the first use of a panel.
    moved: bytes from the addresses `rows` to their values. ends: done before the rows' first products (ops/simd/overlap.py), of
    which there must be some then.
    """
    size, mixed = v.cpu.vbytes, v.x86 and acc[nv - 1].type != acc[0].type

    def steps(times: int, ends: Ends = ()) -> Callable[..., list[Any]]:
        def body(i: Any, acc: list[Any]) -> list[Any]:
            at_a, at_b = v.shl(i, 2), v.mul(i, pitch)
            if moved is not None:
                (at_a,) = v.opaque([v.add(moved, at_a)])         # or LLVM adds `moved` to the address of every row
            (again,) = v.opaque([at_a]) if mixed else (at_a,)    # or LLVM would load once for both: 12 cycles of a tile, not 11
            for line in range(0, times * pitch, LINE):
                v.prefetch(weights, v.add(v.add(at_b, panel), line))
            for t in range(times):
                b = [v.load(acc[j].type, weights, v.add(at_b, t * pitch + j * size)) for j in range(nv)]
                made = []
                for r, row in enumerate(rows):
                    if ends:
                        ends[r]()
                    x = v.load(v.type("f32"), row, v.add(at_a, 4 * t), 4)
                    z = v.load(v.type("f32"), row, v.add(again, 4 * t), 4) if mixed else x
                    made += [v.fma(v.splat(x if y.type == v.f32 else z, y.type.count), y, acc[r * nv + j])
                             for j, y in enumerate(b)]
                acc = made
            return acc
        return body
    first = 1 if ends else 0
    acc = steps(1, ends)(v.i(0), acc) if ends else acc
    whole = v.add(v.and_(v.sub(k, first), -UNROLL), first)
    acc = v.loop(whole, acc, steps(UNROLL), step=UNROLL, start=first)
    return v.loop(k, acc, steps(1), start=whole)


def store_tile(v: Any, acc: list[Any], rows: list[Any], columns: Any, nv: int, size: int) -> None:
    """Write the rows of a tile, vectors `size` bytes apart: whole, or under masks where fewer columns are left."""
    lanes = acc[0].type.count

    def whole() -> None:
        for r, row in enumerate(rows):
            for j in range(nv):
                v.store(acc[r * nv + j], row, j * size)

    def partly() -> None:
        masks = [v.mask(acc[j].type.count, v.sub(columns, j * lanes)) for j in range(nv)]
        for r, row in enumerate(rows):
            for j in range(nv):
                v.mstore(acc[r * nv + j], row, masks[j], j * size)
    v.either(v.icmp(">=", columns, sum(x.type.count for x in acc[:nv])), whole, partly)


def emit_vector(lane: Callable[[Any, Any, Any], Callable[..., Any]]) -> Callable[..., None]:
    """Generator of one row times two panels side by side (enough chains to hide the latency); `columns` of both together.

    lane(v, a, offset) -> what adds to a register of sums the products of 32 bits of the row and of the weights at an address.
    """
    def emit(v: Any, a: Any, first: Any, second: Any, c: Any, k: Any, columns: Any, lo: Any, hi: Any) -> None:
        nv, size = tiles(v.cpu).f32[1], v.cpu.vbytes
        panels = [(panel, j * size) for panel in (first, second) for j in range(nv)]

        def body(i: Any, acc: list[Any]) -> list[Any]:
            add, at = lane(v, a, v.shl(i, 2)), v.mul(v.add(i, 1), nv * size)
            return [add(x, panel, v.add(at, moved)) for x, (panel, moved) in zip(acc, panels)]
        acc = v.loop(k, [v.load(v.f32, panel, moved) for panel, moved in panels], body)
        low, high = v.splat(lo), v.splat(hi)
        store_tile(v, [v.clamp(x, low, high) for x in acc], [c], columns, 2 * nv, size)
    return emit


def emit_scale(v: Any, panel: Any, scale: Any, out: Any, k: Any, factor: Any) -> None:
    """Generator of a panel with its rows of weights times scale[row] * factor; the bias in front stays as it is."""
    nv, size = tiles(v.cpu).f32[1], v.cpu.vbytes
    for j in range(nv):
        v.store(v.load(v.f32, panel, j * size), out, j * size)

    def row(i: Any, moved: list[Any]) -> list[Any]:
        source, to = (v.at(x, nv * size) for x in moved)
        by = v.splat(v.fmul(v.load(v.type("f32"), scale, v.shl(i, 2), 4), factor))
        for j in range(nv):
            v.store(v.fmul(v.load(v.f32, source, j * size), by), to, j * size)
        return [source, to]
    v.loop(k, [panel, out], row)


def _float_lane(v: Any, a: Any, at: Any) -> Callable[..., Any]:
    x = v.fsplat(a, at)
    return lambda acc, panel, offset: v.fma(x, v.load(v.f32, panel, offset), acc)


_tile = micro_kernel("gemm_f32", "pippiiiiffi", emit_tile("rows"))
_less = micro_kernel("gemm_f32_less", "pippiiiiffi", emit_tile("rows", 4, lambda cpu: usual_rows(cpu) - 1))
_tile_narrow = micro_kernel("gemm_f32_narrow", "pippiiiiffi", emit_tile("rows", 2))
_tile_quarter = micro_kernel("gemm_f32_quarter", "pippiiiiffi", emit_tile("rows", 1, overlap=False))
_tile_three = micro_kernel("gemm_f32_three", "pippiiiiffi", emit_tile("rows", 3))
_tall = micro_kernel("gemm_f32_tall", "pippiiiiff", emit_tile("rows", 4, tall_rows, overlap=False))
_short = micro_kernel("gemm_f32_short", "pippiiiiff", emit_tile("rows", 4, lambda cpu: tall_rows(cpu) - 1, overlap=False))
_table = micro_kernel("gemm_f32_table", "pippiiiiffi", emit_tile("table", overlap=False))
_table_narrow = micro_kernel("gemm_f32_table_narrow", "pippiiiiffi", emit_tile("table", 2, overlap=False))
SEGMENT_ARGUMENTS = "ppppiiiiffip"
_MARKS = {4: "", 3: "_three", 2: "_narrow", 1: "_quarter"}             # by quarters of a panel
_SEGMENTS = {quarters: micro_kernel("gemm_f32_segments" + mark, SEGMENT_ARGUMENTS, emit_tile(
    "segments", quarters, overlap=quarters > 1)) for quarters, mark in _MARKS.items()}
_vector = micro_kernel("gemv_f32", "ppppiiff", emit_vector(_float_lane))
scale_panel_f32 = micro_kernel("scale_panel_f32", "pppif", emit_scale)


# ---- device functions --------------------------------------------------------------------------

def rows_in(tile: MicroKernel) -> Any:
    """Device function: all rows of one panel in tiles of one kind."""
    @device
    def rows(a, lda, panel, c, ldc, m, k, columns, lo, hi, other):
        whole = m // f32_rows() * f32_rows()
        tile(a, lda, panel, c, ldc, whole, k, columns, lo, hi, other)
        if whole < m:
            tile(a + whole * lda, lda, panel, c + whole * ldc, ldc, m - whole, k, columns, lo, hi, other)
    return rows


def segment_tiles(cpu: Cpu, n: int) -> tuple[MicroKernel, MicroKernel]:
    """(the tiles of "segments" for panels of n columns, those for the last panel)."""
    nr, halves = panel_columns(cpu), cpu.vbytes == 64                  # whether half a register takes half the time
    left = n - (n - 1) // nr * nr
    last = min(quarters for quarters in _SEGMENTS if 4 * left <= quarters * nr and (halves or quarters % 2 == 0))
    return _SEGMENTS[last if n <= nr else 4], _SEGMENTS[last]


_quarter, _narrow, _three = rows_in(_tile_quarter), rows_in(_tile_narrow), rows_in(_tile_three)


@device
def gemm_f32(a, lda, panels, c, ldc, m, k, n, block, lo, hi, other):
    """C = clamp(A @ B + bias + other): m rows of A, all panels of B; every panel is read once per `block` rows.

    Where the rows are no multiple of a tile's, some tiles have a row less.
    """
    mr, nr = f32_rows(), f32_columns()
    size, narrow = (k + 1) * nr * 4, (n + nr // 2 - 1) // nr          # that panel is at most half full
    for top in range(0, m, block):
        end = min(m, top + block)
        tall = max(0, end - top - (end - top + mr - 1) // mr * (mr - 1)) * mr     # rows in tiles of mr, the first ones
        less = (end - top - tall) // (mr - 1) * (mr - 1)
        for q in range((n + nr - 1) // nr):
            panel, here, there, columns = panels + q * size, a + top * lda, c + top * ldc + q * nr * 4, n - q * nr
            if 4 * columns <= nr and f32_halves() != 0:
                _quarter(here, lda, panel, there, ldc, end - top, k, columns, lo, hi, other)
                continue
            if q == narrow:
                _narrow(here, lda, panel, there, ldc, end - top, k, columns, lo, hi, other)
                continue
            if 4 * columns <= 3 * nr and f32_halves() != 0:
                _three(here, lda, panel, there, ldc, end - top, k, columns, lo, hi, other)
                continue
            if tall > 0:
                _tile(here, lda, panel, there, ldc, tall, k, columns, lo, hi, other)
                here, there = here + tall * lda, there + tall * ldc
            if less > 0:
                _less(here, lda, panel, there, ldc, less, k, columns, lo, hi, other)
            left = end - top - tall - less
            if left > 0:
                _less(here + less * lda, lda, panel, there + less * ldc, ldc, left, k, columns, lo, hi, other)


@device
def panel_gemm_f32(a, lda, panel, c, ldc, m, k, columns, tall, lo, hi):
    """C = clamp(A @ B + bias) for one panel and few rows: tiles of `tall_rows` rows and of one less, so that they fit."""
    if 2 * columns <= f32_columns():
        _narrow(a, lda, panel, c, ldc, m, k, columns, lo, hi, 0)
        return
    rows = max(0, m - (m + tall - 1) // tall * (tall - 1)) * tall
    less = (m - rows) // (tall - 1) * (tall - 1)
    if rows > 0:
        _tall(a, lda, panel, c, ldc, rows, k, columns, lo, hi)
    if less > 0:
        _short(a + rows * lda, lda, panel, c + rows * ldc, ldc, less, k, columns, lo, hi)
    rows += less
    if rows < m:
        _short(a + rows * lda, lda, panel, c + rows * ldc, ldc, m - rows, k, columns, lo, hi)


@device
def gemv_f32(a, panels, c, k, n, lo, hi):
    """c = clamp(a @ B + bias) for one row."""
    nr = f32_columns()
    size = (k + 1) * nr * 4
    wide = (n + nr // 2 - 1) // nr
    for q in range(0, wide, 2):
        first = panels + q * size
        _vector(a, first, first + size if q + 1 < wide else first, c + q * nr * 4, k,
                min(n - q * nr, (wide - q) * nr), lo, hi)
    if wide * nr < n:
        _tile_narrow(a, 0, panels + wide * size, c + wide * nr * 4, 0, 1, k, n - wide * nr, lo, hi, 0)


@device
def table_gemm_f32(table, segments, moved, panels, c, ldc, m, k, n, lo, hi):
    """As gemm_f32 with the rows in `segments` pieces of k values, `moved` bytes after table[tile][segment][row of the tile].

    Rows past the last one of the last tile must be in the table too (any valid address).
    """
    mr, nr = f32_rows(), f32_columns()
    size, whole = (segments * k + 1) * nr * 4, m // mr * mr
    rest, below = table + whole * segments * 8, c + whole * ldc
    narrow = (n + nr // 2 - 1) // nr
    for q in range((n + nr - 1) // nr):
        panel, columns = panels + q * size, n - q * nr
        if q == narrow:
            _table_narrow(table, segments, panel, c + q * nr * 4, ldc, whole, k, columns, lo, hi, moved)
            if whole < m:
                _table_narrow(rest, segments, panel, below + q * nr * 4, ldc, m - whole, k, columns, lo, hi, moved)
        else:
            _table(table, segments, panel, c + q * nr * 4, ldc, whole, k, columns, lo, hi, moved)
            if whole < m:
                _table(rest, segments, panel, below + q * nr * 4, ldc, m - whole, k, columns, lo, hi, moved)


_segments_of = ByAddress(SEGMENT_ARGUMENTS)


@device
def segment_gemm_f32(tile, last_tile, a, starts, segments, offsets, panels, c, ldc, m, k, n, lo, hi):
    """As gemm_f32 with the rows in `segments` pieces of k values: row r begins starts[r] (i64) bytes after a, its piece s
    offsets[s] bytes further. All rows pass a panel at once; tile, last_tile: see `segment_tiles`.
    """
    mr, nr = f32_rows(), f32_columns()
    size, whole, count = (segments * k + 1) * nr * 4, m // mr * mr, (n + nr - 1) // nr
    rest, down = starts + 8 * whole, whole * ldc
    for q in range(count):
        this, panel, to, left = last_tile if q == count - 1 else tile, panels + q * size, c + q * nr * 4, n - q * nr
        if whole > 0:
            _segments_of(this, a, starts, panel, to, ldc, whole, k, left, lo, hi, segments, offsets)
        if whole < m:
            _segments_of(this, a, rest, panel, to + down, ldc, m - whole, k, left, lo, hi, segments, offsets)
