"""What tiles can reach at most: loops of their instructions, none of which waits for the other ones.

    python benchmarks/limits.py [--quick]

A loop does what a tile does, in registers and the first cache: products, and evenly among them the loads, conversions, scaling,
packing and stores of its rows and its end. What part of that time the products alone take is the most that any order of these
instructions can reach of the peak; what the kernels reach, other scripts of this folder say. For CPUs with AVX-512.
"""
from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from litejit.compiler import micro_kernel
from litejit.compiler.cpu import Cpu, target
from litejit.compiler.lazy import MicroKernel
from litejit.compiler.load import Library, load_image, make_image
from litejit.fusion.link import kernel_objects
from litejit.store import open_store

HEAD = ("tile", "products", "cycles", "of peak")
SUMS, OTHERS, CONVERTED = 12, 2, 4    # registers of sums, of every other kind of instruction, and of the one that takes longest
MEMORY = 1 << 12                      # bytes that are read, and written, again and again
APART = 5 * MEMORY - 1024             # from what is read to what is written: a read is taken for one of what was just written
                                      # a multiple of 4 KiB away
TURNS, SECONDS = 15, 2e-3             # the best of so many turns of so long


class Mix(NamedTuple):
    """Instructions of a tile: `products` of `type` "f32" or "i8", and so many others; stores of `bytes` each.

    convert: pairs, to float32 and back; clamp: minima and maxima; unpack: shuffles of bytes; flip: xor.
    """

    label: str
    type: str
    products: int
    loads: int = 0
    flip: int = 0
    unpack: int = 0
    convert: int = 0
    scale: int = 0
    pack: int = 0
    saturate: int = 0
    clamp: int = 0
    stores: int = 0
    bytes: int = 64


def float_product(k: int) -> Mix:
    """7 rows of 32 columns: 9 loads for 14 multiply-adds, 14 registers to clamp and to store."""
    return Mix(f"product f32, k {k}", "f32", 14 * k, loads=9 * k, clamp=28, stores=14)


def code_product(k: int, codes: str) -> Mix:
    """The same of codes, four values of k at a time; codes: "any", "whole" or "positive" (ops/simd/epilogues.py)."""
    return Mix(f"product int8, k {k}, codes {codes}", "i8", 14 * k // 4, loads=9 * k // 4, convert=14, scale=14, pack=11,
               saturate=0 if codes == "positive" else 8, clamp=8 if codes == "any" else 0, flip=4, unpack=4, stores=7, bytes=32)


def float_depthwise(inputs: int, stride: int) -> Mix:
    """3x3: 2 x 4 outputs of 16 channels, which see so many inputs."""
    return Mix(f"depthwise f32 3x3/{stride}", "f32", 72, loads=inputs + 10, clamp=16, stores=8)


def code_depthwise(codes: str) -> Mix:
    """3x3, stride 1: 2 x 4 outputs of 64 channels, two columns of which share what they read of the weights."""
    return Mix(f"depthwise int8 3x3/1, codes {codes}", "i8", 96, loads=24 + 48 + 16, flip=24, unpack=48, convert=32, scale=32,
               pack=24, saturate=0 if codes == "positive" else 16, clamp=16 if codes == "any" else 0, stores=8)


MIXES = [*(float_product(k) for k in (16, 24, 64)),
         *(code_product(k, codes) for k in (16, 24, 32, 64) for codes in ("whole", "positive")),
         float_depthwise(24, 1), float_depthwise(45, 2), *(code_depthwise(codes) for codes in ("any", "positive"))]


# ---- loops ---------------------------------------------------------------------------------------

def order(mix: Mix) -> list[str]:
    """The instructions of a tile, each kind spread over all of its time."""
    counts = {name: getattr(mix, name) for name in Mix._fields[2:-1]}
    return [name for _, name in sorted(((i + 0.5) / count, name) for name, count in counts.items() for i in range(count))]


