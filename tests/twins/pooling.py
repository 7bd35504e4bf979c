"""Pooling and reductions of runs, written to be read."""
from __future__ import annotations

from typing import Any

import numpy as np


def windows(shape: tuple[int, ...], filter: tuple[int, int], stride: tuple[int, int], padding: str) -> Any:
    """(output height, output width, window of an output pixel as two slices clipped to the image)."""
    sizes, starts = [], []
    for size, taps, step in zip(shape[1:3], filter, stride):
        out = -(-size // step) if padding == "SAME" else (size - taps) // step + 1
        pad = max(0, (out - 1) * step + taps - size) // 2 if padding == "SAME" else 0
        sizes.append(out)
        starts.append([(max(i * step - pad, 0), min(i * step - pad + taps, size)) for i in range(out)])

    def window(i: int, j: int) -> tuple[slice, slice]:
        return slice(*starts[0][i]), slice(*starts[1][j])
    return sizes[0], sizes[1], window


def pool(x: np.ndarray, what: str, filter: tuple[int, int], stride: tuple[int, int], padding: str) -> np.ndarray:
    """AVERAGE_POOL_2D or MAX_POOL_2D without activation; averages of codes round halves away from zero."""
    height, width, window = windows(x.shape, filter, stride, padding)
    y = np.empty((x.shape[0], height, width, x.shape[3]), x.dtype)
    for i in range(height):
        for j in range(width):
            rows, columns = window(i, j)
            part = x[:, rows, columns].reshape(x.shape[0], -1, x.shape[3])
            if what == "max":
                y[:, i, j] = part.max(axis=1)
            elif x.dtype.kind == "f":
                y[:, i, j] = part.astype(np.float64).mean(axis=1)
            else:
                total, n = part.astype(np.int64).sum(axis=1), part.shape[1]
                y[:, i, j] = np.sign(total) * ((np.abs(total) + n // 2) // n)
    return y
