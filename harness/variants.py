"""Variants: which methods run on which track, with which settings, under which name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ..methods.base import methods
from .errors import UserError
from .suite import SuiteSpec, VariantSpec


def choose_variants(
    names: Sequence[str], settings: Sequence[str], suite: SuiteSpec, tracks: Sequence[str]
) -> dict[str, dict[str, VariantSpec]]:
    """Return per track the variants to run, with the overrides of `--set` in their settings and names."""
    every = "all" in names
    wanted = set() if every else {name for name in names if name != "none"}
    offered = {track: dict(suite.variants.get(track, {})) for track in tracks}
    for track in tracks:
        covered = {variant.method for variant in offered[track].values()}
        offered[track] |= {name: VariantSpec(method=name) for name in methods.names() if name not in covered}
    known = {name for track in tracks for label, v in offered[track].items() for name in (label, v.method)}
    for name in sorted(wanted - known):
        methods.get(name)
        raise UserError(f"The method {name!r} serves none of the tracks {', '.join(tracks)}.")
    changes = overrides(settings)
    chosen = {
        track: {
            _label(label, changes.get(variant.method, {})): variant.model_copy(
                update={"settings": {**variant.settings, **changes.get(variant.method, {})}}
            )
            for label, variant in sorted(offered[track].items())
            if every or label in wanted or variant.method in wanted
        }
        for track in tracks
    }
    running = {variant.method for group in chosen.values() for variant in group.values()}
    for name in changes:
        if name != "training" and name not in running:
            methods.get(name)
            raise UserError(
                f"--set {name}.…: {name} is not among the methods of this run ({', '.join(sorted(running))})."
            )
    return chosen


def overrides(settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what `--set` changes, by method (or `training`) and key; raise a `UserError` on what cannot be read."""
    found: dict[str, dict[str, Any]] = {}
    for setting in settings:
        target, separator, value = setting.partition("=")
        name, dot, key = target.partition(".")
        if not (separator and dot and key):
            raise UserError(f"--set takes METHOD.KEY=VALUE or training.KEY=VALUE, not {setting!r}.")
        if name != "training":
            methods.get(name)
        found.setdefault(name, {})[key] = yaml.safe_load(value)
    return found


def _label(label: str, overrides: Mapping[str, Any]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in sorted(overrides.items()))
    return f"{label}[{inside}]" if inside else label
