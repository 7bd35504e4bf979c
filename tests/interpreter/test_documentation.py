"""The examples of TensorFlow Lite's documentation, with one import changed."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import litejit.interpreter as tflite  # was: import tflite_runtime.interpreter as tflite
from litejit.demo import MODELS, digits
from litejit.schema.builder import ModelBuilder


def image_model() -> bytes:
    """ADD of a constant over an image, then the identity, as the converter's first example makes it."""
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    image = graph.input("img", (1, 64, 64, 3))
    values = graph.add("ADD", [image, graph.constant("const", np.array([1, 2, 3], np.float32))], ("val", (1, 64, 64, 3)))
    graph.outputs(graph.add("RESHAPE", [values, graph.constant("shape", np.array([1, 64, 64, 3], np.int32))],
                            ("out", (1, 64, 64, 3)), new_shape=[1, 64, 64, 3]))
    return builder.build()


def two_signatures() -> bytes:
    """`add` and `multiply` of x and y; the second in a subgraph of its own."""
    builder = ModelBuilder()
    for key, op, name in (("add", "ADD", "sum"), ("multiply", "MUL", "product")):
        graph = builder.subgraph(key)
        x, y = graph.input(f"{key}_x:0", (-1,)), graph.input(f"{key}_y:0", (-1,))
        result = graph.add(op, [x, y], (f"StatefulPartitionedCall_{key}:0", (-1,)))
        graph.outputs(result)
        builder.signature(key, graph, {"x": x, "y": y}, {name: result})
    return builder.build()


def division() -> bytes:
    """quotient and remainder of int64 x and y."""
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x, y = graph.input("x", (-1,), "INT64"), graph.input("y", (-1,), "INT64")
    reals = [graph.add("CAST", [v], (f"real_{v.name}", (-1,)), in_data_type="INT64", out_data_type="FLOAT32") for v in (x, y)]
    quotient = graph.add("FLOOR_DIV", reals, ("quotient", (-1,)))
    remainder = graph.add("FLOOR_MOD", reals, ("remainder", (-1,)))
    graph.outputs(quotient, remainder)
    builder.signature("serving_default", graph, {"x": x, "y": y}, {"quotient": quotient, "remainder": remainder})
    return builder.build()


@pytest.mark.parametrize("source", ["file", "content"])
def test_load_and_run(source: str, tmp_path: Path) -> None:
    tflite_model = image_model()
    path = tmp_path / "converted_model.tflite"
    path.write_bytes(tflite_model)
    # Load the TFLite model and allocate tensors.
    interpreter = (tflite.Interpreter(model_path=str(path)) if source == "file"
                   else tflite.Interpreter(model_content=tflite_model))
    interpreter.allocate_tensors()

    # Get input and output tensors.
    input_details = interpreter.get_input_details()
    output_details = interpreter.get_output_details()

    # Test model on random input data.
    input_shape = input_details[0]['shape']
    input_data = np.array(np.random.random_sample(input_shape), dtype=np.float32)
    interpreter.set_tensor(input_details[0]['index'], input_data)

    interpreter.invoke()

    # The function `get_tensor()` returns a copy of the tensor data.
    # Use `tensor()` in order to get a pointer to the tensor.
    output_data = interpreter.get_tensor(output_details[0]['index'])
    assert np.array_equal(output_data, input_data + np.array([1, 2, 3], np.float32))


def test_signature_runner() -> None:
    interpreter = tflite.Interpreter(model_content=division())

    # There is only 1 signature defined in the model,
    # so it will return it by default.
    # If there are multiple signatures then we can pass the name.
    my_signature = interpreter.get_signature_runner()

    # my_signature is callable with input as arguments.
    output = my_signature(x=np.array([7], dtype=np.int64), y=np.array([2], dtype=np.int64))
    # 'output' is dictionary with all outputs from the inference.
    assert output == {"quotient": [3], "remainder": [1]}
    assert list(output) == ["quotient", "remainder"] and output["quotient"].dtype == np.float32
    assert interpreter.get_signature_list() == {
        "serving_default": {"inputs": ["x", "y"], "outputs": ["quotient", "remainder"]}}


def test_signature_by_key() -> None:
    interpreter = tflite.Interpreter(model_content=two_signatures())
    signatures = interpreter.get_signature_list()
    assert signatures == {'add': {'inputs': ['x', 'y'], 'outputs': ['sum']},
                          'multiply': {'inputs': ['x', 'y'], 'outputs': ['product']}}
    add_fn, multiply_fn = interpreter.get_signature_runner('add'), interpreter.get_signature_runner('multiply')
    x, y = np.array([1, 2, 3], np.float32), np.array([4, 5, 6], np.float32)
    assert add_fn(x=x, y=y)['sum'].tolist() == [5, 7, 9]
    assert multiply_fn(x=x, y=y)['product'].tolist() == [4, 10, 18]
    details = multiply_fn.get_input_details()
    assert sorted(details) == ['x', 'y'] and details['x']['name'] == 'multiply_x:0'
    assert multiply_fn.get_output_details()['product']['dtype'] == np.float32
    with pytest.raises(ValueError, match="model has 2 Signatures"):
        interpreter.get_signature_runner()
    with pytest.raises(ValueError, match="Invalid signature_key provided"):
        interpreter.get_signature_runner('divide')


def addition() -> bytes:
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x = graph.input("x", (2, 2))
    graph.outputs(graph.add("ADD", [x, graph.constant("one", np.float32(1))], ("y", (2, 2))))
    return builder.build()


