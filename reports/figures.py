"""The figures of a report: what matplotlib draws from rows of a board and logs of training, with their words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..harness.errors import UserError
from ..leaderboards.forms import rank, squeeze
from ..leaderboards.inputs import BoardSpec
from ..leaderboards.schema import Interval, Row
from .content import Cell
from .svg import FAINT, INK, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5609A", "#A07000", "#6A6FCF")
"""Okabe and Ito's where they are seen on white and on black (3:1 and more), darker or lighter ones else."""
MARKERS = "osD^vPX<>ph8"
GREY = "#7A7F87"
WIDTH = 5.8  # inches
MOST_POINTS = 160
MOST_LOOKS = 16
"""Rows up to which each has a look and a place in the legend; of more, each method has."""
MOST_PANELS = 12
"""Variants whose training is drawn."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unlearn-bench",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "figure.facecolor": "none",
    "legend.frameon": False,
    "legend.fontsize": 9,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Drawing:
    """A figure: its key in the page, a caption, what it shows in words, and the `svg` element."""

    key: str
    caption: str
    words: str
    svg: str


def need_matplotlib() -> None:
    """Raise a `UserError` where matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise UserError("A report needs matplotlib for its figures: pip install 'unlearn-bench[report]'.") from None


@contextmanager
def _styled() -> Iterator[None]:
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        yield


