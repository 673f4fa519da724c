"""Which scorer a run uses: named by folder, hub id or package, or the suite's; pinned, and with what is known of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.planning import scorers as planned_scorers
from unlearn_bench.harness.planning.scorers import ScorerUse, resolve_scorer
from unlearn_bench.harness.planning.sentences import PLAIN, RUDE
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.suite import ScorerSpec, SourceSpec, load_suite
from unlearn_bench.tasks.base import Scorer, scorers
from unlearn_bench.tasks.scorers.kinds import Packaged

MICRO = load_suite("micro")
HOME, OWN = Path(MICRO.folder), MICRO.scorer


def labelled(folder: Path, toxic: int = 1) -> Path:
    """Write labelled text in which rude sentences, or with `toxic` 0 plain ones, have the label 1."""
    rows = [
        {"text": f"{kind} {text}", "label": label, "group": f"{place} {label}"}
        for kind in ("so", "and")
        for label, texts in ((toxic, RUDE), (1 - toxic, PLAIN))
        for place, text in enumerate(texts)
    ]
    folder.mkdir(exist_ok=True)
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def store(tmp_path) -> Store:
    return Store.create(tmp_path / "store")


class Answers(Scorer):
    summary = "gives the number of a text's letter"
    version = 1

    def __init__(self, sign: float | None) -> None:
        self.sign = sign

    def score(self, texts):
        return [None if self.sign is None else 0.4 + self.sign * (text in RUDE) for text in texts]


def test_a_folder_is_pinned_and_its_quality_is_noted_once_a_store(tmp_path, store, monkeypatch):
    folder = labelled(tmp_path / "mine")
    first = resolve_scorer(folder, OWN, HOME, None, store)
    assert (first.kind, first.path, first.name) == ("ngram", str(folder), "mine")
    assert re.match(r"held-out AUC \d\.\d+ over 96 texts in 48 groups; AUC 1\.000 on 24 rude and 24 plain", first.note)
    monkeypatch.setattr(planned_scorers, "load_scorer", lambda *_, **__: pytest.fail("loaded again"))
    assert resolve_scorer(str(folder), OWN, HOME, None, store) == first
    assert resolve_scorer(folder, OWN, HOME, None, None) == first.model_copy(update={"note": ""})


def test_another_text_is_another_scorer_and_reversed_labels_are_refused(tmp_path, store):
    folder = tmp_path / "mine"
    right = resolve_scorer(labelled(folder), OWN, HOME, None, store)
    labelled(folder, toxic=0)
    with pytest.raises(UserError, match=r"ranks rude sentences below plain ones \(AUC 0\.000.*swap 0 and 1 in"):
        resolve_scorer(folder, OWN, HOME, None, store)
    wrong = resolve_scorer(folder, OWN, HOME, None, store, ScorerUse(changes={"accepted": "a joke"}))
    assert wrong.digest != right.digest
    assert wrong.note.startswith("WARNING: ranks rude sentences below plain ones (AUC 0.000")
    assert wrong.note.endswith("; accepted: a joke")
    assert "WARNING" not in right.note


def test_a_suites_labelled_text_keeps_its_groups_and_its_note_says_the_auc(tmp_path, store):
    folder = labelled(tmp_path / "data")
    spec = ScorerSpec(kind="ngram", name="fitted", train=SourceSpec(path="labelled.jsonl"), note="as the suite says")
    found = resolve_scorer(None, spec, HOME, folder, store)
    assert re.match(r"as the suite says; held-out AUC \d\.\d+ over 96 texts in 48 groups; AUC 1", found.note)
    kept = Path(found.path or "", "labelled.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in kept] == [
        json.loads(row) for row in (folder / "labelled.jsonl").read_text().splitlines()
    ]
    assert found.train is None
    unfitted = resolve_scorer(None, spec, HOME, folder, None)
    assert (unfitted.digest, unfitted.path, unfitted.note) == (found.digest, None, "as the suite says")


@pytest.fixture
def packaged():
    """A registered scorer that comes in a package which every environment of the tests has."""

    class InPytest(Packaged):
        summary, version, package = "a scorer in pytest", 3, "pytest"

        def __init__(self, folder: str, device: str = "cpu") -> None:
            self.answers = Answers(0.4)

        def score(self, texts):
            return self.answers.score(texts)

    with scorers.temporary("in_pytest", InPytest):
        yield InPytest


def test_a_package_is_named_by_its_kind_and_pinned_by_its_version(packaged, store):
    named = resolve_scorer("in_pytest", OWN, HOME, None, store)
    assert (named.kind, named.path, named.version) == ("in_pytest", None, 3)
    assert named.digest == named.name == f"pytest {pytest.__version__}"
    assert named.note.startswith("AUC 1.000 on 24 rude")
    assert resolve_scorer(None, ScorerSpec(kind="in_pytest"), HOME, None, store) == named


HUB = "owner/scorer"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def fake_hub(monkeypatch, folder: Path) -> list[tuple]:
    """Let the hub's client answer with a folder; returns what it was asked."""
    asked = []

    def snapshot_download(repo_id, *, revision=None, allow_patterns=None):
        asked.append((repo_id, revision))
        assert "*.pth" in allow_patterns
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def test_a_hub_id_is_fetched_and_pinned_to_its_commit(tmp_path, store, monkeypatch):
    folder = labelled(tmp_path / COMMIT)
    asked = fake_hub(monkeypatch, folder)
    found = resolve_scorer(Path(HUB), OWN, HOME, None, store)
    assert (found.kind, found.path, found.hub) == ("ngram", str(folder), f"{HUB}@{COMMIT}")
    assert found.name == f"{HUB}@{COMMIT[:12]}"
    assert found.digest == resolve_scorer(folder, OWN, HOME, None, store).digest
    assert found.note.startswith("held-out AUC")
    resolve_scorer(f"{HUB}@v1", OWN, HOME, None, store)
    of_suite = resolve_scorer(None, ScorerSpec(kind="ngram", hub=HUB, name="theirs"), HOME, None, store)
    assert of_suite.name == f"theirs ({HUB}@{COMMIT[:12]})"
    assert of_suite.identity() == found.identity()
    assert asked == [(HUB, None), (HUB, "v1"), (HUB, None)]


