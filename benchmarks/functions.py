"""Operators of single elements: functions, arithmetic of two tensors, chains of both, conversions; GB/s read and written.

    python benchmarks/functions.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import Case, run
from layers import Net, TensorRef
from shapes import layer

SHAPES = ((1, 56, 56, 64), (1, 128, 1024))
CHAINED = ((1, 14, 14, 64), (1, 56, 56, 64), (1, 128, 1024), (1, 256, 256, 64))
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


def affine(net: Net, x: TensorRef) -> TensorRef:
    """As normalisation with constants has it."""
    row = net.floats([0.5 + c / 64 for c in range(x.tree["shape"][-1])])
    return net.binary("ADD", net.binary("MUL", x, row), row)


def hard_swish(net: Net, x: TensorRef) -> TensorRef:
    """Spelled out."""
    y = net.binary("ADD", x, net.floats(3), fused_activation_function="RELU6")
    return net.binary("MUL", x, net.binary("MUL", y, net.floats(1 / 6)))


def gelu(net: Net, x: TensorRef) -> TensorRef:
    """By tanh, spelled out."""
    cube = net.binary("MUL", net.binary("MUL", x, net.unary("SQUARE", x)), net.floats(0.044715))
    t = net.unary("TANH", net.binary("MUL", net.binary("ADD", x, cube), net.floats(0.7978846)))
    return net.binary("MUL", net.binary("ADD", t, net.floats(1)), net.binary("MUL", x, net.floats(0.5)))


def prelu(net: Net, x: TensorRef) -> TensorRef:
    """Spelled out."""
    row = net.floats([c / 64 for c in range(x.tree["shape"][-1])])
    falls = net.unary("NEG", net.unary("RELU", net.unary("NEG", x)))
    return net.binary("ADD", net.unary("RELU", x), net.binary("MUL", falls, row))


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [unary(name, *shape) for name in UNARY for shape in SHAPES]
    cases += [pair(name, *shape) for name in BINARY for shape in SHAPES]
    cases += [unary(name, *SHAPES[0], type="int8") for name in CODES]
    cases += [pair(name, *SHAPES[0], type="int8") for name in ("ADD", "MUL")]
    cases += [channels("MUL", 1, 56, 56, 64), channels("ADD", 1, 56, 56, 64), channels("MUL", 1, 14, 14, 480)]
    cases += [layer(f"chain: {make.__name__}", make, *shape) for make in (affine, hard_swish, gelu, prelu) for shape in CHAINED]
    return run("operators of single elements", cases, unary("EXP", 1, 4, 4, 8), argv)


if __name__ == "__main__":
    main()
