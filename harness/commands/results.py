"""Commands that show results: boards, reports, comparisons, items."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import click

from .options import JSON, OUTPUT, SUITE, Command, echo, option, say


@click.command(cls=Command)
@OUTPUT
@SUITE
@click.option("--format", "form", type=click.Choice(["md", "json", "csv", "latex"]), default="md", show_default=True)
@click.option("--details", is_flag=True, help="Components, unclipped parts, marks and cells too, in markdown.")
@click.option("--track", "tracks", multiple=True, help="This track alone (repeatable), in every format.")
@click.option("--tidy", is_flag=True, help="CSV with a line for each number, in place of one for each row.")
def leaderboard(output: Path, suite: str | None, form: str, details: bool, tracks: tuple[str, ...], tidy: bool) -> None:
    """Print the board of the last run of a suite, built again from its records."""
    if tidy and form != "csv":
        raise click.UsageError("--tidy is a form of CSV; add --format csv.")
    from ..planning.plan import Plan
    from ..results.board import board_of, write_board
    from ..store.entries import Store

    store = Store.open(output)
    board = board_of(Plan.load(store, suite), store)
    write_board(board, store)
    board = board.only(tracks) if tracks else board
    written = {"json": board.to_json, "csv": partial(board.to_csv, tidy=tidy), "latex": board.to_latex}
    click.echo(written[form]() if form in written else board.to_markdown(details=details), nl=False)


@click.command(cls=Command)
@click.argument("cell")
@click.argument("task")
@OUTPUT
@SUITE
@click.option(
    "--flipped",
    is_flag=True,
    help="Only items whose score crossed 0.5 against base, or the original of its track.",
)
@click.option("--most", default=20, show_default=True, help="Items to print; 0 for all.")
@JSON
def items(cell: str, task: str, output: Path, suite: str | None, flipped: bool, most: int, as_json: bool) -> None:
    """Show the items behind a number: what was asked of CELL in TASK, what it answered and how that scored.

    Beside it stand base and the references of its track. A table on a terminal, else JSON, an item a line.
    """
    from ..results.items import cell_items

    shown = cell_items(cell, task, output, suite, flipped_only=flipped, most=most)
    if as_json or sys.stdout.isatty():
        echo(shown, as_json)
    else:
        click.echo(shown.to_lines(), nl=False)


@click.command(cls=Command)
@click.argument("a")
@click.argument("b")
@OUTPUT
@SUITE
@JSON
@click.pass_context
def compare(ctx: click.Context, a: str, b: str, output: Path, suite: str | None, as_json: bool) -> None:
    """Compare A (before) with B (after): stores, boards (JSON files), or cells of the store --output.

    Says what they are made from, what came out, and which changes are more than noise. Exit status 0: nothing got
    worse by more than noise; 1: something did, or failed; 2: not everything is comparable, or can be judged by as few
    trainings, or wrong usage.
    """
    from ..results.compare import compare as load

    report = load(a, b, output, suite)
    echo(report, as_json)
    ctx.exit(report.status)


@click.command(cls=Command)
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
    from ..results.report import report as build

    build(stores or (Path("unlearn-bench-results"),), out, suite, show_toxic=show_toxic)
    say(f"Wrote {out} ({out.stat().st_size / 1e6:.1f} MB).")
