"""CONV_2D of 8-bit codes, 3 x 3 with stride 1, by Winograd's F(4x4, 3x3) or F(2x2, 3x3) in int16: the bits of conv_int8.

A quarter, or 4 / 9, of the multiplications: on CPUs without a dot product of bytes, which multiply int16 anyway, and with
AVX-512 where there are many tiles, since its dot product of bytes makes twice the products an instruction. Blocks of tiles as
in ops/winograd_walk.py; the outputs end as XNNPACK's codes.
"""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from litejit.compiler import device
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import ByAddress
from litejit.ops.base import Packed, Step, Target
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_int8 import Weights
from litejit.ops.simd.gemm_int8 import TILES, corrected_bias, make_gemm, panel_bytes, tile_params
from litejit.ops.simd.tiles import grain, int8_columns, tile_shape
from litejit.ops.simd.winograd_int8 import (
    INPUT,
    OUTPUT,
    fits_winograd,
    input_transform_int8,
    output_transform_int8,
    pack_winograd_int8,
)
from litejit.ops.winograd_walk import (
    TABLE_BYTES,
    WALK,
    addresses,
    divide,
    make_inputs,
    make_products,
    suits,
    tile_count,
)
from litejit.planner.graph import Node

WINOGRAD = np.dtype([*WALK, *TILES, *((name, "i8") for name in (
    "first", "scale", "outside", "flip", "low", "high", "zero_point", "out_flip"))], align=True)
FEW_COLUMNS = 10                      # of which tiles of half a register take the time, which Winograd's do not have

_TRANSFORMS = {m: {"input": input_transform_int8(m), "output": output_transform_int8(m)} for m in (2, 4)}


class Costs(NamedTuple):
    """Of transforms and of panels, in multiply-accumulates of int16; rate: those of the direct kernel in the same time."""

    per_input: int
    per_sum: int
    per_weight: int
    rate: int


_COSTS = {False: Costs(4, 8, 4, 1), True: Costs(8, 16, 8, 2)}         # by dot product: measured with AVX2, and with AVX-512


def tile_size_int8(cpu: Cpu, windows: Windows, weights: Weights) -> int:
    """The outputs along a side of Winograd's tiles: 4, 2, or 0 where the direct kernel is faster or the only one."""
    if not suits(windows) or cpu.arch != "x86_64" or (cpu.dot and cpu.vbytes < 64):
        return 0
    n = weights.array.shape[1]
    costs = {m: _cost(cpu, windows, n, m) for m in (0, 2, 4)}
    fits = (m for m in sorted(costs, key=lambda m: costs[m]) if m == 0 or fits_winograd(_real(weights).reshape(n, -1), m))
    return next(fits)


