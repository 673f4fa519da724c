"""What a track shows: which methods beat base, and stand above their own noise, with utility kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from scipy import special

from ...harness.records import MANY
from ..schema import Claims, Interval, Row, Verdict
from ..spec import BoardSpec
from ..stats.intervals import SEEDS_FOR_METHOD
from .groups import RANKED
from .row_warnings import at_chance, one_form
from .sentences import merged, names, pattern

ALONE = "when taken alone, not with all rows of the table together"
NOT_JUDGED = "not judged: "
"""How the reason starts where the row that is compared with is at chance."""
NOT_REPLICATED = "not replicated"
POWER = 0.8


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


def detectable(interval: Interval | None, confidence: float) -> float | None:
    """Return the true difference that an interval as wide would exclude zero for in 80 % of cases; None without one.

    (1 + z_0.8 / z) times the half-width, z the normal quantile of the confidence.
    """
    if interval is None or interval["low"] is None or interval["high"] is None:
        return None
    z = special.ndtri((1 + confidence) / 2)
    return (interval["high"] - interval["low"]) / 2 * float(1 + special.ndtri(POWER) / z)


def shortfall(spec: BoardSpec, row: Row, base: Row | None = None) -> str | None:
    """Return why a row is no evidence of unlearning, or None: it beats base, and its noise, with utility kept.

    First of all it still answers: answers to the forget task that are none cost a row its S (`Row.broken`). Beats: the
    interval of the paired difference of S lies above zero, and so does the one that holds for all rows of the table
    together. Utility kept: retain less base is shown to lie above -margin (`guard`). Answers of one position or one
    text are at most 10 points above the base's, and another run is not seen to give another value (`stability`).
    """
    if row["broken"] is not None:
        return f"broken: {row['broken']:.0%} of its answers are none"
    if row["s_unlearning"] is None:
        return "failed" if row["status"] == "failed" else "not measured"
    if row["delta_base"] is None:
        return f"has no {base_name(spec, row)} to compare with"
    claims: Claims = row["claims"] or {"base": row["delta_base"], "noise": row["delta_noise"]}
    if not above_zero(row["delta_base"]):
        return _not_above(spec, row)
    above = f"above {base_name(spec, row)}"
    if not above_zero(claims["base"]):
        return f"{above} {ALONE}"
    kept = _utility(spec, row)
    if kept is not None:
        return f"{above}, {kept}"
    if row["delta_noise"] is None:
        decoding = " (it works at decoding time)" if row["changes"] == "decoding" else ""
        return f"{above} with utility kept, has no noise of its own to compare with{decoding}"
    if not above_zero(row["delta_noise"]):
        where = "below" if below_zero(row["delta_noise"]) else f"not above{_power(spec, row['delta_noise'])}"
        return f"{above} with utility kept, {where} noise of its own norm"
    if not above_zero(claims["noise"]):
        return f"{above} with utility kept, above its noise {ALONE}"
    alike = one_form(row)
    if alike - (one_form(base) if base else 0.0) > MANY:
        return f"{above} and its noise with utility kept, but {alike:.0%} of its answers are alike"
    if row["unstable"] is not None:
        return f"{above} and its noise with utility kept, but unstable: {row['unstable']}"
    return None


def _not_above(spec: BoardSpec, row: Row) -> str:
    if below_zero(row["delta_base"]):
        return f"falls below {base_name(spec, row)}"
    if row["equivalent"]:
        return f"equivalent to {base_name(spec, row)} (S within ±{spec.margin:g})"
    return f"not separable from {base_name(spec, row)}{_power(spec, row['delta_base'])}"


def _power(spec: BoardSpec, difference: Interval | None) -> str:
    found = detectable(difference, spec.confidence)
    return "" if found is None else f" (could have found {found:.3f})"


def _utility(spec: BoardSpec, row: Row) -> str | None:
    """Return what is to be said against a row's utility, None where it is kept."""
    kept = row["utility"]
    if kept is None:
        return f"utility cannot be compared with {base_name(spec, row)}"
    if kept["kept"]:
        return None
    if kept["lost"]:
        return f"utility lost (more than {kept['margin']:g})"
    return (
        f"utility not shown to be kept (may have lost up to {-kept['low']:.3f}; a row equal to"
        f" {base_name(spec, row)} would pass in {kept['power']:.0%} of cases)"
    )


