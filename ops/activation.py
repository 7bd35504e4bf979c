"""RELU, RELU6, RELU_N1_TO_1, RELU_0_TO_1, LEAKY_RELU, ELU, LOGISTIC, TANH, HARD_SWISH, GELU (PRELU: prelu.py)."""
from __future__ import annotations

import math
from functools import partial

import numpy as np

from litejit.compiler import device
from litejit.ops import prelu
from litejit.ops.activation_quantised import (
    elu_codes,
    gelu_codes,
    hard_swish_codes,
    leaky_relu_codes,
    logistic_codes,
    relu_codes,
    tanh_codes,
)
from litejit.ops.base import Operator, Step, Target
from litejit.ops.elementwise import Elementwise, clamp, float_map, map_step
from litejit.ops.vector_math import elu_f32, gelu_f32, gelu_tanh_f32, hard_swish_f32, logistic_f32, swish_f32, tanh_f32
from litejit.planner.graph import QUANTISED, Node

SMALLEST_RATIO, LARGEST_RATIO = 2.0 ** -8, 2.0 ** 7       # of scales, in XNNPACK's 8-bit rescaling


class LeakyRelu(Elementwise):
    """LEAKY_RELU."""

    def delegates(self, node: Node) -> bool:
        x, y, alpha = node[0], node.out, float(node.options.alpha)
        if x.type in ("f32", "f16"):
            return math.isfinite(alpha) and alpha != 0
        if x.type not in self.delegated or alpha == 0 or not math.isfinite(alpha):
            return False
        ratio = float(x.scale / y.scale)
        return all(SMALLEST_RATIO <= r <= LARGEST_RATIO for r in (ratio, abs(ratio * alpha)))


class Gelu(Elementwise):
    """GELU: exact, or approximated by tanh."""

    def steps(self, node: Node, target: Target) -> list[Step]:
        if node[0].type in QUANTISED or not node.options.approximate:
            return super().steps(node, target)
        return [map_step(node, float_map("gelu_tanh", gelu_tanh_f32, node[0].type), node[0], node.out)]


@device
def leaky_relu(x, alpha, unused):
    """x, or alpha * x below 0."""
    return x if x > 0 else x * alpha


def _relu(name: str, types: tuple[str, ...], low: float, high: float, delegated: tuple[str, ...]) -> Elementwise:
    """An operator that clamps to [low, high]; all of them share one kernel per type."""
    return Elementwise("clamp", types, clamp, delegated=delegated, parameters=lambda node: (low, high),
                       table=partial(relu_codes, low=low, high=high),
                       numpy=lambda x, low, high: np.clip(x, low, high))


_F, _Q8, _HALVES = ("f32", "f16"), ("i8", "u8"), ("f32", "f16", "bf16")
OPERATORS: dict[str, Operator] = {
    "RELU": _relu("relu", (*_F, *_Q8, "i16"), 0.0, math.inf, _F),
    "RELU6": _relu("relu6", (*_F, *_Q8, "i16"), 0.0, 6.0, _F),
    "RELU_N1_TO_1": _relu("relu_n1_to_1", (*_F, *_Q8), -1.0, 1.0, _F),
    "RELU_0_TO_1": _relu("relu_0_to_1", ("f32", *_Q8), 0.0, 1.0, ()),
    "LEAKY_RELU": LeakyRelu("leaky_relu", (*_F, *_Q8, "i16"), leaky_relu, delegated=(*_F, *_Q8),
                            parameters=lambda node: (float(node.options.alpha), 0.0), table=leaky_relu_codes),
    "ELU": Elementwise("elu", (*_F, "i8"), elu_f32, delegated=(*_F, "i8"), table=elu_codes),
    "LOGISTIC": Elementwise("logistic", (*_HALVES, *_Q8, "i16"), logistic_f32, delegated=(*_F, *_Q8),
                            table=logistic_codes),
    "TANH": Elementwise("tanh", (*_HALVES, *_Q8, "i16"), tanh_f32, delegated=(*_F, *_Q8), table=tanh_codes,
                        numpy=np.tanh),
    "HARD_SWISH": Elementwise("hard_swish", (*_F, *_Q8), hard_swish_f32, table=hard_swish_codes),
    "GELU": Gelu("gelu", (*_F, *_Q8, "i16"), gelu_f32, table=gelu_codes),
    **prelu.OPERATORS,
}
FUSED: dict[str, Operator] = {"SWISH": Elementwise("swish", ("f32",), swish_f32)}      # of the planner's rules
