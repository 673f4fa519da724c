"""Variants: methods with settings, sweeps over grids, and which of them an engine can run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import yaml

from ...methods.base import methods
from ..engines.base import engines
from ..errors import UserError, suggest
from ..specs import read_yaml
from ..suite import SuiteSpec, VariantSpec
from .names import check_variants

Values = dict[str, dict[str, Any]]
"""By method (or `training`, `scorer`) and key."""
TRAINING = "training."
FAMILY = "family:"
SCORER = "scorer"
"""The name by which `--set` reaches the scorer of texts."""


def choose_variants(
    names: Sequence[str], settings: Sequence[str], suite: SuiteSpec, tracks: Sequence[str], grid: Sequence[str] = ()
) -> dict[str, dict[str, VariantSpec]]:
    """Return per track the variants to run, with what `--set` and `--grid` change in their settings and names.

    A method of a grid stands as one variant for each choice of a value a key; keys of `training` vary every method.

    Raises:
        UserError: a name, setting or grid that cannot be read, or that is of no method of the run.
    """
    every = "all" in names
    wanted = set() if every else {name for name in members(names) if name != "none"}
    offered = {track: dict(suite.variants.get(track, {})) for track in tracks}
    for track in tracks:
        check_variants(offered[track], track)
        covered = {variant.method for variant in offered[track].values()}
        offered[track] |= {name: VariantSpec(method=name) for name in methods.names() if name not in covered}
    known = {name for track in tracks for label, v in offered[track].items() for name in (label, v.method)}
    for name in sorted(wanted - known):
        methods.get(name)
        raise UserError(
            f"The method {name!r} serves none of the tracks {', '.join(tracks)}; leave it out of --methods, or choose"
            " others with --tracks."
        )
    changes, swept = overrides(settings), grids(grid)
    for name, keys in swept.items():
        for key in keys.keys() & changes.get(name, {}).keys():
            raise UserError(f"{name}.{key} stands in --set and in --grid; keep one of them.")
    chosen = {
        track: _named(
            point
            for label, variant in sorted(offered[track].items())
            if every or label in wanted or variant.method in wanted
            for point in _points(label, variant, changes, swept)
        )
        for track in tracks
    }
    running = {variant.method for group in chosen.values() for variant in group.values()}
    for option, values in (("set", changes), ("grid", swept)):
        for name in values:
            if name not in ("training", SCORER) and name not in running:
                methods.get(name)
                raise UserError(
                    f"--{option} {name}.…: {name} is not among the methods of this run ({', '.join(sorted(running))})."
                )
    return chosen


def members(names: Sequence[str]) -> list[str]:
    """Return names with the methods of a family in place of `family:NAME`; raise a `UserError` where it has none."""
    if not any(name.startswith(FAMILY) for name in names):
        return list(names)
    families = {name: methods.get(name).family for name in methods.names()}
    chosen: list[str] = []
    for name in names:
        family = name.removeprefix(FAMILY)
        own = [method for method in families if families[method] == family] if family != name else [name]
        if not own:
            raise UserError(f"No method is of the family {family!r}.{suggest(family, set(families.values()))}")
        chosen += own
    return chosen


def by_name(asked: Collection[str], *names: str) -> bool:
    """Return whether one of the names was asked for itself, and not by `all` or a family alone."""
    return bool(set(names) & set(asked)) or not any(name == "all" or name.startswith(FAMILY) for name in asked)


def _named(points: Iterable[tuple[str, VariantSpec]]) -> dict[str, VariantSpec]:
    """Return variants by name; raise a `UserError` where two have the same."""
    named: dict[str, VariantSpec] = {}
    for label, variant in points:
        if label in named:
            raise UserError(
                f"Two variants are called {label!r}: {named[label].settings} and {variant.settings}. Rename one in the"
                " suite, or take one of the values out of the grid."
            )
        named[label] = variant
    return named


def overrides(settings: Sequence[str]) -> Values:
    """Return what `--set` changes; raise a `UserError` on what cannot be read."""
    changes: Values = {}
    for setting in settings:
        name, key, value = _parsed("set", setting, "VALUE", "{}")
        own = changes.setdefault(name, {})
        if key in own:
            raise UserError(f"--set {name}.{key} stands twice, as {own[key]!r} and {value!r}; give it once.")
        own[key] = value
    return changes


def grids(settings: Sequence[str]) -> Values:
    """Return the values that `--grid` gives each key, a list each; raise a `UserError` on what cannot be read."""
    choices: Values = {}
    for setting in settings:
        name, key, values = _parsed("grid", setting, "VALUE,VALUE,…", "[{}]")
        if key in choices.setdefault(name, {}):
            raise UserError(f"--grid {name}.{key} stands twice; give all its values at once, separated by commas.")
        choices[name][key] = values
        check_values(f"--grid {name}.{key}", values)
    return choices


def check_values(where: str, values: Sequence[Any]) -> None:
    """Raise a `UserError` where a key of a grid has no value, or one of them twice."""
    if not values:
        raise UserError(f"{where} has no value; give some, separated by commas.")
    for place, value in enumerate(values):
        if value in values[:place]:
            raise UserError(f"{where} has the value {value} twice; give it once.")


def _parsed(option: str, setting: str, form: str, frame: str) -> tuple[str, str, Any]:
    """Return method (or `training`), key and value, which stands in the frame when it is read as YAML."""
    target, separator, text = setting.partition("=")
    name, dot, key = target.partition(".")
    if not (separator and dot and key):
        raise UserError(f"--{option} takes METHOD.KEY={form} or training.KEY={form}, not {setting!r}.")
    if name != "training" and (option, name) != ("set", SCORER):
        methods.get(name)
    try:
        return name, key, read_yaml(frame.format(text), f"--{option} {target}")
    except yaml.YAMLError:
        raise UserError(
            f"--{option} {target}: {text!r} is not YAML; values that are lists stand in brackets."
        ) from None


def _points(label: str, variant: VariantSpec, changes: Values, swept: Values) -> Iterator[tuple[str, VariantSpec]]:
    """Give a variant with its changes, by name: one for each point of its own grid and that of the run."""
    own = changes.get(variant.method, {})
    given = own.keys() | _of_training(changes).keys()
    grid = {key: values for key, values in variant.grid.items() if key not in given}
    for key, values in grid.items():
        check_values(f"Variant {label}, grid of {key}", values)
    grid |= {**swept.get(variant.method, {}), **_of_training(swept)}
    for values in product(*grid.values()):
        point = dict(zip(grid, values, strict=True))
        training = {key: point.pop(key) for key in [key for key in point if key.startswith(TRAINING)]}
        settings = {**variant.settings, **own, **point}
        trained = {**variant.training, **{key.removeprefix(TRAINING): value for key, value in training.items()}}
        changed = variant.model_copy(update={"settings": settings, "training": trained, "grid": {}})
        yield _label(label, {**own, **point, **training}), changed


def _of_training(values: Values) -> dict[str, Any]:
    return {f"{TRAINING}{key}": value for key, value in values.get("training", {}).items()}


def _label(label: str, changes: Mapping[str, Any]) -> str:
    inside = ",".join(f"{key}={_short(value)}" for key, value in sorted(changes.items()))
    return f"{label}[{inside}]" if inside else label


def _short(value: Any) -> str:
    return f"[{','.join(map(_short, value))}]" if isinstance(value, list) else str(value)


Variants = Mapping[str, Mapping[str, VariantSpec]]
"""By track and name."""


def runnable(variants: Variants, asked: Collection[str], engine: str) -> tuple[Variants, list[str]]:
    """Return the variants that an engine runs, and a note for each method that `all`, or a family, leaves out.

    No part of the engine is loaded or need be installed.

    Raises:
        UserError: the engine cannot run a method that was asked for by name.
    """
    if engines.get(engine).wrappers:
        return variants, []
    at_decoding = {
        variant.method
        for group in variants.values()
        for variant in group.values()
        if methods.get(variant.method).changes == "decoding"
    }
    for name in sorted(at_decoding):
        if by_name(asked, name):
            raise UserError(
                f"Method {name} works at decoding time; engine {engine} cannot run it: pass --engine transformers, or"
                f" leave {name} out of --methods."
            )
    left = {
        track: {label: variant for label, variant in group.items() if variant.method not in at_decoding}
        for track, group in variants.items()
    }
    notes = [
        f"{name} is left out: it works at decoding time, which engine {engine} cannot run"
        for name in sorted(at_decoding)
    ]
    return left, notes


def startable(variants: Variants, asked: Collection[str], originals: Collection[str]) -> tuple[Variants, list[str]]:
    """Return the variants that can start from their track's original, and a note for each method that `all` leaves out.

    What works at decoding time changes the logits of the base itself.

    Raises:
        UserError: a method that was asked for by name cannot.
    """
    kept = {
        track: {
            label: variant
            for label, variant in group.items()
            if track not in originals or methods.get(variant.method).changes == "weights"
        }
        for track, group in variants.items()
    }
    left = {
        (variant.method, track)
        for track, group in variants.items()
        for label, variant in group.items()
        if label not in kept[track]
    }
    why = "works at decoding time on the base's logits, and cannot start from the original of {}"
    for name, track in sorted(left):
        if by_name(asked, name):
            raise UserError(f"Method {name} {why.format(track)}: leave it out of --methods.")
    return kept, [f"{name} is left out: it {why.format(track)}" for name, track in sorted(left)]


def supplied(
    variants: Variants, asked: Collection[str], lacks: Callable[[str, Sequence[str]], str | None]
) -> tuple[Variants, list[str]]:
    """Return the variants whose track has the text that their method reads beside forget rows, and a note for the rest.

    What was asked for by name stays: that its text is lacking is an error, which says how to give it.

    Args:
        variants: by track and name.
        asked: names of methods and variants, `all`, `family:NAME`.
        lacks: returns of a track, and the names of such texts, the first that the track has not.
    """
    kept: dict[str, dict[str, VariantSpec]] = {}
    left: dict[tuple[str, str], list[str]] = {}
    for track, group in variants.items():
        kept[track] = dict(group)
        for label, variant in group.items():
            if by_name(asked, label, variant.method):
                continue
            name = lacks(track, methods.get(variant.method).auxiliary)
            if name is not None:
                del kept[track][label]
                left.setdefault((track, name), []).append(variant.method)
    return kept, [
        f"left out of {track}, which has no {name!r} text beside forget rows: {', '.join(sorted(set(names)))}"
        for (track, name), names in sorted(left.items())
    ]
