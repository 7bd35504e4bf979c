"""TRANSPOSE_CONV in float32: outputs of the same phase, (row mod stride, column mod stride), are a convolution of their own.

Output (oy, ox) sees the taps ky = r, r + sh ... of input rows (oy + top - ky) / sh, r = (oy + top) mod sh, and so along the
row: a phase's taps are neighbouring input pixels, so that a row of them is one run of inputs, as in ops/conv_rows.py, and the
outputs of a phase in a row lie sw pixels apart. Input rows are staged with zeros around them where taps leave the image. Where
patches meet without overlapping, sw pixels are the columns of one product. LiteRT computes it likewise (XNNPACK's
subconvolutions).
"""
from __future__ import annotations

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.cpu import Cpu
from litejit.compiler.primitives import copy_bytes, fill_bytes, load_f32, load_i64, store_f32
from litejit.ops.arithmetic import activation, float_range
from litejit.ops.base import Packed, Scratch, Step, Target, chunked, row_pitch
from litejit.ops.conv_band import places
from litejit.ops.simd.gemm_f32 import gemm_f32, pack_f32, panel_columns, segment_gemm_f32, segment_tiles
from litejit.ops.simd.tiles import grain
from litejit.ops.transpose_conv_int8 import GEOMETRY
from litejit.planner.graph import Node, Value

ROWS = np.dtype([*GEOMETRY, *((name, "i8") for name in (
    "y", "bias", "offsets", "pitch", "phases", "columns", "staged", "staged_size", "line", "before", "pixels", "above",
    "row_chunks", "starts", "lines", "tile", "last_tile")), ("lo", "f4"), ("hi", "f4")], align=True)
"""phases: along a row; columns: of a product; offsets: bytes to the panels of every phase; pitch: bytes from output pixel to
output pixel; line: bytes of a staged input row of `pixels`, of which `before` are in front of the image, and which is the first
of `above` + 1 that see an output row; staged_size 0: nothing is staged; starts, lines: bytes to the pixels of a row, and to
rows; tile, last_tile: see `segment_tiles`."""


