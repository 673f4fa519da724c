"""Settings by search: the same number of trials for each method and track, scored on validation items only.

A trial is an ordinary cell, a full training, of a suite that asks each task's `validation` items in place of its
`data`. All methods' trials of a round run together; what is asked next depends on results alone, never on workers. The
best trials (`Trial.order`) have the highest S-unlearning of those with at most a tenth of broken answers to the forget
task (`Mark.broken`), since S also credits a model that can no longer speak, whose training did not run away
(`divergence`). They are the finalists, between which three training seeds decide (`finals`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tabulate import tabulate

from ...leaderboards.rows.row_warnings import degenerate_share
from ...leaderboards.stats.intervals import SEEDS_FOR_METHOD
from ...methods.base import methods
from ..api import Result, run
from ..errors import UserError, suggest
from ..models.load import load_config
from ..planning.build import make_plan
from ..planning.names import check_once
from ..planning.plan import Plan, build_task, task_rows
from ..planning.request import Request
from ..planning.variants import TRAINING, Values, members, overrides
from ..records import Printable
from ..results.provenance import log_schema
from ..runtime import BOARD_SEED, TUNING_SEED, RunOptions
from ..specs import canonical
from ..store.entries import Store
from ..store.files import read_jsonl
from ..suite import BootstrapSpec, SuiteSpec, TrainingSpec, VariantSpec, chosen_suite
from .divergence import runaway
from .progress import Progress
from .space import BATCH, SAMPLER, STARTUP, Params, Sampler, Space, described, space_of
from .trial import FINALISTS, Trial


@dataclass(frozen=True)
class Study(Printable):
    """A search: what is asked, for which methods, within which budget.

    Attributes:
        request: suite, model, tracks, limit and so on, as for `evaluate`; `settings` are kept out of the search.
        suite: the suite, with what the user set of `training`.
        spaces: method to where its settings are looked for.
        budget: trials a method and track.
        seed: of the search.
        notes: which methods are left out and why, and what else a board would say.
    """

    request: Request
    suite: SuiteSpec
    methods: tuple[str, ...]
    tracks: tuple[str, ...]
    spaces: Mapping[str, Space]
    budget: int
    seed: int
    model: str
    vocabulary: int
    notes: Sequence[str] = ()

    @property
    def searched(self) -> int:
        """Trainings of the trials, finished ones included."""
        return self.budget * len(self.methods) * len(self.tracks) * len(self.request.training_seeds)

    @property
    def final_seeds(self) -> tuple[int, ...]:
        """Training seeds of the finalists: those of the trials, and others that no board has until they are three."""
        seeds = dict.fromkeys(self.request.training_seeds)
        others = (seed for seed in itertools.count(TUNING_SEED) if seed not in seeds)
        return (*seeds, *itertools.islice(others, max(0, SEEDS_FOR_METHOD - len(seeds))))

    @property
    def decided(self) -> int:
        """Further trainings, at most, of the finalists; none where there is one trial, and nothing to decide."""
        more = len(self.final_seeds) - len(self.request.training_seeds)
        return min(FINALISTS, self.budget) * more * len(self.methods) * len(self.tracks) if self.budget > 1 else 0

    @property
    def trainings(self) -> int:
        """Trainings that the whole search takes at most, finished ones included."""
        return self.searched + self.decided

    def identity(self) -> dict[str, Any]:
        """Return what the search is, as plain JSON types."""
        return {
            "suite": self.suite.name,
            "revision": self.suite.revision,
            "model": self.model,
            "methods": list(self.methods),
            "tracks": list(self.tracks),
            "budget": self.budget,
            "seed": self.seed,
            "training_seeds": list(self.request.training_seeds),
            "finalists": FINALISTS,
            "final_seeds": list(self.final_seeds),
            "limit": self.request.limit,
            "training": self.suite.training.identity(),
            "sampler": SAMPLER,
            "space": {method: described(space) for method, space in self.spaces.items()},
        }

    def facts(self) -> dict[str, Any]:
        """Return what the search would do."""
        return {**self.identity(), "trainings": self.trainings, "notes": list(self.notes)}

    def to_text(self) -> str:
        """Return what the search would do: the ranges of each method's settings, and the number of trainings."""
        rows = [
            {"method": method, "setting": key, "from": ends["low"], "to": ends["high"], "log": ends["log"]}
            for method, space in self.spaces.items()
            for key, ends in described(space).items()
        ]
        table = tabulate(rows, headers="keys", tablefmt="simple")
        seeds = len(self.request.training_seeds)
        return (
            f"{table}\n\n{len(self.methods)} methods x {len(self.tracks)} tracks x {self.budget} trials"
            f"{f' x {seeds} seeds' if seeds > 1 else ''} = {self.searched} trainings.\n{self._finals()}"
            + "".join(f"Note: {note}.\n" for note in self.notes)
        )

    def _finals(self) -> str:
        if not self.decided:
            return ""
        seeds = ", ".join(map(str, self.final_seeds))
        return (
            f"The best {min(FINALISTS, self.budget)} of each are decided on the seeds {seeds}: at most {self.decided} "
            f"more, {self.trainings} in all.\n"
        )


