"""Scorers: which one scores texts, from a folder, the hub, a package or labelled text, and whether it may."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...tasks.base import load_scorer, scorers
from ...tasks.scorers.kinds import Packaged
from ..data import hub_copy, load_rows
from ..errors import DataError, UserError, first_line, hub_refusal, settle_offline
from ..models.content import check_content
from ..specs import LabelledRow, digest
from ..store.entries import Store
from ..store.files import FileDigests, folder_digest, read_sealed, write_jsonl, write_sealed
from ..suite import ScorerSpec
from .scorer_check import FILES, Check, FluencyCheck, PairCheck, Sentences

SCORER_FILES = ("*.pth", "*.json", "*.jsonl", "*.safetensors", "*.bin", "*.model", "vocab.txt", "merges.txt")
"""The files of a scorer's folder that its digest covers."""
_KINDS = {
    "toxicity_classifier.pth": "trust",
    "labelled.jsonl": "ngram",
    "config.json": "sequence_classifier",
}
"""The file that gives a scorer's kind away, the telling ones first."""


FIELDS = ("threshold", "accepted")
"""What `--set scorer.KEY` may name beside the settings of the scorer's kind."""


@dataclass(frozen=True)
class ScorerUse:
    """What a scorer is for.

    Attributes:
        threshold: probability from which a text counts as toxic, where the scorer has none of its own.
        tokens: of the longest text that it will be given, about.
        changes: what the user says of it, by setting of its kind or name of `FIELDS`.
    """

    threshold: float = 0.5
    tokens: int = 0
    changes: Mapping[str, Any] = field(default_factory=dict)


def resolve_scorer(
    asked: Path | str | None,
    own: ScorerSpec | None,
    home: Path,
    folder: Path | None,
    store: Store | None,
    use: ScorerUse = ScorerUse(),
) -> ScorerSpec:
    """Return the scorer, pinned to its content: the one the user named, else the suite's.

    Args:
        asked: a folder, a packaged kind (`profanity_check`) or a hub id (`owner/name`, `owner/name@revision`).
        own: the suite's: a folder below `home`, a hub id, a packaged kind, or labelled text to be fitted on.
        home: the suite's folder.
        folder: where the labelled text is looked for, and a downloaded copy of a hub id at its `owner/name`.
        store: where labelled text, digests and checks are kept; without one nothing is fitted or loaded, and no check
            is made.
        use: what it is for, and what the user says of it.

    Raises:
        UserError: there is no such scorer, it cannot be fetched or loaded, leaves open which label is toxic, or fails
            the check; with what to do.
    """
    pinned = _pinned(_settled(_located(asked, own, home, folder, store), use.changes), store)
    shipped = pinned.checked == pinned.digest and not pinned.settings and pinned.threshold is None
    return pinned if store is None or shipped else _checked(pinned, store, use)


def _located(
    asked: Path | str | None, own: ScorerSpec | None, home: Path, folder: Path | None, store: Store | None
) -> ScorerSpec:
    """Return the scorer with the folder where it lies; one fitted on labelled text has that text's digest."""
    if asked is not None:
        return _asked(str(asked))
    if own is None:
        raise UserError("The suite needs a scorer of texts; pass one with --scorer FOLDER.")
    spec = own.model_copy(update={"train": None, "digest": ""})
    if spec.path is not None:
        return spec.model_copy(update={"path": str(home / spec.path)})
    if spec.hub is not None:
        copy = hub_copy(spec.hub.partition("@")[0], folder)
        return spec.model_copy(update={"path": str(copy)}) if copy else _fetched(spec)
    return spec if issubclass(scorers.get(spec.kind), Packaged) else _trained(own, folder, store)


def _settled(spec: ScorerSpec, changes: Mapping[str, Any]) -> ScorerSpec:
    """Return the scorer with what the user says; raise a `DataError` where that is wrong, or leaves a choice open."""
    fields = {key: value for key, value in changes.items() if key in FIELDS}
    settings = {**spec.settings, **{key: value for key, value in changes.items() if key not in FIELDS}}
    try:
        scorers.get(spec.kind).check(spec.path or "")
        own = scorers.get(spec.kind).identify(spec.path or "", settings)
        return ScorerSpec.parse({**dict(spec), **fields, "settings": own}, "scorer")
    except UserError as error:
        raise DataError(str(error)) from error


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
        f"Scorer folder {name} does not exist. Pass a folder, a hub id (owner/name) or a packaged scorer"
        f" ({', '.join(packaged)})."
    )


def kind_of(folder: Path) -> str:
    """Return the kind of the scorer in a folder by the files it holds; raise a `UserError` where it holds none."""
    kind = next((kind for file, kind in _KINDS.items() if (folder / file).is_file()), None)
    if kind is None:
        raise UserError(f"{folder} holds no scorer; expected one of {', '.join(_KINDS)}.")
    return kind


