"""Views of tensors, and interpreters among threads."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from tests.interpreter.samples import add

# ---- views ---------------------------------------------------------------------------------------


def test_documented_use_of_views() -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    a, b, d = (interpreter.tensor(i) for i in (0, 1, 3))
    for k in range(3):
        a().fill(k)
        b().fill(1)
        interpreter.invoke()
        assert d().tolist() == [[-k - 1] * 4]


def test_views_that_live_block_changes() -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    view = interpreter.tensor(0)()
    part = view[:, 1:]
    del view
    gc.collect()
    for call in (
        interpreter.invoke,
        interpreter.allocate_tensors,
        lambda: interpreter.resize_tensor_input(0, (2, 4)),
        lambda: interpreter.run([np.zeros((1, 4), np.float32)] * 2),
    ):
        with pytest.raises(RuntimeError, match="There is at least 1 reference to internal data"):
            call()
    interpreter.set_tensor(0, np.ones((1, 4), np.float32))
    assert part.tolist() == [[1, 1, 1]]
    interpreter.get_input_details()
    del part
    interpreter.invoke()


def test_view_outlives_the_interpreter() -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.full((1, 4), 6, np.float32))
    view = interpreter.tensor(0)()
    del interpreter
    gc.collect()
    assert view.tolist() == [[6] * 4] and view.ctypes.data % 64 == 0


# ---- threads -----------------------------------------------------------------------------------------


def test_interpreter_per_thread() -> None:
    wrong = []

    def work(k: int) -> None:
        interpreter = add()
        for i in range(200):
            got = interpreter.run([np.full((1, 4), k, np.float32), np.full((1, 4), i, np.float32)])["d"]
            if (got != -(k + i)).any():
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_one_interpreter_in_two_threads_is_refused_not_raced() -> None:
    interpreter = add()
    interpreter.allocate_tensors()
    with interpreter._lock:
        errors: list[Exception] = []

        def work() -> None:
            try:
                interpreter.invoke()
            except RuntimeError as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert "already running" in str(errors[0])


def test_invoke_releases_the_gil() -> None:
    interpreter = add((2048, 2048))
    interpreter.allocate_tensors()
    ticks, done = [0], threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0)

    thread = threading.Thread(target=tick)
    thread.start()
    end = time.monotonic() + 0.3
    seen = 0
    while time.monotonic() < end:
        before = ticks[0]
        interpreter.invoke()
        seen += ticks[0] - before
    done.set()
    thread.join()
    assert seen > 0