def _cost(cpu: Cpu, windows: Windows, n: int, m: int) -> float:
    """Multiply-accumulates that take as long as tiles of m x m, or (0) the direct kernel."""
    k, (mr, nr), costs = windows.depth, tile_shape(cpu, "int8"), _COSTS[bool(cpu.dot)]
    columns = -(-n // nr) * nr
    if m == 0:
        columns = FEW_COLUMNS if cpu.vbytes == 64 and n <= nr // 4 else columns
        return 9.0 * k * columns * (-(-windows.m // mr) * mr + costs.per_weight) / costs.rate
    points, count = (m + 2) ** 2, tile_count(windows, m)
    each = costs.per_input * -(-k // (2 * cpu.lanes)) * 2 * cpu.lanes + costs.per_sum * columns
    return float(points) * (k * columns * (-(-count // mr) * mr + costs.per_weight) + count * each)


def _real(weights: Weights) -> np.ndarray:
    """Weights [1, n, 9 k] without their zero point."""
    return weights.array.astype(np.int16) + np.int16(weights.row_factor)


def winograd_int8_steps(node: Node, target: Target, weights: Weights, windows: Windows, scales: np.ndarray,
                        bounds: tuple[int, int], m: int) -> list[Step]:
    """Steps of XNNPACK's codes of i8 or u8 with float32 scales [O] or [1], in tiles of m x m."""
    x, y, cpu = node[0], node.out, target.cpu
    n, k, (mr, nr) = y.dims[3], windows.depth, tile_shape(cpu, "int8")
    fields, chunks, shared = divide(windows, n, m, nr, -(-2 * k // 64) * 64 | 64, (mr, mr), grain(cpu, "int8"))
    size = -(-n // nr) * nr
    offset, turn = (0, 0) if x.type == "i8" else (-128, 0x80)          # signed on every CPU: they become int16
    shift = 128 if y.type == "u8" else 0                               # u8 codes are made as i8 ones
    wide = np.ascontiguousarray(np.broadcast_to(scales.astype(np.float32), (n,)))
    source = {"x": x, "flip": turn, "outside": Packed(
        ("codes outside", x.zero_point, k), lambda: np.full(k + 64, x.zero_point & 255, np.uint8))}
    params = {**fields, **source, **_TRANSFORMS[m], **tile_params(cpu, n, "i32", wide=True),
              "w": _panels(cpu, weights, windows, m), "y": y,
              "first": _first(weights, x.zero_point + offset, size),
              "scale": Packed(("winograd scale", size, wide.tobytes()), lambda: _filled(wide, size)),
              "point_bytes": panel_bytes(cpu, k, wide=True), "low": bounds[0] - shift, "high": bounds[1] - shift,
              "zero_point": y.zero_point - shift, "out_flip": 0x80 if shift else 0}
    made = [Step(node, winograd_int8, params, chunks, macs=windows.m * node[1].size)]
    if shared is not None:
        made.insert(0, Step(node, winograd_int8_inputs, {**shared[0], **source, "input": params["input"]}, shared[1]))
    return made


def _panels(cpu: Cpu, weights: Weights, windows: Windows, m: int) -> Packed:
    return Packed((weights.key, "winograd int8", m, cpu.name), lambda: pack_winograd_int8(
        cpu, _real(weights).reshape(-1, 3, 3, windows.depth), m))


def _first(weights: Weights, offset: int, size: int) -> Packed:
    def build() -> np.ndarray:
        bias = None if weights.bias is None else weights.bias[0]
        return _filled(corrected_bias(_real(weights)[0], bias, offset).astype(np.int32), size)
    return Packed((weights.key, "winograd first", offset, size), build)


def _filled(values: np.ndarray, size: int) -> np.ndarray:
    made = np.zeros(size, values.dtype)
    made[:len(values)] = values
    return made


# ---- kernels ---------------------------------------------------------------------------------------

_gemm = make_gemm()


@device
def product(p, v, w, sums, count, columns):
    nr = int8_columns()
    _gemm(p, v, p.pitch, w, sums, nr * 4, count, p.depth, nr if 2 * columns > nr else nr // 2, 0, 0, 0, 0, 0)


@device
def inputs(p, table, first, count, v):
    for i in range(count):
        m, tx, r = p.size - 2, (first + i) % p.tiles_x, (first + i) // p.tiles_x
        image = p.x + r // p.tiles_y * p.height * p.width * p.channels
        addresses(table, p.size, image, r % p.tiles_y * m - p.top, tx * m - p.left, p.height, p.width, p.channels, p.outside)
        _input(p.input, table, v + i * p.pitch, p.v_step, p.depth, p.flip)


@device
def outputs(p, scratch, first, count, q):
    nr, table, m = int8_columns(), scratch + TABLE_BYTES, p.size - 2
    columns, sums, column = min(nr, p.n - q * nr), scratch + p.sums_at, q * nr
    for i in range(count):
        tx, r = (first + i) % p.tiles_x, (first + i) // p.tiles_x
        image = p.y + r // p.tiles_y * p.out_height * p.out_width * p.n + column
        addresses(table, m, image, r % p.tiles_y * m, tx * m, p.out_height, p.out_width, p.n, scratch + p.sink_at)
        _output(p.output, sums + i * nr * 4, p.sums_step, p.first + 4 * column, p.scale + 4 * column, table, columns, p.low,
                p.high, p.zero_point, p.out_flip)


_input, _output = ByAddress(INPUT), ByAddress(OUTPUT)
winograd_int8_inputs = make_inputs("winograd_int8_inputs", WINOGRAD, inputs)
winograd_int8 = make_products("winograd_int8", WINOGRAD, int8_columns, inputs, product, outputs)
