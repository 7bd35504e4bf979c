"""Operators of single elements: functions, arithmetic of two tensors, conversions; GB/s read and written.

    python benchmarks/functions.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import Case, run
from layers import Net, TensorRef
from shapes import layer

SHAPES = ((1, 56, 56, 64), (1, 128, 1024))
UNARY = ("EXP", "LOG", "SQRT", "RSQRT", "LOGISTIC", "TANH", "HARD_SWISH", "GELU", "RELU", "ABS", "NEG", "FLOOR")
BINARY = ("ADD", "MUL", "SUB", "DIV", "MAXIMUM", "SQUARED_DIFFERENCE")
CODES = ("LOGISTIC", "TANH", "HARD_SWISH", "RELU")


def unary(name: str, *shape: int, type: str = "f32") -> Case:
    return layer(name, lambda net, x: net.unary(name, x), *shape, type=type)


def pair(name: str, *shape: int, type: str = "f32") -> Case:
    """Of two tensors of one shape."""
    def make(net: Net, x: TensorRef) -> TensorRef:
        return net.binary(name, x, net.input(*shape))
    return layer(name, make, *shape, type=type)


def channels(name: str, *shape: int, type: str = "f32") -> Case:
    """With a number for every channel of an image."""
    def make(net: Net, x: TensorRef) -> TensorRef:
        return net.binary(name, x, net.input(1, 1, 1, shape[-1]))
    return layer(f"{name} by channel", make, *shape, type=type)


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [unary(name, *shape) for name in UNARY for shape in SHAPES]
    cases += [pair(name, *shape) for name in BINARY for shape in SHAPES]
    cases += [unary(name, *SHAPES[0], type="int8") for name in CODES]
    cases += [pair(name, *SHAPES[0], type="int8") for name in ("ADD", "MUL")]
    cases += [channels("MUL", 1, 56, 56, 64), channels("ADD", 1, 56, 56, 64), channels("MUL", 1, 14, 14, 480)]
    return run("operators of single elements", cases, unary("EXP", 1, 4, 4, 8), argv)


if __name__ == "__main__":
    main()
