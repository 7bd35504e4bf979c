"""CONV_2D in float32, 3 x 3 with stride 1, by Winograd's F(4x4, 3x3) or F(2x2, 3x3) where that is faster than conv_f32.

A block of tiles at a time: input transform, a matrix product for each of the (m + 2)**2 points, output transform with bias
and clamp; panel by panel, so that the products stay in the cache. Where there are few tiles all of them are transformed by a
step in front and the chunks share them. Errors stay below 5e-6 of the largest output (F(2x2): 1e-6). Infinities and NaN would
spread over their tiles: tiles with any are computed anew, tap by tap.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import load_f32, store_i64
from litejit.ops.base import MAX_CHUNKS, Packed, Scratch, Step, Target
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import FIELDS, Windows
from litejit.ops.simd.gemm_f32 import panel_columns, panel_gemm_f32, tall_rows
from litejit.ops.simd.tiles import f32_columns, grain, tiles
from litejit.ops.simd.winograd import input_transform, output_transform, pack_winograd, tap_by_tap
from litejit.planner.graph import Node, Value

WINOGRAD = np.dtype([*FIELDS, *((name, "i8") for name in (
    "x", "w", "bias", "y", "zeros", "v", "size", "scratch", "scratch_size", "sums_at", "sink_at", "v_at", "n", "tiles_x",
    "tiles_y", "tiles", "block", "rows", "panels", "row_chunks", "column_chunks", "pitch", "v_step", "sums_step",
    "tall")), ("lo", "f4"), ("hi", "f4")], align=True)
BLOCK_BYTES = 1 << 18                 # transformed inputs of a block, in L2 beside the weights that pass
SHARED_BYTES = 1 << 21                # transformed inputs of a layer that are made by a step of their own
SCRATCH_BYTES = 1 << 22               # transformed inputs of all chunks, where they have their own
TABLE_BYTES = 320                     # of 6 x 6 addresses
PER_ELEMENT, PER_WEIGHT = 12, 6       # of a transform, of the panels: in multiply-accumulates
RATE = {"f32": 1.0, "bf16": 2.0}      # the direct kernel's products in the time of one of float32, by what they are made of
MOST_CHANNELS = 512                   # of tiles of 4 x 4: rounding errors grow with the channels
F32_0, LOWEST, HIGHEST = np.float32(0), np.float32(-np.inf), np.float32(np.inf)


def tile_size(cpu: Cpu, windows: Windows, n: int, products: str = "f32") -> int:
    """The outputs along a side of Winograd's tiles: 4, 2, or 0 where the direct kernel, whose products are of that kind, is
    faster or the only one. Winograd's products are float32."""
    shape = (windows.kh, windows.kw, windows.sh, windows.sw, windows.dh, windows.dw, windows.groups)
    if shape != (3, 3, 1, 1, 1, 1, 1) or not cpu.fma or cpu.vbytes < 32 or windows.m == 0:
        return 0
    costs = {m: _cost(cpu, windows, n, m) for m in (0, 2, 4) if m < 4 or windows.depth <= MOST_CHANNELS}
    costs[0] /= RATE[products]
    return min(costs, key=lambda m: costs[m])


