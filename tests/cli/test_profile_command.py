"""`litejit profile` and `Interpreter.profile`: every step is there, with plausible figures; the trace; loops."""
from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from litejit.compiler.cpu import LEVELS, target
from litejit.demo import MODELS
from litejit.executor.peak import Peak, macs_a_round, peak
from litejit.executor.profile import Profile
from litejit.interpreter import Interpreter
from litejit.schema.builder import ModelBuilder
from tests.cli.conftest import Litejit, write


@pytest.fixture(scope="module")
def profile() -> Profile:
    interpreter = Interpreter(MODELS["int8"])
    interpreter.allocate_tensors()
    return interpreter.profile(5)


def test_table(litejit: Litejit) -> None:
    done = litejit("profile", MODELS["float"], "--repeat", 5)
    assert done.code == 0 and done.err == "", done
    lines = done.out.splitlines()
    interpreter = Interpreter(MODELS["float"])
    interpreter.allocate_tensors()
    steps = interpreter.plan.steps
    assert lines[0].startswith("digits_float.tflite: ")
    assert lines[1].split() == ["step", "node", "kernel", "us", "%", "rate", "of", "peak"]
    assert sorted(int(line.split()[0]) for line in lines[2:2 + len(steps)]) == list(range(len(steps)))
    assert lines[-2].startswith("sum ") and "invoke" in lines[-2] and "1 thread" in lines[-2]
    assert lines[-1].startswith("peak of 1 thread(s), " + target().name) and "GB/s" in lines[-1]


def test_json(litejit: Litejit, adds: Path) -> None:
    done = litejit("profile", adds, "--json", "--repeat", 3, "--threads", 2)
    facts = json.loads(done.out)
    assert done.code == 0 and facts["threads"] == 2 and facts["repeat"] == 3 and facts["model"] == str(adds)
    step, = facts["steps"]
    assert step["node"] == "0 ADD" and step["macs"] == 0 and step["touched"] == 36 and step["calls"] == 1
    assert facts["sum"] == step["seconds"] >= 0 and facts["peak"]["threads"] == 2


def test_trace(litejit: Litejit, tmp_path: Path) -> None:
    done = litejit("profile", MODELS["int8"], "--repeat", 3, "--trace", tmp_path / "trace.json")
    assert done.code == 0 and "wrote " in done.out
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert [e["name"].split()[1] for e in events] == [
        "CONV_2D", "MAX_POOL_2D", "CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED", "SOFTMAX"]
    for event, following in itertools.pairwise(events):
        assert event["ph"] == "X" and event["ts"] + event["dur"] == pytest.approx(following["ts"])


def test_wrong_usage(litejit: Litejit, adds: Path, unservable: Path, tmp_path: Path) -> None:
    assert litejit("profile").code == 2 and litejit("profile", adds, "--repeat", 0).code == 2
    refused = litejit("profile", unservable)
    assert refused.code == 1 and "Mystery" in refused.err
    assert litejit("profile", adds, "--repeat", 1, "--trace", tmp_path / "no" / "where").code == 1


def test_profile_says_what_steps_do(profile: Profile) -> None:
    assert [s.node.split()[1] for s in profile.steps if s.macs] == ["CONV_2D", "CONV_2D", "FULLY_CONNECTED"]
    assert [s.macs for s in profile.steps if s.macs] == [8 * 8 * 16 * 9, 4 * 4 * 32 * 9 * 16, 32 * 4 * 10]
    assert {s.type for s in profile.steps if s.macs} == {"i8"}
    pool = profile.steps[1]
    assert pool.touched == 8 * 8 * 16 + 4 * 4 * 16
    for s in profile.steps:
        unit = " GOP/s" if s.macs else " GB/s"
        assert s.seconds == 0 or (s.rate.endswith(unit) and s.fraction is not None and s.fraction > 0)
    assert sum(profile.by_kernel().values()) == pytest.approx(profile.seconds)
    shares = [s["share"] for s in profile.to_dict()["steps"]]
    assert math.isclose(sum(shares), 1.0) or profile.seconds == 0
    json.dumps(profile.to_dict())


