"""TRANSPOSE_CONV with 8-bit activations and constant weights: products of input rows on the int8 tiles, added and rounded.

As in float32, an output row is the sum of products of input rows with one kernel row each; here of int32 accumulators, which
are rounded when the row is complete. The zero point of an input row is a term of its products, so that one kernel serves
int8, uint8 and hybrid nodes, whose images have zero points that are known only while running.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from litejit.compiler import device, kernel, prange
from litejit.compiler.primitives import (
    copy_bytes,
    fill_bytes,
    load_f32,
    load_i8,
    load_i16,
    load_i32,
    load_u8,
    store_f32,
    store_i32,
)
from litejit.ops.base import Packed, Scratch, Step, Target, chunked
from litejit.ops.integer_product import HYBRID_XNN, ROUNDING, XNN, Rounding
from litejit.ops.packed_product import round_row
from litejit.ops.simd.accumulators import add_accumulators, code_accumulators, scale_accumulators
from litejit.ops.simd.gemm_int8 import TILES, make_gemm, pack_int8, panel_bytes, tile_params
from litejit.ops.simd.stage_int8 import flip, stage_bytes, stage_rows, staged_offset, staged_pitch
from litejit.ops.simd.tiles import tile_shape
from litejit.planner.graph import Node, Value

GRAIN = 1 << 20                        # multiply-accumulates worth a chunk
SCRATCH = [("staged", "i8"), ("staged_bytes", "i8"), ("part", "i8"), ("part_bytes", "i8"), ("acc", "i8"), ("acc_bytes", "i8"),
           ("row_terms", "i8"), ("row_bytes", "i8")]
F32_0 = np.float32(0)


GEOMETRY = [("x", "i8"), ("w", "i8"), ("batch", "i8"), ("h", "i8"), ("width", "i8"), ("c", "i8"), ("oh", "i8"), ("ow", "i8"),
            ("o", "i8"), ("kh", "i8"), ("kw", "i8"), ("sh", "i8"), ("sw", "i8"), ("top", "i8"), ("left", "i8"),
            ("block", "i8")]
"""Sizes of a node; `block` output rows are a chunk."""
PARAMS = np.dtype([*ROUNDING, *GEOMETRY, *SCRATCH, *TILES, ("terms", "i8"), ("scales", "i8"), ("start", "i8"), ("x_zero", "i8"),
                   ("offset", "i8"), ("flip", "i8"), ("unsigned", "i8"), ("row_factor", "i8"), ("pitch", "i8"),
                   ("panel_bytes", "i8")], align=True)


def int8_step(node: Node, target: Target, fields: dict[str, int], x: Any, type: str, rounding: Rounding, bias: Value | None,
              terms: Any = None) -> Step:
    """The step; x: activations of `type` "i8" or "u8", with the zero points of its images in `terms` if it is hybrid."""
    w, cpu = node[1], target.cpu
    o, kh, kw, c = w.dims
    pitch, wide = staged_pitch(cpu, c), fields["width"]
    work = wide * c * kw * o * -(-kh // fields["sh"])
    chunks, block = chunked(fields["batch"] * fields["oh"], max(1, GRAIN // max(1, work)))
    sizes = {"staged": wide * pitch + 64, "part": wide * kw * o * 4 + 64, "acc": fields["ow"] * o * 4 + 64, "row": wide * 16}
    params = {
        **fields, **tile_params(cpu, kw * o, "i32", hybrid=True), **rounding.params(node.out, o, bias),
        "x": x, "w": panels(w, target), "block": block, "terms": terms,
        "x_zero": node[2].zero_point if terms is None else 0, "offset": staged_offset(cpu, type), "flip": flip(cpu, type),
        "unsigned": staged_offset(cpu, "u8") == 0, "row_factor": 128 - w.zero_point if w.type == "u8" else 0, "pitch": pitch,
        "scales": per_channel(rounding.scales, o, np.float32),
        "start": per_channel(0 if bias is None else bias.data, o, np.float32 if rounding.kind >= HYBRID_XNN else np.int32),
        "panel_bytes": -(-kw * o // tile_shape(cpu, "int8")[1]) * panel_bytes(cpu, c),
        **{name: Scratch(chunks * sizes[size]) for name, size in (
            ("staged", "staged"), ("part", "part"), ("acc", "acc"), ("row_terms", "row"))},
        **{f"{name}_bytes": size for name, size in sizes.items()}}
    return Step(node, transpose_conv_int8, params, chunks, macs=node[2].size // c * w.size)


def panels(w: Value, target: Target) -> Packed:
    """For each kernel row the weights as a matrix C x (kw * O), with minus the sums of its columns in front."""
    o, kh, kw, c = w.dims

    def build() -> np.ndarray:
        data = np.asarray(w.data)
        data = (data.astype(np.int16) - 128).astype(np.int8) if w.type == "u8" else data
        rows = data.transpose(1, 2, 0, 3).reshape(kh, kw * o, c)
        return np.stack([pack_int8(target.cpu, one, -one.sum(axis=1, dtype=np.int64)) for one in rows])
    return Packed((w.key, "kernel rows int8", target.cpu.name), build)


def per_channel(values: Any, count: int, dtype: Any) -> Packed:
    """A number for each channel."""
    row = np.ascontiguousarray(np.broadcast_to(np.asarray(values, dtype).ravel(), (count,)))
    return Packed(("per channel", np.dtype(dtype).name, row.tobytes()), lambda: row)


_gemm = make_gemm()


@device
def product(image, iy, ky, staged, part, terms, p):
    """part [width, kw * O] = input row iy times kernel row ky; terms [width, 2]: zero point, what is to be added."""
    zero = np.int64(load_i32(p.terms, 2 * image)) if p.terms != 0 else p.x_zero
    zero += p.offset
    n = p.kw * p.o
    stage_rows(p.x + (image * p.h + iy) * p.width * p.c, p.c, p.width, p.c, staged, p.pitch, p.flip)
    for i in range(p.width):
        store_i32(terms, 2 * i, np.int32(zero))
    _gemm(p, staged, p.pitch, p.w + ky * p.panel_bytes, part, 4 * n, p.width, p.c, n, terms, 0, 0, 0, 0)
    if p.row_factor != 0:
        for i in range(p.width):
            row, total = staged + i * p.pitch, 0
            if stage_bytes() == 2:
                for j in range(p.c):
                    total += load_i16(row, j)
            elif p.unsigned != 0:
                for j in range(p.c):
                    total += load_u8(row, j)
            else:
                for j in range(p.c):
                    total += load_i8(row, j)
            extra = np.int32(p.row_factor * (total - p.c * zero))
            for j in range(n):
                store_i32(part, i * n + j, np.int32(load_i32(part, i * n + j) + extra))


@device
def add_patches(acc, part, p):
    """Add the patches of all pixels of an input row where they belong in the output row."""
    for ix in range(p.width):
        start = ix * p.sw - p.left
        first, last = max(0, -start), min(p.kw, p.ow - start)
        if last > first:
            add_accumulators(acc + 4 * (start + first) * p.o, part + 4 * (ix * p.kw + first) * p.o, (last - first) * p.o)


@device
def round_pixels(acc, at, count, scale, p):
    """Outputs of `count` pixels from pixel `at` on; scale: of the image of a hybrid node."""
    n = p.o
    for i in range(count):
        source, to = acc + 4 * i * n, (at + i) * n
        if p.rounding == XNN:
            code_accumulators(source, p.scales, p.y + to, n, p.least, p.most, p.y_zero)
        elif p.rounding == HYBRID_XNN:
            scale_accumulators(source, p.scales, p.start, p.y + 4 * to, n, scale, p.least, p.most)
        elif p.rounding < HYBRID_XNN:
            round_row(source, to, 0, n, p)
        else:
            for j in range(n):
                v = np.float32(load_i32(source, j)) * (scale * load_f32(p.scales, j)) + load_f32(p.start, j)
                v = p.least if v < p.least else v
                store_f32(p.y, to + j, p.most if v > p.most else v)


@kernel(PARAMS)
def transpose_conv_int8(p, begin, end):
    """A chunk is `block` output rows."""
    staged, part = p.staged + begin * p.staged_bytes, p.part + begin * p.part_bytes
    acc, terms = p.acc + begin * p.acc_bytes, p.row_terms + begin * p.row_bytes
    for chunk in prange(begin, end):
        for row in range(chunk * p.block, min(p.batch * p.oh, (chunk + 1) * p.block)):
            image, oy = row // p.oh, row % p.oh
            if p.rounding < HYBRID_XNN:
                for i in range(p.ow):
                    copy_bytes(acc + 4 * i * p.o, p.start, 4 * p.o)
            else:
                fill_bytes(acc, 0, 4 * p.ow * p.o)
            for ky in range((oy + p.top) % p.sh, p.kh, p.sh):
                iy = (oy + p.top - ky) // p.sh
                if iy >= 0 and iy < p.h:
                    product(image, iy, ky, staged, part, terms, p)
                    add_patches(acc, part, p)
            scale = load_f32(p.terms, 2 * image + 1) if p.terms != 0 else F32_0
            round_pixels(acc, row * p.ow, p.ow, scale, p)
    return 0
