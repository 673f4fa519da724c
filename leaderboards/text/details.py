"""What stands behind a board's numbers, for `--details`: components, tests, unclipped parts, strata, marks, cells."""

from __future__ import annotations

from collections.abc import Sequence

from ..schema import BoardData, Goals, Row, comparisons, components
from .composites import composite_details
from .format import bullets
from .table import Table, Value, method, number, shortened, squeezed
from .tables import NARROW

_AUDIT = {
    "answer_entropy": "entropy of answered positions, bits",
    "most_answered": "share of the most answered position",
    "p_below_chance": "p of so low an accuracy at chance",
    "distinct_2": "distinct pairs of words",
    "same_text": "share of prompts continued with one text",
}


def to_details(board: BoardData) -> str:
    """Return the detailed part of a board as markdown, its tables within 120 columns."""
    blocks = ["# Details"]
    for (model, track), rows in board.tables():
        blocks.append(f"## {model} · {track} · behind the numbers")
        compared = board.spec.compared(track)
        measured = [row for row in rows if row["s_unlearning"] or row["raw_s"]]
        blocks += filter(None, (part(measured, compared) for part in PARTS))
        composites = [table for table in board.composites if (table["model"], table["track"]) == (model, track)]
        blocks += [composite_details(board.spec, rows, table).to_markdown() for table in composites]
        blocks.append(_cells(rows))
    for goals in board.goals:
        blocks += [f"## {goals['model']} · behind the goals", _interactions(goals)]
    return "\n\n".join(blocks) + "\n"


def _table(lead: str, headers: Sequence[str], body: Sequence[Sequence[Value | str]]) -> str:
    return Table.of(lead, headers, body).to_markdown() if body else ""


def _list(lead: str, lines: Sequence[str]) -> str:
    return f"{lead}\n\n{bullets(lines)}" if lines else ""


def _differences(rows: Sequence[Row], compared: str) -> str:
    body = [
        (
            method(row),
            squeezed(part["task"], 16),
            number(part["delta_base"], sign=True),
            number(part["delta_noise"], sign=True),
            str(part["n_clusters"]),
        )
        for row in rows
        for part in components(row)
    ]
    less = f"Each metric less that of {compared} and of the row's own noise (paired)"
    lead = f"{less}, and the clusters that its items lie in."
    return _table(lead, ("method", "task", f"Δ {compared}", "Δ noise", "clusters"), body)


def _claims(rows: Sequence[Row], compared: str) -> str:
    body = [
        (method(row), number(claims["base"], sign=True), number(claims["noise"], sign=True))
        for row in rows
        if (claims := row["claims"])
    ]
    lead = (
        f"S less that of {compared} and of own noise; intervals hold for all rows together: the verdict goes by them."
    )
    return _table(lead, ("method", f"Δ {compared}, together", "Δ noise, together"), body)


def _tests(rows: Sequence[Row], compared: str) -> str:
    body = [
        (
            method(row),
            squeezed(part["task"], 16),
            shortened(compared if test["against"] == "base" else test["against"], 16),
            test["test"],
            p_value(test["p"]),
            p_value(test["p_holm"]),
            "–" if test["minimum_detectable"] is None else f"{test['minimum_detectable']:.3f}",
        )
        for row in rows
        for part, test in comparisons(row)
    ]
    lead = (
        f"Is a metric that of {compared}, of own noise? Two-sided tests over the items that both have, on each item's "
        "mean over a row's seeds: of these checkpoints, so that p can be small where the interval of a row of three "
        "seeds or more, which is the method's, includes zero. "
        f"Holm's p holds for the {len(body)} comparisons of this table together. Detectable: the true difference that "
        "would be found with 80 % power at these items, before Holm."
    )
    headers = ("method", "task", "against", "test", "p", "p, Holm", "detectable")
    return _table(lead, headers, body)


