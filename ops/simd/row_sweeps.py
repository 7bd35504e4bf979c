"""Micro-kernels on rows of float32: layer normalisation and softmax.

Several rows are taken in turn, so that the chains of one hide behind those of the others. What a row becomes does not
depend on the rows beside it: its sums run over its registers in their order, in the lanes of one register.
"""
from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import micro_kernel
from litejit.ops.simd.functions import Lockstep, exp_nonpositive

ROWS = 4                              # rows in turn
COLUMNS = 4                           # registers in turn where a row is alone
LONG = 2048                           # elements of rows that are taken alone: four of them would fill L1


def sweep(v: Any, n: Any, unroll: int, carried: list[Any], body: Callable[[list[Any], Any, list[Any]], list[Any]]
          ) -> list[Any]:
    """carried = body(offsets, mask, carried) over n floats: byte offsets of `unroll` registers, then of one; the last
    one has a mask, all others None."""
    full = v.sub(n, v.b.srem(n, v.i(v.lanes)))
    start: Any = v.i(0)
    for times in ([unroll] if unroll > 1 else []) + [1]:
        def rounds(i: Any, carried: list[Any], times: int = times) -> list[Any]:
            at = v.shl(i, 2)
            return body([v.add(at, t * v.cpu.vbytes) for t in range(times)], None, carried)
        stop = v.sub(full, v.b.srem(full, v.i(times * v.lanes)))
        carried = v.loop(stop, carried, rounds, step=times * v.lanes, start=start)
        start = stop
    mask = v.mask(v.lanes, v.sub(n, full))
    return v.loop(n, carried, lambda i, carried: body([v.shl(i, 2)], mask, carried), step=v.lanes, start=full)


def load(v: Any, at: Any, off: Any, mask: Any) -> Any:
    """A register, zeros where the mask does not hold."""
    return v.load(v.f32, at, off) if mask is None else v.mload(v.f32, at, mask, off)


def store(v: Any, value: Any, at: Any, off: Any, mask: Any) -> None:
    if mask is None:
        v.store(value, at, off)
    else:
        v.mstore(value, at, mask, off)


def in_groups(v: Any, rows: Any, n: Any, group: Callable[[Any, int, int], None]) -> None:
    """group(first row, rows, registers of each) for all rows: ROWS at a time, then, and where they are long, alone."""
    most = v.select(v.icmp(">=", n, LONG), v.i(0), v.sub(rows, v.b.srem(rows, v.i(ROWS))))
    v.loop(most, [], lambda r, _: group(r, ROWS, 1), step=ROWS)
    v.loop(rows, [], lambda r, _: group(r, 1, COLUMNS), start=most)


def starts(v: Any, base: Any, r: Any, rows: int, pitch: Any) -> list[Any]:
    """Addresses of neighbouring rows."""
    return [v.at(base, v.mul(v.add(r, k), pitch)) for k in range(rows)]


def _floats(address: int, *shape: int) -> np.ndarray:
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(int(address))).reshape(shape)


# ---- layer normalisation -----------------------------------------------------------------------------

