"""The team: every chunk once and after all of the step before, the same results with any number of threads."""
import ctypes
import gc
import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from litejit.compiler import kernel, prange
from litejit.compiler.primitives import load_i64, store_i64
from litejit.compiler.runtime import END, KERNEL, RESULT_BITS, runtime_library
from litejit.executor import team as team_module
from litejit.executor.team import Team, make_call, team

Chunks = np.dtype([("done", "i8"), ("before", "i8"), ("count_before", "i8"), ("bad", "i8"), ("work", "i8"),
                   ("mixed", "i8")], align=True)
NEVER = 1 << 40


@kernel(Chunks)
def team_chunks(p, begin, end):
    """Counts its chunks; fails with 99 if a chunk of the step before was not done, with 7 from chunk `bad` on."""
    for i in prange(begin, end):
        for j in range(p.count_before):
            if load_i64(p.before, j) != 1:
                return 99
        x = i + 1
        for _ in range(p.work):
            x = x * 6364136223846793005 + 1442695040888963407
        store_i64(p.mixed, i, x)
        store_i64(p.done, i, load_i64(p.done, i) + 1)
        if i >= p.bad:
            return 7 | i << 8
    return 0


@pytest.fixture(scope="module")
def library():
    from litejit.compiler.codegen import kernel_object
    from litejit.compiler.load import load_image, make_image

    return load_image(make_image([kernel_object(team_chunks)], [team_chunks.symbol]))


@pytest.fixture(scope="module")
def loop():
    return runtime_library().address("lj_loop")


@pytest.fixture
def new_team():
    made = []

    def make():
        made.append(Team(runtime_library()))
        return made[-1]
    yield make
    for one in made:
        one.close()


class Plan:
    """Steps with the given numbers of chunks."""

    def __init__(self, library, counts, bad=None, work=1):
        self.counts = counts
        self.done = [np.zeros(max(n, 1), np.int64) for n in counts]
        self.mixed = [np.zeros(max(n, 1), np.int64) for n in counts]
        self.params = np.zeros(len(counts), Chunks)
        self.table = np.zeros((len(counts) + 1, 4), np.int64)
        base, address = self.params.ctypes.data, library.address("lj_team_chunks")
        for i, n in enumerate(counts):
            before = self.done[i - 1].ctypes.data if i else 0
            self.params[i] = (self.done[i].ctypes.data, before, counts[i - 1] if i else 0, (bad or {}).get(i, NEVER),
                              work, self.mixed[i].ctypes.data)
            self.table[i] = KERNEL, address, base + Chunks.itemsize * i, n
        self.table[-1] = END, 0, 0, 0

    @property
    def address(self):
        return self.table.ctypes.data

    def clear(self):
        for done in self.done:
            done[:] = 0

    def agrees(self, result, bad=None):
        """Whether a run ended as it should, at the first step with a chunk in `bad`, and did every chunk before once."""
        last = min(bad) if bad else len(self.counts)
        if result != ((last + 1) << RESULT_BITS | 7 | bad[last] << 8 if bad else 0):
            return False
        wanted = [(done[:bad[last]], 1) if i == last else (done[:n], i < last)
                  for i, (done, n) in enumerate(zip(self.done, self.counts))]
        return all((done == times).all() for done, times in wanted)


@pytest.mark.parametrize("nthr", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 17, 64, 5000])
def test_every_chunk_once_and_in_order(library, loop, nthr, count):
    plan = Plan(library, [count] * 3 + [1, 1, count, 2])
    assert plan.agrees(team().run(loop, plan.address, len(plan.counts), nthr))
    team().quiesce()


def test_results_are_the_same_with_any_number_of_threads(library, loop):
    results = []
    for nthr in (1, 2, 3, 4, 1):
        plan = Plan(library, [33, 1, 8, 200], work=20)
        assert team().run(loop, plan.address, 4, nthr) == 0
        team().quiesce()
        results.append(b"".join(mixed.tobytes() for mixed in plan.mixed))
    assert len(set(results)) == 1


@pytest.mark.parametrize("nthr", [1, 2, 3, 4])
@pytest.mark.parametrize("bad", [{0: 0}, {3: 0}, {2: 15}, {2: 3}, {5: 39}, {2: 1, 5: 0}, {1: 7, 2: 0}, {6: 0}])
def test_the_first_failure_is_reported_and_ends_the_run(library, loop, nthr, bad):
    counts = [8, 8, 16, 1, 2, 40, 1]
    for _ in range(20):
        plan = Plan(library, counts, bad)
        assert plan.agrees(team().run(loop, plan.address, len(counts), nthr), bad)
        team().quiesce()
    plan = Plan(library, counts)                    # a failed run leaves nothing behind
    assert plan.agrees(team().run(loop, plan.address, len(counts), nthr))
    team().quiesce()


