"""Convolutions of windows: float32 (direct, or by Winograd's tiles: the kernel's name says which) and int8.

    python benchmarks/conv.py [--quick] [--threads N] [--only TEXT]
"""
from __future__ import annotations

from common import run
from shapes import TYPES, WIDE, conv


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    cases = [conv(type, *shape) for type in TYPES for shape in WIDE]
    return run("convolutions", cases, conv("f32", "tiny", 6, 4, 8, 3, 1), argv)


if __name__ == "__main__":
    main()
