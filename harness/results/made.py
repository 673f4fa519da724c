"""Whether a board or a report is what its run's results come to: a note beside it says what it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...leaderboards.stats.formula import statistics
from ...methods.base import methods
from ...tasks.base import tasks
from ..planning.plan import Plan
from ..planning.status import CellStatus
from ..specs import digest
from ..store.entries import Store
from ..store.files import file_sha256, write_text

PACKAGE = Path(__file__).resolve().parents[2]
CODE = ("harness", "leaderboards", "methods", "reports", "tasks")
"""Folders of the package whose code may have a say in a board or a report."""
TEXT = (".py", ".css", ".html", ".js")


def inputs_of(plan: Plan, store: Store, cells: Sequence[CellStatus], *more: Any) -> str | None:
    """Return a digest of all that is shown of a run: its plan, results, and the code that reads them; `more` as well.

    None where code beyond this package has a say: nobody knows when that changes.
    """
    kinds = {cell.spec.settings["method"] for cell in plan.cells if "method" in cell.spec.settings}
    own = (
        *map(methods.is_own, kinds),
        *(tasks.is_own(task.spec.task) for task in plan.tasks.values()),
        *(statistics.is_own(spec.statistic) for spec in plan.suite.composites.values()),
    )
    if not all(own):
        return None
    return digest([version("unlearn-bench"), _code(), plan.model_dump(mode="json"), _results(store, cells), *more])


@cache
def _code() -> list[list[str]]:
    """Return the package's files with their sha256, as this process found them."""
    return [
        [str(file.relative_to(PACKAGE)), file_sha256(file)]
        for folder in CODE
        for file in sorted((PACKAGE / folder).rglob("*"))
        if file.suffix in TEXT
    ]


def _results(store: Store, cells: Sequence[CellStatus]) -> list[Any]:
    """Return what the store holds of each cell, and why it failed."""
    return [
        [
            status.cell.model_dump(mode="json"),
            status.failure,
            store.entry("cells", status.cell.id).manifest(),
            *([task, entry.manifest()] for of in (status.outcomes, status.records) for task, entry in of.items()),
        ]
        for status in cells
    ]


def is_made(inputs: str | None, *files: Path) -> bool:
    """Tell whether files are as they were written when they were made from these inputs.

    What cannot be read is not, and is made again.
    """
    try:
        return inputs is not None and _note(files).read_bytes() == _text(inputs, files).encode()
    except OSError:
        return False


def note_made(inputs: str | None, *files: Path) -> None:
    """Keep beside files that they were made from these inputs."""
    if inputs is None:
        _note(files).unlink(missing_ok=True)
    else:
        write_text(_note(files), _text(inputs, files))


def _note(files: Sequence[Path]) -> Path:
    return files[0].with_suffix(".made")


def _text(inputs: str, files: Sequence[Path]) -> str:
    return "".join(f"{line}\n" for line in (inputs, *map(file_sha256, files)))
