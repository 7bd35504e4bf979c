"""ADD SUB MUL DIV SQUARED_DIFFERENCE on quantised codes, in the arithmetic of LiteRT's kernels and of XNNPACK.

XNNPACK's are 32-bit throughout and vectorise into 32-bit lanes; those of the kernels multiply in 64 bits.
"""
from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import target
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import bits_f32, rint_f32
from litejit.ops.arithmetic import (
    act_range,
    activation,
    fixed_point,
    mbqm,
    one_over_one_plus_x,
    quantize_multiplier,
    rdivpot,
    saturate,
    srdhm,
    wrap32,
    xnn_act_range,
)
from litejit.ops.base import Step, chunked
from litejit.ops.broadcast import GRAIN, Kernels, broadcast_kernels, broadcast_runs, broadcast_steps, collapse, layout
from litejit.ops.division import checked_step
from litejit.ops.simd.scaled_binary import NAMES, left_shift, scaled_binary
from litejit.ops.simd.xnn_product import xnn_product
from litejit.ops.simd.xnn_sum import xnn_sum
from litejit.ops.streams import LOAD, STORE, sra_i32
from litejit.ops.tables import by_function, lookup_steps
from litejit.planner.graph import Node, Value

_Z = (("za", "i4"), ("zb", "i4"), ("zero", "i4"), ("low", "i4"), ("high", "i4"))
SUM = layout(*_Z, ("left", "i4"), ("ma", "i4"), ("mb", "i4"), ("m", "i4"), ("ea", "i4"), ("eb", "i4"), ("e", "i4"),
             ("sign", "i4"))
PRODUCT = layout(*_Z, ("m", "i4"), ("e", "i4"))
XNN_SUM = layout(("bias", "i4"), ("ma", "i4"), ("mb", "i4"), ("shift", "i4"), ("zero", "i4"), ("low", "i4"),
                 ("high", "i4"))
XNN_PRODUCT = layout(("za", "i4"), ("zb", "i4"), ("zero", "i4"), ("scale", "f4"), ("low", "f4"), ("high", "f4"))
XNN_ROWS = np.dtype([*((name, "i8") for name in ("x", "row", "y", "rows", "n", "block", "zx", "zr", "zero", "low", "high")),
                     ("scale", "f4")], align=True)
LEAST = 16                            # elements of a row that are worth vectors of their own
_f = np.float32


def delegates(node: Node, name: str) -> bool:
    """XNNPACK's limits on scales."""
    a, b, out = node[0], node[1], node.out
    if not out.type == a.type == b.type or any(v.per_channel for v in (a, b, out)):
        return False
    if name == "MUL":
        return bool(2.0**-16 <= a.scale * b.scale / out.scale < 2.0**8)
    return all(bool(2.0**-10 <= v.scale / out.scale < 2.0**8) for v in (a, b))


def check(node: Node, name: str) -> None:
    """Every tensor needs one positive scale; int16 has no zero point; int16 sums by shifts need fitting scales."""
    for value in (node[0], node[1], node.out):
        if not (value.quantised and not value.per_channel and 0 < value.scale < math.inf):
            node.fail(f"{value!r} needs quantization parameters: one positive scale")
        if value.type == "i16" and value.zero_point != 0:
            node.fail(f"zero_point != 0: {value!r} is INT16 and must be quantised symmetrically")
    if name in ("ADD", "SUB") and by_shifts(node):
        ea, eb = _exponents(node)
        node.check(max(ea, eb) == 0, f"input1_shift == 0 || input2_shift == 0 was not true: scales 2**{ea} and 2**{eb} "
                                     "of the output's")


# ---- ADD and SUB -------------------------------------------------------------------------------------

def _log2(value: Value) -> tuple[int, bool]:
    exact = math.log2(float(value.scale))
    return round(exact), abs(exact - round(exact)) < 1e-3


def by_shifts(node: Node) -> bool:
    """Whether an int16 sum has three scales that are powers of two, and is asked to use them."""
    return (node[0].type == "i16" and getattr(node.options, "pot_scale_int16", True)
            and all(_log2(v)[1] for v in (node[0], node[1], node.out)))


def _exponents(node: Node) -> tuple[int, int]:
    out = _log2(node.out)[0]
    return _log2(node[0])[0] - out, _log2(node[1])[0] - out


def _zero_points(node: Node) -> dict[str, Any]:
    low, high = act_range(activation(node), node.out.scale, node.out.zero_point, node.out.type)
    return {"za": node[0].zero_point, "zb": node[1].zero_point, "zero": node.out.zero_point, "low": low, "high": high}


