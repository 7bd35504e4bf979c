"""BATCH_MATMUL: y[..., m, n] = sum_k x[..., m, k] * w[..., k, n], the leading dimensions broadcast as in NumPy.

adj_x and adj_y say that the last two dimensions of x or w are swapped. float32 (float16 as XNNPACK has it), int8 -> int8 or
int32, int16 -> int16, and hybrid float32 x int8, where the rows of x are quantised while running.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.ops.arithmetic import float_range
from litejit.ops.base import Operator, Step, Target, broadcast
from litejit.ops.float_product import Matrix, float_steps, half_steps, turned
from litejit.ops.hybrid import quantise_rows
from litejit.ops.integer_product import FIXED, FIXED64, HYBRID, HYBRID_XNN, RAW, XNN, Layout, Rounding, product_step
from litejit.ops.packed_product import hybrid_steps, quantised_steps
from litejit.ops.product_16x8 import product_16_steps
from litejit.planner.graph import Q_RANGE, Node

TYPES = {"f32": ("f32", "i8"), "f16": ("f16",), "i8": ("i8",), "i16": ("i16", "i8")}
OUTPUTS = {"f32": ("f32",), "f16": ("f16",), "i8": ("i8", "i32"), "i16": ("i16", "i32")}


class Product:
    """The sizes of a node: m, n, k, the batches, and where in x and w each batch begins (matrices)."""

    __slots__ = ("adj_x", "adj_y", "k", "m", "n", "shape", "w_at", "w_count", "x_at", "x_count")

    def __init__(self, node: Node) -> None:
        x, w = node[0].dims, node[1].dims
        self.adj_x, self.adj_y = bool(node.options and node.options.adj_x), bool(node.options and node.options.adj_y)
        self.m, self.k = (x[-1], x[-2]) if self.adj_x else (x[-2], x[-1])
        self.n, depth = (w[-2], w[-1]) if self.adj_y else (w[-1], w[-2])
        node.check(self.k == depth, lambda: f"accum_dim_lhs != accum_dim_rhs ({self.k} != {depth})")
        shape = broadcast(x[:-2], w[:-2])
        node.check(shape is not None, lambda: f"the batch dimensions of {x} and {w} do not broadcast: rhs_dim != 1")
        self.shape: tuple[int, ...] = shape or ()
        self.x_count, self.w_count = int(np.prod(x[:-2])), int(np.prod(w[:-2]))
        self.x_at, self.w_at = (tuple(int(i) for i in np.broadcast_to(
            np.arange(count).reshape(dims[:-2]), self.shape).ravel())
            for count, dims in ((self.x_count, x), (self.w_count, w)))

    def layout(self) -> Layout:
        """Strides of x and w as they lie."""
        m, n, k = self.m, self.n, self.k
        return Layout(m, n, k, [i * m * k for i in self.x_at], [i * n * k for i in self.w_at],
                      *((1, m) if self.adj_x else (k, 1)), *((k, 1) if self.adj_y else (1, n)))

    def rows(self) -> Layout:
        """The same with rows of x that lie one after the other."""
        layout = self.layout()
        layout.x_row, layout.x_step = self.k, 1
        return layout


def _adj_y(node: Node) -> bool:
    return bool(node.options and node.options.adj_y)


class BatchMatMul(Operator):
    """Options: adj_x, adj_y, asymmetric_quantize_inputs (hybrid)."""

    def delegates(self, node: Node) -> bool:
        x, w = node[0], node[1]
        if x.type == "f32" and w.type == "i8":
            return w.data is not None               # other right sides give zeros in LiteRT
        if x.type == "i8":
            return w.zero_point == 0 and not w.per_channel and node.out.type == "i8"
        return x.type in ("f32", "f16")

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        x, w = node[0], node[1]
        node.types(x, *TYPES)
        node.types(w, *TYPES[x.type])
        node.types(node.out, *OUTPUTS[x.type])
        node.check(x.rank >= 2 and w.rank >= 2, lambda: f"lhs_rank >= 2 and rhs_rank >= 2 ({x.dims}, {w.dims})")
        if x.type == "i16" and w.type == "i8":
            count, columns = 0 if w.scales is None else len(w.scales), w.dims[-2 if _adj_y(node) else -1]
            node.check(count == 1 or (w.rank == 2 and count == columns),
                       lambda: f"{w!r} needs one scale, or one per column ({count} scales, {columns} columns)")
        product = Product(node)
        return [(*product.shape, product.m, product.n)]

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, w, y = node[0], node[1], node.out
        product = Product(node)
        if product.k == 0:
            node.fail("BATCH_MATMUL of matrices with an empty inner dimension is not supported")
        if x.type == "f16" or (x.type == "f32" and w.type == "f32"):
            return _float(node, target, product)
        if x.type == "f32":
            return _hybrid(node, target, product)
        if node.xnn:
            rounding = Rounding(XNN, x.scale * w.scale / y.scale, y.zero_point, Q_RANGE[y.type])
            return quantised_steps(node, target, x, y, w, None, rounding, 0, product.layout())
        if x.type == "i16" and w.type == "i8":      # LiteRT answers zeros; these are the numbers that the scales say
            reals = np.float64(x.scale) * np.asarray(w.scales, np.float64) / np.float64(y.scale)
            rounding = Rounding(FIXED64, reals, y.zero_point, Q_RANGE[y.type])
        elif y.type == "i32":
            rounding = Rounding(RAW, 1.0, 0, Q_RANGE["i32"])
        else:
            real = np.float64(np.float32(x.scale * w.scale)) / np.float64(y.scale)
            rounding = Rounding(FIXED64 if x.type == "i16" else FIXED, real, y.zero_point, Q_RANGE[y.type])
        if x.type == "i8":
            return quantised_steps(node, target, x, y, w, None, rounding, w.zero_point, product.layout())
        return product_16_steps(node, target, w, None, product.layout(), rounding)


def _float(node: Node, target: Target, product: Product) -> list[Step]:
    x, w, y, steps = node[0], node[1], node.out, []
    m, n, k = product.m, product.n, product.k
    matrix = Matrix(w, columns=n, depth=k, transposed=product.adj_y, count=product.w_count)
    where: dict[str, Any] = {"m": m, "x_at": tuple(i * m * k for i in product.x_at), "w_at": product.w_at,
                             "bounds": float_range("NONE", node.xnn)}
    if x.type == "f16":
        return half_steps(node, target, x, y, matrix, None, turn=(product.x_count, k, m) if product.adj_x else None, **where)
    source: Any = x
    if product.adj_x:
        source, step = turned(node, x, product.x_count, k, m)
        steps.append(step)
    return steps + float_steps(node, target, source, y, matrix, None, **where)


def _hybrid(node: Node, target: Target, product: Product) -> list[Step]:
    x, w, y = node[0], node[1], node.out
    layout, rows = product.rows(), product.x_count * product.m
    scales = np.asarray(w.scales, np.float32) if w.quantised else np.ones(1, np.float32)
    rounding = Rounding(HYBRID_XNN if node.xnn else HYBRID, scales, 0, float_range("NONE", node.xnn))
    lie: dict[str, Any] = {}
    if product.adj_x:
        lie = {"inner": product.m, "x_outer": product.m * product.k, "x_row": 1, "x_step": product.m}
    asymmetric = bool(node.options and node.options.asymmetric_quantize_inputs)
    how = "xnn" if node.xnn else "asymmetric" if asymmetric else "symmetric"
    if w.data is not None:
        return hybrid_steps(node, target, x, y, w, None, rounding, layout, rows, lie, how)
    made = quantise_rows(node, x, rows, product.k, how, **lie)
    return [*made.steps, product_step(node, made.codes, w, y, None, layout, rounding, x_type="i8", terms=made.terms)]


OPERATORS = {"BATCH_MATMUL": BatchMatMul()}
