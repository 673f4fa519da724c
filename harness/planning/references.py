"""References: checkpoints that stand for something on a track. They are shown there and never ranked.

`original` is the model before unlearning, which knows the forget text: methods of the track start from it, and its row
takes base's place in every comparison. `retain` was trained without the forget text: what unlearning tries to reach.
A suite names them for each track; `--reference` goes before the suite. A model folder and a training are cells, made
and measured once for all tracks that name the same; stored values of items are none (see `logs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ..data import template_of
from ..errors import UserError, suggest
from ..models.differences import other_architecture
from ..models.load import ModelSpec, model_folder, resolve_models
from ..registry import folded
from ..specs import RowSpec, canonical
from ..store.entries import Store
from ..store.identity import CellSpec
from ..suite import FinetuneSpec, ReferenceSpec, Role, SourceSpec, SuiteSpec, TrainingSpec
from .imports import ImportedFolder, imported
from .plan import PlannedCell
from .request import Request
from .sources import SourceReader

ROLES: tuple[Role, ...] = get_args(Role)
ANY_TASK = ""
"""In place of a task's name where a file of values is given without one: that whose items it has."""


@dataclass(frozen=True)
class Reference:
    """What stands in a role on some tracks.

    Attributes:
        name: of its row and cell: the role, with the tracks where others have another of this role.
        spec: what it is.
        folder: where its model lies, with what its cell is identified by; None: it is no model folder.
    """

    role: Role
    tracks: tuple[str, ...]
    name: str
    spec: ReferenceSpec
    folder: ImportedFolder | None = None


def choose_references(
    request: Request, suite: SuiteSpec, tracks: Sequence[str], taken: Mapping[str, str]
) -> list[Reference]:
    """Return what stands in which role: as the request says, else the suite; `taken` are other rows' names, folded.

    Raises:
        UserError: an unknown role or track, a folder or file that is not there, or a name that another row has.
    """
    named = _named(request.references, tracks)
    groups: dict[tuple[Role, bytes], tuple[ReferenceSpec, list[str]]] = {}
    for track in tracks:
        for role in ROLES:
            spec = named.get((track, role)) or suite.tracks[track].references.get(role)
            if spec is not None:
                key = role, canonical(spec.model_dump(mode="json"))
                groups.setdefault(key, (spec, []))[1].append(track)
    several = {role for role in ROLES if sum(role == other for other, _ in groups) > 1}
    chosen = [
        Reference(role, tuple(on), f"{','.join(on)}/{role}" if role in several else role, spec)
        for (role, _), (spec, on) in groups.items()
    ]
    for role in dict.fromkeys(reference.role for reference in chosen):
        if role in taken:
            raise UserError(f"{role!r} is the name of the reference's row, and of {taken[role]}; rename that.")
    return chosen


def _named(given: Mapping[str, Path], tracks: Sequence[str]) -> dict[tuple[str, Role], ReferenceSpec]:
    """Return the references of a request by track and role; what names its track goes before what does not."""
    named: dict[tuple[str, Role], ReferenceSpec] = {}
    for name, path in sorted(given.items(), key=lambda item: "/" in item[0]):
        track, _, word = name.rpartition("/")
        if word not in ROLES:
            raise UserError(f"Unknown role {word!r} of a reference.{suggest(word, ROLES)} Known: {', '.join(ROLES)}.")
        if track and track not in tracks:
            raise UserError(f"--reference {name}: unknown track {track!r}.{suggest(track, tracks)}")
        role: Role = "original" if word == "original" else "retain"
        named |= {(on, role): _of_path(name, role, Path(path)) for on in ([track] if track else tracks)}
    return named


def _of_path(name: str, role: Role, path: Path) -> ReferenceSpec:
    if path.is_dir():
        return ReferenceSpec(path=str(path.resolve()))
    if not path.is_file():
        raise UserError(
            f"--reference {name}: {path} does not exist; pass a model's folder, or a file of stored values."
        )
    if role == "original":
        raise UserError(f"--reference {name}: methods start from `original`, so it is a model's folder, not {path}.")
    return ReferenceSpec(records={ANY_TASK: str(path.resolve())})


def resolve_folders(
    references: Sequence[Reference],
    models: Mapping[str, ModelSpec],
    suite: SuiteSpec,
    store: Store | None,
    reader: SourceReader,
    places: Sequence[Path],
) -> list[Reference]:
    """Return references with their model folders, each held against its own files, and an original against the base.

    Raises:
        UserError: a folder that is not there or does not fit, or several models for one folder.
    """
    resolved = []
    for reference in references:
        spec = reference.spec
        if not (spec.path or spec.hub):
            resolved.append(reference)
            continue
        if len(models) > 1:
            raise UserError(f"The {reference.name} model belongs to one model; choose it with --models.")
        base = next(iter(models.values()))
        found = reader(lambda r=reference: _folder(r, suite, store, places), None)
        own = found and imported(f"Reference {reference.name}: {found}", found, base, store)
        if own is not None and reference.role == "original":
            _check_original(reference, own, base)
        own = own or ImportedFolder(Path(spec.path or spec.hub or ""), {"digest": ""})
        resolved.append(Reference(reference.role, reference.tracks, reference.name, spec, own))
    return resolved


