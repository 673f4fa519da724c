"""Text that a model or a stranger wrote, made safe to show: every character verbatim or as a visible escape."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from markupsafe import Markup, escape

LONGEST = 1200
"""Characters of a text that a report shows; the rest is counted."""
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that are not seen, or that change how their neighbours are seen."""
_MARKUP = re.compile(r"([\\`*_~\[\]{}!$])|([|<>&@#])|(:(?=//)|(?<=www)\.)", re.IGNORECASE)
_LEADING = re.compile(r"^([-+=](?!\d)|\d+(?=[.)](?:\s|$)))")


def parts(text: str, kept: str = "\n\t") -> Iterator[tuple[str, bool]]:
    """Yield a text in pieces with whether the piece is an escape (`U+202E`) for a character that cannot be seen.

    Control, format (bidirectional and zero-width), surrogate, private and unassigned characters are escaped; `kept`
    ones are not.
    """
    plain: list[str] = []
    for character in text:
        if character in kept or unicodedata.category(character) not in HIDDEN:
            plain.append(character)
            continue
        if plain:
            yield "".join(plain), False
            plain = []
        yield f"U+{ord(character):04X}", True
    if plain:
        yield "".join(plain), False


def visible(text: str, kept: str = "\n\t") -> str:
    """Return a text with unseen characters as `⟦U+202E⟧`."""
    return "".join(f"⟦{part}⟧" if escaped else part for part, escaped in parts(text, kept))


def cut(text: str) -> tuple[str, str]:
    """Return what of a text is shown, and a note on the rest (empty where there is none)."""
    rest = len(text) - LONGEST
    return (text[:LONGEST], f"{rest:,} more characters") if rest > 0 else (text, "")


def to_html(text: str) -> Markup:
    """Return a foreign text as HTML that shows it and does nothing else, isolated from the text around it."""
    shown, rest = cut(text)
    body = Markup("").join(
        Markup('<span class="esc">{}</span>').format(part) if escaped else escape(part)
        for part, escaped in parts(shown)
    )
    note = Markup(' <span class="note">… {}</span>').format(rest) if rest else ""
    return Markup('<bdi class="said">{}</bdi>{}').format(body, note) if text else Markup('<i class="note">empty</i>')


def words_to_html(text: str) -> Markup:
    """Return our own sentence as HTML: `code` and **strong** of it become elements, all else is text."""
    shown = str(escape(visible(text)))
    shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", shown)
    return Markup(re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", shown))


def to_code(text: str) -> str:
    """Return a foreign text as a markdown code span in one line: nothing in it is markup, link or mention."""
    shown, rest = cut(text)
    shown = visible(shown, kept="")
    if not shown:
        return "_empty_"
    fence = "`" * (max((len(run) for run in re.findall("`+", shown)), default=0) + 1)
    pad = " " if shown[0] in "` " or shown[-1] in "` " else ""
    pad = "" if not shown.strip(" ") else pad
    return f"{fence}{pad}{shown}{pad}{fence}" + (f" … {rest}" if rest else "")


def to_markdown(text: str) -> str:
    """Return a short foreign text (a name, a cause) as markdown text in one line, also within a table's cell."""
    shown = _MARKUP.sub(_inert, " ".join(visible(text).split()))
    return _LEADING.sub(lambda match: f"&#{ord(match[0][0])};{match[0][1:]}", shown)


def _inert(match: re.Match[str]) -> str:
    return f"\\{match[0]}" if match[1] else f"&#{ord(match[0])};"
