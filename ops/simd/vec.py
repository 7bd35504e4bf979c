"""Vec: vector operations of one CPU level, written into an LLVM function. With its part, products.py, the only
file of ops/ that knows llvmlite.

A generator gets a `Vec` and the arguments of its function, and calls methods here:

    def emit(v, x, y, n):                                  # micro_kernel("scale_f32", "ppi", emit)
        two = v.const(v.f32, 2.0)
        def body(i, store):                                # i: index of the first element
            store(v.fmul(v.load(v.f32, x, v.shl(i, 2)), two), y, v.shl(i, 2))
        v.vectors(n, body)

Scalars and vectors are LLVM values; addresses are pointer arguments moved by byte offsets, which may be Python ints or
i64 values. Types are made by `v.type("i8", 64)`; `v.f32` and `v.i32` are the full registers. Reads may run up to 64
bytes past a tensor; writes never: `vectors` hands a masked store to the last round.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir

from litejit.compiler.cpu import Cpu
from litejit.ops.simd.products import I8, I16, I32, Products

I1, I64 = (ir.IntType(bits) for bits in (1, 64))
F32, F64, PTR = ir.FloatType(), ir.DoubleType(), ir.PointerType()
_SCALARS = {"i1": I1, "i8": I8, "i16": I16, "i32": I32, "i64": I64, "f32": F32, "f64": F64, "ptr": PTR}
_SHORT = {I1: "i1", I8: "i8", I16: "i16", I32: "i32", I64: "i64", F32: "f32", F64: "f64"}

# single instructions of x86 by bits of the register
_CVTPS2DQ = {128: "llvm.x86.sse2.cvtps2dq", 256: "llvm.x86.avx.cvt.ps2dq.256"}


def _binary(name: str) -> Callable[[Vec, Any, Any], Any]:
    """A method for the LLVM instruction `name`; one operand may be a Python number."""
    def method(self: Vec, a: Any, b: Any) -> Any:
        return getattr(self.b, name)(*self._pair(a, b))
    return method


class Vec(Products):
    """Vector operations on an IRBuilder for a CPU level."""

    def __init__(self, builder: Any, cpu: Cpu) -> None:
        self.b, self.cpu, self.lanes = builder, cpu, cpu.lanes
        self.bits = cpu.vbytes * 8
        self.f32, self.i32 = ir.VectorType(F32, self.lanes), ir.VectorType(I32, self.lanes)
        self.x86 = cpu.arch == "x86_64"

    # ---- types, constants, addresses -------------------------------------------------------------

    def type(self, scalar: str, count: int = 0) -> Any:
        """The type `scalar` ("f32", "i8", ...), as a vector of `count` lanes if that is given."""
        return ir.VectorType(_SCALARS[scalar], count) if count else _SCALARS[scalar]

    def i(self, value: Any) -> Any:
        """A Python int as i64; a value as it is."""
        return value if isinstance(value, ir.Value) else ir.Constant(I64, value)

    def const(self, ty: Any, value: Any) -> Any:
        """A constant of `ty`: a number in all lanes, or a list with one number per lane."""
        if isinstance(ty, ir.VectorType):
            values = value if isinstance(value, (list, tuple)) else [value] * ty.count
            return ir.Constant(ty, [ir.Constant(ty.element, x) for x in values])
        return ir.Constant(ty, value)

    def zero(self, ty: Any) -> Any:
        """Zeros."""
        return ir.Constant(ty, None)

    def at(self, ptr: Any, off: Any = 0) -> Any:
        """The address `off` bytes after `ptr`."""
        if isinstance(off, int) and off == 0:
            return ptr
        return self.b.gep(ptr, [self.i(off)], source_etype=I8)

    def pointer(self, address: Any) -> Any:
        """An i64 as an address."""
        return self.b.inttoptr(address, PTR)

    def _pair(self, a: Any, b: Any) -> tuple[Any, Any]:
        """Both operands as values: a Python number takes the type of the other one."""
        if not isinstance(a, ir.Value):
            a = self.const(b.type, a) if isinstance(b, ir.Value) else self.i(a)
        if not isinstance(b, ir.Value):
            b = self.const(a.type, b)
        return a, b

    # ---- memory ----------------------------------------------------------------------------------

    def load(self, ty: Any, ptr: Any, off: Any = 0, align: int = 1) -> Any:
        return self.b.load(self.at(ptr, off), typ=ty, align=align)

    def store(self, value: Any, ptr: Any, off: Any = 0, align: int = 1) -> None:
        self.b.store(value, self.at(ptr, off), align=align)

    def fsplat(self, ptr: Any, off: Any = 0) -> Any:
        """One float32 of memory in all lanes."""
        return self.splat(self.load(F32, ptr, off, 4))

    def isplat(self, ptr: Any, off: Any = 0) -> Any:
        """One 32-bit lane of memory in all lanes."""
        return self.splat(self.load(I32, ptr, off))

    def prefetch(self, ptr: Any, off: Any = 0, write: bool = False) -> None:
        """Ask for the cache line of an address, which need not exist: in the second level; to be written, in the first."""
        self.call("llvm.prefetch.p0", ir.VoidType(), [self.at(ptr, off), I32(int(write)), I32(3 if write else 2), I32(1)])

    def mask(self, count: int, n: Any) -> Any:
        """<count x i1>, true in the first n lanes (n: i64)."""
        bits = I32 if count <= 16 else I16 if count <= 32 else I8
        index = self.const(ir.VectorType(bits, count), list(range(count)))
        most = self.min(self.i(n), self.i(count), signed=True)
        return self.b.icmp_signed("<", index, self.splat(self.b.trunc(most, bits), count))

    def mload(self, ty: Any, ptr: Any, mask: Any, off: Any = 0) -> Any:
        """Lanes of memory where `mask` holds, zeros elsewhere."""
        return self.call(f"llvm.masked.load.{self._mangle(ty)}.p0", ty,
                         [self.at(ptr, off), I32(1), mask, ir.Constant(ty, None)])

    def mstore(self, value: Any, ptr: Any, mask: Any, off: Any = 0) -> None:
        """Write the lanes where `mask` holds."""
        self.call(f"llvm.masked.store.{self._mangle(value.type)}.p0", ir.VoidType(),
                  [value, self.at(ptr, off), I32(1), mask])

    def gather(self, ptr: Any, index: Any) -> Any:
        """The float32 of a table whose numbers are in the lanes of `index` (i32)."""
        zero, n = self.zero(self.f32), self.lanes
        if self.x86 and n == 16:
            return self.call("llvm.x86.avx512.mask.gather.dps.512", self.f32, [
                zero, ptr, index, self.const(self.type("i1", n), 1), I32(4)])
        if self.x86 and n == 8:
            taken = self.const(self.f32, -1.0)                     # by their sign
            return self.call("llvm.x86.avx2.gather.d.ps.256", self.f32, [zero, ptr, index, taken, I8(4)])
        for k in range(n):
            at = self.shl(self.sext(self.lane(index, k), "i64"), 2)
            zero = self.b.insert_element(zero, self.load(F32, ptr, at), I32(k))
        return zero

    # ---- lanes -----------------------------------------------------------------------------------

    def splat(self, scalar: Any, count: int = 0) -> Any:
        """A scalar in all lanes (of a full register of 32-bit lanes if `count` is not given)."""
        count = count or self.lanes
        ty = ir.VectorType(scalar.type, count)
        first = self.b.insert_element(ir.Constant(ty, ir.Undefined), scalar, I32(0))
        return self.b.shuffle_vector(first, ir.Constant(ty, ir.Undefined), ir.Constant(ir.VectorType(I32, count), None))

    def shuffle(self, a: Any, b: Any | None, order: Sequence[int]) -> Any:
        """Lanes of a, then b, picked by `order`."""
        picks = ir.Constant(ir.VectorType(I32, len(order)), [I32(k) for k in order])
        return self.b.shuffle_vector(a, ir.Constant(a.type, ir.Undefined) if b is None else b, picks)

    def lane(self, a: Any, k: int) -> Any:
        """One lane as a scalar."""
        return self.b.extract_element(a, I32(k))

    def halves(self, a: Any) -> tuple[Any, Any]:
        """The lower and the upper half of a vector."""
        n = a.type.count
        return self.shuffle(a, None, range(n // 2)), self.shuffle(a, None, range(n // 2, n))

    def join(self, a: Any, b: Any) -> Any:
        """Two vectors as one of twice the lanes."""
        return self.shuffle(a, b, range(2 * a.type.count))

    def sum(self, a: Any) -> Any:
        """The sum of all lanes, added as a tree."""
        if a.type.element in (F32, F64):
            made = self.call(f"llvm.vector.reduce.fadd.{self._mangle(a.type)}", a.type.element,
                             [ir.Constant(a.type.element, -0.0), a])
            made.fastmath.add("reassoc")
            return made
        return self.call(f"llvm.vector.reduce.add.{self._mangle(a.type)}", a.type.element, [a])

    def largest(self, a: Any) -> Any:
        """The largest float lane (the other one where a lane is NaN)."""
        while a.type.count > 1:
            low, high = self.halves(a)
            a = self.fmax(low, high)
        return self.lane(a, 0)

    # ---- floats ----------------------------------------------------------------------------------

    fadd, fsub, fmul, fdiv = map(_binary, ("fadd", "fsub", "fmul", "fdiv"))

    def fneg(self, a: Any) -> Any:
        return self.b.fneg(a)

    def fabs(self, a: Any) -> Any:
        return self._unary("fabs", a)

    def sqrt(self, a: Any) -> Any:
        return self._unary("sqrt", a)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c: rounded once where the CPU has it in one instruction, else twice."""
        if self.cpu.fma:
            return self.call(f"llvm.fma.{self._mangle(a.type)}", a.type, [a, b, c])
        return self.b.fadd(self.b.fmul(a, b), c)

    def fmax(self, a: Any, b: Any) -> Any:
        """a > b ? a : b. One instruction on x86; b where one is NaN: put the constant first to let NaN through."""
        a, b = self._pair(a, b)
        return self.b.select(self.b.fcmp_ordered(">", a, b), a, b)

    def fmin(self, a: Any, b: Any) -> Any:
        """a < b ? a : b, like fmax."""
        a, b = self._pair(a, b)
        return self.b.select(self.b.fcmp_ordered("<", a, b), a, b)

    def clamp(self, x: Any, lo: Any, hi: Any) -> Any:
        """min(max(x, lo), hi); NaN stays NaN."""
        return self.fmin(hi, self.fmax(lo, x))

    def rint(self, a: Any) -> Any:
        """Nearest whole number, halves to even."""
        if self.cpu.arch:
            return self._unary("nearbyint", a)
        size, shift = self.fabs(a), self.const(a.type, 8388608.0)     # no instruction: add and take off 2**23
        near = self.fsub(self.fadd(size, shift), shift)
        return self.select(self.fcmp("<", size, shift), self.call(
            f"llvm.copysign.{self._mangle(a.type)}", a.type, [near, a]), a)

    def floor(self, a: Any) -> Any:
        if self.cpu.arch:
            return self._unary("floor", a)
        near = self.rint(a)
        return self.select(self.fcmp(">", near, a), self.fsub(near, self.const(a.type, 1.0)), near)

    def fcmp(self, how: str, a: Any, b: Any) -> Any:
        """Ordered comparison "<", "<=", "==", "!=", ">=", ">"; "uno" is true where one is NaN."""
        a, b = self._pair(a, b)
        return self.b.fcmp_unordered("uno", a, b) if how == "uno" else self.b.fcmp_ordered(how, a, b)

    # ---- integers --------------------------------------------------------------------------------

    add, sub, mul, shl = map(_binary, ("add", "sub", "mul", "shl"))
    and_, or_, xor = map(_binary, ("and_", "or_", "xor"))

    def ashr(self, a: Any, b: Any) -> Any:
        """Shift right, filling with the sign."""
        return self.b.ashr(*self._pair(a, b))

    def lshr(self, a: Any, b: Any) -> Any:
        """Shift right, filling with zeros."""
        return self.b.lshr(*self._pair(a, b))

    def icmp(self, how: str, a: Any, b: Any, signed: bool = True) -> Any:
        """Comparison of integers."""
        a, b = self._pair(a, b)
        return self.b.icmp_signed(how, a, b) if signed else self.b.icmp_unsigned(how, a, b)

    def max(self, a: Any, b: Any, signed: bool = True) -> Any:
        a, b = self._pair(a, b)
        return self.call(f"llvm.{'s' if signed else 'u'}max.{self._mangle(a.type)}", a.type, [a, b])

    def min(self, a: Any, b: Any, signed: bool = True) -> Any:
        a, b = self._pair(a, b)
        return self.call(f"llvm.{'s' if signed else 'u'}min.{self._mangle(a.type)}", a.type, [a, b])

    def sat_add(self, a: Any, b: Any) -> Any:
        """Signed addition that saturates."""
        return self.call(f"llvm.sadd.sat.{self._mangle(a.type)}", a.type, [a, b])

    def select(self, condition: Any, a: Any, b: Any) -> Any:
        """a where the condition holds, else b."""
        a, b = self._pair(a, b)
        return self.b.select(condition, a, b)

    # ---- conversions -----------------------------------------------------------------------------

    def _like(self, a: Any, scalar: str) -> Any:
        return self.type(scalar, a.type.count if isinstance(a.type, ir.VectorType) else 0)

    def bitcast(self, a: Any, ty: Any) -> Any:
        return a if a.type == ty else self.b.bitcast(a, ty)

    def sext(self, a: Any, scalar: str) -> Any:
        """Widen signed lanes to `scalar`."""
        return self.b.sext(a, self._like(a, scalar))

    def zext(self, a: Any, scalar: str) -> Any:
        """Widen unsigned lanes to `scalar`."""
        return self.b.zext(a, self._like(a, scalar))

    def trunc(self, a: Any, scalar: str) -> Any:
        """Keep the low bits."""
        return self.b.trunc(a, self._like(a, scalar))

    def to_float(self, a: Any, signed: bool = True) -> Any:
        """Integers to float32."""
        made = self._like(a, "f32")
        return self.b.sitofp(a, made) if signed else self.b.uitofp(a, made)

    def truncate(self, a: Any) -> Any:
        """float32 to int32, toward zero; values must fit."""
        return self.b.fptosi(a, self._like(a, "i32"))

    def nearest(self, a: Any) -> Any:
        """float32 vector to int32, halves to even. On x86 what does not fit becomes -2**31."""
        n = a.type.count
        ty = ir.VectorType(I32, n)
        if self.x86 and n == 16:
            return self.call("llvm.x86.avx512.mask.cvtps2dq.512", ty, [a, ir.Constant(ty, None), I16(-1), I32(4)])
        if self.x86 and 32 * n in _CVTPS2DQ:
            return self.call(_CVTPS2DQ[32 * n], ty, [a])
        return self.b.fptosi(self.rint(a), ty)

    # ---- control ---------------------------------------------------------------------------------

    def loop(self, n: Any, carried: list[Any], body: Callable[[Any, list[Any]], list[Any] | None], step: int = 1,
             start: Any = 0) -> list[Any]:
        """for i in range(start, n, step): carried = body(i, carried). n may be 0. The final values."""
        b = self.b
        before, function = b.block, b.function
        head, inside, end = (function.append_basic_block(x) for x in ("head", "body", "end"))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64)
        index.add_incoming(self.i(start), before)
        phis = [b.phi(value.type) for value in carried]
        for phi, value in zip(phis, carried):
            phi.add_incoming(value, before)
        b.cbranch(b.icmp_signed("<", index, self.i(n)), inside, end)
        b.position_at_end(inside)
        after = body(index, phis) or []
        index.add_incoming(b.add(index, self.i(step)), b.block)
        for phi, value in zip(phis, after):
            phi.add_incoming(value, b.block)
        b.branch(head)
        b.position_at_end(end)
        return phis

    def either(self, condition: Any, yes: Callable[[], Any], no: Callable[[], Any] | None = None) -> None:
        """if condition: yes() else: no(), for their stores."""
        with self.b.if_else(condition) as (then, otherwise):
            with then:
                yes()
            with otherwise:
                if no is not None:
                    no()

    def choose(self, condition: Any, yes: Callable[[], list[Any]], no: Callable[[], list[Any]]) -> list[Any]:
        """The values of yes() if the condition holds, else those of no(): only one of them is computed."""
        ends = []
        with self.b.if_else(condition) as branches:
            for branch, make in zip(branches, (yes, no)):
                with branch:
                    ends.append((make(), self.b.block))
        made = [self.b.phi(value.type) for value in ends[0][0]]
        for values, block in ends:
            for phi, value in zip(made, values):
                phi.add_incoming(value, block)
        return made

    def vectors(self, n: Any, body: Callable[[Any, Callable[..., None]], None], lanes: int = 0, unroll: int = 1) -> None:
        """body(i, store) for every `lanes` of n elements; `store(value, ptr, off)` is masked in the last round."""
        lanes, n = lanes or self.lanes, self.i(n)
        start: Any = 0

        def plain(value: Any, ptr: Any, off: Any = 0) -> None:
            self.store(value, ptr, off)
        for times in ([unroll] if unroll > 1 else []) + [1]:
            full = self.sub(n, self.b.srem(n, self.i(lanes * times)))

            def rounds(i: Any, _: Any, times: int = times) -> None:
                for k in range(times):
                    body(self.add(i, k * lanes), plain)
            self.loop(full, [], rounds, step=lanes * times, start=start)
            start = full
        left = self.sub(n, start)

        def last() -> None:
            mask = self.mask(lanes, left)
            body(start, lambda value, ptr, off=0: self.mstore(value, ptr, mask, off))
        self.either(self.icmp(">", left, 0), last)

    # ---- LLVM ------------------------------------------------------------------------------------

    def call(self, name: str, result: Any, args: list[Any]) -> Any:
        """Call of an LLVM intrinsic."""
        module = self.b.module
        function = module.globals.get(name) or ir.Function(module, ir.FunctionType(result, [a.type for a in args]), name)
        return self.b.call(function, args)

    def _mangle(self, ty: Any) -> str:
        return f"v{ty.count}{_SHORT[ty.element]}" if isinstance(ty, ir.VectorType) else _SHORT[ty]

    def _unary(self, name: str, a: Any) -> Any:
        return self.call(f"llvm.{name}.{self._mangle(a.type)}", a.type, [a])
