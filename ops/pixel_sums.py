"""The mean of an image's pixels behind a depthwise convolution: its chunks add their rows up while these are in the cache.

A node of the planner's rule "mean" has the mean as its second output (`node.mean`). The kernel of every chunk leaves the sums
of its pixels in memory of its own, a step behind it adds those up: the numbers are the same for any number of threads.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import LOAD, STORE, copy_bytes
from litejit.ops.base import Scratch, Step
from litejit.ops.simd.reductions import columns
from litejit.planner.graph import Node

SUMS = [("sums", "i8"), ("sums_pitch", "i8")]
"""Fields of kernels that `add_pixels`: memory for the sums of every chunk, 0: none, and bytes from one chunk's to the next."""
MEAN = np.dtype([*((name, "i8") for name in ("sums", "pitch", "chunks", "channels", "y")), ("scale", "f4")], align=True)
_add_rows = columns("sum", "f32")
_load, _store = LOAD["f32"], STORE["f32"]


def sums_params(node: Node, chunks: int, channels: int) -> dict[str, Any]:
    """Values of the fields SUMS of a kernel that runs so many chunks."""
    pitch = -(-4 * channels // 64) * 64
    return {"sums": Scratch(chunks * pitch) if node.mean is not None else None, "sums_pitch": pitch}


def mean_steps(node: Node, params: dict[str, Any], chunks: int) -> list[Step]:
    """What makes the mean of the sums, if it is wanted; params: those of the kernel in front."""
    if node.mean is None:
        return []
    _, height, width, channels = node.out.dims
    return [Step(node, mean_of_sums, {"sums": params["sums"], "pitch": params["sums_pitch"], "chunks": chunks,
                                      "channels": channels, "y": node.mean,
                                      "scale": float(np.float32(1) / np.float32(height * width))})]


# ---- kernels -------------------------------------------------------------------------------------

@device
def clear_sums(sums, zeros, channels):
    """Begin the sums of a chunk, if there is memory for them; zeros: as many bytes of zeros."""
    if sums != 0:
        copy_bytes(sums, zeros, 4 * channels)


@device
def add_pixels(sums, y, pixels, channels):
    """Add pixels to the sums of a chunk, if there is memory for them."""
    if sums != 0:
        _add_rows(y, sums, pixels, 4 * channels, channels)


@kernel(MEAN)
def mean_of_sums(p, begin, end):
    """The sums of all chunks, in the memory of the first, times `scale`."""
    for _ in prange(begin, end):
        _add_rows(p.sums + p.pitch, p.sums, p.chunks - 1, p.pitch, p.channels)
        for i in range(p.channels):
            _store(p.y, i, _load(p.sums, i) * p.scale)
    return 0
