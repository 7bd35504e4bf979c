"""The operator table: code, name, versions, and the file of ops/ that has it. Files are imported when a model needs them."""
from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from litejit.ops.base import Operator


class Row(NamedTuple):
    """An operator: TFLite's code, the inclusive range of versions, the module of ops/ that exports it in OPERATORS."""

    code: int
    versions: tuple[int, int]
    module: str


TABLE: dict[str, Row] = {
    # convolutions and matrix products
    "CONV_2D": Row(3, (1, 8), "conv"),
    "DEPTHWISE_CONV_2D": Row(4, (1, 7), "depthwise"),
    "TRANSPOSE_CONV": Row(67, (1, 5), "transpose_conv"),
    "FULLY_CONNECTED": Row(9, (1, 14), "fully_connected"),
    "BATCH_MATMUL": Row(126, (1, 4), "batch_matmul"),
    # pooling and reductions
    "AVERAGE_POOL_2D": Row(1, (1, 3), "pooling"),
    "MAX_POOL_2D": Row(17, (1, 3), "pooling"),
    "MEAN": Row(40, (1, 3), "reduce"),
    "SUM": Row(74, (1, 2), "reduce"),
    "REDUCE_MAX": Row(82, (1, 3), "reduce"),
    "REDUCE_MIN": Row(89, (1, 3), "reduce"),
    "REDUCE_PROD": Row(81, (1, 2), "reduce"),
    "REDUCE_ANY": Row(91, (1, 1), "reduce"),
    "REDUCE_ALL": Row(140, (1, 1), "reduce"),
    "ARG_MAX": Row(56, (1, 3), "select_k"),
    "ARG_MIN": Row(79, (1, 3), "select_k"),
    "TOPK_V2": Row(48, (1, 3), "select_k"),
    "CUMSUM": Row(128, (1, 1), "cumsum"),
    # elementwise, two inputs
    "ADD": Row(0, (1, 6), "binary"),
    "SUB": Row(41, (1, 5), "binary"),
    "MUL": Row(18, (1, 8), "binary"),
    "DIV": Row(42, (1, 2), "binary"),
    "MAXIMUM": Row(55, (1, 4), "binary"),
    "MINIMUM": Row(57, (1, 4), "binary"),
    "SQUARED_DIFFERENCE": Row(99, (1, 2), "binary"),
    "POW": Row(78, (1, 1), "binary"),
    "FLOOR_DIV": Row(90, (1, 3), "binary"),
    "FLOOR_MOD": Row(95, (1, 2), "binary"),
    "EQUAL": Row(71, (1, 5), "compare"),
    "NOT_EQUAL": Row(72, (1, 4), "compare"),
    "LESS": Row(58, (1, 3), "compare"),
    "LESS_EQUAL": Row(63, (1, 2), "compare"),
    "GREATER": Row(61, (1, 2), "compare"),
    "GREATER_EQUAL": Row(62, (1, 3), "compare"),
    "LOGICAL_AND": Row(86, (1, 1), "logical"),
    "LOGICAL_OR": Row(84, (1, 1), "logical"),
    "LOGICAL_NOT": Row(87, (1, 1), "logical"),
    "SELECT": Row(64, (1, 4), "select"),
    "SELECT_V2": Row(123, (1, 2), "select"),
    # elementwise, one input
    "ABS": Row(101, (1, 5), "unary"),
    "NEG": Row(59, (1, 1), "unary"),
    "EXP": Row(47, (1, 2), "unary"),
    "LOG": Row(73, (1, 2), "unary"),
    "SQRT": Row(75, (1, 2), "unary"),
    "RSQRT": Row(76, (1, 3), "unary"),
    "SQUARE": Row(92, (1, 1), "unary"),
    "SIN": Row(66, (1, 2), "unary"),
    "COS": Row(108, (1, 2), "unary"),
    "FLOOR": Row(8, (1, 1), "unary"),
    "CEIL": Row(104, (1, 1), "unary"),
    "ROUND": Row(116, (1, 1), "unary"),
    "SIGN": Row(158, (1, 2), "unary"),
    "RELU": Row(19, (1, 3), "activation"),
    "RELU6": Row(21, (1, 3), "activation"),
    "RELU_N1_TO_1": Row(20, (1, 1), "activation"),
    "RELU_0_TO_1": Row(152, (1, 1), "activation"),
    "LEAKY_RELU": Row(98, (1, 2), "activation"),
    "PRELU": Row(54, (1, 1), "activation"),
    "ELU": Row(111, (1, 1), "activation"),
    "LOGISTIC": Row(14, (1, 3), "activation"),
    "TANH": Row(28, (1, 3), "activation"),
    "HARD_SWISH": Row(117, (1, 1), "activation"),
    "GELU": Row(150, (1, 3), "activation"),
    "SOFTMAX": Row(25, (1, 4), "softmax"),
    "LOG_SOFTMAX": Row(50, (1, 2), "softmax"),
    "L2_NORMALIZATION": Row(11, (1, 2), "normalise"),
    # types
    "CAST": Row(53, (1, 9), "cast"),
    "QUANTIZE": Row(114, (1, 6), "quantize"),
    "DEQUANTIZE": Row(6, (1, 9), "quantize"),
    # shapes and data movement
    "RESHAPE": Row(22, (1, 1), "reshape"),
    "SQUEEZE": Row(43, (1, 2), "reshape"),
    "EXPAND_DIMS": Row(70, (1, 1), "reshape"),
    "SHAPE": Row(77, (1, 1), "shape"),
    "RANK": Row(110, (1, 1), "shape"),
    "ZEROS_LIKE": Row(93, (1, 1), "shape"),
    "FILL": Row(94, (1, 5), "shape"),
    "TRANSPOSE": Row(39, (1, 9), "transpose"),
    "CONCATENATION": Row(2, (1, 7), "concat_split"),
    "SPLIT": Row(49, (1, 5), "concat_split"),
    "SPLIT_V": Row(102, (1, 3), "concat_split"),
    "PACK": Row(83, (1, 5), "concat_split"),
    "UNPACK": Row(88, (1, 6), "concat_split"),
    "SLICE": Row(65, (1, 8), "slice"),
    "STRIDED_SLICE": Row(45, (1, 8), "slice"),
    "PAD": Row(34, (1, 6), "pad"),
    "PADV2": Row(60, (1, 6), "pad"),
    "MIRROR_PAD": Row(100, (1, 3), "pad"),
    "TILE": Row(69, (1, 3), "tile"),
    "BROADCAST_TO": Row(130, (2, 4), "tile"),
    "REVERSE_V2": Row(105, (1, 4), "transpose"),
    "GATHER": Row(36, (1, 8), "gather"),
    "GATHER_ND": Row(107, (1, 6), "gather"),
    "EMBEDDING_LOOKUP": Row(7, (1, 5), "gather"),
    "ONE_HOT": Row(85, (1, 1), "shape"),
    "RESIZE_BILINEAR": Row(23, (1, 4), "resize"),
    "RESIZE_NEAREST_NEIGHBOR": Row(97, (1, 4), "resize"),
    "SPACE_TO_DEPTH": Row(26, (1, 2), "space_depth"),
    "DEPTH_TO_SPACE": Row(5, (1, 2), "space_depth"),
    "SPACE_TO_BATCH_ND": Row(38, (1, 4), "space_depth"),
    "BATCH_TO_SPACE_ND": Row(37, (1, 4), "space_depth"),
    # sequences and control flow
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Row(44, (1, 4), "recurrent"),
    "IF": Row(118, (1, 1), "control_flow"),
    "WHILE": Row(119, (1, 1), "control_flow"),
}

_loaded: dict[str, Operator] = {}


def operator(name: str) -> Operator | None:
    """The operator of that name, or None."""
    if name not in _loaded:
        row = TABLE.get(name)
        if row is None:
            return None
        try:
            module = import_module(f"litejit.ops.{row.module}")
        except ModuleNotFoundError as error:
            if error.name != f"litejit.ops.{row.module}":
                raise
            return None
        found = module.OPERATORS.get(name)
        if found is None:
            return None
        _loaded[name] = found
    return _loaded[name]
