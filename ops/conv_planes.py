"""float32 convolutions with few channels a group as depthwise ones: a plane for every channel that an output sees.

A panel of weights is empty but for the outputs of one group, where those are few. A depthwise convolution makes the outputs of
many groups at once: output o sees channel j of its group at every tap. In front of it these are picked from every pixel, and
put beside each other: first channel 0 for all outputs, then channel 1 ... Each of these planes is an input column of its own;
the kernel has so many times the columns, and moves by so many more.
"""
from __future__ import annotations

import copy
from typing import Any

import numpy as np

from litejit.compiler import kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.ops.base import Packed, Scratch, Step, chunked
from litejit.ops.conv_geometry import Windows
from litejit.ops.depthwise_f32 import depthwise_f32_steps
from litejit.ops.simd.gemm_f32 import panel_columns
from litejit.ops.simd.picks import pick_pixels, pick_table
from litejit.planner.graph import Node, Value

PICK = np.dtype([(name, "i8") for name in ("x", "y", "table", "pixels", "registers", "spans", "x_pixel", "y_pixel", "block")],
                align=True)
PICK_BYTES = 1 << 16                  # of picked channels that are worth a chunk
MOST_BYTES = 1 << 24                  # of planes, which take up to MANY times the memory of the output
MANY = 8                              # channels of a group: a plane each would read them too often
PIECE = 0.65                          # cycles of a register of sums in ops/conv_rows.py: a tap, beside one for each channel
TAP, SPAN, ROW = 2.5, 4.0, 500.0      # and here: a tap; a register that is picked from; the borders of an output row
NEAR, FAR = 1 << 20, 6.0              # bytes of planes that stay in L2; what a register of them takes elsewhere


def pays(cpu: Cpu, w: Value, bias: Value | None, windows: Windows) -> bool:
    """Whether a convolution with weights [O, kh, kw, depth] is estimated to be faster so: cycles of an output pixel."""
    o, taps, depth, constant = w.dims[0], windows.kh * windows.kw, windows.depth, w.data is not None
    if not constant or (bias is not None and bias.data is None) or windows.groups == 1 or windows.dw > 1:
        return False
    if not 1 < depth < MANY:
        return False
    each, vectors = o // windows.groups, -(-o // cpu.lanes) * depth
    tiles = windows.groups * -(-each // (panel_columns(cpu) // 2)) * taps * (depth + PIECE)
    size = windows.images * windows.height * windows.width * vectors * cpu.vbytes
    far = FAR if size > NEAR else 0
    planes = vectors * (taps * TAP + windows.sh * windows.sw * (-(-depth // each) * SPAN + far))
    return size <= MOST_BYTES and planes + ROW / max(windows.out_width, 1) < tiles


def planes_steps(node: Node, cpu: Cpu, x: Any, y: Any, w: Value, bias: Value | None, windows: Windows,
                 bounds: tuple[float, float]) -> list[Step]:
    """Steps of y [N, OH, OW, O] = clamp(conv(x, w [O, kh, kw, depth]) + bias)."""
    o, kh, kw, depth = w.dims[0], windows.kh, windows.kw, windows.depth
    pitch = -(-o // cpu.lanes) * cpu.lanes
    each, pixels = o // windows.groups, windows.images * windows.height * windows.width
    source = np.zeros((depth, pitch), np.int64)
    source[:, :o] = np.arange(o) // each * depth + np.arange(depth)[:, None]
    table = pick_table(cpu, source.ravel())
    made = Scratch(pixels * source.size * 4 + 64)
    chunks, block = chunked(pixels, max(1, PICK_BYTES // (4 * source.size)))
    step = Step(node, pick_channels, {
        "x": x, "y": made, "table": Packed(("pick", cpu.name, source.tobytes()), lambda: table), "pixels": pixels,
        "registers": table.shape[0], "spans": table.shape[1], "x_pixel": 4 * windows.channels, "y_pixel": 4 * source.size,
        "block": block}, chunks)
    wide = copy.copy(windows)
    wide.channels = wide.depth = o
    wide.width, wide.kw, wide.sw, wide.left = (n * depth for n in (windows.width, kw, windows.sw, windows.left))
    weights = w.derived("planes", np.asarray(w.data).reshape(o, kh, kw * depth).transpose(1, 2, 0)[None])
    return [step, *depthwise_f32_steps(node, cpu, made, y, weights, bias, wide, 1, bounds, pixel=4 * pitch)]


# ---- kernels -------------------------------------------------------------------------------------

@kernel(PICK)
def pick_channels(p, begin, end):
    """A chunk is `block` pixels."""
    for c in prange(begin, end):
        first = c * p.block
        pick_pixels(p.y + first * p.y_pixel, p.x + first * p.x_pixel, p.table, min(p.block, p.pixels - first), p.registers,
                    p.spans, p.x_pixel, p.y_pixel)
    return 0
