"""What is done with the output of a float32 product while it is in registers or in the cache: a sum, or a function.

A `Tail` hangs on a node (`node.tail`, put there by a rule of the planner). A residual is added in the registers of the
GEMM's tiles; functions run over blocks of finished rows, in variants of the kernels that have their names. The numbers are
those of the operators that a tail stands for.
"""
from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from litejit.compiler import device
from litejit.compiler.lazy import Device
from litejit.ops.base import Step
from litejit.ops.elementwise import float_map, map_step
from litejit.ops.simd.functions import stream
from litejit.ops.vector_math import gelu_f32, gelu_tanh_f32, hard_swish_f32, logistic_f32, swish_f32, tanh_f32
from litejit.planner.graph import Node, Value

SCALAR = {"swish": swish_f32, "hard_swish": hard_swish_f32, "gelu": gelu_f32, "gelu_tanh": gelu_tanh_f32,
          "logistic": logistic_f32, "tanh": tanh_f32}


class Tail(NamedTuple):
    """A function of SCALAR, or a sum: `other`, as large as the output, is added and the sum clamped to `bounds`."""

    function: str = ""
    other: Value | None = None
    bounds: tuple[float, float] = (0.0, 0.0)


def function(node: Node) -> str:
    """The function of the node's tail, "" if it has none."""
    return node.tail.function if node.tail is not None else ""


def residual(node: Node, bounds: tuple[float, float]) -> dict[str, Any]:
    """Values of the fields other, lo and hi of a kernel: what is added, and the bounds of the sum or `bounds`."""
    other, (lo, hi) = None, bounds
    if node.tail is not None and node.tail.other is not None:
        other, (lo, hi) = node.tail.other, node.tail.bounds
    return {"other": other, "lo": lo, "hi": hi}


def tail_steps(node: Node) -> list[Step]:
    """The function as a step of its own, in place on the node's output: behind kernels that have no variant for it."""
    name = function(node)
    return [map_step(node, float_map(name, SCALAR[name], "f32"), node.out, node.out)] if name else []


@cache
def finish(name: str) -> Device:
    """Device function (y, pitch, rows, columns): the function on rows of the output, `pitch` bytes apart."""
    if not name:
        @device
        def nothing(y, pitch, rows, columns):
            return
        return nothing
    run = stream(name, SCALAR[name])

    @device
    def apply(y, pitch, rows, columns):
        if 4 * columns == pitch:
            run(y, y, rows * columns)
        else:
            for r in range(rows):
                run(y + r * pitch, y + r * pitch, columns)
    return apply