def _emit_norm(centred: bool, residual: bool) -> Callable[..., None]:
    """Rows of (x - mean) * (1 / sqrt(variance + epsilon) * gamma) + beta; not centred: with 0 for the mean.

    The mean of the differences from the mean, which roundings leave, is taken off too: rows far from zero keep their digits.
    """
    def emit(v: Any, a: Any, b: Any, x: Any, y: Any, gamma: Any, beta: Any, rows: Any, n: Any, epsilon: Any, share: Any
             ) -> None:
        pitch, (a, b, x, y) = v.shl(n, 2), (v.pointer(p) for p in (a, b, x, y))
        zero, f32 = v.zero(v.f32), v.type("f32")

        def group(r: Any, many: int, columns: int) -> None:
            first, second, sums, made = (starts(v, p, r, many, pitch) for p in (a, b, x, y))

            def add(offsets: list[Any], mask: Any, acc: list[Any]) -> list[Any]:
                for off in offsets:
                    values = [load(v, at, off, mask) for at in first]
                    if residual:
                        values = [v.fadd(value, load(v, at, off, mask)) for value, at in zip(values, second)]
                        for value, at in zip(values, sums):
                            store(v, value, at, off, mask)
                    acc = [v.fadd(s, value) for s, value in zip(acc, values)]
                return acc

            def average(acc: list[Any]) -> list[Any]:
                return [v.fmul(v.sum(s), share) for s in acc]
            means = sweep(v, n, columns, [zero] * many, add) if centred or residual else []
            mean = [v.splat(m) for m in average(means)]

            def away(off: Any, mask: Any) -> list[Any]:
                values = [load(v, at, off, mask) for at in sums]
                return [v.fsub(value, m) for value, m in zip(values, mean)] if centred else values

            def spread(offsets: list[Any], mask: Any, acc: list[Any]) -> list[Any]:
                for off in offsets:
                    values = away(off, mask)
                    if mask is not None:
                        values = [v.select(mask, d, zero) for d in values]
                    acc = [*(v.fma(d, d, s) for s, d in zip(acc, values)), *(v.fadd(s, d) for s, d in zip(acc[many:], values))]
                return acc
            found = average(sweep(v, n, columns, [zero] * (many * (1 + centred)), spread))
            variance, rest = found[:many], found[many:]
            if centred:
                variance = [v.fmax(v.const(f32, 0.0), v.fsub(s, v.fmul(d, d))) for s, d in zip(variance, rest)]
                rest = [v.splat(d) for d in rest]
            scale = [v.splat(v.fdiv(v.const(f32, 1.0), v.sqrt(v.fadd(s, epsilon)))) for s in variance]

            def finish(offsets: list[Any], mask: Any, _: list[Any]) -> list[Any]:
                for off in offsets:
                    g, add_on, values = load(v, gamma, off, mask), load(v, beta, off, mask), away(off, mask)
                    if centred:
                        values = [v.fsub(d, more) for d, more in zip(values, rest)]
                    values = [v.fma(d, v.fmul(g, s), add_on) for d, s in zip(values, scale)]
                    for value, at in zip(values, made):
                        store(v, value, at, off, mask)
                return []
            sweep(v, n, columns, [], finish)
        in_groups(v, rows, n, group)
    return emit


def _twin_norm(centred: bool, residual: bool) -> Callable[..., None]:
    def twin(a: int, b: int, x: int, y: int, gamma: int, beta: int, rows: int, n: int, epsilon: float, share: float) -> None:
        total = _floats(a, rows, n).copy()
        if residual:
            total += _floats(b, rows, n)
            _floats(x, rows, n)[:] = total
        away = total.astype(np.float64)
        if centred:
            away -= away.mean(axis=1, keepdims=True)
        scale = 1 / np.sqrt((away ** 2).mean(axis=1, keepdims=True) + epsilon)
        _floats(y, rows, n)[:] = away * scale * _floats(gamma, n) + _floats(beta, n)
    return twin


# (centred, residual) -> (a, b, x, y, gamma, beta, rows, n, epsilon, 1 / n). residual: x = a + b is stored, else x is a;
# y may be x, a or b
NORM = {(centred, residual): micro_kernel(f"{'residual_' * residual}{'layer' if centred else 'rms'}_norm", "iiiippiiff",
                                          _emit_norm(centred, residual), _twin_norm(centred, residual))
        for centred in (False, True) for residual in (False, True)}


# ---- softmax -----------------------------------------------------------------------------------------

def _largest(v: Any, acc: list[Any]) -> list[Any]:
    return [v.splat(v.largest(a)) for a in acc]


def _exponentials(v: Any, n: Any, columns: int, sources: list[Any], made: list[Any], most: list[Any], beta: Any) -> list[Any]:
    """made = exp((source - most) * beta) row by row; 1 over the sums."""
    zero, one = v.zero(v.f32), v.const(v.type("f32"), 1.0)

    def body(offsets: list[Any], mask: Any, acc: list[Any]) -> list[Any]:
        places = [(k, off) for off in offsets for k in range(len(sources))]
        m = Lockstep(v, len(places))
        x = m.fsub([load(v, sources[k], off, mask) for k, off in places], [most[k] for k, _ in places])
        e = exp_nonpositive(m, x if beta is None else m.fmul(x, beta))
        for (k, off), value in zip(places, e):
            store(v, value, made[k], off, mask)
            acc[k] = v.fadd(acc[k], value if mask is None else v.select(mask, value, zero))
        return acc
    sums = sweep(v, n, columns, [zero] * len(sources), lambda offsets, mask, acc: body(offsets, mask, list(acc)))
    return [v.splat(v.fdiv(one, v.sum(s))) for s in sums]