def stress(library, loop, one, seconds, seed):
    pick = random.Random(seed)
    runs, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        counts = [pick.choice([0, 1, 1, 2, 3, 5, 8, 17, 64, 1000]) for _ in range(pick.choice([1, 2, 7, 30]))]
        steps = [i for i, n in enumerate(counts) if n]
        failing = pick.sample(steps, min(len(steps), 2)) if pick.random() < .3 else []
        bad = {i: pick.randrange(counts[i]) for i in failing}
        plan = Plan(library, counts, bad, pick.choice([0, 10, 300]))
        nthr = pick.randint(1, 6)
        for _ in range(pick.choice([1, 1, 5]) if not bad else 1):
            plan.clear()
            assert plan.agrees(one.run(loop, plan.address, len(counts), nthr), bad)
        one.quiesce()                               # the plan is freed now
        if pick.random() < .05:
            time.sleep(.002)                        # lets the workers fall asleep
        runs += 1
    return runs


@pytest.mark.parametrize("spin", [0, 50, None])
def test_stress_with_more_threads_than_cores(library, loop, new_team, spin):
    one = new_team()
    if spin is not None:
        one._spin = one._words[team_module.SPIN] = spin
    runs = stress(library, loop, one, 0.7, spin)
    assert runs > 20


@pytest.mark.slow
@pytest.mark.parametrize("spin", [0, 50, 2000, None])
def test_long_stress(library, loop, new_team, spin):
    one = new_team()
    if spin is not None:
        one._spin = one._words[team_module.SPIN] = spin
    assert stress(library, loop, one, 20, spin) > 200


def test_two_invokes_at_once(library, loop, new_team):
    """The second one runs on its own thread, with the same results."""
    one, errors = new_team(), []

    def work(seed):
        pick = random.Random(seed)
        for _ in range(150):
            plan = Plan(library, [pick.choice([1, 8, 40])] * 10, work=30)
            try:
                assert plan.agrees(one.run(loop, plan.address, 10, 2))
            except AssertionError as error:
                errors.append(error)
            one.quiesce()
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_the_gil_is_released(library, loop, new_team):
    plan, ticks, stop = Plan(library, [8], work=20_000_000), [0], []

    def tick():
        while not stop:
            ticks[0] += 1
            time.sleep(0.001)
    thread = threading.Thread(target=tick)
    thread.start()
    for nthr in (1, 2):
        before = ticks[0]
        assert new_team().run(loop, plan.address, 1, nthr) == 0
        assert ticks[0] > before + 3
    stop.append(1)
    thread.join()


def test_workers_start_when_they_are_needed(library, loop, new_team):
    one, plan = new_team(), Plan(library, [4])
    assert one.size == 1
    for nthr, size in ((1, 1), (2, 2), (4, 4), (2, 4)):
        one.run(loop, plan.address, 1, nthr)
        assert one.size == size
    one.close()
    assert one.size == 1
    plan.clear()
    assert plan.agrees(one.run(loop, plan.address, 1, 4))   # still runs, on one thread
    assert one.size == 1


def test_when_no_thread_can_be_started(library, loop, new_team, monkeypatch):
    def refuse(self):
        raise RuntimeError("can't start new thread")
    monkeypatch.setattr(threading.Thread, "start", refuse)
    plan = Plan(library, [4, 4])
    assert plan.agrees(new_team().run(loop, plan.address, 2, 4))


def test_thread_counts_beyond_reason(library, loop, new_team):
    one, plan = new_team(), Plan(library, [300, 1, 300])
    assert plan.agrees(one.run(loop, plan.address, 3, 1000))
    assert one.size == 128
    for nthr in (40, 33, 32, 31, 2, 128):
        plan.clear()
        assert plan.agrees(one.run(loop, plan.address, 3, nthr))
    one.quiesce()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_gets_workers_of_its_own(library, loop):
    plan = Plan(library, [8, 1, 8])
    assert plan.agrees(team().run(loop, plan.address, 3, 3))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if team().size == 1:
                for nthr in (1, 2, 3):
                    plan.clear()
                    assert plan.agrees(team().run(loop, plan.address, 3, nthr))
                code = 7 if team().size == 3 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    plan.clear()
    assert plan.agrees(team().run(loop, plan.address, 3, 3))
    team().quiesce()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork_while_another_thread_runs(library, loop):
    """The child must not inherit a lock that nobody will release."""
    long = Plan(library, [8], work=30_000_000)
    runner = threading.Thread(target=lambda: team().run(loop, long.address, 1, 2))
    runner.start()
    time.sleep(0.02)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            plan = Plan(library, [8, 8])
            assert plan.agrees(team().run(loop, plan.address, 2, 2))
            code = 7 if team().size == 2 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    runner.join()
    team().quiesce()


