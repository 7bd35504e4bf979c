"""The store: what is put comes back, what is damaged or foreign never does, and nothing breaks a run."""
import ctypes
import logging
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from litejit.compiler.load import make_image
from litejit.errors import StoreError
from litejit.store import Store, files, make_key, open_store, upkeep
from litejit.store.keys import toolchain
from litejit.store.locks import locked
from litejit.store.store import GENERATION, user_directory

needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="owners and modes are POSIX")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, logger="litejit")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "litejit"]


def image(value: int) -> bytes:
    from llvmlite import binding

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(reloc="pic", codemodel="small")
    return make_image([machine.emit_object(binding.parse_assembly(f"define i64 @f() {{ ret i64 {value} }}"))], ["f"])


def value(library) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(library.address("f"))()


def paths(root, ends=(".lib", ".obj")):
    return [os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names if name.endswith(ends)]


# ---- entries -------------------------------------------------------------------------------------

def test_objects_come_back(root):
    store, key = Store([root]), make_key(name="a")
    assert store.get_object(key) is None
    store.put_object(key, b"data", {"kind": "kernel", "name": "relu"})
    assert store.get_object(key) == b"data"
    assert Store([root]).get_object(key) == b"data"
    assert (store.statistics.hits, store.statistics.misses, store.statistics.compiled) == (1, 1, 1)
    assert Store([root]).get_object(make_key(name="b")) is None


def test_libraries_come_back_and_run(root):
    first, key = Store([root]), make_key(name="a")
    assert first.get_library(key) is None
    made = first.put_library(key, image(5), {"kind": "model", "name": "net"})
    assert value(made) == 5 and first.get_library(key) is made
    second = Store([root])
    found = second.get_library(key)
    assert value(found) == 5 and found.path == paths(root)[0]
    assert second.get_library(key) is found
    assert (second.statistics.hits, second.statistics.misses, second.statistics.compiled) == (2, 0, 0)


@pytest.mark.parametrize("data", [b"", b"x", bytes(100_000)])
def test_any_bytes(root, data):
    store, key = Store([root]), make_key(n=1)
    store.put_object(key, data, {})
    assert Store([root]).get_object(key) == data


def test_the_same_key_may_be_a_library_and_an_object(root):
    store, key = Store([root]), make_key(n=1)
    store.put_object(key, b"object", {})
    store.put_library(key, image(6), {})
    again = Store([root])
    assert again.get_object(key) == b"object" and value(again.get_library(key)) == 6


# ---- keys ----------------------------------------------------------------------------------------

def test_keys_depend_on_every_part_and_on_nothing_else():
    key = make_key(name="a", options={"x": 1, "y": [1.5, None, True, b"z"]})
    assert len(key) == 40 and int(key, 16)
    assert key == make_key(options={"y": [1.5, None, True, b"z"], "x": 1}, name="a")
    others = [make_key(name="b", options={"x": 1, "y": [1.5, None, True, b"z"]}), make_key(name="a"),
              make_key(name="a", options={"x": 1, "y": [1.5, None, True, "z"]}),
              make_key(name="a", options={"x": 1, "y": [1.5, None, 1, b"z"]}), make_key(name="a", options=[]),
              make_key(name="a", options="[]"), make_key(name=["a", "b"]), make_key(name=["a,b"]), make_key(name="a,b")]
    assert len({key, *others}) == 1 + len(others)
    with pytest.raises(TypeError, match="object"):
        make_key(x=object())


def test_keys_are_the_same_in_another_process_and_differ_between_loaders():
    code = "from litejit.store import make_key; print(make_key(name='a', options={'x': [1, 2.5, 'y']}))"
    keys = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                           env={**os.environ, "PYTHONHASHSEED": seed, "LITEJIT_LOADER": loader}).stdout.strip()
            for seed, loader in (("1", ""), ("2", ""), ("3", "llvm"))]
    assert keys[0] == keys[1] != keys[2] or os.environ.get("LITEJIT_LOADER")


