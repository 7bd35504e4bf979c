"""Compiled code on disk: content-addressed files that are verified before they are used.

    store = open_store()                            # LITEJIT_CACHE_DIR, or the user's cache directory
    key = make_key(what="kernel", name="relu_f32", source=digest)
    library = store.get_library(key)                # None: compile, and then
    library = store.put_library(key, image, {"kind": "kernel", "name": "relu_f32"})

files.py is the format of a file, keys.py what makes a key, store.py the search path and the modes, locks.py keeps two
processes from compiling the same thing, upkeep.py lists, verifies and removes.
"""
from litejit.store.keys import make_key
from litejit.store.store import Store, open_store

__all__ = ["Store", "make_key", "open_store"]
