"""FULLY_CONNECTED on int4 weights in blocks: the bits of XNNPACK's and of LiteRT's arithmetic, of twins and of LiteRT."""
import numpy as np
import pytest

from litejit.compiler.cpu import target
from litejit.errors import LiteJitError
from litejit.ops.block_weights import even_rows
from litejit.ops.simd.stage_int8 import staged_offset
from litejit.schema.builder import ModelBuilder, Quant
from tests.harness import run_model, run_planned

F = np.float32
BOUNDS = {"NONE": (-np.inf, np.inf), "RELU": (0, np.inf), "RELU6": (0, 6)}
SHAPES = [  # rows, k, n, block
    (1, 1024, 70, 32), (1, 64, 1, 64), (1, 96, 33, 32), (1, 384, 40, 128), (2, 128, 31, 64), (3, 32, 5, 32), (5, 512, 65, 256),
    (7, 160, 48, 32), (8, 192, 17, 64), (16, 256, 130, 128), (23, 96, 64, 96)]
OTHERS = [(1, 64, 7, 16), (3, 48, 5, 6), (2, 30, 4, 10), (4, 96, 9, 48)]


class Case:
    """A product of random numbers in blocks, and its model."""

    def __init__(self, rng, m, k, n, size, biased=True, act="NONE", kind="INT4", constant=True):
        self.size, self.act, self.bounds = size, act, BOUNDS[act]
        self.x = (rng.standard_normal((m, k)) * rng.uniform(0.01, 30, (m, 1))).astype(F)
        low = {"INT4": -8, "INT2": -2}[kind]
        self.w = rng.integers(low, -low, (n, k)).astype(np.int8)
        self.scales = rng.uniform(0.001, 0.1, (n, k // size)).astype(np.float16)
        self.bias = rng.standard_normal(n).astype(F) if biased else None
        builder = ModelBuilder()
        graph = builder.subgraph("main")
        x = graph.input("x", (m, k), "FLOAT32")
        quant = Quant.blockwise(graph.constant("scales", self.scales), size)
        w = graph.constant("w", self.w, kind, quant) if constant else graph.input("w", (n, k), kind, quant)
        bias = graph.constant("bias", self.bias) if biased else None
        graph.outputs(*graph.add("FULLY_CONNECTED", [x, w, bias], [("y", (m, n), "FLOAT32")], version=13,
                                 fused_activation_function=act))
        self.content, self.inputs = builder.build(), [self.x] if constant else [self.x, self.w]

    def run(self, **arguments):
        return run_model(self.content, self.inputs, **arguments)[0]

    def sums(self, codes):
        """Integer sums of the blocks as float32, [n, blocks]."""
        return (codes.astype(np.int64) * self.w).reshape(*self.scales.shape, self.size).sum(2).astype(F)

    def ended(self, total, factor):
        y = total * F(factor)
        return np.clip(y if self.bias is None else y + self.bias, *map(F, self.bounds))


def xnnpack(case, arithmetic):
    """qd8-f32-qb4w: zero point first, scales in bfloat16; codes are moved as the CPU's kernels have them."""
    bits = case.scales.astype(F).view(np.uint32)
    scales = ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(F)
    offset, made = staged_offset(target(), "i8"), []
    first, sums = np.zeros(len(case.w), F), case.w.reshape(len(case.w), -1, 16).sum(2).astype(F)
    for i in range(sums.shape[1]):
        first = first - sums[:, i] * scales[:, i * 16 // case.size]
    for row in case.x:
        factor, inverse, zero = arithmetic.qd8_params(row.min(), row.max())
        acc, total = case.sums(arithmetic.qd8_quantize(row, factor, zero) + offset), first * F(zero + offset)
        for b in range(scales.shape[1]):
            total = arithmetic.fma32(acc[:, b], scales[:, b], total) if target().fma else total + acc[:, b] * scales[:, b]
        made.append(case.ended(total, inverse))
    return np.array(made)


def plain(case, arithmetic):
    """LiteRT's own loop: scales in float16, zero point last; and the activation."""
    scales, made = case.scales.astype(F), []
    for row in case.x:
        codes, factor, zero = arithmetic.asym_quant_f32(row)
        acc, held, total, weights = case.sums(codes), case.sums(np.ones(len(row), np.int8)), F(0), F(0)
        for b in range(scales.shape[1]):
            total, weights = total + acc[:, b] * scales[:, b], weights + held[:, b] * scales[:, b]
        made.append(case.ended(total - F(zero) * weights, factor))
    return np.array(made)


@pytest.mark.parametrize("act", BOUNDS)
@pytest.mark.parametrize("biased", [True, False])
def test_tiles(rng, arithmetic, biased, act):
    for shape in SHAPES:
        case = Case(rng, *shape, biased, act)
        (got,), plan = run_planned(case.content, case.inputs)
        assert plan.steps[-1].kernel.name == "product_int8"
        np.testing.assert_array_equal(got, xnnpack(case, arithmetic))


def test_rows_of_one_sign_and_zeros(rng, arithmetic):
    case = Case(rng, 6, 128, 40, 32)
    case.x[0], case.x[1], case.x[2] = 0, abs(case.x[1]), -abs(case.x[2])
    np.testing.assert_array_equal(case.run(), xnnpack(case, arithmetic))


def test_threads_agree(rng):
    for shape in ((1, 512, 1000, 32), (33, 512, 300, 64)):
        case = Case(rng, *shape)
        np.testing.assert_array_equal(case.run(), case.run(num_threads=2))


@pytest.mark.parametrize("act", BOUNDS)
def test_what_xnnpack_does_not_take(rng, arithmetic, act):
    for shape in OTHERS:
        case = Case(rng, *shape, act=act)
        np.testing.assert_array_equal(case.run(), plain(case, arithmetic))
    for case, mode in ((Case(rng, 2, 64, 5, 32, act=act), "opt"), (Case(rng, 2, 64, 5, 32, act=act, constant=False), "auto"),
                       (Case(rng, 2, 64, 5, 32, False, act, kind="INT2"), "auto")):
        np.testing.assert_array_equal(case.run(mode=mode), plain(case, arithmetic))


@pytest.mark.parametrize("mode", ["auto", "opt"])
def test_bits_of_litert(rng, mode):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    if not target().dot:
        pytest.skip("XNNPACK takes another kernel on this machine than on those of the level")
    types = litert.OpResolverType
    for shape in [*SHAPES, *OTHERS]:
        if (mode == "opt" or shape in OTHERS) and (shape[1] < 32 or shape[2] < 4):
            continue                                     # which LiteRT's loop does not take, and the bias is all that is left
        case = Case(rng, *shape)
        peer = litert.Interpreter(model_content=case.content, num_threads=1, experimental_op_resolver_type={
            "auto": types.AUTO, "opt": types.BUILTIN_WITHOUT_DEFAULT_DELEGATES}[mode])
        peer.allocate_tensors()
        peer.set_tensor(peer.get_input_details()[0]["index"], case.x)
        peer.invoke()
        np.testing.assert_array_equal(case.run(mode=mode), peer.get_tensor(peer.get_output_details()[0]["index"]))


def test_missing_scales(rng):
    case = Case(rng, 2, 64, 5, 32)
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    quant = Quant.blockwise(graph.constant("scales", case.scales[:, :1]), 32)
    x, w = graph.input("x", (2, 64), "FLOAT32"), graph.constant("w", case.w, "INT4", quant)
    graph.outputs(*graph.add("FULLY_CONNECTED", [x, w, None], [("y", (2, 5), "FLOAT32")], version=13))
    with pytest.raises(LiteJitError, match="blocks of 32 weights"):
        run_model(builder.build(), [case.x])


def test_rows_of_tiles():
    assert [even_rows(m, 7) for m in (1, 2, 7, 8, 16, 64)] == [1, 2, 7, 4, 4, 6]
