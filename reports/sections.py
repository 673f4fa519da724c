"""What a report says, in which order: summary, boards, goals, published values, training, cost, items, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..leaderboards.rows.frontier import reading
from ..leaderboards.schema import Row
from ..leaderboards.text.composites import composite_notes, composite_table
from ..leaderboards.text.footnotes import at_decoding
from ..leaderboards.text.legend import how_to_read, points_only
from ..leaderboards.text.tables import broken_rows, cross_table, goals_table
from . import tables
from .data import Cell, Content, Items, Run
from .document.blocks import Block, Bullets, Document, Listing, Pairs, Section, Words
from .figures import layers, probes, training
from .figures import tradeoff as plane


def outline(content: Content) -> Document:
    """Return the document of a report; figures are drawn on the way."""
    sections = [_summary(content)]
    for number, run in enumerate(content.runs, start=1):
        models = list(dict.fromkeys(cell.model for cell in run.cells))
        if len(models) > 1:
            sections += _models(run, f"r{number}", alone=len(content.runs) == 1)
        for place, model in enumerate(models, start=1):
            sections += _model(run, model, f"r{number}m{place}", alone=len(content.runs) == 1)
        sections += _about(run, f"r{number}", alone=len(content.runs) == 1)
    suites = ", ".join(dict.fromkeys(run.board.spec.suite for run in content.runs))
    return Document(
        f"Unlearning report: {suites}" if suites else "Unlearning report: nothing measured",
        f"Written by unlearn-bench {content.version} from stored records; every number comes with its interval, and "
        "stands beside the untouched base and noise of its own norm.",
        sections,
    )


def _summary(content: Content) -> Section:
    blocks: list[Block] = []
    for run in content.runs:
        board = run.board
        if len(content.runs) > 1:
            blocks.append(Words(f"**{run.name}**"))
        models = {row["model"] for row in board.rows}
        lines = []
        for verdict in board.verdicts:
            where = f"{verdict['model']} · {verdict['track']}" if len(models) > 1 else verdict["track"]
            lines.append(f"**{where}:** {verdict['sentence']}")
        measured = any(row["s_unlearning"] for row in board.rows)
        if lines and measured:
            blocks.append(Bullets(lines))
        if not measured:
            again = board.spec.command or "unlearn-bench evaluate"
            blocks.append(Words(f"Nothing is measured yet. Go on with `{again} --output {run.store}`.", "alert"))
        for goals in board.goals:
            of = f" ({goals['model']})" if len(models) > 1 else ""
            blocks.append(Words(f"**Does the best method depend on the goal{of}?** {goals['sentence']}"))
        for frontier in filter(lambda frontier: frontier["sentence"], board.frontiers):
            blocks.append(
                Words(f"**At equal utility, {frontier['model']} · {frontier['track']}.** {frontier['sentence']}")
            )
        claims = tables.claims(board)
        if measured and claims.rows:
            blocks.append(claims)
        broken = tables.failures(run)
        if broken.rows and (measured or any(cell.cause for cell in run.cells)):
            blocks += [Words("**Not all of it was measured.** What is missing, and why:", "alert"), broken]
    for name, advice in content.empty.items():
        blocks.append(Words(f"**{name}** holds no run: {advice}.", "alert"))
    return Section("summary", "Summary", 2, blocks)


def _models(run: Run, key: str, *, alone: bool) -> Iterator[Section]:
    rows, spec = run.board.rows, run.board.spec
    drawn = [plane.metrics(f"{key}v{place}", spec, rows, track) for place, track in enumerate(spec.tracks, start=1)]
    if any(drawn):
        behind = "" if alone else f": {run.name}"
        yield Section(f"{key}-models", f"All models{behind}", 2, [drawing for drawing in drawn if drawing])


def _model(run: Run, model: str, key: str, *, alone: bool) -> Iterator[Section]:
    board, spec = run.board, run.board.spec
    rows = [row for row in board.rows if row["model"] == model]
    cells = [cell for cell in run.cells if cell.model == model]
    yield Section(key, model if alone else f"{model} · {run.name}", 2)
    for place, track in enumerate(dict.fromkeys(row["track"] for row in rows), start=1):
        own = [row for row in rows if row["track"] == track]
        points = " (points, not methods)" if points_only(own) else ""
        yield Section(f"{key}t{place}", f"Leaderboard: {track}{points}", 3, list(_board(run, own, f"{key}t{place}")))
    cross = cross_table(spec, rows)
    if cross.rows:
        yield Section(f"{key}-cross", "Effect on the other track", 3, [cross])
    goals = [goal for goal in board.goals if goal["model"] == model]
    if goals:
        blocks = [
            block
            for goal in goals
            for block in (replace(goals_table(goal), caption="S by goal."), Words(goal["sentence"]))
        ]
        yield Section(f"{key}-goals", "Does the best method depend on the goal?", 3, blocks)
    published = tables.published(spec, rows)
    if published.rows and spec.published:
        lead = (
            f"Published values are those of {spec.published.source}: without intervals and seeds, their shots and "
            "decoding unknown. A difference from them is no finding by itself."
        )
        yield Section(f"{key}-published", "Beside published values", 3, [Words(lead), published])
    methods = {
        track: [cell for cell in cells if cell.track == track and cell.kind == "method"]
        for track in dict.fromkeys(cell.track for cell in cells if cell.track)
    }
    drawn = [
        drawing
        for place, (track, own) in enumerate(methods.items(), start=1)
        for drawing in (
            training.losses(f"{key}c{place}", own, track),
            training.layer_losses(f"{key}l{place}", own, track),
        )
        if drawing
    ]
    if drawn:
        yield Section(f"{key}-training", "Training", 3, drawn)
    for place, (track, own) in enumerate(methods.items(), start=1):
        yield from _probes(run, f"{key}q{place}", [row for row in rows if row["track"] == track], own, track)
    if any(cell.costs for cell in cells):
        yield Section(f"{key}-cost", "Cost", 3, [tables.costs(cells)])
    warned = [
        f"`{row['variant']}` on {row['track']}: {'; '.join(row['warnings'])}."
        for row in rows
        if row["warnings"] and row["finished"]
    ]
    if warned:
        yield Section(f"{key}-warnings", "Warnings", 3, [Bullets(warned)])
    items = [entry for entry in run.items if entry.model == model]
    if items:
        yield Section(f"{key}-items", "Items behind the numbers", 3, [Words(_about_items(items)), Listing(items)])


def _about_items(items: Sequence[Items]) -> str:
    compared = " or ".join(dict.fromkeys(each.compared for each in items if each.kind == "questions")) or "base"
    chosen = (
        f"For questions, those whose answer is right here and wrong in {compared} or the other way; for prompts, "
        "sampled continuations with their scores. "
    )
    covers = (
        " Prompts and continuations of a toxicity of 0.5 and more are covered until you open them, and so are those "
        "without a score."
    )
    answers = (
        " Questions with a right answer stand once a task, the same ones whatever was answered, with what every "
        "checkpoint makes of them side by side: its answer, not covered, or the length-normalised probability of each "
        "given answer, P; and the scores that the board reads."
    )
    kinds = {each.kind for each in items}
    return (
        f"{chosen if kinds != {'answers'} else ''}Not all are shown: each list says how many of how many, taken in "
        f"turn from the strata. `unlearn-bench items CELL TASK` prints all.{covers if kinds != {'answers'} else ''}"
        f"{answers if 'answers' in kinds else ''}"
    )


def _board(run: Run, rows: Sequence[Row], key: str) -> Iterator[Block]:
    spec, model, track = run.board.spec, rows[0]["model"], rows[0]["track"]
    for verdict in run.board.verdicts:
        if (verdict["model"], verdict["track"]) == (model, track) and any(row["s_unlearning"] for row in rows):
            yield Words(f"**Verdict.** {verdict['sentence']}")
    yield tables.board(spec, rows, run.cells)
    broken = broken_rows(rows)
    if broken:
        yield Bullets(broken)
    if at_decoding(rows):
        yield Words(at_decoding(rows))
    title = f"{model}, {track}"
    frontier = next((f for f in run.board.frontiers if (f["model"], f["track"]) == (model, track)), None)
    several = len({row["model"] for row in run.board.rows}) > 1
    for drawing in (
        plane.trade_off(f"{key}p", spec, rows, title, frontier),
        plane.forest(f"{key}f", spec, rows, title),
        None if several else plane.metrics(f"{key}v", spec, rows, track),
    ):
        if drawing:
            yield drawing
    if frontier:
        yield Words(f"**At equal utility.** {reading(frontier, spec.compared(track))} {frontier['sentence']}")
        yield from (table for table in tables.frontier(frontier, spec) if table.rows)
    yield from (table for table in tables.beside(rows, spec.compared(track)) if table.rows)
    for table in run.board.composites:
        if (table["model"], table["track"]) == (model, track):
            whole = composite_table(spec, rows, table)
            yield replace(whole, caption=whole.caption.replace("*", ""))
            yield from ([Bullets(notes)] if (notes := composite_notes(table)) else [])


def _probes(run: Run, key: str, rows: Sequence[Row], cells: Sequence[Cell], track: str) -> Iterator[Section]:
    cell = probes.probed(cells)
    if cell is not None:
        yield Section(
            f"{key}-probes", f"Probes: {track}", 3, [probes.cosines(f"{key}s", cell), probes.weights(f"{key}w", cell)]
        )
    for number, study in enumerate(layers.studies(rows, cells), start=1):
        drawings = [
            layers.plane(f"{key}a{number}", run.board.spec, study, track),
            layers.numbers(f"{key}b{number}", run.board.spec, study, track),
        ]
        yield Section(f"{key}-layers{number}", f"Layers of {study.method}: {track}", 3, drawings)


def _about(run: Run, key: str, *, alone: bool) -> Iterator[Section]:
    behind, lines = "" if alone else f": {run.name}", Bullets(how_to_read(run.board.spec, run.board.rows))
    yield Section(f"{key}-reading", f"How to read this{behind}", 2, [lines])
    facts = {key: value for key, value in run.board.spec.facts.items() if value and key not in ("models", "engine")}
    yield Section(
        f"{key}-provenance",
        f"Provenance{behind}",
        2,
        [Pairs({**run.provenance, **facts}), tables.provenance(run.cells)],
    )
