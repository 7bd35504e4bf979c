"""Broadcasting: shapes are collapsed while planning, and one loop nest serves every shape.

Dimensions of one element vanish, neighbours that are broadcast alike become one. What is left of the usual cases
(equal shapes, a scalar, a row for the last dimensions) is one or two dimensions; the innermost loop has stride 1 or 0
for each operand and vectorises.
"""
from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import target
from litejit.compiler.lazy import Device, Kernel
from litejit.ops.base import Packed, Scratch, Step, broadcast, chunked
from litejit.ops.copy import Move, copy_steps
from litejit.ops.depthwise_rows import expanded
from litejit.ops.simd.repeats import REPEAT
from litejit.ops.streams import inlined
from litejit.planner.constants import SLACK
from litejit.planner.graph import Node, Value

OUTER = 8                  # most dimensions outside the two innermost, after collapsing
SHORT, LONG = 64, 1024     # elements of an inner loop that are too few, and that are plenty
FEW = 64                   # short loops that may stay so
NARROW, MOST = 128, 1 << 18  # bytes of a loop, and of all loops, for which single elements are worth repeating
GRAIN = 16384              # elements of cheap arithmetic that are worth a chunk
_LAYOUT = [("y", "i8"), ("a", "i8"), ("b", "i8"), ("total", "i8"), ("block", "i8"), ("n0", "i8"), ("n1", "i8"),
           ("a0", "i8"), ("b0", "i8"), ("a1", "i8"), ("b1", "i8"), ("outer", "i8"), ("dims", "i8", (OUTER,)),
           ("sa", "i8", (OUTER,)), ("sb", "i8", (OUTER,))]


def layout(*fields: tuple[str, str]) -> np.dtype:
    """Parameter record of a broadcasting kernel of two operands with further fields."""
    return np.dtype([*_LAYOUT, *fields], align=True)


class Collapsed(NamedTuple):
    """Dimensions, innermost first, and for each operand its strides in elements (0: broadcast)."""

    dims: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]


