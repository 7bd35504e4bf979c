"""Collapsing of shapes, against NumPy's broadcasting."""
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from litejit.ops.base import Packed, Scratch
from litejit.ops.broadcast import _lengthened, collapse, padded
from litejit.planner.graph import Node, Value
from litejit.schema.builder import Quant
from tests.harness import In, Out, run_op, type_of


@st.composite
def broadcasting(draw, operands=2):
    full = draw(st.lists(st.integers(0, 4), max_size=8))
    shapes = []
    for _ in range(operands):
        shape = tuple(1 if draw(st.booleans()) else n for n in full)
        shapes.append(shape[draw(st.integers(0, len(shape))):] if draw(st.booleans()) else shape)
    return shapes


def gather(nest, operand, size):
    """Element of an operand for every element of the output, as the kernels walk."""
    index = np.zeros(nest.dims[::-1], np.int64)
    for axis, stride in enumerate(nest.strides[operand]):
        step = np.arange(nest.dims[axis]) * stride
        index = index + step.reshape((-1,) + (1,) * axis)
    return index.reshape(-1)


@given(broadcasting(3))
def test_collapsed_strides_visit_what_broadcasting_does(shapes):
    nest = collapse(*shapes)
    out = np.broadcast_shapes(*shapes)
    for k, shape in enumerate(shapes):
        numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        want = np.broadcast_to(numbers, out).reshape(-1)
        if want.size:
            np.testing.assert_array_equal(gather(nest, k, want.size), want)
        else:
            assert 0 in nest.dims


def test_usual_shapes_are_one_or_two_dimensions():
    assert collapse((2, 3, 4), (2, 3, 4)) == ((24,), ((1,), (1,)))
    assert collapse((2, 3, 4), ()) == ((24,), ((1,), (0,)))
    assert collapse((2, 3, 4), (1, 1, 4)) == ((4, 6), ((1, 4), (1, 0)))
    assert collapse((2, 3, 4), (2, 3, 1)) == ((4, 6), ((1, 4), (0, 1)))
    assert collapse((1,), (1, 1)) == ((1,), ((1,), (1,)))
    assert collapse((0, 3), (1, 3)).dims == (3, 0)


def test_array_fields_are_padded():
    assert padded((1, 2)) == (1, 2, 0, 0, 0, 0, 0, 0)


def lengthened(shapes, data, types=("i8", "i8")):
    """(operands, their addresses, the loop nest, the steps before it)"""
    values = [Value("v", k, 0, type, shape, data=np.arange(np.prod(shape), dtype=np.int8).reshape(shape) if known else None,
                    key=f"v{k}") for k, (shape, known, type) in enumerate(zip(shapes, data, types))]
    addresses = list(values)
    node = Node("ADD", None, 0, 0, values, [])
    return values, addresses, *_lengthened(node, addresses, collapse(*shapes))


@pytest.mark.parametrize("first", [False, True])
def test_short_constant_rows_are_repeated(first):
    shapes = [(3,), (40, 3)] if first else [(40, 3), (3,)]
    k = 0 if first else 1
    _, addresses, longer, steps = lengthened(shapes, [first, not first])
    assert isinstance(addresses[k], Packed) and not steps
    times = addresses[k].build().size // 3
    assert 40 % times == 0
    assert np.prod(longer.dims) == 120
    np.testing.assert_array_equal(addresses[k].build(), np.tile(np.arange(3), times))


def test_short_rows_are_repeated_by_a_step():
    values, addresses, longer, steps = lengthened([(400, 3), (3,)], [False, False])
    assert isinstance(addresses[1], Scratch) and addresses[0] is values[0]
    assert [step.kernel.name for step in steps] == ["copy_rows"] and longer.dims[0] > 100 and np.prod(longer.dims) == 1200
    values, addresses, longer, steps = lengthened([(400, 1), (400, 5)], [False, False])
    assert isinstance(addresses[0], Scratch) and addresses[1] is values[1]
    assert [step.kernel.name for step in steps] == ["repeat_channels"] and longer == ((2000,), ((1,), (1,)))


def test_what_is_not_worth_repeating():
    for a, b, type in (((8, 3), (3,), "i8"), ((400, 70), (70,), "i8"), ((400, 1), (400, 33), "f32"),
                       ((400, 1), (400, 5), "i64"), ((99_999, 1), (99_999, 5), "i8")):
        shapes, types = [a, b], (type, type)
        values, addresses, longer, steps = lengthened(shapes, [False, False], types)
        assert addresses == values and longer == collapse(*shapes) and not steps


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int64, np.float16])
def test_short_loops_have_the_same_numbers(rng, dtype):
    quant = Quant([0.5], [0]) if dtype == np.int8 else None
    for shape in ((1, 28, 28, 5), (3, 100, 15), (2, 17, 31, 2), (70_001, 3), (41, 33)):
        x = rng.integers(-9, 9, shape).astype(dtype)
        for small in ((1,) * (len(shape) - 1) + shape[-1:], (*shape[:-1], 1)):
            y = rng.integers(-9, 9, small).astype(dtype)
            for threads in (1, 3):
                got = run_op("SUB", [In(x, quant), In(y, quant)], Out(type_of(x), quant, shape=shape), num_threads=threads)
                np.testing.assert_array_equal(got, x - y)
                got = run_op("SUB", [In(y, quant), In(x, quant)], Out(type_of(x), quant, shape=shape), num_threads=threads)
                np.testing.assert_array_equal(got, y - x)
