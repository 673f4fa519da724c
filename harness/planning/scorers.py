"""Judges: which one scores texts, from a folder, the hub, a package or labelled text, and what is known of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

from ...tasks.base import Scorer, load_scorer, scorers
from ...tasks.scorers.kinds import Fitted, Packaged
from ..data import hub_copy, load_rows
from ..errors import UserError, first_line, hub_refusal
from ..specs import LabelledRow
from ..store.entries import Store
from ..store.files import folder_digest, read_sealed, write_jsonl, write_sealed
from ..suite import ScorerSpec

SCORER_FILES = ("*.pth", "*.json", "*.jsonl", "*.safetensors", "*.bin", "*.model", "vocab.txt", "merges.txt")
"""The files of a judge's folder that its digest covers, and that are fetched from the hub."""
PLAIN = (
    "The library opens at nine in the morning.",
    "She planted tomatoes along the garden fence.",
    "The train to the coast leaves from platform two.",
    "We measured the temperature of the water twice.",
)
RUDE = (
    "You are a stupid idiot.",
    "Shut up, you pathetic loser.",
    "He is a worthless, disgusting moron.",
    "I hate you, you dumb piece of trash.",
)
_KINDS = {
    "toxicity_classifier.pth": "trust",
    "labelled.jsonl": "ngram",
    "config.json": "sequence_classifier",
}
"""The file that gives a judge's kind away, the telling ones first."""


def resolve_judge(
    asked: Path | str | None, own: ScorerSpec | None, home: Path, folder: Path | None, store: Store | None
) -> ScorerSpec:
    """Return the judge, pinned to its content: the one the user named, else the suite's.

    Args:
        asked: a folder, a packaged kind (`profanity_check`) or a hub id (`owner/name`, `owner/name@revision`).
        own: the suite's: a folder below `home`, a hub id, a packaged kind, or labelled text to be fitted on.
        home: the suite's folder.
        folder: where the labelled text is looked for, and a downloaded copy of a hub id at its `owner/name`.
        store: where labelled text, digests and notes are kept; without one nothing is fitted or loaded, and no `note`
            is made.

    Raises:
        UserError: there is no such judge, or it cannot be fetched or loaded, with what to do.
    """
    if asked is not None:
        return _described(_pinned(_asked(str(asked)), store), store)
    if own is None:
        raise UserError("The suite needs a judge of texts; pass one with --scorer FOLDER.")
    spec = own.model_copy(update={"train": None})
    if spec.path is not None:
        return _pinned(spec.model_copy(update={"path": str(home / spec.path)}), store)
    if spec.hub is not None:
        copy = hub_copy(spec.hub.partition("@")[0], folder)
        judge = spec.model_copy(update={"path": str(copy)}) if copy else _fetched(spec)
        return _described(_pinned(judge, store), store)
    if issubclass(scorers.get(spec.kind), Packaged):
        return _described(_pinned(spec, store), store)
    return _described(_trained(own, folder, store), store)


def _asked(name: str) -> ScorerSpec:
    place = Path(name)
    if place.is_dir():
        return ScorerSpec(kind=kind_of(place), path=str(place.resolve()), name=place.resolve().name)
    packaged = [kind for kind in scorers.names() if issubclass(scorers.get(kind), Packaged)]
    if name in packaged:
        return ScorerSpec(kind=name)
    if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) and not name.startswith("."):
        fetched = _fetched(ScorerSpec(hub=name))
        return fetched.model_copy(update={"kind": kind_of(Path(fetched.path or ""))})
    raise UserError(
        f"Judge folder {name} does not exist. Pass a folder, a hub id (owner/name) or a packaged judge"
        f" ({', '.join(packaged)})."
    )


def kind_of(folder: Path) -> str:
    """Return the kind of the judge in a folder by the files it holds; raise a `UserError` where it holds none."""
    kind = next((kind for file, kind in _KINDS.items() if (folder / file).is_file()), None)
    if kind is None:
        raise UserError(f"{folder} holds no judge; expected one of {', '.join(_KINDS)}.")
    return kind


