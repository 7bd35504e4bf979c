"""Micro-kernel of reversals: the elements of rows in the opposite order, turned around in registers."""
from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

from litejit.compiler import micro_kernel

SIZES = (1, 2, 4, 8)


def _emit(size: int, v: Any, y: Any, x: Any, y_stride: Any, x_stride: Any, rows: Any, n: Any) -> None:
    """A row is made of registers of as many elements as fit into it, the last one over some that are done."""
    most = v.cpu.vbytes // size

    def all_rows(width: int) -> None:
        ty, last = v.type(f"i{8 * size}", width), v.mul(v.sub(n, width), size)

        def row(r: Any, _: Any) -> None:
            to, source = v.at(y, v.mul(r, y_stride)), v.at(x, v.mul(r, x_stride))

            def turn(at: Any, _: Any = None) -> None:
                v.store(v.shuffle(v.load(ty, source, v.sub(last, at)), None, range(width - 1, -1, -1)), to, at)
            if width == most:
                v.loop(last, [], turn, step=width * size)
            else:
                turn(v.i(0))
            turn(last)
        v.loop(rows, [], row)

    def tier(width: int) -> None:
        if width == 1:
            all_rows(1)
        else:
            v.either(v.icmp(">=", n, width), lambda: all_rows(width), lambda: tier(width // 2))
    tier(most)


def _twin(size: int, y: int, x: int, y_stride: int, x_stride: int, rows: int, n: int) -> None:
    for r in range(int(rows)):
        for i in range(int(n)):
            ctypes.memmove(int(y + r * y_stride + i * size), int(x + r * x_stride + (n - 1 - i) * size), size)


# by bytes of an element: (y, x, y stride, x stride, rows, n >= 1): element i of a row is element n - 1 - i of that of x
REVERSE = {size: micro_kernel(f"reverse_{size}", "ppiiii", partial(_emit, size), partial(_twin, size)) for size in SIZES}
