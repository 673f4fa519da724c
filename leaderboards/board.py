"""A board: rows and verdicts with what they cover, and its forms (markdown, JSON, CSV, LaTeX)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..harness.errors import UserError, suggest
from .rows.build import build_rows
from .rows.verdicts import build_verdicts
from .schema import SCHEMA, BoardData, CompositeValue, Row, decode, encode, rounded
from .spec import BoardSpec, Checkpoint, Published, TaskInfo, TrackRoles
from .stats.composite import Composite
from .text.composites import composite_table
from .text.details import to_details
from .text.latex import PACKAGES
from .text.legend import components_line
from .text.markdown import to_markdown
from .text.tables import broken_rows, component_table, main_table
from .text.tidy import COLUMNS, numbers


@dataclass(frozen=True)
class Board(BoardData):
    """A board with the forms in which it is written."""

    def to_json(self) -> str:
        """Return the board as JSON text (schema 1): the same bytes for the same records in any order."""
        spec = self.spec
        return encode(
            {
                "schema": SCHEMA,
                "suite": spec.suite,
                "revision": spec.revision,
                "description": spec.description,
                "command": spec.command,
                "limit": spec.limit,
                "facts": dict(spec.facts),
                "bootstrap": {
                    "resamples": spec.resamples,
                    "confidence": rounded(spec.confidence),
                    "seed": spec.seed,
                    "interval": spec.interval,
                    "margin": rounded(spec.margin),
                },
                "tasks": {name: rounded(info.to_json()) for name, info in spec.tasks.items()},
                "tracks": {name: rounded(roles.to_json()) for name, roles in spec.tracks.items()},
                "stress": dict(spec.stress),
                "published": None if spec.published is None else rounded(asdict(spec.published)),
                "verdicts": self.verdicts,
                "goals": self.goals,
                "frontiers": self.frontiers,
                "rows": self.rows,
            }
            | (
                {
                    "composites": self.composites,
                    "definitions": {name: rounded(asdict(one)) for name, one in spec.composites.items()},
                }
                if spec.composites
                else {}
            )
        )

    def to_markdown(self, *, details: bool = False) -> str:
        """Return the board as markdown, tables within 120 columns; `details` adds what stands behind the numbers."""
        return to_markdown(self) + ("\n" + to_details(self) if details else "")

    def to_latex(self) -> str:
        """Return the two tables of every model and track as LaTeX; what packages they need stands in its head."""
        spec = self.spec
        suite = " ".join(f"{spec.suite} (revision {spec.revision})".split())
        blocks = ["\n".join((f"% Leaderboard: {suite}. Needs", *(f"% {package}" for package in PACKAGES)))]
        sentences = self.sentences()
        for (model, track), rows in self.tables():
            where, label = f"{model}, {track}", f"{spec.suite}-{model}-{track}"
            verdict, compared = sentences.get((model, track), ""), spec.tracks[track].compared
            lead = (
                f"{where}: S-unlearning and its differences from {compared} and from noise of the row's own norm with "
                f"{spec.confidence:.0%} intervals; base is not ranked. Bold: what may be first. "
                f"{' '.join([*broken_rows(rows), verdict])}"
            )
            blocks.append(replace(main_table(rows, compared=compared), caption=lead.strip()).to_latex(label))
            parts = f"{where}: the two metrics behind S. {components_line(spec, track)}"
            blocks.append(replace(component_table(spec, rows), caption=parts).to_latex(f"{label}-metrics"))
            for table in self.composites:
                if (table["model"], table["track"]) == (model, track):
                    found = composite_table(spec, rows, table)
                    blocks.append(replace(found, caption=f"{where}. {found.caption}").to_latex(f"{label}-composites"))
        return "\n".join(block.rstrip("\n") + "\n" for block in blocks)

    def only(self, tracks: Collection[str]) -> Board:
        """Return the board of some tracks; what compares tracks is kept where it is of these alone.

        Raises:
            UserError: a track that the board has not.
        """
        for track in tracks:
            if track not in self.spec.tracks:
                known = ", ".join(self.spec.tracks)
                raise UserError(f"No track {track!r} on this board; it has {known}.{suggest(track, self.spec.tracks)}")
        kept = {name: roles for name, roles in self.spec.tracks.items() if name in tracks}
        composites = {
            name: replace(composite, tracks=[track for track in composite.tracks or kept if track in kept])
            for name, composite in self.spec.composites.items()
            if composite.tracks is None or set(composite.tracks) & set(kept)
        }
        return replace(
            self,
            spec=replace(self.spec, tracks=kept, composites=composites),
            rows=[row for row in self.rows if row["track"] in kept],
            verdicts=[verdict for verdict in self.verdicts if verdict["track"] in kept],
            goals=[goals for goals in self.goals if set(goals["tracks"]) <= set(kept)],
            frontiers=[frontier for frontier in self.frontiers if frontier["track"] in kept],
            composites=[table for table in self.composites if table["track"] in kept],
        )

    def to_csv(self, *, tidy: bool = False) -> str:
        """Return one line a row, nested keys joined by `_`, lists by `; `; `tidy`: one line a number (see `tidy`)."""
        import pandas

        if tidy:
            frame = pandas.DataFrame(numbers(self), columns=list(COLUMNS))
            return frame.astype({"n": "Int64"}).to_csv(index=False, lineterminator="\n")
        composites = {
            (table["model"], table["track"], row["variant"]): row["values"]
            for table in self.composites
            for row in table["rows"]
        }
        rows = [_flat(row, composites.get((row["model"], row["track"], row["variant"]), {})) for row in self.rows]
        frame = pandas.json_normalize(rows, sep="_")
        return frame.to_csv(index=False, lineterminator="\n")


def build_board(spec: BoardSpec, checkpoints: Sequence[Checkpoint]) -> Board:
    """Return the board of some checkpoints; neither their order nor that of their records has a say.

    Raises:
        UserError: checkpoints or records that cannot share a board (what and where is named).
    """
    rows, goals, frontiers, composites = build_rows(spec, checkpoints)
    return Board(spec, rows, build_verdicts(spec, rows), goals, frontiers, composites)


def load_board(path: str | Path) -> Board:
    """Read a board from its JSON file.

    Raises:
        UserError: the file cannot be read, is not a board, or is of another schema.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"Board {path} cannot be read: {error.strerror}; check its path.") from error
    except UnicodeDecodeError:
        raise UserError(f"Board {path} is not a text file.") from None
    value = decode(text, f"Board {path}")
    try:
        tracks = {
            name: TrackRoles(
                **{
                    **roles,
                    "cross_tasks": tuple(roles["cross_tasks"]),
                    "controls": tuple(roles.get("controls", ())),
                    "neighbours": tuple(roles.get("neighbours", ())),
                }
            )
            for name, roles in value["tracks"].items()
        }
        spec = BoardSpec(
            suite=value["suite"],
            revision=value["revision"],
            description=value.get("description", ""),
            tracks=tracks,
            tasks={name: TaskInfo(**info) for name, info in value["tasks"].items()},
            limit=value.get("limit"),
            facts=value.get("facts", {}),
            command=value.get("command", ""),
            stress=value.get("stress", {}),
            published=Published(**value["published"]) if value.get("published") else None,
            composites={name: Composite(**one) for name, one in value.get("definitions", {}).items()},
            **value["bootstrap"],
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"Board {path} does not read as schema {SCHEMA} ({error}); build it again.") from None
    return Board(spec, *(value[key] for key in ("rows", "verdicts", "goals", "frontiers", "composites")))


def _flat(row: Row, composites: Mapping[str, CompositeValue]) -> dict[str, Any]:
    flat: dict[str, Any] = dict(row)
    if composites:
        flat["composite"] = {
            name: {**value, "p": "; ".join(str(p) for p in value["p"])} for name, value in composites.items()
        }
    for key in ("cross", "controls"):
        flat[key] = {component["task"]: component for component in row[key]}
    flat["stress"] = {name: {**part, "cells": "; ".join(part["cells"])} for name, part in row["stress"].items()}
    if row["alpha"]:
        flat["alpha"] = {**row["alpha"], "values": "; ".join(str(value) for value in row["alpha"]["values"])}
    if row["selectivity"]:
        flat["selectivity"] = {**row["selectivity"], "neighbours": "; ".join(row["selectivity"]["neighbours"])}
    flat["replicas"] = {str(replica["seed"]): replica for replica in row["replicas"]}
    for key in ("seeds", "seed_range", "warnings", "cells"):
        flat[key] = "; ".join(str(value) for value in row[key] or ())
    return flat