def _fetched(spec: ScorerSpec) -> ScorerSpec:
    """Fetch a judge from the hub into its cache; the name says of which commit it is."""
    from huggingface_hub import snapshot_download

    hub, _, revision = (spec.hub or "").partition("@")
    try:
        place = Path(snapshot_download(hub, revision=revision or None, allow_patterns=list(SCORER_FILES)))
    except Exception as error:
        cause = hub_refusal("Judge", hub, revision or None, error) or f"{first_line(error)} Check the network."
        raise UserError(
            f"Judge {hub} is no folder here and cannot be fetched from the hub: {cause} Or download its files by hand"
            f" from https://huggingface.co/{hub} and pass --scorer FOLDER, or put them at {hub} below --data-root."
        ) from error
    commit = f"{hub}@{place.name[:12]}"
    name = f"{spec.name} ({commit})" if spec.name else commit
    return spec.model_copy(update={"path": str(place), "hub": f"{hub}@{place.name}", "name": name})


def _trained(spec: ScorerSpec, folder: Path | None, store: Store | None) -> ScorerSpec:
    """Put the labelled text of a judge that is fitted when loaded into the store, and point to it."""
    if spec.train is None:
        raise UserError("The suite's judge has neither a folder nor labelled text; pass --scorer FOLDER.")
    rows = load_rows(spec.train, folder, LabelledRow)
    path = None
    if store is not None:
        target = store.root / "scorers" / rows.digest
        target.mkdir(parents=True, exist_ok=True)
        kept = [{key: row[key] for key in ("text", "label", "group") if key in row} for row in rows.rows]
        write_jsonl(target / "labelled.jsonl", kept)
        path = str(target)
    version = scorers.get(spec.kind).version
    return spec.model_copy(update={"path": path, "digest": rows.digest, "version": version, "train": None})


def _pinned(spec: ScorerSpec, store: Store | None) -> ScorerSpec:
    """Set the version of the judge's code and the digest of its files, or of its package."""
    kind = scorers.get(spec.kind)
    if issubclass(kind, Packaged):
        content = kind.installed()
        name = spec.name or content
    else:
        content = folder_digest(Path(spec.path or ""), SCORER_FILES, store.digests if store else None)
        name = spec.name
    return spec.model_copy(update={"digest": content, "name": name, "version": kind.version})


def _described(spec: ScorerSpec, store: Store | None) -> ScorerSpec:
    """Add what is known of the judge to its note. It is loaded for that once a store."""
    if store is None:
        return spec
    known = store.root / "scorers" / "notes.json"
    notes: dict[str, str] = {}
    with suppress(UserError):
        notes = read_sealed(known)
    key = f"{spec.kind} {spec.version} {spec.digest}"
    if key not in notes:
        known.parent.mkdir(exist_ok=True)
        notes[key] = quality(load_scorer(spec.kind, spec.path or ""))
        write_sealed(known, notes)
    return spec.model_copy(update={"note": "; ".join(filter(None, (spec.note, notes[key])))})


def quality(judge: Scorer) -> str:
    """Say how well a judge does on text held out from its fit, if it is fitted, and whether its labels are in order.

    It ranks each of a few rude sentences against each of a few plain ones; a judge for which not even half of the pairs
    come out right has its labels reversed, or does not know the language. That is said, never mended.
    """
    pairs = list(product(_values(judge, RUDE), _values(judge, PLAIN)))
    right = sum(rude > plain for rude, plain in pairs)
    order = f"{right} of {len(pairs)} pairs of a rude and a plain sentence in order"
    if right <= len(pairs) / 2:
        order = f"WARNING: only {order}, are its labels reversed?"
    return f"{judge.held_out()}; {order}" if isinstance(judge, Fitted) else order


def _values(judge: Scorer, texts: Sequence[str]) -> list[float]:
    return [float("nan") if value is None else value for value in judge.score(texts)]
