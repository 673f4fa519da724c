"""What happened in training: losses a step, alpha where it was learned, and each layer's part of the forget loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...leaderboards.text.format import squeeze
from ..data import Cell
from .style import COLOURS, DASHES, GREY, WIDTH, Plot, draw, label_beside
from .svg import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_POINTS = 160
MOST_PANELS = 12
"""Variants whose training is drawn."""
MOST_LAYER_PANELS = 8
MOST_LINES = 6


def losses(key: str, cells: Sequence[Cell], title: str) -> Plot | None:
    """Return a panel of losses a variant (a line a loss, all seeds), and one of alpha where it was learned."""
    logged = _by_variant(cell for cell in cells if len(cell.training) > 1)
    if not logged:
        return None
    total = len(logged)
    logged = dict(list(logged.items())[:MOST_PANELS])
    weights = {variant: _moving_weight(variant_cells) for variant, variant_cells in logged.items()}
    names = {variant: _losses(variant_cells) for variant, variant_cells in logged.items()}
    words = f"Training, {title}. " + "; ".join(
        f"{variant}: "
        + ", ".join(
            f"{name} {variant_cells[0].training[0].get(name, math.nan):.3g} at first, "
            f"{variant_cells[0].training[-1].get(name, math.nan):.3g} at last"
            for name in (*names[variant], *weights[variant])
        )
        for variant, variant_cells in logged.items()
    )
    every = list(dict.fromkeys(name for loss_names in names.values() for name in loss_names))
    moving = [(variant, name) for variant, by_name in weights.items() for name in by_name]
    panels = [*((variant, "") for variant in logged), *moving]

    def paint(figure: Figure) -> None:
        rows = math.ceil(len(panels) / 2)
        grid = figure.subplots(rows, 2, squeeze=False)
        for axes, (variant, weight) in zip(grid.flat, panels, strict=False):
            if weight:
                _weight_lines(axes, weights[variant][weight], weight)
                axes.set_title(f"{squeeze(variant, 24)}: {weight}")
            else:
                _loss_lines(axes, logged[variant], names[variant], every)
                axes.set_title(squeeze(variant, 30))
        _finish(grid, len(panels))
        for place, name in enumerate(every[:MOST_LINES]):
            grid[0, 0].plot([], [], color=COLOURS[place], linestyle=DASHES[place], label=name)
        figure.legend(loc="outside lower center", ncols=4, handlelength=2.6)

    some = f" The first {MOST_PANELS} of {total} are drawn." if total > MOST_PANELS else ""
    weighed = ", ".join(dict.fromkeys(name for _, name in moving))
    learned = f"; {weighed} as it was drawn (points) and the centre of its policy." if moving else "."
    caption = (
        f"{title}: losses a step. A panel a method, since their scales have nothing in common; the scale bends to a "
        f"logarithm; a line a seed{learned}{some}"
    )
    return draw(key, caption, words, (WIDTH, 0.7 + 1.75 * math.ceil(len(panels) / 2)), paint)


def _finish(grid: Any, panels: int) -> None:
    """Give the panels of a grid of axes their lines and scales, and take the axes after them away."""
    for axes in grid.flat[:panels]:
        axes.grid(color=FAINT, alpha=0.13, linewidth=0.8)
        axes.tick_params(labelsize=8)
    for axes in grid.flat[panels:]:
        axes.set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("step")


def _by_variant(cells: Iterable[Cell]) -> dict[str, list[Cell]]:
    by_variant: dict[str, list[Cell]] = {}
    for cell in cells:
        by_variant.setdefault(cell.variant, []).append(cell)
    return by_variant


def _losses(cells: Sequence[Cell]) -> list[str]:
    """Return the columns of losses: those that are declared, others by name, at last what was minimised."""
    names = {name for cell in cells for name in cell.training[0].keys() - cell.layer_losses.values()}
    declared = cells[0].log_schema
    first = [name for name in cells[0].columns("loss", "log_likelihood") if name in names]
    last = [name for name in cells[0].columns("total") if name in names]
    rest = sorted(names - declared.keys())
    return [*first, *rest[: MOST_LINES - len(first) - 1], *last]


def _moving_weight(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Return the weight of the retain loss that changed in training, with the cells in which it did; mostly none."""
    by_name = {
        name: [cell for cell in cells if len({row.get(name) for row in cell.training}) > 1]
        for name in cells[0].columns("weight")
    }
    return {name: moved for name, moved in by_name.items() if moved}


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


