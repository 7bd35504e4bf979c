"""float32 products: 1x1 convolutions and fully connected layers, against the peak of multiply-adds.

    python benchmarks/gemm_f32.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import run
from shapes import DENSE, POINTWISE, dense, pointwise


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [pointwise("f32", *shape) for shape in POINTWISE] + [dense("f32", *shape) for shape in DENSE]
    return run("float32 products", cases, pointwise("f32", "tiny", 4, 8, 16), argv)


if __name__ == "__main__":
    main()
