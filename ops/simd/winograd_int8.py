"""Winograd's transforms of 3 x 3 convolutions of integers with stride 1: F(2x2, 3x3) and F(4x4, 3x3) at the points 0, +-1,
+-2 and infinity, exact.

Denominators move from the taps to the outputs: taps, inputs and their products are whole numbers, and the outputs of At are
2**a or 3 * 2**a times what they should be. All sums are modulo 2**32. That is no loss as long as the sum of a convolution,
times the powers of two of both axes, fits 32 bits: dividing by 9 is multiplying with its inverse modulo 2**32. With 8-bit
codes inputs stay below 12800, taps below 12500: int16.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.epilogues import Codes, Nearest, largest
from litejit.ops.simd.gemm_int8 import pack_int8
from litejit.ops.simd.winograd import store_pixels

INPUT, OUTPUT = "ppiii", "pipppiiiii"           # letters of the arguments of the micro-kernels below
TAPS = {2: ((1, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 1)),
        4: ((1, 0, 0), (-1, -1, -1), (-1, 1, -1), (1, 2, 4), (1, -2, 4), (0, 0, 1))}
SHIFTS = {2: (1, 1), 4: (3, 2, 1, 1)}           # output i along an axis comes 2**shift (and for 4, 3) times too large
INVERSE = {2: 1, 4: pow(9, -1, 1 << 32)}


def fits_winograd(weights: np.ndarray, m: int) -> bool:
    """Whether sums of weights [n, 9 k] with codes of magnitude 128 can be told from their remainders."""
    limit = 1 << 31 - 2 * max(SHIFTS[m])
    if 128 * weights.shape[1] * largest(weights) < limit:                  # sums of all weights take longer
        return True
    return 128 * int(np.abs(weights.astype(np.int32)).sum(axis=1, dtype=np.int64).max(initial=0)) < limit


def pack_winograd_int8(cpu: Cpu, weights: np.ndarray, m: int) -> np.ndarray:
    """weights [n, 3, 3, k] in -255 .. 255 -> panels of int16 [ceil(n / nr), (m + 2)**2, bytes], their first numbers zeros."""
    taps, (n, _, _, k) = np.array(TAPS[m], np.int64), weights.shape
    points = (np.kron(taps, taps) @ weights.reshape(n, 9, k).astype(np.int64)).transpose(1, 0, 2)
    return np.stack([pack_int8(cpu, point, np.zeros(n, np.int64), wide=True) for point in points], axis=1)


def input_transform_int8(m: int) -> MicroKernel:
    """input(table, v, step, n, flip): v[t] = (Bt d B)[t] as int16, points `step` bytes apart, of the n channels of the pixels
    at table[t], whose bytes are xored with `flip`; whole vectors are read and written."""
    size, rows = m + 2, _INPUTS[m]

    def emit(v: Any, table: Any, to: Any, step: Any, channels: Any, flip: Any) -> None:
        lanes = v.cpu.vbytes // 2
        ty, xor = v.type("i8", lanes), v.splat(v.trunc(flip, "i8"), lanes)

        def body(c: Any, _: Any) -> None:
            columns = []
            for j in range(size):
                pixels = [v.load(v.type("ptr"), table, 8 * (i * size + j), 8) for i in range(size)]
                columns.append(rows(v, [v.sext(v.xor(v.load(ty, pixel, c), xor), "i16") for pixel in pixels]))
            for i in range(size):
                for j, value in enumerate(rows(v, [column[i] for column in columns])):
                    v.store(value, v.at(to, v.mul(step, i * size + j)), v.shl(c, 1))
        v.loop(channels, [], body, step=lanes)
    return micro_kernel(f"winograd_int8_input_{m}", INPUT, emit)


def output_transform_int8(m: int) -> MicroKernel:
    """output(sums, step, first, scale, table, n, lo, hi, zero_point, out_flip): the pixels at table[m * m] = the codes of
    At M A + first as the "code" end of ops/simd/tile_int8.py makes them, the points of M `step` bytes apart."""
    size, outputs, shifts, inverse = m + 2, _OUTPUTS[m], SHIFTS[m], INVERSE[m]
    signed = inverse - (inverse >> 31 << 32)

    def emit(v: Any, sums: Any, step: Any, first: Any, scale: Any, table: Any, channels: Any, lo: Any, hi: Any,
             zero_point: Any, out_flip: Any) -> None:
        codes = Codes(v, lo, hi, zero_point, out_flip)

        def body(c: Any, _: Any) -> None:
            at, left = v.shl(c, 2), v.sub(channels, c)
            start, code = v.load(v.i32, first, at), Nearest(v, v.load(v.f32, scale, at))
            columns = [outputs(v, [v.load(v.i32, v.at(sums, v.mul(step, i * size + j)), at) for i in range(size)])
                       for j in range(size)]
            for i in range(m):
                row = outputs(v, [column[i] for column in columns])
                row = [v.ashr(x if inverse == 1 else v.mul(x, signed), shifts[i] + shifts[j]) for j, x in enumerate(row)]
                made = codes([v.add(x, start) for x in row], [code])
                store_pixels(v, made, table, i * m, c, left)
        v.loop(channels, [], body, step=v.lanes)
    return micro_kernel(f"winograd_int8_output_{m}", OUTPUT, emit)


# ---- along one axis ------------------------------------------------------------------------------

def _inputs_2(v: Any, d: list[Any]) -> list[Any]:
    return [v.sub(d[0], d[2]), v.add(d[1], d[2]), v.sub(d[2], d[1]), v.sub(d[1], d[3])]


def _inputs_4(v: Any, d: list[Any]) -> list[Any]:
    """4 d0 - 5 d2 + d4; the points +-1 and +-2: even part plus and minus odd part; 4 d1 - 5 d3 + d5."""
    even, odd = v.sub(d[4], v.shl(d[2], 2)), v.sub(d[3], v.shl(d[1], 2))
    even2, odd2 = v.sub(d[4], d[2]), v.shl(v.sub(d[3], d[1]), 1)
    return [v.add(v.shl(v.sub(d[0], d[2]), 2), even2), v.add(even, odd), v.sub(even, odd), v.add(even2, odd2),
            v.sub(even2, odd2), v.sub(v.sub(d[5], d[3]), v.shl(odd2, 1))]


def _outputs_2(v: Any, x: list[Any]) -> list[Any]:
    return [v.add(v.shl(x[0], 1), v.add(x[1], x[2])), v.sub(v.sub(x[1], x[2]), v.shl(x[3], 1))]


def _outputs_4(v: Any, x: list[Any]) -> list[Any]:
    """24, 12, 6 and 6 times the outputs."""
    sum1, sum2, less1, less2 = v.add(x[1], x[2]), v.add(x[3], x[4]), v.sub(x[1], x[2]), v.sub(x[3], x[4])
    three = v.add(x[5], v.shl(x[5], 1))
    return [v.add(v.shl(v.add(x[0], sum1), 2), v.add(v.shl(x[0], 1), sum2)), v.add(v.shl(less1, 1), less2),
            v.add(sum1, sum2), v.add(less1, v.shl(v.add(less2, three), 1))]


_INPUTS, _OUTPUTS = {2: _inputs_2, 4: _inputs_4}, {2: _outputs_2, 4: _outputs_4}
