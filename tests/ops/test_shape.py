"""RANK and ZEROS_LIKE against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from litejit.errors import LiteJitError
from tests.harness import In, Out, run_op


@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 4), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("constant", [False, True])
def test_rank(shape: tuple[int, ...], constant: bool) -> None:
    got = run_op("RANK", [In(np.zeros(shape, np.float32), constant=constant)], Out("INT32"))
    assert got == len(shape) and got.shape == ()


def test_rank_is_an_int32() -> None:
    with pytest.raises(LiteJitError, match=r"INT64.*Node number 0 \(RANK\) failed to prepare"):
        run_op("RANK", [np.zeros(3, np.float32)], Out("INT64"))


@pytest.mark.parametrize("type_", ["float32", "int32", "int64"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4), (0, 2), (600, 700)])
def test_zeros_like(type_: str, shape: tuple[int, ...]) -> None:
    got = run_op("ZEROS_LIKE", [np.ones(shape, type_)], Out(type_.upper()))
    assert got.dtype == type_ and got.shape == shape and not got.any()


def test_zeros_like_of_other_types_is_refused() -> None:
    with pytest.raises(LiteJitError, match=r"INT8.*Node number 0 \(ZEROS_LIKE\) failed to prepare"):
        run_op("ZEROS_LIKE", [np.zeros(3, np.int8)], Out("INT8"))
