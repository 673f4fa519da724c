"""What stands behind a board's numbers, for `--details`: components, tests, unclipped parts, strata, marks, cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..rows.frontier import Frontier, reading
from ..schema import Goals, Row, comparisons, components
from .format import interval, name, shorten, squeeze, table
from .legend import wrapped
from .markdown import tables
from .tables import stress_details

if TYPE_CHECKING:
    from ..board import Board


_AUDIT = {
    "answer_entropy": "entropy of answered positions, bits",
    "most_answered": "share of the most answered position",
    "p_below_chance": "p of so low an accuracy at chance",
    "distinct_2": "distinct pairs of words",
    "same_text": "share of prompts continued with one text",
}


def to_details(board: Board) -> str:
    """Return the detailed part of a board as markdown, its tables within 120 columns."""
    blocks = ["# Details"]
    for (model, track), rows in tables(board):
        measured = [row for row in rows if row["s_unlearning"]]
        blocks.append(f"## {model} · {track} · behind the numbers")
        if measured:
            blocks.append(_differences(measured))
            parts = (
                _claims,
                _tests,
                _unclipped,
                _noise,
                _other_scores,
                _marks,
                _audit,
                _utility,
                _alphas,
                stress_details,
            )
            blocks += [block for part in parts if (block := part(measured))]
        blocks.append(_cells(rows))
    for goals in board.goals:
        blocks += [f"## {goals['model']} · behind the goals", _interactions(goals)]
    for frontier in board.frontiers:
        blocks += [f"## {frontier['model']} · {frontier['track']} · at equal utility", *_frontier(frontier)]
    return "\n\n".join(blocks) + "\n"


def _differences(rows: Sequence[Row]) -> str:
    body = [
        (
            name(row),
            squeeze(part["task"], 16),
            interval(part["delta_base"], sign=True),
            interval(part["delta_noise"], sign=True),
            str(part["n_clusters"]),
        )
        for row in rows
        for part in components(row)
    ]
    lead = "Each metric less that of base and of noise (paired), and the clusters that its items lie in."
    return f"{lead}\n\n" + table(("method", "task", "Δ base", "Δ noise", "clusters"), body)


def _claims(rows: Sequence[Row]) -> str | None:
    body = [
        (name(row), interval(found["base"], sign=True), interval(found["noise"], sign=True))
        for row in rows
        if (found := row["claims"])
    ]
    lead = "S less that of base and of noise with intervals that hold for all rows together: what the verdict goes by."
    return f"{lead}\n\n" + table(("method", "Δ base, together", "Δ noise, together"), body) if body else None


def _tests(rows: Sequence[Row]) -> str | None:
    body = [
        (
            name(row),
            squeeze(part["task"], 16),
            shorten(test["against"], 16),
            test["test"],
            p_value(test["p"]),
            p_value(test["p_holm"]),
            "–" if test["minimum_detectable"] is None else f"{test['minimum_detectable']:.3f}",
        )
        for row in rows
        for part, test in comparisons(row)
    ]
    lead = (
        "Is a metric that of base, of noise? Two-sided tests over the items that both have, on each item's mean over a "
        "row's seeds: of these checkpoints, so that p can be small where the interval of a row of three seeds or more, "
        f"which is the method's, includes zero. Holm's p holds for the {len(body)} comparisons of this table together. "
        "Detectable: the true difference that would be found with 80 % power at these items, before Holm."
    )
    headers = ("method", "task", "against", "test", "p", "p, Holm", "detectable")
    return f"{wrapped(lead)}\n\n" + table(headers, body) if body else None


def p_value(value: float) -> str:
    """Return a p to three digits, `< 0.001` below that."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _noise(rows: Sequence[Row]) -> str | None:
    body = [
        (name(row), str(len(row["seeds"])), f"{shares['items']:.0%}", f"{shares['seeds']:.0%}")
        for row in rows
        if (shares := row["noise_shares"])
    ]
    lead = (
        "What makes S uncertain: the share of its variance that more items would take away, and the share that only "
        "more training seeds would. Two or three seeds tell their share roughly; a large one reads too low on average."
    )
    return f"{wrapped(lead)}\n\n" + table(("method", "seeds", "items", "training seeds"), body) if body else None


def _unclipped(rows: Sequence[Row]) -> str:
    body = []
    for row in rows:
        parts, place = row["unclipped"], row["rank"]
        if parts:
            group = str(place["group"]) if place else "–"
            body.append((name(row), interval(parts["forget"]), interval(parts["retain"]), group, row["speaks_of"]))
    lead = (
        "The parts of S before they are cut to [0, 1], the tie group (1: not separable from the highest S), and "
        "whether an interval speaks of a checkpoint (items) or of a method (training seeds too)."
    )
    headers = ("method", "Ubar, not clipped", "Rbar, not clipped", "group", "speaks of")
    return f"{wrapped(lead)}\n\n" + table(headers, body)


