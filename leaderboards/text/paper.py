"""A board as LaTeX: the two tables of every (model, track), with their verdicts, for a paper to include."""

from __future__ import annotations

from dataclasses import replace

from ..schema import BoardData
from .latex import PACKAGES
from .legend import components_line
from .tables import component_table, main_table


def to_latex(board: BoardData) -> str:
    """Return a file to `\\input`; its first lines name the packages that it needs."""
    spec = board.spec
    suite = " ".join(f"{spec.suite} (revision {spec.revision})".split())
    blocks = ["\n".join((f"% Leaderboard: {suite}. Needs", *(f"% {package}" for package in PACKAGES)))]
    sentences = {(verdict["model"], verdict["track"]): verdict["sentence"] for verdict in board.verdicts}
    for (model, track), rows in board.tables():
        where, label = f"{model}, {track}", f"{spec.suite}-{model}-{track}"
        verdict = sentences.get((model, track), "")
        lead = (
            f"{where}: S-unlearning and its differences from base and noise with {spec.confidence:.0%} intervals; base "
            f"and noise are not ranked. {verdict}"
        )
        blocks.append(replace(main_table(rows), caption=lead.strip()).to_latex(label))
        parts = f"{where}: the two metrics behind S. {components_line(spec, track)}"
        blocks.append(replace(component_table(spec, rows), caption=parts).to_latex(f"{label}-metrics"))
    return "\n".join(block.rstrip("\n") + "\n" for block in blocks)
