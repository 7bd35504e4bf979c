"""Damaged and hostile files: refused with ModelError, quickly, without taking memory; never anything else."""

from __future__ import annotations

import random
import struct
import time
import tracemalloc

import numpy as np
import pytest

from litejit.errors import ModelError
from litejit.model import Model
from litejit.schema.builder import ModelBuilder
from litejit.schema.opening import open_buffer
from litejit.schema.pack import Quant, Sparse
from litejit.schema.reader import Source
from litejit.schema.verifier import verify
from litejit.schema.writer import write


def read_all(model: Model) -> str:
    """Everything that a model has, decoded."""
    found: list[object] = [model, model.signatures, model.metadata, dict(model.associated_files)]
    for subgraph in model.subgraphs:
        for tensor in subgraph.tensors:
            found += [tensor, tensor.dtype, tensor.quantization, tensor.sparsity, tensor.data, tensor.variant_tensors]
        for operator in subgraph.operators:
            found += [operator, operator.options, operator.options_2, operator.custom_options, operator.intermediates]
            found.append(operator.mutating_variable_inputs)
    return repr(found)


def rich_model() -> bytes:
    """Something of everything that a file can have."""
    builder = ModelBuilder("rich")
    graph, body = builder.subgraph("main"), builder.subgraph("body")
    body.outputs(body.add("NEG", [body.input("a", (2,))], ("b", (2,))))
    x = graph.input("x", (None, 4), "INT8", Quant(0.5, 3))
    w = graph.constant("w", np.ones((2, 4), np.int8), quantization=Quant([0.5, 0.25], 0, 0))
    packed = graph.constant("p", np.arange(-4, 4).reshape(2, 4), "INT4", Quant(1.0))
    scales = graph.constant("scales", np.ones((2, 2), np.float16))
    graph.constant("blocks", np.zeros((2, 8), np.int8), "INT4", Quant.blockwise(scales, 4))
    graph.constant("sparse", np.eye(4, dtype="f"), sparsity=Sparse(["DENSE", "SPARSE_CSR"]))
    graph.constant("texts", np.array(["a", "", "ccc"]))
    graph.variable("state", (2,))
    graph.tensor("variant", (), "VARIANT", variant_tensors=[{"shape": [1], "type": "INT32", "has_rank": True}])
    y = graph.add("FULLY_CONNECTED", [x, w, None], ("y", (1, 2), "INT8", Quant(1.0)), asymmetric_quantize_inputs=True)
    z = graph.add("WHILE", [y, packed], [("z", (2,))], cond_subgraph_index=body, body_subgraph_index=body)
    graph.add("STABLEHLO_CASE", [x], [("c", (2,))], branch_subgraph_indices=[1, 1])
    graph.outputs(*z, graph.custom("Mine", [y], ("q", (1,)), b"\1\2\3", node={"intermediates": [1]}))
    builder.signature("serving_default", graph)
    builder.metadata("min_runtime_version", b"1.5.0")
    builder.associated_file("labels.txt", b"cat\n")
    return builder.build()


def test_the_rich_model_is_accepted():
    text = read_all(Model.from_buffer(rich_model()))
    parts = ("BlockwiseQuantization", "SparsityParameters", "VariantSubType", "StablehloCaseOptions", r"b'\x01\x02\x03', (1,)",
             "Signature('serving_default'", "'min_runtime_version': b'1.5.0'", "'labels.txt': b'cat")
    assert [part for part in parts if part not in text] == []


def mutate(data: bytes, dice: random.Random) -> bytes:
    if dice.random() < 0.15:
        return data[: dice.randrange(len(data))]
    changed = bytearray(data)
    numbers = [0, 1, 2, 4, 8, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, len(data), len(data) - 4]
    for _ in range(dice.choice([1, 1, 2, 4, 16])):
        at = dice.randrange(len(data))
        if dice.random() < 0.5:
            changed[at] = dice.randrange(256)
        else:
            at &= ~3
            changed[at : at + 4] = struct.pack("<I", dice.choice([*numbers, dice.randrange(len(data))]))
    return bytes(changed[: len(data)])


def _outcome(content: bytes) -> str:
    """ "read", or "refused" with a ModelError; anything else is raised."""
    try:
        read_all(Model.from_buffer(content))
    except ModelError:
        return "refused"
    return "read"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [1500, pytest.param(60_000, marks=pytest.mark.slow)])
def test_mutated_files_are_refused_or_read(dense, count):
    contents = [dense.build(), dense.build(constants_outside=True), rich_model()]
    dice = random.Random(count)
    assert {_outcome(mutate(dice.choice(contents), dice)) for _ in range(count)} == {"read", "refused"}


@pytest.mark.filterwarnings("error")
def test_every_truncation_is_refused_or_read():
    content = rich_model()
    assert {_outcome(content[:size]) for size in range(len(content))} == {"read", "refused"}
    flatbuffer = content[: content.index(b"PK\3\4")]
    for size in range(len(flatbuffer) - 15):  # the last bytes may be padding
        with pytest.raises(ModelError, match="not a valid Flatbuffer buffer"):
            Model.from_buffer(content[:size])


