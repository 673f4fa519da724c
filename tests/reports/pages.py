"""Reading pages back: what is text in them, and what is an element."""

from __future__ import annotations

from html.parser import HTMLParser

from markdown_it import MarkdownIt


class Reader(HTMLParser):
    """Collects the text of a page and the names of its elements."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.tags = "", []
        self.feed(str(page))
        self.close()

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


def rendered(markdown: str) -> Reader:
    return Reader(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown))
