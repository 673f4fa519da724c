"""Names that are given twice, or that something else has: refused before anything runs, never settled in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from ...methods.base import methods
from ..errors import UserError
from ..registry import check_alike, folded
from ..store.identity import BASE, NULLS
from ..suite import SuiteSpec, VariantSpec
from .plan import PlannedCell
from .request import Request
from .stress import DEFAULTS

NULL_ROWS = {BASE: "the base model's row", "noise": "the row of noise", **{null: f"the null {null}" for null in NULLS}}


def check_once(request: Request) -> None:
    """Raise a `UserError` where a list of a request has something twice."""
    for option, given in (
        ("methods", request.method_names),
        ("models", request.model_names),
        ("tracks", request.tracks),
        ("tasks", request.task_names),
        ("seeds", request.seeds),
        ("stress", request.stress),
        ("nulls", request.nulls),
    ):
        name, count = next(iter(Counter(given or ()).most_common(1)), ("", 0))
        if count > 1:
            raise UserError(f"--{option} has {name!r} twice; give it once, or put right what was meant.")


def check_variants(variants: Mapping[str, VariantSpec], track: str) -> None:
    """Raise a `UserError` where a variant of a track's is called like another method or a row that boards have."""
    check_alike("variant", variants, f"track {track}")
    for label, variant in variants.items():
        if folded(label) in NULL_ROWS:
            what = NULL_ROWS[folded(label)]
        elif label != variant.method and label in methods.names():
            what = f"the method {label}, and is one of {variant.method}"
        else:
            continue
        raise UserError(f"The variant {label!r} of track {track} is called like {what}; rename it in the suite.")


def check_checkpoints(
    labels: Iterable[str], suite: SuiteSpec, variants: Mapping[str, Mapping[str, VariantSpec]]
) -> None:
    """Raise a `UserError` where a checkpoint is called like another, a method, a variant, a null or a derived row."""
    taken = {folded(name): f"the method {name}" for name in methods.names()}
    for group in (*suite.variants.values(), *variants.values()):
        taken |= {folded(name): f"the variant {name}" for name in group if folded(name) not in taken}
    taken |= NULL_ROWS
    for label in labels:
        what = taken.get(folded(label))
        if what is None and label.endswith("]"):
            what = taken.get(folded(label.partition("[")[0]))
            what = what and f"a sweep of {what}"
        if what is not None:
            raise UserError(
                f"The checkpoint {label!r} is called like {what}; give it another name: --checkpoint my-{label}=FOLDER."
            )
        stress = next((name for name in {**DEFAULTS, **suite.stress} if folded(label).endswith(f"+{folded(name)}")), "")
        if stress:
            raise UserError(
                f"The checkpoint {label!r} is called like one under the stress {stress}; give it a name without"
                f" +{stress}."
            )
        taken[folded(label)] = f"the checkpoint {label}"


def check_rows(cells: Iterable[PlannedCell]) -> None:
    """Raise a `UserError` where two cells of a model would stand in one place of a board."""
    places = Counter((cell.model, cell.spec.label) for cell in cells)
    for (model, label), count in places.items():
        if count > 1:
            raise UserError(
                f"{count} checkpoints of {model} are called {label!r}; rename a checkpoint, variant or stress."
            )
