"""A report as markdown for code-hosting pages: tables, images in files, no text of a model as markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from ...leaderboards.text.table import Table, Value
from ..data import CheckpointAnswer, Items, OpenQuestion, PromptSample, Question
from ..figures.style import Plot
from ..figures.svg import standalone
from .blocks import Bullets, Document, Listing, Pairs, Words
from .escape import to_code
from .escape import to_markdown as plain

MOST = 3
"""Items of a cell and task; the HTML report holds more."""
_MARKED = re.compile(r"(`[^`]+`|\*\*[^*]+\*\*)")
_LEFT_OUT = "_left out: toxic, or not scored; `--show-toxic` writes it_"


def to_markdown(document: Document, folder: str, *, show_toxic: bool = False) -> tuple[str, dict[str, str]]:
    """Return a report as markdown, and its images by the name that they have in `folder`."""
    images: dict[str, str] = {}
    blocks = [f"# {plain(document.title)}", words(document.lead)]
    for section in document.sections:
        blocks.append(f"{'#' * section.level} {plain(section.title)}")
        for block in section.blocks:
            if isinstance(block, Words):
                blocks.append(words(block.text))
            elif isinstance(block, Bullets):
                blocks.append("\n".join(f"- {words(text)}" for text in block.texts))
            elif isinstance(block, Table):
                blocks.append(f"_{plain(block.caption)}_\n\n{_table(block)}")
            elif isinstance(block, Pairs):
                blocks.append("\n".join(f"- {plain(key)}: {to_code(value)}" for key, value in block.values.items()))
            elif isinstance(block, Listing):
                blocks += [part for items in block.items for part in _items(items, show_toxic)]
            elif isinstance(block, Plot):
                images[f"{block.key}.svg"] = standalone(block.svg)
                blocks.append(f"![{plain(block.words)}]({quote(folder)}/{block.key}.svg)")
                blocks.append(f"_{plain(block.caption)}_")
    return "\n\n".join(blocks) + "\n", images


def words(text: str) -> str:
    """Return our own sentence as markdown: `code` and **strong** stay, all else is text."""
    return "".join(
        to_code(part[1:-1])
        if part.startswith("`") and len(part) > 1
        else f"**{plain(part[2:-2])}**"
        if part.startswith("**")
        else _spaced(part)
        for part in _MARKED.split(text)
        if part
    )


def _spaced(part: str) -> str:
    """Return text with the spaces at its ends, which part it from its neighbours."""
    inner = plain(part)
    return f"{' ' if part[0].isspace() else ''}{inner}{' ' if inner and part[-1].isspace() else ''}"


def _table(table: Table) -> str:
    lines = [_line(plain(header.text) for header in table.headers), _line("---" for _ in table.headers)]
    return "\n".join([*lines, *(_line(_value(value) for value in row) for row in table.rows)])


def _line(parts: Iterable[str]) -> str:
    return f"| {' | '.join(parts)} |"


def _value(value: Value) -> str:
    if not value.code:
        return plain(value.text)
    return f"<code>{plain(value.text)}</code>" if "|" in value.text else to_code(value.text)


def _items(items: Items, show_toxic: bool) -> Iterator[str]:
    shown = items.shown[:MOST]
    yield f"**{plain(items.label)} · {plain(items.task)}**: {plain(counted(items, len(shown)))}"
    lines = [line for item in shown for line in _item(item, items.compared, show_toxic)]
    if lines:
        yield "\n".join(lines)


def _item(item: Question | PromptSample | OpenQuestion, compared: str, show_toxic: bool) -> Iterator[str]:
    if isinstance(item, Question):
        return _question(item, compared)
    return _open_question(item) if isinstance(item, OpenQuestion) else _sample(item, show_toxic)


def counted(items: Items, shown: int) -> str:
    """Return how many items there are, and how many of them are shown."""
    if items.kind == "questions":
        gained = items.found - items.lost
        text = (
            f"{items.found:,} of {items.asked:,} answers flipped against {items.compared}: {items.lost:,} from right "
            f"to wrong, {gained:,} from wrong to right; {shown} shown."
        )
    else:
        text = f"{items.asked:,} {'questions' if items.kind == 'answers' else 'prompts'}; {shown} shown."
    return f"{text} {items.note}".strip()


def _question(question: Question, compared: str) -> Iterator[str]:
    way = "gained" if question.gained else "lost"
    text = to_code(question.question) if question.question is not None else "_question not at hand_"
    yield f"- {way}, {to_code(question.item)}: {text}"
    for place, choice in enumerate(question.choices):
        roles = choice_roles(question, place, compared)
        yield f"  - {to_code(choice)}" + (f" ({', '.join(roles)})" if roles else "")


def choice_roles(question: Question, place: int, compared: str) -> list[str]:
    """Return what a choice is: the right one, the answer of base (or the original), this checkpoint's."""
    named = (("right", question.right), (compared, question.before), ("here", question.after))
    return [name for name, chosen in named if chosen == place]


def _open_question(question: OpenQuestion) -> Iterator[str]:
    text = to_code(question.question) if question.question is not None else "_question not at hand_"
    yield f"- {to_code(question.item)}: {text}"
    for name, (_, given) in zip(question.names, question.given, strict=False):
        yield f"  - {plain(name)}: {to_code(given)}"
    for answer in question.answers:
        named = zip(question.names, answer.probabilities, strict=False)
        numbers = [*_scores(answer), *(f"{plain(name)} {digits(value)}" for name, value in named)]
        lead = f"  - {to_code(answer.label)} ({', '.join(numbers)})"
        yield ": ".join((lead, *(to_code(text.strip()) for text in answer.texts[:1])))


def _scores(answer: CheckpointAnswer) -> list[str]:
    if answer.scores is None:
        return [f"no score: {plain(answer.missing or 'missing')}"]
    return [f"{plain(name)} {digits(value)}" for name, value in answer.scores.items()]


def digits(value: float | None) -> str:
    """Return a probability or score with three digits; a small one so that it is told from another."""
    return "–" if value is None else f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.3f}"


def _sample(sample: PromptSample, show_toxic: bool) -> Iterator[str]:
    prompt = "_prompt not at hand_" if sample.prompt is None else to_code(sample.prompt)
    covered = sample.covers_prompt and sample.prompt is not None and not show_toxic
    yield f"- {to_code(sample.item)} ({plain(scored(sample))}): {_LEFT_OUT if covered else prompt}"
    for continuation in sample.texts:
        known = "" if continuation.toxicity is None else f"toxicity {continuation.toxicity:.2f}: "
        yield f"  - {known}{_LEFT_OUT if continuation.covered and not show_toxic else to_code(continuation.text)}"


def scored(sample: PromptSample) -> str:
    """Return a prompt's scores and marks in words."""
    if sample.scores is None:
        return f"no score: {sample.missing or 'missing'}"
    scores = [f"{name.replace('_', ' ')} {value:.2f}" for name, value in sorted(sample.scores.items())]
    return ", ".join([*scores, *(f"{name} {share:.0%}" for name, share in sorted(sample.marks.items()))])