def plan_study(request: Request, budget: int, seed: int = 0) -> Study:
    """Check a search before anything runs: names, validation items, ranges.

    Trials are trained with the request's seeds, `TUNING_SEED` where it names none.

    Raises:
        UserError: an unknown name or setting, several models, or a task without validation items of its own.
    """
    request = request if request.seeds is not None else replace(request, seeds=(TUNING_SEED,))
    check_once(request)
    suite = chosen_suite(request.suite, request.data_root)
    models = list(request.model_names or suite.models)
    if len(models) != 1:
        raise UserError(f"Settings are tuned on one model; choose it with --models ({', '.join(models) or 'none'}).")
    names = list(dict.fromkeys(methods.names() if "all" in request.methods else members(request.method_names)))
    fixed = overrides(request.settings)
    for name in (*names, *(name for name in suite.search if name != "training")):
        methods.get(name)
    for name in fixed.keys() - {"training", *names}:
        raise UserError(f"--set {name}.…: {name} is not among the methods that are tuned ({', '.join(names)}).")
    training = TrainingSpec.parse({**suite.training.identity(), **fixed.get("training", {})}, "training")
    suite = suite.model_copy(update={"training": training})
    tracks = tuple(dict.fromkeys(request.tracks or suite.default_tracks))
    for track in tracks:
        if track not in suite.tracks:
            raise UserError(f"Unknown track {track!r}.{suggest(track, suite.tracks)}")
    rounds = [round_request(request, suite, track, {}) for track in tracks]
    plans = [make_plan(replace(asked, methods=request.methods), None) for asked in rounds]
    served = [{cell.spec.method for cell in plan.cells} for plan in plans]
    names = [name for name in names if all(name in own for own in served)]
    notes = tuple(dict.fromkeys(note for plan in plans for note in plan.notes))
    if not names:
        raise UserError(f"No method is left to tune: {'; '.join(notes)}.")
    for plan in plans:
        _check_disjoint(suite, plan)
    (model,) = plans[0].models.values()
    config = load_config(model).get_text_config(decoder=True)
    spaces = {name: space_of(name, suite, config.num_hidden_layers, fixed) for name in names}
    for name, space in spaces.items():
        if not space:
            raise UserError(f"Nothing of {name} is searched: all its settings are set with --set; leave one out.")
    return Study(request, suite, tuple(names), tracks, spaces, budget, seed, model.name, config.vocab_size, notes)


def validation_suite(suite: SuiteSpec, track: str, variants: Mapping[str, VariantSpec]) -> SuiteSpec:
    """Return a suite that asks the validation items of a track's two tasks, with these variants.

    Raises:
        UserError: a task has no validation items.
    """
    spec = suite.tracks[track]
    started = {role: reference for role, reference in spec.references.items() if role == "original"}
    tasks = {}
    for name in (spec.forget_task, spec.retain_task):
        source = suite.tasks[name].validation
        if source is None:
            raise UserError(
                f"Task {name} of suite {suite.name} has no validation items, and settings are never tuned on those that"
                f" boards report. Give it some with `validation:` in a suite file, or choose other --tracks."
            )
        tasks[name] = suite.tasks[name].model_copy(update={"data": source, "validation": None})
    return SuiteSpec(
        name=f"{suite.name}-validation-{track}",
        revision=suite.revision,
        embedded=suite.embedded,
        models=suite.models,
        tasks=tasks,
        tracks={track: spec.model_copy(update={"controls": (), "neighbours": (), "references": started})},
        training=suite.training,
        variants={track: dict(variants)},
        scorer=suite.scorer,
        bootstrap=BootstrapSpec(resamples=100),
        threads=suite.threads,
        folder=suite.folder,
    )


