"""Elementwise operators of two inputs without quantisation."""
import numpy as np
import pytest

from litejit.errors import LiteJitError
from litejit.interpreter import Interpreter
from litejit.ops.simd.powers import powers_i32
from litejit.schema.builder import ModelBuilder
from tests.harness import In, Out, op_model, run_model, run_op, type_of
from tests.twins import binary as twin

SHAPES = [((5,), (5,)), ((2, 3, 17), (17,)), ((4, 1), (1, 5)), ((), (3, 3)), ((7, 33), ()),
          ((2, 1, 3, 1, 4), (5, 1, 2, 1)), ((2, 1, 2, 1, 2, 1, 2, 1), (1, 3, 1, 3, 1, 3, 1, 3)),
          ((0, 3), (1, 3)), ((40, 3), (3,)), ((1,), (2, 50))]
SPECIAL = np.array([0, -0.0, 1, -1, 2.5, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-30], np.float32)


def floats(rng, shape, dtype=np.float32):
    """Normal numbers with specials strewn in."""
    x = rng.standard_normal(shape).astype(np.float32)
    return np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape), x).astype(dtype)


def run(op, a, b, mode="auto", type=None, **options):
    shape = np.broadcast_shapes(np.shape(a), np.shape(b))
    a, b = (v if isinstance(v, In) else In(v) for v in (a, b))
    return run_op(op, [a, b], Out(type or type_of(a.value), shape=shape), mode=mode, **options)


@pytest.mark.parametrize("op", twin.FLOAT)
def test_float32(op, rng):
    for a, b in SHAPES:
        x, y = floats(rng, a), floats(rng, b)
        for mode in ("auto", "ref"):
            for act in ("NONE", "RELU6") if op in twin.FUSED else ("NONE",):
                xnn = mode == "auto" and max(len(a), len(b)) <= 6 and 0 not in a
                with np.errstate(all="ignore"):
                    want = twin.FLOAT[op](x, y)
                want = twin.fused(want, act, xnn) if op in twin.FUSED else want
                options = {"fused_activation_function": act} if op in twin.FUSED else {}
                label = f"{op} {a} {b} {mode} {act}"
                np.testing.assert_array_equal(run(op, x, y, mode, **options), want, err_msg=label)


@pytest.mark.parametrize("op", ["ADD", "DIV", "MAXIMUM"])
def test_float16(op, rng):
    x, y = floats(rng, (3, 40), np.float16), floats(rng, (40,), np.float16)
    with np.errstate(all="ignore"):
        want = twin.FLOAT[op](x.astype(np.float32), y.astype(np.float32)).astype(np.float16)
    np.testing.assert_array_equal(run(op, x, y), want)


@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.int64])
def test_integers_wrap(op, dtype, rng):
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, (6, 21), dtype, endpoint=True)
    y = rng.integers(info.min, info.max, (21,), dtype, endpoint=True)
    with np.errstate(over="ignore"):
        want = twin.FLOAT[op](x, y)
    np.testing.assert_array_equal(run(op, x, y), want)
    if op in twin.FUSED:
        relu = run(op, x, y, fused_activation_function="RELU")
        np.testing.assert_array_equal(relu, np.maximum(want, 0))


