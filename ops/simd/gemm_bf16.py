"""bfloat16 GEMM: C[m, n] = clamp(A[m, k] @ B[k, n] + bias[n]) of float32 matrices, products of bfloat16, sums of float32.

Rows of A are first staged: rounded to bfloat16 once (nearest even; NaN stays NaN, denormal numbers count as zero), so that
all panels find two values of k in a 32-bit lane. B is packed into panels of `nr` columns, each
[bias nr x f32][k / 2][nr][2 x bf16], zero padded: bfloat16 weights, half of the bytes that float32 panels have.

    stage_bf16(source, staged, rows, step, pitch, pieces, piece_step, piece_pitch, count)
                                                                       rows of pieces of `count` floats
    gemm_bf16(staged, pitch, panels, c, ldc, m, k, n, lo, hi, other)   m staged rows, `pitch` bytes apart
    gemv_bf16(staged, panels, c, k, n, lo, hi)                         one row

Strides in bytes. other: what is added to C before it is clamped lies so many bytes after C; 0: nothing. A part of the columns
is computed by starting at a later panel: panel q begins q * nr * column_bytes(k) bytes after the first.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import device, micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.ops.simd.gemm_f32 import emit_tile, emit_vector, panel_columns, rows_in, usual_rows
from litejit.ops.simd.overlap import Ends
from litejit.ops.simd.tile_int8 import multiply_groups
from litejit.ops.simd.tiles import f32_columns, f32_rows, tiles

STAGE_BYTES = 1 << 16             # staged rows that stay in L2 while all panels pass


# ---- packing -----------------------------------------------------------------------------------

def to_bf16(values: np.ndarray) -> np.ndarray:
    """The bits of bfloat16 numbers as uint16: float32 to nearest even, NaN stays NaN, denormal numbers become zeros."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    size = bits & 0x7FFFFFFF
    rounded = bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)
    kept = np.where(size > 0x7F800000, bits | 0x400000, np.where(size < 0x800000, bits ^ size, rounded))
    return (kept >> 16).astype(np.uint16)


def column_bytes(k: int) -> int:
    """Bytes of a column of a panel, bias and all."""
    return 4 * (1 + -(-k // 2))


def pack_bf16(cpu: Cpu, weights: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """weights [n, k], bias [n] or None -> panels as uint32 [ceil(n / nr), 1 + ceil(k / 2), nr]."""
    nr, (n, k) = panel_columns(cpu), weights.shape
    count, pairs = -(-n // nr), -(-k // 2)
    whole = np.zeros((count * nr, 2 * pairs), np.uint16)
    whole[:n, :k] = to_bf16(weights)
    first = np.zeros(count * nr, np.float32)
    if bias is not None:
        first[:n] = bias
    out = np.empty((count, 1 + pairs, nr), np.uint32)
    out[:, 0] = first.view(np.uint32).reshape(count, nr)
    cut = np.ascontiguousarray(whole.reshape(count, nr, pairs, 2).transpose(0, 2, 1, 3))
    out[:, 1:] = cut.view(np.uint32).reshape(count, pairs, nr)
    return out


def staged_pitch(k: int) -> int:
    """Bytes from one staged row to the next: whole cache lines, an odd number of them."""
    return -(-2 * k // 64) * 64 | 64


def stage_block(cpu: Cpu, k: int, m: int) -> int:
    """Of m rows, those to stage at a time: whole tiles that stay in the cache, in even parts."""
    rows = tiles(cpu).f32[0]
    most = max(1, min(16, STAGE_BYTES // (rows * staged_pitch(k))))
    count = -(-m // rows)
    return -(-count // -(-count // most)) * rows


# ---- generators --------------------------------------------------------------------------------

def emit_stage(v: Any, source: Any, dest: Any, rows: Any, step: Any, pitch: Any, pieces: Any, piece_step: Any,
               piece_pitch: Any, count: Any) -> None:
    """Rows of pieces of `count` floats, as bfloat16; rows are `step` and then `pitch` bytes apart, pieces likewise.

    Whole vectors are written, zeros after the end of a piece, in the order of the addresses: up to 64 bytes past the last.
    """
    lanes = v.lanes
    whole = v.sub(count, v.b.srem(count, v.i(2 * lanes)))
    left = v.sub(count, whole)
    masks = v.mask(lanes, left), v.mask(lanes, v.sub(left, lanes))

    def piece(here: Any, there: Any) -> None:
        def put(i: Any, load: Callable[[int, Any], Any]) -> None:
            at = v.shl(i, 2)
            v.store(v.to_bf16(*(load(j, v.add(at, j * v.cpu.vbytes)) for j in (0, 1))), there, v.shl(i, 1))
        v.loop(whole, [], lambda i, _: put(i, lambda j, at: v.load(v.f32, here, at)), step=2 * lanes)
        v.either(v.icmp(">", left, 0), lambda: put(whole, lambda j, at: v.mload(v.f32, here, masks[j], at)))

    def row(r: Any, _: Any) -> None:
        here, there = v.at(source, v.mul(r, step)), v.at(dest, v.mul(r, pitch))
        v.loop(pieces, [], lambda s, _: piece(v.at(here, v.mul(s, piece_step)), v.at(there, v.mul(s, piece_pitch))))
    v.loop(rows, [], row)


def emit_pair_rows(v: Any, first: Any, second: Any, dest: Any, pairs: Any, step: Any, to_step: Any, width: Any,
                   keep: Any, low_factor: Any, high_factor: Any) -> None:
    """`width` lanes of two rows, times low and high, as pairs, `pairs` times; keep: what the bits of the second one are and-ed
    with (-1 or 0)."""
    lanes = v.lanes
    keep, low_factor, high_factor = v.splat(v.trunc(keep, "i32")), v.splat(low_factor), v.splat(high_factor)
    order = [e // 2 + (e % 2) * lanes for e in range(2 * lanes)]

    def pair(s: Any, _: Any) -> None:
        low, high, to = v.at(first, v.mul(s, step)), v.at(second, v.mul(s, step)), v.at(dest, v.mul(s, to_step))

        def body(i: Any, store: Callable[..., None]) -> None:
            at = v.shl(i, 2)
            a = v.fmul(v.load(v.f32, low, at), low_factor)
            b = v.fmul(v.load(v.f32, high, at), high_factor)
            b = v.bitcast(v.and_(v.bitcast(b, v.i32), keep), v.f32)
            both = v.shuffle(v.to_bf16(a, b), None, order)
            store(v.bitcast(both, v.i32), to, at)
        v.vectors(width, body)
    v.loop(pairs, [], pair)


def multiply_pairs(v: Any, acc: list[Any], rows: list[Any], weights: Any, pitch: int, pairs: Any, nv: int, panel: Any,
                   ends: Ends = ()) -> list[Any]:
    """acc[r][j] += the products of the pairs of rows[r] and of weights `pitch` bytes apart; panel, ends: see `multiply`."""
    def dots(accs: list[Any], x: Any, ws: list[Any]) -> list[Any]:
        return [v.dot_bf16(a, x, w) for a, w in zip(accs, ws)]
    return multiply_groups(v, dots, acc, rows, weights, pairs, (nv, pitch // v.cpu.vbytes), panel, ends=ends)


def _pair_lane(v: Any, a: Any, at: Any) -> Callable[..., Any]:
    x = v.isplat(a, at)
    return lambda acc, panel, offset: v.dot_bf16(acc, x, v.load(v.i32, panel, offset))


stage_bf16 = micro_kernel("stage_bf16", "ppiiiiiii", emit_stage)
pair_rows_bf16 = micro_kernel("pair_rows_bf16", "pppiiiiiff", emit_pair_rows)
_tile = micro_kernel("gemm_bf16", "pippiiiiffi", emit_tile("rows", 4, usual_rows, multiply_pairs))
_less = micro_kernel("gemm_bf16_less", "pippiiiiffi", emit_tile("rows", 4, lambda cpu: usual_rows(cpu) - 1, multiply_pairs))
_tile_narrow = micro_kernel("gemm_bf16_narrow", "pippiiiiffi", emit_tile("rows", 2, usual_rows, multiply_pairs))
_vector = micro_kernel("gemv_bf16", "ppppiiff", emit_vector(_pair_lane))


# ---- device functions --------------------------------------------------------------------------

_narrow = rows_in(_tile_narrow)


@device
def gemm_bf16(staged, pitch, panels, c, ldc, m, k, n, lo, hi, other):
    """C = clamp(A @ B + bias + other): all panels pass m staged rows, which should stay in L2 (`stage_block`).

    Where the rows are no multiple of a tile's, some tiles have a row less.
    """
    mr, nr, pairs = f32_rows(), f32_columns(), (k + 1) // 2
    size, narrow = (1 + pairs) * nr * 4, (n + nr // 2 - 1) // nr      # that panel is at most half full
    tall = max(0, m - (m + mr - 1) // mr * (mr - 1)) * mr             # rows in tiles of mr, the first ones
    less = (m - tall) // (mr - 1) * (mr - 1)
    for q in range((n + nr - 1) // nr):
        panel, to, columns = panels + q * size, c + q * nr * 4, n - q * nr
        if q == narrow:
            _narrow(staged, pitch, panel, to, ldc, m, pairs, columns, lo, hi, other)
            continue
        if tall > 0:
            _tile(staged, pitch, panel, to, ldc, tall, pairs, columns, lo, hi, other)
        if less > 0:
            _less(staged + tall * pitch, pitch, panel, to + tall * ldc, ldc, less, pairs, columns, lo, hi, other)
        done = tall + less
        if done < m:
            _less(staged + done * pitch, pitch, panel, to + done * ldc, ldc, m - done, pairs, columns, lo, hi, other)


@device
def gemv_bf16(staged, panels, c, k, n, lo, hi):
    """c = clamp(a @ B + bias) for one staged row."""
    nr, pairs = f32_columns(), (k + 1) // 2
    size = (1 + pairs) * nr * 4
    wide = (n + nr // 2 - 1) // nr
    for q in range(0, wide, 2):
        first = panels + q * size
        _vector(staged, first, first + size if q + 1 < wide else first, c + q * nr * 4, pairs,
                min(n - q * nr, (wide - q) * nr), lo, hi)
    if wide * nr < n:
        _tile_narrow(staged, 0, panels + wide * size, c + wide * nr * 4, 0, 1, pairs, n - wide * nr, lo, hi, 0)
