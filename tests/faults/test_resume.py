"""Work that is interrupted within a cell goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from unlearn_bench.harness import Request
from unlearn_bench.harness.jobs import evaluate as measure
from unlearn_bench.harness.jobs.job import EvalJob
from unlearn_bench.harness.jobs.worker import run_job
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.runtime import Event, RunConfig
from unlearn_bench.harness.store.entries import Entry, Store
from unlearn_bench.harness.suite import ScorerSpec
from unlearn_bench.harness.transforms import train
from unlearn_bench.harness.transforms.base import BuildJob
from unlearn_bench.tasks.base import scorers
from unlearn_bench.tasks.testing import PickyScorer

STEPS, ITEMS, PART = 8, 24, 10
MEASURED = (("outcomes", "outcomes.jsonl"), ("records", "records.jsonl"))


class Killed(BaseException):
    """What ends a job as a signal does: no handler of errors sees it."""


@dataclass
class Work:
    """A planned training and what is asked of it, in a store."""

    plan: Plan
    store: Store

    def jobs(self) -> tuple[BuildJob, EvalJob]:
        """The training of the method, and its measurement on every task."""
        (cell,) = (cell for cell in self.plan.cells if cell.spec.method == "npo")
        place = RunConfig(store=self.store.root, device="cpu", threads=1, batch_size=16)
        model = self.plan.models[cell.model]
        text = self.plan.suite.tracks["toxicity"].corpora
        tasks = tuple(self.plan.tasks.values())
        folder = Path(self.plan.data_folder or "")
        return BuildJob(place, model, cell.spec, text, folder), EvalJob(place, model, cell.spec, tasks, "transformers")

    def bytes_of(self, section: str, name: str) -> dict[str, bytes]:
        """What the entries of a section hold in a file."""
        return {path.parent.name: path.read_bytes() for path in (self.store.root / section).rglob(name)}

    def pieces(self) -> list[Path]:
        """Pieces that lie in the store."""
        return sorted(self.store.root.rglob("*.piece"))

    def files_of_pieces(self) -> list[Path]:
        """Pieces without their notes."""
        return [path for path in self.pieces() if ".json" not in path.name]


def work(folder: Path) -> Work:
    asked = Request(
        methods=("npo",), tracks=("toxicity",), limit=ITEMS, noise=False, settings=(f"training.steps={STEPS}",)
    )
    return Work(make_plan(asked, None), Store.create(folder))


def until(done: Callable[[Event], bool]) -> tuple[list[Event], Callable[[Event], None]]:
    """Return a list of what is reported, and a report that ends the job as soon as an event is `done`."""
    seen: list[Event] = []

    def report(event: Event) -> None:
        seen.append(event)
        if done(event):
            raise Killed

    return seen, report


@pytest.fixture(autouse=True)
def often(monkeypatch):
    """Keep the state of training after every step, and answers by small parts."""
    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(measure, "PART", PART)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Work:
    """The same work without any interruption, in the same parts."""
    whole = work(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "PART", PART)
        for job in whole.jobs():
            run_job(job, lambda event: None)
    return whole


def flip(file: Path) -> None:
    """Change one bit of a file."""
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(raw)


def killed_in_the_third_part(folder: Path, stage: str) -> tuple[Work, EvalJob, list[Path]]:
    """Make a checkpoint and kill its measurement in a stage; return the work, the measurement and what it kept."""
    here = work(folder)
    make, ask = here.jobs()
    run_job(make, lambda event: None)
    _, kill = until(lambda event: event.stage == stage and event.done > 2 * PART)
    with pytest.raises(Killed):
        run_job(ask, kill)
    return here, ask, here.files_of_pieces()


@pytest.fixture
def never_slow(monkeypatch):
    """No pause after a save, however long it took."""
    clock = iter(range(10**6))
    monkeypatch.setattr(train.time, "monotonic", lambda: next(clock))


def test_training_goes_on_and_ends_with_the_same_bytes(tmp_path, undisturbed, never_slow) -> None:
    here = work(tmp_path)
    make, _ = here.jobs()
    _, kill = until(lambda event: event.done == 5)
    with pytest.raises(Killed):
        run_job(make, kill)
    assert len(here.pieces()) == 2, "one state with its note"
    seen, report = until(lambda event: False)
    run_job(make, report)
    assert 1 <= len(seen) < STEPS
    print(f"killed at step 5 of {STEPS}, {len(seen)} steps after it; the same bytes")
    assert here.bytes_of("cells", "delta.safetensors") == undisturbed.bytes_of("cells", "delta.safetensors")
    assert here.bytes_of("cells", "training.jsonl") == undisturbed.bytes_of("cells", "training.jsonl")
    assert not here.pieces()


@pytest.mark.parametrize("harm", ["flipped", "other maker"])
def test_a_state_that_does_not_count_is_not_gone_on_from(harm, tmp_path, undisturbed, never_slow, monkeypatch) -> None:
    here = work(tmp_path)
    make, _ = here.jobs()
    _, kill = until(lambda event: event.done == 5)
    with pytest.raises(Killed):
        run_job(make, kill)
    if harm == "flipped":
        (state,) = here.files_of_pieces()
        flip(state)
    else:
        monkeypatch.setattr(train, "environment_facts", lambda config: {"torch": "of another time"})
    seen, report = until(lambda event: False)
    run_job(make, report)
    assert len(seen) == STEPS
    assert here.bytes_of("cells", "delta.safetensors") == undisturbed.bytes_of("cells", "delta.safetensors")


def test_an_error_of_training_takes_its_state_away(tmp_path, never_slow) -> None:
    here = work(tmp_path)
    make, _ = here.jobs()

    def fail(event: Event) -> None:
        if event.done == 5:
            raise RuntimeError("a mistake that will be repaired")

    with pytest.raises(RuntimeError, match="repaired"):
        run_job(make, fail)
    assert not here.pieces()


def test_answers_go_on_by_parts_and_end_with_the_same_bytes(tmp_path, undisturbed) -> None:
    here, ask, kept = killed_in_the_third_part(tmp_path, "realtoxicityprompts")
    assert [path.name for path in kept] == [".answers-0.piece", ".answers-10.piece"]
    assert Entry(kept[0].parent).manifest() is None
    seen, report = until(lambda event: False)
    run_job(ask, report)
    assert [event.done for event in seen if event.stage == "realtoxicityprompts"][:2] == [PART, 2 * PART]
    print(f"killed in answering {ITEMS} items, {ITEMS - 2 * PART} answered after it; the same bytes")
    for section, name in MEASURED:
        assert here.bytes_of(section, name) == undisturbed.bytes_of(section, name)
    assert not here.pieces()


@pytest.mark.parametrize("harm", [None, "flipped"])
def test_judgements_go_on_by_parts_and_end_with_the_same_bytes(harm, tmp_path, undisturbed, monkeypatch) -> None:
    here, ask, kept = killed_in_the_third_part(tmp_path, "realtoxicityprompts, judged")
    assert [path.name for path in kept] == [".judged-0.piece", ".judged-10.piece"]
    if harm:
        flip(kept[0])
    asked: list[int] = []
    real = measure.loaded_scorer

    def counted(*arguments):
        scorer = real(*arguments)
        return SimpleNamespace(score=lambda texts: asked.append(len(texts)) or scorer.score(texts))

    monkeypatch.setattr(measure, "loaded_scorer", counted)
    seen, report = until(lambda event: False)
    run_job(ask, report)
    total = next(event.total for event in seen if event.stage == "realtoxicityprompts, judged")
    assert sum(asked) == total - (PART if harm else 2 * PART) > PART
    assert max(asked) == PART
    print(f"killed in judging {total} texts, {sum(asked)} judged after it; the same bytes")
    for section, name in MEASURED:
        assert here.bytes_of(section, name) == undisturbed.bytes_of(section, name)
    assert not here.pieces()


def test_a_part_stands_for_its_own_texts_alone(tmp_path) -> None:
    entry = Store.create(tmp_path).entry("records", "abc")
    with scorers.temporary("picky", PickyScorer):
        scorer = measure.PartialScorer(
            ScorerSpec(kind="picky"),
            entry,
            RunConfig(store=tmp_path, device="cpu", threads=1, batch_size=16),
            lambda done, total: None,
        )
    first, second = ([f"{kind} {number}" for number in range(3 * PART)] for kind in ("one", "other"))
    assert scorer.score(first) == PickyScorer().score(first)
    assert scorer.score(second) == PickyScorer().score(second)
    assert scorer.score(second) == PickyScorer().score(second)
