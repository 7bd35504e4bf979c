"""Winograd's transforms of 3 x 3 convolutions with stride 1: F(2x2, 3x3) and F(4x4, 3x3), in vectors of channels.

A tile of m x m outputs needs n x n inputs d, n = m + 2: its outputs are At [sum over channels of (G g Gt) * (Bt d B)] A. The
matrices follow from n - 1 points and infinity (Toom and Cook). Points of magnitude about 1 keep float32's error small:
0, +-3/4, +-3/2 make a quarter of the error of 0, +-1, +-2, and their Bt is exact in float32. The code of a transform is
generated from its matrix: rows of the points +a and -a share their even and odd halves. products: "f32", or "bf16" for
points that are rounded to bfloat16 and lie in pairs, as ops/simd/gemm_bf16.py wants them.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import MicroKernel
from litejit.ops.simd.gemm_bf16 import pack_bf16
from litejit.ops.simd.gemm_f32 import panel_columns
from litejit.ops.simd.tiles import tiles
from litejit.planner.constants import roomy

POINTS: dict[int, tuple[float, ...]] = {2: (0, 1, -1), 4: (0, 0.75, -0.75, 1.5, -1.5)}     # by m; 0, then pairs +-a


INPUT, OUTPUT, ANEW = "ppii", "pippiffp", "ppippiff"         # letters of the arguments of the micro-kernels below


def matrices(m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(At [m, n], G [n, 3], Bt [n, n]) in float64."""
    points, n = np.array(POINTS[m], np.float64), m + 2
    at, g, bt = np.zeros((m, n)), np.zeros((n, 3)), np.zeros((n, n))
    at[:, :-1], at[-1, -1], g[-1, -1], bt[-1] = points ** np.arange(m)[:, None], 1, 1, np.poly(points)[::-1]
    for j in range(n - 1):
        others = np.delete(points, j)
        g[j] = points[j] ** np.arange(3) / np.prod(points[j] - others)
        bt[j, :-1] = np.poly(others)[::-1]
    return at, g, bt


def taps_from_points(m: int) -> np.ndarray:
    """[3, n]: what makes the taps g out of G g: the points 0 and infinity are the outer ones, one pair has the middle one."""
    _, g, _ = matrices(m)
    made = np.zeros((3, m + 2))
    made[0, 0], made[1, 1], made[1, 2], made[2, -1] = 1 / g[0, 0], 0.5 / g[1, 1], 0.5 / g[2, 1], 1
    return made


