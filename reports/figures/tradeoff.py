"""Forgetting against utility with frontiers, S with its ranks, and every metric by model and method."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from ...leaderboards.schema import Frontier, Interval, Row
from ...leaderboards.spec import BoardSpec
from ...leaderboards.text.format import rank, squeeze
from .style import DASHES, GREY, MOST_LOOKS, WIDTH, Plot, bar, dashed, draw, label_beside, looks, mark, said
from .svg import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Point = tuple[Row, Interval, Interval]
FAINTER = 0.45
"""Of the marks of noise."""


def trade_off(
    key: str, spec: BoardSpec, rows: Sequence[Row], title: str, frontier: Frontier | None = None
) -> Plot | None:
    """Return forgetting against utility (Ubar, Rbar before they are cut), a mark a row, curves of equal S.

    A row's own noise is a faint cross. Swept methods have their frontier as a line, and names for what lies on it. Rows
    whose answers are broken have no place in it.
    """
    broken = [row["variant"] for row in rows if row["broken"] is not None]
    shown = [
        (row, parts["forget"], parts["retain"]) for row in rows if row["broken"] is None and (parts := row["unclipped"])
    ]
    points: list[Point] = [(row, x, y) for row, x, y in shown if x is not None and y is not None]
    if not points:
        return None
    words = f"Forgetting against utility, {title}. " + "; ".join(
        f"{row['variant']}: forgetting {said(x)}, utility {said(y)}" for row, x, y in points
    )
    curves = {method["method"]: method["curve"] for method in frontier["methods"]} if frontier else {}
    words += "".join(f". Frontier of {name}: {', '.join(curve)}" for name, curve in curves.items() if len(curve) > 1)
    roles = spec.tracks[points[0][0]["track"]]
    chances = spec.tasks[roles.forget_task].chance, spec.tasks[roles.retain_task].chance
    names = dict(_named(points, curves))
    noises = _noises(points, *chances)
    height = max(3.9, 0.9 + 0.16 * len(names))

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        look = looks(rows)
        width = 1.3 if len(points) <= MOST_LOOKS else 0.5
        marks = list(noises.values()) if len(points) <= MOST_LOOKS else []
        xs = _range([x for _, x, _ in points], [x for x, _ in marks])
        ys = _range([y for _, _, y in points], [y for _, y in marks])
        axes.set(xlim=xs, ylim=ys)
        _equal_s(axes, xs, ys)
        for row, x, y in points:
            colour = look[row["variant"]].colour
            bar(axes, x, y["value"], colour, width=width)
            bar(axes, y, x["value"], colour, upright=True, width=width)
            mark(axes, x["value"], y["value"], look[row["variant"]], 4 + 2 * width)
        for variant, (x, y) in noises.items() if len(points) <= MOST_LOOKS else ():
            axes.plot([x], [y], marker="x", markersize=5, color=look[variant].colour, alpha=FAINTER, zorder=2)
        places = {row["variant"]: (x["value"], y["value"]) for row, x, y in points}
        places |= {f"noise({variant})": place for variant, place in noises.items()}
        for number, (method, curve) in enumerate(curves.items()):
            line = [places[variant] for variant in curve if variant in places]
            colour = GREY if method == "noise" else look[curve[-1]].colour
            style: dict[str, Any] = {"color": colour, "linewidth": 1.5, "linestyle": DASHES[number % len(DASHES)]}
            axes.plot(*zip(*line, strict=True), zorder=2, **style)
        _chance(axes, chances)
        axes.set_xlabel(f"forgetting (Ubar, from {squeeze(roles.forget_task, 28)})")
        axes.set_ylabel(f"utility (Rbar, from {squeeze(roles.retain_task, 28)})")
        labels = [(*places[variant], name, look[variant].colour) for variant, name in names.items()]
        label_beside(axes, labels, height - 0.7)

    caption = (
        "Forgetting against utility, each before it is cut to [0, 1]; further right and up is better. Bars are the "
        f"board's {spec.confidence:.0%} intervals; grey curves join points of equal S."
    )
    if noises and len(points) <= MOST_LOOKS:
        caption += " A faint cross is noise of the norm of the row of its colour."
    if broken:
        caption += f" Not drawn, as most of their answers are none: {', '.join(broken)}."
    if curves:
        compared = spec.compared(points[0][0]["track"])
        caption += (
            " A line is a method's frontier, the upper hull of its settings and "
            f"{compared}: what lies between two of them "
            "comes of answering with either at random. Named are rows on it."
        )
    return draw(key, caption, words, (WIDTH + 0.9, height), paint)


def _noises(points: Sequence[Point], forget: float, retain: float) -> dict[str, tuple[float, float]]:
    """Return where each row's own noise stands, by the row's variant, from its differences in both metrics."""
    places = {}
    for row, x, y in points:
        gaps = [part["delta_noise"] if part else None for part in (row["forget"], row["retain"])]
        if gaps[0] and gaps[1]:
            lost, kept = gaps[0]["value"] / (1 - forget), gaps[1]["value"] / (1 - retain)
            places[row["variant"]] = (x["value"] + lost, y["value"] - kept)
    return places


def _named(points: Sequence[Point], curves: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
    """Give the variants that are named in the plane, with their names: of swept methods those on their frontier."""
    on = {variant for curve in curves.values() for variant in curve}
    for row, _, _ in points:
        if row["variant"] in on or row["method"] not in curves:
            yield row["variant"], squeeze(row["variant"], 26)


def _range(values: Sequence[Interval], also: Sequence[float] = ()) -> tuple[float, float]:
    ends = [end for value in values for end in (value["low"], value["value"], value["high"]) if end is not None]
    ends += also
    low, high = min(ends), max(ends)
    pad = max(0.06 * (high - low), (0.25 - (high - low)) / 2, 0.02)
    return low - pad, high + pad


def _equal_s(axes: Axes, xs: tuple[float, float], ys: tuple[float, float]) -> None:
    """Draw S = x y for round S, each with its number where it leaves the plane."""
    if xs[1] <= 0 or ys[1] <= 0:
        return
    highest = xs[1] * ys[1]
    lowest = max(xs[0], 0) * max(ys[0], 0)
    step = next((step for step in (0.02, 0.05, 0.1, 0.2) if (highest - lowest) / step <= 9), 0.5)
    for number in range(math.floor(lowest / step) + 1, math.ceil(highest / step)):
        s = number * step
        start = max(xs[0], s / ys[1], 1e-6)
        if start >= xs[1] - 0.08 * (xs[1] - xs[0]):
            continue
        line = [start + (xs[1] - start) * i / 40 for i in range(41)]
        pairs = [(x, s / x) for x in line if ys[0] <= s / x <= ys[1] * (1 + 1e-9)]
        if len(pairs) < 3:
            continue
        axes.plot(*zip(*pairs, strict=True), color=FAINT, alpha=0.28, linewidth=0.8, zorder=1)
        if pairs[0][1] < ys[0] + 0.1 * (ys[1] - ys[0]):
            continue
        where: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "alpha": 0.7}
        axes.annotate(f"S {s:.2g}", pairs[0], (5, -9), ha="left", **where)


def _chance(axes: Axes, chances: tuple[float, float]) -> None:
    """Mark where the forget task (Ubar 1) and the retain task (Rbar 0) are at chance; outside, say where that is."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    what = f"chance ({chances[0]:g})" if chances[0] else "rate 0"
    small: dict[str, Any] = {"fontsize": 7.5, "alpha": 0.85}
    if left < 1 < right:
        dashed(axes, 1)
        axes.text(1, low, f" {what} ", ha="right", va="bottom", rotation=90, **small)
    else:
        axes.text(right, low, f"{what} at 1 → ", ha="right", va="bottom", **small)
    if low < 0 < high:
        dashed(axes, 0, upright=False)
        axes.text(left, 0, f" chance ({chances[1]:g})", ha="left", va="bottom", **small)
    else:
        axes.text(left, low, f" ↓ chance ({chances[1]:g}) at 0", ha="left", va="bottom", **small)


