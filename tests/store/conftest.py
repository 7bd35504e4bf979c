"""Fixtures of the tests of the store."""
import logging

import pytest


@pytest.fixture
def root(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def warnings(caplog):
    caplog.set_level(logging.WARNING, logger="litejit")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "litejit"]
