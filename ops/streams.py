"""Loads and stores of elementwise loops that may work in place.

`LOAD["f32"](base, i)` and `STORE["f32"](base, i, value)` are the typed accesses of litejit.compiler.primitives with one
promise added: no store of the kernel changes what a later load of it reads, other than at the very same element. A
kernel that reads each element before it writes that element keeps the promise also where the output takes over the
memory of an input. LLVM then vectorises without comparing addresses (such comparisons fail in place, and leave a
scalar loop). `sra_i32` is a 32-bit operation that Numba would do in 64 bits, with half the lanes.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litejit.compiler import primitives
from litejit.compiler.lazy import Device, digest
from litejit.compiler.primitives import Primitive


class _Stream(Primitive):
    """A primitive of this file: its source is part of the fingerprint."""

    __slots__ = ()

    def _fingerprint(self) -> str:
        with open(__file__, encoding="utf-8") as file:
            return digest([self.name, file.read()])


def _promise(b: Any, instruction: Any, kind: str) -> None:
    """Attach "no stream store changes what a stream load reads" (scoped noalias metadata)."""
    module = b.module
    domain = module.add_metadata(["litejit.streams"])
    instruction.set_metadata(kind, module.add_metadata([module.add_metadata(["litejit.stores", domain])]))


def _marked(emit: Callable[..., Any], kind: str, opcode: str) -> Callable[..., Any]:
    """`emit` with the promise on the one load or store that it makes."""
    def marked(ir: Any, b: Any, a: Any) -> Any:
        before = len(b.block.instructions)
        value = emit(ir, b, a)
        for instruction in b.block.instructions[before:]:
            if instruction.opname == opcode:
                _promise(b, instruction, kind)
        return value
    return marked


def _load(name: str) -> Primitive:
    plain = primitives.LOAD[name]
    return _Stream(f"stream_load_{name}", plain.result, plain.args, _marked(plain.emit, "noalias", "load"),
                   plain.python)


def _store(name: str) -> Primitive:
    plain = primitives.STORE[name]
    return _Stream(f"stream_store_{name}", plain.result, plain.args, _marked(plain.emit, "alias.scope", "store"),
                   plain.python)


LOAD = {name: _load(name) for name in primitives.LOAD}
STORE = {name: _store(name) for name in primitives.STORE}


# ---- operations of 32 bits, which Numba would do in 64 -------------------------------------------------

# shift right, arithmetic
sra_i32 = Primitive("sra_i32", "int32", ("int32", "int32"), lambda ir, b, a: b.ashr(a[0], a[1]),
                    lambda x, y: np.int32(int(x) >> int(y)))


# ---- long formulas -----------------------------------------------------------------------------------

class _Inlined(Device):
    """A device function that LLVM inlines however long it is: a loop with a call in it is not vectorised."""

    __slots__ = ()

    def _build(self) -> Any:
        dispatcher = super()._build()
        dispatcher.targetoptions["forceinline"] = True
        return dispatcher


def inlined(function: Device) -> Device:
    """A device function that is always inlined; for `@inlined` above `@device`."""
    return _Inlined(function.function, function.name, function.fastmath)
