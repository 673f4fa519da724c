"""What a user asks `evaluate` for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..suite import SuiteSpec


@dataclass(frozen=True)
class Request:
    """What a user asks `evaluate` for. None means: as the suite says.

    Attributes:
        suite: name of a suite, its YAML file, or the spec itself.
        methods: names of methods or of the suite's variants, or ("all",).
        checkpoints: name to folder of checkpoints made elsewhere.
        settings: overrides, `METHOD.KEY=VALUE` or `training.KEY=VALUE`.
        grid: sweeps, `METHOD.KEY=VALUE,VALUE` or `training.KEY=…`: a variant for each choice of one value a key.
        stress: what every checkpoint is put through too, by names of stresses of the suite.
        engine_options: what the engine is started with; they change no result.
        dtype: of evaluation; `auto`: the suite's for its own models, else what the model's configuration names.
        chat_template: put prompts into the model's chat template.
        scorer: folder or hub id of a judge, in place of the suite's.
        noise: whether a row of noise is matched to the methods.
        nulls: further null rows, of `cells.NULLS`.
    """

    suite: str | SuiteSpec | None = None
    methods: Sequence[str] = ("all",)
    models: Sequence[str] | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    tracks: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    seeds: Sequence[int] = (0,)
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
    nulls: Sequence[str] = ()
    data_root: Path | None = None
    command: str = "unlearn-bench evaluate"
