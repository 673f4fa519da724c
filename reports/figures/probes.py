"""What the probes of a run are: how alike their directions are from layer to layer, and how their weights spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..data import Cell
from .style import COLOURS, WIDTH, Plot, draw
from .svg import FAINT, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def probed(cells: Sequence[Cell]) -> Cell | None:
    """Return the cell whose log describes probes at the most layers, the first of several."""
    return max(
        (cell for cell in cells if cell.directions), key=lambda cell: len(cell.directions["layers"]), default=None
    )


def cosines(key: str, cell: Cell) -> Plot:
    """Return the cosine of every two layers' probe directions (the paper's figure 1)."""
    layers, matrix = cell.directions["layers"], cell.directions["cosines"]
    pairs = [(i, j) for i in range(len(layers)) for j in range(i)]
    words = f"Cosine similarity of probe directions, {cell.label}. " + "; ".join(
        f"layers {layers[j]} and {layers[i]}: {matrix[i][j]:.2f}" for i, j in pairs
    )
    side = max(2.6, 0.42 * len(layers) + 0.6)

    def paint(figure: Figure) -> None:
        from matplotlib.patches import Rectangle

        axes = figure.add_subplot()
        for i, row in enumerate(matrix):
            for j, value in enumerate(row):
                colour = COLOURS[0] if value >= 0 else COLOURS[1]
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, color=colour, alpha=0.6 * min(abs(value), 1), lw=0))
                axes.text(j, i, f"{value:.2f}".replace("0.", "."), ha="center", va="center", fontsize=8, color=INK)
        axes.set(xlim=(-0.5, len(layers) - 0.5), ylim=(len(layers) - 0.5, -0.5), aspect="equal")
        axes.set_xticks(range(len(layers)), layers)
        axes.set_yticks(range(len(layers)), layers)
        axes.set(xlabel="layer", ylabel="layer")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    caption = (
        f"Cosine similarity of the probes' directions between layers, {cell.label}. Blue is alike, orange opposed; "
        "random directions are near 0."
    )
    return draw(key, caption, words, (max(side, 4.8), side), paint)


def weights(key: str, cell: Cell) -> Plot:
    """Return how the weights of each layer's probe spread (the paper's figure 2), beside a normal of the same scale."""
    layers, edges, counts = (cell.directions[name] for name in ("layers", "edges", "counts"))
    size = sum(counts[0])
    wide = edges[1] - edges[0]
    middles = [edge + wide / 2 for edge in edges[:-1]]
    normal = [math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in middles]
    large = [sum(count for x, count in zip(middles, row, strict=True) if abs(x) > 2) / size for row in counts]
    words = f"Weights of the probes, {cell.label}. " + "; ".join(
        f"layer {layer}: {share:.1%} of the weights beyond twice their root mean square"
        for layer, share in zip(layers, large, strict=True)
    )
    columns = min(3, len(layers))
    rows = math.ceil(len(layers) / columns)

    def paint(figure: Figure) -> None:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, layer, row in zip(grid.flat, layers, counts, strict=False):
            axes.stairs([count / size / wide for count in row], edges, fill=True, color=COLOURS[0], alpha=0.65)
            axes.plot(middles, normal, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
            axes.set_title(f"layer {layer}")
            axes.tick_params(labelsize=8)
        for axes in grid.flat[len(layers) :]:
            axes.set_visible(False)
        figure.supxlabel("weight × √d", fontsize=9.5)
        figure.supylabel("density", fontsize=9.5)

    caption = (
        f"Distribution of the weights of each layer's probe, {cell.label}, as multiples of their root mean square; "
        "the outer bins hold what lies beyond. Dashed: a normal distribution."
    )
    return draw(key, caption, words, (WIDTH * columns / 3 + 0.4, 0.5 + 1.25 * rows), paint)
