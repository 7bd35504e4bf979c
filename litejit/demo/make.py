"""Trains the demo model and writes its files: `python -m litejit.demo.make` (needs scikit-learn for the digits)."""
from __future__ import annotations

import numpy as np

from litejit.demo import FOLDER, MODELS, model_input
from litejit.demo.convert import build, calibrate, quantise
from litejit.demo.train import train
from litejit.interpreter import Interpreter

HELD_OUT = 360


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels to train on, and held out, always the same."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(1998).permutation(len(data.images))
    images, labels = data.images[order].astype(np.uint8), data.target[order].astype(np.int64)
    return images[HELD_OUT:], labels[HELD_OUT:], images[:HELD_OUT], labels[:HELD_OUT]


def accuracy(content: bytes, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of the images that the model gets right."""
    interpreter = Interpreter(model_content=content)
    values = model_input(images, interpreter.get_input_details()[0])
    return float(np.mean(interpreter.run(values)["digit"].argmax(1) == labels))


def main() -> None:
    """Train, convert, quantise, measure, write."""
    images, labels, unseen, truth = split()
    x = (images.astype(np.float32) / 16)[..., None]
    weights = train(x, labels)
    plain = build(weights)
    integer = quantise(weights, calibrate(plain, x[:500]))
    for name, content in (("float", plain), ("int8", integer)):
        MODELS[name].write_bytes(content)
        share = 100 * accuracy(content, unseen, truth)
        print(f"{MODELS[name].name}: {len(content)} bytes, {share:.1f} % of {len(truth)} unseen digits")
    np.savez_compressed(FOLDER / "digits.npz", images=unseen, labels=truth.astype(np.uint8))


if __name__ == "__main__":
    main()