def test_products_of_unsigned_and_complex_numbers(rng):
    x = rng.integers(0, 1 << 32, 40, np.uint32)
    np.testing.assert_array_equal(run("MUL", x, x[::-1]), x * x[::-1])
    z = (rng.standard_normal((4, 5)) + 1j * rng.standard_normal((4, 5))).astype(np.complex64)
    np.testing.assert_allclose(run("MUL", z, z[0]), z * z[0], rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_quotients_and_remainders_of_integers(dtype, rng):
    info = np.iinfo(dtype)
    x = rng.integers(info.min, info.max, (9, 30), dtype, endpoint=True)
    y = rng.integers(info.min, info.max, (9, 30), dtype, endpoint=True)
    y[:4] //= info.max // 20
    y[(y == 0) | (y == -1)] = 3
    x[0, :3], y[0, :3] = (info.min, info.max, info.min), (info.max, info.min, -2)
    np.testing.assert_array_equal(run("FLOOR_MOD", x, y), x % y)
    if dtype != np.int64:
        np.testing.assert_array_equal(run("FLOOR_DIV", x, y), x // y)
    if dtype == np.int32:
        np.testing.assert_array_equal(run("DIV", x, y), twin.trunc_div(x, y))


def test_the_least_integer_over_minus_one_does_not_trap():
    x, y = np.array([-(1 << 31), 5], np.int32), np.array([-1, -1], np.int32)
    assert run("DIV", x, y).tolist() == [-(1 << 31), -5]
    assert run("FLOOR_MOD", x, y).tolist() == [0, 0]


def test_floor_of_floats(rng):
    x, y = floats(rng, (50, 40)), floats(rng, (50, 40))
    x[:10] *= np.float32(1e20)
    y[y == 0] = 1
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(run("FLOOR_DIV", x, y), twin.floor_div(x, y))
        y[3] = 0
        np.testing.assert_array_equal(run("FLOOR_MOD", x, y), twin.floor_mod(x, y))


def test_powers(rng):
    x, y = (v.reshape(-1) for v in np.meshgrid(np.append(SPECIAL, [3, -3, 0.5]), np.append(SPECIAL, [3, -3, 0.5])))
    x = np.append(x, np.exp(rng.uniform(-9, 9, 900))).astype(np.float32)
    y = np.append(y, rng.uniform(-5, 5, 900)).astype(np.float32)
    with np.errstate(all="ignore"):
        want = twin.power(x, y)
        square = twin.power(x, np.float32(2))
    np.testing.assert_allclose(run("POW", x, y), want, rtol=3e-7)
    np.testing.assert_array_equal(np.signbit(run("POW", x, y))[~np.isnan(want)], np.signbit(want)[~np.isnan(want)])
    np.testing.assert_array_equal(run("POW", x, In(np.float32(2), constant=True)), square)


def test_integer_powers(rng):
    x, y = rng.integers(-9, 10, 200, np.int32), rng.integers(0, 20, 200, np.int32)
    x[0] = y[0] = 0
    np.testing.assert_array_equal(run("POW", x, y), twin.integer_power(x, y))


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 13, 32, 2 ** 31 - 1])
def test_integer_powers_with_one_exponent(rng, exponent):
    one = np.int32(exponent)
    for shape in ((1,), (5,), (7, 9), (64,), (3, 1, 23), (20001,)):
        x = rng.integers(-2 ** 31, 2 ** 31, shape, np.int32)
        want = np.array([pow(int(v), exponent, 2 ** 32) for v in x.reshape(-1)], np.uint32).astype(np.int32).reshape(shape)
        np.testing.assert_array_equal(run("POW", x, np.full((1,) * len(shape), one)), want)
        np.testing.assert_array_equal(run("POW", x, In(one, constant=True)), want)
        powers_i32(x.ctypes.data, x.ctypes.data, min(x.size, 99), exponent)                     # the twin, in place
        np.testing.assert_array_equal(x.reshape(-1)[:99], want.reshape(-1)[:99])


def test_chunks_and_threads(rng):
    """Tensors of several chunks whose ends fall inside rows."""
    for a, b in (((67, 1001), (1001,)), ((67, 1001), (67, 1)), ((65543,), (65543,)), ((3, 23, 7, 129), (23, 1, 129))):
        x, y = rng.standard_normal(a).astype(np.float32), rng.standard_normal(b).astype(np.float32)
        for threads in (1, 2):
            np.testing.assert_array_equal(run("SUB", x, y, num_threads=threads), x - y)
            np.testing.assert_array_equal(run("SUB", y, x, num_threads=threads), y - x)


