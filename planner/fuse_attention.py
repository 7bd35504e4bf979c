"""Rule "attention": BATCH_MATMUL, scale, mask, SOFTMAX, BATCH_MATMUL and the transposes of heads around them become a node.

A transpose in front of an operand, or behind the result, is taken in as strides, whatever its permutation, as long as
rows of q, v and the result stay rows of memory.
"""

from __future__ import annotations

from typing import Any

from litejit.ops.arithmetic import activation
from litejit.ops.base import Target
from litejit.ops.copy import strides
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses, merged, scalar

Shape = tuple[int, ...]
FEW_ROWS = 8  # fewer are products of vectors, which do not pay for packing


class View:
    """Memory of a value seen with other dimensions: sizes and strides in elements."""

    __slots__ = ("shape", "strides", "value")

    def __init__(self, value: Value, shape: Shape, steps: Shape) -> None:
        self.value, self.shape, self.strides = value, shape, steps

    @classmethod
    def plain(cls, value: Value) -> View:
        """As it lies."""
        return cls(value, value.dims, strides(value.dims))

    def turned(self, axes: Shape) -> View:
        """Transposed."""
        return View(self.value, tuple(self.shape[a] for a in axes), tuple(self.strides[a] for a in axes))

    def swapped(self) -> View:
        """With the last two dimensions exchanged."""
        rank = len(self.shape)
        return self.turned((*range(rank - 2), rank - 1, rank - 2))

    def heads(self) -> Any:
        """The strides of [outer, heads, rows, columns]."""
        from litejit.ops.attention import Heads

        return Heads(*(0,) * (4 - len(self.strides)), *self.strides)


def fuse_attention(uses: Uses, target: Target) -> list[str]:
    """Replace every chain around a SOFTMAX that is an attention."""
    if target.mode == "ref":
        return []
    notes = []
    for node in list(uses.graph.nodes):
        if node.op == "SOFTMAX" and node[0].type == "f32" and float(node.options.beta) == 1.0:
            found = _Search(node, uses)
            if found.matches():
                made = found.replace()
                notes.append(f"nodes {', '.join(part.split()[1] for part in made.notes)} into {made!r}")
    return notes


