"""Tile shapes of the micro-kernels, by CPU level: data, chosen by measurement.

A tile is `rows` x `vectors` accumulators. AVX-512: 7 x 2 reaches the peak of CPUs with two 512-bit multiply-adds per cycle
(7 x 1 three quarters of it: too few chains) and 97 % of those with one; 12 or 14 rows lose to the registers or to L1.
With 16 registers two vectors per row halve the loads. NEON: the largest tiles of which LLVM keeps everything in registers
(of 6 x 4 it stores up to 67 of them in the inner loop; tests/compiler/test_levels.py counts).
"""
from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from litejit.compiler.cpu import Cpu, target
from litejit.compiler.primitives import Primitive


class Tiles(NamedTuple):
    """Shapes for one level; lanes are 32 bits wide."""

    f32: tuple[int, int]          # (rows, vectors) of the float32 GEMM; vectors are even
    int8: tuple[int, int]         # (rows, vectors) of the int8 GEMM; vectors are even
    depthwise: int                # columns of an output row that a depthwise tile makes at once
    wide_depthwise: int           # the same of float32 kernels wider than 3
    depthwise_rows: int           # output rows of a float32 depthwise tile


_BY_REGISTERS: dict[tuple[int, int], Tiles] = {   # (bytes of a vector, registers)
    (64, 32): Tiles((7, 2), (7, 2), 4, 4, 2),
    (32, 16): Tiles((6, 2), (6, 2), 2, 4, 2),
    (16, 32): Tiles((5, 4), (8, 2), 4, 4, 2),
    (16, 16): Tiles((4, 2), (4, 2), 2, 4, 2),
}


def tiles(cpu: Cpu) -> Tiles:
    """The tile shapes of a level."""
    return _BY_REGISTERS[cpu.vbytes, cpu.nregs]


def half_of(cpu: Cpu) -> Cpu:
    """The level with registers of half the size."""
    return cpu._replace(vbytes=cpu.vbytes // 2)


class Grains(NamedTuple):
    """Multiply-accumulates that are worth a chunk of their own: one to three microseconds of work."""

    f32: int
    bf16: int
    int8: int
    depthwise_f32: int
    depthwise_int8: int


_GRAINS = {                                                  # by bytes of a vector
    64: Grains(1 << 17, 1 << 18, 1 << 16, 1 << 16, 1 << 14),
    32: Grains(1 << 17, 1 << 18, 1 << 17, 1 << 16, 1 << 16),
    16: Grains(1 << 16, 1 << 17, 1 << 16, 1 << 15, 1 << 15),
}


def grain(cpu: Cpu, kind: str) -> int:
    """The field `kind` of the level's `Grains`."""
    return int(getattr(_GRAINS[cpu.vbytes], kind))


def tile_shape(cpu: Cpu, kind: str) -> tuple[int, int]:
    """(rows of a tile, columns of a panel) of the "f32" or "int8" GEMM."""
    rows, vectors = getattr(tiles(cpu), kind)
    return rows, vectors * cpu.lanes


def _number(name: str, of: Callable[[Cpu], int]) -> Primitive:
    """A number of the level that is compiled for, as a function without arguments for kernels."""
    return Primitive(name, "int64", (), lambda ir, builder, args: ir.IntType(64)(of(target())), lambda: of(target()))


f32_rows = _number("f32_rows", lambda cpu: tile_shape(cpu, "f32")[0])
f32_columns = _number("f32_columns", lambda cpu: tile_shape(cpu, "f32")[1])
int8_rows = _number("int8_rows", lambda cpu: tile_shape(cpu, "int8")[0])
int8_columns = _number("int8_columns", lambda cpu: tile_shape(cpu, "int8")[1])
f32_halves = _number("f32_halves", lambda cpu: int(cpu.vbytes == 64))     # whether half a register may take half the time
