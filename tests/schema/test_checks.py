"""Well-formed files that are no consistent models: the original's words, and what litejit refuses beyond it."""

from __future__ import annotations

import copy
import re
from itertools import pairwise

import numpy as np
import pytest

from litejit.errors import LiteJitError, ModelError
from litejit.model import Model
from litejit.schema.builder import ModelBuilder
from litejit.schema.pack import Sparse
from litejit.schema.writer import write


@pytest.fixture(scope="module")
def tree():
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x = graph.input("x", (2, 3))
    w = graph.constant("w", np.ones((2, 3), "f"))
    graph.outputs(graph.add("ADD", [x, w], ("y", (2, 3))))
    return builder.tree


def _main(**changes):
    return lambda tree: tree["subgraphs"][0].update(changes)


def _tensor(number, **changes):
    return lambda tree: tree["subgraphs"][0]["tensors"][number].update(changes)


def _operator(**changes):
    return lambda tree: tree["subgraphs"][0]["operators"][0].update(changes)


def _code(**changes):
    return lambda tree: tree["operator_codes"][0].update(changes)


def _buffer(**changes):
    return lambda tree: (tree["buffers"][1].clear(), tree["buffers"][1].update(changes))


def _quantized(**changes):
    return _tensor(0, quantization=changes)


def _signature(**changes):
    return lambda tree: tree.update(signature_defs=[changes])


def _sparse(**changes):
    dense = {"traversal_order": [0, 1], "dim_metadata": [{"dense_size": 2}, {"dense_size": 3}]}
    return _tensor(1, sparsity={**dense, **changes})


def _csr(segments, indices):
    vectors = {
        "array_segments": ("Int32Vector", {"values": segments}),
        "array_indices": ("Uint8Vector", {"values": bytes(indices)}),
    }
    return _sparse(dim_metadata=[{"dense_size": 2}, {"format": "SPARSE_CSR", **vectors}])


