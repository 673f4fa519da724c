"""The command line: a thin layer over the Python API. Messages of `UserError` go to stderr without a traceback."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import click

from .commands.authoring import check, list_, new, show
from .commands.evaluate import evaluate
from .commands.maintenance import doctor, export, gc, merge, verify
from .commands.results import compare, items, leaderboard, report
from .commands.tuning import tune
from .errors import UserError, redacted, suggest
from .runtime import PROJECT

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogLines(logging.Handler):
    """Writes log records to standard error, as it is at that moment: a bar of progress stays below them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as a line, without secrets."""
        sys.stderr.write(redacted(self.format(record)) + "\n")


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
@click.option(
    "-v", "--verbose", count=True, help="Say on standard error what begins and ends, and with -vv each step of it."
)
@click.option("-q", "--quiet", is_flag=True, help="Show no progress and say nothing but the result and errors.")
@click.pass_context
def main(ctx: click.Context, verbose: int, quiet: bool) -> None:
    """Benchmark LLM unlearning methods and write leaderboards that can be traced to records."""
    named = os.environ.get("UNLEARN_BENCH_LOG", "warning").lower()
    if named not in LEVELS:
        raise UserError(f"UNLEARN_BENCH_LOG is {named!r}, which is no level.{suggest(named, LEVELS)}")
    level = logging.ERROR if quiet else (LEVELS[named], logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logger, handler = logging.getLogger(PROJECT), LogLines()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S"))
    before = logger.level
    logger.setLevel(level)
    if level < logging.WARNING:
        logger.addHandler(handler)

    @ctx.call_on_close
    def undo() -> None:
        logger.setLevel(before)
        logger.removeHandler(handler)


RUNS = (evaluate, leaderboard, report, compare, items, tune)
CONTRIBUTIONS = (list_, show, new, check)
STORES = (export, merge, verify, gc, doctor)
for command in (*RUNS, *CONTRIBUTIONS, *STORES):
    main.add_command(command)
