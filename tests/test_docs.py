"""The documentation says what the code does: settings, defaults, names, links, commands and what they print."""

from __future__ import annotations

import difflib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import click
import pytest
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.methods.base import methods
from unlearn_bench.tasks.base import tasks

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", *DOCS]
RUNNER = ROOT / "tests" / "manual.py"
NOT_RUN = {
    ("docs/adding-a-task.md", "needs a model and data"),
    ("docs/cluster.md", "it would start processes that outlive the page"),
    ("docs/tutorial.md", "it would install the project that the test runs"),
    ("docs/tutorial.md", "needs a model folder and data"),
}
"""The blocks of the manual that no test runs, and why."""
MEASURED = re.compile(r"\d+\.\d{3}\b")
"""Numbers of boards, whose last digit may be the next one on another processor."""


def load_runner() -> Any:
    spec = spec_from_file_location("manual_runner", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


BLOCKS = {page: load_runner().blocks((ROOT / page).read_text(encoding="utf-8")) for page in DOCS}
MANUAL = [page for page, found in BLOCKS.items() if any(block.kind == "console" or block.mark for block in found)]
SLOW = [page for page in MANUAL if any(block.mark == "slow" for block in BLOCKS[page])]


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
def test_the_section_of_a_method_has_its_settings_and_source(name, methods_page):
    section = methods_page.get(name)
    if section is None:
        pytest.skip(f"docs/methods.md has no section `{name}`; its card is generated from the code")
    fields = methods.get(name).Settings.model_fields
    defaults = {field: written(info.get_default(call_default_factory=True)) for field, info in fields.items()}
    assert settings_table(section) == defaults
    assert f"](../methods/{name}.py)" in section
    assert "https://arxiv.org/abs/" in section


def test_nulls_and_imports_have_sections(methods_page):
    assert {"base", "noise", "imports"} <= methods_page.keys()


@pytest.mark.parametrize("name", sorted({spec.task for spec in load_suite("micro").tasks.values()}))
def test_every_task_of_the_embedded_suite_is_spoken_of(name, root: Path):
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


def alike(said: str, printed: str) -> bool:
    """Whether two texts are the same but for the last digit of measured numbers."""
    ours, theirs = ([float(number) for number in MEASURED.findall(text)] for text in (said, printed))
    return MEASURED.sub("#", said) == MEASURED.sub("#", printed) and theirs == pytest.approx(ours, rel=0, abs=1.1e-3)


def test_only_the_last_digit_of_measured_numbers_may_differ():
    row = "| 1 | rmu | 0.451 [0.275, 0.615] | +0.182 | 60 / 60 | 3.11 |"
    assert alike(row, row.replace("0.615", "0.616").replace("0.451", "0.450"))
    for old, new in {"0.615": "0.617", "+0.182": "-0.182", "60 / 60": "60 / 59", "3.11": "3.12", "rmu": "base"}.items():
        assert not alike(row, row.replace(old, new))


@pytest.fixture(scope="module")
def held() -> Iterator[Callable[..., None]]:
    """Hold a page to what its commands print; one process, which has the libraries loaded, runs all pages."""
    line = [sys.executable, str(RUNNER), "--serve"]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        stdin, stdout = runner.stdin, runner.stdout

        def hold(page: str, *, slow: bool = False) -> None:
            print(json.dumps([page, slow]), file=stdin, flush=True)
            error, printed = json.loads(stdout.readline())
            assert not error, error
            said = (ROOT / page).read_text(encoding="utf-8")
            lines = difflib.unified_diff(said.splitlines(), printed.splitlines(), "the page", "its run", n=2)
            change, command = "\n".join(lines), f"python tests/manual.py --write {page}{' --slow' if slow else ''}"
            assert not change or alike(said, printed), f"{command} writes what is printed now:\n{change}"

        yield hold
        stdin.close()


@pytest.mark.parametrize("page", MANUAL)
def test_what_a_page_shows_is_what_its_commands_print(held, page: str):
    held(page)


@pytest.mark.slow
@pytest.mark.parametrize("page", SLOW)
def test_the_slow_blocks_of_a_page_print_what_it_shows(held, page: str):
    held(page, slow=True)


def test_only_these_blocks_are_not_run():
    found = {(page, block.skipped) for page, blocks in BLOCKS.items() for block in blocks if block.skipped}
    assert found == NOT_RUN


def commands_of(page: str) -> list[str]:
    """Return the command lines of a page's fenced blocks, without a prompt, a comment or what follows a pipe."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line for block in fenced for line in block.replace("\\\n", " ").splitlines()]
    found = [re.match(r"(?:\$ )?unlearn-bench (?P<line>.*?)(?: [|>] .*| +# .*)?$", line) for line in lines]
    return [match["line"] for match in found if match]


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of(page)])
def test_every_command_of_a_page_is_one(page: str):
    for line in commands_of(page):
        name, *arguments = shlex.split(line)
        assert name in main.commands, line
        try:
            main.commands[name].make_context(name, arguments)
        except click.ClickException as error:
            pytest.fail(f"{page}: unlearn-bench {line}: {error.format_message()}")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The manual, built strictly: a link or anchor that leads nowhere fails the build."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_reference_has_every_method_task_key_and_command(site: Path):
    pages = {
        name: (site / "reference" / f"{name}.html").read_text() for name in ("methods", "tasks", "commands", "api")
    }
    for registry, name in ((methods, "methods"), (tasks, "tasks")):
        for thing in built_in(registry, name):
            assert f'id="{thing}"' in pages[name]
            assert all(f"<code>{field}</code>" in pages[name] for field in registry.get(thing).Settings.model_fields)
    assert all(f'id="{name}"' in pages["commands"] for name in main.commands)
    assert 'id="unlearn_bench.methods.base.Context.hidden"' in pages["api"]


@pytest.mark.slow
def test_a_link_to_code_leads_to_a_page_that_shows_it(site: Path):
    [link] = set(re.findall(r'href="([^"]+)">methods/rmu.py<', (site / "methods.html").read_text()))
    assert "def target" in re.sub(r"<[^>]+>", "", (site / link).read_text())
    assert str(ROOT) not in (site / link).read_text()
