"""Work that is interrupted within a cell goes on where it was, and ends as if nothing had happened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from unlearn_bench.harness import Request, measure
from unlearn_bench.harness.jobs import Event, MakeJob, MeasureJob, Place, run_job
from unlearn_bench.harness.plan import Plan
from unlearn_bench.harness.planning import make_plan
from unlearn_bench.harness.store import Entry, Store
from unlearn_bench.harness.transforms import train

STEPS, ITEMS, PART = 8, 24, 10


class Killed(BaseException):
    """What ends a job as a signal does: no handler of errors sees it."""


@dataclass
class Work:
    """A planned training and what is asked of it, in a store."""

    plan: Plan
    store: Store

    def jobs(self) -> tuple[MakeJob, MeasureJob]:
        """The training of the method, and its measurement on every task."""
        (cell,) = (cell for cell in self.plan.cells if cell.spec.method == "npo")
        place = Place(self.store.root, "cpu", 1, 16)
        model = self.plan.models[cell.model]
        text = self.plan.suite.tracks["toxicity"].corpora
        tasks = tuple(self.plan.tasks.values())
        folder = Path(self.plan.data_folder or "")
        return MakeJob(place, model, cell.spec, text, folder), MeasureJob(
            place, model, cell.spec, tasks, "transformers"
        )

    def bytes_of(self, section: str, name: str) -> dict[str, bytes]:
        """What the entries of a section hold in a file."""
        return {path.parent.name: path.read_bytes() for path in (self.store.root / section).rglob(name)}

    def pieces(self) -> list[Path]:
        """Pieces that lie in the store."""
        return sorted(self.store.root.rglob("*.piece"))


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
        (state,) = (path for path in here.pieces() if ".json" not in path.name)
        raw = bytearray(state.read_bytes())
        raw[len(raw) // 2] ^= 1
        state.write_bytes(raw)
    else:
        monkeypatch.setattr(train, "maker", lambda place: {"torch": "of another time"})
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
    here = work(tmp_path)
    make, ask = here.jobs()
    run_job(make, lambda event: None)
    _, kill = until(lambda event: event.stage == "realtoxicityprompts" and event.done > 2 * PART)
    with pytest.raises(Killed):
        run_job(ask, kill)
    kept = [path for path in here.pieces() if ".json" not in path.name]
    assert [path.name for path in kept] == [".answers-0.piece", ".answers-10.piece"]
    assert Entry(kept[0].parent).manifest() is None
    seen, report = until(lambda event: False)
    run_job(ask, report)
    assert [event.done for event in seen if event.stage == "realtoxicityprompts"][:2] == [PART, 2 * PART]
    for section, name in (("outcomes", "outcomes.jsonl"), ("records", "records.jsonl")):
        assert here.bytes_of(section, name) == undisturbed.bytes_of(section, name)
    assert not here.pieces()