def _cost(cpu: Cpu, windows: Windows, n: int, m: int) -> float:
    """Multiply-accumulates that take as long as tiles of m x m, or (0) the direct kernel: those of the products in whole
    tiles of the GEMM, and what transforming an element and reading a weight cost (measured with AVX2 and AVX-512)."""
    k, lanes = windows.depth, cpu.lanes
    columns = -(-n // lanes) * lanes
    if m == 0:
        mr = tiles(cpu).f32[0]
        return 9.0 * k * columns * (-(-windows.m // mr) * mr + PER_WEIGHT)
    points, count = (m + 2) ** 2, windows.images * -(-windows.out_height // m) * -(-windows.out_width // m)
    rows = max(count, -(-count // tall_rows(cpu)) * (tall_rows(cpu) - 1))
    return float(points) * (k * columns * (rows + PER_WEIGHT) + PER_ELEMENT * count * (-(-k // lanes) * lanes + columns))


def winograd_steps(node: Node, target: Target, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows,
                   bounds: tuple[float, float], m: int) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w [O, 3, 3, C]) + bias) in tiles of m x m; w and bias are constants."""
    cpu, k, n = target.cpu, windows.depth, w.dims[0]
    nr, tall, pitch = panel_columns(cpu), tall_rows(cpu), _up(4 * k + 64)
    fields, chunks, shared = divide(windows, n, m, nr, pitch, (tall, tall - 1), grain(cpu, "f32"))
    params = {**fields, "x": x, "w": _weights(cpu, w, m), "bias": _bias(bias, -(-n // nr) * nr), "y": y,
              "zeros": zeros(4 * k + 64), "tall": tall, "lo": bounds[0], "hi": bounds[1]}
    made = [Step(node, PRODUCTS[m], params, chunks, macs=windows.m * n * 9 * k)]
    if shared is not None:
        made.insert(0, Step(node, INPUTS[m], {**shared[0], "x": x, "zeros": zeros(4 * k + 64)}, shared[1]))
    return made


def divide(windows: Windows, n: int, m: int, nr: int, pitch: int, tile: tuple[int, int], least: int
            ) -> tuple[dict[str, Any], int, tuple[dict[str, Any], int] | None]:
    """(fields of a kernel of products in tiles of m x m, its chunks, the same of the step of the inputs if there is one).

    pitch: bytes of a tile's transformed inputs at a point; nr: columns of a panel; tile: most and fewest rows of the GEMM's
    tiles; least: multiply-accumulates worth a chunk.
    """
    tall, short = tile
    k, points = windows.depth, (m + 2) ** 2
    tiles_y, tiles_x = -(-windows.out_height // m), -(-windows.out_width // m)
    count, panels = windows.images * tiles_y * tiles_x, -(-n // nr)
    block = min(count, max(2 * tall, BLOCK_BYTES // (points * pitch) // short * short))
    blocks = -(-count // block)
    shared = blocks < MAX_CHUNKS and points * count * pitch <= SHARED_BYTES
    wanted = max(1, min(MAX_CHUNKS, points * count * k * n // least))
    row_chunks = min(wanted, blocks, blocks if shared else max(2, SCRATCH_BYTES // (points * block * pitch)))
    rows = -(-blocks // row_chunks) * block
    row_chunks = -(-count // rows)
    per_chunk = -(-panels // max(1, min(panels, wanted // row_chunks))) if shared else panels
    column_chunks = -(-panels // per_chunk)
    chunks = row_chunks * column_chunks
    v_step, sums_step = _odd((count if shared else block) * pitch), _odd(block * nr * 4)
    sums_at = 2 * TABLE_BYTES + 64                                  # addresses of inputs, of outputs; the check
    sink_at = sums_at + points * sums_step
    v_at = sink_at + 4 * nr
    size = v_at + (0 if shared else points * v_step)
    every = Scratch(points * v_step) if shared else None
    place = {**windows.params(), "v": every, "tiles_x": tiles_x, "tiles_y": tiles_y, "tiles": count, "pitch": pitch,
             "v_step": v_step, "size": m + 2}
    fields = {**place, "scratch": Scratch(chunks * size), "scratch_size": size, "sums_at": sums_at, "sink_at": sink_at,
              "v_at": v_at, "n": n, "block": block, "rows": rows, "panels": per_chunk, "row_chunks": row_chunks,
              "column_chunks": column_chunks, "sums_step": sums_step}
    if not shared:
        return fields, chunks, None
    parts = max(1, min(MAX_CHUNKS, points * count * k * 16 // least))
    rows = -(-count // parts)
    parts = -(-count // rows)
    place.update(scratch=Scratch(parts * TABLE_BYTES), scratch_size=TABLE_BYTES, rows=rows)
    return fields, chunks, (place, parts)


def _up(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


def _odd(nbytes: int) -> int:
    """An odd number of cache lines: the points of a tile do not fall on each other in the cache."""
    return 64 * (-(-nbytes // 64) | 1)


def _weights(cpu: Cpu, w: Value, m: int) -> Packed:
    data = w.data
    return Packed((w.key, "winograd", m, panel_columns(cpu)), lambda: pack_winograd(cpu, np.asarray(data, np.float32), m))


def _bias(bias: Value | None, size: int) -> Packed:
    def build() -> np.ndarray:
        made = np.zeros(size, np.float32)
        if bias is not None:
            made[:bias.size] = np.asarray(bias.data).ravel()
        return made
    return Packed((None if bias is None else bias.key, "winograd bias", size), build)


# ---- kernels ---------------------------------------------------------------------------------------

@device
def addresses(table, size, image, top, left, height, width, pixel, outside):
    """Addresses of the size x size pixels from (top, left) on; `outside` for those outside of the image."""
    at = 0
    for y in range(top, top + size):
        here = image + (y * width + left) * pixel
        for x in range(left, left + size):
            inside = y >= 0 and y < height and x >= 0 and x < width
            store_i64(table, at, here if inside else outside)
            here += pixel
            at += 1


def _make_inputs(m: int) -> Any:
    """inputs(p, table, first, count, v): transform tiles. patch(p, tile, table): the addresses of a tile's inputs."""
    transform = input_transform(m)

    @device
    def patch(p, tile, table):
        tx, r = tile % p.tiles_x, tile // p.tiles_x
        y, x = r % p.tiles_y * m - p.top, tx * m - p.left
        image = p.x + r // p.tiles_y * p.height * p.width * p.channels * 4
        addresses(table, p.size, image, y, x, p.height, p.width, 4 * p.channels, p.zeros)

    @device
    def inputs(p, table, first, count, v):
        for i in range(count):
            patch(p, first + i, table)
            transform(table, v + i * p.pitch, p.v_step, p.depth)

    @kernel(WINOGRAD, name=f"winograd_{m}_inputs")
    def all_inputs(p, begin, end):
        """A chunk is some tiles."""
        table = p.scratch + begin * p.scratch_size
        for c in prange(begin, end):
            first = c * p.rows
            inputs(p, table, first, min(p.rows, p.tiles - first), p.v + first * p.pitch)
        return 0
    return patch, inputs, all_inputs


def _make_outputs(m: int, patch: Any) -> Any:
    """outputs(p, scratch, first, count, q): the outputs of tiles in the columns of panel q."""
    transform, anew, points = output_transform(m), tap_by_tap(m), (m + 2) ** 2

    @device
    def pixels(p, tile, table, sink, offset):
        tx, r = tile % p.tiles_x, tile // p.tiles_x
        image = p.y + r // p.tiles_y * p.out_height * p.out_width * p.n * 4 + offset
        addresses(table, p.size - 2, image, r % p.tiles_y * m, tx * m, p.out_height, p.out_width, 4 * p.n, sink)

    @device
    def outputs(p, scratch, first, count, q):
        nr = f32_columns()
        columns, sums = min(nr, p.n - q * nr), scratch + p.sums_at
        table, check = scratch + TABLE_BYTES, sums - 64
        bias, panel = p.bias + 4 * q * nr, p.w + q * points * (p.depth + 1) * nr * 4
        for i in range(count):
            pixels(p, first + i, table, scratch + p.sink_at, 4 * q * nr)
            transform(sums + i * nr * 4, p.sums_step, bias, table, columns, p.lo, p.hi, check)
            if load_f32(check, 0) != F32_0:
                patch(p, first + i, scratch)
                anew(scratch, panel, p.depth, bias, table, columns, p.lo, p.hi)
    return outputs


def _make(m: int) -> Any:
    """(kernel of the inputs, kernel of the products and outputs)."""
    points = (m + 2) ** 2
    patch, inputs, all_inputs = _make_inputs(m)
    outputs = _make_outputs(m, patch)

    @kernel(WINOGRAD, name=f"winograd_{m}")
    def winograd(p, begin, end):
        """A chunk is some blocks of tiles, and some panels of columns where the transformed inputs are there."""
        nr = f32_columns()
        scratch = p.scratch + begin * p.scratch_size
        sums, point_bytes = scratch + p.sums_at, (p.depth + 1) * nr * 4
        for c in prange(begin, end):
            panel = c % p.column_chunks * p.panels
            columns = min(p.n, (panel + p.panels) * nr)
            row = c // p.column_chunks * p.rows
            last = min(p.tiles, row + p.rows)
            for first in range(row, last, p.block):
                count = min(p.block, last - first)
                v = p.v + first * p.pitch
                if p.v == 0:
                    v = scratch + p.v_at
                    inputs(p, scratch, first, count, v)
                for q in range(panel, (columns + nr - 1) // nr):
                    for t in range(points):
                        panel_gemm_f32(v + t * p.v_step, p.pitch, p.w + (q * points + t) * point_bytes, sums + t * p.sums_step,
                                       nr * 4, count, p.depth, min(nr, p.n - q * nr), p.tall, LOWEST, HIGHEST)
                    outputs(p, scratch, first, count, q)
        return 0
    return all_inputs, winograd


_KERNELS = {m: _make(m) for m in (2, 4)}
INPUTS, PRODUCTS = ({m: made[k] for m, made in _KERNELS.items()} for k in (0, 1))