def _fetched(spec: ScorerSpec) -> ScorerSpec:
    """Fetch a scorer from the hub into its cache; the name says of which commit it is."""
    from huggingface_hub import snapshot_download

    settle_offline()
    hub, _, revision = (spec.hub or "").partition("@")
    try:
        place = Path(snapshot_download(hub, revision=revision or None, allow_patterns=[*SCORER_FILES, *FILES]))
    except Exception as error:
        cause = hub_refusal("Scorer", hub, revision or None, error) or f"{first_line(error)} Check the network."
        raise UserError(
            f"Scorer {hub} is no folder here and cannot be fetched from the hub: {cause} Or download its files by hand"
            f" from https://huggingface.co/{hub} and pass --scorer FOLDER, or put them at {hub} below --data-root."
        ) from error
    commit = f"{hub}@{place.name[:12]}"
    name = f"{spec.name} ({commit})" if spec.name else commit
    return spec.model_copy(update={"path": str(place), "hub": f"{hub}@{place.name}", "name": name})


def _trained(spec: ScorerSpec, folder: Path | None, store: Store | None) -> ScorerSpec:
    """Put the labelled text of a scorer that is fitted when loaded into the store, and point to it."""
    if spec.train is None:
        raise UserError("The suite's scorer has neither a folder nor labelled text; pass --scorer FOLDER.")
    rows = load_rows(spec.train, folder, LabelledRow)
    path = None
    if store is not None:
        target = store.root / "scorers" / rows.digest
        target.mkdir(parents=True, exist_ok=True)
        kept = [{key: row[key] for key in ("text", "label", "group") if key in row} for row in rows.rows]
        write_jsonl(target / "labelled.jsonl", kept)
        path = str(target)
    return spec.model_copy(update={"path": path, "digest": rows.digest, "train": None})


def _pinned(spec: ScorerSpec, store: Store | None) -> ScorerSpec:
    """Set the version of the scorer's code and the digest of its files or package."""
    kind = scorers.get(spec.kind)
    content, name = spec.digest, spec.name
    if issubclass(kind, Packaged):
        content = kind.installed()
        name = spec.name or content
    elif not content:
        content = folder_digest(Path(spec.path or ""), SCORER_FILES, store.digests if store else None)
    return spec.model_copy(update={"digest": content, "name": name, "version": kind.version})


def _checked(spec: ScorerSpec, store: Store, use: ScorerUse) -> ScorerSpec:
    """Add what the check on clear sentences says to the note; raise a `UserError` where the scorer must not score."""
    check = _check(spec, store)
    failure = check.failure(spec.threshold or use.threshold, use.tokens, scorers.get(spec.kind).reversed_labels)
    if failure and not spec.accepted:
        raise UserError(
            f"Scorer {spec.name or spec.kind} {failure[0]}: {failure[1]}.\nOr let it score all the same, which boards"
            " show with your reason: --set 'scorer.accepted=REASON'."
        )
    text = f"WARNING: {failure[0]}; accepted: {spec.accepted}" if failure else check.note()
    return spec.model_copy(update={"note": "; ".join(filter(None, (spec.note, text)))})


def _check(spec: ScorerSpec, store: Store) -> Check:
    """Return what the scorer makes of the sentences. It is loaded for that once a store."""
    scored = scorers.get(spec.kind)
    kind = PairCheck if scored.pairs else FluencyCheck if scored.fluency else Check
    file = store.root / "scorers" / "checks.json"
    sentences = Sentences.of(spec.path)
    known: dict[str, Any] = {}
    with suppress(UserError):
        known = read_sealed(file)
    key = f"{digest(spec.identity())} {sentences.digest}"
    if key not in known:
        scorer = load_scorer(spec.kind, spec.path or "", settings=spec.settings)
        try:
            known[key] = asdict(kind.of(scorer, sentences))
        except Exception as error:
            raise UserError(
                f"Scorer {spec.name or spec.kind} cannot score a plain sentence: {first_line(error)} Mend its files, or"
                " pass another with --scorer."
            ) from error
        check_scorer(spec, store.digests)
        file.parent.mkdir(exist_ok=True)
        write_sealed(file, known)
    return kind(**known[key])


def check_scorer(spec: ScorerSpec, digests: FileDigests | None) -> None:
    """Raise a `UserError` where the files of a scorer's folder are no longer those that its digest is of.

    Labelled text that a store keeps for a scorer has the digest of its rows, which is its folder's name.
    """
    folder = Path(spec.path or "")
    if spec.path is not None and folder.name != spec.digest:
        check_content(folder, SCORER_FILES, spec.digest, digests)