def forest(key: str, spec: BoardSpec, rows: Sequence[Row], title: str) -> Plot | None:
    """Return S with its interval, and the ranks that each row may hold, in the order of the board."""
    points = [(row, s) for row in rows if (s := row["s_unlearning"]) is not None]
    if not points:
        return None
    look = looks(rows)
    words = f"S with intervals and ranks, {title}. " + "; ".join(
        f"{row['variant']}: S {said(s)}"
        + (f", rank {rank(row['rank'])}" if row["rank"] else ", not ranked")
        + (f", its noise {said(row['noise'])}" if row["noise"] else "")
        for row, s in points
    )
    ranked = sum(row["rank"] is not None for row, _ in points)
    compared = spec.compared(points[0][0]["track"])

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
        places = range(len(points))
        base = next((s["value"] for row, s in points if row["variant"] == compared), None)
        if base is not None:
            dashed(left, base)
        for place, (row, s) in zip(places, points, strict=True):
            colour = look[row["variant"]].colour
            bar(left, s, place, colour, width=1.6)
            mark(left, s["value"], place, look[row["variant"]])
            if row["noise"]:
                left.plot([row["noise"]["value"]], [place], marker="x", markersize=6, color=GREY, alpha=FAINTER)
            if row["rank"]:
                ends = row["rank"]["low"], row["rank"]["high"]
                right.plot(ends, [place] * 2, color=colour, linewidth=3.5, solid_capstyle="round")
                right.plot(ends, [place] * 2, color=colour, marker="|", markersize=8, linestyle="none")
        left.set_yticks(list(places), [squeeze(row["variant"], 30) for row, _ in points])
        left.set_ylim(len(points) - 0.4, -0.6)
        left.set_xlabel("S-unlearning")
        right.set_xlabel("rank")
        right.set_xlim(0.6, max(ranked, 1) + 0.4)
        step = max(1, round(ranked / 6))
        right.set_xticks(list(range(1, max(ranked, 1) + 1, step)))
        right.tick_params(axis="y", length=0)
        for axes in (left, right):
            axes.grid(axis="x", color=FAINT, alpha=0.15, linewidth=0.8)

    caption = (
        f"S with {spec.confidence:.0%} intervals (dashed: {compared}), and the ranks that a row may hold. Ranks come "
        "from paired differences: rows whose intervals overlap may be apart. Base is not ranked. A cross is noise of "
        "the row's own norm."
    )
    return draw(key, caption, words, (WIDTH, 1.1 + 0.3 * len(points)), paint)