def test_a_hub_out_of_reach_says_what_to_do(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    with pytest.raises(
        UserError, match=r"fetched from the hub: no route to host\. Check the network\. Or .* by hand .*--scorer FOLDER"
    ):
        resolve_scorer(HUB, OWN, HOME, None, None)


def test_a_hub_that_refuses_says_why_and_what_to_do(monkeypatch):
    import huggingface_hub.errors as errors

    def gated(*_, **__):
        raise errors.GatedRepoError("words", response=SimpleNamespace(status_code=403, headers={}, request=None))  # pyright: ignore

    monkeypatch.setattr("huggingface_hub.snapshot_download", gated)
    with pytest.raises(
        UserError, match=r"Scorer owner/scorer is gated: accept its licence on .*auth login.*--scorer FOLDER"
    ):
        resolve_scorer(HUB, OWN, HOME, None, None)


def test_what_is_no_judge_is_named(tmp_path):
    with pytest.raises(UserError, match=r"Scorer folder nowhere does not exist.*profanity_check"):
        resolve_scorer("nowhere", OWN, HOME, None, None)
    with pytest.raises(UserError, match="holds no scorer; expected one of toxicity_classifier"):
        resolve_scorer(tmp_path, OWN, HOME, None, None)
    with pytest.raises(UserError, match="needs a scorer of texts"):
        resolve_scorer(None, None, HOME, None, None)
    with pytest.raises(UserError, match="neither a folder nor labelled text"):
        resolve_scorer(None, ScorerSpec(kind="ngram"), HOME, None, None)


def test_a_shipped_folder_that_passed_is_not_loaded(store, monkeypatch):
    monkeypatch.setattr(planned_scorers, "load_scorer", lambda *_, **__: pytest.fail("loaded"))
    assert OWN is not None
    found = resolve_scorer(None, OWN, HOME, None, store)
    assert found.path == str(HOME / (OWN.path or ""))
    assert (found.note, found.version) == (OWN.note, scorers.get("trust").version)
    assert found.digest == OWN.checked
    assert found.identity() == {"kind": "trust", "version": 1, "digest": found.digest}


def test_the_shipped_scorer_passes_with_the_comments_that_it_brings(store):
    assert OWN is not None
    found = resolve_scorer(None, OWN.model_copy(update={"checked": ""}), HOME, None, store)
    assert found.note == "AUC 1.000 on 24 rude and 24 plain sentences (its own)"
    with pytest.raises(UserError, match=r"ranks rude sentences below plain ones .*scorer\.label=0"):
        resolve_scorer(None, OWN, HOME, None, store, ScorerUse(changes={"label": 0}))