def test_constants(rng):
    """Short constant rows are repeated; two constants are computed while planning."""
    x, row = rng.standard_normal((4, 6, 3)).astype(np.float32), np.array([1, 2, 3], np.float32)
    np.testing.assert_array_equal(run("SUB", x, In(row, constant=True)), x - row)
    np.testing.assert_array_equal(run("SUB", In(row, constant=True), x), row - x)
    for op, want in (("ADD", [3, 2, -1]), ("DIV", [0, -1, -1]), ("FLOOR_DIV", [0, -2, -2]), ("MAXIMUM", [2, 5, 2])):
        a, b = np.array([1, 5, -3], np.int32), np.array([2, -3, 2], np.int32)
        content = op_model(op, [In(a, constant=True), In(b, constant=True)], Out("INT32", shape=(3,)))
        interpreter = Interpreter(model_content=content)
        interpreter.allocate_tensors()
        assert len(interpreter.plan.steps) == 0
        interpreter.invoke()
        assert interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist() == want


def test_in_place(rng):
    """A chain whose operators take over the memory of their inputs."""
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x, y = graph.input("x", (5, 999)), graph.input("y", (999,))
    t = graph.add("MUL", [x, x], ("t", (5, 999)))
    u = graph.add("SUB", [y, t], ("u", (5, 999)))
    v = graph.add("ADD", [u, u], ("v", (5, 999)), fused_activation_function="RELU")
    w = graph.add("DIV", [v, y], ("w", (5, 999)))
    graph.outputs(w)
    a, b = rng.standard_normal((5, 999)).astype(np.float32), rng.standard_normal(999).astype(np.float32)
    want = np.maximum((b - a * a) + (b - a * a), 0) / b
    np.testing.assert_array_equal(run_model(builder.build(), [a, b])[0], want)


@pytest.mark.parametrize("op", ["DIV", "FLOOR_DIV", "FLOOR_MOD"])
def test_zero_divisors(op):
    x, y = np.arange(12, dtype=np.int32).reshape(3, 4), np.array([1, 2, 0, 4], np.int32)
    with pytest.raises(LiteJitError, match="Division by 0"):
        run(op, x, y)
    with pytest.raises(LiteJitError, match="Division by 0"):
        run(op, x, In(y, constant=True))
    assert run(op, x, np.where(y == 0, 1, y).astype(np.int32)).shape == (3, 4)


def test_zero_divisors_of_floats():
    one, zero = np.ones(3, np.float32), np.zeros(3, np.float32)
    with pytest.raises(LiteJitError, match="Division by 0"):
        run("FLOOR_DIV", one, zero)
    assert np.isnan(run("FLOOR_MOD", one, zero)).all()
    assert np.isinf(run("DIV", one, zero)).all()
    assert (run("DIV", one, zero, "ref") == np.finfo(np.float32).max).all()


def test_refused():
    f, i = np.ones((2, 3), np.float32), np.ones((2, 3), np.int32)
    with pytest.raises(LiteJitError, match="negative value"):
        run("POW", i, -i)
    with pytest.raises(LiteJitError, match="negative value"):
        run("POW", i, np.array(-1, np.int32))
    with pytest.raises(LiteJitError, match=r"Given shapes, \[2,3\] and \[4\], are not broadcastable"):
        run_op("ADD", [f, np.ones(4, np.float32)], Out(shape=(2, 3)))
    with pytest.raises(LiteJitError, match="input1->type != input2->type"):
        run("ADD", f, i)
    with pytest.raises(LiteJitError, match=r"NumInputs\(node\) != 2"):
        run_op("MUL", [f], Out(shape=(2, 3)))
    with pytest.raises(LiteJitError, match="is not supported by SUB"):
        run("SUB", f.astype(np.float64), f.astype(np.float64))
    with pytest.raises(LiteJitError, match="quantization parameters"):
        run("ADD", f.astype(np.int8), f.astype(np.int8))


def test_an_activation_behind_a_sum_moves_into_it(rng):
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x, y = graph.input("x", (4, 30)), graph.input("y", (30,))
    total = graph.add("ADD", [x, y], ("total", (4, 30)))
    graph.outputs(graph.add("RELU6", [total], ("out", (4, 30))))
    a, b = floats(rng, (4, 30)) * 5, floats(rng, (30,))
    with np.errstate(all="ignore"):
        want = twin.fused(a + b, "RELU6", True)
    np.testing.assert_array_equal(run_model(builder.build(), [a, b])[0], want)