def _multiplied(v: Any, n: Any, columns: int, rows: list[Any], factors: list[Any]) -> None:
    """rows *= factors."""
    def body(offsets: list[Any], mask: Any, _: list[Any]) -> list[Any]:
        for off in offsets:
            values = [v.fmul(load(v, at, off, mask), factor) for at, factor in zip(rows, factors)]
            for value, at in zip(values, rows):
                store(v, value, at, off, mask)
        return []
    sweep(v, n, columns, [], body)


def _emit_softmax(v: Any, x: Any, y: Any, rows: Any, n: Any, beta: Any) -> None:
    """Rows of exp((x - max) * beta) / sum. Any NaN or +inf, or only -inf, makes its row NaN."""
    pitch, x, y, factor = v.shl(n, 2), v.pointer(x), v.pointer(y), v.splat(beta)
    least = v.const(v.f32, float("-inf"))

    def group(r: Any, many: int, columns: int) -> None:
        sources, made = (starts(v, p, r, many, pitch) for p in (x, y))

        def larger(offsets: list[Any], mask: Any, acc: list[Any]) -> list[Any]:
            for off in offsets:
                values = [load(v, at, off, mask) for at in sources]
                if mask is not None:
                    values = [v.select(mask, value, least) for value in values]
                acc = [v.fmax(value, a) for a, value in zip(acc, values)]       # NaN is passed over, and found in the sum
            return acc
        most = _largest(v, sweep(v, n, columns, [least] * many, larger))
        _multiplied(v, n, columns, made, _exponentials(v, n, columns, sources, made, most, factor))
    in_groups(v, rows, n, group)


def _emit_scores(how: str) -> Callable[..., None]:
    """Softmax in place of rows of scores that fill whole registers: what is behind their n elements is overwritten.

    how: "plain", "scaled" (x * scale) or "masked" (x * scale + mask, rows of the mask `mask_pitch` bytes apart).
    """
    def emit(v: Any, x: Any, mask: Any, mask_pitch: Any, rows: Any, n: Any, pitch: Any, scale: Any) -> None:
        least, factor = v.const(v.f32, float("-inf")), v.splat(scale)
        whole = v.and_(v.add(n, v.lanes - 1), -v.lanes)

        def group(r: Any, many: int, columns: int) -> None:
            places = starts(v, x, r, many, pitch)
            masks = starts(v, mask, r, many, mask_pitch)

            def larger(offsets: list[Any], inside: Any, acc: list[Any]) -> list[Any]:
                for off in offsets:
                    values = [v.load(v.f32, at, off) for at in places]
                    if how != "plain":
                        values = [v.fmul(value, factor) for value in values]
                    if how == "masked":
                        values = [v.fadd(value, v.load(v.f32, at, off)) for value, at in zip(values, masks)]
                    if inside is not None:
                        values = [v.select(inside, value, least) for value in values]
                    if how != "plain" or inside is not None:
                        for value, at in zip(values, places):
                            v.store(value, at, off)
                    acc = [v.fmax(value, a) for a, value in zip(acc, values)]
                return acc
            most = _largest(v, sweep(v, n, columns, [least] * many, larger))
            _multiplied(v, whole, columns, places, _exponentials(v, whole, columns, places, places, most, None))
        in_groups(v, rows, n, group)
    return emit


def _soft(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def _twin_softmax(x: int, y: int, rows: int, n: int, beta: float) -> None:
    _floats(y, rows, n)[:] = _soft(_floats(x, rows, n).astype(np.float64) * beta)


def _twin_scores(how: str) -> Callable[..., None]:
    def twin(x: int, mask: int, mask_pitch: int, rows: int, n: int, pitch: int, scale: float) -> None:
        for r in range(rows):
            row = _floats(x + r * pitch, 1, n)
            t = row.astype(np.float64) * (1.0 if how == "plain" else scale)
            if how == "masked":
                t += _floats(mask + r * mask_pitch, n)
            row[:] = _soft(t)
    return twin


softmax = micro_kernel("softmax_rows", "iiiif", _emit_softmax, _twin_softmax)   # (x, y, rows, n, beta), also in place
# (x, mask, mask pitch, rows, n, pitch, scale)
SCORES = {how: micro_kernel(f"softmax_scores_{how}", "ppiiiif", _emit_scores(how), _twin_scores(how))
          for how in ("plain", "scaled", "masked")}
