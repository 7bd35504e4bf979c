"""The store among other users: files and directories that are not ours, that cannot be written, that are full."""
import logging
import os
import shutil
import tempfile

import pytest

from litejit.store import Store, files, make_key, open_store
from litejit.store.store import GENERATION
from tests.store.entries import image, needs_fork, needs_users, paths, value

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