def round_request(request: Request, suite: SuiteSpec, track: str, variants: Mapping[str, VariantSpec]) -> Request:
    """Return the request that trains and measures these variants on validation items, without a null but the base."""
    validation = validation_suite(suite, track, variants)
    return replace(
        request,
        suite=validation,
        methods=tuple(variants) or ("none",),
        tracks=(track,),
        settings=(),
        noise=False,
        replicate=False,
    )


def _check_disjoint(suite: SuiteSpec, plan: Plan) -> None:
    """Raise a `UserError` where a validation item, or one of its cluster (its fact), is among the reported ones."""
    folder = Path(plan.data_folder) if plan.data_folder else None
    for name, planned in plan.tasks.items():
        task = build_task(planned.spec, folder)
        reported, validation = (
            {item.cluster for item in task.items(task_rows(task, spec, folder).rows)}
            for spec in (suite.tasks[name], planned.spec)
        )
        shared = reported & validation
        if shared:
            raise UserError(
                f"{len(shared)} of the {len(validation)} validation questions or prompts of {name} are also reported:"
                f" tuning on them would be tuning on the answers. Give suite {suite.name} others."
            )


def tune(
    tuning: Study, output: Path, options: RunOptions | None = None, say: Callable[[str], None] = lambda line: None
) -> list[Trial]:
    """Run a search; trials that the store holds are not run again.

    Args:
        tuning: of `plan_study`.
        output: folder of the store.
        options: as for `evaluate`, without a say in results.
        say: called with a line after each round (what is done, how long the rest takes), and before the first where
            trials share a seed with boards.

    Returns:
        All trials: by track, then as they were asked for.
    """
    if BOARD_SEED in tuning.request.training_seeds:
        say(
            f"Training seed {BOARD_SEED} is also that of boards: settings are fitted to its draws."
            " Leave out --seeds to avoid it."
        )
    all_trials: list[Trial] = []
    progress = Progress(tuning.trainings, output)
    for track in tuning.tracks:
        searches = {name: _search(tuning, name, track) for name in tuning.methods}
        trials: list[Trial] = []
        for start, count in _rounds(tuning.budget):
            points = [
                (name, f"{name}-{number:03d}", search.ask())
                for name, search in searches.items()
                for number in range(start, start + count)
            ]
            trials += _run(tuning, track, points, trials, output, options or RunOptions())
            for (name, _, point), trial in zip(points, trials[-len(points) :], strict=True):
                searches[name].tell(point, trial.s_unlearning, trial.excess)
            failed = sum(trial.s_unlearning is None for trial in trials)
            done = progress.after(trials[-len(points) :])
            say(f"{track}: {start + count} of {tuning.budget} trials a method, {failed} failed; {done}")
        keep_plan(tuning, track, trials, output)
        all_trials += trials
    return all_trials


def _rounds(budget: int) -> Iterator[tuple[int, int]]:
    """Give the number of each round's first trial, and how many it has of each method."""
    start = 0
    while start < budget:
        count = min(BATCH if start else STARTUP, budget - start)
        yield start, count
        start += count


def _search(tuning: Study, method: str, track: str) -> Sampler:
    kind = methods.get(method)
    training = {TRAINING + key: value for key, value in tuning.suite.training.identity().items()}
    settings = kind.Settings.parse(overrides(tuning.request.settings).get(method, {}), method).identity()
    return Sampler(tuning.spaces[method], {**settings, **training}, tuning.seed, method, track)


