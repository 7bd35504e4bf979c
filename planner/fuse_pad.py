"""Rule "pad": a border of zeros in front of a VALID convolution becomes the padding of the convolution."""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node
from litejit.planner.patterns import Uses

TYPES = (("f32", "f32"), ("i8", "i8"), ("u8", "u8"), ("i16", "i8"))  # of input and weights


class Padded:
    """Options of a convolution with padding of its own: rows above and below, columns left and right."""

    __slots__ = ("_options", "pads")

    def __init__(self, options: object, pads: tuple[int, int, int, int]) -> None:
        self._options, self.pads = options, pads

    def __getattr__(self, name: str) -> object:
        return getattr(self._options, name)


def fuse_pads(uses: Uses, target: Target) -> list[str]:
    """PAD of the rows and columns moves into the only user of its output; the numbers stay the same."""
    notes = []
    for node in [node for node in uses.graph.nodes if node.op in ("PAD", "PADV2")]:
        conv = uses.user(node.out, "CONV_2D", "DEPTHWISE_CONV_2D")
        if conv is None or conv[0] is not node.out or not _fits(node, conv):
            continue
        (_, _), (top, bottom), (left, right), (_, _) = (tuple(map(int, row)) for row in node.constant(1))
        conv.inputs, conv.options = (node[0], *conv.inputs[1:]), Padded(conv.options, (top, bottom, left, right))
        uses.replace([node, conv], conv)
        notes.append(f"node {node.index} {node.op} into node {conv.index} {conv.op}")
    return notes


def _fits(node: Node, conv: Node) -> bool:
    """The border has the value that convolutions pad with, is around images only, and narrower than the kernel."""
    from litejit.ops.conv import windows_of

    x, value = node[0], node.optional(2)
    if x.rank != 4 or node[1].data is None or (x.type, conv[1].type) not in TYPES or conv[1].dims[1:3] == (1, 1):
        return False
    if getattr(getattr(conv.options, "padding", None), "name", "") != "VALID" or hasattr(conv.options, "pads"):
        return False
    if (x.scale, x.zero_point) != (node.out.scale, node.out.zero_point):
        return False
    zero = 0 if x.type in ("f32", "i16") else x.zero_point
    same = value is None or (value.data is not None and float(value.data.reshape(-1)[0]) == zero)
    pads, extents = node.constant(1), windows_of(conv)
    return (
        same
        and not pads[0].any()
        and not pads[3].any()
        and max(pads[1]) <= (extents.kh - 1) * extents.dh  # kernels expect that every window sees a part of the image
        and max(pads[2]) <= (extents.kw - 1) * extents.dw
    )
