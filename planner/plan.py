"""The Plan: everything about a run that can be decided before it, immutable and shared by interpreters.

Its table (one record per step or jump) and parameter blocks are one image of int64 words, made once; an interpreter copies
it and adds the addresses of its own arena and state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler.lazy import Linked, MicroKernel
from litejit.errors import LiteJitError
from litejit.ops.base import Packed, Scratch, Step
from litejit.planner.arena import Buffer
from litejit.planner.constants import SLACK, padded
from litejit.planner.graph import TYPES, Node, Value, refuse
from litejit.planner.lower import Jump
from litejit.release import trim

KERNEL, JUMP_IF_ZERO, JUMP, END = range(4)
RECORD = 4  # int64 words of a table record
LARGE = 1 << 20  # bytes of a constant that kernels read in the file: those of small ones are worth aligning
AS_NUMBERS = ("f32", "f16", "i8", "u8", "i16")  # types that kernels never index with, should the file change
TRIM_FROM = 4 << 20  # bytes of constants whose making leaves a heap worth looking through
READ_AT_ONCE = 8 << 20  # bytes of constants that are made before the file's memory is given back


class Place:
    """Where a value's bytes are: kind "arena" or "state" with an offset, or "constant" with the array."""

    __slots__ = ("array", "kind", "offset")

    def __init__(self, kind: str, offset: int = 0, array: np.ndarray | None = None) -> None:
        self.kind, self.offset, self.array = kind, offset, array


class Plan:
    """Records, memory and parameter image of one subgraph for one set of input shapes."""

    def __init__(
        self,
        graph: Any,
        target: Any,
        records: list[Step | Jump],
        buffers: dict[Any, Buffer],
        offsets: dict[Any, int],
        arena_size: int,
        places: dict[Value, Place],
        state_size: int,
        make_image: Callable[[], Image],
        fused: list[str],
    ) -> None:
        self.graph, self.target, self.records = graph, target, tuple(records)
        self.buffers, self.offsets, self.arena_size = buffers, offsets, arena_size
        self.places, self.state_size, self.fused = places, state_size, tuple(fused)
        self._make_image = make_image
        self._image: Image | None = None

    @property
    def image(self) -> Image:
        """Table and parameters; made when first asked for, which packs the weights."""
        if self._image is None:
            self._image = self._make_image()
            self._forget(self._image)
        return self._image

    def _forget(self, image: Image) -> None:
        """Let go of what constants were made of: packing needs it, running does not."""
        for step in self.steps:
            for item in step.named:
                if isinstance(item, Packed):
                    item.forget()
        for value, place in self.places.items():
            if value.folded and not self.target.preserve and value not in self.graph.outputs:
                value.data = place.array = None
        if sum(array.nbytes for array in image.keep) >= TRIM_FROM:
            trim()

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps, without jumps."""
        return tuple(r for r in self.records if isinstance(r, Step))

    @property
    def straight(self) -> bool:
        """Has no jumps, so that threads may share its steps."""
        return not any(isinstance(r, Jump) for r in self.records)

    @property
    def kernels(self) -> tuple[Linked, ...]:
        """The kernels it needs, and micro-kernels that they call by address, each once, in order of first use."""
        called = [k for s in self.steps for k in (s.kernel, *(v for v in s.named if isinstance(v, Linked)))]
        return tuple({kernel.symbol: kernel for kernel in called}.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a run (bodies of loops counted once)."""
        return sum(s.macs for s in self.steps)

    def node_of(self, record: int) -> Node:
        """The node that record number `record` belongs to."""
        return self.records[record].node

    def place(self, value: Value) -> Place | None:
        """Where a value is; None where it has no memory of its own in this plan."""
        return self.places.get(value)

    # ---- printing ----
    def rows(self) -> list[tuple[str, ...]]:
        """A row of text per record: number, node, kernel, output, chunks, MACs, arena range."""
        rows: list[tuple[str, ...]] = []
        for at, record in enumerate(self.records):
            node = record.node
            if isinstance(record, Jump):
                kind = f"-> {record.to.at}" + ("" if record.flag is None else f" unless T{record.flag.index}")
                rows.append((str(at), f"{node.index} {node.op}", kind, "", "", "", ""))
                continue
            out = ", ".join(
                f"T{v.index} {TYPES[v.type][0].lower()}[{'x'.join(map(str, v.dims))}]" for v in node.outputs
            )
            macs = f"{record.macs / 1e6:.2f}" if record.macs else ""
            rows.append(
                (
                    str(at),
                    f"{node.index} {node.op}",
                    record.kernel.name,
                    out,
                    str(record.chunks),
                    macs,
                    ", ".join(self._range(v) for v in node.outputs),
                )
            )
        return rows

    def _range(self, value: Value) -> str:
        place = self.places.get(value)
        if place is None:
            return "-"
        if place.kind == "constant":
            return "constant"
        return f"{place.kind} {place.offset}..{place.offset + value.nbytes}"

    HEAD = ("step", "node", "kernel", "output", "chunks", "MMAC", "memory")

    def summary(self) -> str:
        """One line: steps, kernels, MACs, memory."""
        total, linked = sum(b.size for b in self.buffers.values()), self.kernels
        micro = sum(isinstance(one, MicroKernel) for one in linked)
        return (
            f"{len(self.steps)} steps, {len(linked) - micro} kernels"
            f"{f' and {micro} micro-kernels' if micro else ''}, {self.macs / 1e6:.1f} MMAC, arena "
            f"{self.arena_size:,} bytes for {total:,} bytes of buffers, {self.target.cpu.name}, {self.target.mode}"
            f"{', bfloat16' if self.target.products == 'bf16' else ''}"
        )

    def __repr__(self) -> str:
        return f"Plan({self.graph.name or self.graph.index}: {self.summary()})"

    def __str__(self) -> str:
        rows = [self.HEAD, *self.rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(len(self.HEAD))]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows]
        notes = [f"fused: {text}" for text in self.fused]
        return "\n".join(
            [f"Plan of {self.graph.name or f'subgraph {self.graph.index}'}: {self.summary()}", *lines, *notes]
        )

    def _repr_html_(self) -> str:
        from html import escape

        body = "".join("<tr>" + "".join(f"<td>{escape(c)}</td>" for c in row) + "</tr>" for row in self.rows())
        head = "".join(f"<th>{c}</th>" for c in self.HEAD)
        return f"<p>{escape(self.summary())}</p><table><tr>{head}</tr>{body}</table>"