def _scaled_inputs(node: Node, left: int) -> tuple[dict[str, Any], float]:
    """Both inputs brought to twice the larger scale, after a shift to the left; that scale."""
    a, b = node[0].scale, node[1].scale
    twice = float(_f(2) * max(a, b))
    (ma, ea), (mb, eb) = quantize_multiplier(float(a) / twice), quantize_multiplier(float(b) / twice)
    return {"left": left, "ma": ma, "ea": ea, "mb": mb, "eb": eb}, twice


def sum_steps(node: Node, name: str) -> list[Step]:
    """ADD and SUB."""
    type, sign = node[0].type, -1 if name == "SUB" else 1
    if node.xnn:
        kernels = xnn_pairs_kernels if target().arch == "x86_64" else xnn_sum_kernels
        return broadcast_steps(node, kernels(type), _xnn_sum(node, sign))
    if by_shifts(node):
        ea, eb = _exponents(node)
        return broadcast_steps(node, shifted_sum_kernels(), {**_zero_points(node), "ea": -ea, "eb": -eb, "sign": sign})
    kind = name.lower()
    params, twice = _scaled_inputs(node, left := left_shift(kind, type))
    m, e = fixed_point(twice / float(_f(1 << left) * node.out.scale), 1)
    params.update(_zero_points(node), m=int(m[0]), e=int(e[0]))
    return broadcast_steps(node, scaled_kernels(kind, type), params)


def _xnn_sum(node: Node, sign: int) -> dict[str, Any]:
    """XNNPACK's multipliers: the ratios to the output's scale with the larger one in [2**20, 2**21)."""
    a, b, out = node[0], node[1], node.out
    ra, rb = a.scale / out.scale, b.scale / out.scale
    shift = 20 - (math.frexp(float(max(ra, rb)))[1] - 1)
    ma, mb = int(np.rint(np.ldexp(ra, shift))), sign * int(np.rint(np.ldexp(rb, shift)))
    low, high = xnn_act_range(activation(node), out.scale, out.zero_point, out.type)
    bias = (1 << (shift - 1)) - a.zero_point * ma - b.zero_point * mb
    return {"bias": (bias + (1 << 31)) % (1 << 32) - (1 << 31), "ma": ma, "mb": mb, "shift": shift,
            "zero": out.zero_point, "low": low, "high": high}


@functools.cache
def xnn_sum_kernels(type: str) -> Kernels:
    @device
    def constants(p):
        return p.bias, p.ma, p.mb, p.shift, p.zero, p.low, p.high

    @device
    def formula(k, x, y):
        bias, ma, mb, shift, zero, low, high = k
        return min(max(np.int32(sra_i32(np.int32(bias + x * ma + y * mb), shift) + zero), low), high)
    return broadcast_kernels(f"xnn_add_{type}", XNN_SUM, LOAD[type], STORE[type], constants, formula)


@functools.cache
def xnn_pairs_kernels(type: str) -> Kernels:
    """The same with a micro-kernel for tensors of one shape."""
    run = xnn_sum(type)

    @kernel(XNN_SUM, name=f"xnn_add_{type}_pairs")
    def flat(p, begin, end):
        for c in prange(begin, end):
            at = c * p.block
            run(p.a + at, p.b + at, p.y + at, min(p.block, p.total - at), p.bias, p.ma, p.mb, p.shift, p.zero, p.low, p.high)
        return 0
    return Kernels(flat, xnn_sum_kernels(type).nest)


@functools.cache
def scaled_kernels(kind: str, type: str) -> Kernels:
    """ADD, SUB or SQUARED_DIFFERENCE ("add", "sub", "square") of both inputs at one scale."""
    micro, size = scaled_binary(kind, type), 2 if type == "i16" else 1
    both, one_a, one_b = (micro[fixed] for fixed in ("", "a", "b"))

    @device
    def run(p, at, ia, ib, n):
        a, b, y = p.a + ia * size, p.b + ib * size, p.y + at * size
        if p.a0 == 0:
            one_a(a, b, y, n, p.za, p.ma, p.ea, p.zb, p.mb, p.eb, p.m, p.e, p.zero, p.low, p.high)
        elif p.b0 == 0:
            one_b(a, b, y, n, p.za, p.ma, p.ea, p.zb, p.mb, p.eb, p.m, p.e, p.zero, p.low, p.high)
        else:
            both(a, b, y, n, p.za, p.ma, p.ea, p.zb, p.mb, p.eb, p.m, p.e, p.zero, p.low, p.high)
    return broadcast_runs(f"{NAMES[kind]}_{type}_scaled", SUM, run)


