"""The documentation says what the code does: settings, defaults, names, links."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.methods.base import methods
from unlearn_bench.tasks.base import tasks

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md"))]


def built_in(registry: Any, package: str) -> list[str]:
    return [name for name in registry.names() if registry.get(name).__module__.startswith(f"unlearn_bench.{package}.")]


def sections(text: str) -> dict[str, str]:
    """Return the text below each heading of the second level, by the heading without backticks."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return {title.replace("`", "").strip(): body for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def settings_table(section: str) -> dict[str, str]:
    """Return default by name of the rows `| name | default | meaning |` whose first two cells are code."""
    return dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \| [^|]+ \|$", section, flags=re.MULTILINE))


def written(default: Any) -> str:
    """Return a default as one would type it after `--set`."""
    return default if isinstance(default, str) else json.dumps(default)


@pytest.fixture(scope="module")
def methods_page(root: Path) -> dict[str, str]:
    return sections((root / "docs" / "methods.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", built_in(methods, "methods"))
def test_every_setting_of_a_method_stands_in_its_section_with_its_default(name, methods_page):
    assert name in methods_page, f"docs/methods.md has no section `{name}`"
    fields = methods.get(name).Settings.model_fields
    defaults = {field: written(info.get_default(call_default_factory=True)) for field, info in fields.items()}
    assert settings_table(methods_page[name]) == defaults


@pytest.mark.parametrize("name", built_in(methods, "methods"))
def test_a_methods_section_links_its_source(name, methods_page):
    assert f"](../methods/{name}.py)" in methods_page[name]
    cited = re.findall(r"arXiv (\d{4}\.\d{5})", methods.get(name).citation)
    assert cited
    assert all(f"https://arxiv.org/abs/{paper}" in methods_page[name] for paper in cited)


def test_nulls_and_imports_have_sections(methods_page):
    assert {"base", "noise", "imports"} <= methods_page.keys()


@pytest.mark.parametrize("name", built_in(tasks, "tasks"))
def test_every_task_is_spoken_of(name, root: Path):
    assert f"`{name}`" in (root / "docs" / "micro.md").read_text(encoding="utf-8")


def test_the_revision_of_the_embedded_suite_has_its_row(root: Path):
    text = (root / "docs" / "micro.md").read_text(encoding="utf-8")
    assert re.search(rf"^\| {load_suite('micro').revision} \|", sections(text)["Revisions"], flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page, root: Path):
    file = root / page
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", file.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (file.parent / target).exists()]
    assert not broken