def metrics(key: str, spec: BoardSpec, rows: Sequence[Row], track: str) -> Plot | None:
    """Return the forget and the retain metric of every row of a track, model by model, with intervals."""
    measured = [(row, row["forget"], row["retain"]) for row in rows if row["track"] == track]
    points: list[Point] = [(row, forget, retain) for row, forget, retain in measured if forget and retain]
    if not points:
        return None
    roles = spec.tracks[track]
    blocks = [(model, list(block)) for model, block in groupby(points, key=lambda point: point[0]["model"])]
    several = len(blocks) > 1
    ticks: list[tuple[float, str]] = []
    firsts: dict[str, float] = {}
    height = 0.0
    for model, block in blocks:
        if several:
            ticks.append((height, model))
            height += 1
        firsts[model] = height
        ticks += [(height + number, _told(row)) for number, (row, _, _) in enumerate(block)]
        height += len(block) + 0.6
    words = f"Metrics by model and method, {track}. " + "; ".join(
        f"{row['model']}, {_told(row)}: {roles.forget_task} {said(forget)}, {roles.retain_task} {said(retain)}"
        for row, forget, retain in points
    )

    def paint(figure: Figure) -> None:
        pair = figure.subplots(1, 2, sharey=True)
        for side, (axes, task, arrow) in enumerate(
            zip(pair, (roles.forget_task, roles.retain_task), "↓↑", strict=True)
        ):
            for model, block in blocks:
                _dots(axes, firsts[model], [(row, values[side]) for row, *values in block], spec.compared(track))
            left, right = axes.get_xlim()
            if left - 0.3 * (right - left) < (chance := spec.tasks[task].chance) < right:
                axes.axvline(chance, color=FAINT, linewidth=1, linestyle=":", alpha=0.8)
            axes.set_xlabel(f"{squeeze(task, 24)} {spec.tasks[task].metric} {arrow}")
            axes.grid(axis="x", color=FAINT, alpha=0.15, linewidth=0.8)
            axes.tick_params(axis="y", length=0)
        pair[0].set_yticks([place for place, _ in ticks], [name for _, name in ticks])
        for label, (place, _) in zip(pair[0].get_yticklabels(), ticks, strict=True):
            label.set_fontweight("bold" if several and place + 1 in firsts.values() else "normal")
        pair[0].set_ylim(height - 1, -0.6)

    caption = (
        f"{track}: both metrics as they were measured, with {spec.confidence:.0%} intervals (dashed: "
        f"{spec.compared(track)}, dotted: chance, where it is near). ↓ less means more forgotten, ↑ more is better."
    )
    return draw(key, caption, words, (WIDTH + 0.6, 0.8 + 0.24 * height), paint)


def _told(row: Row) -> str:
    """Return a row's name, with a word where its answers are broken."""
    return squeeze(row["variant"], 30) if row["broken"] is None else f"{squeeze(row['variant'], 20)} (broken)"


def _dots(axes: Axes, first: float, points: Sequence[tuple[Row, Interval]], compared: str) -> None:
    """Draw the values of one model's rows below each other, beside that of what they are compared with."""
    look = looks([row for row, _ in points])
    for row, value in points:
        if row["variant"] == compared:
            ends, at = [first - 0.4, first + len(points) - 0.6], [value["value"]] * 2
            axes.plot(at, ends, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    for place, (row, value) in enumerate(points):
        bar(axes, value, first + place, look[row["variant"]].colour, width=1.6)
        mark(axes, value["value"], first + place, look[row["variant"]], 6)
