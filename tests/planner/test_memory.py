"""What stays in memory once constants are packed: nothing that running does not need."""
from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

from litejit import Model
from litejit.interpreter import Interpreter
from litejit.planner import plan as planning
from litejit.planner.constants import ALIGNED, SLACK, joined, padded, roomy
from litejit.planner.plan import LARGE
from litejit.release import let_go, trim
from litejit.schema import opening
from litejit.schema.builder import ModelBuilder

RNG = np.random.default_rng(7)


def dense_f16(k: int = 64, n: int = 32, output_weights: bool = False) -> tuple[bytes, np.ndarray]:
    """FULLY_CONNECTED whose float16 weights are converted first; and the weights."""
    builder, weights = ModelBuilder(), RNG.standard_normal((n, k)).astype(np.float16)
    g = builder.subgraph()
    x = g.input("x", (-1, k))
    w = g.add("DEQUANTIZE", [g.constant("half", weights)], ("w", (n, k)))
    y = g.add("FULLY_CONNECTED", [x, w, None], ("y", (1, n)))
    g.outputs(*([y, w] if output_weights else [y]))
    return builder.build(), weights


def folded(interpreter: Interpreter) -> np.ndarray | None:
    found: np.ndarray | None = next(v for v in interpreter.plan.graph.values if v.name == "w").data
    return found


def test_folded_constants_go_once_they_are_packed() -> None:
    content, weights = dense_f16()
    model = Model.from_buffer(content)
    interpreter = Interpreter(model=model)
    array = weakref.ref(_plan_before_packing(interpreter, model))
    assert array() is not None
    interpreter.allocate_tensors()
    gc.collect()
    assert array() is None
    assert folded(interpreter) is None
    for rows in (1, 3):                                        # a second plan folds anew
        x = RNG.standard_normal((rows, 64)).astype(np.float32)
        interpreter.resize_tensor_input(0, x.shape)
        interpreter.allocate_tensors()
        assert np.allclose(interpreter.run(x)["y"], x @ weights.astype(np.float32).T, atol=1e-4)


def _plan_before_packing(interpreter: Interpreter, model: Model) -> np.ndarray:
    """The folded weights in the plan that `allocate_tensors` will find."""
    from litejit.planner.make import make_plan

    session = interpreter._main
    plan = make_plan(model, 0, tuple(session.shapes), session.target)
    data: np.ndarray = next(v for v in plan.graph.values if v.name == "w").data
    return data


def test_folded_constants_stay_where_somebody_may_ask() -> None:
    content, weights = dense_f16()
    interpreter = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    kept = folded(interpreter)
    assert kept is not None
    assert np.array_equal(kept, weights.astype(np.float32))
    content, weights = dense_f16(output_weights=True)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    made = interpreter.run(np.zeros((1, 64), np.float32))
    assert np.array_equal(made["w"], weights.astype(np.float32))


def test_a_packed_constant_is_made_once() -> None:
    content, _ = dense_f16()
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    packed = [item for step in interpreter.plan.steps for item in step.params.values() if isinstance(item, planning.Packed)]
    assert packed
    with pytest.raises(RuntimeError, match="made already"):
        packed[0].build()


def table(rows: int, width: int = 256, type: str = "FLOAT32") -> tuple[bytes, np.ndarray]:
    """GATHER from a constant table, which has other constants behind it in the file."""
    builder = ModelBuilder()
    values = RNG.standard_normal((rows, width)).astype(np.float32) if type == "FLOAT32" else RNG.integers(
        0, rows, (rows, width)).astype(np.int32)
    g = builder.subgraph()
    x = g.input("x", (3,), "INT32")
    big = g.constant("table", values)
    y = g.add("GATHER", [big, x], ("y", (3, width), type), axis=0)
    g.outputs(y)
    g.constant("behind", np.zeros(256, np.float32))
    g.constant("before", np.zeros(256, np.float32))
    return builder.build(), values


@pytest.mark.parametrize(("rows", "type", "copied"), [(2048, "FLOAT32", False), (16, "FLOAT32", True), (2048, "INT32", True)])
def test_large_tables_of_numbers_are_read_in_the_file(rows: int, type: str, copied: bool) -> None:
    content, values = table(rows, type=type)
    assert (values.nbytes >= LARGE) == (rows > 16)
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    sizes = [array.nbytes for array in interpreter.model.packed.values()]
    assert (values.nbytes + SLACK in sizes) == copied
    picks = np.array([rows - 1, 0, 5], np.int32)
    assert np.array_equal(interpreter.run(picks)["y"], values[picks])


@pytest.mark.parametrize("limit", [opening.MAP_ABOVE, 100])
def test_a_file_is_read_again_after_its_memory_was_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                               limit: int) -> None:
    monkeypatch.setattr(opening, "MAP_ABOVE", limit)
    monkeypatch.setattr(planning, "READ_AT_ONCE", 100)
    content, values = table(2048)
    path = tmp_path / "table.tflite"
    path.write_bytes(content)
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    picks = np.array([1, 2047, 0], np.int32)
    for _ in range(2):
        assert np.array_equal(interpreter.run(picks)["y"], values[picks])
        interpreter.model.let_go()
    assert bytes(interpreter.model.buffer) == content


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells how much of a mapping is in memory")
def test_the_memory_of_a_mapped_file_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "MAP_ABOVE", 100)
    path = tmp_path / "a file"
    path.write_bytes(b"x" * (4 << 20))
    array, _ = opening.open_file(path)
    assert int(array.sum(dtype=np.int64)) == 120 * array.size
    assert _resident(path) == array.size
    let_go(array)
    assert _resident(path) == 0
    assert array[-1] == 120


def _resident(path: Path) -> int:
    """Bytes of a file that are in this process's memory."""
    lines = iter(Path("/proc/self/smaps").read_text().splitlines())
    next(line for line in lines if line.endswith(str(path)))
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Rss:")))


def test_arrays_of_ones_own_are_left_alone() -> None:
    array = np.arange(1 << 16)
    let_go(array[5:])
    trim()
    assert np.array_equal(array, np.arange(1 << 16))


def fits(memory: np.ndarray, array: np.ndarray) -> bool:
    """Whether memory has an array's bytes, aligned, and SLACK more."""
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    placed = memory.ctypes.data % ALIGNED == 0 and memory.nbytes == raw.nbytes + SLACK
    return placed and bool((memory[:raw.nbytes] == raw).all())


def test_constants_with_room_are_not_copied() -> None:
    array = roomy((3, 5, 7), np.float32)
    array[...] = np.arange(105).reshape(3, 5, 7)
    assert fits(padded(array), array) and np.shares_memory(padded(array), array)
    assert joined([array]).base is array.base and np.shares_memory(padded(joined([array])), array)
    both = joined([array, array])
    assert fits(padded(both), both) and not np.shares_memory(both, array)


def test_other_constants_are_copied() -> None:
    array, bare = roomy((4, 32), np.float32), np.arange(1000, dtype=np.uint8)
    array[...] = np.arange(128).reshape(4, 32)
    cut = array[:, :7]                                            # not in one piece
    behind = array.reshape(-1)[5:]                                # not aligned
    for one in (cut, behind, bare, bare[64:], bare[bare.size - 64:], np.float64(3.5), np.zeros((0, 4), np.int8)):
        assert fits(padded(one), np.asarray(one)) and not np.shares_memory(padded(one), one)
