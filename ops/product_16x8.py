"""Products of int16 matrices and a constant int8 one: as convolutions of one pixel by one, of which every row is a pixel.

What else there is (weights of 16 bits or made while running, int32 results, several right sides) takes the loops of
ops/integer_product.py, along columns in one piece.
"""
from __future__ import annotations

import numpy as np

from litejit.ops.base import Scratch, Step, Target
from litejit.ops.conv_16x8 import Rounding16, conv_16_steps
from litejit.ops.conv_geometry import matrix_windows
from litejit.ops.copy import Move, copy_steps, strides
from litejit.ops.integer_product import DOUBLE, FIXED64, Layout, Rounding, product_step
from litejit.planner.constants import SLACK
from litejit.planner.graph import Node, Value

ENDS = (DOUBLE, FIXED64)              # roundings that the tiles have


def product_16_steps(node: Node, target: Target, w: Value, bias: Value | None, layout: Layout, rounding: Rounding
                     ) -> list[Step]:
    """Steps of a product of the int16 input of a node; w and the input lie as `layout` says."""
    x, y, (low, high) = node[0], node.out, rounding.bounds
    if not (_fits(x, y, w, layout) and (bias is None or bias.data is not None)) or rounding.y_zero or rounding.kind not in ENDS:
        place, layout, steps = _columns(node, w, layout)
        return [*steps, product_step(node, x, w, y, bias, layout, rounding, w_place=place)]
    made = Rounding16(bias, rounding.scales, layout.n, double=rounding.kind == DOUBLE)
    windows = matrix_windows(len(layout.x_at) * layout.m, layout.k)
    return conv_16_steps(node, target, _rows(w, layout), windows, made, (int(low), int(high)))


def _fits(x: Value, y: Value, w: Value, layout: Layout) -> bool:
    """Whether there is one constant int8 matrix, and the rows of x lie one after the other."""
    if w.data is None or w.type == "i16" or y.type != "i16" or not y.size or len(set(layout.w_at)) > 1 or layout.x_step != 1:
        return False
    return layout.x_row == layout.k and layout.x_at == tuple(range(0, x.size, layout.m * layout.k))


def _columns(node: Node, w: Value, layout: Layout) -> tuple[Value | Scratch, Layout, list[Step]]:
    """Matrices that are made while running, with columns that lie in one piece: turned, where they do not."""
    n, k = layout.n, layout.k
    if w.data is not None or k == 1 or (layout.w_column, layout.w_step) != (1, n):
        return w, layout, []
    made, count = Scratch(w.nbytes + SLACK), w.size // (n * k)
    move = Move((count, n, k), (n * k, 1, n), strides((count, n, k)))
    turned = Layout(layout.m, n, k, layout.x_at, layout.w_at, layout.x_row, layout.x_step)
    return made, turned, copy_steps(node, w, made, move, w.itemsize)


def _rows(w: Value, layout: Layout) -> Value:
    """The weights as [n, k] of int8."""
    data = np.asarray(w.data).view(np.int8)
    if layout.w_step != 1:
        data = np.ascontiguousarray(data.reshape(layout.k, layout.n).T)
    return w.derived(("rows", layout.w_step == 1), data.reshape(layout.n, layout.k), "i8")
