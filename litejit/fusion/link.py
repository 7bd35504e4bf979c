"""From a plan to a loaded library: kernels from the store or the compiler, linked with the run-time system and driver."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from litejit.compiler.cpu import Cpu
from litejit.compiler.lazy import Linked, system_digest
from litejit.fusion.driver import SYMBOL, fused_object, sequence
from litejit.planner.plan import Plan
from litejit.store import make_key

if TYPE_CHECKING:
    from litejit.compiler.load import Library
    from litejit.store import Store

log = logging.getLogger("litejit")
_libraries: dict[tuple[tuple[str, ...], str], Library] = {}

Progress = Callable[[str, int, int], None]


def plan_library(plan: Plan, fused: bool, store: Store, progress: Progress | None = None) -> Library:
    """The library of a plan's kernels, with the fused function `lj_fused` if `fused`.

    progress: called with (what, done, all) while compiling. Raises StoreError if the store is required and lacks it.
    """
    kernels = plan.kernels
    records = sequence(plan) if fused else ()
    key = make_key(
        what="library",
        system=system_digest(),
        cpu=plan.target.cpu.name,
        kernels=sorted(k.fingerprint() for k in kernels),
        records=records,
    )
    if (store.roots, key) in _libraries:
        return _libraries[store.roots, key]
    library = store.get_library(key)
    if library is None:
        with store.lock(key):
            library = store.get_library(key) or _build(key, plan, kernels, fused, store, progress)
    _libraries[store.roots, key] = library
    return library


def _build(
    key: str, plan: Plan, kernels: Sequence[Linked], fused: bool, store: Store, progress: Progress | None
) -> Library:
    from litejit.compiler.load import make_image
    from litejit.compiler.runtime import runtime_object

    start = time.perf_counter()
    objects = kernel_objects(kernels, plan.target.cpu, store, progress)
    exports = [k.symbol for k in kernels]
    if fused:
        objects += [*runtime_object(plan.target.cpu, store), fused_object(sequence(plan))]
        exports.append(SYMBOL)
    name = plan.graph.name or f"subgraph {plan.graph.index}"
    library = store.put_library(
        key,
        make_image(objects, exports),
        {"kind": "model" if fused else "kernels", "model": name, "kernels": len(kernels), "cpu": plan.target.cpu.name},
    )
    log.info("compiled %d kernels for %s in %.2f s", len(kernels), name, time.perf_counter() - start)
    return library


def kernel_key(kernel: Linked, cpu: Cpu) -> str:
    """The store's key of a kernel's object code."""
    return make_key(what="kernel", kernel=kernel.fingerprint(), cpu=cpu.name)


def kernel_objects(kernels: Sequence[Linked], cpu: Cpu, store: Store, progress: Progress | None = None) -> list[bytes]:
    """Object code of kernels, compiled where the store lacks it."""
    from litejit.compiler.parallel import compile_kernels

    keys = {kernel: kernel_key(kernel, cpu) for kernel in kernels}
    found = {kernel: store.get_object(key) for kernel, key in keys.items()}
    missing = [kernel for kernel in kernels if found[kernel] is None]

    def report(what: str) -> None:
        if progress is not None:
            progress(what, sum(data is not None for data in found.values()), len(kernels))

    def done(kernel: Linked, data: bytes, seconds: float) -> None:
        found[kernel] = data
        store.put_object(keys[kernel], data, {"kind": "kernel", "kernel": kernel.name, "cpu": cpu.name})
        log.debug("compiled %s in %.0f ms", kernel.name, 1e3 * seconds)
        report(kernel.name)
    report(missing[0].name if missing else "")
    compile_kernels(missing, cpu, done)
    report("")
    return [data for kernel in kernels if (data := found[kernel]) is not None]