def collapse(*shapes: tuple[int, ...]) -> Collapsed:
    """The loop nest of operands that broadcast together."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    dims: list[int] = []
    kept: list[tuple[bool, ...]] = []                     # per dimension: which operands move along it
    for column in reversed(list(zip(*padded))):
        size = 0 if 0 in column else max(column)
        moves = tuple(n != 1 for n in column)
        if size == 1:
            continue
        if kept and kept[-1] == moves:
            dims[-1] *= size
        else:
            dims.append(size)
            kept.append(moves)
    if not dims:
        return Collapsed((1,), ((1,),) * len(shapes))
    strides = []
    for operand in range(len(shapes)):
        step, row = 1, []
        for size, moves in zip(dims, kept):
            row.append(step if moves[operand] else 0)
            step *= size if moves[operand] else 1
        strides.append(tuple(row))
    return Collapsed(tuple(dims), tuple(strides))


def shape_text(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def prepare_broadcast(node: Node, a: Value, b: Value) -> tuple[int, ...]:
    """The broadcast shape of two inputs."""
    shape = broadcast(a.dims, b.dims)
    if shape is None:
        node.fail(f"Given shapes, {shape_text(a.dims)} and {shape_text(b.dims)}, are not broadcastable.")
    node.check(len(collapse(a.dims, b.dims).dims) <= OUTER + 2, "broadcasting over more than 10 dimensions")
    return shape  # type: ignore[return-value]


def padded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """What belongs into an array field of OUTER numbers."""
    return tuple(numbers) + (0,) * (OUTER - len(numbers))


def broadcast_steps(node: Node, kernels: Kernels, params: dict[str, Any], operands: tuple[Value, Value] | None = None,
                    grain: int = GRAIN) -> list[Step]:
    """The steps of a pair of kernels on two operands (the inputs of the node); `params`: their further fields."""
    a, b = operands or (node[0], node[1])
    addresses: list[Any] = [a, b]
    steps: list[Step] = []
    nest = collapse(a.dims, b.dims)
    if len(nest.dims) == 2:
        nest, steps = _lengthened(node, addresses, nest, kernels.narrow)
    flat = nest.dims == (1,) or nest.strides == ((1,), (1,))
    (a0, a1, *sa), (b0, b1, *sb) = (s + (0,) * (2 - len(s)) for s in nest.strides)
    n0, n1, *dims = nest.dims + (1,) * (2 - len(nest.dims))
    chunks, block = chunked(node.out.size, grain)
    return [*steps, Step(node, kernels.flat if flat else kernels.nest, {
        "y": node.out, "a": addresses[0], "b": addresses[1], "total": node.out.size, "block": block, "n0": n0,
        "n1": n1, "a0": a0, "b0": b0, "a1": a1, "b1": b1, "outer": len(dims), "dims": padded(tuple(dims)),
        "sa": padded(tuple(sa)), "sb": padded(tuple(sb)), **params}, chunks)]


def _lengthened(node: Node, addresses: list[Any], nest: Collapsed, narrow: int = NARROW) -> tuple[Collapsed, list[Step]]:
    """A short inner loop made longer: what repeats there is written several times over, while planning or by a step."""
    columns, rows = nest.dims
    for i, strides in enumerate(nest.strides):
        few = rows < FEW and addresses[i].data is None
        if columns >= SHORT or few or nest.strides[1 - i] != (1, columns):
            continue
        if strides == (1, 0):
            times = max(n for n in range(1, LONG // columns + 1) if rows % n == 0)
            if times >= 4:
                steps = _rows_repeated(node, addresses, i, times)
                step, outer = columns * times, rows // times
                if outer == 1:
                    return Collapsed((step,), ((1,), (1,))), steps
                return Collapsed((step, outer), ((1, step), (1, 0)) if i else ((1, 0), (1, step))), steps
        elif columns * addresses[i].itemsize <= narrow and _few_bytes(columns * rows, addresses[i].itemsize):
            return Collapsed((columns * rows,), ((1,), (1,))), _elements_repeated(node, addresses, i, columns)
    return nest, []


def _few_bytes(count: int, size: int) -> bool:
    """Whether so many elements of `size` bytes are worth writing for the elements that repeat among them."""
    return count * size <= MOST and size in REPEAT


def _rows_repeated(node: Node, addresses: list[Any], i: int, times: int) -> list[Step]:
    """Operand i several times, one behind the other."""
    value = addresses[i]
    if value.data is not None:
        addresses[i] = Packed((value.key, f"repeated {times}"), _repeated(value.data, times))
        return []
    n, size = value.size, value.itemsize
    addresses[i] = Scratch(times * n * size + SLACK)
    return copy_steps(node, value, addresses[i], Move((times, n), (0, 1), (n, 1)), size)


def _elements_repeated(node: Node, addresses: list[Any], i: int, times: int) -> list[Step]:
    """Every element of operand i several times."""
    value = addresses[i]
    if value.data is not None:
        addresses[i] = Packed((value.key, f"elements {times}"), lambda: np.repeat(value.data.reshape(-1), times))
        return []
    addresses[i], step = expanded(node, target(), value, value.size, value.itemsize, times)
    return [step]


def _repeated(data: np.ndarray, times: int) -> Callable[[], np.ndarray]:
    return lambda: np.tile(data.reshape(-1), times)


class Kernels(NamedTuple):
    """The two kernels of a formula: operands of one shape; any broadcasting. narrow: bytes of a loop of the second one with one
    element of an operand that is worth repeating for the first one."""

    flat: Kernel
    nest: Kernel
    narrow: int = NARROW


@functools.cache
def _locator(params: tuple[Any, ...]) -> Device:
    """A device function that finds elements of the operands; one for each parameter record (Numba mixes them up)."""
    @device
    def locate(p, at):
        """(index into a, index into b, position in the second dimension, column) of the output's element `at`."""
        row = at // p.n0
        rest = row // p.n1
        j = row - rest * p.n1
        ia = j * p.a1
        ib = j * p.b1
        for d in range(p.outer):
            above = rest // p.dims[d]
            place = rest - above * p.dims[d]
            ia += place * p.sa[d]
            ib += place * p.sb[d]
            rest = above
        return ia, ib, j, at - row * p.n0
    made: Device = locate
    return made


