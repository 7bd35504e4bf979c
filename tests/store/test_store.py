"""The store: what is put comes back, what is damaged never does; keys, modes and places."""
import os
import shutil
import subprocess
import sys

import pytest

from litejit.errors import StoreError
from litejit.store import Store, files, make_key, open_store
from litejit.store.keys import toolchain
from litejit.store.store import GENERATION, user_directory
from tests.store.entries import flipped, image, paths, value

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
