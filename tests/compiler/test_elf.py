"""The linker: what it links runs, what it cannot link it refuses."""
import ctypes
import shutil
import struct
import subprocess

import pytest

from litejit.compiler.elf import LinkError, link_shared, read_object, undefined
from litejit.compiler.load import load_image, loader

pytestmark = pytest.mark.skipif(loader() != "elf", reason="the linker is for x86-64 Linux")


def assemble(text: str, **options: str) -> bytes:
    """An object made by LLVM from its assembly."""
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    module = binding.parse_assembly(text)
    module.verify()
    options = {"reloc": "pic", "codemodel": "small", **options}
    return binding.Target.from_default_triple().create_target_machine(opt=2, **options).emit_object(module)


def call(library, name, *arguments, result=ctypes.c_int64, kind=ctypes.c_int64):
    return ctypes.CFUNCTYPE(result, *[kind] * len(arguments))(library.address(name))(*arguments)


def test_calls_between_objects_and_out_of_the_library():
    first = assemble("""
        declare i64 @second(i64)
        declare double @cos(double)
        define i64 @first(i64 %x) { %y = call i64 @second(i64 %x)
          %z = add i64 %y, 1
          ret i64 %z }
        define double @cosine(double %x) { %y = call double @cos(double %x)
          ret double %y }""")
    second = assemble("define i64 @second(i64 %x) { %y = mul i64 %x, 10\n ret i64 %y }")
    assert undefined([first]) == {"second", "cos"}
    assert undefined([first, second]) == {"cos"}
    library = load_image(link_shared([first, second], ["first", "cosine"]))
    assert call(library, "first", 4) == 41
    assert call(library, "cosine", 0.0, result=ctypes.c_double, kind=ctypes.c_double) == 1.0
    assert "second" not in library and "first" in library


def test_constants_data_pointers_and_zeroed_memory():
    text = """
        @table = internal constant [4 x i64] [i64 3, i64 1, i64 4, i64 1]
        @pointers = internal global [2 x ptr] [ptr @ten, ptr @twenty]
        @counter = internal global i64 0
        @common = common global i64 0
        define i64 @ten() { ret i64 10 }
        define i64 @twenty() { ret i64 20 }
        define i64 @lookup(i64 %i) { %p = getelementptr i64, ptr @table, i64 %i
          %v = load i64, ptr %p
          ret i64 %v }
        define i64 @indirect(i64 %i) { %p = getelementptr ptr, ptr @pointers, i64 %i
          %f = load ptr, ptr %p
          %v = call i64 %f()
          ret i64 %v }
        define i64 @count() { %old = load i64, ptr @counter
          %c = load i64, ptr @common
          %new = add i64 %old, 1
          store i64 %new, ptr @counter
          store i64 %new, ptr @common
          %sum = add i64 %new, %c
          ret i64 %sum }
        define i64 @choose(i64 %x) { switch i64 %x, label %other [ i64 0, label %a
            i64 1, label %b
            i64 2, label %c
            i64 3, label %d
            i64 4, label %e ]
        a: %va = call i64 @ten()
           ret i64 %va
        b: ret i64 77
        c: store volatile i64 1, ptr @counter
           ret i64 5
        d: %vd = call i64 @twenty()
           ret i64 %vd
        e: ret i64 1000
        other: ret i64 -1 }"""
    library = load_image(link_shared([assemble(text)]))
    assert [call(library, "lookup", i) for i in range(4)] == [3, 1, 4, 1]
    assert [call(library, "indirect", i) for i in range(2)] == [10, 20]
    assert [call(library, "count") for _ in range(3)] == [1, 3, 5]
    assert [call(library, "choose", i) for i in range(6)] == [10, 77, 5, 20, 1000, -1]


def test_alignment_is_kept():
    text = """
        @a = internal constant [3 x i8] c"abc", align 1
        @b = internal constant [16 x float] zeroinitializer, align 64
        define i64 @where() { %p = ptrtoint ptr @b to i64
          ret i64 %p }
        define i64 @first() { %v = load volatile i8, ptr @a
          %w = zext i8 %v to i64
          ret i64 %w }"""
    library = load_image(link_shared([assemble(text)]))
    assert call(library, "where") % 64 == 0
    assert call(library, "first") == ord("a")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_strong_definition_wins_over_a_weak_one(order):
    weak = assemble("define weak i64 @f() { ret i64 1 }\n"
                    "define i64 @g() { %x = call i64 @f()\n ret i64 %x }")
    strong = assemble("define i64 @f() { ret i64 2 }")
    objects = [(weak, strong)[i] for i in order]
    library = load_image(link_shared(objects))
    assert call(library, "g") == 2


