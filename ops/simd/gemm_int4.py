"""GEMM of int4 weights with a scale for every block of k: staged rows (ops/simd/stage_int8.py) times packed panels.

XNNPACK's arithmetic (qd8-f32-qb4w), in its order: a sum begins with the row's zero point times `first`, minus the weights'
sum; every block adds its integer sum, as float32, times its scale; the row's factor, the bias and the bounds end it.

A panel is [first nr x f32][bias nr x f32][nr x 0] and for every block [weights][scales nr x bf16], padded to whole words of
32 bits for each column. Weights are nibbles (ops/simd/nibbles.py): of a vector come two vectors of `dot`, four where products
are of int16. A vector of scales holds those of both halves of a panel.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.gemm_f32 import store_tile
from litejit.ops.simd.gemm_int8 import TILE_ARGS
from litejit.ops.simd.nibbles import STEP, nibbles, unpacked
from litejit.ops.simd.stage_int8 import k_group
from litejit.ops.simd.tile_int8 import HEADER
from litejit.ops.simd.tiles import tile_shape, tiles

UNIT = 32                             # blocks are whole multiples of so many weights
SUMMED = 16                           # weights whose sum XNNPACK scales at once


# ---- packing -----------------------------------------------------------------------------------

def panel_words(k: int, size: int) -> int:
    """32-bit words of a column behind a panel's header."""
    return k // STEP + -(-(k // size) // 2)


