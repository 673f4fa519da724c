"""Commands that look after checkpoints, stores and the installation."""

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
    from ..export import export_cell

    export_cell(cell, folder, output, suite)
    click.echo(f"Wrote {folder}; load it with AutoModelForCausalLM.from_pretrained.")


@click.command()
@OUTPUT
@DATA_ROOT
@JSON
def doctor(output: Path, data_root: Path | None, as_json: bool) -> None:
    """Check versions, engines, the embedded suite, the output folder and the data; say what to do."""
    from ..doctor import checks

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
