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
from litejit.ops.conv_ways import gathered, in_rows
from litejit.planner.graph import Value

MANY_TAPS = 9                         # for which channels are worth repeating, though a group's outputs fill registers


def by_channels(cpu: Cpu, w: Value, bias: Value | None, windows: Windows) -> bool:
    """Whether a convolution with weights [O, kh, kw, depth] is faster as a depthwise one."""
    constant = w.data is not None and (bias is None or bias.data is not None)
    few = w.dims[0] < cpu.lanes * windows.groups or windows.kh * windows.kw >= MANY_TAPS
    return constant and few and windows.depth == 1 < windows.groups


def as_depthwise(w: Value, windows: Windows) -> tuple[Value, Windows]:
    """Weights [1, kh, kw, O] of [O, kh, kw, 1], and the windows of the image with all output channels."""
    wide = copy.copy(windows)
    wide.channels = wide.depth = w.dims[0]
    made = w.derived("depthwise", np.asarray(w.data).reshape(w.dims).transpose(3, 1, 2, 0))
    return made, wide


def merged(cpu: Cpu, w: Value, windows: Windows, zero: int, in_place: bool) -> tuple[Value, Windows]:
    """Weights [O, kh, kw, depth] and windows with as many groups as are estimated to be the fastest.

    zero: the weight that stands for 0; in_place: whether rows may be read in place (ops/conv_rows_int8.py).
    """
    groups = windows.groups
    if groups == 1 or w.data is None or w.type == "i16":               # 16-bit weights: plain loops over all of k
        return w, windows
    sums = w.type == "u8"

    def cost(times: int) -> float:
        made, n = _with(windows, times), w.dims[0] // (groups // times)
        cycles = gathered(cpu, made, n, sums)
        return min(cycles, in_rows(cpu, made, n, sums)) if in_place else cycles
    times = min((j for j in range(1, groups + 1) if groups % j == 0), key=cost)
    return (w, windows) if times == 1 else (_widened(w, times, groups, zero), _with(windows, times))


def _with(windows: Windows, times: int) -> Windows:
    """With `times` groups as one."""
    wider = copy.copy(windows)
    wider.depth = times * windows.depth
    return wider


def _widened(w: Value, times: int, groups: int, zero: int) -> Value:
    """Weights [O, kh, kw, times * depth] of groups // times groups."""
    o, kh, kw, depth = w.dims
    data = np.asarray(w.data).reshape(groups // times, times, o // groups, kh, kw, depth)
    made = np.full((groups // times, times, o // groups, kh, kw, times, depth), zero, data.dtype)
    for j in range(times):
        made[:, j, ..., j, :] = data[:, j]
    return w.derived(("merged", times), made.reshape(o, kh, kw, times * depth))
