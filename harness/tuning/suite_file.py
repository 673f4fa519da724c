"""Settings that were tuned: the suite file that a search leaves behind, and what boards say of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tabulate import tabulate

from ..errors import UserError
from ..planning.variants import TRAINING, overrides
from ..records import MANY, Printable
from ..specs import Spec
from ..store.files import write_json, write_text
from ..suite import SuiteSpec, suites
from .space import SAMPLER
from .trial import FINALISTS

if TYPE_CHECKING:
    from .study import Study
    from .trial import Trial


SCHEMA = 1


def place_of(suite: str | SuiteSpec | None, spec: SuiteSpec, out: Path | None) -> Path:
    """Return where the suite file goes, beside the one that it extends.

    Raises:
        UserError: the name is no suite file's, or a suite's own data would not be found from there.
    """
    beside = Path(suite).parent if isinstance(suite, str) and suite not in suites.names() else None
    stem = Path(suite).stem if isinstance(suite, str) and beside is not None else spec.name
    out = out or (beside or Path()) / f"{stem}-tuned.yaml"
    if out.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out names a suite file: {out} must end in .yaml.")
    if beside is not None and out.resolve() == Path(str(suite)).resolve():
        raise UserError(f"--out {out} is the suite file itself; name another, which will extend it.")
    if beside is not None and not spec.embedded and out.resolve().parent != beside.resolve():
        raise UserError(f"--out must lie in {beside}, beside the suite file that it extends and whose paths it keeps.")
    return out


def write_tuned(
    out: Path,
    tuning: Study,
    trials: Sequence[Trial],
    best: Mapping[str, Mapping[str, Trial]],
    finals: Sequence[Trial] = (),
) -> None:
    """Write the best settings as a suite file that extends the suite, and every trial as JSON beside it."""
    suite = tuning.suite
    variants: dict[str, Any] = {}
    tuned: dict[str, Any] = {}
    for track in tuning.tracks:
        old = {name: suite.variants.get(track, {}).get(name) for name in tuning.methods}
        kept = {name: suite.tuned.get(track, {}).get(name) for name in tuning.methods}
        top = {name: best[track][name] for name in tuning.methods if name in best.get(track, {})}
        variants[track] = _replacing({name: _variant(trial) for name, trial in top.items()}, _plain(old))
        tuned[track] = _replacing({name: _tuned(tuning, trial) for name, trial in top.items()}, _plain(kept))
    changed = overrides(tuning.request.settings).get("training", {})
    values = {
        "extends": _parent(tuning, out),
        "tuning": sentence(tuning),
        **({"training": changed} if changed else {}),
        "tuned": tuned,
        "variants": variants,
    }
    head = f"# Written by `unlearn-bench tune`; all its trials stand in {out.stem}.json.\n"
    everything = {"trials": [vars(trial) for trial in trials], "finals": [vars(trial) for trial in finals]}
    write_json(out.with_suffix(".json"), {"schema": SCHEMA, **tuning.identity(), **everything})
    write_text(out, head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120))


def _parent(tuning: Study, out: Path) -> str:
    suite = tuning.request.suite
    if isinstance(suite, str) and suite not in suites.names():
        return Path(os.path.relpath(Path(suite).resolve(), out.resolve().parent)).as_posix()
    return tuning.suite.name


def _variant(trial: Trial) -> dict[str, Any]:
    return {"method": trial.method, "settings": trial.settings, "training": trial.training}


def _tuned(tuning: Study, trial: Trial) -> dict[str, Any]:
    values = {**trial.settings, **{TRAINING + key: value for key, value in trial.training.items()}}
    found = {key: values[key] for key in tuning.spaces[trial.method]}
    seeds = len(trial.seeds) or len(tuning.request.training_seeds)
    validation = {"s": trial.s_unlearning, "gain": trial.gain, "seeds": seeds}
    known = {key: value for key, value in validation.items() if value is not None}
    return {"trials": tuning.budget, "found": found, "validation": known}


def _plain(specs: Mapping[str, Spec | None]) -> dict[str, Any]:
    return {name: spec.model_dump(mode="json", exclude_defaults=True) for name, spec in specs.items() if spec}


def _replacing(new: Any, old: Any) -> Any:
    """Return `new` with null for every key of `old` that it lacks: merged over `old`, it leaves `new`."""
    if not (isinstance(new, dict) and isinstance(old, dict)):
        return new
    return {**dict.fromkeys(old), **{key: _replacing(value, old.get(key)) for key, value in new.items()}}


def sentence(tuning: Study) -> str:
    """Return in words how settings were searched: sampler, budget, seeds, objective."""
    request = tuning.request
    seeds = ", ".join(map(str, request.training_seeds))
    items = "validation items" + (f" (at most {request.limit} a task)" if request.limit else "")
    return (
        f"{SAMPLER}, {tuning.budget} trials a method and track on {tuning.model}, the first with"
        f" default settings, search seed {tuning.seed}, training seed {seeds}: highest S-unlearning on {items} among"
        " trials with at most a tenth of broken answers whose training did not run away, else the least broken;"
        f" the best {FINALISTS} decided on training seeds {', '.join(map(str, tuning.final_seeds))}"
    )


@dataclass(frozen=True)
class MethodSummary:
    """A method's best trial on a track beside the first, which has the defaults; None: none finished.

    Attributes:
        trial, forget, retain, broken: of the best one, as it was decided.
        s_default: S-unlearning of the first trial.
        s_search, s_best: of the best trial, as it was found and as it was decided on the final seeds.
        gain: `s_best` less S of base on the same items.
        failed: number of trials that failed.
        doubt: what is to be said against the best trial: it is broken, stands at the edge of divergence, as all do, or
            costs more utility than the suite's margin.
    """

    track: str
    method: str
    trial: str | None
    s_default: float | None
    s_search: float | None
    s_best: float | None
    gain: float | None
    forget: float | None
    retain: float | None
    broken: float | None
    failed: int
    doubt: str | None = None


@dataclass(frozen=True)
class StudySummary(Printable):
    """What a study came to: the suite file that it wrote, and a row a track and method."""

    suite: str
    rows: list[MethodSummary]

    @property
    def complete(self) -> bool:
        """Whether every method has a trial that finished."""
        return all(row.trial for row in self.rows)

    def to_text(self) -> str:
        """Return the rows as a table, and why a best trial is to be doubted; the JSON holds their gains too."""
        hidden = {"doubt", "gain", *([] if any(row.failed for row in self.rows) else ["failed"])}
        rows = [{**asdict(row), "trial": row.trial or "none finished"} for row in self.rows]
        shown = [{key: value for key, value in row.items() if key not in hidden} for row in rows]
        doubts = [f"{row.track}, {row.method}: {row.doubt}.\n" for row in self.rows if row.doubt]
        return "".join([tabulate(shown, headers="keys", floatfmt=".3f"), "\n", *doubts])


def summary(
    place: Path, tuning: Study, trials: Sequence[Trial], best: Mapping[str, Mapping[str, Trial]]
) -> StudySummary:
    """Set each method's best trial beside its first; `place` is that of the suite file."""
    first = {(trial.track, trial.method): trial.s_unlearning for trial in reversed(trials)}
    searched = {(trial.track, trial.trial): trial.s_unlearning for trial in trials}
    failed = Counter((trial.track, trial.method) for trial in trials if trial.s_unlearning is None)
    rows, margin = [], tuning.suite.bootstrap.margin
    for key in product(tuning.tracks, tuning.methods):
        top = best.get(key[0], {}).get(key[1])
        found = searched[key[0], top.trial] if top else None
        values = [top.s_unlearning, top.gain, top.forget, top.retain, top.broken] if top else [None] * 5
        rows.append(
            MethodSummary(
                *key, top and top.trial, first[key], found, *values, failed=failed[key], doubt=_doubt(top, margin)
            )
        )
    return StudySummary(str(place), rows)


def _doubt(best: Trial | None, margin: float) -> str | None:
    if best is None:
        return None
    if best.edge is not None:
        return f"every trial that could win stands at the edge of divergence; of {best.trial}, {best.edge}"
    if best.is_broken:
        share = f"{best.broken:.0%}"
        return f"no trial has at most {MANY:.0%} of broken answers; {best.trial} is the least broken, with {share}"
    if best.loss is not None and best.loss > margin:
        lost = f"{best.loss:.3f} below base, past the margin of {margin:g}"
        return f"the utility of {best.trial} lies {lost}: a board may find it lost"
    return None
