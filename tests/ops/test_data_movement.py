"""Operators that shape and move data, against NumPy, in the types that LiteRT has and in both modes."""
from __future__ import annotations

import functools

import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder, Quant
from tests.harness import In, Out, op_model, run_model, run_op, type_of

TYPES = ["float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
         "bool", "complex64"]


def ints(values, dtype=np.int32):
    return In(np.array(values, dtype), constant=True)


def random(rng, shape, dtype="float32"):
    if dtype == "bool":
        return rng.random(shape) > 0.5
    return (rng.integers(-100, 100, shape) if dtype[0] in "if" else rng.integers(0, 200, shape)).astype(dtype)


def moved(op, inputs, dtype="float32", outputs=None, **options):
    """The output (or their list, if `outputs` is one) by the way it came about: in both modes, and on four threads."""
    outs = outputs or Out(type_of(np.zeros(0, dtype)))
    ways = {"auto": {}, "reference": {"mode": "ref", "fuse": False}, "four threads": {"num_threads": 4}}
    return {way: run_op(op, inputs, outs, **arguments, **options) for way, arguments in ways.items()}


assert_equal = functools.partial(np.testing.assert_array_equal, strict=True)        # shapes and types, too


def assert_all_equal(ways, want):
    """The output, or every one of the list, is the same in every way."""
    for way, got in ways.items():
        for a, b in zip(got, want, strict=True) if isinstance(want, list) else [(got, want)]:
            assert_equal(a, b, err_msg=way)


# ---- shapes --------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", TYPES)
def test_reshape_squeeze_expand(rng, dtype):
    x = random(rng, (2, 3, 4), dtype)
    assert_all_equal(moved("RESHAPE", [x, ints([4, -1])], dtype), x.reshape(4, 6))
    assert_all_equal(moved("EXPAND_DIMS", [x, ints(-2)], dtype), x[:, :, None])
    assert_all_equal(moved("SQUEEZE", [x[:, None]], dtype, squeeze_dims=[1]), x)


def test_reshape_from_options(rng):
    x = random(rng, (2, 3))
    assert_all_equal(moved("RESHAPE", [x], new_shape=[3, -1]), x.reshape(3, 2))
    assert_all_equal(moved("RESHAPE", [x[:1, :1]], new_shape=[0]), x[0, 0].reshape(()))


def test_squeeze_everything(rng):
    x = random(rng, (1, 3, 1))
    assert_all_equal(moved("SQUEEZE", [x]), x.reshape(3))
    assert_all_equal(moved("SQUEEZE", [x[:, :1]]), x[0, 0, 0].reshape(()))


def test_fill_and_one_hot(rng):
    assert_all_equal(moved("FILL", [ints([2, 3]), np.float32(2.5)]), np.full((2, 3), 2.5, np.float32))
    indices = np.array([[0, 3], [-1, 2]], np.int32)
    want = np.where(indices[..., None] == np.arange(3), 5, -1).astype(np.int8)
    given = [indices, ints(3), In(np.int8(5)), In(np.int8(-1))]
    assert_all_equal(moved("ONE_HOT", given, "int8", axis=-1), want)
    assert_all_equal(moved("ONE_HOT", given, "int8", axis=0), want.transpose(2, 0, 1))


def test_shape_arithmetic_is_done_while_planning(rng):
    """SHAPE -> STRIDED_SLICE -> PACK -> RESHAPE leaves no step for shapes, though x is not constant."""
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x = graph.input("x", (2, 3, 4), "FLOAT32")
    (shape,) = graph.add("SHAPE", [x], [("shape", (3,), "INT32")], out_type=2)
    one = [graph.constant(n, np.array([v], np.int32)) for n, v in (("b", 0), ("e", 1), ("s", 1))]
    (first,) = graph.add("STRIDED_SLICE", [shape, *one], [("first", (), "INT32")], shrink_axis_mask=1)
    rest = graph.constant("rest", np.array(-1, np.int32))
    (packed,) = graph.add("PACK", [first, rest], [("packed", (2,), "INT32")], values_count=2)
    (out,) = graph.add("RESHAPE", [x, packed], [("out", (1, 1), "FLOAT32")])
    graph.outputs(out)
    interpreter = Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    assert {step.node.op for step in interpreter.plan.steps} == {"RESHAPE"}
    assert tuple(interpreter.get_output_details()[0]["shape"]) == (2, 12)
    values = random(rng, (2, 3, 4))
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], values)
    interpreter.invoke()
    assert_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), values.reshape(2, 12))


