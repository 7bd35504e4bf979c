"""CONV_2D of float32, 3 x 3 with stride 1, by Winograd's F(4x4, 3x3) or F(2x2, 3x3) where the direct kernel is slower.

Blocks of tiles as in ops/winograd_walk.py. Errors stay below 5e-6 of the largest output (F(2x2): 1e-6). Where bfloat16 is
asked for, the products of F(2x2) may be made of it: 1.7 times the rounding error that the direct kernel has then (F(4x4)
would make five times of it, and stays float32). Infinities and NaN would spread over their tiles: tiles with any are computed
anew, tap by tap.
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import load_f32
from litejit.ops.base import Packed, Step, Target, row_pitch
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.gemm_bf16 import column_bytes, gemm_bf16, staged_pitch
from litejit.ops.simd.gemm_f32 import panel_columns, panel_gemm_f32, tall_rows
from litejit.ops.simd.tiles import f32_columns, grain, tiles
from litejit.ops.simd.winograd import (
    input_transform,
    output_transform,
    pack_winograd,
    tap_by_tap,
    weights_by_tap,
)
from litejit.ops.winograd_walk import TABLE_BYTES, WALK, addresses, divide, make_walk, suits, tile_count
from litejit.planner.graph import Node, Value

WINOGRAD = np.dtype([*WALK, *((name, "i8") for name in ("bias", "taps", "zeros", "tall", "ldc")), ("lo", "f4"), ("hi", "f4")],
                    align=True)
PER_ELEMENT, PER_WEIGHT = 12, 6       # of a transform, of the panels: in multiply-accumulates
RATE = {"f32": 1.0, "bf16": 2.0}      # products in the time of one of float32, by what they are made of
MOST_CHANNELS = 512                   # of tiles of 4 x 4: rounding errors grow with the channels
F32_0, LOWEST, HIGHEST = np.float32(0), np.float32(-np.inf), np.float32(np.inf)


class Tiling(NamedTuple):
    """Tiles of m x m outputs, whose products are of a kind ("f32", "bf16"); m = 0: the direct kernel."""

    m: int
    products: str


def tiling(cpu: Cpu, windows: Windows, n: int, products: str = "f32") -> Tiling:
    """The fastest for a convolution to n channels, whose direct kernel has products of that kind."""
    direct = Tiling(0, products)
    if not suits(windows) or not cpu.fma or cpu.vbytes < 32:
        return direct
    choices = [direct, Tiling(2, "f32")]
    if windows.depth <= MOST_CHANNELS:
        choices.append(Tiling(4, "f32"))
    if products == "bf16" and windows.depth % (2 * cpu.lanes) == 0:
        choices.append(Tiling(2, "bf16"))
    return min(choices, key=lambda choice: _cost(cpu, windows, n, choice))


def _cost(cpu: Cpu, windows: Windows, n: int, choice: Tiling) -> float:
    """Multiply-accumulates of float32 that take as long: those of the products in whole tiles of the GEMM, and what
    transforming an element and reading a weight cost (measured with AVX2 and AVX-512)."""
    k, lanes, (m, products) = windows.depth, cpu.lanes, choice
    columns = -(-n // lanes) * lanes
    if m == 0:
        mr = tiles(cpu).f32[0]
        return 9.0 * k * columns * (-(-windows.m // mr) * mr + PER_WEIGHT) / RATE[products]
    points, count = (m + 2) ** 2, tile_count(windows, m)
    rows = max(count, -(-count // tall_rows(cpu)) * (tall_rows(cpu) - 1))
    transforms = PER_ELEMENT * count * (-(-k // lanes) * lanes + columns)
    return float(points) * (k * columns * (rows + PER_WEIGHT) / RATE[products] + transforms)


def winograd_steps(node: Node, target: Target, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows,
                   bounds: tuple[float, float], choice: Tiling) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w [O, 3, 3, C]) + bias) in tiles of m x m; w and bias are constants."""
    cpu, k, n, (m, products) = target.cpu, windows.depth, w.dims[0], choice
    nr, half = panel_columns(cpu), products == "bf16"
    tall = tiles(cpu).f32[0] if half else tall_rows(cpu)
    pitch = staged_pitch(k) if half else -(-4 * k // 64) * 64 + 64
    fields, chunks, shared = divide(windows, n, m, nr, pitch, (tall, tall - 1), grain(cpu, products))
    source = {"x": x, "zeros": zeros(4 * k + 64)}
    params = {**fields, **source, "w": _weights(cpu, w, choice), "bias": _bias(bias, -(-n // nr) * nr), "y": y,
              "taps": _taps(w) if half else None, "point_bytes": nr * (column_bytes(k) if half else 4 * (k + 1)), "tall": tall,
              "ldc": row_pitch(node, n), "lo": bounds[0], "hi": bounds[1]}
    made = [Step(node, PRODUCTS[choice], params, chunks, macs=windows.m * n * 9 * k, products=products if half else "")]
    if shared is not None:
        made.insert(0, Step(node, INPUTS[choice], {**shared[0], **source}, shared[1]))
    return made


def _weights(cpu: Cpu, w: Value, choice: Tiling) -> Packed:
    data = w.data
    return Packed((w.key, "winograd", choice, panel_columns(cpu)),
                  lambda: pack_winograd(cpu, np.asarray(data, np.float32), *choice))


def _taps(w: Value) -> Value | Packed:
    """The weights as they are, for tiles with infinities."""
    data = w.data
    return w if w.type == "f32" else Packed((w.key, "taps"), lambda: np.asarray(data, np.float32))


def _bias(bias: Value | None, size: int) -> Packed:
    def build() -> np.ndarray:
        made = np.zeros(size, np.float32)
        if bias is not None:
            made[:bias.size] = np.asarray(bias.data).ravel()
        return made
    return Packed((None if bias is None else bias.key, "winograd bias", size), build)


# ---- kernels ---------------------------------------------------------------------------------------

@device
def product_f32(p, v, w, sums, count, columns):
    panel_gemm_f32(v, p.pitch, w, sums, f32_columns() * 4, count, p.depth, columns, p.tall, LOWEST, HIGHEST)


@device
def product_bf16(p, v, w, sums, count, columns):
    gemm_bf16(v, p.pitch, w, sums, f32_columns() * 4, count, p.depth, columns, LOWEST, HIGHEST, 0)


MULTIPLY = {"f32": product_f32, "bf16": product_bf16}


def _make_inputs(choice: Tiling) -> Any:
    """patch(p, tile, table): the addresses of a tile's inputs. inputs(p, table, first, count, v): transform tiles."""
    m, transform = choice.m, input_transform(*choice)

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
    return patch, inputs


def _make_outputs(choice: Tiling, patch: Any) -> Any:
    """outputs(p, scratch, first, count, q): the outputs of tiles in the columns of panel q."""
    m, from_points = choice.m, choice.products == "f32"
    transform, anew, points = output_transform(m), (tap_by_tap if from_points else weights_by_tap)(m), (m + 2) ** 2

    @device
    def pixels(p, tile, table, sink, offset):
        tx, r = tile % p.tiles_x, tile // p.tiles_x
        image = p.y + r // p.tiles_y * p.out_height * p.out_width * p.ldc + offset
        addresses(table, p.size - 2, image, r % p.tiles_y * m, tx * m, p.out_height, p.out_width, p.ldc, sink)

    @device
    def outputs(p, scratch, first, count, q):
        nr = f32_columns()
        columns, sums = min(nr, p.n - q * nr), scratch + p.sums_at
        table, check = scratch + TABLE_BYTES, sums - 64
        bias, weights = p.bias + 4 * q * nr, p.w + q * points * p.point_bytes if from_points else p.taps + 36 * q * nr * p.depth
        for i in range(count):
            pixels(p, first + i, table, scratch + p.sink_at, 4 * q * nr)
            transform(sums + i * nr * 4, p.sums_step, bias, table, columns, p.lo, p.hi, check)
            if load_f32(check, 0) != F32_0:
                patch(p, first + i, scratch)
                anew(scratch, weights, p.depth, bias, table, columns, p.lo, p.hi)
    return outputs


def _make(choice: Tiling) -> Any:
    """The kernels of `make_walk`."""
    patch, inputs = _make_inputs(choice)
    name = f"winograd_{choice.m}" + ("" if choice.products == "f32" else f"_{choice.products}")
    return make_walk(name, WINOGRAD, choice.m, f32_columns, inputs, MULTIPLY[choice.products], _make_outputs(choice, patch))


_KERNELS = {choice: _make(choice) for choice in (Tiling(2, "f32"), Tiling(4, "f32"), Tiling(2, "bf16"))}
INPUTS, PRODUCTS = ({choice: made[k] for choice, made in _KERNELS.items()} for k in (0, 1))
