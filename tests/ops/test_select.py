"""SELECT and SELECT_V2 against numpy.where."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.interpreter import Interpreter
from tests.harness import In, Out, run_op, type_of

DTYPES = [np.float32, np.float16, np.float64, np.int8, np.uint16, np.int32, np.uint64, np.complex64]
SHAPES = [((3, 50), (3, 50), (3, 50)), ((3, 50), (), (50,)), ((3, 50), (3, 50), ()), ((50,), (), ()),
          ((3, 1), (3, 50), (50,)), ((), (7,), (2, 7)), ((3, 1), (), (3, 50)), ((2, 1, 3, 1), (1, 4, 1, 5), (5,)),
          ((0, 3), (3,), ())]


def run(op, c, x, y, **options):
    shape = np.broadcast_shapes(np.shape(c), x.shape, y.shape) if op == "SELECT_V2" else x.shape
    return run_op(op, [c, x, y], Out(type_of(x), shape=shape), **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_broadcasting(dtype, rng):
    for c, x, y in SHAPES:
        condition = rng.random(c) < 0.5
        x, y = rng.integers(0, 99, x).astype(dtype), rng.integers(0, 99, y).astype(dtype)
        np.testing.assert_array_equal(run("SELECT_V2", condition, x, y), np.where(condition, x, y))


def test_several_chunks(rng):
    for c, x, y in (((50, 1001), (50, 1001), (50, 1001)), ((50, 1), (50, 1001), (1001,)), ((1001,), (), (50, 1001))):
        condition, x, y = rng.random(c) < 0.5, rng.random(x).astype(np.float32), rng.random(y).astype(np.float32)
        for threads in (1, 2):
            np.testing.assert_array_equal(run("SELECT_V2", condition, x, y, num_threads=threads),
                                          np.where(condition, x, y))


def test_select_takes_elements_rows_or_all(rng):
    x, y = rng.random((4, 3, 5)).astype(np.float32), rng.random((4, 3, 5)).astype(np.float32)
    whole, rows = rng.random((4, 3, 5)) < 0.5, np.array([True, False, False, True])
    np.testing.assert_array_equal(run("SELECT", whole, x, y), np.where(whole, x, y))
    np.testing.assert_array_equal(run("SELECT", rows, x, y), np.where(rows[:, None, None], x, y))
    np.testing.assert_array_equal(run("SELECT", np.array([False]), x, y), y)
    np.testing.assert_array_equal(run("SELECT", np.array(True), x, y), x)


def test_constants(rng):
    from tests.harness import op_model

    given = [In(np.array([True, False]), constant=True), In(np.array([1, 2], np.int32), constant=True),
             In(np.array(9, np.int32), constant=True)]
    interpreter = Interpreter(model_content=op_model("SELECT_V2", given, Out("INT32", shape=(2,))))
    interpreter.allocate_tensors()
    interpreter.invoke()
    assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist() == [1, 9]


def test_refused():
    c, x = np.ones((2, 3), bool), np.ones((2, 3), np.float32)
    with pytest.raises(LiteJitError, match="input_condition->type"):
        run("SELECT_V2", x, x, x)
    with pytest.raises(LiteJitError, match="input_x->type != input_y->type"):
        run("SELECT_V2", c, x, x.astype(np.int32))
    with pytest.raises(LiteJitError, match="has_low_rank_input_condition"):
        run("SELECT", c[:, :1], x, x)
    with pytest.raises(LiteJitError, match=r"\[4,3\] and \[5,3\], are not broadcastable"):
        run_op("SELECT_V2", [c, np.ones((4, 3), np.float32), np.ones((5, 3), np.float32)], Out(shape=(2, 3)))
