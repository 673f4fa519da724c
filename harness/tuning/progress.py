"""How far a search is, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from ..store.entries import Store
from .trial import Trial


class Progress:
    """Counts the trainings of a search; those that ran since it began, and not before, set the pace of the rest.

    Args:
        total: trainings of the whole search.
        output: folder of its store.
    """

    def __init__(self, total: int, output: Path) -> None:
        self.total, self.output = total, output
        self.done = self.ran = 0
        self.began = time.time()

    def after(self, trials: Iterable[Trial]) -> str:
        """Count trials that have ended; return what is done, and how many minutes the rest takes at most."""
        cells = [cell for trial in trials for cell in trial.cells]
        self.done += len(cells)
        store = Store.open(self.output)
        manifests = (store.entry("cells", cell).file("manifest.json") for cell in cells)
        self.ran += sum(path.is_file() and path.stat().st_mtime >= self.began for path in manifests)
        if not self.ran:
            return f"{self.done} of {self.total} trainings"
        left = (time.time() - self.began) / self.ran * (self.total - self.done) / 60
        return f"{self.done} of {self.total} trainings, about {left:.0f} minutes left"
