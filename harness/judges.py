"""Judges: which folder scores texts, of which kind, told by the files it holds."""

from __future__ import annotations

from pathlib import Path

from ..tasks.base import scorers
from .data import load_rows
from .errors import UserError
from .files import folder_digest, write_jsonl
from .store import Store
from .suite import ScorerSpec, SuiteSpec

SCORER_FILES = ("*.pth", "*.json", "*.jsonl", "*.safetensors", "vocab.txt")


def resolve_judge(asked: Path | None, suite: SuiteSpec, folder: Path, store: Store | None) -> ScorerSpec:
    """Return the judge: the folder the user named, the suite's own, or one trained on its labelled text."""
    if asked is not None:
        if not asked.is_dir():
            raise UserError(f"Judge folder {asked} does not exist.")
        kind = next((kind for file, kind in _KINDS.items() if (asked / file).is_file()), None)
        if kind is None:
            raise UserError(f"{asked} holds no judge; expected one of {', '.join(_KINDS)}.")
        chosen = ScorerSpec(kind=kind, path=str(asked.resolve()), name=asked.resolve().name)
    elif suite.scorer is None:
        raise UserError(f"Suite {suite.name} needs a judge of texts; pass one with --scorer FOLDER.")
    elif suite.scorer.path is not None:
        chosen = suite.scorer.model_copy(update={"path": str(Path(suite.folder) / suite.scorer.path), "train": None})
    else:
        return _trained_scorer(suite.scorer, folder, store)
    files = folder_digest(Path(chosen.path or ""), SCORER_FILES)
    return chosen.model_copy(update={"digest": files, "version": scorers.get(chosen.kind).version})


_KINDS = {
    "toxicity_classifier.pth": "trust",
    "labelled.jsonl": "ngram",
    "config.json": "sequence_classifier",
}
"""The file that gives a judge's kind away, the telling ones first."""


def _trained_scorer(scorer: ScorerSpec, folder: Path, store: Store | None) -> ScorerSpec:
    """Put the labelled text of a judge that is fitted when loaded into the store, and point to it."""
    if scorer.train is None:
        raise UserError("The suite's judge has neither a folder nor labelled text; pass --scorer FOLDER.")
    rows = load_rows(scorer.train, folder)
    path = None
    if store is not None:
        target = store.root / "scorers" / rows.digest
        target.mkdir(parents=True, exist_ok=True)
        write_jsonl(target / "labelled.jsonl", [{"text": row["text"], "label": row["label"]} for row in rows.rows])
        path = str(target)
    version = scorers.get(scorer.kind).version
    return scorer.model_copy(update={"path": path, "digest": rows.digest, "version": version, "train": None})