def _other_scores(rows: Sequence[Row]) -> str | None:
    lines = []
    for row in rows:
        for part in components(row):
            found = [f"{key} {value:.3f}" for key, value in part["also"].items()]
            found += [f"{part['metric']} in {key} {value:.3f}" for key, value in part["strata"].items()]
            if found:
                text = f"`{row['variant']}`, {part['task']}: {', '.join(found)}"
                lines.append(wrapped(text, bullet="- ", indent="  "))
    lead = "Further scores, and the metric by stratum (means, no intervals)."
    return f"{lead}\n\n" + "\n".join(lines) if lines else None


def _marks(rows: Sequence[Row]) -> str | None:
    body = [
        (name(row), squeeze(task, 16), mark, f"{share:.1%}")
        for row in rows
        for task, marks in row["marks"].items()
        for mark, share in marks.items()
    ]
    lead = "Marks: mean share of an item's answers that give reason for doubt."
    return f"{lead}\n\n" + table(("method", "task", "mark", "share"), body) if body else None


def _audit(rows: Sequence[Row]) -> str | None:
    body = [
        (name(row), squeeze(task, 16), _AUDIT[key], p_value(value) if key.startswith("p_") else f"{value:.3f}")
        for row in rows
        for task, numbers in sorted(row["audit"].items())
        for key, value in numbers.items()
        if key in _AUDIT and not (key.startswith("p_") and value > 0.05)
    ]
    lead = (
        "Audit: what answers have in common over items, mean over seeds. Four positions answered alike often have an "
        "entropy of 2 bits; distinct pairs are of words, of each prompt's first continuation; compare with base."
    )
    return f"{wrapped(lead)}\n\n" + table(("method", "task", "sign", "value"), body) if body else None


def _utility(rows: Sequence[Row]) -> str | None:
    body = [(name(row), interval(part["near"]), interval(part["rest"])) for row in rows if (part := row["selectivity"])]
    lead = "The retain metric on the subjects next to the forget topic, and on the others."
    return f"{lead}\n\n" + table(("method", "next to it", "rest"), body) if body else None


def _interactions(goals: Goals) -> str:
    body = [
        (
            shorten(each["method"], 20),
            shorten(each["other"], 20),
            shorten(each["track"], 14),
            shorten(each["other_track"], 14),
            interval(each, sign=True),
        )
        for each in goals["interactions"]
    ]
    share = "–" if goals["differs"] is None else f"{goals['differs']:.0%}"
    lead = (
        "How much higher a method stands above another in S on the one track than on the other; the intervals hold "
        f"together. The method with the highest S differs by track in {share} of the resamples of items and seeds, "
        "which is no confidence: among methods that are all equal it is high too."
    )
    return f"{wrapped(lead)}\n\n" + table(("method", "less", "on", "against", "interaction"), body)


def _frontier(frontier: Frontier) -> list[str]:
    body = [
        (
            shorten(each["method"], 28),
            str(each["settings"]),
            interval(each["forgetting"]),
            squeeze(", ".join(each["at"]), 48),
        )
        for each in frontier["methods"]
    ]
    gains = [
        (shorten(each["method"], 28), shorten(each["other"], 28), interval(each, sign=True))
        for each in frontier["gains"]
    ]
    blocks = [
        wrapped(reading(frontier)),
        table(("method", "settings", "forgetting (Ubar)", "from"), body),
        *([table(("method", "less", "difference, together"), gains)] if gains else []),
    ]
    return [*blocks, *([wrapped(frontier["sentence"])] if frontier["sentence"] else [])]


def _alphas(rows: Sequence[Row]) -> str | None:
    lines = [
        f"`{row['variant']}`: {', '.join(f'{value:.3g}' for value in row['alpha']['values'])}"
        for row in rows
        if row["alpha"] and row["alpha"]["values"]
    ]
    lead = "Final alpha, the weight of the retain loss, by seed (where it is learned: the centre of its policy)."
    bullets = "\n".join(wrapped(line, bullet="- ", indent="  ") for line in lines)
    return f"{lead}\n\n{bullets}" if lines else None


def _cells(rows: Sequence[Row]) -> str:
    lines = [f"`{row['variant']}` ({row['status']}): {', '.join(row['cells'])}" for row in rows]
    return "Cells:\n\n" + "\n".join(wrapped(line, bullet="- ", indent="  ") for line in lines)
