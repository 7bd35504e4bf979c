"""RESHAPE, SQUEEZE, EXPAND_DIMS: the same elements under another shape.

The planner lets the output share the memory of the input; the copy below is for where it cannot.
"""
from __future__ import annotations

from litejit.ops.copy import Move, Movement, plain
from litejit.planner.graph import Node

Shape = tuple[int, ...]


class View(Movement):
    """An operator whose output has the elements of input 0 in the same order."""

    view = True

    def moves(self, node: Node) -> list[Move]:
        return [Move((node.out.size,), (1,), (1,))]


class Reshape(View):
    """options: new_shape, used where there is no 1-D int32 second input; one -1 takes what is left."""

    def delegates(self, node: Node) -> bool:
        shape = node.optional(1)
        return (shape is None or shape.constant) and node.out.rank <= 6

    def prepare(self, node: Node) -> list[Shape]:
        node.arity((1, 2))
        plain(node, node[0], node.out)
        node.same_type(node[0], node.out)
        return [_stretched(node, _wanted(node))]


def _wanted(node: Node) -> Shape:
    """The requested shape, which may hold one -1."""
    shape = node.optional(1)
    if shape is not None and shape.type == "i32" and shape.rank == 1:
        return tuple(int(d) for d in node.constant(1))
    given = getattr(node.options, "new_shape", None)
    option = () if given is None else tuple(int(d) for d in given)
    return () if option == (0,) and node[0].size == 1 else option


def _stretched(node: Node, shape: Shape) -> Shape:
    size, known, stretch = node[0].size, 1, -1
    for i, d in enumerate(shape):
        if d == -1:
            node.check(stretch == -1, f"stretch_dim != -1 ({stretch} != -1): two dimensions of {list(shape)} are -1")
            stretch = i
        else:
            node.check(d >= 0, f"output shape contains negative dimension: {list(shape)}")
            known *= d
    if stretch >= 0:
        node.check(known > 0 or size == 0, f"num_input_elements != num_output_elements ({size} != 0)")
        shape = (*shape[:stretch], size // known if known else 0, *shape[stretch + 1:])
        known *= shape[stretch]
    node.check(known == size, f"num_input_elements != num_output_elements ({size} != {known}): "
                              f"{list(node[0].dims)} does not become {list(shape)}")
    return shape


class Squeeze(View):
    """options: squeeze_dims (negative ones count from the end; none: all dimensions of extent 1)."""

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(1)
        x = node[0]
        plain(node, x, node.out)
        node.same_type(x, node.out)
        given = getattr(node.options, "squeeze_dims", None)
        axes = {int(d) for d in given} if given is not None else set()
        dropped = {a + x.rank if a < 0 else a for a in axes}
        node.check(all(0 <= a < x.rank and x.dims[a] == 1 for a in dropped),
                   "current >= 0 && current < input_num_dims && input_dims->data[current] == 1 was not true: "
                   f"squeeze_dims {sorted(axes)} of {list(x.dims)}")
        return [tuple(d for i, d in enumerate(x.dims) if (i not in dropped if axes else d != 1))]


class ExpandDims(View):
    """Inputs x, axis (one integer in [-rank - 1, rank])."""

    def prepare(self, node: Node) -> list[Shape]:
        node.arity(2)
        x = node[0]
        plain(node, x, node.out)
        node.same_type(x, node.out)
        node.types(node[1], "i32", "i64")
        node.check(node[1].size == 1, f"NumElements(axis) != 1 ({node[1].size} != 1)")
        given = int(node.constant(1).reshape(-1)[0])
        axis = given + x.rank + 1 if given < 0 else given
        node.check(axis <= x.rank, f"axis <= input_dims.size was not true: axis {given} of {list(x.dims)}")
        node.check(axis >= 0, f"axis >= 0 was not true: axis {given} of {list(x.dims)}")
        return [(*x.dims[:axis], 1, *x.dims[axis:])]


OPERATORS = {"RESHAPE": Reshape(), "SQUEEZE": Squeeze(), "EXPAND_DIMS": ExpandDims()}
