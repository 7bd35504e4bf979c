"""precision="bfloat16": products of rounded numbers, summed in float32, against NumPy on numbers that ml_dtypes rounded."""
import os
import platform
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from litejit.compiler.cpu import LEVELS
from litejit.interpreter import Interpreter
from litejit.ops import conv
from litejit.ops.base import Target
from litejit.ops.conv_geometry import Windows
from litejit.ops.conv_winograd import Tiling, tiling
from litejit.ops.simd.gemm_bf16 import pack_bf16, to_bf16
from litejit.ops.simd.winograd import matrices
from litejit.schema.builder import ModelBuilder
from tests.harness import In, Out, op_model, run_model, run_op
from tests.twins.conv import conv_sums

F32 = np.float32
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ACTS = {"NONE": (-np.inf, np.inf), "RELU": (0, np.inf), "RELU6": (0, 6), "RELU_N1_TO_1": (-1, 1)}
PRODUCTS = [(1, 7, 5), (1, 128, 128), (1, 301, 100), (3, 1, 1), (4, 33, 70), (8, 64, 48), (29, 131, 33), (150, 96, 17),
            (14, 650, 230)]                                                                       # m, k, n
CONVS = [  # image, weights [O, kh, kw, depth], stride, dilation, padding
    ((1, 5, 6, 3), (8, 3, 3, 3), (1, 1), (1, 1), "SAME"), ((2, 9, 8, 5), (7, 3, 2, 5), (2, 1), (1, 1), "VALID"),
    ((1, 6, 7, 40), (33, 1, 1, 40), (1, 1), (1, 1), "SAME"), ((3, 5, 5, 17), (16, 1, 1, 17), (2, 2), (1, 1), "SAME"),
    ((1, 9, 9, 20), (50, 3, 3, 20), (1, 1), (1, 1), "SAME"), ((1, 11, 12, 3), (6, 3, 3, 3), (1, 1), (2, 3), "SAME"),
    ((1, 8, 8, 15), (24, 3, 3, 5), (1, 1), (1, 1), "SAME"), ((2, 7, 7, 6), (9, 2, 2, 2), (1, 2), (2, 1), "VALID"),
    ((1, 30, 31, 3), (19, 7, 7, 3), (2, 2), (1, 1), "SAME"), ((1, 2, 2, 4), (5, 5, 5, 4), (1, 1), (1, 1), "SAME"),
    ((1, 4, 50, 1), (3, 1, 9, 1), (1, 3), (1, 1), "SAME"), ((1, 3, 70, 1), (2, 1, 33, 1), (1, 1), (1, 1), "SAME"),
    ((1, 13, 9, 64), (40, 3, 3, 64), (1, 1), (1, 1), "SAME"), ((1, 1, 1, 70), (130, 1, 1, 70), (1, 1), (1, 1), "SAME")]
AWKWARD = np.array([0, -0.0, 1, np.inf, -np.inf, np.nan, 3.4e38, -3.4e38, 3.3895e38, 1e-40, -1e-40, 1.2e-38, 1.00390625,
                    1.01171875, -1.00390625, 1.0039063, 0.1, 257, 259, 261], F32)

pytestmark = pytest.mark.usefixtures("bf16_cpu")


def rounded(a):
    """As float64; ml_dtypes rounds to nearest even and keeps denormal numbers, the instruction takes them as zeros."""
    a = np.where(np.abs(a) < np.finfo(F32).tiny, F32(0), a)
    with np.errstate(invalid="ignore"):
        return a.astype(ml_dtypes.bfloat16).astype(np.float64)


def off(got, want):
    """The largest difference in units of what is allowed; infinite between other shapes."""
    allowed = 1e-5 * max(1e-3, np.abs(want).max())
    return np.abs(got - want).max(initial=0) / allowed if got.shape == want.shape else np.inf


def run(op, inputs, **options):
    """The result, which is the same for every number of threads."""
    one = run_op(op, inputs, Out(), precision="bfloat16", **options)
    np.testing.assert_array_equal(one, run_op(op, inputs, Out(), precision="bfloat16", num_threads=2, **options))
    return one


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(F32)