def draw(key: str, caption: str, words: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> Drawing:
    """Return what `paint` puts on an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    with _styled():
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        return Drawing(key, caption, words, to_svg(figure, key, words))


@dataclass(frozen=True)
class Look:
    """How a row is drawn, the same in every figure of a table."""

    colour: str
    marker: str
    fill: Literal["full", "none"] = "full"


def looks(rows: Sequence[Row]) -> dict[str, Look]:
    """Return the look of each row by variant: colours and shapes for what is ranked, grey for base and noise.

    Of many variants those of one method look alike.
    """
    nulls = {"base": Look(GREY, "*", "none"), "noise": Look(GREY, "X", "none")}
    found = {row["variant"]: nulls[row["kind"]] for row in rows if row["kind"] in nulls}
    ranked = [row for row in rows if row["kind"] not in nulls]
    for place, name in enumerate(sorted({_told_apart_by(rows, row) for row in ranked})):
        look = Look(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        found |= {row["variant"]: look for row in ranked if _told_apart_by(rows, row) == name}
    return found


def _told_apart_by(rows: Sequence[Row], row: Row) -> str:
    return row["variant"] if len(rows) <= MOST_LOOKS else row["method"]


def said(value: Interval | None) -> str:
    """Return a value with its interval in words for one who hears it."""
    if value is None:
        return "not measured"
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}, no interval"
    return f"{value['value']:.3f}, {value['low']:.3f} to {value['high']:.3f}"


def trade_off(key: str, spec: BoardSpec, rows: Sequence[Row], title: str) -> Drawing | None:
    """Return forgetting against utility (Ubar, Rbar before they are cut), a mark a row, curves of equal S."""
    shown = [(row, parts["forget"], parts["retain"]) for row in rows if (parts := row["unclipped"])]
    points = [(row, x, y) for row, x, y in shown if x is not None and y is not None]
    if not points:
        return None
    look = looks(rows)
    words = f"Forgetting against utility, {title}. " + "; ".join(
        f"{row['variant']}: forgetting {said(x)}, utility {said(y)}" for row, x, y in points
    )
    roles = spec.tracks[points[0][0]["track"]]
    chances = spec.tasks[roles.forget_task].chance, spec.tasks[roles.retain_task].chance
    names = {row["variant"]: _told_apart_by(rows, row) for row, _, _ in points}
    first = {name: variant for variant, name in reversed(names.items())}
    lines = (len(first) + 1) // 2

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        (left, right), (low, high) = (_range([each for _, *pair in points for each in pair[i : i + 1]]) for i in (0, 1))
        _equal_s(axes, (left, right), (low, high))
        for row, x, y in points:
            mark = look[row["variant"]]
            _error(axes, x, y, mark.colour)
            axes.plot(
                [x["value"]],
                [y["value"]],
                linestyle="none",
                marker=mark.marker,
                color=mark.colour,
                fillstyle=mark.fill,
                markersize=11 if mark.marker == "*" else 7,
                label=squeeze(name, 30) if first[name := names[row["variant"]]] == row["variant"] else None,
                zorder=4,
            )
        axes.set_xlim(left, right)
        axes.set_ylim(low, high)
        _chance(axes, chances)
        axes.set_xlabel(f"forgetting (Ubar, from {squeeze(roles.forget_task, 28)})")
        axes.set_ylabel(f"utility (Rbar, from {squeeze(roles.retain_task, 28)})")
        figure.legend(loc="outside lower center", ncols=2, numpoints=1, columnspacing=1.4, handletextpad=0.4)

    caption = (
        "Forgetting against utility, each before it is cut to [0, 1]; further right and up is better. Bars are the "
        f"board's {spec.confidence:.0%} intervals; grey curves join points of equal S."
    )
    return draw(key, caption, words, (WIDTH, 3.9 + 0.22 * lines), paint)


def _range(values: Sequence[Interval]) -> tuple[float, float]:
    ends = [end for value in values for end in (value["low"], value["value"], value["high"]) if end is not None]
    low, high = min(ends), max(ends)
    pad = max(0.06 * (high - low), (0.25 - (high - low)) / 2, 0.02)
    return low - pad, high + pad


def _error(axes: Axes, x: Interval, y: Interval, colour: str) -> None:
    for value, other, horizontal in ((x, y, True), (y, x, False)):
        if value["low"] is None or value["high"] is None:
            continue
        ends, still = [value["low"], value["high"]], [other["value"]] * 2
        axes.plot(*((ends, still) if horizontal else (still, ends)), color=colour, linewidth=1.3, zorder=3)


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
        where: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "alpha": 0.7}
        axes.annotate(f"S {s:.2g}", pairs[0], (5, -9), ha="left", **where)


def _chance(axes: Axes, chances: tuple[float, float]) -> None:
    """Mark where the forget task (Ubar 1) and the retain task (Rbar 0) are at chance; outside, say where that is."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    what = f"chance ({chances[0]:g})" if chances[0] else "rate 0"
    small: dict[str, Any] = {"fontsize": 7.5, "alpha": 0.85}
    if left < 1 < right:
        axes.axvline(1, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
        axes.text(1, low, f" {what} ", ha="right", va="bottom", rotation=90, **small)
    else:
        axes.text(right, low, f"{what} at 1 → ", ha="right", va="bottom", **small)
    if low < 0 < high:
        axes.axhline(0, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.7)
        axes.text(left, 0, f" chance ({chances[1]:g})", ha="left", va="bottom", **small)
    else:
        axes.text(left, low, f" ↓ chance ({chances[1]:g}) at 0", ha="left", va="bottom", **small)


def forest(key: str, spec: BoardSpec, rows: Sequence[Row], title: str) -> Drawing | None:
    """Return S with its interval, and the ranks that each row may hold, in the order of the board."""
    points = [(row, s) for row in rows if (s := row["s_unlearning"]) is not None]
    if not points:
        return None
    look = looks(rows)
    words = f"S with intervals and ranks, {title}. " + "; ".join(
        f"{row['variant']}: S {said(s)}" + (f", rank {rank(row['rank'])}" if row["rank"] else ", not ranked")
        for row, s in points
    )
    ranked = sum(row["rank"] is not None for row, _ in points)

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2.2, 1))
        places = range(len(points))
        base = next((s["value"] for row, s in points if row["kind"] == "base"), None)
        if base is not None:
            left.axvline(base, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
        for place, (row, s) in zip(places, points, strict=True):
            mark = look[row["variant"]]
            if s["low"] is not None and s["high"] is not None:
                left.plot([s["low"], s["high"]], [place] * 2, color=mark.colour, linewidth=1.6)
            left.plot(
                [s["value"]],
                [place],
                linestyle="none",
                marker=mark.marker,
                color=mark.colour,
                fillstyle=mark.fill,
                markersize=7,
            )
            if row["rank"]:
                ends = row["rank"]["low"], row["rank"]["high"]
                right.plot(ends, [place] * 2, color=mark.colour, linewidth=3.5, solid_capstyle="round")
                right.plot(ends, [place] * 2, color=mark.colour, marker="|", markersize=8, linestyle="none")
        left.set_yticks(list(places), [squeeze(row["variant"], 24) for row, _ in points])
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
        f"S with {spec.confidence:.0%} intervals (dashed: base), and the ranks that a row may hold. Ranks come from "
        "paired differences: rows whose intervals overlap may be apart. Base and noise are not ranked."
    )
    return draw(key, caption, words, (WIDTH, 1.1 + 0.3 * len(points)), paint)


NOT_LOSSES = frozenset({"step", "grad_norm", "alpha", "baseline", "mean_log_alpha", "reward", "score", "seconds"})
MOST_LINES = 6
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)), (0, (8, 2)))