# ---- movement ------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", TYPES)
def test_transpose_reverse_tile(rng, dtype):
    x = random(rng, (2, 5, 9, 3), dtype)
    assert_all_equal(moved("TRANSPOSE", [x, ints([0, 2, 3, 1])], dtype), x.transpose(0, 2, 3, 1))
    assert_all_equal(moved("REVERSE_V2", [x, ints([1, 2])], dtype), x[:, ::-1, ::-1])
    assert_all_equal(moved("TILE", [x, ints([1, 2, 1, 3])], dtype), np.tile(x, (1, 2, 1, 3)))
    assert_all_equal(moved("BROADCAST_TO", [x[:, :1], ints([2, 2, 5, 9, 3])], dtype, version=2),
                     np.broadcast_to(x[:, :1], (2, 2, 5, 9, 3)))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_joining_and_cutting(rng, dtype, axis):
    whole = random(rng, (6, 6, 6), dtype)
    parts = np.split(whole, [1, 3], axis)
    outs = [Out(type_of(whole))] * 3
    assert_all_equal(moved("CONCATENATION", parts, dtype, axis=axis), whole)
    assert_all_equal(moved("SPLIT", [ints(axis), whole], dtype, outs, num_splits=3), np.split(whole, 3, axis))
    assert_all_equal(moved("SPLIT_V", [whole, ints([1, -1, 3]), ints(axis)], dtype, outs, num_splits=3), parts)
    assert_all_equal(moved("PACK", [whole, whole], dtype, values_count=2, axis=axis), np.stack([whole, whole], axis))
    planes = list(np.moveaxis(whole, axis, 0))
    assert_all_equal(moved("UNPACK", [whole], dtype, outs * 2, num=6, axis=axis), planes)


def test_many_inputs_joined(rng):
    parts = [random(rng, (5, n)) for n in range(1, 20)]
    assert_all_equal(moved("CONCATENATION", parts, axis=1), np.concatenate(parts, 1))


def test_long_parts_joined(rng):
    parts = [random(rng, (2, 200_000)), random(rng, (2, 60_001))]
    assert_all_equal(moved("CONCATENATION", parts, axis=1), np.concatenate(parts, 1))


def test_uint8_joined_with_other_scales(rng, arithmetic):
    quants = [(0.5, 10), (0.25, 128), (0.1, 3)]
    xs = [rng.integers(0, 256, (3, n)).astype(np.uint8) for n in (4, 17, 6)]
    inputs = [In(x, Quant(*q)) for x, q in zip(xs, quants)]
    got = moved("CONCATENATION", inputs, "uint8", Out("UINT8", Quant(0.25, 128)), axis=1)
    assert_all_equal(got, arithmetic.concat_uint8(xs, quants, (0.25, 128), 1))


@pytest.mark.parametrize("dtype", TYPES)
def test_slices(rng, dtype):
    x = random(rng, (4, 6, 8), dtype)
    assert_all_equal(moved("SLICE", [x, ints([1, 0, 3]), ints([2, -1, 4])], dtype), x[1:3, :, 3:7])
    got = moved("STRIDED_SLICE", [x, ints([3, -9, 6]), ints([0, 9, -9]), ints([-1, 2, -3])], dtype)
    assert_all_equal(got, x[3:0:-1, ::2, 6::-3])


@pytest.mark.parametrize("seed", range(8))
def test_strided_slices_with_masks(arithmetic, seed):
    rng = np.random.default_rng(seed)
    for _ in range(12):
        shape = tuple(int(n) for n in rng.integers(1, 5, int(rng.integers(1, 5))))
        count = int(rng.integers(1, len(shape) + 1))
        masks = {f"{name}_mask": int(rng.integers(0, 1 << count))
                 for name in ("begin", "end", "new_axis", "shrink_axis")}
        masks["ellipsis_mask"] = 1 << int(rng.integers(count)) if rng.random() < 0.3 else 0
        begin, end = (rng.integers(-5, 6, count) for _ in range(2))
        step = rng.choice([-2, -1, 1, 2, 3], count)
        x = random(rng, shape)
        given = [x, ints(begin), ints(end), ints(step)]
        try:
            want = np.asarray(arithmetic.strided_slice(x, begin, end, step, **masks))
        except IndexError:
            with pytest.raises(LiteJitError):
                run_op("STRIDED_SLICE", given, Out(), **masks)
            continue
        assert_equal(run_op("STRIDED_SLICE", given, Out(), **masks), want)