@pytest.mark.parametrize(
    "content",
    [b"", b"TFL3", b"\0" * 64, b"not a model, but some text", b"\4\0\0\0TFL3", b"\xff\xff\xff\x7fTFL3" + b"\0" * 32],
)
def test_what_is_no_model_is_refused(content):
    with pytest.raises(ModelError, match="The model is not a valid Flatbuffer buffer"):
        Model.from_buffer(content)


def _described():
    """A file with nothing but a description, where its offset is, and where it is."""
    content = bytearray(write({"version": 3, "description": "abc"}))
    view = Source(open_buffer(bytes(content))).root()
    at = view._position + view._slots[view._table.fields["description"].slot]
    target = at + struct.unpack_from("<I", content, at)[0]
    return content, at, target


def test_faults_are_named_with_table_and_field():
    content, at, target = _described()
    for place, value, text in [
        (at, 0, "Model.description .*the target"),
        (at, 0x7FFFFFF0, "Model.description .*the target"),
        (at, 3, "Model.description .*misaligned"),
        (target, 0xFFFFFFFF, "Model.description .*the last element"),
        (target, 2, "Model.description .*the zero after the text"),
    ]:
        damaged = bytearray(content)
        damaged[place : place + 4] = struct.pack("<I", value)
        with pytest.raises(ModelError, match=text):
            verify(Source(open_buffer(bytes(damaged))))


def test_a_wrong_vtable_is_refused():
    content, _, _ = _described()
    root = struct.unpack_from("<I", content)[0]
    start = root - struct.unpack_from("<i", content, root)[0]
    faults = [(root, "<i", 2**31 - 1), (root, "<i", root + 8), (start, "<H", 3), (start, "<H", 65534)]
    for place, format_, value in faults:
        damaged = bytearray(content)
        struct.pack_into(format_, damaged, place, value)
        with pytest.raises(ModelError, match=r"Model .*vtable"):
            verify(Source(open_buffer(bytes(damaged))))


def test_an_unknown_union_tag_is_refused():
    builder = ModelBuilder()
    builder.subgraph().add("SOFTMAX", [], beta=1.0)
    content = bytearray(builder.build())
    view = Model.from_buffer(bytes(content)).subgraphs[0].operators[0]._view
    content[view._position + view._slots[view._table.fields["builtin_options"].slot - 1]] = 200
    with pytest.raises(ModelError, match=r"Operator.builtin_options .*a known tag"):
        Model.from_buffer(bytes(content))


@pytest.mark.parametrize("size", [1000, 30_000])
def test_tables_that_are_referred_to_again_and_again_are_refused_in_linear_time(size):
    content = _shared_vectors(size)
    start = time.perf_counter()
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"overlap|more than"):
        Model.from_buffer(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.perf_counter() - start < 2
    assert peak < 60 * len(content) + 5_000_000


def test_bytes_that_many_tables_refer_to_are_not_decoded_for_each():
    builder = ModelBuilder()
    graph = builder.subgraph()
    size = 1 << 21
    builder.tree["buffers"].append({"offset": 8, "size": size})
    for number in range(40):
        builder.tree["metadata"].append({"name": str(number), "buffer": 1})
    tail = bytes(size + 200_000)
    with pytest.raises(ModelError, match="metadata entries overlap"):
        _ = Model.from_buffer(builder.build() + tail).metadata
    for offset in range(100_000, 100_040):  # zeros, all of them
        graph.constant(str(offset), np.array([], "S1"))
        builder.tree["buffers"][-1] = {"offset": offset, "size": size}
    with pytest.raises(ModelError, match="Constants of texts overlap"):
        Model.from_buffer(builder.build() + tail)
    many = ModelBuilder()
    graph = many.subgraph()
    for _ in range(40):
        graph.custom("Mine", [], node={"large_custom_options_offset": 8, "large_custom_options_size": size})
    with pytest.raises(ModelError, match="custom options of its operators overlap"):
        Model.from_buffer(many.build() + tail)


def _shared_vectors(size: int) -> bytes:
    """Root with `size` subgraphs, all one table whose tensors are `size` references to one tensor.

    Written by hand, front to back: vector of subgraphs, subgraph, vector of tensors, tensor, vtables.
    """
    out = bytearray(struct.pack("<I4s", 0, b"TFL3"))

    def vtable(*offsets: int) -> int:
        at = len(out)
        out.extend(struct.pack(f"<{len(offsets) + 2}H", 4 + 2 * len(offsets), 12, *offsets))
        out.extend(b"\0" * (-len(out) % 4))
        return at

    model_vtable = vtable(4, 0, 8)
    subgraph_vtable = vtable(4)
    tensor_vtable = vtable()
    root = len(out)
    struct.pack_into("<I", out, 0, root)
    out.extend(struct.pack("<iII", root - model_vtable, 3, 4))
    subgraphs = len(out)
    subgraph = subgraphs + 4 + 4 * size
    out.extend(struct.pack("<I", size) + _offsets(subgraphs + 4, size, subgraph))
    out.extend(struct.pack("<iI", subgraph - subgraph_vtable, 4))
    tensors = len(out)
    tensor = tensors + 4 + 4 * size
    out.extend(struct.pack("<I", size) + _offsets(tensors + 4, size, tensor))
    out.extend(struct.pack("<i", tensor - tensor_vtable))
    return bytes(out)


def _offsets(start: int, count: int, target: int) -> bytes:
    return (target - (start + 4 * np.arange(count))).astype("<u4").tobytes()
