"""A small convolutional network in NumPy: forward, backward, Adam."""
from __future__ import annotations

import numpy as np

Weights = dict[str, np.ndarray]
FILTERS, CLASSES = (16, 32), 10


def new_weights(rng: np.random.Generator) -> Weights:
    """Random weights: two 3x3 convolutions, one dense layer; layouts as TFLite has them (output channel first)."""
    a, b = FILTERS

    def normal(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    return {"conv1": normal(a, 3, 3, 1), "bias1": np.zeros(a, np.float32), "conv2": normal(b, 3, 3, a),
            "bias2": np.zeros(b, np.float32), "dense": normal(CLASSES, 4 * b), "bias3": np.zeros(CLASSES, np.float32)}


def patches(x: np.ndarray) -> np.ndarray:
    """3x3 neighbourhoods with zero padding: [n, h, w, c] -> [n, h, w, 9 c]."""
    h, w = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return np.concatenate([padded[:, i:i + h, j:j + w] for i in range(3) for j in range(3)], axis=-1)


def unpatch(g: np.ndarray, c: int) -> np.ndarray:
    """The transpose of `patches`."""
    n, h, w, _ = g.shape
    padded = np.zeros((n, h + 2, w + 2, c), g.dtype)
    for k in range(9):
        i, j = divmod(k, 3)
        padded[:, i:i + h, j:j + w] += g[..., k * c:(k + 1) * c]
    return padded[:, 1:-1, 1:-1]


def pool(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2x2 maximum, and where it was: [n, h, w, c] -> [n, h/2, w/2, c], [n, h/2, w/2, 4, c]."""
    n, h, w, c = x.shape
    cells = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(n, h // 2, w // 2, 4, c)
    top = cells.max(axis=3)
    return top, cells == top[:, :, :, None]


def unpool(g: np.ndarray, where: np.ndarray) -> np.ndarray:
    """The transpose of `pool`."""
    n, h, w, _, c = where.shape
    cells = (where * g[:, :, :, None]).reshape(n, h, w, 2, 2, c).transpose(0, 1, 3, 2, 4, 5)
    return cells.reshape(n, 2 * h, 2 * w, c)


def loss_and_gradients(weights: Weights, x: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    """Mean cross entropy and its gradient in every weight."""
    p1 = patches(x)
    y1 = np.maximum(p1 @ weights["conv1"].reshape(FILTERS[0], -1).T + weights["bias1"], 0)
    q1, where1 = pool(y1)
    p2 = patches(q1)
    y2 = np.maximum(p2 @ weights["conv2"].reshape(FILTERS[1], -1).T + weights["bias2"], 0)
    q2, where2 = pool(y2)
    flat = q2.reshape(len(x), -1)
    logits = flat @ weights["dense"].T + weights["bias3"]
    shifted = logits - logits.max(axis=1, keepdims=True)
    chance = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    loss = float(-np.log(chance[np.arange(len(x)), labels] + 1e-12).mean())
    g = chance
    g[np.arange(len(x)), labels] -= 1
    g /= len(x)
    grads = {"dense": g.T @ flat, "bias3": g.sum(0)}
    g2 = unpool((g @ weights["dense"]).reshape(q2.shape), where2) * (y2 > 0)
    grads["conv2"] = (g2.reshape(-1, FILTERS[1]).T @ p2.reshape(-1, p2.shape[-1])).reshape(weights["conv2"].shape)
    grads["bias2"] = g2.sum((0, 1, 2))
    g1 = unpool(unpatch(g2 @ weights["conv2"].reshape(FILTERS[1], -1), FILTERS[0]), where1) * (y1 > 0)
    grads["conv1"] = (g1.reshape(-1, FILTERS[0]).T @ p1.reshape(-1, 9)).reshape(weights["conv1"].shape)
    grads["bias1"] = g1.sum((0, 1, 2))
    return loss, grads


def train(x: np.ndarray, labels: np.ndarray, epochs: int = 40, batch: int = 64, rate: float = 2e-3,
          seed: int = 0) -> Weights:
    """Weights trained by Adam (Kingma and Ba, 2015) on images [n, 8, 8, 1] and labels [n]."""
    rng = np.random.default_rng(seed)
    weights = new_weights(rng)
    mean = {k: np.zeros_like(v) for k, v in weights.items()}
    square = {k: np.zeros_like(v) for k, v in weights.items()}
    step = 0
    for epoch in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            chosen = order[start:start + batch]
            _, grads = loss_and_gradients(weights, x[chosen], labels[chosen])
            step += 1
            for name, g in grads.items():
                mean[name] += 0.1 * (g - mean[name])
                square[name] += 0.001 * (g * g - square[name])
                slope = rate * 0.95 ** epoch * np.sqrt(1 - 0.999 ** step) / (1 - 0.9 ** step)
                weights[name] -= (slope * mean[name] / (np.sqrt(square[name]) + 1e-7)).astype(np.float32)
    return weights