def broadcast_kernels(name: str, params: np.dtype, load: Any, store: Any, constants: Any, formula: Any) -> Kernels:
    """Kernels y[i] = formula(k, a[..], b[..]), k = constants(p), over chunks of `block` elements of the output.

    load, store: of streams.py; constants, formula: device functions.
    """
    formula, locate = inlined(formula), _locator(params.names)

    @kernel(params, name=name)
    def flat(p, begin, end):
        k = constants(p)
        y, a, b, total, block = p.y, p.a, p.b, p.total, p.block
        for c in prange(begin, end):
            for i in range(c * block, min(total, (c + 1) * block)):
                store(y, i, formula(k, load(a, i), load(b, i)))
        return 0

    @kernel(params, name=f"{name}_broadcast")
    def nest(p, begin, end):
        k = constants(p)
        y, a, b, n0, n1, a0, b0, a1, b1 = p.y, p.a, p.b, p.n0, p.n1, p.a0, p.b0, p.a1, p.b1
        for c in prange(begin, end):
            at = c * p.block
            stop = min(p.total, at + p.block)
            while at < stop:
                ia, ib, j, column = locate(p, at)
                while j < n1 and at < stop:
                    run = min(n0 - column, stop - at)
                    if a0 == 0:
                        u = load(a, ia)
                        for i in range(run):
                            store(y, at + i, formula(k, u, load(b, ib + column + i)))
                    elif b0 == 0:
                        v = load(b, ib)
                        for i in range(run):
                            store(y, at + i, formula(k, load(a, ia + column + i), v))
                    else:
                        for i in range(run):
                            store(y, at + i, formula(k, load(a, ia + column + i), load(b, ib + column + i)))
                    at += run
                    column = 0
                    ia += a1
                    ib += b1
                    j += 1
        return 0
    return Kernels(flat, nest)


def broadcast_runs(name: str, params: np.dtype, run: Any) -> Kernels:
    """Kernels that do whole runs: run(p, at, ia, ib, n) makes the outputs at .. at + n of the elements from ia and ib on.

    p.a0, p.b0: the strides of both, 0 where one element serves the whole run.
    """
    locate = _locator(params.names)

    @kernel(params, name=name)
    def runs(p, begin, end):
        for c in prange(begin, end):
            at = c * p.block
            stop = min(p.total, at + p.block)
            while at < stop:
                ia, ib, j, column = locate(p, at)
                while j < p.n1 and at < stop:
                    n = min(p.n0 - column, stop - at)
                    run(p, at, ia + column * p.a0, ib + column * p.b0, n)
                    at += n
                    column = 0
                    ia += p.a1
                    ib += p.b1
                    j += 1
        return 0
    return Kernels(runs, runs)


def broadcast_rows(name: str, params: np.dtype, run: Any) -> Kernel:
    """A kernel that does whole rows: run(p, at, ia, ib, rows, n) makes `rows` rows of n outputs from `at` on, of elements that
    are a1 and b1 apart from row to row, a0 and b0 (0 or 1) in a row."""
    locate = _locator(params.names)

    @kernel(params, name=name)
    def rows(p, begin, end):
        n0 = p.n0
        for c in prange(begin, end):
            at = c * p.block
            stop = min(p.total, at + p.block)
            while at < stop:
                ia, ib, j, column = locate(p, at)
                many, n = min(p.n1 - j, (stop - at) // n0), n0
                if column > 0 or many == 0:
                    many, n = 1, min(n0 - column, stop - at)
                run(p, at, ia + column * p.a0, ib + column * p.b0, many, n)
                at += many * n
        return 0
    return rows
