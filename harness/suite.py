"""Suites: models x tracks x tasks x variants x data under one name, as a YAML file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import field_validator, model_validator

from .corpora import CorporaSpec, SourceSpec, TemplateSpec
from .errors import UserError, suggest
from .registry import Registry, check_alike
from .specs import Spec, identity, read_yaml, recorded, runtime

suites: Registry[Callable[[], Path]] = Registry("suite", "unlearn_bench.harness.suites", "unlearn_bench.suites")


class StressSpec(Spec):
    """What checkpoints are put through once they are made: a registered transform with settings."""

    transform: str = identity(description="quantise or relearn")
    settings: dict[str, Any] = identity({})


class ScorerSpec(Spec):
    """The scorer of texts: a registered kind and its folder; `digest` is that of the folder's files."""

    kind: str = identity("trust")
    version: int = identity(0, description="of the kind's code, set by the plan")
    path: str | None = runtime(None)
    hub: str | None = runtime(None, description="hub id, where no folder is given")
    digest: str = identity("")
    settings: dict[str, Any] = identity({}, late=True, description="of the kind, such as label and activation")
    threshold: float | None = runtime(
        None, gt=0, le=1, description="in place of the setting `threshold` of the tasks that it scores"
    )
    name: str = recorded("", description="how boards call it")
    note: str = recorded("", description="what is known of its quality, shown on boards")
    accepted: str = recorded("", description="why it scores although it fails the check, shown on boards")
    checked: str = runtime("", description="digest of files that passed the check, so that a plan need not load them")
    train: SourceSpec | None = runtime(None, description="labelled text to train one on where no folder is given")


