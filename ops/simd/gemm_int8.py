"""8-bit GEMM: C[m, n] from sum_k A[m, k] * W[n, k], with the ends of its tiles, on packed panels.

Rows of A are first staged (ops/simd/stage_int8.py): copied once, with whatever the CPU's dot product wants, so that tails of k
and the pitch of A do not matter to the tiles.

A panel is [first nr x i32][second nr x f32][third nr x f32][k groups][nr][group], zero padded; narrow panels, for a single
row, have bytes at every level, or nibbles (ops/simd/nibbles.py). The numbers
in front are what the ends of the tiles (ops/simd/tile_int8.py) make of the sums.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device, micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress, MicroKernel
from litejit.ops.simd.nibbles import STEP, nibbles
from litejit.ops.simd.stage_int8 import k_group
from litejit.ops.simd.tile_int8 import CODES, CODES16, FLOATS, HEADER, emit_tile
from litejit.ops.simd.tiles import int8_columns, tile_shape, tiles

PAIR = 2 * STEP                   # narrow panels of nibbles have two vectors of them, or a multiple


# ---- packing -----------------------------------------------------------------------------------

def panel_bytes(cpu: Cpu, k: int, wide: bool = False, narrow: int = 0) -> int:
    """Bytes of a panel; narrow: its weights have so many bits on every CPU, 8 or 4 (ops/simd/gemv_int8.py)."""
    nr, group = tile_shape(cpu, "int8")[1], k_group(cpu, wide)
    if narrow == 4:
        return nr * (4 * HEADER + -(-k // PAIR) * PAIR // 2)
    return nr * (4 * HEADER + -(-k // group) * (group if narrow else 4))


def pack_int8(cpu: Cpu, weights: np.ndarray, first: np.ndarray, second: np.ndarray | None = None,
              third: np.ndarray | None = None, *, wide: bool = False, narrow: int = 0) -> np.ndarray:
    """weights [n, k] and the numbers of the columns -> panels, uint8 [panels, panel_bytes].

    weights: in the range of int8, of int16 where a group has two values and they are not narrow, of int4 where narrow is 4.
    first: int32 (wraps); second and third: see `column_numbers`; all [n].
    """
    (n, k), nr, group = weights.shape, tile_shape(cpu, "int8")[1], STEP if narrow == 4 else k_group(cpu, wide)
    count, groups = -(-n // nr), -(-k // PAIR) * (PAIR // STEP) if narrow == 4 else -(-k // group)
    out = np.zeros((count, panel_bytes(cpu, k, wide, narrow)), np.uint8)
    header = out[:, :HEADER * nr * 4].reshape(count, HEADER, nr, 4)
    bias = np.zeros(count * nr, np.int32)
    bias[:n] = first.astype(np.int64).astype(np.int32)
    header[:, 0] = bias.view(np.uint8).reshape(count, nr, 4)
    header[:, 1:] = column_numbers(cpu, n, second, third)
    whole = np.zeros((count * nr, groups * group), np.int8 if group == 4 or narrow else np.int16)
    whole[:n, :k] = weights
    cut = whole.reshape(count, nr, groups, group)
    cut = np.ascontiguousarray((nibbles(cut, cpu) if narrow == 4 else cut).transpose(0, 2, 1, 3))
    out[:, HEADER * nr * 4:] = cut.view(np.uint8).reshape(count, -1)
    return out


def column_numbers(cpu: Cpu, n: int, second: np.ndarray | None, third: np.ndarray | None = None) -> np.ndarray:
    """The second and the third numbers of n columns: uint8 [panels, 2, nr, 4].

    float32, or int32 for fixed point; float64 scales, which fill the place of both.
    """
    nr = tile_shape(cpu, "int8")[1]
    count = -(-n // nr)
    out = np.zeros((count, 2, nr, 4), np.uint8)
    if second is not None and second.dtype == np.float64:
        whole = np.zeros(count * nr)
        whole[:n] = second
        return whole.view(np.uint8).reshape(out.shape)
    for at, values in enumerate((second, third)):
        if values is not None:
            numbers = np.zeros(count * nr, np.int32 if values.dtype == np.int32 else np.float32)
            numbers[:n] = values
            out[:, at] = numbers.view(np.uint8).reshape(count, nr, 4)
    return out


def corrected_bias(weights: np.ndarray, bias: np.ndarray | None, offset: int) -> np.ndarray:
    """bias - offset * sum of each row of weights [n, k]: what `first` is for activations with that zero point + offset."""
    total = weights.sum(axis=1, dtype=np.int64) * -offset
    return total if bias is None else total + bias.astype(np.int64)


# ---- kinds of tiles ------------------------------------------------------------------------------

TILE_ARGS = "pippiiiipiiii"
SEGMENT_ARGUMENTS = "pp" + TILE_ARGS[2:] + "ip"


class Kind(NamedTuple):
    """What tells tiles from each other: see `emit_tile`, and for range `range_of` in epilogues.py."""

    end: str
    rows: bool = False
    wide: bool = False
    hybrid: bool = False
    signed: bool = False
    segments: bool = False
    range: str = ""

    def parts(self) -> dict[int, MicroKernel]:
        """The micro-kernels of tiles of so many quarters of a panel."""
        marks = "".join(f"_{name}" for name in ("rows", "wide", "hybrid", "signed", "segments") if getattr(self, name))
        name = f"gemm_int8_{self.end}{marks}{self.range and '_' + self.range}"
        arguments = SEGMENT_ARGUMENTS if self.segments else TILE_ARGS
        return {quarters: micro_kernel(name + mark, arguments, emit_tile(
            self.end, quarters, self.rows, self.wide, self.hybrid, self.signed, self.range))
            for quarters, mark in _PARTS.items() if quarters % 2 == 0 or self._divisible()}

    def _divisible(self) -> bool:
        """Whether tiles of one and of three quarters pay: not where registers are short."""
        return self.end in ("code", *FLOATS) and not (self.rows and self.segments)


_PARTS = {4: "", 3: "_three", 2: "_narrow", 1: "_quarter"}           # of a panel, in quarters: marks of names
RANGES = ("", "whole", "positive")
_KINDS = [
    *(Kind("code", rows=rows, segments=segments, range=x)
      for x in RANGES for rows in (False, True) for segments in (False, True)),
    *(Kind("code", range=x, signed=True) for x in RANGES), Kind("fixed", rows=True),
    Kind("double", rows=True), Kind("i32", rows=True), Kind("i32", wide=True), Kind("i32", hybrid=True),
    *(Kind(end, hybrid=True) for end in FLOATS), Kind("f32", hybrid=True, segments=True),
    *(Kind(end, wide=True) for end in CODES16)]
TILES_OF = {kind: kind.parts() for kind in _KINDS}


# ---- device functions --------------------------------------------------------------------------

TILES = [(name, "i8") for name in ("tile", "last_tile", "tile_rows", "k_group", "term_bytes", "out_bytes")]
"""Fields of kernels that multiply by `make_gemm`: the micro-kernels of tiles of a panel and of what is left of one, their rows,
values of k in a lane, bytes of a row's term, bytes of an output."""


def float_bits(value: float) -> int:
    """A bound of the ends FLOATS, as the tiles take it."""
    return int(np.float32(value).view(np.int32))


def panel_tiles(cpu: Cpu, kind: Kind, n: int) -> dict[str, MicroKernel]:
    """Values of the fields "tile" and "last_tile" for n columns."""
    halves, left = cpu.vbytes == 64, n % tile_shape(cpu, "int8")[1] or tile_shape(cpu, "int8")[1]
    parts = TILES_OF[kind if halves else kind._replace(range="")]
    fitting = [quarters for quarters in parts if (halves or quarters % 2 == 0)
               and 4 * left <= quarters * tile_shape(cpu, "int8")[1]]
    return {"tile": parts[4], "last_tile": parts[min(fitting)]}


def tile_params(cpu: Cpu, n: int, end: str, rows: bool = False, wide: bool = False, hybrid: bool = False, signed: bool = False,
                range_: str = "") -> dict[str, Any]:
    """Values of the fields TILES for n columns and an end."""
    hybrid = hybrid or end in FLOATS
    return {**panel_tiles(cpu, Kind(end, rows, wide, hybrid, signed, range=range_), n),
            "tile_rows": tiles(cpu).int8[0], "k_group": k_group(cpu, wide),
            "term_bytes": 8 if rows or hybrid else 0,
            "out_bytes": {**dict.fromkeys(CODES, 1), **dict.fromkeys(CODES16, 2)}.get(end, 4)}


def make_gemm() -> Any:
    """Device function (p, staged, pitch, panels, c, ldc, m, k, n, terms, lo, hi, zero_point, out_flip).

    All panels pass m staged rows. ldc: bytes; p: a record with the fields TILES, of which every kind has a function of its
    own (Numba mixes records up that share one). The staged rows should stay in L2 (`stage_block`).
    """
    run = ByAddress(TILE_ARGS)

    @device
    def gemm(p, staged, pitch, panels, c, ldc, m, k, n, terms, lo, hi, zero_point, out_flip):
        whole, nr = m // p.tile_rows * p.tile_rows, int8_columns()
        groups = (k + p.k_group - 1) // p.k_group
        size = (HEADER + groups) * nr * 4
        for q in range((n + nr - 1) // nr):
            left = n - q * nr
            tile, panel, to = p.tile if left >= nr else p.last_tile, panels + q * size, c + q * nr * p.out_bytes
            if whole > 0:
                run(tile, staged, pitch, panel, to, ldc, whole, groups, left, terms, lo, hi, zero_point, out_flip)
            if whole < m:
                run(tile, staged + whole * pitch, pitch, panel, to + whole * ldc, ldc, m - whole, groups, left,
                    terms + whole * p.term_bytes, lo, hi, zero_point, out_flip)
    return gemm
