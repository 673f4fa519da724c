"""Commands that keep a store and a machine in order."""

from __future__ import annotations

from pathlib import Path

import click

from .options import DATA_ROOT, JSON, OUTPUT, SUITE, Command, echo


@click.command(cls=Command)
@click.argument("cell")
@click.argument("folder", type=click.Path(path_type=Path))
@OUTPUT
@SUITE
def export(cell: str, folder: Path, output: Path, suite: str | None) -> None:
    """Write a trained CELL as a full Hugging Face folder."""
    from ..maintenance.export import export_cell

    export_cell(cell, folder, output, suite)
    click.echo(f"Wrote {folder}; load it with AutoModelForCausalLM.from_pretrained.")


@click.command(cls=Command)
@OUTPUT
@DATA_ROOT
@JSON
@click.pass_context
def doctor(ctx: click.Context, output: Path, data_root: Path | None, as_json: bool) -> None:
    """Check versions, engines, the embedded suite, the output folder and the data; say what to do."""
    from ..maintenance.doctor import diagnose

    diagnosis = diagnose(output, data_root)
    echo(diagnosis, as_json)
    ctx.exit(0 if diagnosis.fit else 1)


@click.command(cls=Command)
@OUTPUT
@JSON
@click.pass_context
def verify(ctx: click.Context, output: Path, as_json: bool) -> None:
    """Check a store: files, checksums, ids, rows, boards, and what its plans lack.

    Exit status 0: nothing is damaged, nothing is lacking; 1: something is; 2: no store, or wrong usage.
    """
    from ..maintenance.verify import verify as verification_of
    from ..store.entries import Store

    verification = verification_of(Store.open(output))
    echo(verification, as_json)
    ctx.exit(0 if verification.whole else 1)


@click.command(cls=Command)
@OUTPUT
@click.option("--delete", is_flag=True, help="Remove it; without this it is only listed.")
@click.option("--dry-run", is_flag=True, help="List only, which is the default.")
@JSON
def gc(output: Path, delete: bool, dry_run: bool, as_json: bool) -> None:
    """List what no saved plan of a store needs, with its bytes, and with --delete remove it.

    A plan is what the last `evaluate` of a suite asked: what only earlier runs asked for is not needed. Nothing is
    removed while another process works on the store.
    """
    from ..maintenance.garbage import collect, garbage
    from ..store.entries import Store

    if delete and dry_run:
        raise click.UsageError("--delete and --dry-run exclude each other.")
    store = Store.open(output)
    echo(collect(store) if delete else garbage(store), as_json)


@click.command(cls=Command)
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@OUTPUT
@JSON
def merge(stores: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Bring what is finished in STORES, and in --output, together in --output.

    Entries that have the same id and other contents are named, and nothing is written.
    """
    from ..maintenance.merge import merge as merged

    echo(merged(stores, output), as_json)