def _verdict(spec: BoardSpec, model: str, track: str, table: Sequence[Row], ranked: Sequence[Row]) -> Verdict:
    base = next((row for row in table if row["variant"] == spec.tracks[track].compared), None)
    baseless = _baseless(spec, base) if base else None
    reasons = {
        row["variant"]: f"{NOT_JUDGED}{spec.tracks[track].compared} is at chance"
        if baseless and row["s_unlearning"]
        else shortfall(spec, row, base)
        for row in ranked
    }
    sound = [row for row in ranked if reasons[row["variant"]] is None]
    winners = [row["variant"] for row in sound if row["speaks_of"] == "method"]
    leads = [row["variant"] for row in sound if row["speaks_of"] != "method"]
    others = {variant: reason for variant, reason in reasons.items() if reason is not None}
    return {
        "model": model,
        "track": track,
        "winners": winners,
        "leads": leads,
        "others": others,
        "sentence": _sentence(spec, spec.tracks[track].compared, table, ranked, baseless, winners, leads, others),
    }


def _sentence(
    spec: BoardSpec,
    base: str,
    table: Sequence[Row],
    ranked: Sequence[Row],
    baseless: str | None,
    winners: Sequence[str],
    leads: Sequence[str],
    others: Mapping[str, str],
) -> str:
    kept = f"utility kept (within {spec.margin:g} of {base})"
    sentences = [baseless] if baseless else []
    if not baseless and winners:
        beat, stand = ("beats", "stands") if len(winners) == 1 else ("beat", "stand")
        sentences.append(f"{names(winners)} {beat} {base} and {stand} above noise of the same norm, with {kept}.")
    elif not baseless and any(row["speaks_of"] == "method" for row in ranked):
        sentences.append(f"No method beats {base} and stands above noise of the same norm, with {kept}.")
    if leads:
        lie, this = ("lies", "This checkpoint") if len(leads) == 1 else ("lie", "These checkpoints")
        sentences.append(
            f"{this} {lie} above {base} and noise of the same norm, with {kept}: {names(leads)}; {NOT_REPLICATED}: a"
            f" claim about a method needs {SEEDS_FOR_METHOD} seeds."
        )
    elif not baseless and not any(row["speaks_of"] == "method" for row in ranked):
        sentences.append(f"No checkpoint lies above {base} and noise of the same norm, with {kept}.")
    if not any(row["variant"] == base and row["s_unlearning"] for row in table):
        sentences.append(f"The board has no measured {base}, so nothing can be said against it.")
    rest: dict[str, list[str]] = {}
    for variant, reason in others.items():
        if not reason.startswith(NOT_JUDGED):
            rest.setdefault(pattern(reason), []).append(variant)
    if rest:
        listed = (f"{names(variants)}: {merged([others[name] for name in variants])}" for variants in rest.values())
        sentences.append("; ".join(listed) + ".")
    return " ".join(sentences)


def base_name(spec: BoardSpec, row: Row) -> str:
    """Return what the row is called that a row is compared with."""
    return spec.tracks[row["track"]].compared


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
            value = f"{part['value']:.3f} [{part['low']:.3f}, {part['high']:.3f}]"
            lost.append(what)
            causes.append(
                f"{base['variant']} scores {value} on {part['task']}, "
                f"{'below' if below else 'not separable from'} {f'chance ({chance:g})' if chance else 'zero'}, so {so}"
            )
    if not causes:
        return None
    return f"Nothing can be concluded about {', '.join(lost)} or S on this model with these items: {'; '.join(causes)}."
