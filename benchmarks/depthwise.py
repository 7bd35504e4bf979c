"""Depthwise convolutions, float32 and int8.

    python benchmarks/depthwise.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import run
from shapes import DEPTHWISE, TYPES, depthwise


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [depthwise(type, *shape) for type in TYPES for shape in DEPTHWISE]
    return run("depthwise convolutions", cases, depthwise("f32", "tiny", 6, 8, 3, 1), argv)


if __name__ == "__main__":
    main()