REFUSED = {
    "version": (
        lambda tree: tree.update(version=2),
        "Model provided is schema version 2 not equal to supported version 3.",
    ),
    "no subgraphs": (lambda tree: tree.update(subgraphs=[]), "No subgraph in the model."),
    "no buffers": (lambda tree: tree.update(buffers=None), "No buffers in the model."),
    "no tensors": (_main(tensors=None, inputs=[], outputs=[], operators=[]), "Did not get tensors in subgraph 0."),
    "code": (_code(builtin_code=250), "Op builtin_code out of range: 250. Are you using old TFLite binary"),
    "negative code": (_code(builtin_code=-3), "Op builtin_code out of range: -3"),
    "custom": (_code(builtin_code=32), "Operator with CUSTOM builtin_code has no custom_code. Registration failed."),
    "opcode_index": (_operator(opcode_index=9), "Missing registration for opcode_index 9"),
    "input": (_operator(inputs=[0, 99]), "Invalid tensor index 99 in node inputs. The subgraph has 3 tensors"),
    "omitted twice": (_operator(inputs=[0, -2]), "Invalid tensor index -2 in node inputs"),
    "output": (_operator(outputs=[3]), "Invalid tensor index 3 in node outputs"),
    "intermediate": (_operator(intermediates=[7]), "Invalid tensor index 7 in node intermediates"),
    "enum": (_operator(builtin_options=("AddOptions", {"fused_activation_function": 9})), "is 9, which is no Activ"),
    "graph inputs": (_main(inputs=[0, -1]), "Invalid tensor index -1 in graph inputs of subgraph 0"),
    "graph outputs": (_main(outputs=[77]), "Invalid tensor index 77 in graph outputs of subgraph 0"),
    "omitted output": (_main(outputs=[2, -1]), "Invalid tensor index -1 in graph outputs of subgraph 0"),
    "type": (_tensor(0, type=23), "Unsupported data type 23 in tensor"),
    "negative extent": (_tensor(0, shape=[-1, 3]), "Tensor 0 is invalidly specified in schema."),
    "negative int8": (_tensor(0, shape=[-1], type="INT8"), "BytesRequired number of elements overflowed."),
    "negative and zero": (_tensor(0, shape=[0, -1]), "BytesRequired number of elements overflowed."),
    "too many elements": (_tensor(0, shape=[2**31 - 1] * 3), "BytesRequired number of elements overflowed."),
    "short constant": (_buffer(data=bytes(20)), "needs 24 bytes, its buffer has 20. Tensor 1 is invalidly specified"),
    "constant without bytes": (_buffer(data=b""), "needs 24 bytes, its buffer has 0. Tensor 1 is invalidly specified"),
    "buffer": (_tensor(1, buffer=9), "Tensor 1 specifies out of range buffer 9 (only 2 buffers)"),
    "variable": (_tensor(1, is_variable=True), "Tensor 1 is a variable tensor with buffer"),
    "outside": (_buffer(offset=10**6, size=24), "Constant buffer 1 specified an out of range offset"),
    "outside, wrapping": (_buffer(offset=2**64 - 8, size=24), "Constant buffer 1 specified an out of range offset"),
    "outside, size wraps": (_buffer(offset=16, size=2**64 - 8), "Constant buffer 1 specified an out of range offset"),
    "outside, empty": (_buffer(offset=16, size=0), "required_bytes <= bytes was not true"),
    "custom options": (_operator(large_custom_options_offset=9999, large_custom_options_size=1), "out of range offset"),
    "no zero point": (_quantized(scale=[1.0]), "Quantization parameters has non-null scale but null zero_point."),
    "zero points": (
        _quantized(scale=[1.0], zero_point=[]),
        "QuantizationParam has 0 zero_point values and 1 scale values. Must have same number.",
    ),
    "dimension": (
        _quantized(scale=[1.0], zero_point=[0], quantized_dimension=5),
        "quantized_dimension must be in range [0, 2). Was 5. Tensor 0 has invalid quantization parameters.",
    ),
    "scales": (
        _quantized(scale=[1.0] * 2, zero_point=[0] * 2, quantized_dimension=1),
        "num_scales must be 1 for per-layer quantization, or 3 for per-axis quantization, but got 2.",
    ),
    "block scales": (
        _quantized(details=("BlockwiseQuantization", {"scales": 3})),
        "BlockwiseQuantization.scales names tensor 3 of 3",
    ),
    "axes": (
        _quantized(details=("MultiAxisQuantization", {"scales": 1, "quantized_dimensions": [0, 2]})),
        "quantized_dimensions must be in range [0, 2). They are [0, 2].",
    ),
    "no axes": (_quantized(details=("MultiAxisQuantization", {"scales": 1})), "They are []."),
    "key": (_signature(), "Missing exported method name for SignatureDef"),
    "signature's subgraph": (_signature(signature_key="k", subgraph_index=1), "Invalid subgraph index 1 exceeds"),
    "signature's tensor": (
        _signature(signature_key="k", inputs=[{"name": "a", "tensor_index": 3}]),
        "Invalid tensor index 3 exceeds max tensor index 3 in the inputs of signature 'k' ('a')",
    ),
    "signature's name": (_signature(signature_key="k", outputs=[{}]), "without a name in the outputs of signature 'k'"),
    "metadata": (lambda tree: tree.update(metadata=[{"name": "m", "buffer": 7}]), "out of range buffer 7 (only 2)"),
    "order": (_sparse(traversal_order=[0, 7]), "traversal order [0, 7]"),
    "blocks": (_sparse(traversal_order=[0, 1, 2], dim_metadata=[{}, {}, {}], block_map=[5]), "block map [5]"),
    "dense size": (_sparse(dim_metadata=[{"dense_size": 9}, {"dense_size": 3}]), "9 entries for an extent of 2"),
    "segments": (_csr([0, 1], [0]), "segments missing or not 3"),
    "descending": (_csr([0, 2, 1], [0]), "segments that do not ascend"),
    "sparse index": (_csr([0, 1, 2], [0, 3]), "indices outside 0 to 2"),
    "stored values": (_csr([0, 3, 6], [0, 1, 2] * 2), None),
    "sparse, short": (
        lambda tree: (_csr([0, 3, 6], [0, 1, 2] * 2)(tree), _buffer(data=bytes(20))(tree)),
        "6 stored values in 20 bytes",
    ),
    "texts": (
        lambda tree: (_tensor(1, type="STRING")(tree), _buffer(data=bytes(24))(tree)),
        "should hold 6 strings; it holds 0",
    ),
    "text offsets": (
        lambda tree: (
            _tensor(1, type="STRING", shape=[1])(tree),
            _buffer(data=np.array([1, 12, 99], "<i4").tobytes())(tree),
        ),
        "should hold 1 strings; its offsets are not inside",
    ),
}
ACCEPTED = {
    "nothing changed": lambda tree: None,
    "empty subgraph": _main(tensors=[], inputs=[], outputs=[], operators=[]),
    "omitted input and output": _operator(inputs=[0, -1], outputs=[-1]),
    "long constant": _buffer(data=bytes(100)),
    "empty constant": lambda tree: (_tensor(1, shape=[0, 3])(tree), _buffer(data=b"")(tree)),
    "text with unknown extent": _tensor(0, type="STRING", shape=[-1]),
    "min and max only": _quantized(min=[0.0], max=[1.0]),
    "any dimension of a scalar": _tensor(
        0, shape=[], quantization={"scale": [1.0], "zero_point": [0], "quantized_dimension": 5}
    ),
    "several axes": _quantized(details=("MultiAxisQuantization", {"scales": 1, "quantized_dimensions": [1, 0]})),
    "wrong options": _operator(builtin_options=("PackOptions", {"axis": 7})),
    "old code": _code(deprecated_builtin_code=-1),
}


