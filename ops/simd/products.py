"""What Vec knows about dot products of short numbers, and about packing them: instructions of x86 and ARM, or the same
without them."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from litejit.compiler.cpu import Cpu

I8, I16, I32, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.FloatType()
NATIVE_BF16 = "+avx512bf16"           # the feature of LLVM that has the instructions

# single instructions of x86 by bits of the register
_PMADDWD = {128: "llvm.x86.sse2.pmadd.wd", 256: "llvm.x86.avx2.pmadd.wd", 512: "llvm.x86.avx512.pmaddw.d.512"}
_PACKSSDW = {128: "llvm.x86.sse2.packssdw.128", 256: "llvm.x86.avx2.packssdw", 512: "llvm.x86.avx512.packssdw.512"}
_PACKUSWB = {128: "llvm.x86.sse2.packuswb.128", 256: "llvm.x86.avx2.packuswb", 512: "llvm.x86.avx512.packuswb.512"}
_PACKSSWB = {128: "llvm.x86.sse2.packsswb.128", 256: "llvm.x86.avx2.packsswb", 512: "llvm.x86.avx512.packsswb.512"}


class BFloat(ir.Type):
    """LLVM's type bfloat, which llvmlite has no class for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BFloat)

    def __hash__(self) -> int:
        return hash(BFloat)


class Products:
    """A part of Vec, which says what these are."""

    b: Any
    cpu: Cpu
    lanes: int
    bits: int
    x86: bool
    f32: Any
    i32: Any
    call: Callable[..., Any]
    shuffle: Callable[..., Any]
    join: Callable[..., Any]
    fma: Callable[..., Any]
    const: Callable[..., Any]

    # ---- int8 --------------------------------------------------------------------------------------

    @property
    def group(self) -> int:
        """Values of k in a 32-bit lane of `dot`: 4 bytes, or 2 x 16 bits where the CPU has no dot product."""
        return 4 if self.cpu.dot else 2

    def dot(self, acc: Any, a: Any, w: Any) -> Any:
        """acc[lane] += sum of a * w over the lane's group; a, w: i32 vectors of `group` activations and weights."""
        if not self.cpu.dot:
            return self.dot16(acc, a, w)
        if self.cpu.dot == "sdot":
            v8 = ir.VectorType(I8, 4 * self.lanes)
            a, w = self.b.bitcast(a, v8), self.b.bitcast(w, v8)
            return self.call("llvm.aarch64.neon.sdot.v4i32.v16i8", self.i32, [acc, a, w])
        # with lanes of 32 bits, as up to LLVM 21; later ones take vectors of bytes, and turn this into that when they read it
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
        return values if len(values) == 1 else self.opaque(values)

    def opaque(self, values: list[Any]) -> list[Any]:
        """The values (integers, pointers, on x86 vectors), as something that LLVM cannot look into."""
        types, places = [x.type for x in values], range(len(values))
        vectors = "=v" if self.x86 and self.cpu.nregs == 32 else "=x"       # "x" are the first 16
        kinds = [vectors if isinstance(ty, ir.VectorType) else "=r" for ty in types]
        constraints = ",".join([*kinds, *(str(i) for i in places)])
        returned = ir.LiteralStructType(types) if len(types) > 1 else types[0]
        made = self.b.call(ir.InlineAsm(ir.FunctionType(returned, types), "", constraints), values)
        if len(types) == 1:
            return [made]
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

    def pack8_unsigned(self, a: Any, b: Any) -> Any:
        """Two i16 registers to u8 with saturation, like `pack8`."""
        return self.call(_PACKUSWB[self.bits], ir.VectorType(I8, 4 * self.lanes), [a, b])

    # ---- bfloat16 ----------------------------------------------------------------------------------

    @property
    def _native_bf16(self) -> bool:
        return NATIVE_BF16 in self.cpu.llvm_features

    def dot_bf16(self, acc: Any, a: Any, w: Any) -> Any:
        """acc[lane] += the two products of the lane's pairs; acc f32, a and w i32 vectors of bfloat16 pairs (even one low).

        Elsewhere than with the instruction: the same two multiply-adds, the odd pair first, without its flushing of
        denormal sums.
        """
        if self._native_bf16:
            pairs = ir.VectorType(BFloat(), 2 * self.lanes)
            a, w = self.b.bitcast(a, pairs), self.b.bitcast(w, pairs)
            return self.call(f"llvm.x86.avx512bf16.dpbf16ps.{self.bits}", self.f32, [acc, w, a])
        upper = self.const(self.i32, -65536)
        for widen in (lambda x: self.b.and_(x, upper), lambda x: self.b.shl(x, self.const(self.i32, 16))):
            x, y = (self.b.bitcast(widen(z), self.f32) for z in (a, w))
            acc = self.fma(x, y, acc)
        return acc

    def to_bf16(self, a: Any, b: Any) -> Any:
        """The lanes of two f32 registers, a first, as one vector of i16 that hold bfloat16.

        Rounded to nearest even; NaN stays NaN; denormal numbers become zeros.
        """
        if self._native_bf16:
            made = self.call(f"llvm.x86.avx512bf16.cvtne2ps2bf16.{self.bits}", ir.VectorType(BFloat(), 2 * self.lanes), [b, a])
            return self.b.bitcast(made, ir.VectorType(I16, 2 * self.lanes))
        return self.join(self._round_bf16(a), self._round_bf16(b))

    def _round_bf16(self, a: Any) -> Any:
        """Integer arithmetic: half of the last place is added, less one where the number kept is even."""
        b, const, ty = self.b, self.const, self.i32
        bits = b.bitcast(a, ty)
        odd = b.and_(b.lshr(bits, const(ty, 16)), const(ty, 1))
        rounded = b.add(b.add(bits, const(ty, 0x7FFF)), odd)
        size = b.and_(bits, const(ty, 0x7FFFFFFF))
        rounded = b.select(b.icmp_signed(">", size, const(ty, 0x7F800000)), b.or_(bits, const(ty, 0x400000)), rounded)
        tiny = b.icmp_signed("<", size, const(ty, 0x800000))
        kept = b.select(tiny, b.xor(bits, size), rounded)
        return b.trunc(b.lshr(kept, const(ty, 16)), ir.VectorType(I16, self.lanes))