def variant_of(method: str, values: Mapping[str, Any], fixed: Values) -> VariantSpec:
    """Return a method's variant with searched values (settings and `training.KEY`) and those that the user set."""
    training = {key.removeprefix(TRAINING): value for key, value in values.items() if key.startswith(TRAINING)}
    settings = {key: value for key, value in values.items() if not key.startswith(TRAINING)}
    return VariantSpec(method=method, settings={**fixed.get(method, {}), **settings}, training=training)


def _run(
    tuning: Study,
    track: str,
    points: Sequence[tuple[str, str, Params]],
    before: Sequence[Trial],
    output: Path,
    options: RunOptions,
) -> list[Trial]:
    """Train and measure points in one run; settings that were tried before are not run again."""
    fixed = overrides(tuning.request.settings)
    variants = {label: variant_of(name, point.values, fixed) for name, label, point in points}
    known = {trial.key: trial for trial in before}
    new = {key: label for label, v in reversed(variants.items()) if (key := _key_of(v)) not in known}
    if new:
        new_variants = {label: variants[label] for label in reversed(new.values())}
        result = run(round_request(tuning.request, tuning.suite, track, new_variants), output, options)
        known |= {key: trial_of(tuning, track, label, new_variants[label], result) for key, label in new.items()}
    return [replace(known[_key_of(v)], trial=label) for label, v in variants.items()]


def _key_of(variant: VariantSpec) -> bytes:
    return canonical((variant.method, variant.settings, variant.training))


def trial_of(tuning: Study, track: str, label: str, variant: VariantSpec, result: Result) -> Trial:
    """Return what a run on validation items says of one of its variants."""
    row = next(row for row in result.board.rows if row["variant"] == label)
    trial = Trial(track, variant.method, label, variant.settings, variant.training, "failed", cells=row["cells"])
    s, forget, retain = row["s_unlearning"] or row["raw_s"], row["forget"], row["retain"]
    if row["status"] != "ok" or s is None or forget is None or retain is None:
        causes = [cause for name, cause in result.failures.items() if name.startswith(f"{track}/{label}#")]
        return replace(trial, failure=causes[0] if causes else "; ".join(row["warnings"]))
    gain, kept = row["delta_base"], retain["delta_base"]
    return replace(
        trial,
        status="ok",
        s_unlearning=s["value"],
        forget=forget["value"],
        retain=retain["value"],
        broken=round(degenerate_share(result.board.spec, row), 6),
        gain=None if gain is None else gain["value"],
        loss=None if kept is None else -kept["value"],
        edge=_edge(tuning, result, row["cells"]),
    )


def _edge(tuning: Study, result: Result, cells: Sequence[str]) -> str | None:
    """Return what the log of any of some trainings says of its having run away."""
    for cell in cells:
        log = [row for row in read_jsonl(result.store.entry("cells", cell).file("training.jsonl")) if row["step"] >= 0]
        schema = log_schema(result.plan.by_id[cell].spec, [*log[0]] if log else [])
        if (words := runaway(log, schema, tuning.vocabulary)) is not None:
            return words
    return None


def keep_plan(tuning: Study, track: str, trials: Sequence[Trial], output: Path) -> None:
    """Let the store's plan of the validation suite cover every trial, so that `show`, `items` and boards find them."""
    variants = {
        trial.trial: VariantSpec(method=trial.method, settings=trial.settings, training=trial.training)
        for trial in trials
    }
    store = Store.open(output)
    make_plan(round_request(tuning.request, tuning.suite, track, variants), store).save(store)


def best_trials(trials: Sequence[Trial]) -> dict[str, dict[str, Trial]]:
    """Return per track and method the best trial that finished; of equal ones the first."""
    return {track: {method: ordered[0] for method, ordered in group.items()} for track, group in ranked(trials).items()}


def ranked(trials: Sequence[Trial]) -> dict[str, dict[str, list[Trial]]]:
    """Return per track and method the trials that finished, the best first; settings tried again stand once."""
    groups: dict[str, dict[str, list[Trial]]] = {}
    for trial in sorted((trial for trial in trials if trial.s_unlearning is not None), key=lambda trial: trial.order):
        group = groups.setdefault(trial.track, {}).setdefault(trial.method, [])
        if all(trial.key != other.key for other in group):
            group.append(trial)
    return groups
