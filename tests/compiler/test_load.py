"""Loading: by path, from memory, through llvmlite, and what happens when one of them is not possible."""
import ctypes
import os
import subprocess
import sys

import pytest

from litejit.compiler import load
from litejit.compiler.load import LoadError, load_file, load_image, loader, make_image

elf_only = pytest.mark.skipif(loader() != "elf", reason="dlopen is used on x86-64 Linux")


def image(value: int) -> bytes:
    """An image with a function `f` that returns `value`."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(f"define i64 @f() {{ ret i64 {value} }}\ndefine i64 @hidden() {{ ret i64 0 }}")
    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    return make_image([machine.emit_object(module)], ["f"])


def value(library) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("f"))()


def check(library, expected):
    assert value(library) == expected
    assert "f" in library and "nothing" not in library and "hidden" not in library
    with pytest.raises(LookupError, match="nothing"):
        library.address("nothing")
    assert repr(library).startswith("<Library")


def test_from_memory_and_from_a_file(tmp_path):
    data = image(1)
    check(load_image(data), 1)
    path = tmp_path / "x.lib"
    path.write_bytes(data + b"what follows is ignored")
    library = load_file(str(path), data)
    check(library, 1)
    assert library.path == str(path)


def test_through_llvmlite(monkeypatch, tmp_path):
    monkeypatch.setenv("LITEJIT_LOADER", "llvm")
    data = image(2)
    assert data[:4] != b"\x7fELF"
    check(load_image(data), 2)
    path = tmp_path / "x.lib"
    path.write_bytes(data)
    check(load_file(str(path), data), 2)


def test_unknown_loader(monkeypatch):
    monkeypatch.setenv("LITEJIT_LOADER", "gold")
    with pytest.raises(ValueError, match="gold"):
        loader()


@pytest.mark.parametrize("which", ["", "llvm"])
def test_garbage_is_an_error_not_a_crash(monkeypatch, which):
    monkeypatch.setenv("LITEJIT_LOADER", which)
    data = image(3)
    start = data[:8]
    for garbage in (start + bytes(range(1, 256)) * 8, data[:100], start):
        with pytest.raises(LoadError):
            load_image(garbage)


@elf_only
def test_a_file_that_cannot_be_mapped_is_loaded_from_memory(tmp_path):
    library = load_file(str(tmp_path / "absent.lib"), image(4))
    check(library, 4)
    assert library.path is None


@elf_only
def test_libraries_in_memory_are_different_even_if_their_descriptors_are_closed_by_others():
    """The loader knows libraries by name, and /proc/self/fd/N is a name that comes again."""
    libraries = []
    for i in range(5):
        libraries.append(load_image(image(100 + i)))
        os.close(libraries[-1]._keep[1])            # as a daemon does that closes all descriptors
    assert [value(library) for library in libraries] == [100, 101, 102, 103, 104]
    for i, library in enumerate(libraries):
        number = load._handles[library._keep[0]._handle]
        assert isinstance(number, int), i


@elf_only
def test_without_files_in_memory(monkeypatch):
    def refuse(*args):
        raise OSError("memfd is not allowed here")
    monkeypatch.setattr(os, "memfd_create", refuse)
    check(load_image(image(5)), 5)
    monkeypatch.setattr(load, "_through_temporary", refuse)
    with pytest.raises(LoadError, match="not allowed"):
        load_image(image(6))


@pytest.mark.parametrize("which", ["", "llvm"])
def test_missing_symbols_are_found_at_load_time(monkeypatch, which):
    from llvmlite import binding

    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    module = binding.parse_assembly("declare i64 @lj_nowhere()\n"
                                    "define i64 @f() { %x = call i64 @lj_nowhere()\n ret i64 %x }")
    monkeypatch.setenv("LITEJIT_LOADER", which)
    with pytest.raises(LoadError, match="cannot be loaded"):
        load_image(make_image([machine.emit_object(module)], ["f"]))


def test_importing_the_loader_imports_nothing_heavy():
    code = ("import sys, litejit.compiler.load, litejit.executor.team, litejit.store\n"
            "heavy = {'numba', 'llvmlite', 'dataclasses', 'hashlib', 'json', 'logging', 'importlib.metadata',"
            " 'platformdirs', 'click', 'rich'}\n"
            "print(sorted(heavy & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
