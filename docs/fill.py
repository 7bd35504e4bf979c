"""Runs the Python blocks of a document and puts what they print behind them: `python docs/fill.py docs/pipeline.md`.

All blocks of a document share their names. Behind a block, the next block marked `text` is replaced by what the Python
block printed. A store in a temporary directory is used, so that the document shows a first run.
"""
from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

BLOCK = re.compile(r"(```python\n(?P<code>.*?)```\n)(?P<between>\n```text\n.*?```\n)?", re.DOTALL)


def fill(text: str) -> str:
    """The document with fresh outputs. Exceptions of its code are raised."""
    names: dict[str, object] = {"__name__": "__document__"}

    def run(found: re.Match[str]) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(found["code"], "document", "exec"), names)
        lines = [line.rstrip() for line in printed.getvalue().splitlines()]
        return found[1] + ("\n```text\n" + "\n".join(lines) + "\n```\n" if lines else "")
    return BLOCK.sub(run, text)


def main(paths: list[str]) -> None:
    """Rewrite the documents."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    with tempfile.TemporaryDirectory() as store:
        os.environ["LITEJIT_CACHE_DIR"] = store
        for path in map(Path, paths):
            path.write_text(fill(path.read_text()))


if __name__ == "__main__":
    main(sys.argv[1:])
