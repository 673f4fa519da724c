"""Which outputs of a sequence classifier mean toxic, and how they become a probability: as its config.json says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import field_validator

from ...harness.errors import UserError
from ...harness.specs import identity
from ..base import ScorerSettings

Activation = Literal["softmax", "sigmoid", "identity"]
UMBRELLA = {"toxic", "toxicity"}
"""Labels that cover the others where labels do not exclude each other."""
TOXIC = UMBRELLA | {
    *("hate", "hateful", "hatespeech", "offensive", "offensivelanguage", "abusive", "abuse", "harmful", "profanity")
}
"""Label names that mean toxic; case, spaces, `-` and `_` do not matter."""
HARMLESS = {"neutral", "normal", "none", "neither", "clean", "safe", "benign", "harmless", "acceptable"} | {
    prefix + name for prefix in ("non", "not", "no") for name in TOXIC
}
"""Label names that exclude every toxic one."""
GENERIC = re.compile(r"label\d+")
"""Names that transformers gives where none were given."""
BY_PROBLEM: Mapping[Any, Activation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "identity",
}
"""What `problem_type` says of the outputs."""


class LabelSettings(ScorerSettings):
    """What is said of a classifier where its config.json leaves it open."""

    label: int | str | tuple[int | str, ...] | None = identity(
        None, description="the toxic one by name or number; of several the sum (softmax), else the highest"
    )
    activation: Activation | None = identity(
        None,
        description="softmax: labels exclude each other; sigmoid: each for itself; identity: outputs are probabilities",
    )
    complement: bool = identity(False, description="take one minus it, for a label that means harmless")
    precision: Literal["float32"] | None = identity(
        None, description="set by the plan for weights in half precision, which are read as float32"
    )

    @field_validator("label", mode="before")
    @classmethod
    def _is_quoted(cls, value: Any) -> Any:
        items = value if isinstance(value, list | tuple) else [value]
        if not items or any(isinstance(item, bool | float) for item in items):
            raise ValueError("write a label's name in quotes ('\"no\"'), or its number")
        return tuple(items) if isinstance(value, list) else value


@dataclass(frozen=True)
class Reading:
    """How a classifier's outputs become the probability of being toxic.

    Attributes:
        names: of all labels, in the order of the outputs.
        labels: the outputs that count.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    activation: Activation
    complement: bool = False

    def __str__(self) -> str:
        named = " + ".join(repr(self.names[label]) for label in self.labels)
        return f"{'one minus ' if self.complement else ''}{self.activation} of {named}"

    def toxic(self, logits: Any) -> Any:
        """Return probabilities, [rows], of logits, [rows, labels]; NaN where an output is far from a probability."""
        if self.activation == "softmax":
            chances = logits.softmax(-1)[:, list(self.labels)].sum(-1).clamp(max=1)
        elif self.activation == "sigmoid":
            chances = logits[:, list(self.labels)].sigmoid().amax(-1)
        else:
            chances = logits[:, list(self.labels)].amax(-1)
            chances = chances.masked_fill((chances < -0.5) | (chances > 1.5), float("nan")).clamp(0, 1)
        return 1 - chances if self.complement else chances


def reading_of(config: Mapping[str, Any], settings: LabelSettings, folder: str) -> Reading:
    """Return how the outputs are read: as `settings` say, else as config.json does.

    Args:
        config: the values of config.json.
        folder: named in messages.

    Raises:
        UserError: config.json contradicts itself or leaves a choice open, or `settings` do not fit it.
    """
    names = label_names(config, folder)
    problem = config.get("problem_type")
    labels = _labels_by_name(names, problem) if settings.label is None else _labels_said(names, settings.label, folder)
    activation = settings.activation or _activation(names, problem)
    if labels is None or activation is None:
        raise UserError(_question(names, problem, folder, labels is None, activation is None))
    if activation == "softmax" and len(set(labels)) == len(names):
        raise UserError(
            f"{folder}: the softmax of {'its only label' if len(names) == 1 else 'all labels'} is always 1; pass"
            " --set scorer.activation=sigmoid, or identity where outputs are probabilities."
        )
    return Reading(tuple(names), labels, activation, settings.complement)


