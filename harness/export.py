"""Export: a checkpoint as a full Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from .errors import UserError
from .models import load_model, load_tokenizer
from .plan import Plan
from .state import find_cell
from .store import Store


def export_cell(name: str, folder: Path, output: Path, suite: str | None = None) -> None:
    """Write the base model with a cell's changed tensors, and the tokenizer, to `folder`.

    Raises:
        UserError: no such cell, a cell that is not finished or an import, or a folder that already holds something.
    """
    store = Store.open(output)
    plan = Plan.load(store, suite)
    cell = find_cell(plan, store, name)
    manifest = store.entry("cells", cell.id).manifest()
    if cell.spec.transform != "base":
        if manifest is None:
            raise UserError(f"Cell {cell.spec.label} is not finished; run `unlearn-bench evaluate` again first.")
        if "pointer" in manifest:
            raise UserError(f"{cell.spec.label} was made elsewhere; it lies in {manifest['pointer']}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; pass a new one.")
    from .deltas import apply_delta, load_delta

    spec = plan.models[cell.model]
    model = load_model(spec)
    if cell.spec.transform != "base":
        apply_delta(model, load_delta(store.entry("cells", cell.id)))
    try:
        model.save_pretrained(folder)
        load_tokenizer(spec).save_pretrained(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}.") from error
