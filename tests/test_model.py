"""Model: opening files and buffers privately, its parts, sharing, pickling, what it prints."""

from __future__ import annotations

import copy
import io
import mmap
import os
import pathlib
import pickle
import weakref
import zipfile

import numpy as np
import pytest

import litejit.schema.opening as opening
from litejit.errors import LiteJitError, ModelError, ModelFileError
from litejit.model import Model
from litejit.schema.builder import ModelBuilder
from litejit.schema.enums import TensorType
from litejit.schema.pack import Quant


def build(**options) -> bytes:
    builder = ModelBuilder("a sum")
    graph = builder.subgraph("main")
    x = graph.input("x", (None, 3), "INT8", Quant(0.5, -1))
    w = graph.constant("w", np.arange(3, dtype=np.int8), quantization=Quant([1, 2, 3], 0, 0))
    y = graph.add("ADD", [x, w], ("y", (1, 3), "INT8", Quant(0.25)))
    graph.outputs(y)
    builder.signature("run", graph, {"b": x, "a": x, "\N{SNOWMAN}": x, "Z": w}, {"y": y})
    builder.signature("other", graph)
    builder.signature("run", graph, {}, {})
    builder.metadata("min_runtime_version", b"1.5.0")
    builder.associated_file("labels.txt", b"cat\ndog\n")
    return builder.build(**options)


@pytest.fixture
def path(tmp_path):
    found = tmp_path / "sum.tflite"
    found.write_bytes(build())
    return found


def test_paths_of_all_kinds(path, monkeypatch):
    class Path:
        def __fspath__(self):
            return str(path)

    for kind in (path, str(path), os.fsencode(path), Path()):
        model = Model.from_file(kind)
        assert model.subgraphs[0].name == "main"
        assert os.fsdecode(model.path) == str(path)
    monkeypatch.chdir(path.parent)
    assert Model.from_file("sum.tflite").version == 3
    with pytest.raises(TypeError, match=r"str, bytes or os.PathLike"):
        Model.from_file(7)


def test_paths_that_cannot_be_opened(tmp_path):
    missing = tmp_path / "nope.tflite"
    with pytest.raises(ModelFileError, match=r"Could not open '.*nope.tflite'") as caught:
        Model.from_file(missing)
    error = caught.value
    assert isinstance(error, FileNotFoundError)
    assert isinstance(error, LiteJitError)
    assert (error.errno, error.filename) == (2, str(missing))
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(ModelError, match=r"Could not open .*directory"):
        Model.from_file(tmp_path)
    with pytest.raises(ModelError, match=r"Could not open .*NUL"):
        Model.from_file("a\0b")
    with pytest.raises(ModelError, match="NUL"):
        Model.from_file(b"a\0b")
    (tmp_path / "empty.tflite").touch()
    with pytest.raises(ModelError, match="not a valid Flatbuffer buffer: it is empty"):
        Model.from_file(tmp_path / "empty.tflite")


@pytest.mark.skipif(os.name == "nt", reason="names of files are text there")
def test_names_that_are_no_utf8(path):
    odd = os.fsencode(path.parent) + b"/\xff\xfe.tflite"
    try:
        os.rename(path, odd)
    except OSError:
        pytest.skip("this file system refuses the name")
    for name in (odd, os.fsdecode(odd)):
        assert "sum" in repr(Model.from_file(name))
    with pytest.raises(ModelFileError, match="Could not open"):
        Model.from_file(os.fsdecode(odd) + "x")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_read_to_its_end(tmp_path):
    import threading

    pipe, content = tmp_path / "pipe", build()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    model = Model.from_file(pipe)
    writer.join()
    assert bytes(model.buffer) == content


@pytest.mark.parametrize("limit", [opening.MAP_ABOVE, 100])
def test_files_are_private(path, monkeypatch, limit):
    monkeypatch.setattr(opening, "MAP_ABOVE", limit)
    model = Model.from_file(path)
    content = path.read_bytes()
    assert bytes(model.buffer) == content
    if limit > 100:
        path.write_bytes(b"")
    else:
        path.unlink()
    assert model.subgraphs[0].tensors[1].data.tobytes() == b"\0\1\2"
    assert bytes(model.buffer) == content
    with pytest.raises(ValueError):
        model.subgraphs[0].tensors[1].data[0] = 1
    with pytest.raises(TypeError):
        model.buffer[0] = 1


