"""Collapsing of shapes, against NumPy's broadcasting."""
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from litejit.ops.base import Packed
from litejit.ops.broadcast import _repeat, collapse, padded


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


def test_short_constant_rows_are_repeated():
    class Row:
        data, key = np.arange(3), "row"

    class Rest:
        data = None
    for row_first in (False, True):
        addresses = [Row(), Rest()] if row_first else [Rest(), Row()]
        nest = collapse(*((3,), (40, 3)) if row_first else ((40, 3), (3,)))
        longer = _repeat(addresses, nest)
        packed = addresses[0 if row_first else 1]
        assert isinstance(packed, Packed)
        times = packed.build().size // 3
        assert 40 % times == 0
        assert np.prod(longer.dims) == 120
        np.testing.assert_array_equal(packed.build(), np.tile(np.arange(3), times))
