"""Two weights of 4 bits in a byte: a 32-bit lane has 8 values of k, of which a mask and shifts make vectors of `dot`."""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler.cpu import Cpu

STEP = 8                              # values of k in a lane
LONGEST = 1 << 15                     # terms of a sum that fits int32 even where it is 16 times as large: 16 * 255 * 8 each


def nibbles(values: np.ndarray, cpu: Cpu) -> np.ndarray:
    """Values -8..7 [..., STEP] -> bytes [..., 4] in the order of `unpacked`."""
    values = values.view(np.uint8) & 15
    if cpu.dot:
        return values[..., :4] | values[..., 4:] << 4
    words = values.astype(np.uint16)
    made = sum(words[..., 2 * t:2 * t + 2] << 4 * t for t in range(STEP // 2))
    return np.ascontiguousarray(made, np.uint16).view(np.uint8)


def unpacked(v: Any, x: Any, t: int) -> Any:
    """Vector t of `dot`, in the order of k, in a vector of nibbles: 16 times the weights where they are bytes."""
    if v.group == 4:
        return v.and_(x if t else v.shl(x, 4), 0xF0F0F0F0 - (1 << 32))
    return v.bitcast(v.ashr(v.shl(v.bitcast(x, v.type("i16", 2 * v.lanes)), 12 - 4 * t), 12), v.i32)
