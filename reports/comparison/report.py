"""All comparisons of two results, as JSON and in words: tables within 120 columns, the conclusion, the exit status."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from itertools import groupby

from ...harness.records import Printable
from ...leaderboards.schema import encode, rounded
from ...leaderboards.spec import NULLS
from ...leaderboards.stats.intervals import SEEDS_FOR_METHOD
from ...leaderboards.text.format import bullets, shorten, squeeze, wrapped
from ...leaderboards.text.table import Table, Value, number, shortened, squeezed
from .judgement import Reproduction, reach
from .model import Comparison, CompositeComparison, Quantity, RowComparison

SCHEMA = 1
VALUE = 21  # columns of a fact; longer ones are cut and given in full below the table
NAMED = 8  # rows named in a sentence; more are counted
WORDS = {"worse": "**worse**", "better": "**better**", "moved": "**moved**"}


@dataclass(frozen=True)
class ComparisonReport(Printable):
    """All that two sides have in common, suite by suite.

    Attributes:
        a, b: names of the sides; A is before, B after.
        comparisons: one a suite.
        only_a, only_b: suites of one side.
    """

    a: str
    b: str
    comparisons: list[Comparison]
    only_a: list[str] = field(default_factory=list)
    only_b: list[str] = field(default_factory=list)

    @cached_property
    def status(self) -> int:
        """1 where something got worse or failed, else 2 where a row is not comparable or not judged, else 0."""
        rows = [row for comparison in self.comparisons for row in comparison.rows]
        if any(row.lost for row in rows) or any(comparison.changes("worse") for comparison in self.comparisons):
            return 1
        compared = any(row.quantities for row in rows)
        return 2 if any(row.reason or row.open for row in rows) or not compared else 0

    def to_json(self) -> str:
        """Return all of it as JSON text, the same bytes for the same records."""
        value = {"schema": SCHEMA, **asdict(self), "status": self.status, "conclusion": conclusion(self.comparisons)}
        return encode(rounded(value))

    def to_text(self) -> str:
        """Return tables within 120 columns that end with a conclusion in words."""
        blocks = [
            f"# Comparison: {shorten(self.a, 48)} → {shorten(self.b, 48)}",
            "A is before, B is after; differences are B − A.",
        ]
        for comparison in self.comparisons:
            blocks += _suite(comparison)
        for side, suites in (("A", self.only_a), ("B", self.only_b)):
            if suites:
                blocks.append(wrapped(f"Only {side} holds a run of: {', '.join(suites)}."))
        blocks += ["## Conclusion", wrapped(conclusion(self.comparisons))]
        return "\n\n".join(blocks) + "\n"


def conclusion(comparisons: Sequence[Comparison]) -> str:
    """Return what the comparison comes to, in sentences."""
    rows = [row for comparison in comparisons for row in comparison.rows]
    sentences = []
    worse = [pair for comparison in comparisons for pair in comparison.changes("worse")]
    if worse:
        sentences.append(f"Worse by more than noise: {_changed(worse)}.")
    failed = [f"{_name(row)} ({', '.join(row.lost)})" for row in rows if row.lost]
    if failed:
        sentences.append(f"Failed in B: {_listed(failed)}.")
    for word in ("better", "moved"):
        pairs = [pair for comparison in comparisons for pair in comparison.changes(word)]
        if pairs:
            sentences.append(f"{word.capitalize()} by more than noise: {_changed(pairs)}.")
    unclear = [pair for comparison in comparisons for pair in comparison.changes("no interval")]
    if unclear:
        sentences.append(f"Changed, with too few items for an interval: {_changed(unclear)}.")
    waiting = [row for row in rows if row.open]
    if waiting:
        causes = ". ".join(f"{cause}: {_listed(names)}" for cause, names in _by_cause(waiting).items())
        sentences.append(
            f"Not judged, with fewer than {SEEDS_FOR_METHOD} seeds that are not the same checkpoints ({causes})."
        )
    apart = [_name(row) for row in rows if row.reason]
    if apart:
        sentences.append(f"Not comparable, or only in part: {_listed(apart)}.")
    if any(row.quantities for row in rows) and not worse and not failed:
        sentences[:0] = _unharmed(rows)
    if not any(row.quantities for row in rows):
        sentences.append("No number could be compared.")
    sentences += _reproduced(rows)
    left = _left_open(quantities=[(row, quantity) for row in rows for quantity in row.quantities])
    return " ".join([*sentences, *([f"The intervals leave room for {left}."] if left else [])])


def _unharmed(rows: Sequence[RowComparison]) -> Iterator[str]:
    """Yield that nothing got worse, where something was compared and judged."""
    changes = [quantity.change for row in rows for quantity in row.quantities]
    if "not judged" in changes:
        if {*changes} - {"same", "not judged"}:
            yield "Nothing that was judged got worse by more than noise."
    elif {*changes} == {"same"} and not any(row.reason for row in rows):
        yield "No difference."
    else:
        yield "Nothing that was compared got worse by more than noise."


def _by_cause(rows: Iterable[RowComparison]) -> dict[str, list[str]]:
    causes: dict[str, list[str]] = {}
    for row in rows:
        causes.setdefault(row.unjudged or "", []).append(_name(row))
    return causes


def _reproduced(rows: Sequence[RowComparison]) -> Iterator[str]:
    """Yield which rows of the same settings and seeds came to the same S, where not all came out alike to the bit."""
    again = [(row, row.reproduction) for row in rows if row.reproduction is not None]
    if all(quantity.change == "same" for row, _ in again for quantity in row.quantities):
        return
    yield "Reproduced means |S − S'| < 2√2 σ_run, with σ_run the spread of S over at least three training seeds."
    words = {True: "Reproduced", False: "Not reproduced", None: "Whether it is reproduced is unknown, as σ_run is"}
    for outcome, word in words.items():
        names = [f"{_name(row)} ({_distance(known)})" for row, known in again if known.reproduced is outcome]
        if names:
            yield f"{word}: {_listed(names)}."


def _distance(again: Reproduction) -> str:
    known = "" if again.run_sd is None else f" of {reach(again.run_sd):.3f}, σ_run {again.run_sd:.3f}"
    return f"{abs(again.difference):.3f}{known}"


def _left_open(quantities: Iterable[tuple[RowComparison, Quantity]]) -> str:
    """Return the largest losses that would not have been told from noise."""
    room: dict[str, float] = {}
    for row, quantity in quantities:
        low, high = quantity.difference["low"], quantity.difference["high"]
        if (
            quantity.change != "within noise"
            or low is None
            or high is None
            or (row.kind in NULLS and quantity.name != "retain")
        ):
            continue
        room[quantity.name] = max(room.get(quantity.name, 0.0), high if quantity.name == "forget" else -low)
    ways = (("S", "a loss of {:.3f} in S"), ("forget", "{:.3f} more in a forget task"))
    texts = [
        way.format(room[name]) for name, way in (*ways, ("retain", "{:.3f} less in a retain task")) if name in room
    ]
    return ", ".join(texts)


def _suite(comparison: Comparison) -> Iterator[str]:
    yield f"## Suite {comparison.suite}"
    count = sum(len(row.quantities) for row in comparison.rows)
    together = (
        f"the {count} intervals hold together at confidence {comparison.confidence:g}" if count else "nothing is left"
    )
    yield wrapped(
        f"Paired: an item is compared with itself, where the same was asked of both sides; {together}."
        if comparison.paired
        else "Not paired: boards hold no scores of items, so both sides are taken as independent estimates, whose "
        f"intervals are wider; {together}. Boards do not say all that was asked (few-shot examples, decoding): compare "
        "stores to be sure."
    )
    yield "### What was changed"
    known = "" if comparison.paired else " Boards do not hold the settings of methods."
    yield (
        _identity(comparison) if comparison.identity else f"Nothing that is known to have a say in the results.{known}"
    )
    yield "### What came out"
    for (model, track), group in groupby(comparison.rows, key=lambda row: (row.model, row.track)):
        rows = list(group)
        yield f"**{model} · {track}**"
        body = [line for row in rows for line in _lines(row)]
        yield Table.of("", ("row", "of", "A", "B", "B − A", "items changed", "change"), body).to_markdown()
        notes = bullets(_notes(rows))
        if notes:
            yield notes
    if comparison.composites:
        yield from _composites(comparison.composites)
    for side, names in (("A", comparison.only_a), ("B", comparison.only_b)):
        if names:
            yield wrapped(f"Only in {side}: {', '.join(names)}.")


def _composites(composites: Sequence[CompositeComparison]) -> Iterator[str]:
    yield "### Composites"
    yield wrapped(
        "They have no say in the conclusion. Differences are those of independent estimates, each interval for itself; "
        "a dash where intervals of two values say nothing of their difference."
    )
    for (model, track), group in groupby(composites, key=lambda one: (one.model, one.track)):
        rows = list(group)
        yield f"**{model} · {track}**"
        body = [
            (squeezed(row.variant, 20), squeezed(row.name, 20), number(row.a), number(row.b), _difference(row))
            for row in rows
        ]
        yield Table.of("", ("row", "composite", "A", "B", "B − A"), body).to_markdown()
        notes = dict.fromkeys(f"{row.name}, not comparable: {row.reason}." for row in rows if row.reason)
        if notes:
            yield bullets(notes)


def _difference(row: CompositeComparison) -> Value:
    if row.difference is None and row.reason:
        return Value("not comparable")
    if row.a == row.b:
        return Value("no difference")
    return number(row.difference, sign=True)


def _identity(comparison: Comparison) -> str:
    body = []
    for fact in comparison.identity:
        rest = f" and {len(fact.where) - 1} more" if len(fact.where) > 1 else ""
        where = squeeze(fact.where[0], 36 - len(rest)) + rest
        body.append((shortened(fact.what, 26), where, *(_value(value) for value in (fact.a, fact.b))))
    cut = [fact for fact in comparison.identity if max(len(value or "") for value in (fact.a, fact.b)) > VALUE]
    notes = [f"{fact.what}: {fact.a or '–'} → {fact.b or '–'}" for fact in cut]
    table = Table.of("", ("what", "where", "A", "B"), body).to_markdown()
    return f"{table}\n\n{bullets(notes)}" if notes else table


def _value(value: str | None) -> Value:
    return squeezed("–" if value is None else " ".join(value.split()), VALUE)


def _lines(row: RowComparison) -> Iterator[tuple[Value | str, ...]]:
    name = squeezed(row.variant, 24)
    if not row.quantities:
        yield (name, "–", "–", "–", "–", "–", row.outcome)
    elif all(quantity.change == "same" for quantity in row.quantities):
        first = row.quantities[0]
        yield (name, _of(first), f"{first.a:.3f}", f"{first.b:.3f}", "no difference", "–", "same")
    else:
        for place, quantity in enumerate(row.quantities):
            items = "–" if quantity.items is None else f"{quantity.changed} of {quantity.items}"
            yield (
                "" if place else name,
                _of(quantity),
                f"{quantity.a:.3f}",
                f"{quantity.b:.3f}",
                number(quantity.difference, sign=True),
                items,
                WORDS.get(quantity.change, quantity.change),
            )


def _of(quantity: Quantity) -> str:
    return quantity.name if quantity.task is None else f"{quantity.name}: {squeeze(quantity.task, 9)}"


def _notes(rows: Iterable[RowComparison]) -> Iterator[str]:
    by_text: dict[str, list[str]] = {}
    for row in rows:
        texts = [f"not comparable: {row.reason}"] if row.reason else []
        texts += [f"not judged: {row.unjudged}"] if row.open else []
        texts += [*row.lost, *row.notes]
        for text in texts:
            by_text.setdefault(text, []).append(f"`{row.variant}`")
    for text, names in by_text.items():
        yield f"{', '.join(names)}: {text}."


def _changed(pairs: Iterable[tuple[RowComparison, Quantity]]) -> str:
    names: dict[str, list[str]] = {}
    for row, quantity in pairs:
        signed = f"{quantity.difference['value']:+.3f}"
        names.setdefault(_name(row), []).append(f"{quantity.task or quantity.name} {signed}")
    return _listed([f"{name} ({', '.join(what)})" for name, what in names.items()])


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMED
    return "; ".join(names[:NAMED]) + (f"; and {rest} more" if rest > 0 else "")


def _name(row: RowComparison) -> str:
    return f"{row.model} · {row.track} · {row.variant}"