def test_buffers_of_all_kinds(path):
    content = build()
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        array = np.frombuffer(content, np.uint8)
        shifted = np.concatenate([np.zeros(3, np.uint8), array])[3:]
        kinds = [content, bytearray(content), memoryview(content), mapped, array, shifted, array.view("i1")]
        kinds += [np.repeat(array, 2)[::2], memoryview(bytearray(content))]
        for buffer in kinds:
            assert Model.from_buffer(buffer).subgraphs[0].tensors[1].data.tobytes() == b"\0\1\2"
    assert np.shares_memory(np.frombuffer(content, "u1"), np.asarray(Model.from_buffer(content).buffer))


def test_what_can_change_is_copied():
    buffer = bytearray(build())
    model = Model.from_buffer(buffer)
    buffer[:] = bytes(len(buffer))
    assert model.description == "a sum"


@pytest.mark.parametrize("what", ["m.tflite", 7, None, io.BytesIO(b""), [1, 2]])
def test_what_is_no_buffer(what):
    with pytest.raises(TypeError, match="expected"):
        Model.from_buffer(what)


def test_signatures_are_sorted_and_the_first_of_a_name_wins():
    first, second = Model.from_buffer(build()).signatures
    assert (first.key, second.key, first.subgraph) == ("run", "other", 0)
    assert list(first.inputs.items()) == [("Z", 1), ("a", 0), ("b", 0), ("\N{SNOWMAN}", 0)]
    assert (second.inputs, second.outputs) == ({"x": 0}, {"y": 2})


def test_associated_files():
    content = build()
    model = Model.from_buffer(content)
    assert dict(model.associated_files) == {"labels.txt": b"cat\ndog\n"}
    assert "labels.txt" in model.associated_files
    with pytest.raises(KeyError):
        _ = model.associated_files["nope"]
    plain = content[: content.index(b"PK\3\4")]
    assert len(Model.from_buffer(plain).associated_files) == 0
    assert len(Model.from_buffer(plain + b"PK\5\6 only looks like an archive").associated_files) == 0
    damaged = content.replace(b"cat\ndog\n", b"cow\ndog\n")
    with pytest.raises(ModelError, match=r"'labels.txt' is damaged"):
        _ = Model.from_buffer(damaged).associated_files["labels.txt"]


def test_an_archive_that_would_unpack_to_too_much_is_refused():
    stream = io.BytesIO(build())
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(20_000_000))
    model = Model.from_buffer(stream.getvalue())
    with pytest.raises(ModelError, match="claims 20000000 bytes"):
        _ = model.associated_files["bomb"]
    assert model.associated_files["labels.txt"] == b"cat\ndog\n"


def test_nothing_can_be_set():
    model = Model.from_buffer(build())
    parts = [model, model.subgraphs[0], model.subgraphs[0].tensors[0], model.subgraphs[0].operators[0]]
    for part in [*parts, model.signatures[0], model.subgraphs[0].tensors[0].quantization]:
        with pytest.raises(AttributeError, match="immutable"):
            part.name = 1
        with pytest.raises(AttributeError, match="immutable"):
            del part.index
        with pytest.raises(AttributeError, match="has no attribute 'nope'"):
            _ = part.nope
        assert copy.copy(part) is part
        assert copy.deepcopy(part) is part
    assert model.subgraphs[0].tensors is model.subgraphs[0].tensors
    weakref.ref(model)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_hold_the_bytes(path, protocol):
    model = Model.from_file(path)
    model.packed["w"] = object()
    data = pickle.dumps(model, protocol)
    path.unlink()
    again = pickle.loads(data)
    assert bytes(again.buffer) == bytes(model.buffer)
    assert again.path == model.path
    assert repr(again) == repr(model)
    assert (again.packed, again.plans) == ({}, {})


def test_repr_tells_what_one_asks_first(path):
    text = repr(Model.from_file(path))
    for fragment in [
        "Model('sum.tflite', ", "'a sum'", "subgraph 0 'main': 1 operators, 3 tensors", "ADD 1",
        "in   'x' INT8 [-1, 3] Quantization(scale=0.5, zero_point=-1)",
        "out  'y' INT8 [1, 3] Quantization(scale=0.25, zero_point=0)",
        "signature 'run': (Z, a, b, \N{SNOWMAN}) -> (y)", "min_runtime_version (5 B)", "files: labels.txt",
    ]:  # fmt: skip
        assert fragment in text
    html = Model.from_file(path)._repr_html_()
    assert "sum.tflite" in html
    assert "ADD 1" in html
    graph = Model.from_file(path).subgraphs[0]
    assert repr(graph) == "Subgraph(0, 'main', 3 tensors, 1 operators, [0] -> [2])"
    assert repr(graph.tensors[0]) == "Tensor(0, 'x', INT8, [-1, 3])"
    assert repr(graph.operators[0]) == "Operator(0, ADD, [0, 1] -> [2])"
    assert "<3 scales>" in repr(graph.tensors[1].quantization)


