"""Export: a checkpoint as a full Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

from .errors import UserError
from .models import load_model, load_tokenizer
from .plan import Plan, PlannedCell
from .store import Store


def find_cell(plan: Plan, store: Store, name: str) -> PlannedCell:
    """Return the plan's cell with this id (or the start of it), label or variant; a `UserError` where it is not one."""
    cells = [plan.settle(cell, store) for cell in plan.cells]
    found = [cell for cell in cells if name in (cell.id, cell.spec.label, cell.spec.label.split("#")[0])]
    found = found or [cell for cell in cells if cell.id.startswith(name) or cell.spec.variant == name]
    if len(found) != 1:
        labels = ", ".join(f"{cell.id} ({cell.model}: {cell.spec.label})" for cell in found or cells)
        raise UserError(f"{name!r} names {len(found)} cells of this run. Cells: {labels}.")
    return found[0]


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
