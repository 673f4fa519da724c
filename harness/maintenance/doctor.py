"""The doctor: what works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..data import hub_copy
from ..errors import UserError, settle_offline
from ..records import Printable
from ..suite import SourceSpec, SuiteSpec, load_suite, suites

PACKAGES = ("torch", "transformers", "lm-eval", "datasets", "scikit-learn", "scipy", "pandas")


@dataclass(frozen=True)
class Check:
    """What was looked at, whether it works, whether that is needed, and what it says."""

    what: str
    ok: bool
    needed: bool
    says: str


@dataclass(frozen=True)
class Diagnosis(Printable):
    """What works on a machine and what does not."""

    checks: list[Check]

    @property
    def fit(self) -> bool:
        """Whether all works that is needed."""
        return all(check.ok or not check.needed for check in self.checks)

    def facts(self) -> list[dict[str, Any]]:
        """Return the checks as plain JSON types."""
        return [asdict(check) for check in self.checks]

    def to_text(self) -> str:
        """Return the checks, a line each."""
        marks = ("ok  " if check.ok else "FAIL" if check.needed else "no  " for check in self.checks)
        return "".join(f"{mark} {check.what}: {check.says}\n" for mark, check in zip(marks, self.checks, strict=True))


def diagnose(output: Path, data_root: Path | None) -> Diagnosis:
    """Run every check of this machine, the output folder and the data."""
    checks = [
        _check("python", True, lambda: sys.version.split()[0]),
        *(_check(name, True, lambda name=name: version(name)) for name in PACKAGES),
        _check("processor", True, _processor),
        _check("GPU", False, _gpu),
        _check("suite micro", True, _micro),
        _check("output folder", True, lambda: _writable(output)),
        _check("data folder", False, lambda: _data(data_root)),
        *_engines(),
        _check("hub", False, _hub),
        *_reachable(data_root),
        *_broken(),
    ]
    return Diagnosis(checks)


def _check(what: str, needed: bool, look: Callable[[], str]) -> Check:
    try:
        return Check(what, True, needed, look())
    except PackageNotFoundError:
        return Check(what, False, needed, f"not installed; `pip install {what}`")
    except (UserError, OSError, ImportError) as error:
        return Check(what, False, needed, str(error))


def _processor() -> str:
    import torch

    return f"{len(os.sched_getaffinity(0))} usable cores, torch {torch.__version__}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        raise UserError("none; models of 7-8B need one, the suite micro does not")
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))


def _micro() -> str:
    from ..planning.build import make_plan
    from ..planning.request import Request

    plan = make_plan(Request(), None)
    return f"revision {plan.suite.revision}, {len(plan.cells)} cells, {sum(t.count for t in plan.tasks.values())} items"


def _writable(output: Path) -> str:
    parent = next(folder for folder in (output, *output.resolve().parents) if folder.exists())
    if not os.access(parent, os.W_OK):
        raise UserError(f"{output} cannot be written; pass another folder with --output")
    return f"{output} can be written"


def _data(data_root: Path | None) -> str:
    if data_root is None:
        raise UserError("none given; pass --data-root DIR or set UNLEARN_BENCH_DATA to run on real data")
    if not data_root.is_dir():
        raise UserError(f"{data_root} does not exist; pass an existing folder with --data-root")
    names = sorted(path.name for path in data_root.iterdir() if path.is_dir())
    return f"{data_root}: {', '.join(names)}" if names else f"{data_root}: empty"


def _engines() -> list[Check]:
    """Say of each engine whether it runs here, and which one `--engine auto` takes."""
    from ..engines.base import engines
    from ..planning.build import resolve_engine

    def usable(name: str) -> str:
        cause = engines.get(name).unusable()
        if cause is not None:
            raise UserError(cause)
        return "usable"

    checks = [
        _check(f"engine {name}", name == "transformers", lambda name=name: usable(name)) for name in engines.names()
    ]
    taken = resolve_engine("auto", {})
    why = "vllm, which is usable" if taken == "vllm" else f"{taken}, since vllm is not usable"
    return [*checks, _check("engine auto", True, lambda: f"takes {why}")]


def _reachable(data_root: Path | None) -> list[Check]:
    """Say of each suite that brings neither data nor models which of them can be reached."""
    checks = []
    for name in suites.names():
        try:
            suite = load_suite(name)
        except UserError as error:
            checks.append(Check(f"suite {name}", False, False, str(error)))
            continue
        if not suite.embedded:
            checks.append(_check(f"data of suite {name}", False, lambda suite=suite: _sources(suite, data_root)))
            checks.append(_check(f"models of suite {name}", False, lambda suite=suite: _models(suite)))
    return checks


def _sources(suite: SuiteSpec, folder: Path | None) -> str:
    """Return where the suite's data come from; raise a `UserError` that names what neither folder nor hub gives."""
    here = {source.paths[0] if source.path else str(source.hub): _local(source, folder) for source in _named(suite)}
    away = [name for name, there in here.items() if not there]
    local = f"{len(here) - len(away)} of {len(here)} below --data-root"
    if away and settle_offline():
        raise UserError(f"{local}, and the hub is not reachable; put there: {'; '.join(away)}")
    return f"{local}{', from the hub: ' + '; '.join(away) if away else ''}"


def _named(suite: SuiteSpec) -> Iterator[SourceSpec]:
    for track in suite.tracks.values():
        yield from (*track.corpora.forget.values(), track.corpora.retain, *track.corpora.pools.values())
        if track.corpora.probe is not None:
            yield track.corpora.probe
    for task in suite.tasks.values():
        if task.data is not None:
            yield task.data
    for scorer in (suite.scorer, *(task.scorer for task in suite.tasks.values())):
        if scorer is not None and scorer.train is not None:
            yield scorer.train


def _local(source: SourceSpec, folder: Path | None) -> bool:
    """Return whether a folder holds a source's files, or a copy of its data set, or those of its stand-in."""
    if folder is None or not folder.is_dir():
        return False
    there = any(next(folder.glob(pattern), None) for pattern in source.paths)
    copied = source.hub is not None and hub_copy(source.hub, folder) is not None
    return there or copied or (source.otherwise is not None and _local(source.otherwise, folder))


def _models(suite: SuiteSpec) -> str:
    """Return which of the suite's models are in the hub's local cache; raise where the hub cannot give the others."""
    from huggingface_hub import try_to_load_from_cache

    if not suite.models:
        return "yours; pass a folder or hub id with --models"
    hubs = {name: model for name, model in suite.models.items() if model.hub}
    away = [
        str(model.hub)
        for model in hubs.values()
        if not isinstance(try_to_load_from_cache(str(model.hub), "config.json", revision=model.revision), str)
    ]
    local = f"{len(suite.models) - len(away)} of {len(suite.models)} on this machine"
    if away and settle_offline():
        raise UserError(f"{local}, and the hub is not reachable; prefetch {', '.join(away)} with `hf download ID`")
    return f"{local}{', from the hub: ' + ', '.join(away) if away else ''}"


def _hub() -> str:
    if outage := settle_offline():
        raise UserError(f"{outage}; only local folders and its cache can be used")
    return "reachable"


def _broken() -> Iterator[Check]:
    from ..authoring.catalog import REGISTRIES

    for registry in REGISTRIES.values():
        registry.names()
        for source, cause in registry.broken.items():
            yield Check(source, False, False, f"cannot be loaded: {cause}")