class Image:
    """Table and parameter blocks, with the words that addresses are added to."""

    __slots__ = ("arena", "functions", "keep", "own", "state", "words")

    def __init__(
        self,
        words: np.ndarray,
        arena: np.ndarray,
        state: np.ndarray,
        own: np.ndarray,
        functions: list[tuple[int, str]],
        keep: list[np.ndarray],
    ) -> None:
        self.words = words  # int64; offsets where an address is to be added
        self.arena, self.state, self.own = arena, state, own  # indices of words
        self.functions = functions  # (word, kernel's symbol)
        self.keep = keep  # constants that the words point to


class ImageMaker:
    """Lays out the table and the parameters of a program's records."""

    def __init__(
        self,
        records: list[Step | Jump],
        places: dict[Value, Place],
        offsets: dict[Any, int],
        root: Any,
        model: Any,
    ) -> None:
        self.places, self.offsets, self.root, self.model = places, offsets, root, model
        self.packed: dict[Any, np.ndarray] = model.packed
        self.made = 0  # bytes of constants since the file's memory was given back
        self.arena: list[int] = []
        self.state: list[int] = []
        self.own: list[int] = []
        self.functions: list[tuple[int, str]] = []
        self.keep: list[np.ndarray] = []
        at = _up(8 * RECORD * (len(records) + 1))
        blocks = []
        for record in records:
            blocks.append(at)
            if isinstance(record, Step):
                at += record.room
        self.bytes = np.zeros(at, np.uint8)
        self.words = self.bytes.view(np.int64)
        for i, (record, block) in enumerate(zip(records, blocks)):
            try:
                self._record(i, record, block)
            except (LiteJitError, MemoryError):
                raise
            except Exception as error:  # weights of a kind that the operator did not expect
                refuse(record.node, f"{type(error).__name__}: {error}", error)
        self.words[RECORD * len(records)] = END
        self.model.let_go()

    def image(self) -> Image:
        """The finished image."""
        arena, state, own = (np.array(x, np.int64) for x in (self.arena, self.state, self.own))
        return Image(self.words, arena, state, own, self.functions, self.keep)

    def _record(self, i: int, record: Step | Jump, block: int) -> None:
        word = RECORD * i
        if isinstance(record, Jump):
            self.words[word], self.words[word + 3] = (JUMP if record.flag is None else JUMP_IF_ZERO), record.to.at
            if record.flag is not None:
                self._address(word + 1, record.flag)
            return
        self.words[word], self.words[word + 3] = KERNEL, record.chunks
        self.functions.append((word + 1, record.kernel.symbol))
        self._own(word + 2, block)
        self._parameters(record, block)

    def _parameters(self, record: Step, block: int) -> None:
        """Those of a step; behind them a table of the steps that its kernel runs itself, and theirs."""
        fields: Any = record.kernel.params.fields
        unknown = record.params.keys() - fields.keys()
        if unknown:
            raise TypeError(f"{record.kernel.name} has no parameters {sorted(unknown)}")
        for name, value in record.params.items():
            dtype, offset = fields[name][:2]
            start = block + offset
            if isinstance(value, Linked):
                self.functions.append((start // 8, value.symbol))
            elif value is None or isinstance(value, (Value, Packed, Scratch)):
                self._address(start // 8, value)
            elif dtype.shape:
                row = np.zeros(dtype.shape, dtype.base)
                row.ravel()[: len(value)] = value
                self.bytes[start : start + dtype.itemsize] = row.view(np.uint8).ravel()
            else:
                self.bytes[start : start + dtype.itemsize] = np.array([value], dtype).view(np.uint8)
        if record.calls:
            table = block + _up(record.kernel.params.itemsize)
            self._own((block + fields["calls"][1]) // 8, table)
            at = table + _up(16 * len(record.calls))
            for word, step in zip(range(table // 8, at // 8, 2), record.calls):
                self.functions.append((word, step.kernel.symbol))
                self._own(word + 1, at)
                self._parameters(step, at)
                at += step.room

    def _own(self, word: int, place: int) -> None:
        """A word is the address of a place in the image."""
        self.words[word] = place
        self.own.append(word)

    def _address(self, word: int, item: Value | Packed | Scratch | None) -> None:
        if item is None:
            return
        if isinstance(item, Scratch):
            self.words[word] = self.offsets[item]
            self.arena.append(word)
        elif isinstance(item, Packed):
            self.words[word] = self._constant(item.key, item.build)
        else:
            place = self.places[item]
            if place.kind == "constant":
                self.words[word] = self._plain(item, place.array)
            else:
                self.words[word] = place.offset
                (self.arena if place.kind == "arena" else self.state).append(word)

    def _plain(self, value: Value, array: Any) -> int:
        """Address of a constant as it is: in the file if it is large and may lie there, else of a copy."""
        start, file = array.ctypes.data, self.model.source.array
        room = file.ctypes.data + file.nbytes - SLACK - array.nbytes
        if value.type in AS_NUMBERS and array.nbytes >= LARGE and file.ctypes.data <= start <= room:
            self.keep.append(array)
            return int(start)
        return self._constant(("plain", value.key), lambda: array)

    def _constant(self, key: Any, build: Any) -> int:
        """Address of a constant: made once per Model, 64-byte aligned, with slack after it."""
        array = self.packed.get(key)
        if array is None:
            array = self.packed[key] = padded(build())
            self.made += array.nbytes
            if self.made > READ_AT_ONCE:
                self.model.let_go()
                self.made = 0
        self.keep.append(array)
        return int(array.ctypes.data)


def _up(size: int) -> int:
    return -(-size // 64) * 64
