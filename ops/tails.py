"""What is done with the output of a float32 product while it is in registers or in the cache: a sum, or a function.

A `Tail` hangs on a node (`node.tail`, put there by a rule of the planner). A residual is added in the registers of the
GEMM's tiles; functions run over blocks of finished rows: the product's kernel calls the function's by its address, so that
neither is compiled once more. The numbers are those of the operators that a tail stands for.
"""
from __future__ import annotations

from typing import Any, NamedTuple

from litejit.compiler import device
from litejit.compiler.instructions import native
from litejit.compiler.primitives import store_i64
from litejit.ops.base import Scratch, Step
from litejit.ops.elementwise import float_map, map_step
from litejit.ops.vector_math import gelu_f32, gelu_tanh_f32, hard_swish_f32, logistic_f32, swish_f32, tanh_f32
from litejit.planner.graph import Node, Value

TAIL = [("tail", "i8"), ("record", "i8")]
"""Fields of kernels that `finish` their rows: the address of a kernel, and RECORD bytes for each chunk."""
RECORD = 64
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


def tail_params(node: Node, chunks: int) -> dict[str, Any]:
    """Values of the fields TAIL of a kernel that runs so many chunks."""
    name = function(node)
    if not name:
        return {"tail": None, "record": None}
    return {"tail": float_map(name, SCALAR[name], "f32"), "record": Scratch(RECORD * chunks)}


@device
def finish(tail, record, y, pitch, rows, columns):
    """Run the kernel at address `tail` (0: none) over rows of the output, `pitch` bytes apart; record: memory of its own."""
    if tail != 0:
        whole = 4 * columns == pitch
        n = rows * columns if whole else columns
        for r in range(1 if whole else rows):
            at = y + r * pitch
            store_i64(record, 0, at)                   # the fields x, y, n and block of ops/elementwise.py
            store_i64(record, 1, at)
            store_i64(record, 2, n)
            store_i64(record, 3, n)
            native(tail, record, 0, 1)