def test_strided_slice_by_offset(rng):
    x = random(rng, (6, 7))
    got = moved("STRIDED_SLICE", [x, ints([1, 2]), ints([3, 4]), ints([1, 2])], offset=True)
    assert_all_equal(got, x[1:4, 2:6:2])


# ---- borders -------------------------------------------------------------------------------------

def mirrored(inputs, mode):
    """MIRROR_PAD; its option `mode` is not run_op's."""
    x = inputs[0] if isinstance(inputs[0], np.ndarray) else inputs[0].value
    content = op_model("MIRROR_PAD", inputs, Out(type_of(x)), mode=mode)
    return run_model(content, [x] if inputs[0] is x else [])[0]


@pytest.mark.parametrize("dtype", TYPES)
def test_padding(rng, dtype):
    x = random(rng, (2, 3, 4, 3), dtype)
    for pads in ([[0, 0], [1, 2], [2, 0], [0, 0]], [[1, 1], [0, 0], [0, 0], [3, 2]], [[0, 1], [0, 0], [0, 0], [0, 0]],
                 [[0, 0]] * 4):
        assert_all_equal(moved("PAD", [x, ints(pads)], dtype), np.pad(x, pads))
        value = random(rng, (), dtype)
        assert_all_equal(moved("PADV2", [x, ints(pads), In(value)], dtype), np.pad(x, pads, constant_values=value))
    pads = [[0, 0], [1, 2], [2, 3], [2, 1]]
    for mode, name in enumerate(("reflect", "symmetric")):
        assert_equal(mirrored([x, ints(pads)], mode), np.pad(x, pads, name))


def test_wide_borders(rng):
    x = random(rng, (3, 1000))
    assert_all_equal(moved("PAD", [x, ints([[1, 1], [700, 2000]])]), np.pad(x, [[1, 1], [700, 2000]]))


def test_border_of_quantised_tensors_is_the_zero_point(rng):
    x = random(rng, (2, 3), "int8")
    got = moved("PAD", [In(x, Quant(0.5, -7)), ints([[1, 0], [0, 1]])], "int8", Out("INT8", Quant(0.5, -7)))
    assert_all_equal(got, np.pad(x, [[1, 0], [0, 1]], constant_values=-7))


@pytest.mark.parametrize("dtype", ["float32", "int8", "int64"])
def test_blocks_to_depth_and_batch(rng, dtype):
    x = random(rng, (2, 4, 6, 5), dtype)
    deep = x.reshape(2, 2, 2, 3, 2, 5).transpose(0, 1, 3, 2, 4, 5).reshape(2, 2, 3, 20)
    assert_all_equal(moved("SPACE_TO_DEPTH", [x], dtype, block_size=2), deep)
    assert_all_equal(moved("DEPTH_TO_SPACE", [deep], dtype, block_size=2), x)
    for pads in ([[0, 0], [0, 0]], [[1, 1], [2, 1]], [[2, 0], [0, 9]], [[4, 2], [0, 6]]):
        bordered = np.pad(x, [[0, 0], *pads, [0, 0]])
        h, w = (n // b for n, b in zip(bordered.shape[1:3], (2, 3)))
        batch = bordered.reshape(2, h, 2, w, 3, 5).transpose(2, 4, 0, 1, 3, 5).reshape(12, h, w, 5)
        assert_all_equal(moved("SPACE_TO_BATCH_ND", [x, ints([2, 3]), ints(pads)], dtype), batch)
        assert_all_equal(moved("BATCH_TO_SPACE_ND", [batch, ints([2, 3]), ints(pads)], dtype), x)


# ---- lookups -------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("index", [np.int16, np.int32, np.int64])
def test_gather(rng, dtype, index):
    x = random(rng, (3, 5, 7, 2), dtype)
    picks = rng.integers(0, 5, (2, 3)).astype(index)
    assert_all_equal(moved("GATHER", [x, picks], dtype, axis=1), np.take(x, picks, 1))
    each = rng.integers(0, 7, (3, 4)).astype(index)
    want = np.stack([np.take(a, i, 1) for a, i in zip(x, each)])
    assert_all_equal(moved("GATHER", [x, each], dtype, axis=2, batch_dims=1), want)
    pairs = rng.integers(0, 3, (4, 2)).astype(index)
    assert_all_equal(moved("GATHER_ND", [x, pairs], dtype), x[pairs[:, 0], pairs[:, 1]])
    assert_all_equal(moved("EMBEDDING_LOOKUP", [pairs[:, 0].astype(np.int32), x], dtype), x[pairs[:, 0]])


@pytest.mark.parametrize("out", ["FLOAT32", "FLOAT16"])
@pytest.mark.parametrize("kind", ["INT8", "UINT8", "INT4"])
def test_lookups_that_dequantise(rng, kind, out):
    low, high = {"INT8": (-128, 127), "UINT8": (0, 255), "INT4": (-8, 7)}[kind]
    table = rng.integers(low, high + 1, (6, 2, 4)).astype("u1" if kind == "UINT8" else "i1")
    ids = np.array([5, 0, 3], np.int32)
    real = np.float32 if out == "FLOAT32" else np.float16
    for scales in ([0.5], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]):
        quant = Quant(scales, [0] * len(scales))
        want = table * np.array(scales, np.float32).reshape(-1, 1, 1)
        got = moved("EMBEDDING_LOOKUP", [ids, In(table, quant, type=kind, constant=True)], outputs=Out(out), version=3)
        assert_all_equal(got, want[ids].astype(real))


