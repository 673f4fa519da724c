"""Commands for authors: what there is, a new method or task, its check."""

from __future__ import annotations

from pathlib import Path

import click

from .options import JSON, OUTPUT, SUITE, Command, echo, options


@click.command(cls=Command)
@click.argument("what", type=click.Choice(["method", "task"]))
@click.argument("name")
@click.option(
    "--package",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write a plugin package of its own into DIR, not files into this checkout.",
)
def new(what: str, name: str, folder: Path | None) -> None:
    """Write a method or task NAME that works, with its test, to be changed into yours. Overwrites nothing."""
    from ..authoring.scaffold import write

    click.echo(write(what, name, folder))


@click.command(cls=Command)
@click.argument("name")
@click.option(
    "--set",
    "settings",
    multiple=True,
    callback=options,
    metavar="KEY=VALUE",
    help="Check it with this setting, where a default does not fit a model of nine layers (repeatable).",
)
@JSON
@click.pass_context
def check(ctx: click.Context, name: str, settings: dict[str, object], as_json: bool) -> None:
    """Hold a method or task NAME to its contract; say of each rule whether it is kept, and what to do.

    Methods train a tiny random model, tasks score made-up answers. Exit status 0: all kept; 1: some broken.
    """
    from ..authoring.check import check as contract_check

    result = contract_check(name, settings)
    echo(result, as_json)
    ctx.exit(0 if result.ok else 1)


KINDS = ("methods", "tasks", "suites", "models", "engines", "executors", "scorers", "statistics")


@click.command(name="list", cls=Command)
@click.argument("what", type=click.Choice(KINDS))
@SUITE
@JSON
def list_(what: str, suite: str | None, as_json: bool) -> None:
    """List what is registered, plugins included."""
    from ..authoring.catalog import catalog

    listed = catalog(what, suite)
    echo(listed, as_json)
    for source, cause in listed.broken.items():
        click.echo(f"Broken: {source}: {cause}", err=True)


@click.command(cls=Command)
@click.argument("name")
@OUTPUT
@JSON
def show(name: str, output: Path, as_json: bool) -> None:
    """Show a method, task or suite by NAME, or a cell of the store by its id (or the start of it)."""
    from ..authoring.catalog import describe

    echo(describe(name, output), as_json)
