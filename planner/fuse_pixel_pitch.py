"""Rule "pixel_pitch": a convolution leaves a cache line between the pixels that a depthwise one reads.

A depthwise tile reads the same channels of neighbouring pixels and rows. Where pixels lie a multiple of 2 KiB apart, these
fall on few sets of the first cache and push each other out. Measured (Zen 4): the depthwise convolutions of MobileNet v1 take
0.70 to 0.80 of the time with 512 and 1024 channels, all of the model 0.99; no difference with 256, 384, 576 and 960 channels.
"""

from __future__ import annotations

from litejit.ops.base import Target, Wide
from litejit.planner.graph import Node, Value
from litejit.planner.patterns import Uses

LINE = 64  # bytes of a cache line
APART = 2048  # bytes from pixel to pixel, or a multiple, that call for a line between


def fuse_pixel_pitches(uses: Uses, target: Target) -> list[str]:
    """Let float32 convolutions write the pixels that only a depthwise convolution reads a line further apart."""
    notes = []
    for node in uses.graph.nodes:
        maker = _maker(uses, node, target)
        if maker is None or not uses.once(maker.out):
            continue
        x = node[0]
        pixel = 4 * x.dims[3] + LINE
        wide = Value(f"{x.name} with a line between pixels", x.index, x.subgraph, x.type, (*x.dims[:3], pixel // 4))
        maker.wide, node.pixel = Wide(wide, 0, pixel), pixel
        notes.append(f"pixels of node {maker.index} {maker.op} {pixel} bytes apart for node {node.index} {node.op}")
    return notes


def _maker(uses: Uses, node: Node, target: Target) -> Node | None:
    """The convolution that makes the input of a depthwise one, where its pixels are to lie further apart."""
    if node.op != "DEPTHWISE_CONV_2D" or target.preserve or not node.operator.takes_pixels(node, target):
        return None
    x = node[0]
    if 4 * x.dims[3] % APART or x.size == 0:
        return None
    maker = uses.maker(x, "CONV_2D") if uses.private(x) else None
    return maker if maker is not None and maker.operator.widens(maker, target) else None