def emit(mix: Mix) -> Callable[..., None]:
    """Generator of `rounds` tiles: (data, out, rounds)."""
    def loop(v: Any, data: Any, out: Any, rounds: Any) -> None:
        ty, size, words = v.f32 if mix.type == "f32" else v.i32, v.cpu.vbytes, v.type("i16", 2 * v.lanes)
        factor, numbers = v.load(v.f32, data), v.load(v.i32, data)
        high, codes = v.const(words, 3), v.type("i8", size)
        interleave = [p + i // 2 + i % 2 * size for p in range(0, size, 16) for i in range(16)]
        made: dict[str, tuple[Any, Callable[[Any], Any]]] = {
            "flip": (v.i32, lambda x: v.xor(x, numbers)),
            "unpack": (codes, lambda x: v.shuffle(x, v.bitcast(numbers, codes), interleave)),
            "convert": (v.i32, lambda x: v.nearest(v.to_float(x))), "scale": (v.f32, lambda x: v.fmul(x, factor)),
            "pack": (v.i32, lambda x: v.bitcast(v.pack16(x, numbers), v.i32)),
            "saturate": (words, lambda x: v.sat_add(x, high)),
            "clamp": (v.f32, lambda x: v.fmin(factor, x)) if mix.type == "f32" else (words, lambda x: v.max(x, high))}
        used = [name for name in made if getattr(mix, name)]
        count = {name: CONVERTED if name == "convert" else OTHERS for name in used}
        begin = {name: SUMS + sum(count[other] for other in used[:k]) for k, name in enumerate(used)}
        kinds = [ty] * SUMS + [made[name][0] for name in used for _ in range(count[name])]

        def tile(i: Any, carried: list[Any]) -> list[Any]:
            place, seen, now = v.and_(v.shl(i, 6), MEMORY - 1), dict.fromkeys(Mix._fields, 0), list(carried)
            x = v.load(ty, v.at(data, place))
            for name in order(mix):
                k = seen[name]
                seen[name] += 1
                if name == "loads":
                    x = v.load(ty, v.at(data, place), k % 32 * size)
                elif name == "products":
                    at = k % SUMS
                    now[at] = v.fma(x, factor, now[at]) if mix.type == "f32" else v.dot(now[at], numbers, x)
                elif name == "stores":
                    value = v.bitcast(now[k % SUMS], codes)
                    v.store(v.shuffle(value, None, range(mix.bytes)), v.at(out, place), k % 32 * size)
                else:
                    at = begin[name] + k % count[name]
                    now[at] = made[name][1](now[at])
            return now
        last = v.loop(rounds, [v.load(kind, data, j * size) for j, kind in enumerate(kinds)], tile)
        for j, value in enumerate(last):
            v.store(value, out, 2 * MEMORY + j * size)
    return loop


def loop_of(mix: Mix) -> MicroKernel:
    return micro_kernel("limit_" + "_".join(map(str, mix[1:])), "ppi", emit(mix))


# ---- measuring -----------------------------------------------------------------------------------

def library(loops: Sequence[MicroKernel], cpu: Cpu) -> Library:
    return load_image(make_image(kernel_objects(list(loops), cpu, open_store()), [loop.symbol for loop in loops]))


def seconds(function: Callable[[int, int, int], None], memory: np.ndarray, rounds: int) -> float:
    """Of so many rounds."""
    start = time.perf_counter()
    function(memory.ctypes.data, memory.ctypes.data + APART, rounds)
    return time.perf_counter() - start


def measure(mixes: Sequence[Mix], quick: bool) -> list[tuple[str, ...]]:
    """A row of each; a cycle is what one product alone takes, measured in turns with each of them."""
    alone = {type: Mix("alone", type, 8 * SUMS, loads=1) for type in ("f32", "i8")}
    loops = {mix: loop_of(mix) for mix in (*alone.values(), *mixes)}
    code = library(list(loops.values()), target())
    memory = np.zeros(16 * MEMORY + 64, np.uint8)
    memory = memory[-memory.ctypes.data % 64:]
    call = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
    run = {mix: call(code.address(loop.symbol)) for mix, loop in loops.items()}
    rows = []
    for mix in mixes:
        pair, turns = (alone[mix.type], mix), 1 if quick else TURNS
        rounds = [max(1, 10 if quick else int(SECONDS * 3e9 / sum(one[2:-1]))) for one in pair]
        least = [min(seconds(run[one], memory, n) for _ in range(turns)) / n for one, n in zip(pair, rounds)]
        cycle = least[0] / pair[0].products
        rows.append((mix.label, str(mix.products), f"{least[1] / cycle:.0f}", f"{100 * mix.products * cycle / least[1]:.0f} %"))
    return rows


def main(argv: list[str] | None = None) -> list[tuple[str, ...]]:
    parser = argparse.ArgumentParser(description="What tiles can reach at most.")
    parser.add_argument("--quick", action="store_true", help="few rounds: whether it works")
    arguments = parser.parse_args(argv)
    if target().arch != "x86_64" or target().vbytes < 64 or not target().dot:
        parser.error("for CPUs with AVX-512 and its dot product of bytes")
    rows = measure(MIXES, arguments.quick)
    for row in (HEAD, *rows):
        print(f"{row[0]:40}{row[1]:>10}{row[2]:>10}{row[3]:>10}")
    return rows


if __name__ == "__main__":
    main()
