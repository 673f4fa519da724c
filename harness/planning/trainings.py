"""What can be known of a training before the first weight is loaded: layers, parameters, labels, answers, precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...methods.base import Method, methods
from ..data import load_rows, texts
from ..errors import UserError
from ..models.load import ModelSpec
from ..specs import LabelledRow, QuestionRow, canonical
from ..suite import CorporaSpec, SourceSpec
from .nulls import text_of
from .plan import Plan, PlannedCell
from .status import CellStatus

if TYPE_CHECKING:
    from ..training.trace import Workload


Call = Callable[..., dict[str, list[str]]]


def _here(function: Call, *arguments: Any) -> dict[str, list[str]]:
    return function(*arguments)


def check_trainings(plan: Plan, cells: Sequence[CellStatus], call: Call = _here) -> None:
    """Raise a `UserError` that names every training still to be done which cannot work, each with what to do.

    A method of this package is traced on a model without weights; code of plugins runs in workers only. A model whose
    architecture nobody knows here is not looked at. `call` calls a function, where the libraries are loaded that it
    needs: here or elsewhere.
    """
    kinds: dict[tuple[object, ...], PlannedCell] = {}
    undone = (status.cell for status in cells if status.cell.spec.transform == "train" and not status.made)
    for cell in (cell for cell in undone if cell.spec.beside is None):
        kinds.setdefault((cell.model, cell.spec.track, canonical(cell.spec.settings)), cell)
    looked_at = [(cell, methods.is_own(cell.spec.settings["method"])) for cell in kinds.values()]
    causes = call(causes_of, plan, looked_at) if looked_at else {}
    if causes:
        listed = (f"{', '.join(dict.fromkeys(names))}: {cause}" for cause, names in causes.items())
        raise UserError("Nothing was run, as this cannot be trained. " + " ".join(listed))


def causes_of(plan: Plan, cells: Sequence[tuple[PlannedCell, bool]]) -> dict[str, list[str]]:
    """Return why cells cannot be trained, with their names; each comes with whether its method is of this package."""
    causes: dict[str, list[str]] = {}
    for cell, own in cells:
        for cause in _causes(plan, cell, own):
            causes.setdefault(cause, []).append(f"{cell.spec.track}/{cell.spec.variant}")
    return causes


def _causes(plan: Plan, cell: PlannedCell, own: bool) -> Iterator[str]:
    spec, model = cell.spec, plan.models[cell.model]
    corpora = plan.suite.tracks[spec.track or ""].corpora
    folder = Path(plan.data_folder) if plan.data_folder else None
    training = spec.settings["training"]
    if training["precision"] == "reference" and model.dtype == "float16" and training["optimizer"] != "sgd":
        yield "Adam in float16 divides by zero (its 1e-8 rounds to 0): use `precision: float32`."
    if own and training.get("accumulation_mean") == "tokens":
        kind = methods.get(spec.settings["method"])
        if kind.units is Method.units:
            yield f"{kind.__name__} does not say over what its losses are means: use `accumulation_mean: batches`."
    try:
        work = _traced(plan, cell, model) if own else None
        if work is not None and any(item.text == "probe" for item in (*work.setup, *work.step)):
            _check_labels(corpora.probe, folder)
        text = text_of(spec, corpora)
        _check_answers(model, text, folder, training["max_length"])  # pyright: ignore[reportArgumentType]
    except UserError as error:
        yield str(error)


def _traced(plan: Plan, cell: PlannedCell, model: ModelSpec) -> Workload | None:
    from ..models.meta import meta_model
    from .estimate import architecture, work_of

    facts = architecture(plan, cell.model, model)
    if facts is None:
        return None
    return work_of(plan, cell, meta_model(facts))[0]


def _check_labels(source: SourceSpec | None, folder: Path | None) -> None:
    if source is None:
        return
    rows = load_rows(source, folder, LabelledRow).rows
    labels = {row.label for row in LabelledRow.read_all(rows, "probe")}
    if not {0, 1} <= labels:
        raise UserError(
            "Probes need text of both labels: 1 (to forget) and 0 (other); add the missing one to the probe text."
        )


@lru_cache(maxsize=64)
def _check_answers(model: ModelSpec, corpora: CorporaSpec, folder: Path | None, length: int) -> None:
    """Make tokens of the questions of a track's text; raise a `UserError` where that fails, or leaves no answer."""
    named = {f"forget {topic!r}": source for topic, source in corpora.forget.items()} | {"retain": corpora.retain}
    named = {name: source for name, source in named.items() if source.text_row is QuestionRow}
    if not named:
        return
    from ..models.load import load_tokenizer
    from ..training.batches import answers_cut
    from ..training.encoding import TextEncoder

    encoder = TextEncoder(load_tokenizer(model), corpora.template, length)
    for name, source in named.items():
        answers_cut(name, texts(load_rows(source, folder, QuestionRow).rows, source), encoder)
