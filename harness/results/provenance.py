"""What results were made by and with: threads, versions, machine; how settings were tuned."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ...methods.base import Method, methods
from ..errors import UserError
from ..planning.plan import Plan
from ..planning.status import CellStatus
from ..planning.variants import TRAINING
from ..records import LogRole
from ..runtime import COSTS, CUT, PEAK, UNIFORM, UNKNOWN
from ..store.entries import Store
from ..store.identity import CellSpec
from ..suite import SuiteSpec, TunedSpec, VariantSpec

MACHINE = ("processor", "capability", "blas", "kernels")
"""What every machine says of itself; stores that were made before it was recorded lack it."""
GPU = ("driver", "cuda", "cudnn", "attention_kernels")
LIBRARIES = ("torch", "transformers", "vllm")
ENGINE = ("attention", "training_attention", "batch_size")
RECORDED = ("threads", "device", "machine", *MACHINE, *GPU, *ENGINE, *LIBRARIES)
"""What was recorded beside results and must not differ within a table unsaid; `batch_size` in half precision alone."""
BATCHES = "in half precision answers follow the batch size; rows are made with {size} unless they say otherwise"


def recorded_values(status: CellStatus, store: Store) -> dict[str, list[str]]:
    """Return the distinct values of all but the costs that was recorded when a cell was made and measured."""
    made = store.entry("cells", status.cell.id)
    return _distinct(entry.manifest() for entry in (made, *status.outcomes.values(), *status.records.values()))


def training_facts(status: CellStatus, store: Store) -> dict[str, str]:
    """Return what was recorded when a cell was made, of what may change its bits; empty where nothing was made."""
    distinct = _distinct([store.entry("cells", status.cell.id).manifest()])
    return {key: ", ".join(distinct[key]) for key in RECORDED if key in distinct}


def _distinct(manifests: Iterable[Mapping[str, Any] | None]) -> dict[str, list[str]]:
    distinct: dict[str, set[str]] = {}
    for manifest in manifests:
        facts = (manifest or {}).get("recorded", {})
        for key, value in {**(dict.fromkeys(MACHINE, UNKNOWN) if facts else {}), **facts}.items():
            if key not in COSTS:
                distinct.setdefault(key, set()).add(str(value))
    return {key: sorted(values) for key, values in distinct.items()}


def usual_values(recorded: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, str]:
    """Return of each fact of `RECORDED` what most cells have, what is not known only where nothing is."""
    usual = {}
    for key in RECORDED:
        counts = Counter(value for values in recorded for value in values.get(key, ()))
        known = {value: count for value, count in counts.items() if value != UNKNOWN}
        if counts:
            usual[key] = max(known or counts, key=counts.__getitem__)
    return usual


def usual_words(usual: Mapping[str, str], recorded: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """Return in words what most cells have, and of how many it is not known."""
    known = [f"{key} {value}" for key, value in usual.items() if value != UNKNOWN]
    partly = {key: sum(UNKNOWN in values.get(key, ()) for values in recorded) for key in usual}
    lacking = [key for key, count in partly.items() if count]
    if not lacking:
        return ", ".join(known)
    cells = max(partly.values())
    of = "" if cells == len(recorded) else f" of {cells} of {len(recorded)} checkpoints"
    return f"{', '.join(known)}; {', '.join(lacking)} unknown{of}: not recorded when they were made or measured"


def unusual(usual: Mapping[str, str], recorded: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a warning where what was recorded of a cell differs from what most cells have; none of what is unknown."""
    others = {
        key: ", ".join(other for other in recorded.get(key, ()) if other not in (value, UNKNOWN))
        for key, value in usual.items()
        if value != UNKNOWN
    }
    others = {key: values for key, values in others.items() if values}
    if not others:
        return []
    own = ", ".join(f"{key} {values}" for key, values in others.items())
    if len(others) == 1:
        return [f"made or measured with {own}, most rows with {usual[next(iter(others))]}"]
    return [f"made or measured with {own}; most rows with " + ", ".join(f"{key} {usual[key]}" for key in others)]


def diverged(status: CellStatus, store: Store) -> list[str]:
    """Return a warning where a training drove the forget text below uniform guessing over the vocabulary V."""
    summary = (store.entry("cells", status.cell.id).manifest() or {}).get("summary", {})
    peak, uniform = summary.get(PEAK, 0.0), summary.get(UNIFORM, math.inf)
    if peak <= uniform:
        return []
    return [f"its forget loss passed ln|V| = {uniform:.1f} (it reached {peak:.1f}): unbounded ascent"]