def test_html_is_escaped():
    builder = ModelBuilder("<script>")
    graph = builder.subgraph("<b>")
    graph.input("<i>", (1,))
    graph.custom("<u>", [])
    html = Model.from_buffer(builder.build())._repr_html_()
    assert not any(tag in html for tag in ("<script>", "<b>", "<i>", "<u>"))


def test_dtypes_of_stored_elements():
    builder = ModelBuilder()
    graph = builder.subgraph()
    for type_ in TensorType:
        graph.tensor(type_.name, (2,), type_)
    found = {tensor.type.name: tensor.dtype for tensor in Model.from_buffer(builder.build()).subgraphs[0].tensors}
    same = (
        "float32 float16 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool complex64 complex128 bfloat16"
    )
    for name in same.split():
        assert found[name.upper()].name == name
    assert found["INT4"] == found["UINT4"] == found["INT2"] == np.uint8
    assert found["FLOAT8_E4M3FN"] == found["FLOAT8_E5M2"] == np.int8
    assert found["STRING"] == found["RESOURCE"] == found["VARIANT"] == np.dtype("O")


def test_constants_that_old_writers_misaligned_are_copied():
    content = build()
    builder = ModelBuilder()
    builder.subgraph().constant("c", np.array([1.5, 2.5], "f"))
    tree = builder.tree
    tree["buffers"][1] = {"offset": len(content), "size": 8}
    from litejit.schema.writer import write

    flat = write(tree)
    tree["buffers"][1]["offset"] = len(flat) + 1
    flat = write(tree)
    data = Model.from_buffer(flat + b"\0" + np.array([1.5, 2.5], "f").tobytes()).subgraphs[0].tensors[0].data
    assert data.view("f4").tolist() == [1.5, 2.5]
    assert not data.flags.writeable


def _external(tmp_path, **changes) -> pathlib.Path:
    builder = ModelBuilder()
    builder.subgraph().tensor("w", (2,), external_buffer=7)
    entry = {"id": 7, "group": 0, "offset": 4, "length": 8, "packing": "unpacked", **changes}
    name = entry.pop("name", "weights.bin")
    builder.tree.update(external_buffers=[entry], external_buffer_groups=[{"name": name}])
    path = tmp_path / "m.tflite"
    path.write_bytes(builder.build())
    (tmp_path / "weights.bin").write_bytes(b"\0" * 4 + np.array([1.5, 2.5], "f").tobytes())
    return path


def test_constants_in_other_files(tmp_path):
    model = Model.from_file(_external(tmp_path))
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"is 8 bytes at 4 of 'weights.bin', which has 0"):
        _ = model.subgraphs[0].tensors[0].data
    tensor = Model.from_file(_external(tmp_path)).subgraphs[0].tensors[0]
    assert tensor.data.view("f4").tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"id": 6}, "which the model does not describe"),
        ({"group": 1}, "which the model does not describe"),
        ({"length": 4}, "has 4 bytes in 'weights.bin'; its shape needs 8"),
        ({"offset": 8}, "8 bytes at 8 of 'weights.bin', which has 12"),
        ({"packing": "zstd"}, "packed as 'zstd'"),
        ({"name": "../weights.bin"}, "not the name of a file beside the model"),
        ({"name": "other.bin"}, "There is no such file"),
    ],
)
def test_constants_that_are_not_in_other_files(tmp_path, changes, text):
    tensor = Model.from_file(_external(tmp_path, **changes)).subgraphs[0].tensors[0]
    with pytest.raises(ModelError, match=text):
        _ = tensor.data


def test_constants_in_other_files_need_a_path(tmp_path):
    tensor = Model.from_buffer(_external(tmp_path).read_bytes()).subgraphs[0].tensors[0]
    with pytest.raises(ModelError, match="load the model from a file"):
        _ = tensor.data


@pytest.mark.slow
def test_constants_beyond_two_gigabytes(tmp_path):
    builder = ModelBuilder()
    builder.subgraph().constant("w", np.zeros(2, "f"))
    start = 3 << 30
    builder.tree["buffers"][1] = {"offset": start, "size": 8}
    path = tmp_path / "large.tflite"
    with open(path, "wb") as file:  # a hole in between takes no space
        file.write(builder.build())
        file.seek(start)
        file.write(np.array([1.5, 2.5], "f").tobytes())
    model = Model.from_file(path)
    assert model.subgraphs[0].tensors[0].data.view("f4").tolist() == [1.5, 2.5]
    assert len(model.buffer) == start + 8