def test_tensor_views_used_rightly() -> None:
    interpreter = tflite.Interpreter(model_content=addition())
    interpreter.allocate_tensors()
    input = interpreter.tensor(interpreter.get_input_details()[0]["index"])
    output = interpreter.tensor(interpreter.get_output_details()[0]["index"])
    for i in range(10):
        input().fill(3. + i)
        interpreter.invoke()
        assert np.array_equal(output(), np.full((2, 2), 4. + i))


def test_tensor_views_used_wrongly() -> None:
    interpreter = tflite.Interpreter(model_content=addition())
    interpreter.allocate_tensors()
    input = interpreter.tensor(interpreter.get_input_details()[0]["index"])()
    output = interpreter.tensor(interpreter.get_output_details()[0]["index"])()
    for call in (interpreter.allocate_tensors, interpreter.invoke):
        with pytest.raises(RuntimeError, match="at least 1 reference to internal data"):
            call()  # This will throw RuntimeError
    for _ in range(10):
        input.fill(3.)
        with pytest.raises(RuntimeError):
            interpreter.invoke()  # this will throw RuntimeError since input,output
    del input, output
    interpreter.invoke()


def test_resize_a_batch() -> None:
    interpreter = tflite.Interpreter(model_path=str(MODELS["float"]))
    num_test_images = 10
    test_images = (digits()[0][:num_test_images] / 16).astype(np.float32)[..., np.newaxis]
    interpreter.resize_tensor_input(0, [num_test_images, 8, 8, 1])
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, test_images)
    interpreter.invoke()
    predictions = interpreter.get_tensor(interpreter.get_output_details()[0]['index'])
    assert predictions.shape == (num_test_images, 10)
    assert np.allclose(predictions.sum(axis=1), 1, atol=1e-5)

    interpreter.resize_tensor_input(0, [2, 8, 8, 1], strict=True)
    interpreter.allocate_tensors()
    assert interpreter.get_input_details()[0]['shape'].tolist() == [2, 8, 8, 1]
    with pytest.raises(ValueError, match="ResizeInputTensorStrict only allows"):
        interpreter.resize_tensor_input(0, [2, 9, 9, 1], strict=True)


def test_several_inputs_and_outputs_by_index() -> None:
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    a, b, c = (graph.input(name, (2, 3)) for name in "abc")
    s = graph.add("SUB", [a, b], ("s", (2, 3)))
    graph.outputs(graph.add("MUL", [s, c], ("p", (2, 3))), s)
    interpreter = tflite.Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    input_details = interpreter.get_input_details()
    output_details = interpreter.get_output_details()
    data = [np.random.random_sample(detail['shape']).astype(detail['dtype']) for detail in input_details]
    for detail, value in zip(input_details, data):
        interpreter.set_tensor(detail['index'], value)
    interpreter.invoke()
    product = interpreter.get_tensor(output_details[0]['index'])
    difference = interpreter.get_tensor(output_details[1]['index'])
    assert np.array_equal(difference, data[0] - data[1])
    assert np.array_equal(product, difference * data[2])


def load_labels(filename: Any) -> list[str]:
    with open(filename) as f:
        return [line.strip() for line in f.readlines()]


@pytest.mark.parametrize("model_file", ["float", "int8"])
def test_label_image(model_file: str, tmp_path: Path) -> None:
    Image = pytest.importorskip("PIL.Image")
    images, truth = digits()
    Image.fromarray((images[0].astype(np.uint16) * 255 // 16).astype(np.uint8)).resize((80, 80)).save(tmp_path / "digit.png")
    (tmp_path / "labels.txt").write_text("".join(f"digit {k}\n" for k in range(10)))
    input_mean, input_std = 0., 255.

    interpreter = tflite.Interpreter(model_path=str(MODELS[model_file]), num_threads=None)
    interpreter.allocate_tensors()

    input_details = interpreter.get_input_details()
    output_details = interpreter.get_output_details()

    # check the type of the input tensor
    floating_model = input_details[0]['dtype'] == np.float32

    # NxHxWxC, H:1, W:2
    height = input_details[0]['shape'][1]
    width = input_details[0]['shape'][2]
    img = Image.open(tmp_path / "digit.png").resize((width, height))

    # add N dim
    input_data = np.expand_dims(img, axis=(0, 3))

    if floating_model:
        input_data = (np.float32(input_data) - input_mean) / input_std
    else:
        scale, zero_point = input_details[0]['quantization']
        input_data = np.int8(np.round(input_data / input_std / scale) + zero_point)

    interpreter.set_tensor(input_details[0]['index'], input_data.astype(input_details[0]['dtype']))
    interpreter.invoke()

    output_data = interpreter.get_tensor(output_details[0]['index'])
    results = np.squeeze(output_data)

    top_k = results.argsort()[-5:][::-1]
    labels = load_labels(tmp_path / "labels.txt")
    assert labels[top_k[0]] == f"digit {truth[0]}"
    if not floating_model:
        results = np.float32(results + 128.) / 256
    assert results[top_k[0]] > 0.5 and len(top_k) == 5


def test_reset_and_threads_and_resolver() -> None:
    interpreter = tflite.Interpreter(model_content=addition(), num_threads=2,
                                     experimental_op_resolver_type=tflite.OpResolverType.BUILTIN_REF,
                                     experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    interpreter.reset_all_variables()
    interpreter.set_tensor(0, np.zeros((2, 2), np.float32))
    interpreter.invoke()
    assert [d["name"] for d in interpreter.get_tensor_details()] == ["x", "one", "y"]


def test_delegates_fall_back() -> None:
    try:
        delegate = tflite.load_delegate('delegate.so')
    except ValueError:
        delegate = None
    interpreter = tflite.Interpreter(model_content=addition(), experimental_delegates=[delegate] if delegate else None)
    interpreter.allocate_tensors()
    assert delegate is None and interpreter.get_input_details()
