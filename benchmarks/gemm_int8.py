"""int8 products: 1x1 convolutions and fully connected layers, against the peak of the CPU's int8 products.

    python benchmarks/gemm_int8.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import run
from shapes import DENSE, POINTWISE, dense, pointwise


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [pointwise("int8", *shape) for shape in POINTWISE] + [dense("int8", *shape) for shape in DENSE]
    return run("int8 products", cases, pointwise("int8", "tiny", 4, 8, 16), argv)


if __name__ == "__main__":
    main()
