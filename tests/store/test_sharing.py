"""One store for many: locks, upkeep, and processes that die in between."""
import logging
import os
import random
import threading
import time

import pytest

from litejit.store import Store, files, make_key, upkeep
from litejit.store.locks import locked
from tests.store.entries import flipped, needs_fork, paths

# ---- locks ---------------------------------------------------------------------------------------

@needs_fork
def test_one_process_compiles_and_the_others_wait(root):
    key, pids = make_key(n=1), []
    reader, writer = os.pipe()
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            store = Store([root])
            with store.lock(key):
                if store.get_object(key) is None:
                    time.sleep(0.1)
                    store.put_object(key, b"data", {})
            os.write(writer, str(store.statistics.compiled).encode())
            os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    os.close(writer)
    assert sorted(os.read(reader, 100)) == sorted(b"0001")
    assert not paths(root, (".lock",)), "locks leave no files"


def test_threads_wait_as_well(root):
    store, key, order = Store([root]), make_key(n=1), []

    def work():
        with store.lock(key) as held:
            order.append(("in", held))
            time.sleep(0.02)
            order.append(("out", held))
    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order == [("in", True), ("out", True)] * 5


def test_patience_ends(tmp_path):
    path = str(tmp_path / "x.lock")
    with locked(path) as first, locked(path, patience=0.05) as second:
        assert first and not second
    with locked(path) as again:
        assert again
    with locked(None) as nothing:
        assert not nothing


@needs_fork
def test_a_dead_process_holds_no_lock(root):
    key = make_key(n=1)
    pid = os.fork()
    if pid == 0:
        with Store([root]).lock(key):
            os._exit(0)
    os.waitpid(pid, 0)
    start = time.monotonic()
    with Store([root]).lock(key) as held:
        assert held and time.monotonic() - start < 1


# ---- upkeep --------------------------------------------------------------------------------------

def test_listing_verifying_and_removing(root):
    store, keys = Store([root]), [make_key(n=i) for i in range(3)]
    for i, key in enumerate(keys):
        store.put_object(key, bytes(100 * i), {"kind": "kernel", "name": f"kernel{i}"})
    found = {entry.key: entry for entry in upkeep.entries(root)}
    assert sorted(found) == sorted(keys)
    entry = found[keys[1]]
    assert entry.description["name"] == "kernel1" and entry.problem == ""
    assert abs(entry.description["created"] - time.time()) < 100 and entry.size > 100
    with open(found[keys[2]].path, "r+b") as file:
        file.write(b"damage")
    problems = {entry.key: entry.problem for entry in upkeep.entries(root)}
    assert problems[keys[2]] and not problems[keys[0]] and os.path.exists(found[keys[2]].path)
    assert upkeep.remove(root, keys[0][:12]) == 1
    assert upkeep.remove(root) == 2
    assert list(upkeep.entries(root)) == []
    assert list(upkeep.entries(root + "/absent")) == [] and upkeep.remove(root + "/absent") == 0


def test_sweeping(root):
    store = Store([root])
    keys = [make_key(n=i) for i in range(6)]
    for i, key in enumerate(keys):
        store.put_object(key, bytes(1000), {})
        path, = (p for p in paths(root) if key in p)
        os.utime(path, (time.time() - 10 * 86400 + i,) * 2)
    folder = os.path.dirname(path)
    for name in ("x.obj.1.2.tmp", "y.lock"):
        with open(os.path.join(folder, name), "wb"):
            pass
        os.utime(os.path.join(folder, name), (1, 1))
    with open(os.path.join(folder, "z.obj.1.2.tmp"), "wb"):
        pass
    assert Store([root]).get_object(keys[0]) is not None        # used now: the youngest
    upkeep.sweep(root, limit=3500)
    assert paths(root, (".tmp", ".lock")) == [os.path.join(folder, "z.obj.1.2.tmp")]
    assert [Store([root]).get_object(key) is not None for key in keys] == [True, False, False, False, True, True]


# ---- chaos ---------------------------------------------------------------------------------------

def chaos_worker(root, seed, seconds):
    """Reads and builds random entries; now and then dies while writing, damages a file, or sweeps."""
    pick, wrong, reads = random.Random(seed), 0, 0
    end = time.monotonic() + seconds
    logging.disable()
    while time.monotonic() < end:
        store = Store([root])
        key = make_key(n=pick.randrange(20))
        data = key.encode() * 300
        event = pick.random()
        if event < 0.03:
            pid = os.fork()
            if pid == 0:
                os.replace = lambda *args: os.kill(os.getpid(), 9)
                store.put_object(key, data, {})
                os._exit(0)
            os.waitpid(pid, 0)
        elif event < 0.10:
            damage_one(root, pick)
        elif event < 0.12:
            upkeep.sweep(root, limit=100_000, abandoned=0.05)
        elif event < 0.13:
            upkeep.remove(root, key[:1])
        found = store.get_object(key)
        if found is None:
            with store.lock(key):
                found = store.get_object(key)
                if found is None:
                    time.sleep(0.002)
                    store.put_object(key, data, {"name": "x"})
                    found = data
        wrong += found != data
        reads += 1
    return wrong, reads


def damage_one(root, pick):
    try:
        path = pick.choice(paths(root, (".obj",)))
        with open(path, "rb") as file:
            data = file.read()
        data = data[:pick.randrange(len(data))] if pick.random() < .5 else flipped(data, pick.randrange(len(data)))
        if pick.random() < .5:                      # in place, under the eyes of the readers
            with open(path, "r+b") as file:
                file.write(data)
        else:
            files.write(path, data)
    except (OSError, IndexError, ValueError):
        pass


def chaos(root, processes, seconds):
    """(exit codes, [(entries read wrongly, entries read) in each]) of processes at work at the same time."""
    pids = []
    reader, writer = os.pipe()
    for seed in range(processes):
        pid = os.fork()
        if pid == 0:
            try:
                os.write(writer, "{} {}\n".format(*chaos_worker(root, seed, seconds)).encode())
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os.close(writer)
    with os.fdopen(reader) as file:
        return codes, [tuple(map(int, line.split())) for line in file]


@needs_fork
@pytest.mark.parametrize("processes, seconds", [(4, 1.0), pytest.param(8, 20.0, marks=pytest.mark.slow)])
def test_chaos(root, processes, seconds):
    codes, results = chaos(root, processes, seconds)
    assert codes == [0] * processes
    assert [wrong for wrong, _ in results] == [0] * processes
    assert min(reads for _, reads in results) > 10
    upkeep.sweep(root, abandoned=-1)
    assert paths(root, (".tmp", ".lock")) == []
