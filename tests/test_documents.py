"""The documents: their code runs, their generated parts are up to date, their links lead somewhere."""
from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tests.conftest import load_module

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def test_code_of_the_pipeline_runs() -> None:
    fill = load_module("litejit_docs_fill", ROOT / "docs" / "fill.py").fill
    text = (ROOT / "docs" / "pipeline.md").read_text()
    assert len(re.findall("```text", fill(text))) == len(re.findall("```text", text)) > 15


def test_operators_are_up_to_date() -> None:
    made = load_module("litejit_docs_operators", ROOT / "docs" / "make_operators.py").document()
    assert (ROOT / "docs" / "operators.md").read_text() == made, "run python docs/make_operators.py"


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_counts_are_up_to_date(name: str) -> None:
    from litejit.ops.table import TABLE

    assert re.findall(r"(\d+) builtin operators", (ROOT / name).read_text()) == [str(len(TABLE))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text()):
        assert target.startswith(("https://", "http://")) or (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_files_named_in_documents_exist(path: Path) -> None:
    for name in re.findall(r"`((?:litejit|ops|planner|tests|docs|benchmarks|notebooks)/[\w/.]+)`", path.read_text()):
        assert (ROOT / name).exists() or name.endswith("add_n.py"), name        # the example of CONTRIBUTING.md


def test_the_operator_of_the_recipe_works(monkeypatch: pytest.MonkeyPatch) -> None:
    from litejit.ops import table

    code, test = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    row = re.search(r'^ +"ADD_N": (Row\(.*\)),$', (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert row is not None
    module = ModuleType("litejit.ops.add_n")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(code, "add_n.py", "exec"), vars(module))
    monkeypatch.setitem(table.TABLE, "ADD_N", eval(row[1], {"Row": table.Row}))
    monkeypatch.setitem(table._loaded, "ADD_N", module.OPERATORS["ADD_N"])
    names: dict[str, Any] = {}
    exec(compile(test, "test_add_n.py", "exec"), names)
    for dtype in (np.float32, np.int32):
        for shape in ((), (3, 5), (70_000,), (0, 2)):
            names["test_sums"](dtype, shape)
    names["test_refuses_other_shapes"]()
