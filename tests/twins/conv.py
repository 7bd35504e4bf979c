"""Convolutions written to be read: exact sums tap by tap, and the two ways of rounding them to codes."""
from __future__ import annotations

import numpy as np


def out_size(size: int, taps: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """(outputs, padding in front) along an axis."""
    reach = (taps - 1) * dilation + 1
    if padding == "VALID":
        return (size - reach) // stride + 1, 0
    outputs = -(-size // stride)
    return outputs, max(0, (outputs - 1) * stride + reach - size) // 2


def taps(x: np.ndarray, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int],
         padding: str) -> np.ndarray:
    """[N, OH, OW, kh, kw, C]: what each output pixel sees, zeros outside of the image."""
    (kh, kw), (n, h, w, c) = kernel, x.shape
    (oh, top), (ow, left) = (out_size(*a, padding) for a in zip((h, w), kernel, stride, dilation))
    seen = np.zeros((n, oh, ow, kh, kw, c), x.dtype)
    for oy, ox, ky, kx in np.ndindex(oh, ow, kh, kw):
        y, z = oy * stride[0] - top + ky * dilation[0], ox * stride[1] - left + kx * dilation[1]
        if 0 <= y < h and 0 <= z < w:
            seen[:, oy, ox, ky, kx] = x[:, y, z]
    return seen


def conv_sums(x: np.ndarray, w: np.ndarray, stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1),
              padding: str = "SAME") -> np.ndarray:
    """CONV_2D without bias: x [N, H, W, C], w [O, kh, kw, C / groups]; float64 or int64."""
    wide = np.float64 if x.dtype.kind == "f" else np.int64
    seen, o, depth = taps(x.astype(wide), w.shape[1:3], stride, dilation, padding), w.shape[0], w.shape[3]
    groups = x.shape[3] // depth
    parts = []
    for g in range(groups):
        own = w[g * o // groups:(g + 1) * o // groups].astype(wide)
        parts.append(np.einsum("nyxabc,oabc->nyxo", seen[..., g * depth:(g + 1) * depth], own))
    return np.concatenate(parts, axis=-1)


def depthwise_sums(x: np.ndarray, w: np.ndarray, stride: tuple[int, int] = (1, 1), dilation: tuple[int, int] = (1, 1),
                   padding: str = "SAME") -> np.ndarray:
    """DEPTHWISE_CONV_2D without bias: w [1, kh, kw, C * m]; float64 or int64."""
    wide = np.float64 if x.dtype.kind == "f" else np.int64
    seen = taps(x.astype(wide), w.shape[1:3], stride, dilation, padding)
    return np.einsum("nyxabc,abc->nyxc", np.repeat(seen, w.shape[3] // x.shape[3], axis=-1), w[0].astype(wide))


def nearest_codes(sums: np.ndarray, scale: np.ndarray, zero_point: int, bounds: tuple[int, int]) -> np.ndarray:
    """XNNPACK: a float32 product, rounded to the nearest even number."""
    scaled = np.rint(sums.astype(np.float32) * scale.astype(np.float32)).astype(np.int64)
    return np.clip(scaled + zero_point, *bounds)


def fixed_codes(sums: np.ndarray, scale: np.ndarray, zero_point: int, bounds: tuple[int, int]) -> np.ndarray:
    """LiteRT's reference: a 31-bit multiplier, rounded half up, then a shift, rounded half away from zero."""
    out = np.empty(sums.shape, np.int64)
    for channel, real in enumerate(np.broadcast_to(scale, sums.shape[-1:])):
        mantissa, exponent = np.frexp(np.float64(real))
        multiplier = int(np.floor(mantissa * 2**31 + 0.5))
        high = ((sums[..., channel] << max(int(exponent), 0)) * multiplier + (1 << 30)) >> 31
        right = max(-int(exponent), 0)
        half = (1 << right) >> 1
        out[..., channel] = np.sign(high) * ((np.abs(high) + half) >> right)
    return np.clip(out + zero_point, *bounds)
