"""Tiles of the 8-bit GEMM: some rows times a panel of columns, or a part of one, in registers. Ends of a tile:

    "code"   clamp(nearest((first + row + sum) * second) + zero_point) ^ out_flip     XNNPACK's requantisation
    "fixed"  the same with fixed point by second, third instead of the product        LiteRT's (`epilogues.Fixed`, twice)
    "double" the same with float64 scales, in the place of second and third           LiteRT's (`epilogues.Double`)
    "f32"    clamp(fma(f32(sum + row * first) * factor, second, third))               XNNPACK's hybrid products
    "real"   clamp(f32(sum + row * first) * (factor * second) + third)                LiteRT's
    "i32"    first + row + sum, or sum + row * first (hybrid)                          for exact ends outside
    "once", "twice"   clamp(fixed point of (first + sum) by second, third) as int16   LiteRT's 16x8 (`epilogues.Fixed`)
    "double16"        the same with float64 scales                                    LiteRT's 16x8 FULLY_CONNECTED

Codes are made as int8; uint8 ones with out_flip 0x80, and zero_point and bounds 128 less.

`first`, `second` and `third` are numbers of the columns, in front of a panel (ops/simd/gemm_int8.py); `row` and `factor` are
terms of the row: an array of 8 bytes per row, int32 row, float32 factor.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.ops.simd.epilogues import Codes, Double, Fixed, Nearest
from litejit.ops.simd.gemm_f32 import LINE, store_tile
from litejit.ops.simd.overlap import Ends, all_segments, overlapped
from litejit.ops.simd.tiles import half_of, tiles

SIGNS = int(np.array(0x80808080, np.uint32).view(np.int32))
HEADER = 3                                   # vectors of nr lanes in front of a panel's weights
CODES = ("code", "fixed", "double")          # the ends that make bytes
CODES16 = ("once", "twice", "double16")      # and those that make int16
FLOATS = ("f32", "real")                     # and float32


def emit_tile(end: str, quarters: int = 4, rows: bool = False, wide: bool = False, hybrid: bool = False,
              signed: bool = False, range_: str = "") -> Callable[..., None]:
    """Generator of tiles below each other, whole ones or one with fewer rows, of `m` rows in all and up to nr * quarters / 4
    columns (1 and 3 quarters: "code" and FLOATS with AVX-512, where half of a register takes half the time).

    Arguments: a, lda, panel, c, ldc, m, groups, columns, terms, lo, hi, zero_point, out_flip[, segments, offsets]. rows: terms
    of the rows are added; hybrid: they multiply `first`, minus the weights' sum (FLOATS always); lo, hi of FLOATS are bits of
    floats. signed: a is codes of i8 as they lie (VNNI, which wants them less -128), not staged rows. range_: see `range_of` in
    epilogues.py. segments: rows lie in so many pieces of `groups` groups of k: row r begins lda[r] (i64) bytes after a, piece s
    offsets[s] bytes further; otherwise a row is one piece. Then FLOATS have the same terms for all rows; for codes the tile
    sums the rows, factor * (sum - zero), and `terms` is (factor i32, zero i32, a one i8 for every value of a piece, zeros).
    """
    def emit(v: Any, a: Any, lda: Any, panel: Any, c: Any, ldc: Any, m: Any, groups: Any, columns: Any, terms: Any,
             lo: Any, hi: Any, zero_point: Any, out_flip: Any, segments: Any = None, offsets: Any = None) -> None:
        (mr, width), size, summed = tiles(v.cpu).int8, v.cpu.vbytes, rows and segments is not None
        units = _units(v, width * quarters)
        nv, lanes = len(units), sum(unit.lanes for unit in units)
        row = [v.min(v.i(r), v.sub(m, 1)) if r else v.i(0) for r in range(mr)]
        c_rows, weights = [v.mul(ldc, r) for r in row], v.at(panel, HEADER * width * size)
        terms_of = row if segments is None else [v.i(0)] * mr
        every = groups if segments is None else v.mul(groups, segments)
        dots = _dots(units, wide, signed)
        made = _ends(units, end, panel, (width, size), (lo, hi, zero_point, out_flip), range_)

        def products(places: list[Any], ends: Ends = ()) -> list[Any]:
            at, _, terms_at = places
            begins = [v.mul(lda, r) if segments is None else v.load(v.type("i64"), at, v.shl(r, 3), 8) for r in row]
            a_rows = [v.at(at if segments is None else a, begin) for begin in begins]

            def piece(acc: list[Any], weights: Any, moved: Any = None, ends: Ends = ()) -> list[Any]:
                return multiply_groups(v, dots, acc, a_rows, weights, groups, (nv, width),
                                       v.mul(v.add(every, HEADER), width * size), ordered=not v.cpu.dot,
                                       more=v.at(terms, 8) if summed else None, moved=moved, ends=ends)

            def segment(s: Any, acc: list[Any], ends: Ends = ()) -> list[Any]:
                moved = v.load(v.type("i64"), offsets, v.shl(s, 3), 8)
                return piece(acc, v.at(weights, v.mul(v.mul(s, groups), width * size)), moved, ends)
            first = [unit.load(unit.i32, panel, j * size) for j, unit in enumerate(units)]
            acc = [*first, v.zero(v.i32)] * mr if summed else _begun(units, first, terms_of, terms_at, rows, hybrid)
            if segments is None:
                return piece(acc, weights, None, ends)
            acc = all_segments(v, segments, acc, segment, ends)
            return with_sums(units, acc, terms) if rows else acc

        def move(places: list[Any]) -> list[Any]:
            at, c, terms = places
            return [v.at(at, v.mul(lda, mr) if segments is None else 8 * mr), v.at(c, v.mul(ldc, mr)),
                    v.at(terms, 8 * mr) if segments is None and (rows or hybrid) else terms]

        def tile(_: Any, places: list[Any]) -> list[Any]:
            store_tile(v, made(products(places), places[2], terms_of), [v.at(places[1], r) for r in c_rows], columns, *stored)
            return move(places)

        def finish(part: int, places: list[Any], acc: list[Any]) -> None:
            some, each = range(part * together, min(mr, (part + 1) * together)), stored[0]
            for i, x in enumerate(made(acc[some[0] * nv:(some[-1] + 1) * nv], places[2], [terms_of[r] for r in some])):
                v.store(x, v.at(places[1], c_rows[some[i // each]]), i % each * stored[1])
        together, *stored = _stored(units, end)
        places = [a if segments is None else lda, c, terms]
        if end not in ("code", "f32") or quarters < 3 or v.cpu.vbytes < 64:
            v.loop(m, places, tile, step=mr)
            return
        v.either(v.and_(v.icmp(">=", columns, lanes), v.icmp(">", groups, 0)),
                 lambda: overlapped(v, m, mr, -(-mr // together), places, move, products, finish),
                 lambda: v.loop(m, places, tile, step=mr))
    return emit


def _units(v: Any, quarters: int) -> list[Any]:
    """A Vec for each vector of a row of a tile: of full registers, and of half a register if that is left."""
    whole, left = divmod(quarters, 4)
    return [v] * whole + ([v.__class__(v.b, half_of(v.cpu))] if left else [])


def first_lanes(unit: Any, x: Any) -> Any:
    """As many lanes of a register as those of a unit have."""
    return x if x.type.count == unit.lanes else unit.shuffle(x, None, range(unit.lanes))


def _dots(units: list[Any], wide: bool, signed: bool) -> Callable[[list[Any], Any, list[Any]], list[Any]]:
    """dots(accumulators, x, weights) of a row: added products of x with every vector of weights; what is behind those of the
    columns are sums of x."""
    v, nv, alike = units[0], len(units), units.count(units[0])
    (signs,) = v.opaque([v.const(v.i32, SIGNS)]) if signed else (None,)              # LLVM does not end where it knows them

    def dots(accs: list[Any], x: Any, ws: list[Any]) -> list[Any]:
        x = first_lanes(v, x)
        x = v.xor(x, signs) if signed else x
        made = v.dots(accs[:alike], x, ws[:alike], wide)
        made += [unit.dot(acc, first_lanes(unit, x), w) for unit, acc, w in list(zip(units, accs, ws))[alike:]]
        return made + [v.dot(sums, x, ones) for sums, ones in zip(accs[nv:], ws[nv:])]
    return dots


def _stored(units: list[Any], end: str) -> tuple[int, int, int]:
    """(rows that share a register of codes, vectors that a row is stored as, bytes of the first one)."""
    alike, size = units.count(units[0]), units[0].cpu.vbytes
    if end in CODES:
        return 4 // alike if units[0].x86 else 1, len(units) // alike, alike * units[0].lanes
    return 1, len(units), size // 2 if end in CODES16 else size


def _begun(units: list[Any], first: list[Any], row: list[Any], terms: Any, rows: bool, hybrid: bool) -> list[Any]:
    """What the sums of a tile begin with: `first` of the columns, with the terms of the rows."""
    if not (rows or hybrid):
        return first * len(row)
    return [(unit.mul if hybrid else unit.add)(x, unit.isplat(terms, unit.shl(r, 3)))
            for r in row for unit, x in zip(units, first)]


def _ends(units: list[Any], end: str, panel: Any, shape: tuple[int, int], bounds: tuple[Any, ...], range_: str
          ) -> Callable[[list[Any], Any, list[Any]], list[Any]]:
    """made(accumulators, terms, rows) -> what some rows of a tile are stored as; shape: vectors of a panel, their bytes."""
    (lo, hi, zero_point, out_flip), (width, size), v, nv = bounds, shape, units[0], len(units)
    if end in CODES:
        code = [_code(unit, end, panel, shape, j) for j, unit in enumerate(units)]
        of_unit = {unit: Codes(unit, lo, hi, zero_point, out_flip, range_) for unit in units}

        def bytes_of(unit: Any, acc: list[Any]) -> list[Any]:
            mine = [units[i % nv] is unit for i in range(len(acc))]
            return of_unit[unit]([x for x, own in zip(acc, mine) if own], [x for x, own in zip(code, mine) if own])
        return lambda acc, terms, rows: [x for row in zip(*(bytes_of(unit, acc) for unit in of_unit)) for x in row]
    if end in CODES16:
        code = [_code(v, end, panel, shape, j) for j in range(nv)]
        low, high = (v.splat(v.trunc(x, "i32")) for x in (lo, hi))
        return lambda acc, terms, rows: [v.trunc(v.min(v.max(code[i % nv](x), low), high), "i16") for i, x in enumerate(acc)]
    if end not in FLOATS:
        return lambda acc, terms, rows: acc
    numbers = [[unit.load(unit.f32, panel, (at * width + j) * size) for at in (1, 2)] for j, unit in enumerate(units)]
    real = [float_end(unit, end, lo, hi) for unit in units]

    def floats(acc: list[Any], terms: Any, rows: list[Any]) -> list[Any]:
        factor = [unit.fsplat(terms, v.add(v.shl(r, 3), 4)) for r in rows for unit in units]
        return [real[i % nv](x, factor[i], *numbers[i % nv]) for i, x in enumerate(acc)]
    return floats


def with_sums(units: list[Any], acc: list[Any], terms: Any) -> list[Any]:
    """The accumulators with factor * (sum - zero) added, where every row's sum, in all lanes, is behind its accumulators."""
    v, nv, made = units[0], len(units), []
    factor, zero = (v.splat(v.load(v.type("i32"), terms, at), acc[nv].type.count) for at in (0, 4))
    for at in range(0, len(acc), nv + 1):
        term = v.mul(factor, v.sub(acc[at + nv], zero))
        made += [v.add(x, first_lanes(unit, term)) for unit, x in zip(units, acc[at:at + nv])]
    return made


