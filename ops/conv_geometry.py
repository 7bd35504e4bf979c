"""Where the windows of a 2-D convolution lie: sizes, padding, strides, dilation, groups; all run-time parameters.

x [N, H, W, C] in rows of pixels; output pixel m = (image * OH + oy) * OW + ox sees kh x kw taps of C / groups channels,
tap (ky, kx) at input pixel (oy * sh - top + ky * dh, ox * sw - left + kx * dw). Taps outside of the image see the padding
value.
"""
from __future__ import annotations

import copy
from typing import Any

from litejit.planner.graph import Node

FIELDS = [(name, "i8") for name in ("height", "width", "channels", "out_height", "out_width", "kh", "kw", "sh", "sw", "dh",
                                    "dw", "top", "left", "depth", "m")]
"""Fields of a parameter record that the device functions on windows read; `depth`: channels of a tap, `m`: output pixels."""


def out_size(size: int, kernel: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """(output size, padding in front) along one axis; the size may be negative where the kernel does not fit."""
    extent = (kernel - 1) * dilation + 1
    if padding == "SAME":
        out = -(-size // stride)
        return out, max(0, (out - 1) * stride + extent - size) // 2
    return -(-(size - extent + 1) // stride), 0


Pads = tuple[int, int, int, int]


class Windows:
    """The windows of a node with input dims x [N, H, W, C] and a kh x kw kernel with `depth` channels per tap."""

    __slots__ = ("channels", "depth", "dh", "dw", "height", "images", "kh", "kw", "left", "out_height", "out_width", "sh", "sw",
                 "top", "width")

    def __init__(self, dims: tuple[int, ...], kernel: tuple[int, int], depth: int, strides: tuple[int, int] = (1, 1),
                 dilations: tuple[int, int] = (1, 1), padding: str = "VALID", pads: Pads | None = None) -> None:
        """pads: zeros above, below, left and right of the image, in the place of `padding`."""
        self.images, self.height, self.width, self.channels = dims
        self.kh, self.kw = kernel
        self.sh, self.sw = strides
        self.dh, self.dw = dilations
        self.depth = depth
        self.out_height, self.top = out_size(self.height, self.kh, self.sh, self.dh, padding)
        self.out_width, self.left = out_size(self.width, self.kw, self.sw, self.dw, padding)
        if pads is not None:
            self.top, self.left = pads[0], pads[2]
            self.out_height = out_size(self.height + pads[0] + pads[1], self.kh, self.sh, self.dh, "VALID")[0]
            self.out_width = out_size(self.width + pads[2] + pads[3], self.kw, self.sw, self.dw, "VALID")[0]

    @property
    def m(self) -> int:
        """Output pixels of all images."""
        return self.images * self.out_height * self.out_width

    @property
    def k(self) -> int:
        """Products per output."""
        return self.kh * self.kw * self.depth

    @property
    def groups(self) -> int:
        return self.channels // self.depth

    @property
    def pointwise(self) -> bool:
        """1 x 1, stride 1: rows of pixels are rows of a matrix."""
        return (self.kh, self.kw, self.sh, self.sw) == (1, 1, 1, 1) and self.groups == 1

    def lying(self) -> Windows:
        """The same with rows and columns exchanged, where the image is a single column: a row of the kernel is a run of it."""
        if not self.width == self.kw == self.out_width == 1 or self.left:
            return self
        made = copy.copy(self)
        for down, across in (("height", "width"), ("out_height", "out_width"), ("kh", "kw"), ("sh", "sw"), ("dh", "dw"),
                             ("top", "left")):
            setattr(made, down, getattr(self, across))
            setattr(made, across, getattr(self, down))
        return made

    def params(self) -> dict[str, int]:
        """Values for FIELDS."""
        return {name: getattr(self, name) for name, _ in FIELDS}


def windows(node: Node, kernel: tuple[int, int], depth: int) -> Windows:
    """The windows of a CONV_2D or DEPTHWISE_CONV_2D node, by its options."""
    options: Any = node.options
    strides = int(getattr(options, "stride_h", 1)), int(getattr(options, "stride_w", 1))
    dilations = tuple(int(getattr(options, f"dilation_{axis}_factor", 1)) for axis in "hw")
    node.check(strides[0] > 0, "params->stride_height > 0 was not true.")
    node.check(strides[1] > 0, "params->stride_width > 0 was not true.")
    node.check(dilations[0] > 0, "params->dilation_height_factor > 0 was not true.")
    node.check(dilations[1] > 0, "params->dilation_width_factor > 0 was not true.")
    padding = "VALID" if getattr(getattr(options, "padding", None), "name", "SAME") == "VALID" else "SAME"
    made = Windows(node[0].dims, kernel, depth, strides, dilations, padding,    # type: ignore[arg-type]
                   getattr(options, "pads", None))
    node.check(made.out_height >= 0 and made.out_width >= 0, lambda: (
        f"the kernel {kernel[0]}x{kernel[1]} does not fit the input {made.height}x{made.width} of {node.op}"))
    return made


def matrix_windows(rows: int, depth: int) -> Windows:
    """A matrix of `rows` rows as windows."""
    return Windows((1, rows, 1, depth), (1, 1), depth)


def grid(m: int, n: int, k: int, rows: int, columns: int, *, grain: int, most: int, by_columns: bool) -> tuple[int, int]:
    """(rows, columns) of a chunk of an m x n product with k steps, whole tiles of rows x columns.

    Rows are cut, or columns where `by_columns` says that this moves less memory or where there are too few rows.
    """
    wanted = max(1, min(most, m * n * k // grain))
    row_tiles, column_tiles = -(-m // rows), -(-n // columns)
    if by_columns or row_tiles < wanted:
        across = min(wanted, column_tiles)
        down = min(row_tiles, -(-wanted // across))
    else:
        across, down = 1, wanted
    return -(-row_tiles // down) * rows, -(-column_tiles // across) * columns