@functools.cache
def shifted_sum_kernels() -> Kernels:
    @device
    def halved(x, half, e):
        """`rdivpot` in 32 bits: x / 2**e rounded, halves away from zero; half: 2**(e - 1), or 0."""
        return sra_i32(np.int32(x + half + (sra_i32(np.int32(x), np.int32(31)) if half else 0)), e)

    @device
    def constants(p):
        return (1 << p.ea) >> 1, p.ea, (1 << p.eb) >> 1, p.eb, p.sign, p.low, p.high

    @device
    def formula(k, x, y):
        ha, ea, hb, eb, sign, low, high = k
        return min(max(np.int32(halved(x, ha, ea) + sign * halved(y, hb, eb)), low), high)
    return broadcast_kernels("add_i16_shifted", SUM, LOAD["i16"], STORE["i16"], constants, formula)


def squared_difference_steps(node: Node, name: str) -> list[Step]:
    """SQUARED_DIFFERENCE of int8."""
    params, twice = _scaled_inputs(node, left := left_shift("square", "i8"))
    m, e = fixed_point(twice * twice / float(_f(1 << 2 * left) * node.out.scale), 1)
    params.update(_zero_points(node), low=-128, high=127, m=int(m[0]), e=int(e[0]))
    return broadcast_steps(node, scaled_kernels("square", "i8"), params)


# ---- MUL ---------------------------------------------------------------------------------------------

