"""PRELU: x, or alpha * x below 0; alpha is broadcast to the shape of x."""
from __future__ import annotations

import functools

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.ops.arithmetic import mbqm, quantize_multiplier, saturate
from litejit.ops.base import Operator, Step, Target, broadcast, chunked
from litejit.ops.broadcast import Kernels, broadcast_kernels, broadcast_steps, layout
from litejit.ops.streams import LOAD, STORE
from litejit.ops.tables import check_codes
from litejit.planner.graph import Q_RANGE, Node

DIMS = 8
PARAMS = np.dtype([
    ("x", "i8"), ("alpha", "i8"), ("y", "i8"), ("rows", "i8"), ("row", "i8"), ("block", "i8"), ("step", "i8"),
    ("dims", "i8"),
    ("shape", "i8", (DIMS,)), ("stride", "i8", (DIMS,)), ("x_zero", "i8"), ("alpha_zero", "i8"), ("y_zero", "i8"),
    ("rise", "i8"), ("rise_shift", "i8"), ("fall", "i8"), ("fall_shift", "i8")], align=True)
PLAIN = layout()
GRAIN = 16384
FLOATS = ("f32", "f16")


class Prelu(Operator):
    """PRELU."""

    def delegates(self, node: Node) -> bool:
        return node[0].type in FLOATS and node[1].constant

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(2)
        x, alpha = node[0], node[1]
        node.types(x, *FLOATS, "i8", "u8", "i16")
        node.same_type(x, alpha)
        node.same_type(x, node.out)
        if x.type not in FLOATS:
            check_codes(node, x, alpha, node.out)
        shape = broadcast(x.dims, alpha.dims)
        node.check(shape == x.dims, lambda: "Error: alpha is not broadcastable to the input "
                                            f"(HaveSameShapes(input, output)): {alpha.dims}, {x.dims}")
        node.check(x.rank <= DIMS, f"at most {DIMS} dimensions")
        return [x.dims]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        x, alpha, y = node[0], node[1], node.out
        if x.type in FLOATS:
            return broadcast_steps(node, prelu_float(x.type), {})
        shape, stride = _collapsed(x.dims, alpha.dims)
        row, step = shape[-1], stride[-1]
        rows = x.size // row
        chunks, block = chunked(rows, max(1, GRAIN // row))
        outer = list(zip(shape, stride))[:-1]                   # those that move alpha, the innermost first
        while outer and outer[0][1] == 0:
            del outer[0]
        outer = outer[::-1]
        fill = DIMS - len(outer)
        params: dict[str, object] = {
            "x": x, "alpha": alpha, "y": y, "rows": rows, "row": row, "block": block, "step": step, "dims": len(outer),
            "shape": tuple(d for d, _ in outer) + (1,) * fill, "stride": tuple(s for _, s in outer) + (0,) * fill}
        rise = quantize_multiplier(float(x.scale / y.scale))
        fall = quantize_multiplier(float(x.scale * alpha.scale / y.scale))
        params |= {"x_zero": x.zero_point, "alpha_zero": alpha.zero_point, "y_zero": y.zero_point, "rise": rise[0],
                   "rise_shift": rise[1], "fall": fall[0], "fall_shift": fall[1]}
        return [Step(node, prelu_quantised(x.type), params, chunks)]


def _collapsed(shape: tuple[int, ...], small: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(shape, strides of alpha in elements) with neighbouring dimensions merged; the last stride is 0 or 1."""
    small = (1,) * (len(shape) - len(small)) + small
    dims: list[tuple[int, bool]] = []
    for d, s in zip(shape, small):
        if d == 1:
            continue
        varies = s != 1
        if dims and dims[-1][1] == varies:
            dims[-1] = (dims[-1][0] * d, varies)
        else:
            dims.append((d, varies))
    stride, strides = 1, []
    for d, varies in reversed(dims):
        strides.append(stride if varies else 0)
        stride *= d if varies else 1
    return tuple(d for d, _ in dims) or (1,), tuple(reversed(strides)) or (0,)


OPERATORS: dict[str, Operator] = {"PRELU": Prelu()}


@device
def nothing(p):
    return 0


@device
def rectified(k, x, alpha):
    return x * alpha if x < 0 else x


@functools.cache
def prelu_float(type: str) -> Kernels:
    """x and alpha, element by element."""
    return broadcast_kernels(f"prelu_{type}", PLAIN, LOAD[type], STORE[type], nothing, rectified)


@functools.cache
def prelu_quantised(type: str) -> Kernel:
    """Rows of one x and of alpha, which moves with x or stays, in codes."""
    load, store, narrow = LOAD[type], STORE[type], {"i8": np.int8, "u8": np.uint8, "i16": np.int16}[type]
    low, high = Q_RANGE[type]

    @kernel(PARAMS, name=f"prelu_{type}")
    def run(p, begin, end):
        x, y, alpha, n, step, dims = p.x, p.y, p.alpha, p.row, p.step, p.dims
        x_zero, alpha_zero, y_zero = p.x_zero, p.alpha_zero, p.y_zero
        rise, rise_shift, fall, fall_shift = p.rise, p.rise_shift, p.fall, p.fall_shift
        for c in prange(begin, end):
            for r in range(c * p.block, min(p.rows, (c + 1) * p.block)):
                at, rest = 0, r
                for d in range(dims):
                    at += rest % p.shape[d] * p.stride[d]
                    rest //= p.shape[d]
                for i in range(n):
                    v = np.int64(load(x, r * n + i)) - x_zero
                    slope = np.int64(load(alpha, at + i * step)) - alpha_zero
                    made = mbqm(v, rise, rise_shift) if v >= 0 else mbqm(v * slope, fall, fall_shift)
                    store(y, r * n + i, narrow(saturate(made + y_zero, low, high)))
        return 0
    return run