def pack_int4(cpu: Cpu, weights: np.ndarray, scales: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """weights [n, k] from -8 to 7, scales [n, blocks], bias [n] -> panels, uint8 [panels, bytes]."""
    (n, k), blocks, (_, nr) = weights.shape, scales.shape[1], tile_shape(cpu, "int8")
    count, scales = -(-n // nr), _to_bf16(scales)
    header = np.zeros((HEADER, count * nr), np.float32)
    header[0, :n] = _minus_sums(weights, scales)
    header[1, :n] = 0 if bias is None else bias
    words = np.zeros((count * nr, k), np.int8)
    words[:n] = weights
    words = nibbles(words.reshape(count, nr, blocks, -1, STEP), cpu).transpose(0, 2, 3, 1, 4)
    pairs = np.zeros((count * nr, blocks), np.uint16)
    pairs[:n] = (scales / (16 if cpu.dot else 1)).view(np.uint32) >> 16
    pairs = pairs.reshape(count, -1, cpu.lanes, blocks).transpose(0, 3, 2, 1)
    body = np.concatenate([_bytes(words, count, blocks), _bytes(pairs, count, blocks)], axis=2).reshape(count, -1)
    start, whole = HEADER * nr * 4, (HEADER + panel_words(k, k // blocks)) * nr * 4
    out = np.zeros((count, whole), np.uint8)
    out[:, :start] = _bytes(header.reshape(HEADER, count, nr).transpose(1, 0, 2), count)
    out[:, start:start + body.shape[1]] = body
    return out


def _bytes(values: np.ndarray, *shape: int) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8).reshape(*shape, -1)


def _to_bf16(scales: np.ndarray) -> np.ndarray:
    """float32 with what bfloat16 has of it, nearest even."""
    bits = np.ascontiguousarray(scales, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def _minus_sums(weights: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Minus the sums of the scaled weights of each row, added in XNNPACK's order."""
    n, k = weights.shape
    sums = weights.reshape(n, k // SUMMED, SUMMED).sum(axis=2, dtype=np.int32).astype(np.float32)
    return np.cumsum(-sums * np.repeat(scales, sums.shape[1] // scales.shape[1], 1), axis=1, dtype=np.float32)[:, -1]


# ---- generators --------------------------------------------------------------------------------

def emit_block_tile(mr: int) -> Callable[..., None]:
    """Generator of tiles of mr rows below each other, with the arguments of those of tile_int8.py; zero_point and out_flip are
    the weights of a block and the number of blocks."""
    def emit(v: Any, a: Any, lda: Any, panel: Any, c: Any, ldc: Any, m: Any, groups: Any, columns: Any, terms: Any,
             lo: Any, hi: Any, block: Any, blocks: Any) -> None:
        nv, size = tiles(v.cpu).int8[1], v.cpu.vbytes
        row = [v.min(v.i(r), v.sub(m, 1)) if r else v.i(0) for r in range(mr)]
        upper, block_bytes = v.const(v.i32, -65536), v.add(v.mul(block, nv * size // STEP), size)
        low, high = (v.splat(v.bitcast(v.trunc(x, "i32"), v.type("f32"))) for x in (lo, hi))

        def add_block(b: Any, carried: list[Any]) -> list[Any]:
            weights, places, sums = carried[0], carried[1:1 + mr], carried[1 + mr:]
            acc = block_sums(v, weights, places, block)
            x = v.load(v.i32, weights, v.sub(block_bytes, size))
            scales = [v.bitcast(y, v.f32) for y in (v.shl(x, 16), v.and_(x, upper))]
            ends = [v.at(place, v.mul(block, 4 // v.group)) for place in places]
            return [v.at(weights, block_bytes), *ends,
                    *(v.fma(v.to_float(y), scales[i % nv], sums[i]) for i, y in enumerate(acc))]

        def tile(_: Any, places: list[Any]) -> list[Any]:
            a, c, terms = places
            first, bias = ([v.load(v.f32, panel, (at * nv + j) * size) for j in range(nv)] for at in (0, 1))
            zero = [v.to_float(v.isplat(terms, v.shl(r, 3))) for r in row]
            total = [v.fmul(x, zero[r]) for r in range(mr) for x in first]
            rows = [v.at(a, v.mul(lda, r)) for r in row]
            total = v.loop(blocks, [v.at(panel, HEADER * nv * size), *rows, *total], add_block)[1 + mr:]
            factor = [v.fsplat(terms, v.add(v.shl(r, 3), 4)) for r in row]
            made = [v.clamp(v.fadd(v.fmul(x, factor[i // nv]), bias[i % nv]), low, high) for i, x in enumerate(total)]
            store_tile(v, made, [v.at(c, v.mul(ldc, r)) for r in row], columns, nv, size)
            return [v.at(a, v.mul(lda, mr)), v.at(c, v.mul(ldc, mr)), v.at(terms, 8 * mr)]
        v.loop(m, [a, c, terms], tile, step=mr)
    return emit


def block_sums(v: Any, weights: Any, rows: list[Any], block: Any) -> list[Any]:
    """The integer sums of a block: rows x vectors. One row has two chains, enough to hide the latency."""
    nv, size, per = tiles(v.cpu).int8[1], v.cpu.vbytes, STEP // v.group
    chains, steps = 2 if len(rows) == 1 else 1, UNIT // STEP if v.cpu.dot else 1

    def body(i: Any, acc: list[Any]) -> list[Any]:
        at_w, at_a = v.mul(i, nv * size // STEP), v.mul(i, 4 // v.group)
        acc = list(acc)
        for step in range(steps):
            held = [v.load(v.i32, weights, v.add(at_w, (step * nv + j) * size)) for j in range(nv)]
            for t in range(per):
                w = [unpacked(v, x, t) for x in held]
                for r, row in enumerate(rows):
                    at = ((r * chains) + t % chains) * nv
                    x = v.isplat(row, v.add(at_a, 4 * (step * per + t)))
                    acc[at:at + nv] = v.dots(acc[at:at + nv], x, w)
        return acc
    acc = v.loop(block, [v.zero(v.i32)] * (len(rows) * nv * chains), body, step=steps * STEP)
    return [v.add(x, y) for x, y in zip(acc[:nv], acc[nv:])] if chains == 2 else list(acc)


def block_rows(cpu: Cpu) -> int:
    """Most rows of a tile: beside the sums, registers hold two vectors of weights and what is unpacked of them."""
    return min(tiles(cpu).int8[0], 4 if cpu.nregs < 32 else 8 if cpu.dot else 6)


BLOCK_TILES: dict[int, MicroKernel] = {
    rows: micro_kernel(f"gemm_int4_blocks_{rows}", TILE_ARGS, emit_block_tile(rows)) for rows in range(1, 9)}
"""Tiles by their rows, of which a CPU has up to `block_rows`."""


def block_params(cpu: Cpu, rows: int, size: int, blocks: int) -> dict[str, Any]:
    """Values of the fields TILES, and of the two numbers that tiles of other kinds use for their codes."""
    tile = BLOCK_TILES[rows]
    return {"tile": tile, "last_tile": tile, "tile_rows": rows, "k_group": k_group(cpu), "term_bytes": 8, "out_bytes": 4,
            "zero_point": size, "out_flip": blocks}
