"""What a user asks `evaluate` for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...methods.base import Method, methods
from ...tasks.base import tasks as registered
from ..errors import UserError
from ..models.load import ModelSpec
from ..runtime import BOARD_SEED
from ..suite import SuiteModel, SuiteSpec, TaskSpec


@dataclass(frozen=True)
class Request:
    """What a user asks `evaluate`, or a study, for. None means: as the suite says.

    Attributes:
        suite: name of a suite, its YAML file, or the spec itself.
        methods: names of methods or of the suite's variants, ("all",) or ("family:NAME",); classes of methods,
            by their registered names, or for this process by those of `Registry.name_of`.
        models: names of the suite's, folders, hub ids, or specs.
        checkpoints: name to folder of checkpoints made elsewhere, or to a file of stored values of one.
        references: ROLE or TRACK/ROLE (`original`, `retain`) to a model's folder, or to a file of stored values; goes
            before the suite's.
        tasks: names of the tracks' tasks, and specs of further ones: controls, called like the task that they name.
            Their files are below `data_root`, else the folder of work. `KIND:NAME` is a control too, of a kind that
            has tasks by name (`lm_eval:arc_easy`).
        include_path: folder of further tasks by name, for `KIND:NAME`.
        seeds: of training; None: `BOARD_SEED`, in a study `TUNING_SEED` (of `runtime`).
        settings: overrides, `METHOD.KEY=VALUE`, `training.KEY=VALUE` or `scorer.KEY=VALUE`.
        grid: sweeps, `METHOD.KEY=VALUE,VALUE` or `training.KEY=…`: a variant for each choice of one value a key.
        stress: what every checkpoint is put through too, by names of stresses of the suite.
        engine_options: what the engine is started with; in float32 they change no result beyond its tolerance.
        dtype: of evaluation; `auto`: the suite's for its own models, else what the model's configuration names.
        chat_template: put prompts into the model's chat template.
        scorer: folder or hub id of a scorer of texts, or a packaged one, in place of the suite's.
        noise: whether each checkpoint with other weights has noise of its norm beside it.
        replicate: whether each method is trained once more with the first seed, from weights a hair apart.
        nulls: further null rows, of `identity.NULLS`.
    """

    suite: str | SuiteSpec | None = None
    methods: Sequence[str | type[Method]] = ("all",)
    models: Sequence[str | Path | ModelSpec] | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    references: Mapping[str, Path] = field(default_factory=dict)
    tracks: Sequence[str] | None = None
    tasks: Sequence[str | TaskSpec] | None = None
    include_path: Path | str | None = None
    seeds: Sequence[int] | None = None
    limit: int | None = None
    settings: Sequence[str] = ()
    grid: Sequence[str] = ()
    stress: Sequence[str] | None = None
    engine: str = "auto"
    engine_options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str = "auto"
    chat_template: bool = False
    scorer: Path | str | None = None
    noise: bool = True
    replicate: bool = False
    nulls: Sequence[str] = ()
    data_root: Path | None = None
    command: str = "unlearn-bench evaluate"

    @property
    def training_seeds(self) -> tuple[int, ...]:
        """Seeds that methods are trained with."""
        return (BOARD_SEED,) if self.seeds is None else tuple(self.seeds)

    @property
    def method_names(self) -> tuple[str, ...]:
        """The names of the methods; raises a `UserError` where a class is no method, or its name is taken."""
        for given in self.methods:
            if not isinstance(given, str) and not (isinstance(given, type) and issubclass(given, Method)):
                raise UserError(f"`methods` takes names and classes of methods, not {given!r}.")
        return tuple(given if isinstance(given, str) else methods.name_of(given) for given in self.methods)

    @property
    def model_names(self) -> tuple[str, ...] | None:
        """The names of the models; None: all of the suite."""
        named = [given.name if isinstance(given, ModelSpec) else str(given) for given in self.models or ()]
        return tuple(named) or None

    @property
    def task_names(self) -> tuple[str, ...] | None:
        """The names of the tasks; None: all of the tracks."""
        return tuple(given.task if isinstance(given, TaskSpec) else given for given in self.tasks or ()) or None

    @property
    def folders(self) -> dict[str, Path]:
        """The checkpoints that are folders, by name."""
        return {name: Path(path) for name, path in self.checkpoints.items() if not Path(path).is_file()}

    @property
    def stored(self) -> dict[str, Path]:
        """The checkpoints that are files of stored values, by name."""
        return {name: Path(path).resolve() for name, path in self.checkpoints.items() if Path(path).is_file()}

    def task_folder(self, name: str) -> Path | None:
        """Return the folder of the data of a task that is given as a spec, None for one of the suite."""
        given = any(isinstance(task, TaskSpec) and task.task == name for task in self.tasks or ())
        return Path(self.data_root or "").resolve() if given else None

    def with_named_tasks(self, suite: SuiteSpec) -> tuple[Request, SuiteSpec]:
        """Return the request with `KIND:NAME` as the tasks that it stands for, and the suite with these as controls.

        Where nothing else is named they stand beside all tasks of the tracks.

        Raises:
            UserError: a kind that has no tasks by name, or a name that it does not know.
        """
        place = None if self.include_path is None else str(Path(self.include_path).resolve())
        specs: dict[str, TaskSpec] = {}
        asked: dict[str | TaskSpec, None] = {}
        for given in self.tasks or ():
            kind, colon, name = given.partition(":") if isinstance(given, str) else ("", "", "")
            if not colon or given in suite.tasks:
                asked[given] = None
                continue
            own = registered.get(kind).named(name, place)
            specs |= {f"{kind}:{one}": TaskSpec(task=kind, settings=settings) for one, settings in own.items()}
            asked |= dict.fromkeys(f"{kind}:{one}" for one in own)
        if not specs:
            return self, suite
        only = asked.keys() <= specs.keys()
        return replace(self, tasks=None if only else tuple(asked)), _with_controls(suite, specs)

    def extended(self, suite: SuiteSpec) -> SuiteSpec:
        """Return the suite with the models and tasks that are given as specs, the tasks as controls of every track.

        Raises:
            UserError: a task is given as something else, or the suite has another task of that name.
        """
        for given in self.tasks or ():
            if not isinstance(given, str | TaskSpec):
                raise UserError(
                    f"`tasks` takes names and specs, not {given!r}; give it its data: TaskSpec(task=…,"
                    " data=SourceSpec(path=…))."
                )
        tasks = {given.task: given for given in self.tasks or () if isinstance(given, TaskSpec)}
        models = {
            given.name: SuiteModel(path=given.path, hub=given.hub, revision=given.revision, dtype=given.dtype)
            for given in self.models or ()
            if isinstance(given, ModelSpec)
        }
        for name in tasks:
            if suite.tasks.get(name, tasks[name]) != tasks[name]:
                raise UserError(
                    f"Suite {suite.name} has another task called {name!r}; register yours under another name, or write"
                    " a suite file that `extends` it."
                )
        suite = suite.model_copy(update={"models": suite.models | models}) if models else suite
        return _with_controls(suite, tasks)


def _with_controls(suite: SuiteSpec, tasks: Mapping[str, TaskSpec]) -> SuiteSpec:
    """Return the suite with further tasks, as controls of every track."""
    changed = {
        name: track.model_copy(update={"controls": tuple(dict.fromkeys([*track.controls, *tasks]))})
        for name, track in suite.tracks.items()
    }
    return suite.model_copy(update={"tasks": {**suite.tasks, **tasks}, "tracks": changed}) if tasks else suite
