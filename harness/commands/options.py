"""Options that several commands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import yaml


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
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")


def names(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return the parts of a text at its commas, None where there is none."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else None


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
