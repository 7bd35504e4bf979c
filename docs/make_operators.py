"""Writes docs/operators.md from ops/table.py and the operators: `python docs/make_operators.py`."""
from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from litejit.ops.base import Operator  # noqa: E402
from litejit.ops.table import TABLE, operator  # noqa: E402
from litejit.planner.graph import Node, Value  # noqa: E402

HEAD = """# Operators

Made by `python docs/make_operators.py` from `ops/table.py` and the operators themselves.

An operator of a version outside the range, or one that is not in this table, is refused when the interpreter is made; the
error names all of them. Types are those of the first input, as the operator checks them; an empty cell means that it looks at
the size of an element only, or checks in its own way. Short names: f32 float32, i8 int8, u8 uint8, bf16 bfloat16, c64
complex64, and so on. i4, u4 and i2 are unpacked to a byte per element when the model is planned.

{count} builtin operators in {files} files.

| operator | code | versions | file | types | remarks |
| --- | --- | --- | --- | --- | --- |
"""


class Seen(Exception):
    """Carries the types that an operator accepts for its first input."""


class Probe(Node):
    """A node that passes every check, to see which types the operator asks for."""

    __slots__ = ()

    def arity(self, *numbers: Any) -> None:
        pass

    def check(self, condition: Any, text: Any) -> None:
        pass

    def same_type(self, a: Value, b: Value) -> None:
        pass

    def types(self, value: Value, *allowed: str) -> None:
        if value is self.inputs[0]:
            raise Seen(*allowed)


def types_of(name: str, found: Operator) -> tuple[str, ...]:
    """Short names of the types of the first input, () where the operator does not say."""
    given = getattr(found, "accepted", None) or getattr(found, "types", None)
    if given:
        return tuple(given)
    values = [Value(f"in{k}", k, 0, "f32", (1, 2, 2, 4)) for k in range(24)]
    try:
        found.prepare(Probe(name, found, 0, 0, values, [Value("out", 24, 0, "f32", (1, 2, 2, 4))]))
    except Seen as seen:
        return seen.args
    except Exception:                    # it looked at something else first
        return ()
    return ()


def rows() -> Iterator[tuple[str, ...]]:
    """The cells of a row per operator, in the order of the table."""
    shared: dict[type, int] = {}
    for name in TABLE:
        shared[type(operator(name))] = shared.get(type(operator(name)), 0) + 1
    for name, row in TABLE.items():
        found = operator(name)
        assert found is not None, name
        about = inspect.cleandoc(type(found).__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        versions = str(row.versions[0]) if row.versions[0] == row.versions[1] else "{}-{}".format(*row.versions)
        yield (name, str(row.code), versions, f"[{row.module}.py](../ops/{row.module}.py)", " ".join(types_of(name, found)),
               about if shared[type(found)] <= 2 and about.rstrip(".") != name else "")


def document() -> str:
    """The text of docs/operators.md."""
    files = len({row.module for row in TABLE.values()})
    return HEAD.format(count=len(TABLE), files=files) + "".join(f"| {' | '.join(row)} |\n" for row in rows())


if __name__ == "__main__":
    (ROOT / "docs" / "operators.md").write_text(document())
