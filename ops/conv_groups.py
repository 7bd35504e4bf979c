"""Grouped convolutions with integer weights: neighbouring groups as one, with zeros where a channel does not belong.

A panel of weights has columns for many outputs, and every group fills panels of its own: of groups with few outputs most
columns are empty. Merged groups share panels, and the pixels' channels are gathered in longer pieces. Sums stay the same: they
are exact. (Zeros times infinities are not, so float32 groups stay apart.)
"""
from __future__ import annotations

import copy

import numpy as np

from litejit.compiler.cpu import Cpu
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_ways import gathered, in_rows
from litejit.planner.graph import Value


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
    dims = (o, kh, kw, times * depth)
    return Value(w.name, w.index, w.subgraph, w.type, dims, scales=w.scales, zero_points=w.zero_points, dimension=w.dimension,
                 data=made.reshape(dims), key=(w.key, "merged", times))