def pack_winograd(cpu: Cpu, weights: np.ndarray, m: int, products: str = "f32") -> np.ndarray:
    """weights [n, 3, 3, k] -> panels [ceil(n / nr), (m + 2)**2, rows, nr] for the GEMM tiles, without bias.

    float32: k + 1 rows; bfloat16: 1 + k / 2 rows of uint32.
    """
    nr, (n, _, _, k), g = panel_columns(cpu), weights.shape, matrices(m)[1]
    both, flat = np.kron(g, g), weights.reshape(n, 9, k)
    if products == "bf16":
        return np.stack([pack_bf16(cpu, np.tensordot(flat, row, ((1,), (0,))).astype(np.float32)) for row in both], axis=1)
    made = roomy((-(-n // nr), len(both), k + 1, nr), np.float32)
    for q, panel in enumerate(made):
        part = flat[q * nr:(q + 1) * nr]
        panel[:, 1:, :len(part)] = np.matmul(both, part.astype(np.float64)).transpose(1, 2, 0)
    return made


def input_transform(m: int, products: str = "f32") -> MicroKernel:
    """input(table, v, step, n): v[t] = (Bt d B)[t], points `step` bytes apart, of the n channels of the pixels at
    table[t]; whole vectors are read and written (bfloat16: n is a multiple of two of them)."""
    bt = matrices(m)[2]
    size, vectors = len(bt), 2 if products == "bf16" else 1

    def emit(v: Any, table: Any, to: Any, step: Any, channels: Any) -> None:
        def transformed(at: Any) -> list[Any]:
            columns = []
            for j in range(size):
                pixels = [v.load(v.type("ptr"), table, 8 * (i * size + j), 8) for i in range(size)]
                columns.append(rows_of(v, bt, [v.load(v.f32, pixel, at) for pixel in pixels]))
            return [value for i in range(size) for value in rows_of(v, bt, [column[i] for column in columns])]

        def body(c: Any, _: Any) -> None:
            made = [transformed(v.add(v.shl(c, 2), j * v.cpu.vbytes)) for j in range(vectors)]
            for t, values in enumerate(zip(*made)):
                value = v.to_bf16(*values) if vectors == 2 else values[0]
                v.store(value, v.at(to, v.mul(step, t)), v.shl(c, 3 - vectors))
        v.loop(channels, [], body, step=vectors * v.lanes)
    return micro_kernel(f"winograd_input_{m}{_suffix(products)}", INPUT, emit)


def output_transform(m: int) -> MicroKernel:
    """output(sums, step, bias, table, n, lo, hi, check): the pixels at table[m * m] = clamp(At M A + bias), the points of M
    `step` bytes apart. The float at `check` becomes NaN where a sum or an input was not finite, else 0."""
    matrix = matrices(m)[0]
    size = m + 2

    def emit(v: Any, sums: Any, step: Any, bias: Any, table: Any, channels: Any, lo: Any, hi: Any, check: Any) -> None:
        low, high, zero = v.splat(lo), v.splat(hi), v.zero(v.f32)

        def body(c: Any, carried: list[Any]) -> list[Any]:
            at, (seen,) = v.shl(c, 2), carried
            left, b = v.sub(channels, c), v.load(v.f32, bias, at)
            columns = [outputs_of(v, matrix, [v.load(v.f32, v.at(sums, v.mul(step, i * size + j)), at)
                                              for i in range(size)]) for j in range(size)]
            for i in range(m):
                row = outputs_of(v, matrix, [column[i] for column in columns])
                if i in (0, m - 1):                # every point counts in one of the corners
                    seen = v.fma(row[-1], zero, v.fma(row[0], zero, seen))
                row = [v.fmin(high, v.fmax(low, v.fadd(y, b))) for y in row]
                store_pixels(v, row, table, i * m, at, left)
            return [seen]
        (seen,) = v.loop(channels, [zero], body, step=v.lanes)
        v.store(v.sum(seen), check, align=4)
    return micro_kernel(f"winograd_output_{m}", OUTPUT, emit)


def store_pixels(v: Any, row: list[Any], table: Any, first: int, at: Any, left: Any) -> None:
    """Write vectors `at` bytes after the addresses at table[first], table[first + 1] ..., `left` lanes of each at most."""
    pixels = [v.load(v.type("ptr"), table, 8 * (first + j), 8) for j in range(len(row))]

    def whole() -> None:
        for x, pixel in zip(row, pixels):
            v.store(x, pixel, at)

    def partly() -> None:
        mask = v.mask(v.lanes, left)
        for x, pixel in zip(row, pixels):
            v.mstore(x, pixel, mask, at)
    v.either(v.icmp(">=", left, v.lanes), whole, partly)


def tap_by_tap(m: int) -> MicroKernel:
    """tap_by_tap(table, panel, k, bias, to, n, lo, hi): the m x m outputs of the tile whose inputs are at table[(m + 2)**2],
    at the addresses to[m * m]: for tiles with infinities. The taps are made out of the panel's points."""
    factors, n = taps_from_points(m), m + 2

    def emit(v: Any, table: Any, panel: Any, k: Any, bias: Any, to: Any, columns: Any, lo: Any, hi: Any) -> None:
        pitch = tiles(v.cpu).f32[1] * v.cpu.vbytes
        point, low, high = v.mul(v.add(k, 1), pitch), v.splat(lo), v.splat(hi)

        def tap(ky: int, kx: int, source: Any, at: Any, acc: Any) -> Any:
            used = [(a * b, v.at(v.at(panel, at), v.mul(point, i * n + j)))
                    for i, a in enumerate(factors[ky]) for j, b in enumerate(factors[kx]) if a * b]

            def body(c: Any, carried: list[Any]) -> list[Any]:
                weight = combine(v, [(f, v.load(v.f32, w, v.mul(v.add(c, 1), pitch))) for f, w in used])
                return [v.fma(v.fsplat(source, v.shl(c, 2)), weight, carried[0])]
            return v.loop(k, [acc], body)[0]

        def pixel(q: Any, _: Any) -> None:
            first = v.add(v.mul(v.b.sdiv(q, v.i(m)), 8 * n), v.shl(v.b.srem(q, v.i(m)), 3))
            here = v.load(v.type("ptr"), to, v.shl(q, 3), 8)

            def vector(c: Any, _: Any) -> None:
                at = v.shl(c, 2)
                acc = v.load(v.f32, bias, at)
                for ky in range(3):
                    for kx in range(3):
                        source = v.load(v.type("ptr"), table, v.add(first, 8 * (ky * n + kx)), 8)
                        acc = tap(ky, kx, source, at, acc)
                acc = v.fmin(high, v.fmax(low, acc))
                v.mstore(acc, here, v.mask(v.lanes, v.sub(columns, c)), at)
            v.loop(columns, [], vector, step=v.lanes)
        v.loop(m * m, [], pixel)
    return micro_kernel(f"winograd_taps_{m}", ANEW, emit)


def weights_by_tap(m: int) -> MicroKernel:
    """`tap_by_tap` where points are too coarse to make taps of: for weights [n, 3, 3, k] as they are, k whole vectors."""
    size = m + 2

    def emit(v: Any, table: Any, weights: Any, k: Any, bias: Any, to: Any, columns: Any, lo: Any, hi: Any) -> None:
        low, high, first, row = v.splat(lo), v.splat(hi), v.mask(v.lanes, v.i(1)), v.shl(k, 2)

        def column(j: Any, _: Any) -> None:
            w = v.at(weights, v.mul(row, v.mul(j, 9)))

            def pixel(q: Any, _: Any) -> None:
                at = v.add(v.mul(v.b.sdiv(q, v.i(m)), 8 * size), v.shl(v.b.srem(q, v.i(m)), 3))
                acc = v.zero(v.f32)
                for t in range(9):
                    source = v.load(v.type("ptr"), table, v.add(at, 8 * (t // 3 * size + t % 3)), 8)
                    taps = v.at(w, v.mul(row, t))

                    def body(c: Any, carried: list[Any], source: Any = source, taps: Any = taps) -> list[Any]:
                        here = v.shl(c, 2)
                        return [v.fma(v.load(v.f32, source, here), v.load(v.f32, taps, here), carried[0])]
                    (acc,) = v.loop(k, [acc], body, step=v.lanes)
                made = v.fadd(v.splat(v.sum(acc)), v.fsplat(bias, v.shl(j, 2)))
                there = v.load(v.type("ptr"), to, v.shl(q, 3), 8)
                v.mstore(v.fmin(high, v.fmax(low, made)), there, first, v.shl(j, 2))
            v.loop(m * m, [], pixel)
        v.loop(columns, [], column)
    return micro_kernel(f"winograd_weights_{m}", ANEW, emit)


def _suffix(products: str) -> str:
    return "" if products == "f32" else f"_{products}"


# ---- a small matrix times vectors ----------------------------------------------------------------

def combine(v: Any, terms: Iterable[tuple[float, Any]]) -> Any:
    """The sum of factor * vector; factors of +-1 cost no multiplication."""
    acc: Any = None
    for factor, x in sorted(((f, x) for f, x in terms if f), key=lambda term: term[0] != 1):
        if acc is None:
            acc = x if factor == 1 else v.fmul(x, v.const(v.f32, float(factor)))
        elif abs(factor) == 1:
            acc = v.fadd(acc, x) if factor == 1 else v.fsub(acc, x)
        else:
            acc = v.fma(x, v.const(v.f32, float(factor)), acc)
    return acc


def rows_of(v: Any, bt: np.ndarray, x: list[Any]) -> list[Any]:
    """Bt @ x: rows 1 and 2, 3 and 4, ... are those of points +a and -a: even part + odd part, even - odd."""
    made = [combine(v, zip(bt[0], x))]
    for row in bt[1:-1:2]:
        even, odd = combine(v, zip(row[::2], x[::2])), combine(v, zip(row[1::2], x[1::2]))
        made += [v.fadd(even, odd), v.fsub(even, odd)]
    return [*made, combine(v, zip(bt[-1], x))]


def outputs_of(v: Any, at: np.ndarray, x: list[Any]) -> list[Any]:
    """At @ x: even powers of a pair of points need x[+a] + x[-a], odd ones x[+a] - x[-a]."""
    pairs = range(1, at.shape[1] - 1, 2)
    sums = {j: (v.fadd(x[j], x[j + 1]), v.fsub(x[j], x[j + 1])) for j in pairs}
    return [combine(v, [(row[0], x[0]), *((row[j], sums[j][i % 2]) for j in pairs), (row[-1], x[-1])])
            for i, row in enumerate(at)]