class _Search:
    """The chain around a SOFTMAX."""

    def __init__(self, softmax: Node, uses: Uses) -> None:
        self.uses = uses
        self.parts = [softmax]
        self.scale: float | None = None
        self.mask: View | None = None

    def matches(self) -> bool:
        """Whether it is an attention; collects its parts."""
        softmax, uses = self.parts[0], self.uses
        second = uses.user(softmax.out, "BATCH_MATMUL")
        if second is None or second[0] is not softmax.out or second[1] is softmax.out or _adjoint(second, "adj_x"):
            return False
        self.parts.append(second)
        first = self._scores(softmax[0])
        if first is None or _adjoint(first, "adj_x"):
            return False
        self.parts.append(first)
        self.q, k, v = self._view(first[0]), self._view(first[1]), self._view(second[1])
        self.k = k if _adjoint(first, "adj_y") else k.swapped()  # [..., n, depth]
        self.v = v.swapped() if _adjoint(second, "adj_y") else v
        self.y = self._result(second)
        return self._fits(first, second)

    def _scores(self, value: Value) -> Node | None:
        """The product behind a mask and a scale, which are noted."""
        node = self._maker(value, "ADD", "MUL", "DIV", "BATCH_MATMUL")
        if node is not None and node.op == "ADD":
            for scores, mask in (node.inputs, node.inputs[::-1]):
                made = self._maker(scores, "MUL", "DIV", "BATCH_MATMUL")
                if made is not None and made.out.dims == value.dims and self._masks(mask, value.dims):
                    self.parts.append(node)
                    node = made
                    break
        if node is not None and node.op in ("MUL", "DIV"):
            given = (node.inputs, node.inputs[::-1]) if node.op == "MUL" else (node.inputs,)
            for scores, factor in given:
                number, made = scalar(factor), self._maker(scores, "BATCH_MATMUL")
                if made is not None and number and made.out.dims == node.out.dims:
                    self.scale = number if node.op == "MUL" else 1 / number
                    self.parts.append(node)
                    node = made
                    break
        return node if node is not None and node.op == "BATCH_MATMUL" else None

    def _maker(self, value: Value | None, *ops: str) -> Node | None:
        """The maker of a value that only one node reads."""
        node = self.uses.maker(value, *ops)
        if node is None or value is None or not self.uses.private(value) or activation(node) != "NONE":
            return None
        return node

    def _masks(self, mask: Value | None, shape: Shape) -> bool:
        """Note a mask that broadcasts to the scores, all columns in it."""
        if mask is None or mask.type != "f32" or mask.variable or mask.rank > len(shape):
            return False
        dims = (1,) * (len(shape) - mask.rank) + mask.dims
        if dims[-1] != shape[-1] or any(d not in (1, s) for d, s in zip(dims, shape)):
            return False
        steps = tuple(0 if d == 1 else s for d, s in zip(dims[:-1], strides(dims)))
        self.mask = View(mask, shape, (*steps, 1))
        return True

    def _view(self, value: Value) -> View:
        """An operand, seen through the transposes that make it; they go unless somebody else reads them."""
        node = self.uses.maker(value, "TRANSPOSE")
        if node is None or node[1].data is None or node[0].variable:
            return View.plain(value)
        private = self.uses.private(value)
        if private:
            self.parts.append(node)
        return (self._view(node[0]) if private else View.plain(node[0])).turned(_axes(node))

    def _result(self, second: Node) -> View:
        """The result, written through the transpose behind it."""
        node = self.uses.user(second.out, "TRANSPOSE")
        if node is None or node[0] is not second.out or node[1].data is None:
            return View.plain(second.out)
        self.parts.append(node)
        axes = _axes(node)
        return View.plain(node.out).turned(tuple(axes.index(i) for i in range(len(axes))))

    def _fits(self, first: Node, second: Node) -> bool:
        q, k, v, y = self.q, self.k, self.v, self.y
        values = [q.value, k.value, v.value, *(node.out for node in self.parts)]
        if any(value.type != "f32" or value.variable for value in values):
            return False
        if k.value.data is not None or v.value.data is not None:
            return False
        if not 3 <= len(q.shape) <= 4 or not q.shape[:-2] == k.shape[:-2] == v.shape[:-2] == y.shape[:-2]:
            return False
        if min(q.value.size, k.value.size, v.value.size) == 0 or q.shape[-2] < FEW_ROWS:
            return False
        rows = all(view.strides[-1] == 1 for view in (q, y))
        return rows and all(1 in view.strides[-2:] for view in (k, v))

    def replace(self) -> Node:
        """Put the node in the place of the parts."""
        from litejit.ops.attention import HEADS

        q, k, v, y = self.q, self.k, self.v, self.y
        places = {id(node): i for i, node in enumerate(self.uses.graph.nodes)}
        parts = sorted(self.parts, key=lambda node: places[id(node)])
        inputs = [q.value, k.value, v.value, *([self.mask.value] if self.mask else [])]
        outer, heads, m, depth = (1,) * (4 - len(q.shape)) + q.shape
        made = merged(
            "ATTENTION", HEADS, parts, inputs, outer=outer, heads=heads, m=m, n=k.shape[-2], depth=depth, width=v.shape[-1],
            q=q.heads(), k=k.heads(), v=v.heads(), y=y.heads(), mask=self.mask and self.mask.heads(), scale=self.scale,
        )  # fmt: skip
        made.outputs = (y.value,)
        self.uses.replace(parts, made)
        return made


def _adjoint(node: Node, name: str) -> bool:
    return bool(node.options and getattr(node.options, name))


def _axes(node: Node) -> Shape:
    rank = node[0].rank
    return tuple(int(a) % rank for a in node.constant(1).reshape(-1))