def test_versions_without_importing_anything():
    from importlib.metadata import version

    assert toolchain() == {name: version(name) for name in ("numba", "llvmlite")}


def test_the_users_directory_is_that_of_platformdirs(monkeypatch):
    from platformdirs import user_cache_dir

    for xdg in (None, "/somewhere/else"):
        if xdg:
            monkeypatch.setenv("XDG_CACHE_HOME", xdg)
        else:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert user_directory() == user_cache_dir("litejit", appauthor=False)


# ---- damage --------------------------------------------------------------------------------------

def damages():
    yield "empty", lambda data: b""
    yield "a byte", lambda data: data[:1]
    yield "shortened", lambda data: data[:-1]
    yield "half", lambda data: data[:len(data) // 2]
    yield "longer", lambda data: data + b"\0"
    for at in (0, 10, -1, -20, -50, -files.TRAILER.size, -files.TRAILER.size - 3):
        yield f"bit at {at}", lambda data, at=at: flipped(data, at)
    yield "zeroed", lambda data: bytes(len(data))
    yield "another entry", lambda data: files.pack(b"other", b"{}", make_key(n="other"))


def flipped(data, at):
    changed = bytearray(data)
    changed[at] ^= 4
    return bytes(changed)


@pytest.mark.parametrize("damage", [pytest.param(f, id=name) for name, f in damages()])
def test_a_damaged_file_is_not_used_and_goes(root, damage, warnings):
    key = make_key(n=1)
    Store([root]).put_library(key, image(7), {})
    path, = paths(root)
    with open(path, "rb") as file:
        data = file.read()
    with open(path + "x", "wb") as file:
        file.write(damage(data))
    os.chmod(path + "x", 0o600)
    os.replace(path + "x", path)
    store = Store([root])
    assert store.get_library(key) is None
    assert not paths(root) and len(warnings()) == 1
    assert value(store.put_library(key, image(7), {})) == 7
    assert value(Store([root]).get_library(key)) == 7
    assert len(warnings()) == 1


def test_a_whole_file_that_is_no_library(root, warnings):
    """Right key, right checksum, but dlopen does not want it: compiled again."""
    store, key = Store([root]), make_key(n=1)
    path = os.path.join(files.make_folder(root, GENERATION, key[:2]), key + ".lib")
    files.write(path, files.pack(b"\x7fELF no library", b"{}", key))
    assert store.get_library(key) is None
    assert len(warnings()) == 1


# ---- foreign files and directories ---------------------------------------------------------------

@needs_users
@pytest.mark.parametrize("which", ["root", "generation", "shard"])
@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777, 0o1777])
def test_a_directory_that_others_can_write_is_refused(root, which, mode, warnings):
    key = make_key(n=1)
    Store([root]).put_object(key, b"data", {})
    folder = os.path.dirname(paths(root)[0])
    os.chmod({"root": root, "generation": os.path.dirname(folder), "shard": folder}[which], mode)
    store = Store([root])
    assert store.get_object(key) is None
    assert value(store.put_library(key, image(8), {})) == 8
    assert len(paths(root)) == 1, "nothing is written there"
    assert len(warnings()) == 1 and "can be written by others" in warnings()[0]


@needs_users
def test_a_file_that_others_can_write_is_not_used(root, warnings):
    key = make_key(n=1)
    Store([root]).put_object(key, b"data", {})
    path, = paths(root)
    os.chmod(path, 0o620)
    assert Store([root]).get_object(key) is None
    assert os.path.exists(path) and len(warnings()) == 1


@needs_users
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give files away")
def test_a_file_or_directory_of_somebody_else_is_not_used(root, warnings):
    key = make_key(n=1)
    Store([root]).put_object(key, b"data", {})
    path, = paths(root)
    os.chown(path, 65534, 65534)
    assert Store([root]).get_object(key) is None
    os.chown(path, 0, 0)
    assert Store([root]).get_object(key) == b"data"
    os.chown(root, 65534, 65534)
    assert Store([root]).get_object(key) is None
    assert all("belongs to user 65534" in text for text in warnings()) and len(warnings()) == 2


