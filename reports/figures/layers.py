"""Which layers, and how many: runs of one method that differ in their layers alone (the paper's figures 6 and 7)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ...leaderboards.schema import Component, Interval, Row
from ...leaderboards.spec import BoardSpec
from ...leaderboards.text.format import squeeze
from ..data import Cell
from .style import COLOURS, GREY, WIDTH, Look, Plot, bar, dashed, draw, label_beside, mark, said
from .svg import FAINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


FEWEST_SETS = 3
LOOKS = tuple(Look(colour, marker) for colour, marker in zip(COLOURS, "osD^vP", strict=True))
BASE = Look(GREY, "*", "none")


class LayerSet(NamedTuple):
    """Some layers, with the row of the variant that used them and its two metrics."""

    layers: tuple[int, ...]
    row: Row
    forget: Component
    retain: Component

    @property
    def name(self) -> str:
        """`3-5` for neighbours, else `2,4,6`."""
        first, last = self.layers[0], self.layers[-1]
        if len(self.layers) > 2 and last - first == len(self.layers) - 1:
            return f"{first}-{last}"
        return squeeze(",".join(map(str, self.layers)), 24)


class LayerStudy(NamedTuple):
    """The layer sets of one method, ascending by number and place, and base."""

    method: str
    sets: Sequence[LayerSet]
    base: Row | None


def studies(rows: Sequence[Row], cells: Sequence[Cell]) -> list[LayerStudy]:
    """Return those of a model's track: at least `FEWEST_SETS` measured variants that differ in nothing but layers."""
    by_variant = {row["variant"]: row for row in rows}
    base = next((row for row in rows if row["kind"] == "base" and row["forget"] and row["retain"]), None)
    groups: dict[str, dict[tuple[int, ...], LayerSet]] = {}
    for cell in cells:
        row = by_variant.get(cell.variant)
        if cell.layers is None or row is None or not row["forget"] or not row["retain"]:
            continue
        made = json.loads(cell.settings)
        rest = {**made, "settings": {key: value for key, value in made["settings"].items() if key != "layers"}}
        groups.setdefault(json.dumps(rest, sort_keys=True), {})[cell.layers] = LayerSet(
            cell.layers, row, row["forget"], row["retain"]
        )
    return [
        LayerStudy(next(iter(sets.values())).row["method"], sorted(sets.values(), key=_order), base)
        for sets in groups.values()
        if len(sets) >= FEWEST_SETS
    ]


def _order(subset: LayerSet) -> tuple[int, tuple[int, ...]]:
    return len(subset.layers), subset.layers


def plane(key: str, spec: BoardSpec, study: LayerStudy, title: str) -> Plot:
    """Return the forget against the retain metric over layer sets (figure 6); shapes are numbers of layers."""
    looks = _looks(study)
    task, other = study.sets[0].forget["task"], study.sets[0].retain["task"]
    words = f"Layer sets of {study.method}, {title}. " + "; ".join(
        f"layers {subset.name}: {task} {said(subset.forget)}, {other} {said(subset.retain)}" for subset in study.sets
    )

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        labels = []
        for subset in study.sets:
            look = looks[len(subset.layers)]
            _cross(axes, subset.forget, subset.retain, look)
            broken = " (broken)" * (subset.row["broken"] is not None)
            labels.append((subset.retain["value"], subset.forget["value"], subset.name + broken, look.colour))
        if study.base and study.base["forget"] and study.base["retain"]:
            _cross(axes, study.base["forget"], study.base["retain"], BASE)
            labels.append((study.base["retain"]["value"], study.base["forget"]["value"], "base", GREY))
        axes.margins(0.06)
        axes.set_xlabel(f"{squeeze(other, 28)} {spec.tasks[other].metric} ↑")
        axes.set_ylabel(f"{squeeze(task, 28)} {spec.tasks[task].metric} ↓")
        label_beside(axes, labels, 3.0)

    caption = (
        f"{study.method}: {task} against {other} over sets of layers, with {spec.confidence:.0%} intervals; lower and "
        "further right is better. A shape and colour is a number of layers, names say which."
    )
    return draw(key, caption, words, (WIDTH, 3.7), paint)


def numbers(key: str, spec: BoardSpec, study: LayerStudy, title: str) -> Plot:
    """Return both metrics and S by the number of layers (figure 7)."""
    looks = _looks(study)
    forget, retain = study.sets[0].forget["task"], study.sets[0].retain["task"]
    panels = {
        f"{squeeze(forget, 20)} ↓": [subset.forget for subset in study.sets],
        f"{squeeze(retain, 20)} ↑": [subset.retain for subset in study.sets],
        "S-unlearning ↑": [subset.row["s_unlearning"] for subset in study.sets],
    }
    base = study.base
    of_base = (base["forget"], base["retain"], base["s_unlearning"]) if base else (None, None, None)
    counts = sorted({len(subset.layers) for subset in study.sets})
    words = f"Number of layers of {study.method}, {title}. " + "; ".join(
        f"{_counted(len(subset.layers))} ({subset.name}): S "
        + (said(subset.row["s_unlearning"]) if subset.row["broken"] is None else "none, its answers are broken")
        for subset in study.sets
    )

    def paint(figure: Figure) -> None:
        grid = figure.subplots(1, 3)
        for axes, (name, values), null in zip(grid, panels.items(), of_base, strict=True):
            if null:
                dashed(axes, null["value"], upright=False)
            for (x, subset), value in zip(_side_by_side(study, counts), values, strict=True):
                if value:
                    bar(axes, value, x, looks[len(subset.layers)].colour, upright=True)
                    mark(axes, x, value["value"], looks[len(subset.layers)], 6)
            axes.set_xticks(range(len(counts)), counts)
            axes.set_xlim(-0.6, len(counts) - 0.4)
            axes.set_xlabel("number of layers")
            axes.set_title(name)
            axes.grid(axis="y", color=FAINT, alpha=0.15, linewidth=0.8)
            axes.tick_params(labelsize=8)

    caption = (
        f"{study.method}: the effect of the number of layers, a mark a set, with {spec.confidence:.0%} intervals "
        "(dashed: base)."
    )
    return draw(key, caption, words, (WIDTH + 1.2, 2.7), paint)


def _counted(layers: int) -> str:
    return "1 layer" if layers == 1 else f"{layers} layers"


def _looks(study: LayerStudy) -> dict[int, Look]:
    counts = sorted({len(subset.layers) for subset in study.sets})
    return {count: LOOKS[place % len(LOOKS)] for place, count in enumerate(counts)}


def _side_by_side(study: LayerStudy, counts: Sequence[int]) -> list[tuple[float, LayerSet]]:
    """Return where each set stands: at its number of layers, beside others of that number."""
    placed = []
    for place, count in enumerate(counts):
        same = [subset for subset in study.sets if len(subset.layers) == count]
        placed += [(place + 0.18 * (number - (len(same) - 1) / 2), subset) for number, subset in enumerate(same)]
    return placed


def _cross(axes: Axes, forget: Interval | Component, retain: Interval | Component, look: Look) -> None:
    bar(axes, retain, forget["value"], look.colour, width=0.8)
    bar(axes, forget, retain["value"], look.colour, upright=True, width=0.8)
    mark(axes, retain["value"], forget["value"], look)