def training(key: str, cells: Sequence[Cell], title: str) -> Drawing | None:
    """Return a panel of losses a variant (a line a loss, all seeds), and one of alpha where it was learned."""
    logged: dict[str, list[Cell]] = {}
    for cell in cells:
        if len(cell.training) > 1:
            logged.setdefault(cell.variant, []).append(cell)
    if not logged:
        return None
    total = len(logged)
    logged = dict(list(logged.items())[:MOST_PANELS])
    alphas = {
        variant: [cell for cell in found if len({row.get("alpha") for row in cell.training}) > 1]
        for variant, found in logged.items()
    }
    alphas = {variant: found for variant, found in alphas.items() if found}
    names = {variant: _losses(found) for variant, found in logged.items()}
    words = f"Training, {title}. " + "; ".join(
        f"{variant}: "
        + ", ".join(
            f"{name} {found[0].training[0].get(name, math.nan):.3g} at first, "
            f"{found[0].training[-1].get(name, math.nan):.3g} at last"
            for name in [*names[variant], *(["alpha"] if variant in alphas else [])]
        )
        for variant, found in logged.items()
    )
    every = list(dict.fromkeys(name for each in names.values() for name in each))
    panels = [*((variant, "losses") for variant in logged), *((variant, "alpha") for variant in alphas)]

    def paint(figure: Figure) -> None:
        rows = math.ceil(len(panels) / 2)
        grid = figure.subplots(rows, 2, squeeze=False)
        for axes, (variant, what) in zip(grid.flat, panels, strict=False):
            if what == "losses":
                _loss_lines(axes, logged[variant], names[variant], every)
                axes.set_title(squeeze(variant, 30))
            else:
                _alpha_lines(axes, alphas[variant])
                axes.set_title(f"{squeeze(variant, 24)}: alpha")
            axes.grid(color=FAINT, alpha=0.13, linewidth=0.8)
            axes.tick_params(labelsize=8)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("step")
        for place, name in enumerate(every[:MOST_LINES]):
            grid[0, 0].plot([], [], color=COLOURS[place], linestyle=DASHES[place], label=name)
        figure.legend(loc="outside lower center", ncols=4, handlelength=2.6)

    some = f" The first {MOST_PANELS} of {total} are drawn." if total > MOST_PANELS else ""
    learned = "; alpha as it was drawn (points) and the centre of its policy." if alphas else "."
    caption = (
        f"{title}: losses a step. A panel a method, since their scales have nothing in common; the scale bends to a "
        f"logarithm; a line a seed{learned}{some}"
    )
    return draw(key, caption, words, (WIDTH, 0.7 + 1.75 * math.ceil(len(panels) / 2)), paint)


def _losses(cells: Sequence[Cell]) -> list[str]:
    found = {name for cell in cells for name in cell.training[0] if name not in NOT_LOSSES}
    first = [name for name in ("forget", "retain") if name in found]
    rest = sorted(found - {*first, "total"})
    return [*first, *rest[: MOST_LINES - len(first) - 1], *(["total"] if "total" in found else [])]


def _loss_lines(axes: Axes, cells: Sequence[Cell], names: Sequence[str], every: Sequence[str]) -> None:
    drawn: list[float] = []
    for cell in cells:
        for name in names:
            steps, values = _series(cell.training, name)
            place = every.index(name) % MOST_LINES
            drawn += values
            axes.plot(steps, values, color=COLOURS[place], linestyle=DASHES[place], linewidth=1.1)
    top = max((abs(value) for value in drawn), default=0.0)
    if top > 0:
        axes.set_yscale("symlog", linthresh=_round_power(top / 100))


def _round_power(value: float) -> float:
    return 10.0 ** math.floor(math.log10(value))


def _alpha_lines(axes: Axes, cells: Sequence[Cell]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for cell in cells:
        steps, values = _series(cell.training, "alpha")
        axes.plot(steps, values, linestyle="none", marker=".", markersize=2.5, color=GREY)
        steps, values = _series(cell.training, "mean_log_alpha")
        axes.plot(steps, [math.exp(value) for value in values], color=COLOURS[3], linewidth=1.6)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _series(log: Sequence[Mapping[str, float]], name: str) -> tuple[list[float], list[float]]:
    """Return steps and finite values of one column, at most `MOST_POINTS`, the last one among them."""
    rows = [row for row in log if name in row and math.isfinite(row[name])]
    stride = math.ceil(len(rows) / MOST_POINTS) or 1
    kept = rows[::-1][::stride][::-1]
    return [row.get("step", place) for place, row in enumerate(kept)], [row[name] for row in kept]
