"""A report as one HTML file that asks nobody for anything: style, script and figures stand in it."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from ...leaderboards.text.table import Table
from ..figures.style import Plot
from .blocks import Bullets, Document, Listing, Pairs, Words
from .escape import to_html as said
from .escape import visible, words_to_html
from .markdown import choice_roles, counted, digits, scored

FOLDER = Path(__file__).resolve().parent / "templates"


def to_html(document: Document) -> str:
    """Return a report as HTML; a policy in it forbids every request and every script but its own."""
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "said": said,
        "words": words_to_html,
        "scored": scored,
        "kind": _kind,
        "digits": digits,
    }
    environment.globals |= {"choice_roles": choice_roles, "counted": counted, "svg": _svg}
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        document=document,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
    )


def _shown(value: Any) -> Any:
    """Make unseen characters visible in whatever the template puts out."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _svg(drawing: Plot) -> Markup:
    return Markup(drawing.svg)


def _kind(block: Any) -> str:
    kinds = {Words: "words", Bullets: "bullets", Table: "table", Pairs: "pairs", Listing: "listing", Plot: "figure"}
    return kinds[type(block)]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