def product_steps(node: Node, name: str) -> list[Step]:
    """MUL."""
    a, b, out = node[0], node[1], node.out
    if out.type != a.type:
        return broadcast_steps(node, high_product_kernels(out.type), _zero_points(node))
    scale = a.scale * b.scale / out.scale
    if node.xnn:
        low, high = xnn_act_range(activation(node), out.scale, out.zero_point, out.type)
        if a is b:
            return lookup_steps(node, _squares, low, high)
        rows = _rows(a, b)
        if rows is not None:
            x, row, count, n = rows
            chunks, block = chunked(count if count > 1 else n, max(1, GRAIN // (n if count > 1 else 1)))
            return [Step(node, xnn_rows_kernel(a.type), {
                "x": x, "row": row, "y": out, "rows": count, "n": n, "block": block, "zx": x.zero_point, "zr": row.zero_point,
                "zero": out.zero_point, "low": low, "high": high, "scale": scale}, chunks)]
        return broadcast_steps(node, xnn_product_kernels(a.type), {
            "za": a.zero_point, "zb": b.zero_point, "zero": out.zero_point, "scale": scale,
            "low": low - out.zero_point, "high": high - out.zero_point})
    m, e = quantize_multiplier(float(scale))
    return broadcast_steps(node, product_kernels(a.type), {**_zero_points(node), "m": m, "e": e})


def _squares(node: Node, q: np.ndarray) -> np.ndarray:
    """XNNPACK turns the product of a tensor with itself into its function of one input, which rounds on its own."""
    low, high = xnn_act_range(activation(node), node.out.scale, node.out.zero_point, node.out.type)
    return np.clip(by_function(node, q, np.square), low, high)


def xnn_codes(node: Node, a: np.ndarray, b: np.ndarray, square: bool = False) -> np.ndarray:
    """What XNNPACK's ADD, SUB or MUL makes of codes, in NumPy; square: of a tensor and itself."""
    x, z, y = node[0], node[1], node.out
    low, high = xnn_act_range(activation(node), y.scale, y.zero_point, y.type)
    if node.op != "MUL":
        p = _xnn_sum(node, -1 if node.op == "SUB" else 1)
        total = (p["bias"] + a.astype(np.int64) * p["ma"] + b.astype(np.int64) * p["mb"]).astype(np.int32)
        return np.clip((total >> p["shift"]) + y.zero_point, low, high).astype(y.dtype)
    if square and x is z:
        return _squares(node, a.astype(np.int64)).astype(y.dtype)
    products = (a.astype(np.int32) - x.zero_point) * (b.astype(np.int32) - z.zero_point)
    scaled = np.clip(products.astype(_f) * (x.scale * z.scale / y.scale), _f(low - y.zero_point), _f(high - y.zero_point))
    return (np.rint(scaled).astype(np.int32) + y.zero_point).astype(y.dtype)


def _rows(a: Value, b: Value) -> tuple[Value, Value, int, int] | None:
    """(x, row, how many rows x has, their length), where one operand is rows and the other one a row for all of them."""
    nest = collapse(a.dims, b.dims)
    if nest.dims[0] < LEAST:
        return None
    if nest.strides == ((1,), (1,)):
        return a, b, 1, nest.dims[0]
    for x, row, strides in ((a, b, nest.strides), (b, a, nest.strides[::-1])):
        if strides == ((1, nest.dims[0]), (1, 0)):
            return x, row, nest.dims[1], nest.dims[0]
    return None


@functools.cache
def xnn_rows_kernel(type: str) -> Kernel:
    run = xnn_product(type)

    @kernel(XNN_ROWS, name=f"xnn_mul_{type}_rows")
    def rows(p, begin, end):
        """A chunk is some rows, or some elements where there is one row."""
        for c in prange(begin, end):
            first, step = c * p.block, p.n if p.rows > 1 else 1
            count, n = (min(p.block, p.rows - first), p.n) if p.rows > 1 else (1, min(p.block, p.n - first))
            at = first * step
            run(p.x + at, p.row + (0 if p.rows > 1 else at), p.y + at, count, n, p.zx, p.zr, p.zero, p.low, p.high, p.scale)
        return 0
    return rows


@functools.cache
def xnn_product_kernels(type: str) -> Kernels:
    @device
    def constants(p):
        return p.za, p.zb, p.zero, p.scale, p.low, p.high

    @device
    def formula(k, x, y):
        za, zb, zero, scale, low, high = k
        v = np.float32(np.int32((x - za) * (y - zb))) * scale
        return np.int32(np.int32(rint_f32(min(max(v, low), high))) + zero)
    return broadcast_kernels(f"xnn_mul_{type}", XNN_PRODUCT, LOAD[type], STORE[type], constants, formula)


@device
def product_constants(p):
    return p.za, p.zb, p.zero, p.low, p.high, p.m, p.e


@device
def output_constants(p):
    return p.zero, p.low, p.high


@functools.cache
def product_kernels(type: str) -> Kernels:
    @device
    def formula(k, x, y):
        za, zb, zero, low, high, m, e = k
        return saturate(mbqm((x - za) * (y - zb), m, e) + zero, low, high)
    return broadcast_kernels(f"mul_{type}_scaled", PRODUCT, LOAD[type], STORE[type], product_constants, formula)


@functools.cache
def high_product_kernels(type: str) -> Kernels:
    """int16 x int16 -> 8 bits: the high half of the product (a fraction of 2**15), its 8 low bits rounded off."""
    @device
    def formula(k, x, y):
        zero, low, high = k
        fraction = min((np.int64(x) * y + (1 << 14)) >> 15, 32767)
        return saturate(rdivpot(fraction, 8) + zero, low, high)
    return broadcast_kernels(f"mul_i16_{type}", PRODUCT, LOAD["i16"], STORE[type], output_constants, formula)


# ---- DIV ---------------------------------------------------------------------------------------------

def quotient_steps(node: Node, name: str) -> list[Step]:
    """DIV."""
    a, b, out = node[0], node[1], node.out
    m, e = quantize_multiplier(float(a.scale / (b.scale * out.scale)))
    return [*checked_step(node, "zero", 3, b.zero_point),
            *broadcast_steps(node, quotient_kernels(a.type), {**_zero_points(node), "m": m, "e": e}, grain=GRAIN // 8)]


@device
def bit_length(x):
    """Bits of a number from 0 to 2**24."""
    return (np.int64(bits_f32(np.float32(x))) >> 23) - 126 if x > 0 else 0


@device
def scaled_quotient(x, y, m, e):
    """x / y * m * 2**(e - 31), y != 0, by the reciprocal of y in fixed point (LiteRT's DivElementwise)."""
    if y < 0:
        x, y = -x, -y
    zeros = 32 - bit_length(y)
    inverse = one_over_one_plus_x((y << zeros) - (1 << 31))
    head = 31 - bit_length(x if x >= 0 else ~x)
    v = srdhm(srdhm(wrap32(x << head), inverse), m)
    down = head + 31 - zeros - e
    if down > 31:                                # undefined in the original: what x86 makes of such a shift
        return (v >> (down & 31)) + (1 if v >= 0 else 0)
    return rdivpot(v, max(down, 0))


@functools.cache
def quotient_kernels(type: str) -> Kernels:
    @device
    def formula(k, x, y):
        za, zb, zero, low, high, m, e = k
        return saturate(scaled_quotient(np.int64(x) - za, np.int64(y) - zb, m, e) + zero, low, high)
    return broadcast_kernels(f"div_{type}_scaled", PRODUCT, LOAD[type], STORE[type], product_constants, formula)
