"""Staging for the 8-bit GEMM: rows are copied once, as the CPU's dot product wants them.

    level      group   staged element                 offset = staged - code, for i8 / u8
    vnni       4       unsigned byte                  128 / 0
    sdot       4       signed byte                    0 / -128
    others     2       int16                          0 / -128

A group are the values of k in a 32-bit lane. Rows (`stage_rows`), the windows of convolutions (`stage_pixels`) and padding
(`fill_staged`) are written in whole vectors: up to 64 bytes after the end.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from litejit.compiler import device, micro_kernel
from litejit.compiler.cpu import Cpu, target
from litejit.compiler.primitives import Primitive
from litejit.ops.simd.tiles import tiles

STAGE_BYTES = 1 << 16             # rows that stay in L2 while all panels pass


# ---- layout --------------------------------------------------------------------------------------

def k_group(cpu: Cpu, wide: bool = False) -> int:
    """Values of k in a 32-bit lane; wide: for int16 activations."""
    return 4 if cpu.dot and not wide else 2


def staged_offset(cpu: Cpu, type: str) -> int:
    """Staged element minus the code of type "i8" or "u8"."""
    unsigned = cpu.dot in ("vnni", "avxvnni")
    return (128 if unsigned else 0) if type == "i8" else (0 if unsigned else -128)


def flip(cpu: Cpu, type: str) -> int:
    """What the bytes of `type` are xored with when they are staged."""
    return 0x80 if (type == "i8") == (cpu.dot in ("vnni", "avxvnni")) else 0


def staged_pitch(cpu: Cpu, k: int) -> int:
    """Bytes from one staged row to the next: whole cache lines, an odd number of them."""
    return -(-(k if cpu.dot else 2 * k) // 64) * 64 | 64


def stage_block(cpu: Cpu, k: int) -> int:
    """Rows to stage at a time."""
    rows = tiles(cpu).int8[0]
    return max(1, min(16, STAGE_BYTES // (rows * staged_pitch(cpu, k)))) * rows


# ---- generators ----------------------------------------------------------------------------------

def emit_stage(v: Any, source: Any, dest: Any, runs: Any, step: Any, to_step: Any, count: Any, flip: Any) -> None:
    """Copy `runs` pieces of `count` bytes as `dot` wants them, from `step` bytes apart to `to_step` bytes apart.

    Every byte is xored with `flip`; without a dot product the result is widened to int16. Whole vectors are written:
    up to 64 bytes after the end.
    """
    move = _mover(v, flip)

    def piece(s: Any, _: Any) -> None:
        here, there = v.at(source, v.mul(s, step)), v.at(dest, v.mul(s, to_step))
        v.loop(count, [], lambda i, _: move(here, there, i), step=_staged_lanes(v))
    v.loop(runs, [], piece)


def emit_stage_pixels(v: Any, source: Any, dest: Any, pixels: Any, pixel_step: Any, pitch: Any, rows: Any, row_step: Any,
                      runs: Any, step: Any, to_step: Any, count: Any, flip: Any) -> None:
    """`emit_stage` of `rows` times `runs` pieces for each of some pixels, from `pixel_step` bytes apart to `pitch` bytes apart.

    The pieces of a row are `step` bytes apart, the rows `row_step`; they are put one after the other, `to_step` bytes each.
    """
    move, lanes = _mover(v, flip), _staged_lanes(v)

    def pieces(one: Callable[[Any, Any], None]) -> None:
        def pixel(i: Any, _: Any) -> None:
            here, there = v.at(source, v.mul(i, pixel_step)), v.at(dest, v.mul(i, pitch))

            def row(r: Any, moved: list[Any]) -> list[Any]:
                def run(s: Any, moved: list[Any]) -> list[Any]:
                    one(*moved)
                    return [v.at(moved[0], step), v.at(moved[1], to_step)]
                return [v.at(moved[0], row_step), v.loop(runs, moved, run)[1]]
            v.loop(rows, [here, there], row)
        v.loop(pixels, [], pixel)
    v.either(v.icmp("<=", count, lanes), lambda: pieces(lambda here, there: move(here, there, v.i(0))),
             lambda: pieces(lambda here, there: (v.loop(count, [], lambda i, _: move(here, there, i), step=lanes), None)[1]))


def _staged_lanes(v: Any) -> int:
    return int(v.cpu.vbytes if v.cpu.dot else v.cpu.vbytes // 2)


def _mover(v: Any, flip: Any) -> Callable[[Any, Any, Any], None]:
    """move(here, there, i): stage the bytes from i on that fill a vector."""
    wide, lanes = not v.cpu.dot, _staged_lanes(v)
    xor = v.splat(v.trunc(flip, "i8"), lanes)

    def move(here: Any, there: Any, i: Any) -> None:
        x = v.xor(v.load(v.type("i8", lanes), here, i), xor)
        v.store(v.sext(x, "i16") if wide else x, there, v.shl(i, 1) if wide else i)
    return move


def emit_fill(v: Any, dest: Any, count: Any, code: Any, flip: Any) -> None:
    """`count` staged elements of one code; whole vectors are written."""
    wide = not v.cpu.dot
    value = v.trunc(v.xor(code, flip), "i8")
    lanes = v.cpu.vbytes // 2 if wide else v.cpu.vbytes
    x = v.splat(v.sext(value, "i16") if wide else value, lanes)
    v.loop(count, [], lambda i, _: v.store(x, dest, v.shl(i, 1) if wide else i), step=lanes)


def emit_stage_int16(v: Any, source: Any, dest: Any, runs: Any, step: Any, to_step: Any, count: Any) -> None:
    """Copy `runs` pieces of `count` bytes of int16; whole vectors are written: up to 64 bytes after the end."""
    ty = v.type("i8", v.cpu.vbytes)

    def piece(s: Any, _: Any) -> None:
        here, there = v.at(source, v.mul(s, step)), v.at(dest, v.mul(s, to_step))
        v.loop(count, [], lambda i, _: v.store(v.load(ty, here, i), there, i), step=v.cpu.vbytes)
    v.loop(runs, [], piece)


def emit_sum(v: Any, staged: Any, pitch: Any, rows: Any, count: Any, terms: Any, factor: Any, zero: Any) -> None:
    """terms[i] = factor * (the sum of staged row i of `count` bytes - zero) as int32, 8 bytes apart."""
    ones, size = v.const(v.i32, 0x01010101 if v.cpu.dot else 0x00010001), v.cpu.vbytes
    ty, whole, left = v.type("i8", size), v.and_(count, -size), v.and_(count, size - 1)
    inside = v.sext(v.mask(size, left), "i8")

    def row(r: Any, _: Any) -> None:
        at = v.at(staged, v.mul(r, pitch))

        def part(i: Any, acc: list[Any]) -> list[Any]:
            return [v.dot(acc[0], v.load(v.i32, at, i), ones)]
        acc, = v.loop(whole, [v.zero(v.i32)], part, step=size)
        acc = v.dot(acc, v.bitcast(v.and_(v.load(ty, at, whole), inside), v.i32), ones)
        v.store(v.mul(v.trunc(factor, "i32"), v.sub(v.sum(acc), v.trunc(zero, "i32"))), terms, v.shl(r, 3))
    v.loop(rows, [], row)


stage = micro_kernel("stage_int8", "ppiiiii", emit_stage)
stage_pixels = micro_kernel("stage_pixels_int8", "ppiiiiiiiiii", emit_stage_pixels)
stage_int16 = micro_kernel("stage_int16", "ppiiii", emit_stage_int16)
fill_staged = micro_kernel("fill_int8", "piii", emit_fill)
sum_staged = micro_kernel("sum_int8", "piiipii", emit_sum)


# ---- device functions ----------------------------------------------------------------------------

stage_bytes = Primitive("stage_bytes", "int64", (), lambda ir, b, args: ir.IntType(64)(1 if target().dot else 2),
                        lambda: 1 if target().dot else 2)                # bytes of a staged element
int8_group = Primitive("int8_group", "int64", (), lambda ir, b, args: ir.IntType(64)(k_group(target())),
                       lambda: k_group(target()))                        # values of k in a lane


@device
def stage_rows(a, lda, m, k, staged, pitch, flip):
    """Stage m rows of k bytes."""
    stage(a, staged, m, lda, pitch, k, flip)


@device
def sum_terms(staged, pitch, m, k, terms, factor, zero):
    """terms[i] = factor * (the sum of staged row i - zero), 8 bytes apart; factor 0: zeros."""
    sum_staged(staged, pitch, m, k * stage_bytes() if factor != 0 else 0, terms, factor, zero)
