"""A report on disk: one HTML file, or markdown with its images in a folder beside it."""

from __future__ import annotations

from pathlib import Path

from ..harness.errors import UserError
from .data import Content
from .figures.style import need_matplotlib
from .sections import outline


def write(content: Content, out: Path, *, show_toxic: bool = False) -> None:
    """Write a report; the same content gives the same bytes.

    Raises:
        UserError: another ending than .html or .md, a folder that cannot be written, or no matplotlib.
    """
    if out.suffix not in (".html", ".md"):
        raise UserError(f"A report is written to a file that ends in .html or .md, not to {out.name!r}.")
    need_matplotlib()
    document = outline(content)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".html":
            from .document.html import to_html

            out.write_text(to_html(document), encoding="utf-8", newline="\n")
        else:
            from .document.markdown import to_markdown

            text, images = to_markdown(document, folder=f"{out.stem}-files", show_toxic=show_toxic)
            beside = out.parent / f"{out.stem}-files"
            if images:
                beside.mkdir(exist_ok=True)
            for name, image in images.items():
                (beside / name).write_text(image, encoding="utf-8", newline="\n")
            out.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"The report {out} cannot be written ({error.strerror}); pass another --out.") from None
