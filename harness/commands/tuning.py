"""`tune`: settings by search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..runtime import TUNING_SEED
from .options import (
    ADDRESS,
    BATCH_SIZE,
    DATA_ROOT,
    JSON,
    SUITE,
    TIME_LIMIT,
    Command,
    echo,
    names,
    numbers,
    option,
    say,
    suite_name,
    take_run_options,
)


@click.command(cls=Command)
@SUITE
@option("--methods", "Methods, separated by commas.", default="all", callback=names)
@option("--models", "The model: one of the suite, a folder or a hub id.", callback=names)
@option("--tracks", "Tracks, separated by commas; none: all but those that run only where named.", callback=names)
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    help="Trials of each method on each track, the first with default settings; a trial is a full training.",
)
@click.option("--search-seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the search.")
@click.option(
    "--seeds",
    default=str(TUNING_SEED),
    show_default=True,
    callback=numbers,
    help="Training seeds of every trial, separated by commas; a trial's score is their mean.",
)
@option("--limit", "At most this many validation items a task.", type=click.IntRange(min=1))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="METHOD.KEY=VALUE",
    help="Keep a setting of a method, or of training with `training.KEY=VALUE`, out of the search (repeatable).",
)
@option("--dtype", "Of evaluation, as for `evaluate`.", default="auto")
@option("--chat-template", "Put prompts into the model's chat template (instruct models).", is_flag=True)
@option("--engine", "What runs the models; auto: vllm where it is installed and usable.", default="auto")
@option("--executor", "What runs the trials.", default="local")
@ADDRESS
@option("--workers", "Processes side by side; changes no result.", type=click.IntRange(min=1))
@option("--device", "Where models run.", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@BATCH_SIZE
@TIME_LIMIT
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("unlearn-bench-tuning"),
    show_default=True,
    help="Folder of the trials' store; finished trials are not run again.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The suite file to write, with all trials as JSON beside it. Default: SUITE-tuned.yaml.",
)
@DATA_ROOT
@option("--scorer", "Scorer of texts in place of the suite's: a folder, a hub id or a packaged one.")
@click.option("--dry-run", is_flag=True, help="Say what would be searched, in how many trainings and how long.")
@JSON
@click.pass_context
def tune(
    ctx: click.Context,
    budget: int,
    search_seed: int,
    output: Path,
    out: Path | None,
    dry_run: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Search every method's settings with the same budget, on validation items only.

    Writes a suite file that `evaluate --suite` takes, and all trials beside it. Exit status 1: a method has no trial
    that finished, and keeps its defaults.
    """
    from ..planning.request import Request
    from ..tuning import study as tuning
    from ..tuning.finals import decide, winners
    from ..tuning.pace import outlook
    from ..tuning.suite_file import place_of, summary, write_tuned

    values["suite"] = suite_name(ctx, values["suite"])
    run_options = take_run_options(values)
    planned = tuning.plan_study(Request(**values), budget, search_seed)
    place = place_of(values["suite"], planned.suite, out)
    if dry_run:
        echo(outlook(planned, output, run_options), as_json)
        return
    trials = tuning.tune(planned, output, run_options, say)
    finals = decide(planned, trials, output, run_options, say)
    best = winners(trials, finals)
    write_tuned(place, planned, trials, best, finals)
    results = summary(place, planned, trials, best)
    echo(results, as_json)
    say(f"Wrote {place} and {place.with_suffix('.json').name}: unlearn-bench evaluate --suite {place}")
    ctx.exit(0 if results.complete else 1)