# ---- matrix products -------------------------------------------------------------------------------

@pytest.mark.parametrize("constant", [True, False])
def test_fully_connected(rng, constant):
    for i, (m, k, n) in enumerate(PRODUCTS):
        x, w, bias = normal(rng, m, k), normal(rng, n, k), normal(rng, n)
        act = list(ACTS)[i % 4]
        sums = rounded(x) @ rounded(w).T
        assert off(run("FULLY_CONNECTED", [x, In(w, constant=constant), In(bias, constant=constant)],
                  fused_activation_function=act), np.clip(sums + bias, *ACTS[act])) <= 1
        assert off(run("FULLY_CONNECTED", [x, In(w, constant=constant), None]), sums) <= 1


@pytest.mark.parametrize("adj", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("constant", [False, True])
def test_batch_matmul(rng, adj, constant):
    def turn(a, on):
        return np.ascontiguousarray(np.swapaxes(a, -1, -2)) if on else a
    for left, right in (((3, 5), (5, 4)), ((1, 1), (1, 1)), ((17, 33), (33, 40)), ((2, 9, 16), (2, 16, 70)),
                        ((4, 1, 3, 2), (2, 2, 3)), ((2, 1, 30, 20), (1, 3, 20, 35)), ((1, 131), (131, 7)),
                        ((6, 20, 300), (6, 300, 77)), ((3, 40, 513), (513, 64))):
        x, w = normal(rng, *left), normal(rng, *right)
        got = run("BATCH_MATMUL", [turn(x, adj[0]), In(turn(w, adj[1]), constant=constant)], adj_x=adj[0], adj_y=adj[1])
        assert off(got, np.matmul(rounded(x), rounded(w))) <= 1


def test_activations_are_rounded_to_nearest_even():
    x = AWKWARD[:, None]
    got = run("FULLY_CONNECTED", [x, In(np.ones((1, 1), F32), constant=True), None])
    np.testing.assert_array_equal(got[:, 0], rounded(AWKWARD))
    x = np.random.default_rng(1).integers(0, 1 << 32, 4000, np.uint32).view(F32)[:, None]
    got = run("FULLY_CONNECTED", [x, In(np.ones((1, 1), F32), constant=True), None])
    np.testing.assert_array_equal(got, rounded(x))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("adj", [True, False])
def test_weights_are_rounded_to_nearest_even(constant, adj):
    w = AWKWARD[:, None] if adj else AWKWARD[None]
    got = run("BATCH_MATMUL", [np.ones((1, 1), F32), In(w, constant=constant)], adj_y=adj)
    np.testing.assert_array_equal(got[0], rounded(AWKWARD))


def test_what_follows_an_odd_row_is_not_read_as_a_number(rng):
    """Memory behind the last value of an odd row may hold anything: here NaN, the first value of the next row."""
    x = normal(rng, 40, 33)
    x[1::2] = np.nan
    w = normal(rng, 20, 33)
    got = run("FULLY_CONNECTED", [x, In(w, constant=True), None])
    assert off(got[::2], rounded(x[::2]) @ rounded(w).T) <= 1
    assert np.isnan(got[1::2]).all()


def test_to_bf16_is_ml_dtypes_rounding(rng):
    x = np.concatenate([AWKWARD, rng.integers(0, 1 << 32, 100_000, np.uint32).view(F32)])
    got = (to_bf16(x).astype(np.uint32) << 16).view(F32)
    np.testing.assert_array_equal(got, rounded(x))
    cpu = LEVELS["avx512bf16"]
    panels = pack_bf16(cpu, x[:99].reshape(33, 3), x[:33])
    assert panels.shape == (2, 3, 32) and (panels[0, 0].view(F32) == x[:32])[~np.isnan(x[:32])].all()
    np.testing.assert_array_equal(panels[1, 1:, 0].copy().view(np.uint16), [*to_bf16(x[96:99]), 0])


# ---- convolutions ----------------------------------------------------------------------------------

@pytest.mark.parametrize("constant", [True, False])
def test_convolutions(rng, monkeypatch, constant):
    monkeypatch.setattr(conv, "tiling", lambda *_: Tiling(0, "bf16"))
    for i, (image, kernel, stride, dilation, padding) in enumerate(CONVS):
        if not constant and kernel[3] != image[3]:
            continue                                            # grouped weights must be constant
        x, w, bias, act = normal(rng, *image), normal(rng, *kernel), normal(rng, kernel[0]), list(ACTS)[i % 4]
        options = {"stride_h": stride[0], "stride_w": stride[1], "dilation_h_factor": dilation[0],
                   "dilation_w_factor": dilation[1], "padding": padding}
        sums = conv_sums(rounded(x), rounded(w), stride, dilation, padding)
        assert off(run("CONV_2D", [x, In(w, constant=constant), In(bias, constant=constant)], fused_activation_function=act,
                  **options), np.clip(sums + bias, *ACTS[act])) <= 1
        assert off(run("CONV_2D", [x, In(w, constant=constant), None], **options), sums) <= 1


def test_what_the_memory_held_before_does_not_matter(rng, monkeypatch):
    """NaN all over the arena: nothing of it is read, not even the second half of the last pair of an odd row."""
    monkeypatch.setattr(conv, "tiling", lambda *_: Tiling(0, "bf16"))
    models = [(op_model("CONV_2D", [np.zeros(image, F32), In(normal(rng, *kernel), constant=True), None], stride_h=stride[0],
                        stride_w=stride[1], dilation_h_factor=dilation[0], dilation_w_factor=dilation[1], padding=padding),
               [normal(rng, *image)]) for image, kernel, stride, dilation, padding in CONVS]
    for left, right in (((3, 5), (5, 4)), ((1, 131), (131, 7)), ((2, 40, 33), (33, 70))):
        for adj in (False, True):
            x = [normal(rng, *left), normal(rng, *(right[::-1] if adj else right))]
            models.append((op_model("BATCH_MATMUL", x, adj_y=adj), x))
    for content, inputs in models:
        want, = run_model(content, inputs, precision="bfloat16")
        interpreter = Interpreter(model_content=content, precision="bfloat16")
        interpreter.allocate_tensors()
        interpreter._main.runner.arena[:] = 255
        for detail, value in zip(interpreter.get_input_details(), inputs):
            interpreter.set_tensor(detail["index"], value)
        interpreter.invoke()
        np.testing.assert_array_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), want)


