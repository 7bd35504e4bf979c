"""Rule "mean": the mean of the pixels behind a depthwise convolution, of rows that are still in the cache.

The first part of squeeze-and-excitation. The two small convolutions behind it stay steps of their own: a step of one chunk
costs its thread nothing but a call.
"""

from __future__ import annotations

from litejit.ops.base import Target
from litejit.planner.graph import Node
from litejit.planner.patterns import Uses

PRODUCERS = ("DEPTHWISE_CONV_2D", "SEPARABLE")


def fuse_means(uses: Uses, target: Target) -> list[str]:
    """A MEAN over the pixels of one image becomes the second output of the node that makes the image."""
    if target.mode == "ref":
        return []
    notes = []
    for node in [node for node in uses.graph.nodes if node.op == "MEAN" and _over_pixels(node)]:
        maker = uses.maker(node[0], *PRODUCERS)
        if maker is None or not _fits(maker) or not uses.once(maker.out) or not uses.once(node.out):
            continue
        maker.mean, maker.outputs = node.out, (maker.out, node.out)
        uses.graph.nodes.remove(node)
        notes.append(f"node {node.index} MEAN: sums behind node {maker.index} {maker.op}")
    return notes


def _over_pixels(node: Node) -> bool:
    """Whether a node takes the mean of the height and the width of one float32 image."""
    from litejit.ops.reduce import reduced_axes

    x, axes = node[0], node[1]
    if x.type != "f32" or x.rank != 4 or x.dims[0] != 1 or x.size == 0 or axes.data is None or node.out.variable:
        return False
    return list(reduced_axes(node)) == [1, 2]


def _fits(maker: Node) -> bool:
    """A float32 depthwise convolution, or one whose rows go nowhere else but into memory."""
    last = getattr(maker.options, "depthwise", None) if maker.op == "SEPARABLE" else maker
    if last is None or (maker.op == "SEPARABLE" and maker.options.project is not None):
        return False
    return last[0].type == last[1].type == "f32" and maker.wide is None and not maker.out.variable
