"""docs/errors.md is what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def maker(root: Path) -> dict:
    return runpy.run_path(str(root / "tests" / "errors_page.py"))


def test_the_catalogue_of_errors_is_current(maker: dict, root: Path) -> None:
    written = (root / "docs" / "errors.md").read_text(encoding="utf-8")
    assert written == maker["page"](root), "run `python tests/errors_page.py`"


def test_the_catalogue_follows_messages_to_where_they_are_made(maker: dict, root: Path) -> None:
    found = maker["Messages"](root).by_file()
    assert any("is gated: accept its licence" in text for text in found["harness/models/hub.py"])
    assert any("cannot be written" in text for text in found["harness/store/entries.py"])
    assert sum(map(len, found.values())) > 200
