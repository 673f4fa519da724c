"""What results were made by and with: threads, versions, machine; how settings were tuned."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...methods.base import Method, methods
from ..errors import UserError
from ..planning.plan import Plan
from ..planning.status import CellStatus
from ..planning.variants import TRAINING
from ..records import LogRole
from ..runtime import COSTS, PEAK, UNIFORM
from ..store.entries import Store
from ..store.identity import CellSpec
from ..suite import SuiteSpec, TunedSpec, VariantSpec

RECORDED = ("threads", "device", "machine", "attention", "batch_size", "torch", "transformers", "vllm")
"""What was recorded beside results and must not differ within a table unsaid; `batch_size` in half precision alone."""
BATCHES = "in half precision answers follow the batch size; rows are made with {size} unless they say otherwise"


def recorded_values(status: CellStatus, store: Store) -> dict[str, list[str]]:
    """Return the distinct values of all but the costs that was recorded when a cell was made and measured."""
    made = store.entry("cells", status.cell.id)
    manifests = [entry.manifest() or {} for entry in (made, *status.outcomes.values())]
    distinct: dict[str, set[str]] = {}
    for manifest in manifests:
        for key, value in manifest.get("recorded", {}).items():
            if key not in COSTS:
                distinct.setdefault(key, set()).add(str(value))
    return {key: sorted(values) for key, values in distinct.items()}


def unusual(usual: Mapping[str, str], recorded: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a warning for each recorded value of a cell that differs from what most cells have."""
    others = {key: [other for other in recorded.get(key, ()) if other != value] for key, value in usual.items()}
    return [
        f"made or measured with {key} {', '.join(values)}, most rows with {usual[key]}"
        for key, values in others.items()
        if values
    ]


def diverged(status: CellStatus, store: Store) -> list[str]:
    """Return a warning where a training drove the forget text below uniform guessing over the vocabulary V."""
    summary = (store.entry("cells", status.cell.id).manifest() or {}).get("summary", {})
    peak, uniform = summary.get(PEAK, 0.0), summary.get(UNIFORM, math.inf)
    if peak <= uniform:
        return []
    return [f"its forget loss passed ln|V| = {uniform:.1f} (it reached {peak:.1f}): unbounded ascent"]


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
    **dict.fromkeys(("step", "grad_norm", "seconds", PEAK, UNIFORM), "other"),
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
    track = spec.track or ""
    variant: VariantSpec | None = suite.variants.get(track, {}).get(spec.variant)
    tuned: TunedSpec | None = suite.tuned.get(track, {}).get(spec.variant)
    if tuned is not None and variant is not None and _has(spec, tuned.found):
        keys = ", ".join(key.removeprefix(TRAINING) for key in tuned.found)
        return f"tuned in {tuned.trials} trials a track", f"{spec.variant} ({keys})"
    if variant is None and spec.variant == spec.method:
        return "not tuned, by default", spec.variant
    return "not tuned, set by hand", spec.variant


def _has(spec: CellSpec, found: Mapping[str, Any]) -> bool:
    values = spec.settings["settings"] | {TRAINING + key: v for key, v in spec.settings["training"].items()}
    return all(values.get(key) == value for key, value in found.items())


def _on(text: str, tracks: Sequence[str], plan: Plan) -> str:
    return text if len(tracks) == len(plan.tracks) else f"{text} on {', '.join(tracks)}"