def _weight_lines(axes: Axes, cells: Sequence[Cell], name: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for cell in cells:
        steps, values = _series(cell.training, name)
        axes.plot(steps, values, linestyle="none", marker=".", markersize=2.5, color=GREY)
        for centre in cell.columns("log_weight"):
            steps, values = _series(cell.training, centre)
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


def layer_losses(key: str, cells: Sequence[Cell], title: str) -> Plot | None:
    """Return each layer's part of the forget loss a step (the paper's figure 5), a panel a variant, a line a layer.

    Lines are the mean over a twentieth of the steps, and over seeds.
    """
    logged = _by_variant(cell for cell in cells if cell.layer_losses)
    if not logged:
        return None
    total = len(logged)
    logged = dict(list(logged.items())[:MOST_LAYER_PANELS])
    drawn = {variant: _smooth(variant_cells) for variant, variant_cells in logged.items()}
    words = f"Forget loss by layer, {title}. " + "; ".join(
        f"{variant}: "
        + ", ".join(
            f"layer {layer} {values[0]:.3g} at first, {values[-1]:.3g} at last" for layer, values in lines.items()
        )
        for variant, (_, lines) in drawn.items()
    )
    height = 2.3 if len(drawn) < 3 else 2.0
    rows = math.ceil(len(drawn) / 2)

    def paint(figure: Figure) -> None:
        figure.set_layout_engine("constrained", w_pad=0.12)
        grid = figure.subplots(rows, 2 if len(drawn) > 1 else 1, squeeze=False)
        for axes in grid.flat:
            axes.locator_params(axis="x", integer=True)
        for axes, (variant, (steps, lines)) in zip(grid.flat, drawn.items(), strict=False):
            axes.set_yscale("log")
            names = []
            for place, (layer, values) in enumerate(lines.items()):
                third = 3 * place // len(lines)
                colour, dash = COLOURS[third], DASHES[place % 3]
                axes.plot(steps, values, color=colour, linestyle=dash, linewidth=1.2)
                names.append((steps[-1], values[-1], str(layer), colour))
            axes.margins(x=0.02)
            label_beside(axes, names, height - 0.6)
            axes.set_title(squeeze(variant, 34))
        _finish(grid, len(drawn))
        for axes in grid[:, 0]:
            axes.set_ylabel("(h·w)²")

    some = f" The first {MOST_LAYER_PANELS} of {total} are drawn." if total > MOST_LAYER_PANELS else ""
    caption = (
        f"{title}: the forget loss of each layer while it trains, (h·w)² of its probe's direction w, as means over a "
        f"twentieth of the steps; layers are named at the right, early ones blue, middle orange, late green.{some}"
    )
    return draw(key, caption, words, (WIDTH, 0.3 + height * rows), paint)


def _smooth(cells: Sequence[Cell]) -> tuple[list[float], dict[int, list[float]]]:
    """Return the last step of each twentieth, and each layer's mean over it and over cells."""
    count = min(len(cell.training) for cell in cells)
    width = max(1, count // 20)
    ends = range(width, count + 1, width)
    lines = {
        layer: [
            sum(row[name] for cell in cells for row in cell.training[end - width : end]) / (width * len(cells))
            for end in ends
        ]
        for layer, name in sorted(cells[0].layer_losses.items())
    }
    return [cells[0].training[end - 1].get("step", end - 1) for end in ends], lines
