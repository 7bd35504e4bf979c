"""Bytes looked up in a table of 256: with 128-entry permutations (AVX-512 VBMI), 16-entry ones, or one by one.

A shuffle looks up the low four bits of an index and gives 0 where its top bit is set. Index - 16k has the top bit clear
for eight successive k (up to the index's own part of the table), so the parts are stored as differences whose exclusive
or over any eight successive parts is the last of them.
"""
from __future__ import annotations

import ctypes
from typing import Any

from litejit.compiler import micro_kernel

TOGETHER = 4                          # registers of indices that a part is loaded for
_SHUFFLE = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}


def _permuted(v: Any, parts: list[Any], index: Any) -> Any:
    """parts: four vectors of 64 entries."""
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    low = v.call(name, index.type, [parts[0], index, parts[1]])
    high = v.call(name, index.type, [parts[2], index, parts[3]])
    return v.select(v.icmp("<", index, 0), high, low)


def _shuffled(v: Any, parts: list[Any], indices: list[Any]) -> list[Any]:
    """parts: the sixteen differences; each is used for several registers of indices."""
    ty = indices[0].type
    sixteen, results = v.const(ty, 16), [v.zero(ty) for _ in indices]
    for k, part in enumerate(parts):
        results = [v.xor(made, v.call(_SHUFFLE[v.cpu.vbytes], ty, [part, index])) for made, index in zip(results, indices)]
        indices = [v.sub(index, sixteen) if k < 8 else v.call(f"llvm.ssub.sat.v{ty.count}i8", ty, [index, sixteen])
                   for index in indices]                                             # from 128 on signed
    return results


def _differences(v: Any, table: Any) -> list[Any]:
    quarter = v.type("i8", 16)
    made: list[Any] = []
    for k in range(16):
        part = v.load(quarter, table, 16 * k)
        part = v.shuffle(part, None, list(range(16)) * (v.cpu.vbytes // 16))
        for other in made[-7:]:
            part = v.xor(part, other)
        made.append(part)
    return made


def _emit(v: Any, x: Any, y: Any, table: Any, n: Any) -> None:
    x, y = v.pointer(x), v.pointer(y)
    if not v.x86:
        def one(i: Any, carried: list[Any]) -> None:
            code = v.zext(v.load(v.type("i8"), x, i), "i64")
            v.store(v.load(v.type("i8"), table, code), y, i)
        v.loop(n, [], one)
        return
    ty = v.type("i8", v.cpu.vbytes)
    if "avx512vbmi" in v.cpu.llvm_features:
        parts = [v.load(ty, table, 64 * k) for k in range(4)]
        v.vectors(n, lambda i, store: store(_permuted(v, parts, v.load(ty, x, i)), y, i), v.cpu.vbytes)
        return
    parts, size = _differences(v, table), v.cpu.vbytes
    if v.cpu.nregs > 16:                                                             # that hold all parts
        v.vectors(n, lambda i, store: store(_shuffled(v, parts, [v.load(ty, x, i)])[0], y, i), size)
        return
    full = v.sub(n, v.b.srem(n, v.i(TOGETHER * size)))

    def together(i: Any, _: Any) -> None:
        for k, made in enumerate(_shuffled(v, parts, [v.load(ty, x, v.add(i, k * size)) for k in range(TOGETHER)])):
            v.store(made, y, v.add(i, k * size))
    v.loop(full, [], together, step=TOGETHER * size)
    x, y = v.at(x, full), v.at(y, full)
    v.vectors(v.sub(n, full), lambda i, store: store(_shuffled(v, parts, [v.load(ty, x, i)])[0], y, i), size)


def _twin(x: int, y: int, table: int, n: int) -> None:
    codes = ctypes.string_at(int(x), int(n))
    ctypes.memmove(int(y), codes.translate(ctypes.string_at(int(table), 256)), int(n))


lookup8 = micro_kernel("lookup8", "iipi", _emit, _twin)
