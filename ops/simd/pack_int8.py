"""Panels of ops/simd/gemm_int8.py from matrices that only the run knows: interleaved, or transposed, and summed, in vectors."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, micro_kernel
from litejit.compiler.primitives import store_i8, store_i16
from litejit.ops.simd.moves import TRANSPOSE
from litejit.ops.simd.stage_int8 import int8_group, stage, stage_bytes
from litejit.ops.simd.tile_int8 import HEADER
from litejit.ops.simd.tiles import int8_columns, tiles

_transpose = TRANSPOSE[4]


def _ones(v: Any) -> Any:
    """Activations of one in all lanes."""
    return v.const(v.i32, 0x01010101 if v.cpu.dot else 0x00010001)


def _store_first(v: Any, sums: list[Any], panel: Any, offset: Any) -> None:
    factor = v.splat(v.sub(v.const(v.type("i32"), 0), v.trunc(offset, "i32")))
    for j, total in enumerate(sums):
        v.store(v.mul(total, factor), panel, j * v.cpu.vbytes)


def emit_interleave(v: Any, w: Any, step: Any, panel: Any, k: Any, offset: Any) -> None:
    """The weights of a panel from k rows of bytes `step` apart, and -offset times the columns' sums as its first numbers.

    Whole vectors are read, whatever lies behind the columns of the matrix.
    """
    nv, size, lanes, group = tiles(v.cpu).int8[1], v.cpu.vbytes, v.lanes, v.group
    ones, ty = _ones(v), v.type("i8", lanes)
    order = [t * lanes + i for i in range(lanes) for t in range(group)]

    def groups(tail: bool) -> Any:
        def body(i: Any, sums: list[Any]) -> list[Any]:
            rows = [v.add(i, t) for t in range(group)]
            inside = [v.icmp("<", row, k) for row in rows]
            at = [v.at(w, v.mul(v.min(row, v.sub(k, 1)) if tail else row, step)) for row in rows]
            to, made = v.mul(i, nv * size // group), []
            for j in range(nv):
                parts = [v.load(ty, row, j * lanes) for row in at]
                if tail:
                    parts = [v.b.select(inside[t], part, v.zero(ty)) for t, part in enumerate(parts)]
                if group == 2:
                    parts = [v.sext(part, "i16") for part in parts]
                while len(parts) > 1:
                    parts = [v.join(a, b) for a, b in zip(parts[::2], parts[1::2])]
                words = v.bitcast(v.shuffle(parts[0], None, order), v.i32)
                v.store(words, panel, v.add(to, (HEADER * nv + j) * size))
                made.append(v.dot(sums[j], ones, words))
            return made
        return body
    whole = v.and_(k, -group)
    sums = v.loop(whole, [v.zero(v.i32)] * nv, groups(False), step=group)
    _store_first(v, v.loop(k, sums, groups(True), step=group, start=whole), panel, offset)


def emit_sums(v: Any, panel: Any, groups: Any, offset: Any) -> None:
    """The first numbers of a panel: -offset times the columns' sums."""
    nv, size, ones = tiles(v.cpu).int8[1], v.cpu.vbytes, _ones(v)

    def body(i: Any, sums: list[Any]) -> list[Any]:
        at = v.mul(v.add(i, HEADER), nv * size)
        return [v.dot(x, ones, v.load(v.i32, panel, v.add(at, j * size))) for j, x in enumerate(sums)]
    _store_first(v, v.loop(groups, [v.zero(v.i32)] * nv, body), panel, offset)


interleave = micro_kernel("pack_int8_interleave", "pipii", emit_interleave)
sums = micro_kernel("pack_int8_sums", "pii", emit_sums)


@device
def pack_rows(w, step, panel, width, k, staged, pitch, offset):
    """The weights of a panel from `width` rows of k bytes, one for each column, and its first numbers.

    staged: memory for the rows as `stage` leaves them, `pitch` bytes apart.
    """
    nr, group, size = int8_columns(), int8_group(), stage_bytes()
    groups = (k + group - 1) // group
    stage(w, staged, width, step, pitch, k, 0)
    for j in range(width):
        for i in range(k, groups * group):
            if size == 1:
                store_i8(staged + j * pitch, i, np.int8(0))
            else:
                store_i16(staged + j * pitch, i, np.int16(0))
    _transpose(panel + HEADER * nr * 4, staged, nr * 4, pitch, width, groups)
    sums(panel, groups, offset)