SCRIPT = """
import ctypes, os, sys, threading
from litejit.compiler import instructions
if "poll" in sys.argv:
    instructions.FUTEX_CALL.clear()
from litejit.compiler.runtime import runtime_library
from litejit.executor.team import team
import numpy as np
table = np.array([[3, 0, 0, 0]])
loop = runtime_library().address("lj_loop")
for _ in range(50):
    assert team().run(loop, table.ctypes.data, 0, 3) == 0
"""


def run_script(code, *arguments):
    command = [sys.executable, "-c", SCRIPT + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("ending", [
    "", "sys.exit(3)", "raise ValueError", "os._exit(0)",
    "import atexit; atexit.register(lambda: team().run(loop, table.ctypes.data, 0, 3))",
    "import weakref, atexit; atexit._run_exitfuncs(); print(team().run(loop, table.ctypes.data, 0, 3))",
])
def test_a_process_ends_quietly_with_its_team_open(ending):
    done = run_script(ending)
    assert done.returncode == {"sys.exit(3)": 3, "raise ValueError": 1}.get(ending, 0), done.stderr
    if ending != "raise ValueError":
        assert done.stderr == ""


def test_a_daemon_thread_may_be_running_when_the_process_ends():
    code = """
def forever():
    while True:
        team().run(loop, table.ctypes.data, 0, 2)
for _ in range(3):
    threading.Thread(target=forever, daemon=True).start()
import time; time.sleep(0.1)
"""
    for _ in range(3):
        done = run_script(code)
        assert (done.returncode, done.stderr) == (0, "")


def test_without_futex(tmp_path, monkeypatch):
    """The portable wait: short sleeps instead of a system call on a word."""
    monkeypatch.setenv("LITEJIT_CACHE_DIR", str(tmp_path))
    code = """
import time
from litejit.compiler.steps import sleep, EPOCH, SLEEPERS, IDLE
assert sleep.name == "nap_sleep"
for nap in (0, .001, .02, .1):
    time.sleep(nap)
    assert team().run(loop, table.ctypes.data, 0, 3) == 0
print("fine")
"""
    done = run_script(code, "poll")
    assert done.stdout.strip() == "fine", done.stderr


def test_one_team_per_process():
    made = []
    threads = [threading.Thread(target=lambda: made.append(team())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, made))) == 1


def test_a_call_on_one_thread_needs_no_team(library, loop):
    plan = Plan(library, [3, 4])
    assert plan.agrees(make_call(loop, plan.address)())


def test_the_word_that_counts_steps_does_not_wrap(library, loop, new_team):
    """Steps are numbered for ever: with 2 million a second this state is reached after a year."""
    one = new_team()
    one._words[team_module.STEP] = 2 * 10**6 * 86400 * 365
    for _ in range(20):
        plan = Plan(library, [8, 1, 40])
        assert plan.agrees(one.run(loop, plan.address, 3, 3))
        one.quiesce()


def test_native_results_are_plain_integers(library, loop):
    assert isinstance(make_call(loop, Plan(library, []).address)(), int)
    assert ctypes.sizeof(ctypes.c_int64) == 8


def test_nothing_is_freed_while_late_workers_may_read_it(monkeypatch):
    """Interpreters that go without `close`, and single steps of them, wait for workers that are still inside an old run."""
    from litejit.interpreter import Interpreter
    from tests.planner.test_fuse_products import Net

    net = Net(30, 30, 16)
    net.conv(64)
    interpreter = Interpreter(model_content=net.build(), num_threads=2)
    interpreter.allocate_tensors()
    interpreter.invoke()
    step = interpreter._main.runner.step_call(0)
    assert step() == 0
    seen = []
    quiesce = Team.quiesce
    monkeypatch.setattr(Team, "quiesce", lambda self: (seen.append(1), quiesce(self))[1])
    del step
    assert len(seen) == 1
    del interpreter
    gc.collect()
    assert len(seen) >= 2
