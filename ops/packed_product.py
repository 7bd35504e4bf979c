"""Fast 8-bit products, XNNPACK's arithmetic: packed weights, the CPU's dot product instructions, one pass over the rows."""
from __future__ import annotations

from typing import Any

from litejit.ops.base import Step, Target
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import Layout, Rounding, product_step
from litejit.planner.graph import Node, Value


def quantised_steps(node: Node, target: Target, x: Value, y: Value, w: Value, bias: Value | None, rounding: Rounding,
                    w_zero: int = 0, layout: Layout | None = None) -> list[Step]:
    """Steps of an int8 or uint8 product."""
    layout = layout or Layout(x.size // w.dims[1], *w.dims)
    return [product_step(node, x, w, y, bias, layout, rounding, x.zero_point, w_zero)]


def hybrid_steps(node: Node, target: Target, x: Value, y: Value, w: Value, bias: Value | None, rounding: Rounding,
                 layout: Layout | None = None, rows: int = 0, lie: dict[str, Any] | None = None) -> list[Step]:
    """Steps of a float32 x int8 product: rows quantised, then multiplied."""
    layout = layout or Layout(x.size // w.dims[1], *w.dims)
    made = quantise_rows(node, x, rows or layout.m, layout.k, "xnn", **(lie or {}))
    return [made.step, product_step(node, made.codes, w, y, bias, layout, rounding, x_type="i8", terms=made.terms)]