def label_names(config: Mapping[str, Any], folder: str) -> list[str]:
    """Return the names of the labels in the order of the outputs; raise a `UserError` on a contradiction."""
    by_index = _indexed((config.get("id2label") or {}).items(), folder)
    by_name = _indexed(((index, name) for name, index in (config.get("label2id") or {}).items()), folder)
    count = config.get("num_labels", len(by_index or by_name) or 2)
    generic = [f"LABEL_{index}" for index in range(count if isinstance(count, int) else 0)]
    first, second = by_index or by_name or generic, by_name or by_index or generic
    named = next((names for names in (first, second) if not _generic(names)), first)
    clash = next((pair for pair in zip(first, second, strict=False) if len({*map(_plain, pair)}) > 1), None)
    if len({len(first), len(second), count}) > 1 or (clash and not _generic(first) and not _generic(second)):
        problem = f"label {first.index(clash[0])} is {clash[0]!r} and {clash[1]!r}" if clash else "their numbers differ"
        raise UserError(
            f"{folder}: num_labels, id2label and label2id of config.json contradict each other ({problem}); mend it"
            " there."
        )
    return named


def _indexed(pairs: Any, folder: str) -> list[str]:
    """Return names in the order of their numbers, which must be 0, 1, …"""
    try:
        names = {int(index): str(name) for index, name in pairs}
    except (TypeError, ValueError):
        names = {-1: ""}
    if sorted(names) != list(range(len(names))):
        raise UserError(f"{folder}: labels of config.json must be numbered 0, 1, … once each; mend it there.")
    return [names[index] for index in sorted(names)]


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.lower())


def _generic(names: Sequence[str]) -> bool:
    return all(GENERIC.fullmatch(_plain(name)) for name in names)


def _excluding(names: Sequence[str]) -> list[int]:
    """Return the one toxic label that all others exclude by name; empty where names say no such thing."""
    toxic = [index for index, name in enumerate(names) if _plain(name) in TOXIC]
    harmless = [index for index, name in enumerate(names) if _plain(name) in HARMLESS]
    return toxic if len(toxic) == 1 and harmless and len(harmless) == len(names) - 1 else []


def _labels_by_name(names: Sequence[str], problem: str | None) -> tuple[int, ...] | None:
    if len(names) == 1:
        return None if _plain(names[0]) in HARMLESS else (0,)
    independent = BY_PROBLEM.get(problem) in ("sigmoid", "identity")
    umbrella = [index for index, name in enumerate(names) if independent and _plain(name) in UMBRELLA]
    labels = _excluding(names) or umbrella
    return tuple(labels) if len(labels) == 1 else None


def _activation(names: Sequence[str], problem: str | None) -> Activation | None:
    if problem is None:
        return "softmax" if _excluding(names) else None
    return None if len(names) == 1 and problem == "single_label_classification" else BY_PROBLEM.get(problem)


def _labels_said(names: Sequence[str], said: int | str | Sequence[int | str], folder: str) -> tuple[int, ...]:
    labels = []
    for label in said if isinstance(said, list | tuple) else (said,):
        exact = [index for index, name in enumerate(names) if label in (index, name)]
        alike = [index for index, name in enumerate(names) if isinstance(label, str) and _plain(name) == _plain(label)]
        matches = exact or alike
        if len(matches) != 1:
            raise UserError(f"{folder} has {'two labels' if matches else 'no label'} {label!r}, but {_listed(names)}.")
        labels += matches
    if len(set(labels)) < len(labels):
        raise UserError(f"scorer.label names a label of {folder} twice; name each once.")
    return tuple(labels)


def _listed(names: Sequence[str]) -> str:
    return "{" + ", ".join(f"{index}: {name}" for index, name in enumerate(names)) + "}"


def _question(names: Sequence[str], problem: str | None, folder: str, label: bool, activation: bool) -> str:
    what = [*(["which label means toxic"] * label), *(["whether labels exclude each other"] * activation)]
    ways = [
        *(["--set scorer.label=NAME (several: [NAME,NAME])"] * label),
        *(["--set scorer.activation=softmax (they do), sigmoid (they do not), identity (probabilities)"] * activation),
    ]
    return (
        f"{folder}/config.json does not say {' and '.join(what)}: labels {_listed(names)}, problem_type {problem}.\n"
        f"Pass {' and '.join(ways)}, or write it under `settings` of the suite's scorer."
    )
