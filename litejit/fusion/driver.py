"""The fused function of a plan: one Numba function whose body is one intrinsic that emits the calls of all steps.

Calls go to kernels by symbol, through `lj_step` (compiler/runtime.py); parameters and chunk counts are read from the
table, so one fused function serves all shapes that give the same sequence of kernels.
"""

from __future__ import annotations

from typing import Any

from litejit.compiler.steps import RESULT_BITS, VALUE_MASK
from litejit.planner.lower import Jump
from litejit.planner.plan import RECORD, Plan

SYMBOL = "lj_fused"

Sequence = tuple[tuple[str, int], ...]


def sequence(plan: Plan) -> Sequence:
    """What the fused function depends on: ("symbol", 0), ("jump", to) or ("unless", to) per record."""
    return tuple(
        (("jump" if r.flag is None else "unless", r.to.at) if isinstance(r, Jump) else (r.kernel.symbol, 0))
        for r in plan.records
    )


def fused_object(records: Sequence) -> bytes:
    """Object code of the driver `lj_fused`."""
    from numba import types
    from numba.extending import intrinsic

    from litejit.compiler.codegen import emit_object

    @intrinsic  # type: ignore[untyped-decorator]
    def run_steps(typing: Any, team: Any, ctl: Any, table: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return _emit(builder, records, *args)

        return types.int64(types.int64, types.int64, types.int64), generate

    def fused(team, ctl, table):  # type: ignore[no-untyped-def]
        return run_steps(team, ctl, table)

    return emit_object(fused, (types.int64,) * 3, SYMBOL)


def _emit(b: Any, records: Sequence, team: Any, ctl: Any, table: Any) -> Any:
    """Blocks: one per record, one to leave with an error, one for the end."""
    from llvmlite import ir

    i64, i32, ptr = ir.IntType(64), ir.IntType(32), ir.PointerType()
    step_type = ir.FunctionType(i32, [ptr, ptr] + [i64] * 7)
    step = ir.Function(b.module, step_type, "lj_step")
    kernel_type = ir.FunctionType(i32, [ptr, ptr, ptr, i64, i64])
    with b.goto_entry_block():
        ret, exc = b.alloca(i64), b.alloca(ptr)
    tid, nthr, base = b.and_(ctl, i64(255)), b.and_(b.lshr(ctl, i64(8)), i64(255)), b.ashr(ctl, i64(16))
    words = b.inttoptr(table, ptr)
    function = b.function
    blocks = [function.append_basic_block(f"step{i}") for i in range(len(records))]
    end, failed = function.append_basic_block("end"), function.append_basic_block("failed")
    blocks.append(end)

    def word(i: int, k: int) -> Any:
        return b.load(b.gep(words, [i64(RECORD * i + k)], source_etype=i64), typ=i64)

    b.branch(blocks[0])
    errors = []
    for i, (name, to) in enumerate(records):
        b.position_at_end(blocks[i])
        if name == "jump":
            b.branch(blocks[to])
        elif name == "unless":
            flag = b.load(b.inttoptr(word(i, 1), ptr), typ=ir.IntType(8))
            b.cbranch(b.icmp_unsigned("==", flag, ir.IntType(8)(0)), blocks[to], blocks[i + 1])
        else:
            kernel = b.module.globals.get(name) or ir.Function(b.module, kernel_type, name)
            b.call(
                step, [ret, exc, team, tid, nthr, b.add(base, i64(i)), b.ptrtoint(kernel, i64), word(i, 2), word(i, 3)]
            )
            result = b.load(ret, typ=i64)
            errors.append((b.or_(i64((i + 1) << RESULT_BITS), b.and_(result, i64(VALUE_MASK))), b.block))
            b.cbranch(b.icmp_signed("==", result, i64(0)), blocks[i + 1], failed)
    b.position_at_end(failed)
    error = b.phi(i64)
    for value, block in errors:
        error.add_incoming(value, block)
    b.branch(end)
    b.position_at_end(end)
    out = b.phi(i64)
    out.add_incoming(error, failed)
    for i, (name, to) in enumerate(records):
        if name not in ("jump", "unless") and i + 1 == len(records):
            out.add_incoming(i64(0), blocks[i])
        if name in ("jump", "unless") and to == len(records):
            out.add_incoming(i64(0), blocks[i])
        if name == "unless" and i + 1 == len(records) and to != len(records):
            out.add_incoming(i64(0), blocks[i])
    return out