def test_infinities_and_nan_stay_where_they_are(rng, monkeypatch):
    monkeypatch.setattr(conv, "tiling", lambda *_: Tiling(0, "bf16"))
    x, w = normal(rng, 1, 9, 9, 5), np.abs(normal(rng, 7, 3, 3, 5))
    x[0, 2, 2, 0], x[0, 6, 8, 4] = np.nan, np.inf
    options = {"stride_h": 1, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1, "padding": "SAME"}
    got = run("CONV_2D", [x, In(w, constant=True), In(np.zeros(7, F32), constant=True)], **options)
    want = conv_sums(rounded(x), rounded(w))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isposinf(got), np.isposinf(want))


def test_winograd_where_it_is_faster():
    cpu = LEVELS["avx512bf16"]

    def choice(pixels, channels, products):
        windows = Windows((1, pixels, pixels, channels), (3, 3), channels, padding="SAME")
        return tuple(tiling(cpu, windows, channels, products))
    assert choice(14, 256, "f32") == (4, "f32") and choice(14, 256, "bf16") == (2, "bf16")
    assert choice(7, 512, "f32") == (2, "f32") and choice(7, 512, "bf16") == (2, "bf16")
    assert choice(14, 16, "bf16") == (0, "bf16")
    assert choice(56, 72, "bf16")[1] == "f32" or choice(56, 72, "bf16")[0] == 0         # half a vector is left of 72 channels


