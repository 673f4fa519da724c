"""LaTeX for pdflatex: text as characters that do nothing else, and floats with booktabs' rules."""

from __future__ import annotations

import re
from collections.abc import Sequence

PACKAGES = (r"\usepackage[T1]{fontenc}", r"\usepackage[utf8]{inputenc}", r"\usepackage{booktabs,graphicx}")
NAME = 48
"""Characters of a name; longer ones are cut in their middle."""
ROWS = 45
"""Rows of a float; more do not fit a page."""
FLOAT = r"""\begin{{table}}[htbp]
\centering
\caption{{{caption}}}{label}
\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}{{%
\begin{{tabular}}{{{columns}}}
\toprule
{head}
\midrule
{body}
\bottomrule
\end{{tabular}}}}
\end{{table}}
"""
_CHARACTERS = {character: f"\\{character}" for character in "{}$&#%_"} | {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "−": "$-$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\dots{}",
    "·": r"$\cdot$",
    "×": r"$\times$",
    "²": r"\textsuperscript{2}",
    "Δ": r"$\Delta$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
}
_MARKED = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*")


def escape(text: str) -> str:
    """Return a text in one line as LaTeX that shows it; a character that pdflatex lacks becomes its code `[U+4E2D]`."""
    shown = "".join(map(_character, re.sub(r"\s+", " ", text)))
    return re.sub(r"([-',])(?=\1)", r"\1{}", shown)


def _character(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    known = " " <= character <= "~" or ("À" <= character <= "ÿ" and character != "÷")
    return character if known else f"[U+{ord(character):04X}]"


def code(text: str) -> str:
    """Return a name of the program."""
    return rf"\texttt{{{escape(text)}}}"


def number(text: str, *, strong: bool = False) -> str:
    """Return a number or a range, with minus signs and dashes for its hyphens; its interval small, itself bold."""
    shown = re.sub(r"(?<=\d)-(?=\d)", "--", re.sub(r"(?<![\w.])-(?=\d)", "$-$", escape(text)))
    value, space, rest = re.sub(r" (\[[^]]+\])", r" {\\scriptsize \1}", shown).partition(" ")
    return (rf"\textbf{{{value}}}" if strong else value) + space + rest


def words(text: str) -> str:
    """Return our own sentence: `code` and **strong** of it are set so, all else is text."""
    shown, end = "", 0
    for match in _MARKED.finditer(text):
        name, strong = match.groups()
        shown += escape(text[end : match.start()]) + (code(name) if name else rf"\textbf{{{escape(strong)}}}")
        end = match.end()
    return shown + escape(text[end:])


def line(cells: Sequence[str]) -> str:
    """Return a row of a table; an empty group keeps a bracket or star at its start from being an argument."""
    return f"{'{}' if cells[0].startswith(('[', '*')) else ''}{' & '.join(cells)} \\\\"


def floats(caption: str, label: str, columns: str, head: str, lines: Sequence[str]) -> str:
    """Return a table as floats of at most `ROWS` rows; those behind the first say that they go on."""
    return "\n".join(
        FLOAT.format(
            caption=f"{words(caption)}{' (continued)' if at else ''}",
            label="" if at else f"\n\\label{{tab:{re.sub('[^A-Za-z0-9]+', '-', label)}}}",
            columns=columns,
            head=head,
            body="\n".join(lines[at : at + ROWS]),
        )
        for at in range(0, len(lines), ROWS)
    )
