"""The demo: its training, its two models, and what LiteRT makes of them."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litejit.demo import MODELS, digits, model_input
from litejit.demo.convert import activation_quant, build, calibrate, quantise
from litejit.demo.train import loss_and_gradients, new_weights, patches, pool, train, unpatch, unpool
from litejit.interpreter import Interpreter


@pytest.mark.parametrize("name", list(MODELS))
def test_models_read_unseen_digits(name: str) -> None:
    images, labels = digits()
    assert images.shape == (360, 8, 8) and images.dtype == np.uint8 and images.max() == 16 and set(labels) == set(range(10))
    interpreter = Interpreter(str(MODELS[name]))
    interpreter.allocate_tensors()
    detail, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    pixels = model_input(images, detail)
    assert pixels.dtype == detail["dtype"] and pixels.shape == (360, 8, 8, 1)
    one_by_one = []
    for image in pixels:
        interpreter.set_tensor(detail["index"], image[None])
        interpreter.invoke()
        one_by_one.append(interpreter.get_tensor(out)[0])
    assert np.mean(np.argmax(one_by_one, axis=1) == labels) > 0.95
    batch = interpreter.run(pixels)["digit"]
    assert batch.shape == (360, 10)
    if name == "int8":
        assert np.array_equal(batch, one_by_one)
    else:
        assert np.abs(batch - one_by_one).max() < 1e-5


def test_gradients_against_differences() -> None:
    rng = np.random.default_rng(1)
    weights = {k: v.astype(np.float64) for k, v in new_weights(rng).items()}
    for name in ("bias1", "bias2", "bias3"):
        weights[name] += rng.uniform(-0.3, 0.3, weights[name].shape)
    x, labels = rng.uniform(0, 1, (3, 8, 8, 1)), np.array([1, 7, 0])
    loss, grads = loss_and_gradients(weights, x, labels)
    assert loss > 0
    for name, w in weights.items():
        assert grads[name].shape == w.shape
        for _ in range(12):
            at, step = tuple(rng.integers(0, w.shape)), 1e-6
            kept, ends = w[at], []
            for w[at] in (kept + step, kept - step):
                ends.append(loss_and_gradients(weights, x, labels)[0])
            w[at] = kept
            assert grads[name][at] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-7), (name, at)


@pytest.mark.parametrize(("forward", "backward", "shape"), [
    (patches, lambda g, x: unpatch(g, x.shape[-1]), (2, 4, 4, 3)),
    (lambda x: pool(x)[0], lambda g, x: unpool(g, pool(x)[1]), (2, 4, 4, 3))])
def test_transposes(forward: Any, backward: Any, shape: tuple[int, ...], rng: np.random.Generator) -> None:
    x = rng.standard_normal(shape)
    y = forward(x)
    g = rng.standard_normal(y.shape)
    assert np.vdot(y, g) == pytest.approx(np.vdot(x, backward(g, x)))


def test_training_learns() -> None:
    images, labels = digits()
    x = (images[:120].astype(np.float32) / 16)[..., None]
    before, _ = loss_and_gradients(new_weights(np.random.default_rng(0)), x, labels[:120])
    weights = train(x, labels[:120], epochs=8, batch=16)
    after, _ = loss_and_gradients(weights, x, labels[:120])
    assert after < 0.3 * before and all(w.dtype == np.float32 for w in weights.values())


def test_quantising_loses_little(rng: np.random.Generator) -> None:
    images, _ = digits()
    x = (images[:64].astype(np.float32) / 16)[..., None]
    weights = new_weights(rng)
    plain = build(weights)
    ranges = calibrate(plain, x)
    assert ranges["image"] == (0.0, 1.0) and ranges["conv1"][0] == 0.0 and set(ranges) >= {"logits", "pool2"}
    real = Interpreter(model_content=plain).run(x)["digit"]
    integer = Interpreter(model_content=quantise(weights, ranges))
    codes = integer.run(model_input(images[:64], integer.get_input_details()[0]))["digit"]
    assert np.abs((codes.astype(np.float32) + 128) / 256 - real).max() < 0.1


def test_activation_ranges_hold_zero() -> None:
    for low, high in ((0.5, 2.0), (-3.0, -1.0), (0.0, 0.0), (-1.0, 3.0)):
        quant = activation_quant(low, high)
        assert -128 <= int(np.ravel(quant.zero_point)[0]) <= 127 and float(np.ravel(quant.scale)[0]) > 0


@pytest.mark.bench
@pytest.mark.parametrize("name", list(MODELS))
def test_litert_agrees(name: str) -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    images, _ = digits()
    ours, theirs = Interpreter(str(MODELS[name])), litert.Interpreter(str(MODELS[name]))
    results: list[list[np.ndarray]] = []
    for interpreter in (ours, theirs):
        interpreter.allocate_tensors()
        detail, out = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
        results.append([])
        for image in model_input(images, detail):
            interpreter.set_tensor(detail["index"], image[None])
            interpreter.invoke()
            results[-1].append(interpreter.get_tensor(out))
    a, b = np.array(results[0]), np.array(results[1])
    if name == "int8":
        assert np.array_equal(a, b)
    else:
        assert np.abs(a - b).max() <= 1e-5
