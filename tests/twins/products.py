"""Matrix products written plainly: accumulators in int64, one output rounding after the other."""
from __future__ import annotations

import numpy as np


def accumulate(x, w, x_zero=0, w_zero=0, bias=None):
    """x [..., m, k], w [..., n, k] -> int64 [..., m, n]."""
    acc = (x.astype(np.int64) - x_zero) @ np.swapaxes(w.astype(np.int64) - w_zero, -1, -2)
    return acc if bias is None else acc + bias


def double_codes(acc, scale, zero, low, high):
    """LiteRT's reference FULLY_CONNECTED: float64 product, halves away from zero."""
    v = acc * np.asarray(scale, np.float64)
    v = np.trunc(v) + np.where(np.abs(v - np.trunc(v)) >= 0.5, np.sign(v), 0)
    return np.clip(v + zero, low, high).astype(np.int64)


def sse_accumulate(x, w):
    """`accumulate` of int8 as LiteRT's SSE kernel has it: in whole blocks of 16, -128 times the magnitude of x."""
    body = x.shape[-1] - x.shape[-1] % 16
    turned = np.where(w[:, :body] == -128, 256, 0) @ np.minimum(x[..., :body].astype(np.int64), 0).T
    return accumulate(x, w) + turned.T


def scatter(x, w, stride, padding, out_hw):
    """TRANSPOSE_CONV by definition: x [n, h, w, c], w [o, kh, kw, c] -> [n, oh, ow, o] in the type of the sums."""
    (n, h, wide, _), (o, kh, kw, _), (oh, ow) = x.shape, w.shape, out_hw
    full = np.zeros((n, (h - 1) * stride[0] + kh, (wide - 1) * stride[1] + kw, o), np.result_type(x, w))
    for iy in range(h):
        for ix in range(wide):
            patch = np.einsum("nc,oyxc->nyxo", x[:, iy, ix], w)
            full[:, iy * stride[0]:iy * stride[0] + kh, ix * stride[1]:ix * stride[1] + kw] += patch
    top, left = (max(0, size - out) // 2 for size, out in ((full.shape[1], oh), (full.shape[2], ow)))
    top, left = (top, left) if padding == "SAME" else (0, 0)
    made = np.zeros((n, oh, ow, o), full.dtype)
    part = full[:, top:top + oh, left:left + ow]
    made[:, :part.shape[1], :part.shape[2]] = part
    return made


def lstm(x, weights, recurrent, biases, h, c, *, peephole=None, norm=None, projection=None, projection_bias=None,
         cell_clip=0.0, proj_clip=0.0):
    """x [t, b, i]; gates i, f, c, o (i may be None) -> (outputs [t, b, p], h, c), in float64."""
    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    def gate(g, xt, h, cell):
        z = xt @ weights[g].T + (h * recurrent[g] if recurrent[g].ndim == 1 else h @ recurrent[g].T)
        if peephole is not None and peephole[g] is not None:
            z = z + peephole[g] * cell
        if norm is not None:
            z = (z - z.mean(-1, keepdims=True)) / np.sqrt(z.var(-1, keepdims=True) + 1e-8) * norm[g]
        return z + biases[g]

    outs = []
    for xt in x.astype(np.float64):
        f = sigmoid(gate(1, xt, h, c))
        i = 1 - f if weights[0] is None else sigmoid(gate(0, xt, h, c))
        c = f * c + i * np.tanh(gate(2, xt, h, c))
        c = np.clip(c, -cell_clip, cell_clip) if cell_clip else c
        h = sigmoid(gate(3, xt, h, c)) * np.tanh(c)
        if projection is not None:
            h = h @ projection.T + (0 if projection_bias is None else projection_bias)
            h = np.clip(h, -proj_clip, proj_clip) if proj_clip else h
        outs.append(h)
    return np.stack(outs), h, c