class FinetuneSpec(Spec):
    """A model that is trained from the base on text, as plain language modelling: no unlearning."""

    text: list[SourceSpec] = runtime(min_length=1, description="a source, or several")
    template: TemplateSpec = runtime(TemplateSpec(), description="what makes texts of questions with answers")
    training: dict[str, Any] = identity({}, description="what differs from the suite's training settings")
    seed: int = identity(0, ge=0, description="training seed; that of methods has no say")

    @field_validator("text", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return value if isinstance(value, list) else [value]


class ReferenceSpec(Spec):
    """A checkpoint that stands for something on a track: a folder or hub id, a training, or stored values of items."""

    path: str | None = runtime(None, description="model folder, relative to the suite's folder or --data-root")
    hub: str | None = runtime(None, description="hub id of a model")
    revision: str | None = runtime(None, description="hub revision (commit)")
    finetune: FinetuneSpec | None = runtime(None, description="made from the base by plain training")
    records: dict[str, str] = runtime({}, description="task to the file of its items' stored values; `retain` alone")

    @model_validator(mode="after")
    def _is_one_thing(self) -> ReferenceSpec:
        given = [name for name in ("path", "hub", "finetune", "records") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(
                f"a reference is one of path, hub, finetune and records, here {' and '.join(given) or 'none'} is given"
                + ("; take one out (a null does, in a file that extends another)" if given else "")
            )
        return self


Role = Literal["original", "retain"]
"""What a reference is to a track: the model before unlearning, which knows the forget text; one trained without it."""


class TrackSpec(Spec):
    """An unlearning goal: what is to be forgotten, and the tasks that measure forgetting and utility."""

    forget_task: str = runtime(description="name of a task of the suite")
    retain_task: str = runtime(description="name of a task of the suite")
    controls: tuple[str, ...] = runtime((), description="further tasks that are measured and shown, with no say in S")
    neighbours: tuple[str, ...] = runtime(
        (), description="subjects of the retain task next to the forget topic; boards show them against the others"
    )
    corpora: CorporaSpec = runtime()
    default: bool = runtime(True, description="false: it runs only where --tracks names it")
    references: dict[Role, ReferenceSpec] = runtime(
        {}, description="by role, `original` or `retain`: what methods start from, and what they are measured against"
    )

    @field_validator("references")
    @classmethod
    def _methods_start_from_weights(cls, value: dict[Role, ReferenceSpec]) -> dict[Role, ReferenceSpec]:
        if "original" in value and value["original"].records:
            raise ValueError(
                "`original` needs weights that methods start from; stored records stand for `retain` alone"
            )
        return value


class TaskSpec(Spec):
    """A registered task with its data and settings."""

    task: str = identity(description="registered name, or the class itself")
    data: SourceSpec | None = runtime(None, description="None: the task brings its own rows, as lm-eval's do")
    validation: SourceSpec | None = runtime(None, description="items for tuning, no fact shared with `data`")
    fewshot: SourceSpec | None = runtime(None, description="rows that `num_fewshot` examples come from")
    scorer: ScorerSpec | None = runtime(None, description="scorer of this task; None: the suite's")
    limit: int | None = runtime(None, ge=1, description="at most this many items, a seeded, stratified sample")
    settings: dict[str, Any] = identity({})
    optional: bool = runtime(
        False, description="left out, which boards say, where its data or scorer are not to be had; not if named"
    )

    @field_validator("task", mode="before")
    @classmethod
    def _class_by_its_name(cls, value: Any) -> Any:
        from ..tasks.base import tasks

        return tasks.name_of(value) if isinstance(value, type) else value


class TrainingSpec(Spec):
    """What the loop needs beside a method's own settings. Every field changes what comes out."""

    batch_size: int = identity(4, ge=1, description="sequences of forget text, and of retain text, a batch")
    pairing: Literal["independent", "rows"] = identity(
        "independent",
        late=True,
        description="independent: forget topics alternate, retain text has an order of its own; rows: the forget rows"
        " of all topics are one shuffled epoch, with a retain row drawn at random for each, as TOFU's code",
    )
    accumulation: int = identity(1, ge=1, description="batches an optimiser step; see `accumulation_mean`")
    accumulation_mean: Literal["batches", "tokens"] = identity(
        "batches",
        late=True,
        description="batches: a step's losses are the means of those of its batches, as OpenUnlearning's; tokens: they"
        " are those of one batch of all its texts, each a mean over all that it counts (tokens, or texts)",
    )
    max_length: int = identity(512, ge=8, description="tokens of a sequence; longer ones are cut")
    steps: int | None = identity(None, ge=1, description="optimiser steps; None: `epochs` of the forget text")
    epochs: float = identity(2, gt=0, description="passes over the forget text where `steps` is None")
    learning_rate: float = identity(5e-5, gt=0, description="the largest, where it has a schedule or a warm-up")
    schedule: Literal["constant", "linear", "cosine"] = identity(
        "constant", late=True, description="what the learning rate does after the warm-up: stay, or fall to 0"
    )
    warmup: float = identity(
        0.0, ge=0, late=True, description="steps in which the learning rate rises from 0; below 1: a share of all steps"
    )
    weight_decay: float = identity(0.0, ge=0)
    optimizer: str = identity("adamw", pattern="^(adamw|adam|sgd)$")
    gradient_clip: float | None = identity(None, gt=0, description="largest gradient norm; None: no clipping")
    precision: str = identity(
        "mixed",
        pattern="^(mixed|float32|tf32|reference)$",
        description="mixed: the model in its own dtype, updates of float32 copies of the trained tensors (a float16"
        " model as float32); float32: all in float32; tf32: the same, matrix products of a GPU in TF32; reference: all"
        " in the model's own dtype, as public RMU code",
    )
    keep_prefix: bool = identity(
        False,
        description="run the layers below the trained ones text by text and keep their output in main memory, so that"
        " they run in the first epoch only; last bits differ from those of batches",
    )

    @field_validator("warmup")
    @classmethod
    def _warmup_is_a_share_or_steps(cls, value: float) -> float:
        if value >= 1 and value != int(value):
            raise ValueError("a warm-up is a share of all steps, below 1, or a whole number of steps")
        return value

    @model_validator(mode="after")
    def _warmup_ends(self) -> TrainingSpec:
        if self.steps is not None and self.warmup_steps(self.steps) >= self.steps:
            raise ValueError(f"its warm-up takes all of its {self.steps} steps; lower `warmup`, or raise `steps`")
        return self

    def steps_for(self, forget_rows: int) -> int:
        """Return the optimiser steps: `steps`, or `epochs` of so many rows of forget text."""
        return self.steps or max(1, math.ceil(self.epochs * forget_rows / (self.batch_size * self.accumulation)))

    def warmup_steps(self, steps: int) -> int:
        """Return in how many of so many steps the learning rate rises; a share is rounded up."""
        return math.ceil(self.warmup * steps) if self.warmup < 1 else int(self.warmup)


class VariantSpec(Spec):
    """A method with settings and, where they differ from the suite's, training settings."""

    method: str = identity()
    settings: dict[str, Any] = identity({})
    training: dict[str, Any] = identity({})
    grid: dict[str, list[Any]] = runtime(
        {}, description="setting (or training.KEY) to values: a variant for each choice of one value a key"
    )


class RangeSpec(Spec):
    """Where `unlearn-bench tune` looks for a setting: both ends included, whole numbers where both ends are."""

    low: int | float = runtime()
    high: int | float = runtime()
    log: bool = runtime(True, description="spread trials evenly over orders of magnitude")

    @model_validator(mode="after")
    def _is_a_range(self) -> RangeSpec:
        if self.low > self.high or (self.log and self.low <= 0):
            raise ValueError("a range needs low <= high, and with log: true a low above 0")
        return self


class TunedSpec(Spec):
    """How a variant's settings were searched; boards say so of rows that have what was found."""

    trials: int = recorded(ge=1, description="full trainings that the search of this method and track had")
    found: dict[str, Any] = recorded({}, description="searched setting (or training.KEY) to what was found")
    validation: dict[str, float] = recorded(
        {}, description="what it came to on validation items: `s`, `gain` over base, number of `seeds`"
    )


class BootstrapSpec(Spec):
    """How intervals are computed. Belongs to a board, never to a cell or a record."""

    resamples: int = identity(10_000, ge=100)
    confidence: float = identity(0.95, gt=0.5, lt=1)
    seed: int = identity(0, ge=0)
    interval: Literal["percentile", "bca"] = identity(
        "percentile", description="ends of intervals; docs/statistics.md shows how often either covers the truth"
    )
    margin: float = identity(0.02, gt=0, lt=1, description="loss of the retain metric that counts as utility kept")


class SuiteModel(Spec):
    """A model of a suite: a folder (relative to the suite's) or a hub id."""

    path: str | None = runtime(None)
    hub: str | None = recorded(None)
    revision: str | None = recorded(None)
    dtype: str = identity("float32", pattern="^(float32|bfloat16|float16)$")
    chat: bool = identity(False, late=True, description="prompts are put into its chat template, as --chat-template")
    architecture: dict[str, Any] = runtime({}, description="its config.json where shapes need it, for estimates")


class PublishedSpec(Spec):
    """Values that a paper printed, to stand beside ours: model, track, variant (or `base`), value."""

    source: str = recorded()
    values: dict[str, dict[str, dict[str, float]]] = recorded({}, description="S-unlearning")
    alpha: dict[str, dict[str, dict[str, float]]] = recorded({}, description="alpha at the end of training")


class CompositeSpec(Spec):
    """A number of a row that is a statistic of scores of one or several tasks and checkpoints. Belongs to a board."""

    statistic: str = runtime(description="registered name, as ks, auc, harmonic_mean or quotient")
    of: dict[str, str | float] | list[str | float] = runtime(
        description="argument to TASK.SCORE, another composite or a number; `1 - ` before takes it from 1, `@retain`,"
        " `@original` or `@base` behind, or an argument so called, is that checkpoint's"
    )
    settings: dict[str, Any] = runtime({}, description="of the statistic")
    where: dict[Literal["original", "retain", "base"], str | list[str]] = runtime(
        {}, description="role to conditions on its records, TASK.SCORE >= 0.5: the items of that task that count"
    )
    better: Literal["higher", "lower"] | None = runtime(None, description="None: as the statistic has it")
    tracks: list[str] | None = runtime(None, description="None: every track that has the tasks")
    description: str = runtime("", description="what a board says of it")
    inherited: bool = runtime(
        False, description="of a suite that is extended, set on loading: where no track has its tasks it is left out"
    )
    place: int = runtime(0, description="where boards show it among the others: as in the suite's file, set on loading")


class SuiteSpec(Spec):
    """A whole suite, as its YAML file says it."""

    name: str = identity(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    revision: int = recorded(1, ge=1, description="raised when the suite's data or settings change")
    description: str = recorded("")
    embedded: bool = runtime(False, description="the data lie beside the suite's file; --data-root is not asked")
    models: dict[str, SuiteModel] = runtime({})
    tasks: dict[str, TaskSpec] = runtime(min_length=1)
    tracks: dict[str, TrackSpec] = runtime(min_length=1)
    training: TrainingSpec = runtime(TrainingSpec())
    variants: dict[str, dict[str, VariantSpec]] = runtime(
        {}, description="per track, variant name to method and settings; methods without an entry run with defaults"
    )
    stress: dict[str, StressSpec] = runtime({}, description="further ones, or other settings, for `--stress`")
    scorer: ScorerSpec | None = runtime(None)
    logs: dict[str, dict[str, str]] = runtime(
        {}, description="rows that are stored values: name to task to the file of its items' values"
    )
    composites: dict[str, CompositeSpec] = runtime({}, description="further numbers of a row, by name")
    bootstrap: BootstrapSpec = runtime(BootstrapSpec())
    published: PublishedSpec | None = recorded(None)
    search: dict[str, dict[str, RangeSpec]] = runtime(
        {}, description="by method (or `training`) and setting, where `tune` looks; goes before the method's own"
    )
    tuning: str = recorded("", description="how the variants' settings were chosen, shown on boards")
    tuned: dict[str, dict[str, TunedSpec]] = recorded({}, description="per track and variant: written by `tune`")
    threads: int = recorded(1, ge=1, description="torch threads of a worker; more than one changes the last bits")
    folder: str = runtime("", description="folder of the suite's file, set on loading")

    @property
    def default_tracks(self) -> list[str]:
        """The tracks that run where none is named: all, where each would have to be named."""
        return [name for name, track in self.tracks.items() if track.default] or list(self.tracks)

    @model_validator(mode="after")
    def _names_differ(self) -> SuiteSpec:
        for kind, names in (("model", self.models), ("task", self.tasks), ("track", self.tracks)):
            check_alike(kind, names, f"suite {self.name}")
        return self

    @model_validator(mode="after")
    def _names_exist(self) -> SuiteSpec:
        for track, spec in self.tracks.items():
            for role in (spec.forget_task, spec.retain_task, *spec.controls):
                if role not in self.tasks:
                    raise ValueError(f"track {track!r} names the task {role!r}.{suggest(role, self.tasks)}")
        for track in self.variants:
            if track not in self.tracks:
                raise ValueError(f"variants are given for the track {track!r}.{suggest(track, self.tracks)}")
        return self

    @model_validator(mode="before")
    @classmethod
    def _composites_keep_their_order(cls, values: Any) -> Any:
        composites = values.get("composites") if isinstance(values, Mapping) else None
        if not isinstance(composites, Mapping):
            return values
        placed = {
            name: {"place": place, **spec} if isinstance(spec, Mapping) else spec
            for place, (name, spec) in enumerate(composites.items())
        }
        return {**values, "composites": placed}


def load_suite(name: str) -> SuiteSpec:
    """Load a registered suite by name, or a user's own by its YAML file.

    A file may say `extends: NAME_OR_FILE` and then only what differs: mappings are merged, null takes a key out,
    everything else replaces. It keeps the data of an embedded suite that it extends.

    Raises:
        UserError: unknown name, unreadable file, or a file that does not validate (each wrong key is named).
    """
    values, path = _read(name, Path(), ())
    return SuiteSpec.parse(values, f"Suite file {path.name}")


def chosen_suite(suite: str | SuiteSpec | None, data_root: Path | None = None) -> SuiteSpec:
    """Return the suite that is asked for by name, file or spec; without one `real` where there is data, else `micro`.

    Raises:
        UserError: as `load_suite`.
    """
    suite = suite or ("real" if data_root else "micro")
    return suite if isinstance(suite, SuiteSpec) else load_suite(suite)


def _read(name: str, beside: Path, seen: tuple[Path, ...]) -> tuple[dict[str, Any], Path]:
    """Return the merged values of a suite, `folder` among them, and its file."""
    path = beside / name
    registered = path.suffix not in (".yaml", ".yml")
    if registered:
        path = suites.get(name)()
    if path in seen:
        raise UserError(f"Suite file {path} extends itself; name another suite in `extends:`.")
    try:
        values = read_yaml(path.read_text(encoding="utf-8"), f"Suite file {path}")
    except OSError as error:
        raise UserError(f"Suite file {path} cannot be read: {error.strerror}; check its path.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"Suite file {path} is not YAML; mend it there: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"Suite file {path} must hold a mapping; see `unlearn-bench show micro`.")
    embedded = values.get("embedded", False)
    own = {**values, "folder": str(path.parent.resolve()) if embedded or not registered else ""}
    if "extends" not in values:
        return own, path
    parent, _ = _read(str(own.pop("extends")), path.parent, (*seen, path))
    if parent.get("embedded"):
        del own["folder"]
    for name, composite in (parent.get("composites") or {}).items():
        if name not in (own.get("composites") or {}):
            composite["inherited"] = True
    return _merged(parent, own), path


def _merged(parent: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(parent)
    for key, value in own.items():
        before = merged.get(key)
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged
