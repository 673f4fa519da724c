"""The words of a board: what its numbers are, what an interval means and does not mean, what was measured."""

from __future__ import annotations

from collections.abc import Sequence

from ..schema import Row
from ..spec import BoardSpec
from ..stats.intervals import SEEDS_FOR_METHOD

NULL_ROWS = {
    "constant": "gives every question its first choice and every prompt one harmless sentence",
    "shuffled": "is base, asked with the choices of each question in another order",
    "unrelated": "is a method trained with the retain text in place of the forget text",
}
KINDS = {"bca": "bias-corrected (BCa)", "percentile": "percentile"}


def components_line(spec: BoardSpec, track: str) -> str:
    """Return how S comes from this track's two metrics."""
    roles = spec.tracks[track]
    forget, retain = spec.tasks[roles.forget_task], spec.tasks[roles.retain_task]
    ubar = "1 − " + _corrected(forget.name, forget.chance)
    rbar = _corrected(retain.name, retain.chance)
    return (
        f"S = Ubar × Rbar, Ubar = {ubar} (forget: {forget.name} {forget.metric}, less means more forgotten), "
        f"Rbar = {rbar} (retain: {retain.name} {retain.metric}, more is better)."
    )


def _corrected(name: str, chance: float) -> str:
    return f"clip(({name} − {chance:g}) / {1 - chance:g}, 0, 1)" if chance else name


def how_to_read(spec: BoardSpec, rows: Sequence[Row]) -> list[str]:
    """Return the explaining paragraphs."""
    percent, compared = f"{spec.confidence:.0%}", spec.compared()
    models = {"base": "the untouched model", "original": "the model before unlearning"}
    differences = " or ".join(f"**Δ {name}** from {models[name]}" for name in compared.split(" or "))
    lines = [
        "**S** (S-unlearning, arXiv 2605.26454) is 1 where the forget task is at chance and utility perfect, 0 where "
        f"the forget task is perfect or utility at chance; {compared} has a value of its own. "
        f"{_about_damage(rows, compared)} So a claim needs all of: {differences}, **Δ noise** from {compared} with "
        "random weight noise of the row's own norm, tensor by tensor, and utility kept.",
        f"**Utility** is kept where the retain metric is shown to have lost less than {spec.margin:g} against "
        f"{compared}: the lower end of the {percent} interval of the difference lies above that. "
        "`> x`: not shown, x is that end; `lost`: it lost more.",
        f"**Intervals** are {percent} {KINDS[spec.interval]} intervals, expanded for few clusters, of a joint "
        f"bootstrap over items ({spec.resamples:,} resamples, whole clusters within strata, the same draws for every "
        "row, S recomputed in each). They say how far a value would move with other items of the same kind; they do "
        "not cover other settings, data, scorers or models, nor, below three seeds, another training seed or machine. "
        "Each stands for itself, not for all at once; the highest value of a table is flattered by being the highest.",
        "**Verdicts** also ask that the interval excludes zero that holds for all rows of a table together (max-t), so "
        f"that a table of checkpoints that are no better than {compared} claims one in at most "
        f"{1 - spec.confidence:.0%} of the cases. Of methods it speaks from {SEEDS_FOR_METHOD} seeds on: another seed "
        "of the same method may move S by more than its interval. "
        "`could have found x`: a true difference of x is found in 80% of the cases.",
        f"**Rank** gives the ranks that a row can hold: rows whose simultaneous {percent} intervals for pairwise "
        "differences (max-t) exclude zero are apart, all others share ranks. Base is not ranked, nor is a row whose "
        "answers are broken. A setting is a point: methods are ranked at equal utility, with `--grid`.",
        *_about_originals(spec),
        *_about_nulls(rows),
        "**n** counts items (prompts or questions, not continuations) with a score in every finished seed, as forget / "
        "retain; missing ones are left out of a mean, never counted as a value.",
        _about_seeds(rows),
    ]
    if spec.command:
        lines.append(f"Reproduce: `{spec.command}`")
    return lines


def _about_damage(rows: Sequence[Row], compared: str) -> str:
    """Return how far damage alone could raise S of the bases."""
    gains = {(row["model"], row["track"]): row["uniform_gain"] for row in rows if row["uniform_gain"] is not None}
    if not gains:
        return "It can reward damage."
    many = len({model for model, _ in gains}) > 1
    listed = ", ".join(f"{gain:.3f} ({f'{model}, ' * many}{track})" for (model, track), gain in gains.items())
    share = "what takes the same share of both metrics could raise"
    return f"It can reward damage: {share} {compared}'s S by at most {listed}."


def points_only(rows: Sequence[Row]) -> bool:
    """Tell whether a table ranks checkpoints, and no method with seeds enough to speak of it."""
    ranked = [row for row in rows if row["rank"]]
    return bool(ranked) and not any(row["speaks_of"] == "method" for row in ranked)


def _about_originals(spec: BoardSpec) -> list[str]:
    tracks = [track for track, roles in spec.tracks.items() if roles.compared == "original"]
    if not tracks:
        return []
    return [
        f"**`original`** stands in base's place on {', '.join(tracks)}: methods start from that model, which knows the "
        "forget text; differences, utility and shares are against it, and noise is added to it. The row `base` shows "
        "the model that it was made from."
    ]


def _about_nulls(rows: Sequence[Row]) -> list[str]:
    variants = {row["variant"] for row in rows if row["kind"] == "null"}
    text = "; ".join(f"`{name}` {what}" for name, what in NULL_ROWS.items() if name in variants)
    return [f"**Further nulls** show what else nothing scores, and are not ranked: {text}."] if text else []


def _about_seeds(rows: Sequence[Row]) -> str:
    counts = {len(row["seeds"]) for row in rows if row["kind"] == "method" and row["finished"]}
    if not counts:
        return "**Seeds**: no method row has been measured."
    enough = (
        "a row is the mean over its seeds and, from three on, its interval holds training seeds too: the variance over "
        "items and max(s², I) / k add up, k seeds of variance s², I what seeds differ by for want of items, at "
        "Student's t"
    )
    if max(counts) < 2:
        return (
            "**Seeds**: one training seed a row. The board speaks of these checkpoints, not of the methods: another "
            "seed may order them differently."
        )
    if min(counts) >= SEEDS_FOR_METHOD:
        return f"**Seeds**: {enough}."
    return (
        f"**Seeds**: {enough}; rows of fewer seeds hold items only and speak of these checkpoints, not of the methods."
    )


def facts(spec: BoardSpec, rows: Sequence[Row]) -> list[str]:
    """Return what was measured."""
    models = sorted({row["model"] for row in rows})
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    known = {
        "suite": f"{spec.suite}, revision {spec.revision}",
        "models": ", ".join(models) or "none",
        "training seeds": ", ".join(str(seed) for seed in seeds) or "none",
        "items": "all of each task" if spec.limit is None else f"a seeded, stratified sample of {spec.limit} a task",
    }
    known.update({key: value for key, value in sorted(spec.facts.items()) if value})
    lines = [f"{key}: {value}" for key, value in known.items()]
    for name, info in sorted(spec.tasks.items()):
        chance = f", chance {info.chance:g}" if info.chance else ""
        description = f": {info.description}" if info.description else ""
        lines.append(f"task {name} (version {info.version}, {info.metric}{chance}){description}")
    return lines