def float_steps(node: Node, target: Target, fields: dict[str, int]) -> list[Step]:
    """Steps of y = clamp(transposed convolution of x by constant w [O, kh, kw, C] + bias); fields: of GEOMETRY."""
    x, w, y, bias, cpu = node[2], node[1], node.out, node.optional(3), target.cpu
    if w.data is None:
        node.fail("TRANSPOSE_CONV with float32 weights that are not constant is not supported")
    (o, kh, kw, c), (sh, sw, top, left, oh, ow) = w.dims, (fields[name] for name in ("sh", "sw", "top", "left", "oh", "ow"))
    pitch, known = row_pitch(node, o), bias is None or bias.data is not None
    meet = kw == sw and left == 0 and ow == fields["width"] * sw and pitch == 4 * o
    panels, offsets = _panels(cpu, w, bias if known else None, (sh, sw), meet)
    row_chunks, block = chunked(oh, max(1, grain(cpu, "f32") * sh // max(1, fields["width"] * w.size)))
    before, above, last = (kw - 1) // sw, (kh - 1) // sh, (ow - 1 + left) // sw
    pixels = before + last + 1
    whole = before == above == 0 and last < fields["width"] and (oh - 1 + top) // sh < fields["h"]
    line = 4 * c * (fields["width"] if whole else pixels)
    size = 0 if whole else -(-((block - 1) // sh + above + 2) * line // 64) * 64 + 64
    chunks = fields["batch"] * row_chunks
    low, high = float_range(activation(node), node.xnn)
    columns = o * sw if meet else o
    tile, last_tile = segment_tiles(cpu, columns)
    params = {**fields, "x": x, "w": panels, "y": y, "bias": None if known else bias, "offsets": offsets, "pitch": pitch,
              "phases": 1 if meet else sw, "columns": columns, "staged": Scratch(chunks * size),
              "staged_size": size, "line": line, "before": before, "pixels": pixels, "above": above, "block": block,
              "row_chunks": row_chunks, "starts": places((1, 0), (pixels, 4 * c)), "lines": places((above + 1, line), (1, 0)),
              "tile": tile, "last_tile": last_tile, "lo": low, "hi": high}
    return [Step(node, transpose_conv_f32, params, chunks, macs=x.size // max(1, c) * w.size)]


def _panels(cpu: Cpu, w: Value, bias: Value | None, strides: tuple[int, int], meet: bool) -> tuple[Packed, Packed]:
    """(panels of every phase, bytes to each): taps in the order in which their inputs lie."""
    (o, kh, kw, c), (sh, sw), nr = w.dims, strides, panel_columns(cpu)
    taps = [[(range(r, kh, sh)[::-1], range(s, kw, sw)[::-1]) for s in range(sw)] for r in range(sh)]
    groups = [[row] if meet else [[one] for one in row] for row in taps]           # phases that share a product
    shapes = [(len(group) * o, len(group[0][0]) * len(group[0][1]) * c) for row in groups for group in row]
    sizes = [-(-n // nr) * nr * (k + 1) * 4 for n, k in shapes]
    data, b = w.data, None if bias is None else bias.data

    def build() -> np.ndarray:
        weights = np.asarray(data, np.float32).reshape(o, kh, kw, c)
        made = []
        for group in (group for row in groups for group in row):
            parts = [weights[:, list(rows)][:, :, list(columns)].reshape(o, -1) for rows, columns in group]
            numbers = None if b is None else np.tile(np.asarray(b, np.float32).ravel(), len(group))
            made.append(pack_f32(cpu, np.concatenate(parts), numbers).ravel())
        return np.concatenate(made)
    firsts = tuple(np.cumsum([0, *sizes[:-1]]).tolist())
    key = (w.key, None if bias is None else bias.key, "phases", strides, meet, nr)
    return Packed(key, build), Packed(("phases at", firsts), lambda: np.array(firsts, np.int64))


# ---- kernels -------------------------------------------------------------------------------------

@device
def stage(p, image, first, last, to):
    """The input rows first .. last of an image, zeros around it."""
    pixel, count = p.c * 4, min(p.width, p.pixels - p.before)
    for row in range(first, last + 1):
        here = to + (row - first) * p.line
        if row < 0 or row >= p.h:
            fill_bytes(here, 0, p.line)
        else:
            fill_bytes(here, 0, p.before * pixel)
            copy_bytes(here + p.before * pixel, p.x + (image * p.h + row) * p.width * pixel, count * pixel)
            fill_bytes(here + (p.before + count) * pixel, 0, p.line - (p.before + count) * pixel)


@device
def row_phases(p, oy, source, y):
    """The phases of an output row at y; source: the staged row of the last input row that it sees."""
    r, pixel = (oy + p.top) % p.sh, p.c * 4
    down = (p.kh - r + p.sh - 1) // p.sh                                # taps; none: a gap between the patches
    lo, hi = (p.lo, p.hi) if p.bias == 0 else (-np.float32(np.inf), np.float32(np.inf))
    for s in range(p.phases):
        along = (p.kw - s + p.sw - 1) // p.sw
        first = (p.left - s + p.sw - 1) // p.sw                         # input pixel of the first output of this phase
        ox = first * p.sw + s - p.left
        count = (p.ow - ox + p.sw - 1) // p.sw
        if count <= 0:
            continue
        x = source - (down - 1) * p.line + (p.before + first - (along - 1)) * pixel
        panels, to = p.w + load_i64(p.offsets, r * p.phases + s), y + ox * p.pitch
        if down == 1:
            gemm_f32(x, pixel, panels, to, p.sw * p.pitch, count, along * p.c, p.columns, count, lo, hi, 0)
        else:
            segment_gemm_f32(p.tile, p.last_tile, x, p.starts, down if along > 0 else 0, p.lines, panels, to, p.sw * p.pitch,
                             count, along * p.c, p.columns, lo, hi)


@device
def add_bias(p, y):
    """A bias that is known only while running, and the bounds."""
    if p.bias != 0:
        for i in range(p.ow):
            for j in range(p.o):
                value = load_f32(y + i * p.pitch, j) + load_f32(p.bias, j)
                value = p.lo if value < p.lo else value
                store_f32(y + i * p.pitch, j, p.hi if value > p.hi else value)


@kernel(ROWS)
def transpose_conv_f32(p, begin, end):
    """A chunk is `block` output rows of an image."""
    staged = p.staged + begin * p.staged_size
    for c in prange(begin, end):
        image, top = c // p.row_chunks, c % p.row_chunks * p.block
        bottom, first = min(p.oh, top + p.block), (top + p.top) // p.sh - p.above
        source = p.x + image * p.h * p.line
        if p.staged_size > 0:
            stage(p, image, first, (bottom - 1 + p.top) // p.sh, staged)
            source = staged - first * p.line
        for oy in range(top, bottom):
            y = p.y + (image * p.oh + oy) * p.ow * p.pitch
            row_phases(p, oy, source + (oy + p.top) // p.sh * p.line, y)
            add_bias(p, y)
    return 0