def test_tentative_definitions_share_one_place_of_the_largest_size():
    small = assemble("@c = common global i64 0\ndefine i64 @set() { store i64 5, ptr @c\n ret i64 0 }")
    large = assemble("@c = common global [8 x i64] zeroinitializer\n@d = common global i64 0\n"
                     "define i64 @get() { %v = load i64, ptr @c\n store i64 9, ptr @d\n"
                     "%p = getelementptr i64, ptr @c, i64 7\n %w = load i64, ptr %p\n"
                     "%s = add i64 %v, %w\n ret i64 %s }")
    library = load_image(link_shared([small, large]))
    assert call(library, "set") == 0
    assert call(library, "get") == 5


def test_no_segment_is_writable_and_executable_and_readelf_is_content(tmp_path):
    data = link_shared([assemble("@g = global i64 7\ndefine i64 @f() { %v = load i64, ptr @g\n ret i64 %v }")])
    count, = struct.unpack_from("<H", data, 56)
    for i in range(count):
        kind, flags = struct.unpack_from("<II", data, 64 + 56 * i)
        assert flags & 3 != 3 or kind not in (1, 0x6474E551)
    if shutil.which("readelf"):
        path = tmp_path / "x.so"
        path.write_bytes(data)
        done = subprocess.run(["readelf", "-aW", str(path)], capture_output=True, text=True, check=True)
        assert not done.stderr, done.stderr


def test_many_objects_agree_with_the_system_linker(tmp_path):
    objects = [assemble(f"""
        declare i64 @f{(i + 1) % 40}(i64)
        declare float @expf(float)
        @t{i} = internal constant [2 x i64] [i64 {i}, i64 {i * i}]
        define i64 @f{i}(i64 %n) {{
          %stop = icmp sle i64 %n, 0
          br i1 %stop, label %out, label %on
        on: %m = sub i64 %n, 1
          %r = call i64 @f{(i + 1) % 40}(i64 %m)
          %b = and i64 %n, 1
          %p = getelementptr i64, ptr @t{i}, i64 %b
          %v = load i64, ptr %p
          %s = add i64 %r, %v
          ret i64 %s
        out: ret i64 0 }}""") for i in range(40)]
    library = load_image(link_shared(objects))
    values = [call(library, f"f{i}", 100) for i in range(40)]
    if not shutil.which("ld"):
        pytest.skip("no ld to compare with")
    for i, data in enumerate(objects):
        (tmp_path / f"{i}.o").write_bytes(data)
    subprocess.run(["ld", "-shared", "-o", "x.so", *[f"{i}.o" for i in range(40)]], cwd=tmp_path, check=True)
    other = ctypes.CDLL(str(tmp_path / "x.so"))
    for i, value in enumerate(values):
        function = other[f"f{i}"]
        function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int64]
        assert function(100) == value


def test_the_output_is_deterministic():
    data = assemble("define i64 @f() { ret i64 2 }")
    assert link_shared([data]) == link_shared([data])


@pytest.mark.parametrize("text, message", [
    ("declare i64 @PyLong_FromLong(i64)\ndefine i64 @f() { %x = call i64 @PyLong_FromLong(i64 1)\n ret i64 %x }",
     "PyLong_FromLong"),
    ("declare ptr @NRT_Allocate(i64)\ndefine ptr @f() { %x = call ptr @NRT_Allocate(i64 1)\n ret ptr %x }", "NRT_"),
    ("@x = thread_local global i64 0\ndefine i64 @f() { %v = load i64, ptr @x\n ret i64 %v }", "not supported"),
    ("@x = internal constant [8 x i64] zeroinitializer, align 8192\n"
     "define i64 @f(i64 %i) { %p = getelementptr i64, ptr @x, i64 %i\n %v = load i64, ptr %p\n"
     "%q = ptrtoint ptr @x to i64\n %s = add i64 %v, %q\n ret i64 %s }", "alignment"),
])
def test_what_a_kernel_must_not_contain(text, message):
    with pytest.raises(LinkError, match=message):
        link_shared([assemble(text)])


def test_absolute_code_is_refused():
    text = "@t = internal constant i64 5\ndefine ptr @f() { ret ptr @t }"
    with pytest.raises(LinkError):
        link_shared([assemble(text, reloc="static")])


def test_duplicate_missing_and_foreign_input():
    data = assemble("define i64 @f() { ret i64 2 }")
    with pytest.raises(LinkError, match="defined twice"):
        link_shared([data, data])
    with pytest.raises(LinkError, match="no object defines g"):
        link_shared([data], ["g"])
    for garbage in (b"", b"MZ" + bytes(200), b"\x7fELF\x01\x01" + bytes(200), data[:16] + b"\x02" + data[17:]):
        with pytest.raises(LinkError, match="not a relocatable"):
            read_object(garbage)
