"""What the tests of the store put into it and look at."""
import ctypes
import os

import pytest

from litejit.compiler.load import make_image

needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are POSIX")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")



def image(value: int) -> bytes:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    return make_image([machine.emit_object(binding.parse_assembly(f"define i64 @f() {{ ret i64 {value} }}"))], ["f"])


def value(library) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("f"))()


def paths(root, ends=(".lib", ".obj")):
    return [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names if name.endswith(ends)]


def flipped(data, at):
    changed = bytearray(data)
    changed[at] ^= 4
    return bytes(changed)