def _folder(reference: Reference, suite: SuiteSpec, store: Store | None, places: Sequence[Path]) -> Path:
    spec = reference.spec
    if spec.hub:
        name = spec.hub + (f"@{spec.revision}" if spec.revision else "")
        return model_folder(next(iter(resolve_models([name], suite, store).values())))
    return found_below(spec.path or "", places, f"The {reference.name} model of suite {suite.name}")


def found_below(path: str, places: Sequence[Path], what: str) -> Path:
    """Return a path as it lies below the first of some folders that has it.

    Raises:
        UserError: none has.
    """
    tried = list(dict.fromkeys(place / path for place in places))
    for place in tried:
        if place.exists():
            return place.resolve()
    raise UserError(f"{what}: {path!r} is not there; looked for {', '.join(map(str, tried))}.")


def _check_original(reference: Reference, own: ImportedFolder, base: ModelSpec) -> None:
    """Raise a `UserError` where methods cannot start from a folder: it is no change of the base's weights."""
    if "digest" not in own.settings or not base.digest:
        return
    named = base.model_copy(update={"name": reference.name, "path": str(own.folder), "hub": None})
    other = other_architecture(base, named)
    if other:
        raise UserError(
            f"The {reference.name} model {other[0]}, so that it is no change of {base.name} that methods could start"
            f" from; pass it as the model itself: --models {own.folder}, with `original: null` in the suite."
        )


def taken_names(checkpoints: Iterable[str], variants: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what rows of checkpoints and variants are called, folded, with what they are."""
    names = {folded(name): f"the checkpoint {name}" for name in checkpoints}
    return names | {folded(name): f"the variant {name}" for group in variants.values() for name in group}


def reference_cells(
    references: Sequence[Reference],
    name: str,
    model: ModelSpec,
    suite: SuiteSpec,
    digest_of: Callable[[SourceSpec, type[RowSpec]], str],
    notes_of: Callable[[str, ImportedFolder], tuple[str, ...]],
) -> Iterator[PlannedCell]:
    """Give the cells of references on a model; `digest_of` gives the digest of a source's rows."""
    for reference in references:
        role: dict[str, Any] = {"role": reference.role, "serves": reference.tracks}
        if reference.spec.finetune is not None:
            yield PlannedCell(
                model=name, spec=_trained(reference.name, reference.spec.finetune, model, suite, digest_of), **role
            )
        elif reference.folder is not None:
            own = reference.folder
            spec = CellSpec(
                model=model.digest,
                transform="import",
                settings=dict(own.settings),
                method="import",
                variant=reference.name,
            )
            said = notes_of(reference.name, own) + ((own.note,) if own.note else ())
            yield PlannedCell(model=name, spec=spec, folder=str(own.folder.resolve()), notes=said, **role)


def _trained(
    name: str,
    finetune: FinetuneSpec,
    model: ModelSpec,
    suite: SuiteSpec,
    digest_of: Callable[[SourceSpec, type[RowSpec]], str],
) -> CellSpec:
    from ..transforms.finetune import Finetune

    training = TrainingSpec.parse({**suite.training.identity(), **finetune.training}, f"Reference {name}: training")
    return CellSpec(
        model=model.digest,
        transform="finetune",
        seed=finetune.seed,
        settings={
            "version": Finetune.version,
            "training": training.identity(),
            "data": {
                "text": [digest_of(source, source.text_row) for source in finetune.text],
                **template_of(finetune.text, finetune.template),
            },
            "dtype": model.dtype,
        },
        method="finetune",
        variant=name,
    )


def fine_tuned_on(suite: SuiteSpec, cell: PlannedCell) -> tuple[SourceSpec, ...]:
    """Return the text that a reference is fine-tuned on; none where a cell is no such reference."""
    if cell.spec.transform != "finetune" or cell.role is None:
        return ()
    reference = suite.tracks[cell.serves[0]].references[cell.role]
    return tuple(reference.finetune.text) if reference.finetune else ()


def original_on(track: str | None, cells: Sequence[PlannedCell], tracks: Sequence[str]) -> PlannedCell | None:
    """Return the cell that checkpoints of a track start from, None: the base.

    What stands on every track (an import) starts from the original where all tracks have the same.
    """
    on = set(tracks) if track is None else {track}
    return next((cell for cell in cells if cell.role == "original" and on <= set(cell.serves)), None)