@pytest.mark.parametrize("name", [name for name, (_, text) in REFUSED.items() if text])
def test_inconsistent_models_are_refused(tree, name):
    edit, text = REFUSED[name]
    changed = copy.deepcopy(tree)
    edit(changed)
    with pytest.raises(ModelError, match=re.escape(text)):
        Model.from_buffer(write(changed))


@pytest.mark.parametrize("name", [*ACCEPTED, "stored values"])
def test_unusual_models_are_accepted(tree, name):
    changed = copy.deepcopy(tree)
    (ACCEPTED.get(name) or REFUSED[name][0])(changed)
    assert len(Model.from_buffer(write(changed)).subgraphs) == 1


@pytest.mark.bench
@pytest.mark.parametrize("name", ACCEPTED)
def test_the_original_accepts_the_unusual_models(tree, name):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    changed = copy.deepcopy(tree)
    ACCEPTED[name](changed)
    accepted = interpreter.Interpreter(model_content=write(changed))
    assert [d["name"] for d in accepted.get_tensor_details()] == [t["name"] for t in changed["subgraphs"][0]["tensors"]]


def test_messages_name_the_tensor_and_errors_are_of_both_kinds(tree):
    changed = copy.deepcopy(tree)
    _tensor(2, shape=[-1])(changed)
    with pytest.raises(ModelError) as caught:
        Model.from_buffer(write(changed))
    assert "tensor 2 ('y') of subgraph 0" in str(caught.value)
    assert isinstance(caught.value, LiteJitError)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, RuntimeError)


def test_texts_with_unknown_extents_show_them_in_the_signature(tree):
    changed = copy.deepcopy(tree)
    ACCEPTED["text with unknown extent"](changed)
    tensor = Model.from_buffer(write(changed)).subgraphs[0].tensors[0]
    assert (tensor.shape, tensor.shape_signature) == ((1,), (-1,))


def _calling(*calls):
    """A model of as many subgraphs as named, with WHILE operators between them."""
    builder = ModelBuilder()
    graphs = [builder.subgraph(str(number)) for number in range(4)]
    for caller, condition, body in calls:
        graphs[caller].add("WHILE", [], [], cond_subgraph_index=condition, body_subgraph_index=body)
    return builder.build()


def test_calls_of_subgraphs():
    assert len(Model.from_buffer(_calling((0, 1, 2), (2, 1, 3), (0, 3, 3))).subgraphs) == 4
    with pytest.raises(ModelError, match=r"Invalid subgraph index 4 exceeds max subgraph index 4.*WhileOptions.body"):
        Model.from_buffer(_calling((0, 1, 2), (1, 2, 4)))
    with pytest.raises(ModelError, match="node 1 of subgraph 0"):
        Model.from_buffer(_calling((0, 1, 2), (0, -1, 2)))
    for calls in ([(0, 1, 0)], [(0, 1, 2), (2, 3, 1), (1, 2, 3)], [(3, 1, 2), (2, 1, 3)]):
        with pytest.raises(ModelError, match="calls itself"):
            Model.from_buffer(_calling(*calls))


def test_a_long_chain_of_calls_is_no_recursion():
    builder = ModelBuilder()
    graphs = [builder.subgraph() for _ in range(3000)]
    for graph, callee in pairwise(graphs):
        graph.add("CALL_ONCE", [], [], init_subgraph_index=callee)
    assert len(Model.from_buffer(builder.build()).subgraphs) == 3000


def test_branches_of_case_are_checked():
    builder = ModelBuilder()
    first, second = builder.subgraph(), builder.subgraph()
    first.add("STABLEHLO_CASE", [], [], branch_subgraph_indices=[1, 1])
    first.add("STABLEHLO_CASE", [], [], branch_subgraph_indices=[second, 5])
    with pytest.raises(ModelError, match=r"Invalid subgraph index 5 .*branch_subgraph_indices of node 1 of subgraph 0"):
        Model.from_buffer(builder.build())


def test_sparse_constants_of_the_builder_pass(rng):
    values = rng.integers(-1, 2, (6, 8)).astype("f")
    blocked = Sparse(["DENSE", "SPARSE_CSR", "DENSE", "DENSE"], None, (0, 1), (2, 4))
    for sparse in (Sparse(["SPARSE_CSR", "DENSE"]), blocked):
        builder = ModelBuilder()
        builder.subgraph().constant("w", values, sparsity=sparse)
        assert Model.from_buffer(builder.build()).subgraphs[0].tensors[0].sparsity is not None
