"""Commands that keep a store and a machine in order."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from .options import DATA_ROOT, JSON, OUTPUT, SUITE


@click.command()
@click.argument("cell")
@click.argument("folder", type=click.Path(path_type=Path))
@OUTPUT
@SUITE
def export(cell: str, folder: Path, output: Path, suite: str | None) -> None:
    """Write a trained CELL as a full Hugging Face folder."""
    from ..maintenance.export import export_cell

    export_cell(cell, folder, output, suite)
    click.echo(f"Wrote {folder}; load it with AutoModelForCausalLM.from_pretrained.")


@click.command()
@OUTPUT
@DATA_ROOT
@JSON
def doctor(output: Path, data_root: Path | None, as_json: bool) -> None:
    """Check versions, engines, the embedded suite, the output folder and the data; say what to do."""
    from ..maintenance.doctor import checks

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


@click.command()
@OUTPUT
@JSON
@click.pass_context
def verify(ctx: click.Context, output: Path, as_json: bool) -> None:
    """Check a store: files, checksums, ids, rows, boards, and what its plans lack.

    Exit status 0: nothing is damaged, nothing is lacking; 1: something is; 2: no store, or wrong usage.
    """
    from ..maintenance.verify import render
    from ..maintenance.verify import verify as check
    from ..store.entries import Store

    found = check(Store.open(output))
    click.echo(json.dumps(found, indent=2) if as_json else render(found, output))
    ctx.exit(1 if found["damaged"] or found["lacking"] else 0)


@click.command()
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
    found = collect(store) if delete else garbage(store)
    rows = [{"path": path.relative_to(output).as_posix(), "bytes": size} for path, size in found]
    total = sum(size for _, size in found)
    if as_json:
        click.echo(json.dumps({"removed": delete, "bytes": total, "found": rows}, indent=2))
        return
    for row in rows:
        click.echo(f"{row['path']}  {row['bytes']:,} bytes")
    done = "Removed." if delete else "Nothing is removed yet; --delete does it." if rows else "Nothing to remove."
    click.echo(f"{len(rows)} things, {total:,} bytes. {done}")


@click.command()
@click.argument("stores", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False))
@OUTPUT
@JSON
def merge(stores: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Bring what is finished in STORES, and in --output, together in --output.

    Entries that have the same id and other contents are named, and nothing is written.
    """
    from ..maintenance.merge import merge as join

    found = join(stores, output)
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    click.echo(f"{output}: {', '.join(f'{count} {section}' for section, count in found['copied'].items())} copied.")
    for suite in found["plans"]:
        click.echo(f"`unlearn-bench leaderboard --suite {suite} --output {output}` shows the board of {suite}.")
    for suite in found["apart"]:
        click.echo(
            f"The plans of {suite} ask different things: run `unlearn-bench evaluate --output {output}` with all that"
            " the board is to show; what is finished is not done again."
        )