WINOGRAD = [((1, 9, 9, 64), 50, "SAME"), ((2, 8, 7, 32), 33, "VALID"), ((1, 14, 14, 256), 100, "SAME"),
            ((1, 2, 2, 64), 5, "SAME"), ((1, 61, 43, 32), 16, "SAME"), ((5, 4, 5, 96), 130, "SAME")]


def winograd(monkeypatch, x, w, bias, padding="SAME", act="NONE", choice=(2, "bf16")):
    """The result of F(2x2, 3x3) in bfloat16."""
    monkeypatch.setattr(conv, "tiling", lambda *_: Tiling(*choice))
    return run("CONV_2D", [x, In(w, constant=True), In(bias, constant=True)], stride_h=1, stride_w=1, dilation_h_factor=1,
               dilation_w_factor=1, padding=padding, fused_activation_function=act)


def test_winograd_makes_products_of_rounded_points(rng, monkeypatch):
    at, g, bt = matrices(2)
    for k, (image, n, padding) in enumerate(WINOGRAD):
        x, w, bias, act = normal(rng, *image), normal(rng, n, 3, 3, image[3]), normal(rng, n), list(ACTS)[k % 4]
        got = winograd(monkeypatch, x, w, bias, padding, act)
        exact = conv_sums(x.astype(np.float64), w.astype(np.float64), padding=padding)
        noise = (got - np.clip(exact + bias, *ACTS[act])).std()
        assert 1e-4 < noise / exact.std() < 5e-3                # the direct kernel's is 2.4e-3
        if padding == "VALID":
            points = rounded(np.einsum("ai,bj,nijc->nabc", g, g, w).astype(F32))
            tile = rounded(np.einsum("ai,bj,tijc->tabc", bt, bt, x[:, :4, :4]).astype(F32))
            sums = np.einsum("ia,jb,nabc,tabc->tijn", at, at, points, tile)
            assert off(got[:, :2, :2], np.clip(sums + bias, *ACTS[act])) <= 1


def test_winograd_of_infinities_and_nan(rng, monkeypatch):
    for spot in ((0, 0), (3, 4), (5, 5), (9, 12)):
        for value in (np.inf, -np.inf, np.nan):
            x, w, bias = normal(rng, 1, 10, 13, 32), normal(rng, 37, 3, 3, 32), normal(rng, 37)
            x[(0, *spot, 4)] = value
            direct, got = (winograd(monkeypatch, x, w, bias, choice=choice) for choice in ((0, "bf16"), (2, "bf16")))
            finite = np.isfinite(direct)
            np.testing.assert_array_equal(np.isnan(got), np.isnan(direct))
            np.testing.assert_array_equal(got[~finite], direct[~finite])
            assert np.abs(got[finite] - direct[finite]).max() < 0.03 * direct[finite].std()


@pytest.mark.parametrize("op, x, w, after, kernel", [
    ("FULLY_CONNECTED", (29, 40), (33, 40), "ADD", "product_bf16"),
    ("FULLY_CONNECTED", (29, 40), (9, 40), "ADD", "product_bf16"),
    ("FULLY_CONNECTED", (29, 40), (70, 40), "TANH", "product_bf16"),
    ("FULLY_CONNECTED", (1, 41), (70, 41), "LOGISTIC", "product_bf16_row"),
    ("CONV_2D", (1, 9, 9, 20), (30, 1, 1, 20), "ADD", "product_bf16"),
    ("CONV_2D", (1, 9, 9, 20), (30, 3, 3, 20), "HARD_SWISH", "conv_bf16")])
