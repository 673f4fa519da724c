"""The command line: a thin layer over the Python API. Messages of `UserError` go to stderr without a traceback."""

from __future__ import annotations

from typing import Any

import click

from .commands.authoring import check, list_, new, show
from .commands.evaluate import evaluate
from .commands.maintenance import doctor, export, gc, merge, verify
from .commands.results import compare, items, leaderboard, report
from .commands.tuning import tune
from .errors import UserError, redacted


class CommandGroup(click.Group):
    """Shows a `UserError` as one message and exits with its status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; turn errors that a user can mend into a message."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"Error: {redacted(str(error))}", err=True)
            ctx.exit(error.status)
        except KeyboardInterrupt:
            click.echo("Interrupted. What is finished is kept; the same command goes on from there.", err=True)
            ctx.exit(130)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="unlearn-bench")
def main() -> None:
    """Benchmark LLM unlearning methods and write leaderboards that can be traced to records."""


for command in (
    evaluate,
    leaderboard,
    report,
    compare,
    items,
    list_,
    show,
    new,
    check,
    tune,
    export,
    merge,
    verify,
    gc,
    doctor,
):
    main.add_command(command)
