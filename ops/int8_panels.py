"""Right sides of 8-bit products: int8 matrices as panels of ops/simd/gemm_int8.py, packed once per model or by a step.

uint8 weights become int8 ones less 128; what their zero point leaves is a term of each row of the left side: a weight is
w - zero, and sum x' (w - zero) = sum x' w - zero * sum x', x' being the activations less their zero point.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import copy_bytes
from litejit.ops.base import Packed, Scratch, Step
from litejit.ops.integer_product import Layout
from litejit.ops.simd.epilogues import fits_requant
from litejit.ops.simd.gemm_int8 import column_numbers, corrected_bias, pack_int8, panel_bytes
from litejit.ops.simd.nibbles import LONGEST
from litejit.ops.simd.pack_int8 import interleave, pack_rows
from litejit.ops.simd.stage_int8 import staged_pitch
from litejit.ops.simd.tiles import int8_columns, tile_shape
from litejit.planner.graph import Node, Value

PACK = np.dtype([("w", "i8"), ("panels", "i8"), ("n", "i8"), ("k", "i8"), ("batch", "i8"), ("w_step", "i8"),
                 ("w_column", "i8"), ("per_matrix", "i8"), ("panel_bytes", "i8"), ("offset", "i8"), ("numbers", "i8"),
                 ("staged", "i8"), ("staged_size", "i8"), ("pitch", "i8")], align=True)


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

    def matrix_bytes(self, narrow: int = 0) -> int:
        """Bytes of the panels of one matrix."""
        return -(-self.layout.n // tile_shape(self.cpu, "int8")[1]) * panel_bytes(self.cpu, self.layout.k, narrow=narrow)

    @property
    def narrow(self) -> int:
        """Bits of a weight in panels for a single row; 0: as in those of tiles."""
        if self.data is None:
            return 0
        return 4 if self.w.type in ("i4", "i2") and self.layout.k <= LONGEST else 8

    def fits(self, scales: np.ndarray) -> bool:
        """Whether vectors may requantise with these scales (ops/simd/epilogues.py)."""
        if self.data is None:
            most = 255.0 * (128.0 + abs(self.row_factor)) * self.layout.k
            return most < 2.0**31 and most * float(scales.max()) < 2.0**31
        return all(fits_requant(one, self.bias, scales, abs(self.row_factor)) for one in self.data)

    def panels(self, node: Node, bias: Value | None, offset: int, numbers: tuple[np.ndarray, ...], narrow: int = 0
               ) -> tuple[Any, list[Step]]:
        """The panels for activations with that zero point (moved as they are staged), and the steps that make them.

        numbers: the second and the third ones of the columns [n]; the same for all of them where w is no constant.
        narrow: bits of their weights on every CPU (`narrow`); constants only.
        """
        data = self.data
        named = tuple((one.dtype.char, one.tobytes()) for one in numbers)
        if data is None:
            panels, step = self._run_time(node, offset, numbers, named)
            return panels, [step]
        return Packed((*self.key(bias), "panels int8", narrow, offset, *named), lambda: np.concatenate(
            [pack_int8(self.cpu, one, corrected_bias(one, self.bias, offset), *numbers, narrow=narrow).reshape(-1)
             for one in data])), []

    def _run_time(self, node: Node, offset: int, numbers: tuple[np.ndarray, ...], named: tuple[Any, ...]
                  ) -> tuple[Scratch, Step]:
        w, n, k, cpu, nr = self.w, self.layout.n, self.layout.k, self.cpu, tile_shape(self.cpu, "int8")[1]
        count, per_matrix, pitch = w.size // (n * k), -(-n // nr), staged_pitch(cpu, k)
        panels = Scratch(count * self.matrix_bytes() + 64)
        chunks, size = count * per_matrix, nr * pitch + 64
        first: list[Any] = [np.broadcast_to(one[:1], (nr,)) for one in numbers] or [None]
        params = {"w": w, "panels": panels, "n": n, "k": k, "batch": n * k, "w_step": self.layout.w_step,
                  "w_column": self.layout.w_column, "per_matrix": per_matrix, "panel_bytes": panel_bytes(cpu, k),
                  "offset": offset, "numbers": Packed(("numbers", nr, *named), lambda: column_numbers(cpu, nr, *first)),
                  "staged": Scratch(chunks * size), "staged_size": size, "pitch": pitch}
        return panels, Step(node, pack_panels_int8, params, chunks)


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
    """A chunk is a panel; its first numbers are -offset * column sums."""
    nr, staged = int8_columns(), p.staged + begin * p.staged_size
    for c in prange(begin, end):
        column = c % p.per_matrix * nr
        w = p.w + c // p.per_matrix * p.batch + column * p.w_column
        panel = p.panels + c * p.panel_bytes
        copy_bytes(panel + nr * 4, p.numbers, nr * 8)
        if p.w_column == 1:
            interleave(w, p.w_step, panel, p.k, p.offset)
        else:
            pack_rows(w, p.w_column, panel, min(nr, p.n - column), p.k, staged, p.pitch, p.offset)
    return 0
