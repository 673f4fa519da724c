"""The command line: a thin layer over the Python API. Messages of `UserError` go to stderr without a traceback."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .errors import UserError, first_line

if TYPE_CHECKING:
    from .api import Result


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


class Group(click.Group):
    """Shows a `UserError` as one message and exits with its status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn errors that a user can mend into a message."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(error.status)
        except KeyboardInterrupt:
            click.echo("Interrupted. What is finished is kept; the same command goes on from there.", err=True)
            ctx.exit(130)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="unlearn-bench")
def main() -> None:
    """Benchmark LLM unlearning methods and write leaderboards that can be traced to records."""


def _names(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else None


def _numbers(ctx: click.Context, option: click.Parameter, value: str) -> tuple[int, ...]:
    parts = [part.strip() for part in value.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"takes whole numbers from 0 separated by commas, not {value!r}")
    return tuple(dict.fromkeys(map(int, parts)))


def _pairs(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    pairs = {}
    for value in values:
        name, separator, folder = value.partition("=")
        if not (separator and name and folder):
            raise click.BadParameter(f"takes NAME=FOLDER, not {value!r}")
        pairs[name] = Path(folder)
    return pairs


def _options(ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    import yaml

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


@main.command()
@SUITE
@option(
    "--methods",
    "Methods or variants of the suite, separated by commas; `none` for base and checkpoints only.",
    default="all",
    callback=_names,
)
@option("--models", "Models of the suite, folders or hub ids, separated by commas.", callback=_names)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    callback=_pairs,
    metavar="NAME=FOLDER",
    help="Score a checkpoint made elsewhere as a row of its own (repeatable).",
)
@option("--tracks", "Tracks, separated by commas.", callback=_names)
@option("--tasks", "Tasks, separated by commas.", callback=_names)
@option(
    "--seeds", "Training seeds, separated by commas: one training a method and seed.", default="0", callback=_numbers
)
@option("--limit", "At most this many items a task: a seeded, stratified sample.", type=click.IntRange(min=1))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="METHOD.KEY=VALUE",
    help="Change a setting of a method, or of training with `training.KEY=VALUE` (repeatable).",
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
    callback=_options,
    metavar="KEY=VALUE",
    help="Start the engine with this, as tensor_parallel_size=2 (repeatable); changes no result.",
)
@option("--executor", "What runs the cells.", default="local")
@option(
    "--workers",
    "Processes side by side; default: as many as the processors hold, one on a GPU.",
    type=click.IntRange(min=1),
)
@option("--device", "Where models run.", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@option(
    "--batch-size", "Sequences that are evaluated together; changes no result.", type=click.IntRange(min=1), default=64
)
@click.option(
    "--checkpointing",
    is_flag=True,
    help="Train with gradient checkpointing from the start: less memory, more time, the same results.",
)
@OUTPUT
@DATA_ROOT
@option("--scorer", "Judge of texts in place of the suite's: a folder, a hub id or a packaged judge.")
@click.option("--dry-run", is_flag=True, help="Print what is done and what remains; run nothing.")
@JSON
@click.pass_context
def evaluate(
    ctx: click.Context,
    output: Path,
    executor: str,
    workers: int | None,
    device: str,
    batch_size: int,
    checkpointing: bool,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Train methods, measure checkpoints, write the leaderboard. What is finished is not done again."""
    from . import api
    from .planning import Request

    if asked["suite"] is None and ctx.get_parameter_source("data_root") == ParameterSource.ENVIRONMENT:
        asked["suite"] = "micro"
    request = Request(**asked, command=_command(ctx))
    if dry_run:
        from .dryrun import dry_run as look
        from .dryrun import render

        said = look(request, output, batch_size)
        click.echo(json.dumps(said, indent=2) if as_json else render(said))
        return
    started = time.perf_counter()
    result = api.evaluate(
        request,
        output=output,
        executor=executor,
        workers=workers,
        device=device,
        batch_size=batch_size,
        checkpointing=checkpointing,
    )
    click.echo(result.board.to_json() if as_json else result.board.to_markdown(), nl=False)
    board = output / "leaderboards" / f"{result.plan.suite.name}.md"
    click.echo(f"\nWrote {board} and .json after {time.perf_counter() - started:.0f} s.", err=True)
    click.echo(_report_beside(result), err=True)
    for cause in dict.fromkeys(result.failures.values()):
        labels = [label for label, other in result.failures.items() if other == cause]
        click.echo(f"Failed: {', '.join(labels)}: {cause}", err=True)
    if result.failures:
        ctx.exit(1)


def _report_beside(result: Result) -> str:
    """Write the report of a run that just ended, and return a line that names it, or why there is none."""
    from .report import report_run

    try:
        return f"Report: {report_run(result.plan, result.store, result.board)}"
    except Exception as error:
        return f"No report: {first_line(error)}"


def _command(ctx: click.Context) -> str:
    """Return the command that makes the same board; folders of this machine stand as their kind in capitals."""
    shown = {
        "suite",
        "methods",
        "models",
        "checkpoints",
        "tracks",
        "tasks",
        "seeds",
        "limit",
        "settings",
        "dtype",
        "chat_template",
        "engine",
        "data_root",
        "scorer",
    }
    parts = ["unlearn-bench", "evaluate"]
    for option in ctx.command.params:
        if option.name not in shown or ctx.get_parameter_source(option.name) == ParameterSource.DEFAULT:
            continue
        value, flag = ctx.params[option.name], option.opts[0]
        if option.name == "checkpoints":
            parts += [f"{flag} {name}=FOLDER" for name in value]
        elif value is True:
            parts.append(flag)
        elif option.name == "scorer":
            parts.append(f"{flag} {'FOLDER' if Path(value).is_dir() else value}")
        elif option.name == "settings":
            parts += [f"{flag} {setting}" for setting in value]
        elif isinstance(value, Path):
            parts.append(f"{flag} FOLDER")
        elif isinstance(value, tuple):
            parts.append(f"{flag} {','.join(Path(str(v)).name if Path(str(v)).is_dir() else str(v) for v in value)}")
        elif value is not None:
            parts.append(f"{flag} {Path(value).name if option.name == 'suite' else value}")
    return " ".join(parts)


def _table(rows: list[dict[str, Any]]) -> None:
    from tabulate import tabulate

    click.echo(tabulate(rows, headers="keys", tablefmt="simple", disable_numparse=True))


@main.command()
@OUTPUT
@SUITE
@click.option("--format", "form", type=click.Choice(["md", "json", "csv"]), default="md", show_default=True)
@click.option("--details", is_flag=True, help="Components, unclipped parts, marks and cells too.")
def leaderboard(output: Path, suite: str | None, form: str, details: bool) -> None:
    """Print the board of the last run of a suite, built again from its records."""
    from .board import board_of, write_board
    from .plan import Plan
    from .store import Store

    store = Store.open(output)
    board = board_of(Plan.load(store, suite), store)
    write_board(board, store)
    text = {"md": lambda: board.to_markdown(details=details), "json": board.to_json, "csv": board.to_csv}[form]()
    click.echo(text, nl=False)


@main.command(name="list")
@click.argument("what", type=click.Choice(["methods", "tasks", "suites", "models", "engines", "executors", "scorers"]))
@SUITE
@JSON
def list_(what: str, suite: str | None, as_json: bool) -> None:
    """List what is registered, plugins included."""
    from .inventory import inventory

    rows, broken = inventory(what, suite)
    if as_json:
        click.echo(json.dumps({"rows": rows, "broken": broken}, indent=2))
    else:
        _table(rows)
    for source, cause in broken.items():
        click.echo(f"Broken: {source}: {cause}", err=True)


@main.command()
@click.argument("name")
@OUTPUT
@JSON
def show(name: str, output: Path, as_json: bool) -> None:
    """Show a method, task or suite by NAME, or a cell of the store by its id (or the start of it)."""
    from .inventory import describe, render

    described = describe(name, output)
    click.echo(json.dumps(described, indent=2, ensure_ascii=False) if as_json else render(described))


@main.command()
@click.argument("cell")
@click.argument("task")
@OUTPUT
@SUITE
@click.option("--flipped", is_flag=True, help="Only items whose primary score differs from the base model's.")
@click.option("--most", default=20, show_default=True, help="Items to print; 0 for all.")
@JSON
def items(cell: str, task: str, output: Path, suite: str | None, flipped: bool, most: int, as_json: bool) -> None:
    """Show the items behind a number: what was asked of CELL in TASK, what it answered and how that scored."""
    from .inventory import cell_items

    rows = cell_items(cell, task, output, suite, flipped=flipped)
    rows = rows[:most] if most else rows
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        click.echo(json.dumps(row, ensure_ascii=False))


@main.command()
@click.argument("cell")
@click.argument("folder", type=click.Path(path_type=Path))
@OUTPUT
@SUITE
def export(cell: str, folder: Path, output: Path, suite: str | None) -> None:
    """Write a trained CELL as a full Hugging Face folder."""
    from .export import export_cell

    export_cell(cell, folder, output, suite)
    click.echo(f"Wrote {folder}; load it with AutoModelForCausalLM.from_pretrained.")


@main.command()
@click.argument("a")
@click.argument("b")
@OUTPUT
@SUITE
@JSON
@click.pass_context
def compare(ctx: click.Context, a: str, b: str, output: Path, suite: str | None, as_json: bool) -> None:
    """Compare A (before) with B (after): stores, boards (JSON files), or cells of the store --output.

    Says what they are made from, what came out, and which changes are more than noise. Exit status 0: nothing got
    worse by more than noise; 1: something did, or failed; 2: not everything is comparable, or wrong usage.
    """
    from .compare import compare as load

    report = load(a, b, output, suite)
    click.echo(report.to_json() if as_json else report.to_text(), nl=False)
    ctx.exit(report.status)


@main.command()
@click.argument(
    "stores",
    nargs=-1,
    metavar="[STORE]...",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="UNLEARN_BENCH_OUTPUT",
)
@option(
    "--out",
    "The report: one .html file, or .md with its images in a folder beside it.",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("report.html"),
)
@SUITE
@click.option("--show-toxic", is_flag=True, help="Write toxic text into markdown; HTML holds it covered.")
def report(stores: tuple[Path, ...], out: Path, suite: str | None, show_toxic: bool) -> None:
    """Write a report of STOREs: boards, figures, training, cost, the items behind numbers, provenance."""
    from .report import report as build

    build(stores or (Path("unlearn-bench-results"),), out, suite, show_toxic=show_toxic)
    click.echo(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB).", err=True)


@main.command()
@OUTPUT
@DATA_ROOT
@JSON
def doctor(output: Path, data_root: Path | None, as_json: bool) -> None:
    """Check versions, engines, the embedded suite, the output folder and the data; say what to do."""
    from .doctor import checks

    found = checks(output, data_root)
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for check in found:
            click.echo(
                f"{'ok  ' if check['ok'] else 'FAIL' if check['needed'] else 'no  '} {check['what']}: {check['says']}"
            )
    if any(check["needed"] and not check["ok"] for check in found):
        sys.exit(1)