def float_end(v: Any, end: str, lo: Any, hi: Any) -> Callable[[Any, Any, Any, Any], Any]:
    """(accumulators, the row's factor, the columns' second and third numbers) -> what one of the ends FLOATS makes of them."""
    low, high = (v.splat(v.bitcast(v.trunc(x, "i32"), v.type("f32"))) for x in (lo, hi))

    def real(acc: Any, factor: Any, second: Any, third: Any) -> Any:
        x = v.to_float(acc)
        if end == "f32":
            return v.clamp(v.fma(v.fmul(x, factor), second, third), low, high)
        return v.clamp(v.fadd(v.fmul(x, v.fmul(factor, second)), third), low, high)
    return real


def _code(v: Any, end: str, panel: Any, shape: tuple[int, int], j: int) -> Callable[[Any], Any]:
    """What makes codes of the accumulators of vector j; shape: vectors of a panel, their bytes."""
    width, size = shape
    if end in ("double", "double16"):
        return Double(v, v.load(v.type("f64", v.lanes), panel, (width + 2 * j) * size))
    if end != "code":
        return Fixed(v, end != "once", *(v.load(v.i32, panel, (at * width + j) * size) for at in (1, 2)))
    return Nearest(v, v.load(v.f32, panel, (width + j) * size))


