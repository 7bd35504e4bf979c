"""The demo: a small CNN for handwritten digits (UCI, 8x8 pixels), float and int8, and some digits it has never seen.

`python -m litejit.demo.make` trains it, quantises it by its own calibration and writes the files of this folder. The
digits are 360 of the 1797 in scikit-learn, from "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak
(UCI Machine Learning Repository, 1998, CC BY 4.0); the model was trained on the others.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
MODELS = {"float": FOLDER / "digits_float.tflite", "int8": FOLDER / "digits_int8.tflite"}


def digits() -> tuple[np.ndarray, np.ndarray]:
    """The held-out digits: images [n, 8, 8] uint8 of 0..16, and labels [n]."""
    with np.load(FOLDER / "digits.npz") as data:
        return data["images"], data["labels"]


def model_input(images: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Images as the model of `detail` (its input's details) takes them: float32 0..1, or quantised, [n, 8, 8, 1]."""
    real: np.ndarray = (images.astype(np.float32) / np.float32(16))[..., None]
    if np.dtype(detail["dtype"]) == np.float32:
        return real
    scale, zero_point = detail["quantization"]
    codes: np.ndarray = np.clip(np.rint(real / np.float32(scale)) + zero_point, -128, 127).astype(np.int8)
    return codes