def p_value(value: float) -> str:
    """Return a p to three digits, `< 0.001` below that."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _noise(rows: Sequence[Row], compared: str) -> str:
    body = [
        (method(row), str(len(row["seeds"])), f"{shares['items']:.0%}", f"{shares['seeds']:.0%}")
        for row in rows
        if (shares := row["noise_shares"])
    ]
    lead = (
        "What makes S uncertain: the share of its variance that more items would take away, and the share that only "
        "more training seeds would. Two or three seeds tell their share roughly; a large one reads too low on average."
    )
    return _table(lead, ("method", "seeds", "items", "training seeds"), body)


def _unclipped(rows: Sequence[Row], compared: str) -> str:
    body = []
    for row in rows:
        parts, place = row["unclipped"], row["rank"]
        if parts:
            group = str(place["group"]) if place else "–"
            body.append((method(row), number(parts["forget"]), number(parts["retain"]), group, row["speaks_of"]))
    lead = (
        "The parts of S before they are cut to [0, 1], the tie group (1: not separable from the highest S), and "
        "whether an interval speaks of a checkpoint (items) or of a method (training seeds too)."
    )
    headers = ("method", "Ubar, not clipped", "Rbar, not clipped", "group", "speaks of")
    return _table(lead, headers, body)


def _other_scores(rows: Sequence[Row], compared: str) -> str:
    lines = []
    for row in rows:
        for part in components(row):
            scores = [f"{key} {value:.3f}" for key, value in part["also"].items()]
            scores += [f"{part['metric']} in {key} {value:.3f}" for key, value in part["strata"].items()]
            if scores:
                lines.append(f"`{row['variant']}`, {part['task']}: {', '.join(scores)}")
    return _list("Further scores, and the metric by stratum (means, no intervals).", lines)


def _marks(rows: Sequence[Row], compared: str) -> str:
    body = [
        (method(row), squeezed(task, 16), mark, f"{share:.1%}")
        for row in rows
        for task, marks in row["marks"].items()
        for mark, share in marks.items()
    ]
    lead = "Marks: mean share of an item's answers that give reason for doubt."
    return _table(lead, ("method", "task", "mark", "share"), body)


def _audit(rows: Sequence[Row], compared: str) -> str:
    body = [
        (method(row), squeezed(task, 16), _AUDIT[key], p_value(value) if key.startswith("p_") else f"{value:.3f}")
        for row in rows
        for task, numbers in sorted(row["audit"].items())
        for key, value in numbers.items()
        if key in _AUDIT and not (key.startswith("p_") and value > 0.05)
    ]
    lead = (
        "Audit: what answers have in common over items, mean over seeds. Four positions answered alike often have an "
        f"entropy of 2 bits; distinct pairs are of words, of each prompt's first continuation; compare with {compared}."
    )
    return _table(lead, ("method", "task", "sign", "value"), body)


def _utility(rows: Sequence[Row], compared: str) -> str:
    body = [(method(row), number(part["near"]), number(part["rest"])) for row in rows if (part := row["selectivity"])]
    lead = "The retain metric on the subjects next to the forget topic, and on the others."
    return _table(lead, ("method", "next to it", "rest"), body)


def _interactions(goals: Goals) -> str:
    body = [
        (
            *(shortened(interaction[key], 20) for key in ("method", "other")),
            *(shortened(interaction[key], 14) for key in ("track", "other_track")),
            number(interaction, sign=True),
        )
        for interaction in goals["interactions"]
    ]
    share = "–" if goals["differs"] is None else f"{goals['differs']:.0%}"
    lead = (
        "How much higher a method stands above another in S on the one track than on the other; the intervals hold "
        f"together. The method with the highest S differs by track in {share} of the resamples of items and seeds, "
        "which is no confidence: among methods that are all equal it is high too."
    )
    return _table(lead, ("method", "less", "on", "against", "interaction"), body)


def _alphas(rows: Sequence[Row], compared: str) -> str:
    lines = [
        f"`{row['variant']}`: {', '.join(f'{value:.3g}' for value in row['alpha']['values'])}"
        for row in rows
        if row["alpha"] and row["alpha"]["values"]
    ]
    return _list(
        "Final alpha, the weight of the retain loss, by seed (where it is learned: the centre of its policy).", lines
    )


def _stress(rows: Sequence[Row], compared: str) -> str:
    body = [
        (
            method(row),
            squeezed(stress, NARROW),
            number(part["s_unlearning"]),
            number(part["s_delta_base"], sign=True),
        )
        for row in rows
        for stress, part in row["stress"].items()
        if part["finished"]
    ]
    lead = f"S after each stress, and less that of {compared} after the same (paired)."
    return _table(lead, ("method", "stress", "S", f"Δ {compared}"), body)


def _cells(rows: Sequence[Row]) -> str:
    return _list("Cells:", [f"`{row['variant']}` ({row['status']}): {', '.join(row['cells'])}" for row in rows])


PARTS = (_differences, _claims, _tests, _unclipped, _noise, _other_scores, _marks, _audit, _utility, _alphas, _stress)
"""What is said of the measured rows of a (model, track), in this order."""