def multiply_groups(v: Any, dots: Callable[..., list[Any]], acc: list[Any], rows: list[Any], weights: Any, groups: Any,
                    shape: tuple[int, int], panel: Any, ordered: bool = False, more: Any = None, moved: Any = None,
                    ends: Ends = ()) -> list[Any]:
    """Add the products of all groups of k; shape: vectors in use, vectors of a panel; more: address of weights of all columns;
    moved: bytes from the addresses `rows` to their values; ends: done before the rows' first products (ops/simd/overlap.py), of
    which there must be some then.

    dots(accumulators, x, weights) adds the products of x with each of some vectors. The same weights of the next panel, `panel`
    bytes further, are asked for, unless this one is not full, and so the last one. ordered: `dots` makes all products first, so
    that two steps would not fit few registers.
    """
    (nv, width), size, each = shape, v.cpu.vbytes, len(acc) // len(rows)
    full = nv == width and acc[nv - 1].type == acc[0].type

    def steps(times: int, ends: Ends = ()) -> Callable[..., list[Any]]:
        together = -(-len(rows) // max(len(ends), 1))

        def body(i: Any, acc: list[Any]) -> list[Any]:
            at, at_w = v.shl(i, 2), v.mul(i, width * size)
            at_a = at if moved is None else v.opaque([v.add(moved, at)])[0]     # or LLVM adds `moved` to every row
            for line in range(0, times * width * size if full else 0, LINE):
                v.prefetch(weights, v.add(v.add(at_w, panel), line))
            for t in range(times):
                w = [v.load(v.type("i32", acc[j].type.count), weights, v.add(at_w, (t * width + j) * size)) for j in range(nv)]
                w += [] if more is None else [v.isplat(more, v.add(at, 4 * t))]
                made = []
                for r, row in enumerate(rows):
                    if ends and r % together == 0:
                        ends[r // together]()
                    x = v.isplat(row, v.add(at_a, 4 * t))
                    made += dots(acc[r * each:(r + 1) * each], x, w)
                acc = made
            return acc
        return body
    first = 1 if ends else 0
    acc = steps(1, ends)(v.i(0), acc) if ends else acc
    if v.cpu.nregs < 32 and ordered:
        return v.loop(groups, acc, steps(1), start=first)
    whole = v.add(v.and_(v.sub(groups, first), -2), first)
    acc = v.loop(whole, acc, steps(2), step=2, start=first)
    return v.loop(groups, acc, steps(1), start=whole)
