"""Rule "separable": depthwise convolutions with the 1x1 convolutions around them, where what is between is large.

Measured with 1 MiB of second level cache (Zen 4), from 1 MiB between the nodes on: MobileNet v2 took 3 to 7 % less time,
MobileNet v1, SSD and EfficientNet B0 0 to 2 %; with two threads on cores that are slow to exchange memory up to 12 %. From half
of that on nothing more was gained. With half a megabyte (Zen 3) only EfficientNet gained, 2 to 8 %, the others nothing. In
bfloat16 MobileNet v2 takes 2 to 3 % less. Every kernel of this kind takes about as long to compile as two of the others.
"""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node
from litejit.planner.patterns import Uses, merged

BETWEEN = 1 << 20  # bytes between two nodes from which on they are made together
WEIGHTS = 1 << 16  # most bytes of weights of a 1x1 convolution: every group of rows reads them again


def fuse_separable(uses: Uses, target: Target) -> list[str]:
    """Up to three float32 nodes become SEPARABLE; the numbers stay the same."""
    if target.mode == "ref":
        return []
    from litejit.ops.separable import FUSED

    notes = []
    for depthwise in [node for node in uses.graph.nodes if node.op == "DEPTHWISE_CONV_2D" and _fits(node)]:
        expand = _expansion(uses, depthwise)
        project = _projection(uses, depthwise)
        parts = [node for node in (expand, depthwise, project) if node is not None]
        if len(parts) == 1:
            continue
        other = project.tail.other if project is not None and project.tail is not None else None
        inputs = [parts[0][0], *([other] if other is not None else [])]
        node = merged("SEPARABLE", FUSED["SEPARABLE"], parts, inputs, expand=expand, depthwise=depthwise, project=project)
        uses.replace(parts, node)
        notes.append("SEPARABLE: " + ", ".join(f"node {part.index} {part.op}" for part in parts))
    return notes


def _fits(node: Node) -> bool:
    """A float32 node on one image, with constant weights and as many channels out as in."""
    x, w, bias = node[0], node[1], node.optional(2)
    return (
        x.type == w.type == "f32"
        and x.dims[0] == 1
        and w.data is not None
        and (bias is None or bias.data is not None)
        and (node.op != "DEPTHWISE_CONV_2D" or w.dims[3] == x.dims[3])
    )


def _pointwise(node: Node | None) -> bool:
    from litejit.ops.conv import windows_of

    return node is not None and _fits(node) and node.scale is None and node[1].nbytes <= WEIGHTS and windows_of(node).pointwise


def _expansion(uses: Uses, depthwise: Node) -> Node | None:
    x = depthwise[0]
    node = uses.maker(x, "CONV_2D") if uses.private(x) and x.nbytes >= BETWEEN else None
    fits = _pointwise(node) and (node.tail is None or node.tail.other is None)  # type: ignore[union-attr]
    return node if fits and _few_rows_twice(depthwise) else None


def _few_rows_twice(depthwise: Node) -> bool:
    """Whether the rows that two chunks expand each are less than half of the image: with dilation they may be most of it."""
    from litejit.ops.depthwise import wide_windows
    from litejit.ops.separable import EXPANDING_CHUNKS

    windows = wide_windows(depthwise)
    return 2 * EXPANDING_CHUNKS * (windows.kh - 1) * windows.dh <= windows.height


def _projection(uses: Uses, depthwise: Node) -> Node | None:
    y = depthwise.out
    node = uses.user(y, "CONV_2D") if y.nbytes >= BETWEEN else None
    return node if _pointwise(node) and node[0] is y and (node.tail is None or not node.tail.function) else None  # type: ignore
