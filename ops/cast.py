"""CAST between all number types.

Numbers become integers by truncation, saturated, NaN to the highest; integers become narrower ones by their low bits,
anything becomes bool by `!= 0`, a complex number gives its real part. Signs do not matter where bits are only copied or
cut, so there are fewer kernels than pairs of types.
"""
from __future__ import annotations

import functools
from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.lazy import Kernel
from litejit.compiler.primitives import store_f32
from litejit.ops.base import Operator, Step, Target
from litejit.ops.elementwise import map_step
from litejit.ops.streams import LOAD, STORE
from litejit.planner.graph import Q_RANGE, TYPES, Node, Value

CAST = np.dtype([("x", "i8"), ("y", "i8"), ("n", "i8"), ("block", "i8")], align=True)
GRAIN = 32768
REAL = ("f32", "f16", "bf16", "f64", "i8", "u8", "i16", "u16", "i32", "u32", "i64", "bool")
SMALL = ("i4", "u4", "i2")
INTEGER = {"i8": np.int8, "u8": np.uint8, "i16": np.int16, "u16": np.uint16, "i32": np.int32, "u32": np.uint32,
           "i64": np.int64}
HELD = {"bool": "u8", "i4": "i8", "u4": "u8", "i2": "i8"}         # type -> type of the byte that holds it


class Cast(Operator):
    """CAST: the types are the tensors'; options are not read."""

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        node.arity(1)
        x, y = node[0], node.out
        node.types(x, *REAL, "c64", *SMALL)
        node.types(y, *REAL, "c64", *SMALL)
        node.check({x.type, y.type}.isdisjoint(SMALL) or "f32" in (x.type, y.type),
                   lambda: f"Unsupported cast from {TYPES[x.type][0]} to {TYPES[y.type][0]}")
        return [x.dims]

    def fold(self, node: Node) -> list[np.ndarray] | None:
        data = node[0].data
        if data is None:
            return None
        return [converted(data, node.out)]

    def in_place(self, node: Node) -> tuple[int, ...]:
        return (0,)

    def steps(self, node: Node, target: Target) -> list[Step]:
        return [map_step(node, cast(*canonical(node[0].type, node.out.type)), node[0], node.out, GRAIN)]


def converted(data: np.ndarray, out: Value) -> np.ndarray:
    """An array as the type of `out`, in NumPy."""
    if data.dtype.kind == "c" and out.type != "c64":
        data = data.real
    if out.type == "bool":
        return data != 0
    if out.dtype.kind in "iu" and data.dtype.kind not in "iub":
        low, high = limits(out.type)
        wide = data.astype(np.float64)
        inside = np.where(wide < low, low, np.where(wide < high, wide, 0))
        return np.where(wide < high, np.trunc(inside).astype(np.int64), high).astype(out.dtype)
    return data.astype(out.dtype)


def limits(type: str) -> tuple[int, int]:
    """Lowest and highest number of an integer type."""
    if type in SMALL:
        return Q_RANGE[type]
    info: Any = np.iinfo(np.dtype(INTEGER[type]))
    return int(info.min), int(info.max)


def canonical(source: str, target: str) -> tuple[str, str]:
    """The pair of types whose kernel does this cast."""
    source = HELD.get(source, source)
    if target in SMALL:
        return source, target
    bits, out_bits = 8 * TYPES[source][2], 8 * TYPES[target][2]
    if source == target or (source in INTEGER and target in INTEGER and out_bits <= bits):
        return f"u{bits}", f"u{out_bits}"
    if source in INTEGER:
        return (f"u{bits}", target) if target == "bool" else (
            source, f"u{out_bits}" if target in INTEGER else target)
    return source, target


OPERATORS: dict[str, Operator] = {"CAST": Cast()}


def _saturating(source: str, target: str) -> Any:
    """Device function: a float as an integer of the type."""
    real: Any = np.float64 if source == "f64" else np.float32
    low, high = limits(target)
    bottom, top, most, integer = real(low), real(high + 1), high, INTEGER[HELD.get(target, target)]

    @device
    def convert(v):
        inside = v if v < top else real(0)                  # NaN and what is too large are replaced below
        inside = bottom if inside < bottom else inside
        made = integer(inside)
        return made if v < top else integer(most)
    return convert


def _conversion(source: str, target: str) -> Any:
    """Device function: a loaded element as what is stored."""
    if target == "bool":
        return device(lambda v: np.uint8(1 if v != 0 else 0))
    if target in ("f32", "f16", "bf16", "c64"):
        return device(lambda v: np.float32(v))
    if target == "f64":
        return device(lambda v: np.float64(v))
    if source in ("f32", "f16", "bf16", "f64", "c64"):
        return _saturating(source, target)
    integer = {**INTEGER, "u64": np.uint64}[target]
    return device(lambda v: integer(v))


@functools.cache
def cast(source: str, target: str) -> Kernel:
    """The kernel of a canonical pair of types."""
    load = LOAD["f32" if source == "c64" else source]
    store = STORE["f32" if target == "c64" else HELD.get(target, target)]
    convert = _conversion(source, target)
    step, out_step = 2 if source == "c64" else 1, 2 if target == "c64" else 1

    @kernel(CAST, name=f"cast_{source}_{target}")
    def run(p, begin, end):
        x, y, n, block = p.x, p.y, p.n, p.block
        for c in prange(begin, end):
            for i in range(c * block, min(n, (c + 1) * block)):
                store(y, i * out_step, convert(load(x, i * step)))
                if out_step == 2:
                    store_f32(y, i * 2 + 1, np.float32(0))
        return 0
    return run