def test_what_follows_a_product_is_fused_with_the_same_bits(rng, monkeypatch, op, x, w, after, kernel):
    monkeypatch.setattr(conv, "tiling", lambda *_: Tiling(0, "bf16"))
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    shape = (*x[:-1], w[0])
    options = {"stride_h": 1, "stride_w": 1, "padding": "SAME"} if op == "CONV_2D" else {}
    made = graph.add(op, [graph.input("x", x), graph.constant("w", normal(rng, *w)), graph.constant("b", normal(rng, w[0]))],
                     ("product", shape), **options)
    if after == "ADD":
        last = graph.add("ADD", [made, graph.input("other", shape)], ("y", shape), fused_activation_function="RELU6")
    else:
        last = graph.add(after, [made], ("y", shape))
    graph.outputs(last)
    content, values = builder.build(), [normal(rng, *x), normal(rng, *shape)][:1 + (after == "ADD")]
    interpreter = Interpreter(model_content=content, precision="bfloat16")
    interpreter.allocate_tensors()
    assert [s.kernel.name for s in interpreter.plan.steps] == [kernel]
    got, = run_model(content, values, precision="bfloat16")
    apart, = run_model(content, values, precision="bfloat16", experimental_preserve_all_tensors=True)
    np.testing.assert_array_equal(got, apart)
    exact, = run_model(content, values)
    assert 1e-5 < np.abs(got - exact).max() < 0.2


@pytest.mark.parametrize("channels, n", [(24, 40), (33, 7), (1, 70)])
def test_factors_of_channels_move_into_the_weights(rng, channels, n):
    x, by, w, bias = (normal(rng, *shape) for shape in ((1, 20, 21, channels), (1, 1, 1, channels), (n, 1, 1, channels), (n,)))
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    scaled = graph.add("MUL", [graph.input("x", x.shape), graph.input("by", by.shape)], ("scaled", x.shape))
    made = graph.add("CONV_2D", [scaled, graph.constant("w", w), graph.constant("b", bias)], ("y", (1, 20, 21, n)), stride_h=1,
                     stride_w=1, padding="SAME")
    graph.outputs(made)
    content = builder.build()
    interpreter = Interpreter(model_content=content, precision="bfloat16")
    interpreter.allocate_tensors()
    assert [s.kernel.name for s in interpreter.plan.steps] == ["scale_panels_bf16", "product_bf16"]
    want = conv_sums(rounded(x), rounded(w * by[0])) + bias
    for threads in (1, 2):
        assert off(run_model(content, [x, by], precision="bfloat16", num_threads=threads)[0], want) <= 1


# ---- where it applies ------------------------------------------------------------------------------

def test_reference_kernels_and_halves_stay_as_they_are(rng):
    x, w = normal(rng, 5, 40), normal(rng, 30, 40)
    for mode, dtype in (("ref", F32), ("auto", np.float16)):
        given = [x.astype(dtype), In(w.astype(dtype), constant=True), None]
        kind = Out("FLOAT32" if dtype == F32 else "FLOAT16")
        want = run_op("FULLY_CONNECTED", given, kind, mode=mode)
        np.testing.assert_array_equal(run_op("FULLY_CONNECTED", given, kind, mode=mode, precision="bfloat16"), want)


def test_products_of_a_target():
    with_it, without = LEVELS["avx512bf16"], LEVELS["avx512vnni"]
    assert Target(with_it, precision="bfloat16").products == Target(with_it, "opt", "bfloat16").products == "bf16"
    for target in (Target(with_it), Target(without, precision="bfloat16"), Target(with_it, "ref", "bfloat16"),
                   Target(with_it, precision="bfloat16").exact()):
        assert target.products == "f32"


SCRIPT = """
from litejit.compiler import cpu
cpu._chosen = cpu.LEVELS["avx512bf16"]
from litejit.compiler.codegen import kernel_assembly
from litejit.ops.bf16_product import product_bf16, product_bf16_row
from litejit.ops.pack_panels import pack_panels_bf16
from litejit.ops.conv_bf16 import conv_bf16
kernels = [product_bf16, product_bf16_row, conv_bf16, pack_panels_bf16]
print(("=" * 40).join(map(kernel_assembly, kernels)))
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="LLVM is asked for its own architecture only")
def test_instructions():
    """What the CPU level with bfloat16 would run, whatever this machine is."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, env={**os.environ, "LITEJIT_TARGET": ""},
                          capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    *products, pack = done.stdout.split("=" * 40)
    assert len(products) == 3
    for code in products:
        assert "vdpbf16ps" in code and "vcvtne2ps2bf16" in code and "vfmadd" not in code
    assert "vcvtne2ps2bf16" in pack