@pytest.mark.parametrize("kind", ["INT4", "INT2"])
@pytest.mark.parametrize("out", ["FLOAT32", "FLOAT16"])
def test_lookups_in_blocks(rng, kind, out):
    """Scales in a tensor of their own, one for 32 elements of a row."""
    low = {"INT4": -8, "INT2": -2}[kind]
    table = rng.integers(low, -low, (6, 64)).astype(np.int8)
    scales = rng.random((6, 2)).astype(np.float16)
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    ids = graph.input("ids", (3,), "INT32")
    quant = Quant.blockwise(graph.constant("scales", scales), 32)
    held = graph.constant("table", table, kind, quant)
    graph.outputs(*graph.add("EMBEDDING_LOOKUP", [ids, held], [("out", (3, 64), out)], version=5))
    picks = np.array([5, 0, 3], np.int32)
    want = table * np.repeat(scales.astype(np.float32), 32, 1)
    assert_equal(run_model(builder.build(), [picks])[0], want[picks].astype(np.float32 if out == "FLOAT32" else np.float16))


# ---- constants -----------------------------------------------------------------------------------

FOLDED = [
    ("TRANSPOSE", [[2, 0, 1]], {}), ("REVERSE_V2", [[1]], {}), ("TILE", [[1, 2, 2]], {}),
    ("SLICE", [[0, 1, 1], [2, -1, 2]], {}), ("STRIDED_SLICE", [[0, 2, 3], [2, 0, 0], [1, -1, -2]], {}),
    ("PAD", [[[1, 0], [0, 2], [1, 1]]], {}),
    ("GATHER", [[1, 0, 2]], {"axis": 1}), ("GATHER_ND", [[[1, 0], [0, 2]]], {}),
    ("SPACE_TO_BATCH_ND", [[2], [[1, 0]]], {}), ("BATCH_TO_SPACE_ND", [[2], [[1, 1]]], {}), ("RESHAPE", [[4, 6]], {}),
    ("EXPAND_DIMS", [1], {}),
]


@pytest.mark.parametrize("op, rest, options", FOLDED, ids=[f[0] for f in FOLDED])
def test_constants_are_folded_to_what_kernels_compute(rng, op, rest, options):
    x = random(rng, (2, 3, 4), "int32")
    others = [ints(r) for r in rest]
    if op == "EXPAND_DIMS":
        others = [ints(np.int32(1))]
    computed = run_op(op, [x, *others], Out("INT32"), **options)
    interpreter = Interpreter(model_content=op_model(op, [In(x, constant=True), *others], Out("INT32"), **options))
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), computed)
    assert computed.size


# ---- errors --------------------------------------------------------------------------------------

