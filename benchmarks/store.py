"""What the store costs: keys, hits, writes, and loading one library against sixty.

    python benchmarks/store.py
"""
from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

from litejit.compiler.load import make_image
from litejit.store import Store, files, make_key
from litejit.store.store import GENERATION

COUNT = 60
CODE = 4000                                         # bytes added to an object, as a kernel of some size has


def objects() -> list[bytes]:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    values = ", ".join(["i8 7"] * CODE)
    return [machine.emit_object(binding.parse_assembly(
        f"@c = internal constant [{CODE} x i8] [{values}]\n"
        f"define i64 @f{i}(i64 %x) {{ %p = getelementptr i8, ptr @c, i64 %x\n %v = load i8, ptr %p\n"
        f"%w = zext i8 %v to i64\n ret i64 %w }}")) for i in range(COUNT)]


def milliseconds(work: Callable[[], Any], repeats: int = 1) -> float:
    best = 1e9
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def show(label: str, work: Callable[[], Any], repeats: int = 1) -> None:
    print(f"{label:45s}{milliseconds(work, repeats):8.3f} ms")


def place(root: str, key: str, image: bytes) -> None:
    """A library in the store that this process has not loaded."""
    folder = files.make_folder(root, GENERATION, key[:2])
    files.write(f"{folder}/{key}.lib", files.pack(image, b"{}", key))


def main() -> None:
    show("first key of a process", lambda: make_key(x=1))
    show("another key", lambda: make_key(x=1), 100)
    parts, names = objects(), [f"f{i}" for i in range(COUNT)]
    image = make_image(parts, names)
    show(f"linking {COUNT} objects, {len(image):,} bytes", lambda: make_image(parts, names), 5)
    with tempfile.TemporaryDirectory() as root:
        key, keys = make_key(x="all"), [make_key(x=i) for i in range(COUNT)]
        store = Store([root])
        store.put_object(key, image, {})            # the first write also sweeps
        show("writing that library", lambda: store.put_object(key, image, {}), 20)
        show("reading and checking it", lambda: Store([root]).get_object(key), 20)
        place(root, key, image)
        for name, part, k in zip(names, parts, keys):
            place(root, k, make_image([part], [name]))

        def one() -> None:
            library = Store([root]).get_library(key)
            assert library is not None
            for name in names:
                library.address(name)

        def many() -> None:
            fresh = Store([root])
            for name, k in zip(names, keys):
                library = fresh.get_library(k)
                assert library is not None
                library.address(name)
        show(f"loading it, {COUNT} functions", one)
        show(f"loading {COUNT} libraries of one function", many)


if __name__ == "__main__":
    main()
