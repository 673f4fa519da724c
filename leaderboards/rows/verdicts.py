"""What a track shows: which methods beat base, and stand above noise, without loss of utility."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from ...harness.records import MANY
from ..schema import Claims, Interval, Row, Verdict
from ..spec import BoardSpec
from .groups import RANKED
from .row_warnings import at_chance, degenerate_share, one_form

ALONE = "when taken alone, not with all rows of the table together"
NOT_JUDGED = "not judged: base is at chance"


def build_verdicts(spec: BoardSpec, rows: Sequence[Row]) -> list[Verdict]:
    """Return one verdict for each (model, track) of sorted rows that has methods or imports.

    Where the base is at chance on the retain or the forget task, there is nothing to keep or to forget: none wins.
    """
    verdicts = []
    for (model, track), group in groupby(rows, key=lambda row: (row["model"], row["track"])):
        table = list(group)
        ranked = [row for row in table if row["kind"] in RANKED]
        if ranked:
            verdicts.append(_verdict(spec, model, track, table, ranked))
    return verdicts


def above_zero(interval: Interval | None) -> bool:
    """Tell whether an interval lies above zero; what has no interval does not."""
    return interval is not None and interval["low"] is not None and interval["low"] > 0


def below_zero(interval: Interval | None) -> bool:
    """Tell whether an interval lies below zero; what has no interval does not."""
    return interval is not None and interval["high"] is not None and interval["high"] < 0


def shortfall(spec: BoardSpec, row: Row, base: Row | None = None) -> str | None:
    """Return why a row is no evidence of unlearning, or None: it beats base, and noise, at no loss of utility.

    Beats: the interval of the paired difference of S lies above zero, and so does the one that holds for all rows of
    the table together. No loss of utility: the interval of the paired difference of the retain metric from the noise
    row does not lie below zero. And it still answers: answers to the forget task that are none (`Mark.broken`), and
    answers of one position or one text, are at most 10 points above the base's.
    """
    if row["s_unlearning"] is None:
        return "failed" if row["status"] == "failed" else "not measured"
    if row["delta_base"] is None:
        return "has no base to compare with"
    claims: Claims = row["claims"] or {"base": row["delta_base"], "noise": row["delta_noise"]}
    if not above_zero(row["delta_base"]):
        return "falls below base" if below_zero(row["delta_base"]) else "not separable from base"
    if not above_zero(claims["base"]):
        return f"above base {ALONE}"
    if row["delta_noise"] is None:
        return "has no noise to compare with"
    if not above_zero(row["delta_noise"]):
        return "beats base, falls below noise" if below_zero(row["delta_noise"]) else "beats base, not noise"
    if not above_zero(claims["noise"]):
        return f"beats base, above noise {ALONE}"
    if row["retain"] is None or below_zero(row["retain"]["delta_noise"]):
        return "beats base and noise in S, at lower utility than noise"
    broken = degenerate_share(spec, row)
    if broken - (degenerate_share(spec, base) if base else 0.0) > MANY:
        return f"beats base and noise in S, with {broken:.0%} of its answers broken"
    alike = one_form(row)
    if alike - (one_form(base) if base else 0.0) > MANY:
        return f"beats base and noise in S, with {alike:.0%} of its answers alike"
    return None


def _verdict(spec: BoardSpec, model: str, track: str, table: Sequence[Row], ranked: Sequence[Row]) -> Verdict:
    base = next((row for row in table if row["kind"] == "base"), None)
    baseless = _baseless(spec, base) if base else None
    reasons = {
        row["variant"]: NOT_JUDGED if baseless and row["s_unlearning"] else shortfall(spec, row, base) for row in ranked
    }
    winners = [variant for variant, reason in reasons.items() if reason is None]
    others = {variant: reason for variant, reason in reasons.items() if reason is not None}
    if baseless:
        sentence = baseless
    elif winners:
        beat, stand = ("beats", "stands") if len(winners) == 1 else ("beat", "stand")
        sentence = (
            f"{_names(winners)} {beat} base with an interval that excludes zero and {stand} above noise at equal or "
            "better utility."
        )
    else:
        sentence = (
            "No method beats base with an interval that excludes zero and stands above noise at equal or better "
            "utility."
        )
    absent = [kind for kind in ("base", "noise") if not any(r["kind"] == kind and r["s_unlearning"] for r in table)]
    if absent:
        sentence += f" The board has no measured row for {' and '.join(absent)}, so nothing can be said against it."
    shortfalls = dict.fromkeys(why for why in others.values() if why != NOT_JUDGED)
    rest = {why: [variant for variant in others if others[variant] == why] for why in shortfalls}
    if rest:
        sentence += " " + "; ".join(f"{_names(names)}: {why}" for why, names in rest.items()) + "."
    return {"model": model, "track": track, "winners": winners, "others": others, "sentence": sentence}


def _baseless(spec: BoardSpec, base: Row) -> str | None:
    """Return why the base gives nothing to conclude from, or None: it is above chance on both tasks."""
    lost, causes = [], []
    for part, what, so in (
        (base["retain"], "utility", "no utility is seen that could be lost, and S is near 0 whatever was forgotten"),
        (base["forget"], "forgetting", "nothing is seen that could be forgotten"),
    ):
        if part is not None and at_chance(spec, part):
            chance = spec.tasks[part["task"]].chance
            below = part["high"] is not None and part["high"] < chance
            lost.append(what)
            causes.append(
                f"base scores {part['value']:.3f} [{part['low']:.3f}, {part['high']:.3f}] on {part['task']}, "
                f"{'below' if below else 'not separable from'} {f'chance ({chance:g})' if chance else 'zero'}, so {so}"
            )
    if not causes:
        return None
    return f"Nothing can be concluded about {', '.join(lost)} or S on this model with these items: {'; '.join(causes)}."


def _names(variants: Iterable[str]) -> str:
    return ", ".join(f"`{variant}`" for variant in variants)
