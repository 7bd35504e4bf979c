"""One row times a matrix, float32 and int8: bound by reading the weights.

    python benchmarks/gemv.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import run
from shapes import TYPES, dense

SHAPES = (("autoencoder", 1, 128, 128), ("autoencoder", 1, 640, 128), ("MobileNet", 1, 1024, 1000),
          ("MobileNet v2", 1, 1280, 1000), ("ResNet50", 1, 2048, 1000), ("BERT pooler", 1, 768, 768),
          ("large", 1, 4096, 4096))


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [dense(type, *shape) for type in TYPES for shape in SHAPES]
    return run("one row times a matrix", cases, dense("f32", "tiny", 1, 16, 16), argv)


if __name__ == "__main__":
    main()
