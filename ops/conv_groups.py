"""Grouped convolutions: those of one channel a group as depthwise ones, and neighbouring groups of integers as one.

A depthwise convolution with a multiplier is the same sums, made a register of channels at a time.

A panel of weights has columns for many outputs, and every group fills panels of its own: of groups with few outputs most
columns are empty. Merged groups share panels, and the pixels' channels are gathered in longer pieces; there are zeros where a
channel does not belong. Sums stay the same: they are exact. (Zeros times infinities are not, so float32 groups stay apart.)
"""
from __future__ import annotations

import copy

import numpy as np

from litejit.compiler.cpu import Cpu
from litejit.ops.conv_geometry import Windows
from litejit.ops.simd.tiles import tile_shape
from litejit.planner.graph import Value

PIECE = 5 * 64                        # estimates, in multiply-accumulates of AVX-512 VNNI: gathering a piece of a pixel,
GROUP = 8 * 64                        # and what a group's product of a pixel costs beside them
MANY_TAPS = 9                         # for which channels are worth repeating, though a group's outputs fill registers


def by_channels(cpu: Cpu, w: Value, bias: Value | None, windows: Windows) -> bool:
    """Whether a convolution with weights [O, kh, kw, depth] is faster as a depthwise one."""
    constant = w.data is not None and (bias is None or bias.data is not None)
    few = w.dims[0] < cpu.lanes * windows.groups or windows.kh * windows.kw >= MANY_TAPS
    return constant and few and windows.depth == 1 < windows.groups


def as_depthwise(w: Value, windows: Windows) -> tuple[Value, Windows]:
    """Weights [1, kh, kw, O] of [O, kh, kw, 1], and the windows of the image with all output channels."""
    dims, wide = (1, *w.dims[1:3], w.dims[0]), copy.copy(windows)
    wide.channels = wide.depth = w.dims[0]
    made = Value(w.name, w.index, w.subgraph, w.type, dims, scales=w.scales, zero_points=w.zero_points,
                 data=np.asarray(w.data).reshape(w.dims).transpose(3, 1, 2, 0), key=(w.key, "depthwise"))
    return made, wide


def merged(cpu: Cpu, w: Value, windows: Windows, zero: int) -> tuple[Value, Windows]:
    """Weights [O, kh, kw, depth] and windows with as many groups as are estimated to be the fastest.

    zero: the weight that stands for 0.
    """
    groups = windows.groups
    if groups == 1 or w.data is None or w.type == "i16":               # 16-bit weights: plain loops over all of k
        return w, windows
    times = min((j for j in range(1, groups + 1) if groups % j == 0), key=lambda j: _cost(cpu, w.dims[0], windows, j))
    if times == 1:
        return w, windows
    wider = copy.copy(windows)
    wider.depth = times * windows.depth
    return _widened(w, times, groups, zero), wider


def _cost(cpu: Cpu, outputs: int, windows: Windows, times: int) -> int:
    """Of a pixel, with `times` groups as one."""
    half, groups, taps = tile_shape(cpu, "int8")[1] // 2, windows.groups // times, windows.kh * windows.kw
    columns = -(-outputs // (groups * half)) * half
    pieces = windows.kh if groups == 1 and windows.dw == 1 else taps
    return groups * (GROUP + PIECE * pieces + columns * taps * times * windows.depth)


def _widened(w: Value, times: int, groups: int, zero: int) -> Value:
    """Weights [O, kh, kw, times * depth] of groups // times groups."""
    o, kh, kw, depth = w.dims
    data = np.asarray(w.data).reshape(groups // times, times, o // groups, kh, kw, depth)
    made = np.full((groups // times, times, o // groups, kh, kw, times, depth), zero, data.dtype)
    for j in range(times):
        made[:, j, ..., j, :] = data[:, j]
    dims = (o, kh, kw, times * depth)
    return Value(w.name, w.index, w.subgraph, w.type, dims, scales=w.scales, zero_points=w.zero_points, dimension=w.dimension,
                 data=made.reshape(dims), key=(w.key, "merged", times))
