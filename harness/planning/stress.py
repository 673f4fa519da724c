"""Stress (attacks): what checkpoints are put through once they are made, to see what remains of the forgetting.

A stress makes a derived cell of every cell of a plan, nulls and imports too: what it does to the base is what it does
by itself. Derived cells are asked what S is made of. They are never rows of a board: they stand by their parents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..data import template_of
from ..errors import UserError, suggest
from ..specs import RowSpec
from ..store.identity import CellSpec
from ..suite import CorporaSpec, SourceSpec, StressSpec, SuiteSpec, TrainingSpec
from ..transforms.base import Stress, transforms
from .plan import PlannedCell

DEFAULTS = {
    "relearn": StressSpec(transform="relearn"),
    "quantise8": StressSpec(transform="quantise", settings={"bits": 8}),
    "quantise4": StressSpec(transform="quantise", settings={"bits": 4}),
}
"""Stresses that every suite has."""


def choose_stresses(names: Iterable[str], suite: SuiteSpec, tracks: Sequence[str]) -> dict[str, StressSpec]:
    """Return the named stresses of a suite with validated settings.

    Raises:
        UserError: an unknown name, refused settings, or a track without the text that one needs.
    """
    known = {**DEFAULTS, **suite.stress}
    chosen = {}
    for name in names:
        if name not in known:
            raise UserError(f"Unknown stress {name!r}.{suggest(name, known)} Known: {', '.join(known)}.")
        kind = stress_kind(known[name])
        kind.Settings.parse(known[name].settings, f"Stress {name}")
        bare = [track for track in tracks if kind.needs_text and not suite.tracks[track].corpora.relearn]
        if bare:
            raise UserError(
                f"The stress {name} needs forget text that no method saw, which suite {suite.name} has not for"
                f" {', '.join(bare)}: name it as `relearn:` among the track's corpora (see docs/stress.md)."
            )
        chosen[name] = known[name]
    return chosen


def stress_kind(spec: StressSpec) -> type[Stress]:
    """Return the transform of a stress; raise a `UserError` where it is none."""
    kind = transforms.get(spec.transform)
    if not issubclass(kind, Stress):
        raise UserError(
            f"The transform {spec.transform!r} is no stress of a finished checkpoint; name a transform that is under"
            " `stresses:`, such as relearn."
        )
    return kind


def derived_cells(
    cells: Iterable[PlannedCell],
    stresses: Mapping[str, StressSpec],
    suite: SuiteSpec,
    tracks: Sequence[str],
    digest_of: Callable[[SourceSpec, type[RowSpec]], str],
) -> Iterator[PlannedCell]:
    """Give the derived cells of planned ones; a stress that needs text has one a track of what stands on every track.

    `digest_of` gives the digest of a source's rows. What works at decoding time has no weights to put under stress.
    """
    text = {
        track: relearn_data(suite.tracks[track].corpora, digest_of)
        for track in tracks
        if any(stress_kind(stress).needs_text for stress in stresses.values())
    }
    for cell in (cell for cell in cells if cell.spec.changes == "weights"):
        for name, stress in stresses.items():
            on = (
                (cell.serves or tracks) if stress_kind(stress).needs_text and not cell.spec.track else [cell.spec.track]
            )
            for track in on:
                serves = (track,) if track and cell.role else cell.serves
                spec = _derived(cell, name, stress, suite, track, text)
                yield PlannedCell(model=cell.model, spec=spec, role=cell.role, serves=serves)


def relearn_data(corpora: CorporaSpec, digest_of: Callable[[SourceSpec, type[RowSpec]], str]) -> dict[str, Any]:
    """Return the digests of a track's text for relearning, with the template where it is questions."""
    digests = {topic: digest_of(source, source.text_row) for topic, source in corpora.relearn.items()}
    return {"relearn": digests, **template_of(corpora.relearn.values(), corpora.template)}


def _derived(
    parent: PlannedCell,
    name: str,
    stress: StressSpec,
    suite: SuiteSpec,
    track: str | None,
    text: Mapping[str, Mapping[str, Any]],
) -> CellSpec:
    kind = stress_kind(stress)
    settings = kind.Settings.parse(stress.settings, f"Stress {name}").identity()
    facts: dict[str, Any] = {"version": kind.version, "settings": settings}
    if kind.needs_text:
        training = TrainingSpec.parse({**suite.training.identity(), **settings.pop("training")}, f"Stress {name}")
        facts |= {"training": training.identity(), "data": dict(text[track or ""])}
    return CellSpec(
        model=parent.spec.model,
        transform=stress.transform,
        parents=(parent.id,),
        track=track,
        seed=parent.spec.seed,
        settings=facts,
        method=parent.spec.method,
        variant=f"{parent.spec.variant}+{name}",
        stress=name,
    )


def described(stress: StressSpec) -> str:
    """Return what a stress is, for a board: what the transform does, and its settings."""
    kind = stress_kind(stress)
    settings = kind.Settings.parse(stress.settings, stress.transform).identity()
    flat = {**settings, **settings.get("training", {})}
    text = ", ".join(f"{key} {value}" for key, value in flat.items() if key != "training" and value is not None)
    return f"{kind.summary} ({text})"
