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
from litejit.compiler.lazy import ByAddress
from litejit.compiler.primitives import load_f32
from litejit.ops.base import Packed, Step, Target, row_pitch
from litejit.ops.conv_f32 import zeros
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.gemm_bf16 import column_bytes, gemm_bf16, staged_pitch
from litejit.ops.simd.gemm_f32 import panel_columns, panel_gemm_f32, tall_rows
from litejit.ops.simd.tiles import f32_columns, grain, tiles
from litejit.ops.simd.winograd import (
    ANEW,
    INPUT,
    OUTPUT,
    input_transform,
    output_transform,
    pack_winograd,
    tap_by_tap,
    weights_by_tap,
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
from litejit.planner.graph import Node, Value

WINOGRAD = np.dtype([*WALK, *((name, "i8") for name in ("anew", "bias", "taps", "zeros", "tall", "ldc")),
                     ("lo", "f4"), ("hi", "f4")], align=True)
PER_ELEMENT, PER_WEIGHT = 12, 6       # of a transform, of the panels: in multiply-accumulates
RATE = {"f32": 1.0, "bf16": 2.0}      # products in the time of one of float32, by what they are made of
MOST_CHANNELS = 512                   # of tiles of 4 x 4: rounding errors grow with the channels
F32_0, LOWEST, HIGHEST = np.float32(0), np.float32(-np.inf), np.float32(np.inf)


class Tiling(NamedTuple):
    """Tiles of m x m outputs, whose products are of a kind ("f32", "bf16"); m = 0: the direct kernel."""

    m: int
    products: str


_TRANSFORMS = {choice: {"input": input_transform(*choice), "output": output_transform(choice.m),
                        "anew": (tap_by_tap if choice.products == "f32" else weights_by_tap)(choice.m)}
               for choice in (Tiling(2, "f32"), Tiling(4, "f32"), Tiling(2, "bf16"))}


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
    params = {**fields, **source, **_TRANSFORMS[choice], "w": _weights(cpu, w, choice), "y": y,
              "bias": _bias(bias, -(-n // nr) * nr), "taps": _taps(w) if half else None, "tall": tall,
              "point_bytes": nr * (column_bytes(k) if half else 4 * (k + 1)), "ldc": row_pitch(node, n), "lo": bounds[0],
              "hi": bounds[1]}
    made = [Step(node, KERNELS[products], params, chunks, macs=windows.m * n * 9 * k, products=products if half else "")]
    if shared is not None:
        transform = {"input": params["input"]}
        made.insert(0, Step(node, winograd_inputs, {**shared[0], **source, **transform}, shared[1]))
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


@device
def patch(p, tile, table):
    """The addresses of a tile's inputs."""
    tx, r = tile % p.tiles_x, tile // p.tiles_x
    y, x = r % p.tiles_y * (p.size - 2) - p.top, tx * (p.size - 2) - p.left
    image = p.x + r // p.tiles_y * p.height * p.width * p.channels * 4
    addresses(table, p.size, image, y, x, p.height, p.width, 4 * p.channels, p.zeros)


@device
def pixels(p, tile, table, sink, offset):
    """The addresses of a tile's outputs, `offset` bytes into the pixels; `sink` for those outside of the image."""
    m, tx, r = p.size - 2, tile % p.tiles_x, tile // p.tiles_x
    image = p.y + r // p.tiles_y * p.out_height * p.out_width * p.ldc + offset
    addresses(table, m, image, r % p.tiles_y * m, tx * m, p.out_height, p.out_width, p.ldc, sink)


@device
def inputs(p, table, first, count, v):
    for i in range(count):
        patch(p, first + i, table)
        _input(p.input, table, v + i * p.pitch, p.v_step, p.depth)


@device
def outputs(p, scratch, first, count, q):
    nr = f32_columns()
    columns, sums, points = min(nr, p.n - q * nr), scratch + p.sums_at, p.size * p.size
    table, check, bias = scratch + TABLE_BYTES, sums - 64, p.bias + 4 * q * nr
    weights = p.taps + 36 * q * nr * p.depth if p.taps != 0 else p.w + q * points * p.point_bytes
    for i in range(count):
        pixels(p, first + i, table, scratch + p.sink_at, 4 * q * nr)
        _output(p.output, sums + i * nr * 4, p.sums_step, bias, table, columns, p.lo, p.hi, check)
        if load_f32(check, 0) != F32_0:
            patch(p, first + i, scratch)
            _anew(p.anew, scratch, weights, p.depth, bias, table, columns, p.lo, p.hi)


_input, _output, _anew = ByAddress(INPUT), ByAddress(OUTPUT), ByAddress(ANEW)
winograd_inputs = make_inputs("winograd_inputs", WINOGRAD, inputs)
KERNELS = {products: make_products(f"winograd_{products}", WINOGRAD, f32_columns, inputs, product, outputs)
           for products, product in MULTIPLY.items()}
