"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from ..records import Printable
from ..runtime import RunOptions


def option(flag: str, text: str, variable: str | None = None, **options: Any) -> Callable[[Any], Any]:
    """Declare an option that an environment variable stands in for: UNLEARN_BENCH_ and its name, if none is given."""
    variable = variable or "UNLEARN_BENCH_" + flag.removeprefix("--").replace("-", "_").upper()
    return click.option(
        flag, help=text, envvar=variable, show_envvar=True, show_default="default" in options, **options
    )


OUTPUT = option(
    "--output",
    "Folder of the store: checkpoints, answers, records, boards.",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("unlearn-bench-results"),
)
SUITE = option("--suite", "Name of a suite, or a YAML file.")
DATA_ROOT = option(
    "--data-root",
    "Folder of real data; without --suite it selects the suite `real`.",
    "UNLEARN_BENCH_DATA",
    type=click.Path(path_type=Path),
)
BATCH_SIZE = option(
    "--batch-size",
    "Sequences that are evaluated together. In float32 it moves last bits only; in half precision it can change"
    " answers, and boards name it.",
    type=click.IntRange(min=1),
    default=64,
)
TIME_LIMIT = option(
    "--time-limit",
    "Of each cell's training, and of its measurement: 90s, 30m, 2h; one that takes longer is ended and has failed.",
    callback=lambda *given: seconds(*given),
)
ADDRESS = option(
    "--address",
    "Of the Ray cluster for --executor ray: auto (the one that runs here, the default), HOST:PORT, or local (a new one"
    " of this machine alone).",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def take_run_options(values: dict[str, Any]) -> RunOptions:
    """Take the options of a run out of the values of a command."""
    return RunOptions(
        **{option.name: values.pop(option.name) for option in fields(RunOptions) if option.name in values}
    )


def say(text: str) -> None:
    """Write a line that is no result and no error to standard error, unless the user wants it quiet."""
    if not click.get_current_context().find_root().params.get("quiet"):
        click.echo(text, err=True)


def echo(result: Printable, as_json: bool) -> None:
    """Print what a command came to."""
    click.echo(result.to_json() if as_json else result.to_text(), nl=False)


def suite_name(ctx: click.Context, suite: str | None) -> str | None:
    """Return the suite that is asked for; a data folder that only the environment names does not select `real`."""
    environment = ctx.get_parameter_source("data_root") == ParameterSource.ENVIRONMENT
    return "micro" if suite is None and environment else suite


def names(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return the parts of a text at its commas, None where there is none."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else None


def seconds(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of `90s`, `30m` or `2h`, and of a number alone, which is minutes; None where there is none."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value.strip())
    if match is None or float(match[1]) == 0:
        raise click.BadParameter(f"takes a time such as 90s, 30m or 2h, not {value!r}")
    return float(match[1]) * {"s": 1, "m": 60, "": 60, "h": 3600}[match[2]]


def numbers(ctx: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    """Return whole numbers from 0, each once."""
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"takes whole numbers from 0 separated by commas, not {value!r}")
    return tuple(dict.fromkeys(map(int, parts)))


def pairs(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Return NAME=FOLDER as a mapping."""
    pairs = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not (separator and name and folder):
            raise click.BadParameter(f"takes NAME=FOLDER, not {value!r}")
        pairs[name] = Path(folder)
    return pairs


def options(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    """Return KEY=VALUE as a mapping, values read as YAML."""
    pairs = {}
    for value in values:
        name, separator, text = value.partition("=")
        try:
            pairs[name] = yaml.safe_load(text)
        except yaml.YAMLError:
            separator = ""
        if not (separator and name and text):
            raise click.BadParameter(f"takes KEY=VALUE, not {value!r}")
    return pairs
