"""How long a search takes, by the trainings that its store holds when it is planned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..api import default_workers
from ..models.load import find_device
from ..planning.build import make_plan
from ..records import Printable
from ..runtime import RunOptions
from ..store.entries import Store
from ..store.identity import CellSpec
from .study import Study, round_request


@dataclass(frozen=True)
class StudyOutlook(Printable):
    """What a search would do and how long it takes.

    Attributes:
        study: the search.
        workers: trainings at once.
        known: trainings of its methods, tracks and seeds that its store holds.
        seconds: what one of them took with its answers, a mean in which methods and tracks count alike; None: there is
            none.
    """

    study: Study
    workers: int
    known: int
    seconds: float | None

    @property
    def minutes(self) -> float | None:
        """Minutes of the whole search, what is finished included; None: nobody knows."""
        return None if self.seconds is None else round(self.study.trainings * self.seconds / self.workers / 60, 1)

    def facts(self) -> dict[str, Any]:
        """Return what the search would do, and its time."""
        pace = {"workers": self.workers, "known": self.known, "seconds": self.seconds, "minutes": self.minutes}
        return {**self.study.facts(), "time": pace}

    def to_text(self) -> str:
        """Return what the search would do, and its time in a sentence."""
        if self.seconds is None:
            return f"{self.study.to_text()}How long it takes is said when its store holds a training.\n"
        return (
            f"{self.study.to_text()}{self.known} of its kind are in the store, {self.seconds:.1f} s each: about"
            f" {self.minutes:.0f} minutes in all with {self.workers} at once.\n"
        )


def outlook(study: Study, output: Path, options: RunOptions) -> StudyOutlook:
    """Return what a search would do and how long it takes by the store at `output`; runs nothing."""
    plan = make_plan(round_request(study.request, study.suite, study.tracks[0], {}), None)
    workers = options.workers or default_workers(plan, find_device(options.device))
    seconds = _seconds(study, Store.open(output)) if (output / "store.json").is_file() else {}
    by_place: dict[tuple[str | None, str], list[float]] = {}
    for cell, spent in seconds.values():
        by_place.setdefault((cell.track, cell.method), []).append(spent)
    mean = round(fmean(map(fmean, by_place.values())), 2) if by_place else None
    return StudyOutlook(study, workers, len(seconds), mean)


def _seconds(study: Study, store: Store) -> Mapping[str, tuple[CellSpec, float]]:
    """Return by label the study's trainings that the store holds, and what each took with its answers."""
    manifests = {part: [e.manifest() or {} for e in store.entries(part)] for part in ("cells", "outcomes")}
    cells = [(CellSpec.model_validate(made["cell"]), made) for made in manifests["cells"] if made]
    answers: Counter[str] = Counter()
    for answered in manifests["outcomes"]:
        answers[answered.get("cell", "")] += answered.get("recorded", {}).get("seconds", 0)
    return {
        cell.label: (cell, made["recorded"]["seconds"] + answers[cell.label])
        for cell, made in cells
        if cell.method in study.methods and cell.track in study.tracks and cell.seed in study.final_seeds
    }
