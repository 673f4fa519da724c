"""`evaluate`: train, measure, write the board and the report."""

from __future__ import annotations

import shlex
import time
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ..errors import first_line
from ..runtime import BOARD_SEED
from .options import (
    ADDRESS,
    BATCH_SIZE,
    DATA_ROOT,
    JSON,
    OUTPUT,
    SUITE,
    TIME_LIMIT,
    Command,
    echo,
    names,
    numbers,
    option,
    options,
    pairs,
    say,
    suite_name,
    take_run_options,
)

if TYPE_CHECKING:
    from ..api import Result
    from ..results.summary import RunSummary


@click.command(cls=Command)
@SUITE
@option(
    "--methods",
    "Methods or variants of the suite, separated by commas, or family:NAME; `none` for base and checkpoints only.",
    default="all",
    callback=names,
)
@option("--models", "Models of the suite, folders or hub ids, separated by commas.", callback=names)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    callback=pairs,
    metavar="NAME=FOLDER_OR_FILE",
    help="Score a checkpoint made elsewhere as a row of its own, or show stored values of one (repeatable).",
)
@click.option(
    "--reference",
    "references",
    multiple=True,
    callback=pairs,
    metavar="[TRACK/]ROLE=FOLDER_OR_FILE",
    help="What stands on the tracks as `original` (methods start from it) or `retain` (trained without the forget"
    " text): a model's folder, or for retain a file of stored values of items; goes before the suite's (repeatable).",
)
@option("--tracks", "Tracks, separated by commas; none: all but those that run only where named.", callback=names)
@option(
    "--tasks",
    "Tasks, separated by commas; lm_eval:NAME is one of lm-eval's, or those of a group, as a control.",
    callback=names,
)
@option(
    "--include-path",
    "Folder of further YAML files of lm-eval's tasks.",
    type=click.Path(path_type=Path, file_okay=False),
)
@option(
    "--seeds",
    "Training seeds, separated by commas: one training a method and seed.",
    default=str(BOARD_SEED),
    callback=numbers,
)
@click.option(
    "--replicate",
    is_flag=True,
    help="Train each method once more with the first seed, from weights a hair apart: what of its numbers stays?",
)
@option("--limit", "At most this many items a task: a seeded, stratified sample.", type=click.IntRange(min=1))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="METHOD.KEY=VALUE",
    help="Change a setting of a method, of training with `training.KEY=VALUE`, or of the scorer with `scorer.KEY=VALUE`"
    " (repeatable).",
)
@click.option(
    "--grid",
    multiple=True,
    metavar="METHOD.KEY=VALUE,VALUE,…",
    help="Run a method once for each value of a setting, or of `training.KEY` (repeatable: each with each). Values that"
    " are lists stand in brackets, as in 'multi_layer_probe.layers=[0,1],[7,8]'.",
)
@option(
    "--stress",
    "Put every checkpoint through these too, separated by commas: relearn, quantise8, quantise4, or the suite's own.",
    callback=names,
)
@option(
    "--nulls",
    "Further rows that show what nothing scores, separated by commas: constant (the first choice, one sentence),"
    " shuffled (base with choices in another order), unrelated (the first method, trained on retain text).",
    callback=names,
)
@option(
    "--dtype",
    "Of evaluation; auto: the suite's for its own models, else what the model's config.json names.",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
)
@option("--chat-template", "Put prompts into the model's chat template (instruct models).", is_flag=True)
@option("--engine", "What runs the models; auto: vllm where it is installed and usable.", default="auto")
@click.option(
    "--engine-option",
    "engine_options",
    multiple=True,
    callback=options,
    metavar="KEY=VALUE",
    help="Start the engine with this, as tensor_parallel_size=2 (repeatable); in float32 it moves no result beyond the"
    " tolerance.",
)
@option("--executor", "What runs the cells: local, ray (machines of a cluster), inline.", default="local")
@ADDRESS
@option(
    "--workers",
    "Processes side by side; default: as many as the processors hold, one on a GPU.",
    type=click.IntRange(min=1),
)
@option("--device", "Where models run.", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@BATCH_SIZE
@click.option(
    "--checkpointing",
    is_flag=True,
    help="Train with gradient checkpointing from the start: less memory, more time, the same results.",
)
@TIME_LIMIT
@click.option(
    "--verify-inputs",
    is_flag=True,
    help="Read every file of models, checkpoints and scorers again, whatever its size and times say.",
)
@OUTPUT
@DATA_ROOT
@option("--scorer", "Scorer of texts in place of the suite's: a folder, a hub id or a packaged one.")
@click.option("--dry-run", is_flag=True, help="Print what is done and what remains; run nothing.")
@JSON
@click.pass_context
def evaluate(ctx: click.Context, output: Path, dry_run: bool, as_json: bool, **values: Any) -> None:
    """Train methods, measure checkpoints, write the leaderboard. What is finished is not done again."""
    from ..planning.request import Request

    started = time.perf_counter()
    values["suite"] = suite_name(ctx, values["suite"])
    run_options = take_run_options(values)
    request = Request(**values, command=_command(ctx))
    if dry_run:
        from ..planning.dry_run import dry_run as outlook
        from ..suite import chosen_suite

        suite = chosen_suite(request.suite, request.data_root)
        if suite.composites:
            from ..results.composites import check_composites

            check_composites(suite)
        echo(outlook(request, output, run_options.batch_size), as_json)
        return
    from ..api import run
    from ..executors.base import executors

    result = run(request, output, run_options)
    report, no_report = _report_beside(result)
    if result.replaced:
        say(result.replaced)
    for cause in dict.fromkeys(result.failures.values()):
        labels = [label for label, other in result.failures.items() if other == cause]
        click.echo(f"Failed: {', '.join(labels)}: {cause}", err=True)
    if as_json:
        click.echo(result.board.to_json(), nl=False)
    else:
        cost = time.perf_counter() - started, executors.get(run_options.executor).core_seconds()
        echo(_summary(result, cost, report, no_report), as_json=False)
    ctx.exit(1 if result.failures else 0)


def _report_beside(result: Result) -> tuple[Path | None, str | None]:
    """Write the report of a run that just ended; return where it lies, and why there is none."""
    from ..results.report import report_run

    try:
        return report_run(result.plan, result.store, result.board, result.cells), None
    except Exception as error:
        return None, first_line(error)


def _summary(
    result: Result, cost: tuple[float, float | None], report: Path | None, no_report: str | None
) -> RunSummary:
    """Return what is said last of a run that took so many seconds, on the wall and of processors."""
    from ..results.summary import RunSummary, verdict_lines

    suite, root = result.plan.suite, result.store.root
    return RunSummary(
        suite=f"{suite.name}, revision {suite.revision}",
        verdicts=verdict_lines(result.board),
        cells=len(result.cells),
        finished=sum(status.finished and status.without_value is None for status in result.cells),
        stored=result.stored,
        failed=len(result.failures),
        warnings=sum(len(row["warnings"]) for row in result.board.rows),
        seconds=cost[0],
        core_seconds=cost[1],
        board=root / "leaderboards" / f"{suite.name}.md",
        report=report,
        no_report=no_report,
        store=root,
    )


def _command(ctx: click.Context) -> str:
    """Return the command that makes the same board; folders of this machine stand as their kind in capitals."""
    from ..planning.request import Request

    shown = {field.name for field in fields(Request)} - {"engine_options"}
    parts = ["unlearn-bench", "evaluate"]
    for param in ctx.command.params:
        if param.name not in shown or ctx.get_parameter_source(param.name) == ParameterSource.DEFAULT:
            continue
        value, flag = ctx.params[param.name], param.opts[0]
        if param.name in ("checkpoints", "references"):
            parts += [f"{flag} {name}={'FILE' if Path(path).is_file() else 'FOLDER'}" for name, path in value.items()]
        elif value is True:
            parts.append(flag)
        elif param.name == "scorer":
            parts.append(f"{flag} {'FOLDER' if Path(value).is_dir() else value}")
        elif param.name in ("settings", "grid"):
            parts += [f"{flag} {shlex.quote(setting)}" for setting in value]
        elif isinstance(value, Path):
            parts.append(f"{flag} FOLDER")
        elif isinstance(value, tuple):
            parts.append(f"{flag} {','.join(Path(str(v)).name if Path(str(v)).is_dir() else str(v) for v in value)}")
        elif value is not None:
            parts.append(f"{flag} {Path(value).name if param.name == 'suite' else value}")
    return " ".join(parts)
