"""Softmax, reductions, pooling, transposes and copies: GB/s read and written.

    python benchmarks/data.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import Case, run
from layers import Net, TensorRef
from shapes import layer


def softmax(*shape: int, type: str = "f32") -> Case:
    return layer("SOFTMAX", lambda net, x: net.softmax(x), *shape, type=type)


def reduction(name: str, axes: tuple[int, ...], *shape: int, type: str = "f32") -> Case:
    return layer(f"{name} over {','.join(map(str, axes))}", lambda net, x: net.reduce(name, x, *axes), *shape, type=type)


def transpose(order: tuple[int, ...], *shape: int, type: str = "f32") -> Case:
    return layer(f"TRANSPOSE {','.join(map(str, order))}", lambda net, x: net.transpose(x, *order), *shape, type=type)


def concat(*shape: int, type: str = "f32") -> Case:
    def make(net: Net, x: TensorRef) -> TensorRef:
        return net.concat(x, net.input(*shape))
    return layer("CONCATENATION of two", make, *shape, type=type)


def pad(*shape: int, type: str = "f32") -> Case:
    return layer("PAD by one pixel", lambda net, x: net.pad(x, (0, 0), (1, 1), (1, 1), (0, 0)), *shape, type=type)


def pool(name: str, kernel: int, stride: int, *shape: int, type: str = "f32") -> Case:
    return layer(f"{name} {kernel}x{kernel}/{stride}", lambda net, x: net.pool(name, x, kernel, stride), *shape, type=type)


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [softmax(1, 1000), softmax(1, 4, 128, 128), softmax(1, 3, 197, 197), softmax(1, 1000, type="int8"),
             softmax(1, 4, 128, 128, type="int8")]
    for type in ("f32", "int8"):
        cases += [reduction("MEAN", (1, 2), 1, 7, 7, 1280, type=type), reduction("MEAN", (1, 2), 1, 56, 56, 144, type=type),
                  reduction("MEAN", (2,), 1, 128, 256, type=type)]
    cases += [reduction("SUM", (2,), 1, 197, 192), reduction("REDUCE_MAX", (3,), 1, 4, 128, 128),
              reduction("REDUCE_MAX", (1, 2), 1, 28, 28, 256),
              transpose((0, 2, 1, 3), 1, 128, 4, 64), transpose((0, 2, 3, 1), 1, 128, 4, 64),
              transpose((0, 3, 1, 2), 1, 56, 56, 64), transpose((1, 0), 1024, 256), transpose((1, 0), 1024, 256, type="int8"),
              concat(1, 64, 64, 32), concat(1, 64, 64, 32, type="int8"), pad(1, 224, 224, 3), pad(1, 56, 56, 64),
              pool("MAX_POOL_2D", 3, 2, 1, 112, 112, 64), pool("MAX_POOL_2D", 2, 2, 1, 128, 128, 16),
              pool("MAX_POOL_2D", 3, 2, 1, 112, 112, 64, type="int8"), pool("AVERAGE_POOL_2D", 7, 7, 1, 7, 7, 1024)]
    return run("softmax, reductions, copies", cases, softmax(1, 16), argv)


if __name__ == "__main__":
    main()