@needs_users
def test_links_are_not_followed(root, tmp_path):
    key = make_key(n=1)
    Store([root]).put_object(key, b"data", {})
    path, = paths(root)
    os.rename(path, tmp_path / "elsewhere")
    os.symlink(tmp_path / "elsewhere", path)
    assert Store([root]).get_object(key) is None


@needs_users
def test_directories_are_made_for_the_owner_alone_whatever_the_umask(root):
    old = os.umask(0o002)
    try:
        Store([root]).put_object(make_key(n=1), b"data", {})
    finally:
        os.umask(old)
    assert Store([root]).get_object(make_key(n=1)) == b"data"
    for folder, _, names in os.walk(root):
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert all(os.stat(os.path.join(folder, name)).st_mode & 0o777 == 0o600 for name in names)


def as_nobody(work):
    """Runs work(directory) in a child that is no superuser; what it returned or raised, as text."""
    directory = tempfile.mkdtemp(prefix="litejit-test-")
    reader, writer = os.pipe()
    if os.geteuid() == 0:
        os.chown(directory, 65534, 65534)
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            text = repr(work(directory))
        except BaseException as error:
            text = repr(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        text = file.read().decode()
    os.waitpid(pid, 0)
    shutil.rmtree(directory, ignore_errors=True)
    return text


@needs_fork
def test_a_read_only_directory_is_read_and_the_next_one_written():
    def work(directory):
        first, second = os.path.join(directory, "first"), os.path.join(directory, "second")
        old, new = make_key(n="old"), make_key(n="new")
        Store([first]).put_object(old, b"old", {})
        for folder, _, _ in os.walk(first):
            os.chmod(folder, 0o500)
        store = Store([first, second])
        found = store.get_object(old)
        store.put_object(new, b"new", {})
        with store.lock(new):
            again = Store([first, second]).get_object(new)
        result = found, again, len(paths(first)), len(paths(second))
        for folder, _, _ in os.walk(first):
            os.chmod(folder, 0o700)
        return result
    assert as_nobody(work) == repr((b"old", b"new", 1, 1))


@needs_fork
def test_nothing_can_be_written():
    data = image(9)

    def work(directory):
        texts = []

        class Handler(logging.Handler):
            def emit(self, record):
                texts.append(record.levelname)
        logging.getLogger("litejit").addHandler(Handler(logging.WARNING))
        os.chmod(directory, 0o500)
        store, key = Store([os.path.join(directory, "store"), "/proc/nowhere", "/dev/null/x"]), make_key(n=1)
        with store.lock(key):
            results = [store.get_library(key), value(store.put_library(key, data, {})), value(store.get_library(key))]
        store.put_object(key, b"x", {})
        os.chmod(directory, 0o700)
        return [*results, store.get_object(key), texts]
    assert as_nobody(work) == repr([None, 9, 9, None, ["WARNING"]])


@needs_fork
def test_a_user_without_a_home():
    def work(directory):
        os.environ.update(HOME="/nonexistent")
        os.environ.pop("XDG_CACHE_HOME", None)
        os.environ.pop("LITEJIT_CACHE_DIR", None)
        os.chdir(directory)
        store = open_store()
        store.put_object(make_key(n=1), b"x", {})
        return store.get_object(make_key(n=1)), os.listdir(directory)
    assert as_nobody(work) == repr((None, []))


def test_a_full_disk(root, warnings, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(files, "write", full)
    store, key = Store([root]), make_key(n=1)
    assert value(store.put_library(key, image(10), {})) == 10
    store.put_object(key, b"x", {})
    assert value(store.get_library(key)) == 10
    assert len(warnings()) == 1 and "No space left" in warnings()[0]


def test_a_write_that_fails_leaves_nothing(root, monkeypatch):
    folder = files.make_folder(root, GENERATION, "ab")

    def refuse(*args):
        raise OSError(5, "I/O error")
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="I/O error"):
        files.write(os.path.join(folder, "x.obj"), b"data")
    assert os.listdir(folder) == []


# ---- modes and places ----------------------------------------------------------------------------

def test_require(root):
    key, other = make_key(n=1), make_key(n=2)
    Store([root]).put_library(key, image(11), {})
    store = Store([root], "require")
    assert value(store.get_library(key)) == 11
    for get in (store.get_library, store.get_object):
        with pytest.raises(StoreError, match=other):
            get(other)
    store.put_object(other, b"x", {})
    assert len(paths(root)) == 1


def test_off_touches_no_disk(root):
    Store([root]).put_object(make_key(n=1), b"data", {})
    shutil.copytree(root, root + "2")
    store, key = Store([root], "off"), make_key(n=1)
    assert store.get_object(key) is None
    assert value(store.put_library(key, image(12), {})) == 12
    with store.lock(key) as held:
        assert not held
    assert len(paths(root)) == 1


def test_refresh_compiles_once_more_and_replaces(root):
    key = make_key(n=1)
    Store([root]).put_object(key, b"old", {})
    store = Store([root], "refresh")
    assert store.get_object(key) is None
    store.put_object(key, b"new", {})
    assert store.get_object(key) == b"new"
    assert Store([root]).get_object(key) == b"new"


def test_modes_and_places_from_the_environment(root, monkeypatch):
    monkeypatch.setenv("LITEJIT_CACHE_DIR", os.pathsep.join([root, "", root + "2"]))
    monkeypatch.setenv("LITEJIT_CACHE", "refresh")
    store = open_store()
    assert store.mode == "refresh" and store.roots == (root, root + "2")
    assert open_store() is store
    assert open_store(mode="use").mode == "use"
    other = open_store(root + "3", "off")
    assert other.roots == (root + "3",) and other is not store
    assert open_store([root, root + "3"]).roots == (root, root + "3")
    monkeypatch.setenv("LITEJIT_CACHE", "sometimes")
    with pytest.raises(ValueError, match="sometimes"):
        open_store()


def test_the_users_directory_comes_last_and_only_if_it_must(root, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("LITEJIT_CACHE_DIR", root)
    users = user_directory()
    assert open_store().roots == (root,)
    monkeypatch.delenv("LITEJIT_CACHE_DIR")
    assert open_store().roots == (users,)
    monkeypatch.setenv("LITEJIT_CACHE_DIR", "/proc/nowhere")
    store = open_store()
    store.put_object(make_key(n=1), b"x", {})
    assert store.roots == ("/proc/nowhere", users) and len(paths(users)) == 1


def test_a_warm_process_compiles_nothing_and_imports_little(root):
    code = ("import sys, numpy\n"
            "from litejit.compiler.runtime import runtime_library\n"
            "from litejit.store import open_store\n"
            "runtime_library()\n"
            "heavy = {'numba', 'llvmlite', 'dataclasses', 'importlib.metadata', 'platformdirs', 'json', 'logging'}\n"
            "print(open_store().statistics.compiled, *sorted(heavy & set(sys.modules)))\n")
    environment = {**os.environ, "LITEJIT_CACHE_DIR": root, "LITEJIT_LOADER": ""}
    lines = [subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True,
                            check=True).stdout.split() for _ in range(2)]
    assert int(lines[0][0]) > 0
    assert lines[1][0] == "0"
    if sys.platform == "linux":
        assert lines[1] == ["0"]


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
        results = [tuple(map(int, line.split())) for line in file]
    assert codes == [0] * processes
    assert sum(wrong for wrong, _ in results) == 0
    assert all(reads > 10 for _, reads in results)
    upkeep.sweep(root, abandoned=-1)
    assert not paths(root, (".tmp", ".lock"))


@needs_fork
def test_short_chaos(root):
    chaos(root, 4, 1.0)


@pytest.mark.slow
@needs_fork
def test_long_chaos(root):
    chaos(root, 8, 20.0)
