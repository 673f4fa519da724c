"""How figures are drawn: the style, the look of each row, labels, and the step from matplotlib to a page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ...harness.errors import UserError
from ...leaderboards.rows.frontier import SWEEP
from ...leaderboards.schema import Interval, Row
from ...leaderboards.spec import NULLS
from .svg import FAINT, INK, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B5609A", "#A07000", "#6A6FCF")
"""Okabe and Ito's where they are seen on white and on black (3:1 and more), darker or lighter ones else."""
MARKERS = "osD^vPX<>ph8"
DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)), (0, (3, 1)), (0, (8, 2)))
GREY = "#7A7F87"
WIDTH = 5.8  # inches
MOST_LOOKS = 16
"""Rows up to which each has a look of its own; of more, each method has."""
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
class Plot:
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


def draw(key: str, caption: str, words: str, size: tuple[float, float], paint: Callable[[Figure], None]) -> Plot:
    """Return what `paint` puts on an empty figure of a size in inches."""
    from matplotlib.figure import Figure

    with _styled():
        figure = Figure(figsize=size, layout="constrained")
        paint(figure)
        return Plot(key, caption, words, to_svg(figure, key, words))


@dataclass(frozen=True)
class Look:
    """How a row is drawn, the same in every figure of a table."""

    colour: str
    marker: str
    fill: Literal["full", "none"] = "full"


def looks(rows: Sequence[Row]) -> dict[str, Look]:
    """Return the look of each row by variant: colours and shapes for what is ranked, grey for base and noise.

    The variants of a swept method look alike, and where there are many rows those of every method.
    """
    markers = {"base": "*", "noise": "X", "null": "P", "reference": "D"}
    nulls = {kind: Look(GREY, marker, "none") for kind, marker in markers.items()}
    by_variant = {row["variant"]: nulls[row["kind"]] for row in rows if row["kind"] in nulls}
    names = told_apart(rows)
    for place, name in enumerate(sorted(set(names.values()))):
        look = Look(COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)])
        by_variant |= {variant: look for variant, own in names.items() if own == name}
    return by_variant


def told_apart(rows: Sequence[Row]) -> dict[str, str]:
    """Return for each ranked row's variant what gives it its look: itself, or its method."""
    ranked = [row for row in rows if row["kind"] not in NULLS]
    swept = {row["method"] for row in ranked if sum(other["method"] == row["method"] for other in ranked) >= SWEEP}
    return {
        row["variant"]: row["method"] if row["method"] in swept or len(rows) > MOST_LOOKS else row["variant"]
        for row in ranked
    }


def said(value: Interval | None) -> str:
    """Return a value with its interval in words for one who hears it."""
    if value is None:
        return "not measured"
    if value["low"] is None or value["high"] is None:
        return f"{value['value']:.3f}, no interval"
    return f"{value['value']:.3f}, {value['low']:.3f} to {value['high']:.3f}"


def mark(axes: Axes, x: float, y: float, look: Look, size: float = 7) -> None:
    """Draw one row's mark."""
    style: dict[str, Any] = {"linestyle": "none", "marker": look.marker, "color": look.colour, "fillstyle": look.fill}
    axes.plot([x], [y], markersize=1.5 * size if look.marker == "*" else size, zorder=4, **style)


def bar(axes: Axes, value: Interval, place: float, colour: str, *, upright: bool = False, width: float = 1.3) -> None:
    """Draw an interval at a place of the other axis, where there is one."""
    if value["low"] is None or value["high"] is None:
        return
    ends, still = [value["low"], value["high"]], [place] * 2
    axes.plot(*((still, ends) if upright else (ends, still)), color=colour, linewidth=width, zorder=3)


def dashed(axes: Axes, place: float, *, upright: bool = True, alpha: float = 0.6) -> None:
    """Draw a thin dashed line across."""
    draw_line = axes.axvline if upright else axes.axhline
    draw_line(place, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), alpha=alpha)


def label_beside(axes: Axes, points: Sequence[tuple[float, float, str, str]], height: float) -> None:
    """Write names (x, y, text, colour) to the right of the axes, in the order of y, each with a line to its point.

    `height` is that of the axes in inches, by which lines of text are kept apart.
    """
    if not points:
        return
    axes.autoscale_view()
    points = sorted(points, key=lambda point: (-point[1], -point[0]))
    apart = 0.15 / height
    places: list[float] = []
    for x, y, _, _ in points:
        wanted = float((axes.transScale + axes.transLimits).transform((x, y))[1])
        places.append(min(wanted, places[-1] - apart if places else wanted))
    rise = max(0.0, 0.02 - places[-1])
    tops = [1 - apart * place for place in range(len(places))]
    places = [min(place + rise, top) for place, top in zip(places, tops, strict=True)]
    for (x, y, text, colour), place in zip(points, places, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "alpha": 0.7, "shrinkA": 1, "shrinkB": 3}
        line["relpos"] = (0, 0.5)
        where: dict[str, Any] = {"textcoords": "axes fraction", "fontsize": 8, "va": "center", "arrowprops": line}
        axes.annotate(text, (x, y), (1.03, place), **where)
