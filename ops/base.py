"""What an operator is to the planner: `prepare` gives shapes, `steps` gives kernels with their parameters.

An operator is one stateless object per code; everything about a node is in the Node. Its file holds, in this order:
the parameter records, the class (options it reads, `delegates`, `prepare`, `fold`, `steps`), then the kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Kernel
from litejit.planner.graph import Node, Value

MAX_CHUNKS = 16


class Target(NamedTuple):
    """What steps are chosen for."""

    cpu: Cpu
    mode: str = "auto"  # "auto" (LiteRT's default), "opt" (no XNNPACK), "ref" (reference kernels)
    precision: str = "float32"  # or "bfloat16": float32 products may be made of bfloat16 numbers
    preserve: bool = False  # every tensor keeps its memory
    without: tuple[str, ...] = ()  # rules of planner/fuse.py that are switched off

    @property
    def products(self) -> str:
        """What float32 products are made of: "bf16" where that is asked for and the CPU has the instruction, else "f32"."""
        return "bf16" if self.precision == "bfloat16" and self.cpu.bf16 and self.mode != "ref" else "f32"

    def exact(self) -> Target:
        """The same with products of float32."""
        return self._replace(precision="float32")


class Packed:
    """A constant made while planning (packed weights, tables): shared by all interpreters of a Model.

    key: tells its contents apart from every other one of the Model, e.g. (weights.key, "panels 16");
    build: gives the array (any dtype; bound 64-byte aligned, 64 readable bytes after it).
    """

    __slots__ = ("build", "key")

    def __init__(self, key: tuple[Any, ...], build: Callable[[], np.ndarray]) -> None:
        self.key, self.build = key, build

    def forget(self) -> None:
        """Let go of what `build` holds, once the constant is made."""
        self.build = _made


def _made() -> np.ndarray:
    raise RuntimeError("the constant is made already")


class Scratch:
    """Memory in the arena that lives during the steps of the node that name it (64-byte aligned, not zeroed)."""

    __slots__ = ("nbytes",)

    def __init__(self, nbytes: int) -> None:
        self.nbytes = int(nbytes)


class Step:
    """One kernel over its chunks.

    params: field -> number, tuple of numbers (array fields), or Value / Packed / Scratch / Kernel / MicroKernel / None (their
    address; 0).
    Every tensor that the kernel touches must be named there, or in `calls`: lifetimes are read off them.
    calls: steps that the kernel runs itself. Its field `calls` is the address of their kernels and parameters, in turns; the
    parameters lie one behind the other, each in its `room`.
    """

    __slots__ = ("calls", "chunks", "kernel", "macs", "node", "note", "params", "products", "touched")

    def __init__(
        self,
        node: Node,
        kernel: Kernel,
        params: dict[str, Any],
        chunks: int = 1,
        *,
        macs: int = 0,
        touched: int = 0,
        note: str = "",
        products: str = "",
        calls: Sequence[Step] = (),
    ) -> None:
        self.node, self.kernel, self.params, self.chunks = node, kernel, params, chunks
        self.macs = macs  # multiply-accumulates
        self.touched = touched  # bytes read and written (0: those of the node's tensors)
        self.note = note
        self.calls = tuple(calls)
        self.products = products  # type of what is multiplied ("bf16"), where it is not that of the node's tensors

    @property
    def room(self) -> int:
        """Bytes of its parameters and, behind them, a table of the steps that the kernel runs itself, and theirs."""
        own = -(-self.kernel.params.itemsize // 64) * 64
        return own + -(-16 * len(self.calls) // 64) * 64 + sum(step.room for step in self.calls)

    @property
    def named(self) -> list[Any]:
        """All that its parameters name, and the steps that the kernel runs itself: their kernels too."""
        return [*self.params.values(), *(value for step in self.calls for value in (step.kernel, *step.named))]


class Piece(NamedTuple):
    """A tensor of a node that is one contiguous range of another one: the bytes from `at` on of `whole`."""

    position: int  # of `part` among the inputs, or among the outputs where an input is cut
    part: Value
    whole: Value
    at: int


class Wide(NamedTuple):
    """Where rows of an output lie in the rows of a wider tensor: from byte `at` of `whole` on, `pitch` bytes apart."""

    whole: Value
    at: int
    pitch: int


def row_pitch(node: Node, columns: int) -> int:
    """Bytes from row to row of the node's float32 output."""
    return node.wide.pitch if node.wide is not None else 4 * columns


def chunked(total: int, grain: int, most: int = MAX_CHUNKS) -> tuple[int, int]:
    """(chunks, units per chunk): at most `most` chunks of whole grains, the last one possibly shorter.

    `grain` is how many units are worth a chunk of their own (some 10 microseconds of work). Never depends on threads.
    """
    if total <= grain:
        return 1, max(total, 1)
    grains = -(-total // grain)
    size = -(-grains // most) * grain
    return -(-total // size), size


class Operator:
    """Base of all operators."""

    view = False  # output 0 is input 0 with another shape: no step, no copy
    random = False  # never folded
    one_sign = True  # of `takes_unsigned`: all tensors of 8 bits but constants have one type then
    errors: ClassVar[dict[int, str]] = {}  # kernel's error code -> text

    def delegates(self, node: Node) -> bool:
        """Whether XNNPACK takes this node in LiteRT's default mode (the planner checks the general conditions)."""
        return False

    def prepare(self, node: Node) -> list[tuple[int, ...]]:
        """Check arity, types and shapes; the shapes of the outputs. Raises PrepareError, DynamicShape."""
        raise TypeError(f"{type(self).__name__}.prepare is missing")

    def fold(self, node: Node) -> list[np.ndarray] | None:
        """The outputs where all inputs are constants, in NumPy; None: not folded."""
        return None

    def steps(self, node: Node, target: Target) -> list[Step]:
        """The kernels that compute the node."""
        raise TypeError(f"{type(self).__name__}.steps is missing")

    def pieces(self, node: Node) -> list[Piece]:
        """Inputs that are ranges of output 0, or outputs that are ranges of an input.

        `steps` leaves out the positions in `node.placed`: those have their memory in the whole already.
        """
        return []

    def widens(self, node: Node, target: Target) -> bool:
        """Whether `steps` heeds `node.wide`, where that is set: rows along the last dimension of output 0."""
        return False

    def takes_pixels(self, node: Node, target: Target) -> bool:
        """Whether `steps` heeds `node.pixel`, where that is set: bytes from pixel to pixel of input 0."""
        return False

    def takes_unsigned(self, node: Node, target: Target) -> bool:
        """Whether `steps` makes the same of codes of uint8 in the place of int8 ones, with zero points 128 more, in no more
        time."""
        return False

    def in_place(self, node: Node) -> tuple[int, ...]:
        """Inputs whose memory output 0 may take over (same bytes per element, each element read before it is written)."""
        return ()


def broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """NumPy's broadcast shape, or None."""
    rank = max(len(a), len(b))
    x, y = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(p != q and 1 not in (p, q) for p, q in zip(x, y)):
        return None
    return tuple(q if p == 1 else p for p, q in zip(x, y))


def same_value(a: Value, b: Value) -> bool:
    """Equal per-tensor quantisation."""
    return a.scale == b.scale and a.zero_point == b.zero_point