X = np.zeros((2, 3), np.float32)
BAD = [
    ("RESHAPE", [X, ints([4, 2])], {}, "num_input_elements != num_output_elements"),
    ("RESHAPE", [X, ints([-1, -1])], {}, "stretch_dim != -1"),
    ("SQUEEZE", [X], {"squeeze_dims": [0]}, "current >= 0"),
    ("EXPAND_DIMS", [X, ints(3)], {}, "axis <= input_dims.size"),
    ("FILL", [ints([2, -1]), np.float32(1)], {}, "must be >= 0"),
    ("TRANSPOSE", [X, ints([0, 0])], {}, "permutation"),
    ("REVERSE_V2", [X, ints([2])], {}, "axes\\[i\\]"),
    ("CONCATENATION", [X, X[:1]], {"axis": 1}, "does not fit"),
    ("CONCATENATION", [X, X], {"axis": 2}, "axis"),
    ("SPLIT", [ints(1), X], {"num_splits": 1, "outputs": 2}, "num_splits"),
    ("SPLIT_V", [X, ints([-1, -1]), ints(1)], {"num_splits": 2, "outputs": 2}, "more than one -1"),
    ("PACK", [X, X[:1]], {"values_count": 2}, "HaveSameShapes"),
    ("UNPACK", [X], {"num": 3, "axis": 0, "outputs": 3}, "data->num"),
    ("SLICE", [X, ints([0, 4]), ints([1, 1])], {}, "Invalid begin"),
    ("SLICE", [X, ints([0, 1]), ints([1, 3])], {}, "Invalid begin and size"),
    ("STRIDED_SLICE", [X, ints([0]), ints([1]), ints([0])], {}, "non-zero"),
    ("STRIDED_SLICE", [X, ints([0] * 3), ints([1] * 3), ints([1] * 3)], {}, "more dimensions"),
    ("PAD", [X, ints([[0, -1], [0, 0]])], {}, "greater than equal to 0"),
    ("PAD", [X, ints([[0, 1]])], {}, "paddings"),
    ("TILE", [X, ints([1, -1])], {}, "non-negative"),
    ("BROADCAST_TO", [X, ints([3])], {"version": 2}, "broadcastable"),
    ("GATHER", [X, ints([0])], {"axis": 2}, "axis"),
    ("DEPTH_TO_SPACE", [X], {"block_size": 2}, "NumDimensions"),
    ("SPACE_TO_BATCH_ND", [np.zeros((1, 3, 4), np.float32), ints([2]), ints([[0, 0]])], {}, "final_dim_size"),
    ("BATCH_TO_SPACE_ND", [np.zeros((3, 3, 4), np.float32), ints([2]), ints([[0, 0]])], {}, "output_batch_size"),
]


@pytest.mark.parametrize("op, inputs, options, text", BAD, ids=[f"{b[0]}-{b[3]}" for b in BAD])
def test_refused(op, inputs, options, text):
    options = dict(options)
    outs = [Out()] * options.pop("outputs") if "outputs" in options else Out()
    with pytest.raises(LiteJitError, match=text):
        run_op(op, inputs, outs, **options)


def test_gather_of_no_batches_folds():
    x, picks = In(np.zeros((0, 3, 2), np.float32), constant=True), ints(np.zeros((0, 4)))
    assert_equal(run_op("GATHER", [x, picks], Out(), axis=1, batch_dims=1), np.zeros((0, 4, 2), np.float32))


def test_mirror_pad_folded_and_refused(rng):
    x, pads = random(rng, (2, 3, 4)), [[1, 0], [0, 2], [1, 3]]
    assert_equal(mirrored([In(x, constant=True), ints(pads)], 0), np.pad(x, pads, "reflect"))
    with pytest.raises(LiteJitError, match="MirrorPad"):
        mirrored([X, ints([[0, 2], [0, 0]])], 0)


@pytest.mark.parametrize("index", [-1, 3, 1 << 20])
@pytest.mark.parametrize("op", ["GATHER", "GATHER_ND", "EMBEDDING_LOOKUP"])
def test_indices_are_checked(op, index):
    ids = np.array([0, 2, index], np.int32)
    table = np.zeros((3, 4), np.float32)
    inputs = {"GATHER": [table, ids], "GATHER_ND": [table, ids[:, None]], "EMBEDDING_LOOKUP": [ids, table]}[op]
    with pytest.raises(LiteJitError, match=r"index out of bounds.*element 2.*failed to invoke"):
        run_op(op, inputs, Out())
