"""Right sides of 8-bit products: int8 matrices as panels of ops/simd/gemm_int8.py, packed once per model or by a step.

uint8 weights become int8 ones less 128; what their zero point leaves is a term of each row of the left side: a weight is
w - zero, and sum x' (w - zero) = sum x' w - zero * sum x', x' being the activations less their zero point.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import fill_bytes, load_i8, load_i32, store_f32, store_i16, store_i32
from litejit.ops.base import Packed, Scratch, Step
from litejit.ops.integer_product import Layout
from litejit.ops.simd.epilogues import fits_requant
from litejit.ops.simd.gemm_int8 import HEADER, corrected_bias, pack_int8, panel_bytes
from litejit.ops.simd.gemv_int8 import int8_group
from litejit.ops.simd.moves import TRANSPOSE
from litejit.ops.simd.tiles import int8_columns, tile_shape
from litejit.planner.graph import Node, Value

PACK = np.dtype([("w", "i8"), ("panels", "i8"), ("n", "i8"), ("k", "i8"), ("batch", "i8"), ("w_step", "i8"),
                 ("w_column", "i8"), ("per_matrix", "i8"), ("panel_bytes", "i8"), ("offset", "i8"), ("scale", "f4")],
                align=True)
_transpose = TRANSPOSE[4]


class RightSide:
    """The matrices w (as a Layout says they lie) with zero point `w_zero` and constant bias, for a CPU.

    row_factor: what the sum of a row's activations is multiplied with, as a term of the row.
    """

    __slots__ = ("bias", "cpu", "data", "layout", "row_factor", "w")

    def __init__(self, w: Value, w_zero: int, bias: Value | None, layout: Layout, cpu: Cpu) -> None:
        self.w, self.layout, self.cpu = w, layout, cpu
        self.bias = None if bias is None else np.asarray(bias.data).ravel()
        self.row_factor = (128 if w.type == "u8" else 0) - w_zero
        self.data = _matrices(w, layout)

    def key(self, bias: Value | None) -> tuple[Any, ...]:
        """Names the contents."""
        return (self.w.key, None if bias is None else bias.key, self.layout.w_step == 1, self.cpu.name)

    @property
    def matrix_bytes(self) -> int:
        """Bytes of the panels of one matrix."""
        return -(-self.layout.n // tile_shape(self.cpu, "int8")[1]) * panel_bytes(self.cpu, self.layout.k)

    def fits(self, scales: np.ndarray) -> bool:
        """Whether vectors may requantise with these scales (ops/simd/epilogues.py)."""
        if self.data is None:
            most = 255.0 * (128.0 + abs(self.row_factor)) * self.layout.k
            return most < 2.0**31 and most * float(scales.max()) < 2.0**31
        factor = abs(self.row_factor)
        flat = self.data if not factor else np.abs(self.data.astype(np.int16)) + factor
        return all(fits_requant(one, self.bias, scales) for one in flat)

    def panels(self, node: Node, bias: Value | None, offset: int, scales: np.ndarray | None) -> tuple[Any, list[Step]]:
        """The panels for activations with that zero point (moved as they are staged), and the steps that make them."""
        data = self.data
        if data is None:
            panels, step = self._run_time(node, offset, 0.0 if scales is None else float(scales[0]))
            return panels, [step]
        key = (*self.key(bias), "panels int8", offset, b"" if scales is None else scales.tobytes())
        return Packed(key, lambda: np.concatenate(
            [pack_int8(self.cpu, one, corrected_bias(one, self.bias, offset), scales).reshape(-1) for one in data])), []

    def _run_time(self, node: Node, offset: int, scale: float) -> tuple[Scratch, Step]:
        w, n, k = self.w, self.layout.n, self.layout.k
        count, per_matrix = w.size // (n * k), -(-n // tile_shape(self.cpu, "int8")[1])
        panels = Scratch(count * self.matrix_bytes + 64)
        params = {"w": w, "panels": panels, "n": n, "k": k, "batch": n * k, "w_step": self.layout.w_step,
                  "w_column": self.layout.w_column, "per_matrix": per_matrix, "panel_bytes": panel_bytes(self.cpu, k),
                  "offset": offset, "scale": scale}
        return panels, Step(node, pack_panels_int8, params, count * per_matrix)


def _matrices(w: Value, layout: Layout) -> np.ndarray | None:
    """Constant weights as int8 [matrices, n, k]."""
    if w.data is None:
        return None
    data = np.asarray(w.data)
    if w.type == "u8":
        data = (data.astype(np.int16) - 128).astype(np.int8)
    if layout.w_step != 1:
        return np.ascontiguousarray(data.reshape(-1, layout.k, layout.n).transpose(0, 2, 1))
    return data.reshape(-1, layout.n, layout.k)


@kernel(PACK)
def pack_panels_int8(p, begin, end):
    """A chunk is a panel; its first numbers are -offset * column sums, the second the scale."""
    nr, n, k, group = int8_columns(), p.n, p.k, int8_group()
    for c in prange(begin, end):
        column = c % p.per_matrix * nr
        w = p.w + c // p.per_matrix * p.batch + column * p.w_column
        panel, width = p.panels + c * p.panel_bytes, min(nr, n - column)
        weights, whole = panel + HEADER * nr * 4, k // group
        if width < nr or k % group != 0:
            fill_bytes(panel, 0, p.panel_bytes)
        for j in range(nr):
            store_i32(panel, j, np.int32(0))
            store_f32(panel, nr + j, p.scale)
        if group == 2:
            for i in range(k):
                for j in range(width):
                    v = load_i8(w, i * p.w_step + j * p.w_column)
                    store_i16(weights, (i // 2 * nr + j) * 2 + i % 2, np.int16(v))
                    store_i32(panel, j, np.int32(load_i32(panel, j) + v))
        elif p.w_column == 1:
            for g in range(whole + (k % group != 0)):
                here, step = w + 4 * g * p.w_step, p.w_step
                two, three, four = 4 * g + 1 < k, 4 * g + 2 < k, 4 * g + 3 < k
                if four:
                    for j in range(width):
                        pack_four(panel, weights + g * nr * 4, j, load_i8(here, j), load_i8(here + step, j),
                                  load_i8(here + 2 * step, j), load_i8(here + 3 * step, j))
                else:
                    for j in range(width):
                        pack_four(panel, weights + g * nr * 4, j, load_i8(here, j), load_i8(here + step, j) if two else 0,
                                  load_i8(here + 2 * step, j) if three else 0, 0)
        else:
            _transpose(weights, w, nr * 4, p.w_column, width, whole)
            for j in range(width):
                here, total = w + j * p.w_column, np.int32(0)
                for i in range(k):
                    total = np.int32(total + load_i8(here, i))
                store_i32(panel, j, total)
                if k % 4 != 0:
                    at = 4 * whole
                    store_i32(weights + whole * nr * 4, j, np.int32(
                        (load_i8(here, at) & 255) | (((load_i8(here, at + 1) & 255) << 8) if at + 1 < k else 0)
                        | (((load_i8(here, at + 2) & 255) << 16) if at + 2 < k else 0)))
        for j in range(nr):
            store_i32(panel, j, np.int32(load_i32(panel, j) * -p.offset))
    return 0


@device
def pack_four(sums, weights, j, a, b, c, d):
    """Lane j of a group of four weights, and its column's sum."""
    store_i32(weights, j, np.int32((a & 255) | ((b & 255) << 8) | ((c & 255) << 16) | ((d & 255) << 24)))
    store_i32(sums, j, np.int32(load_i32(sums, j) + a + b + c + d))
