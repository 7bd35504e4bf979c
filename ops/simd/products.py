"""Products of small integers, and packing, of `Vec`."""
from __future__ import annotations

from typing import Any

from llvmlite import ir

from litejit.compiler.cpu import Cpu

I8, I16, I32 = (ir.IntType(bits) for bits in (8, 16, 32))

# single instructions of x86 by bits of the register
_PMADDWD = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}
_PACKSSDW = {128: "llvm.x86.sse2.packssdw.128", 256: "llvm.x86.avx2.packssdw", 512: "llvm.x86.avx512.packssdw.512"}
_PACKSSWB = {128: "llvm.x86.sse2.packsswb.128", 256: "llvm.x86.avx2.packsswb", 512: "llvm.x86.avx512.packsswb.512"}


class Products:
    """The part of `Vec` for int8 and int16: what it says of values and types holds here."""

    b: Any
    cpu: Cpu
    lanes: int
    bits: int
    i32: Any
    x86: bool
    call: Any
    shuffle: Any

    @property
    def group(self) -> int:
        """Values of k in a 32-bit lane of `dot`: 4 bytes, or 2 x 16 bits where the CPU has no dot product."""
        return 4 if self.cpu.dot else 2

    def dot(self, acc: Any, a: Any, w: Any) -> Any:
        """acc[lane] += sum of a * w over the lane's group; a, w: i32 vectors of `group` activations and weights."""
        if not self.cpu.dot:
            return self.dot16(acc, a, w)
        v8 = ir.VectorType(I8, 4 * self.lanes)
        a, w = self.b.bitcast(a, v8), self.b.bitcast(w, v8)
        if self.cpu.dot == "sdot":
            return self.call("llvm.aarch64.neon.sdot.v4i32.v16i8", self.i32, [acc, a, w])
        return self.call(f"llvm.x86.avx512.vpdpbusd.{self.bits}", self.i32, [acc, a, w])

    def dots(self, accs: list[Any], a: Any, ws: list[Any], wide: bool = False) -> list[Any]:
        """acc[lane] += the products of a with each of ws: `dot`, or `dot16` where wide.

        All multiplications before the additions: in turns they get into each other's way (3 % of the rate of Zen 3).
        """
        if self.x86 and not self.cpu.dot:
            made = self.together([self.products16(a, w) for w in ws])
            return [self.b.add(acc, x) for acc, x in zip(accs, made)]
        return [(self.dot16 if wide else self.dot)(acc, a, w) for acc, w in zip(accs, ws)]

    def together(self, values: list[Any]) -> list[Any]:
        """The values (vectors on x86), none of which the scheduler lets be used before all of them are made."""
        if len(values) == 1:
            return values
        types, places = [x.type for x in values], range(len(values))
        constraints = ",".join(["=v" if self.cpu.vbytes == 64 else "=x"] * len(values) + [str(i) for i in places])
        barrier = ir.InlineAsm(ir.FunctionType(ir.LiteralStructType(types), types), "", constraints)
        made = self.b.call(barrier, values)
        return [self.b.extract_value(made, i) for i in places]

    def products16(self, a: Any, w: Any) -> Any:
        """The sum of two int16 products in each lane (x86 only)."""
        v16 = ir.VectorType(I16, 2 * self.lanes)
        return self.call(_PMADDWD[self.bits], self.i32, [self.b.bitcast(a, v16), self.b.bitcast(w, v16)])

    def dot16(self, acc: Any, a: Any, w: Any) -> Any:
        """acc[lane] += the sum of two int16 products."""
        if self.x86:
            return self.b.add(acc, self.products16(a, w))
        v16 = ir.VectorType(I16, 2 * self.lanes)
        a, w = self.b.bitcast(a, v16), self.b.bitcast(w, v16)
        for odd in (0, 1):
            x, y = (self.b.sext(self.shuffle(z, None, range(odd, 2 * self.lanes, 2)), self.i32) for z in (a, w))
            acc = self.b.add(acc, self.b.mul(x, y))
        return acc

    def pack16(self, a: Any, b: Any) -> Any:
        """Two i32 registers to i16 with saturation, in the order of the CPU's pack instruction (x86 only)."""
        return self.call(_PACKSSDW[self.bits], ir.VectorType(I16, 2 * self.lanes), [a, b])

    def pack8(self, a: Any, b: Any) -> Any:
        """Two i16 registers to i8 with saturation, in the order of the CPU's pack instruction (x86 only)."""
        return self.call(_PACKSSWB[self.bits], ir.VectorType(I8, 4 * self.lanes), [a, b])