def test_profile_shows_itself(profile: Profile) -> None:
    html = profile._repr_html_()
    assert html.count("<tr>") == len(profile.steps) + 1 and "CONV_2D" in html
    assert repr(profile).startswith("<Profile of 6 steps: sum ")
    times = [float(row[3]) for row in profile.rows()]
    assert times == sorted(times, reverse=True)


def test_plot(profile: Profile) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    axes = profile.plot()
    assert [t.get_text() for t in axes.get_yticklabels()] == list(profile.by_kernel())
    _, mine = plt.subplots()
    assert profile.plot(mine) is mine
    plt.close("all")


def test_loops_are_followed_and_variables_kept() -> None:
    builder = ModelBuilder()
    main, condition, body = (builder.subgraph(name) for name in ("main", "condition", "body"))
    i = condition.input("i", (), "INT32")
    condition.outputs(condition.add("LESS", [i, condition.constant("n", np.array(5, np.int32))], ("go", (), "BOOL")))
    i = body.input("i", (), "INT32")
    body.outputs(body.add("ADD", [i, body.constant("one", np.array(1, np.int32))], ("next", (), "INT32")))
    i = main.input("i", (), "INT32")
    main.outputs(main.add("WHILE", [i], ("last", (), "INT32"), cond_subgraph_index=1, body_subgraph_index=2))
    interpreter = Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, np.array(2, np.int32))
    profile = interpreter.profile(2)
    calls = {s.node.split()[1]: s.calls for s in profile.steps if s.node.split()[1] in ("LESS", "ADD")}
    assert calls == {"LESS": 4, "ADD": 3}
    assert len(profile.timeline) == sum(s.calls for s in profile.steps) == len(profile.trace()["traceEvents"])


def test_errors_name_the_node() -> None:
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    x, at = graph.input("x", (4, 2)), graph.input("at", (1,), "INT32")
    graph.outputs(graph.add("GATHER", [x, at], ("y", (1, 2))))
    interpreter = Interpreter(model_content=builder.build())
    interpreter.allocate_tensors()
    interpreter.set_tensor(1, np.array([9], np.int32))
    with pytest.raises(RuntimeError, match="gather index out of bounds.*GATHER"):
        interpreter.profile()
    with pytest.raises(ValueError, match="at least 1"):
        interpreter.profile(0)


def test_peak_is_measured_once() -> None:
    first = peak(target())
    assert peak(target()) is first and first.threads == 1 and first.cpu == target().name
    assert all(rate > 1e8 for rate in (*first.macs.values(), *first.bandwidth.values()))
    assert set(macs_a_round(LEVELS["avx2"]).items()) == {("f32", 96), ("i8", 192), ("i16", 192)}


def test_peak_of_a_size_is_that_of_the_memory_that_holds_it() -> None:
    known = Peak("some", 1, {"f32": 1e9, "i8": 2e9, "i16": 1e9}, {100: 9.0, 1000: 5.0})
    assert [known.read(n) for n in (0, 100, 101, 1000, 5000)] == [9.0, 9.0, 9.0, 5.0, 5.0]
    assert known._replace(threads=2).read(1000) == 9.0 and known._replace(threads=2).read(2000) == 5.0
    assert str(known) == "2 GFLOP/s float32, 4 GOP/s int8, 2 GOP/s int16; reads of 0 KiB / 0 KiB at 0 / 0 GB/s"


def test_without_a_peak(monkeypatch: pytest.MonkeyPatch, adds: Path) -> None:
    """A store that is required and lacks the loops: times without fractions."""
    from litejit.errors import StoreError
    from litejit.executor import peak as module

    def refuse(*_: object) -> Peak:
        raise StoreError("required")
    monkeypatch.setattr(module, "peak", refuse)
    interpreter = Interpreter(adds)
    interpreter.allocate_tensors()
    profile = interpreter.profile(2)
    assert profile.peak is None and profile.steps[0].fraction is None and "peak of" not in str(profile)
    assert profile.to_dict()["peak"] is None


def test_unused_graph_has_an_empty_profile(litejit: Litejit, picture: Path, tmp_path: Path) -> None:
    builder = ModelBuilder()
    graph = builder.subgraph("main")
    graph.outputs(graph.input("x", (2,)))
    done = litejit("profile", write(tmp_path / "nothing.tflite", builder), "--repeat", 2)
    assert done.code == 0 and "sum 0.0 us" in done.out, done