def cut_answers(status: CellStatus, store: Store) -> list[str]:
    """Return a warning for each corpus of which a training cut answers off."""
    summary = (store.entry("cells", status.cell.id).manifest() or {}).get("summary", {})
    return [
        f"`max_length` cut {counts['cut']} of {counts['answers']} answers of its {name} text, {counts['lost']} wholly"
        for name, counts in summary.get(CUT, {}).items()
    ]


def unmatched(cells: Sequence[CellStatus], store: Store) -> dict[str, list[str]]:
    """Return a warning for each checkpoint, by cell id, whose noise is none: its weights are the base's."""
    without: dict[str, list[str]] = {}
    for status in cells:
        spec = status.cell.spec
        manifest = store.entry("cells", status.cell.id).manifest() or {}
        if spec.beside == "noise" and manifest.get("summary", {}).get("norm") == 0:
            without[spec.parents[0]] = ["its weights are the base's: there is no change that noise could be matched to"]
    return without


LOGGED: dict[str, LogRole] = {
    **dict.fromkeys(("step", "grad_norm", "learning_rate", "stopped", "steps", "seconds", PEAK, UNIFORM, CUT), "other"),
    **Method.log_schema,
}
"""What the columns are that the log of every training has."""


def log_schema(spec: CellSpec, columns: Collection[str]) -> Mapping[str, LogRole]:
    """Return what the columns of a cell's log are; its method is asked where there are more than `LOGGED`."""
    if spec.transform != "train" or set(columns) <= LOGGED.keys():
        return LOGGED
    try:
        return {**LOGGED, **methods.get(spec.settings["method"]).log_schema}
    except UserError:
        return LOGGED


def tuned_facts(plan: Plan) -> dict[str, str]:
    """Return what a board says of its rows' settings: how they were tuned, and which were not.

    A row counts as tuned where its settings still are what the search found.
    """
    suite = plan.suite
    if not suite.tuned:
        return {"tuning": suite.tuning} if suite.tuning else {}
    rows: dict[str, dict[str, list[str]]] = {}
    for spec in dict.fromkeys(cell.spec for cell in plan.cells if cell.spec.origin == "train"):
        if spec.beside is not None or spec.stress is not None:
            continue
        kind, text = _said(suite, spec)
        tracks = rows.setdefault(kind, {}).setdefault(text, [])
        tracks += [spec.track] if spec.track and spec.track not in tracks else []
    settings = [
        f"{kind}: " + ", ".join(_on(text, tracks, plan) for text, tracks in sorted(texts.items()))
        for kind, texts in sorted(rows.items())
    ]
    return {"tuning": suite.tuning, "settings": "; ".join(settings)}


def _said(suite: SuiteSpec, spec: CellSpec) -> tuple[str, str]:
    tuned = as_tuned(suite, spec)
    if tuned is not None:
        keys = ", ".join(key.removeprefix(TRAINING) for key in tuned.found)
        return f"tuned in {tuned.trials} trials a track", f"{spec.variant} ({keys})"
    if spec.variant not in suite.variants.get(spec.track or "", {}) and spec.variant == spec.method:
        return "not tuned, by default", spec.variant
    return "not tuned, set by hand", spec.variant


def as_tuned(suite: SuiteSpec, spec: CellSpec) -> TunedSpec | None:
    """Return how a cell's settings were searched, None where they are not what the search found."""
    track = spec.track or ""
    variant: VariantSpec | None = suite.variants.get(track, {}).get(spec.variant)
    tuned: TunedSpec | None = suite.tuned.get(track, {}).get(spec.variant)
    return tuned if tuned is not None and variant is not None and _has(spec, tuned.found) else None


def _has(spec: CellSpec, found: Mapping[str, Any]) -> bool:
    values = spec.settings["settings"] | {TRAINING + key: v for key, v in spec.settings["training"].items()}
    return all(values.get(key) == value for key, value in found.items())


def _on(text: str, tracks: Sequence[str], plan: Plan) -> str:
    return text if len(tracks) == len(plan.tracks) else f"{text} on {', '.join(tracks)}"
