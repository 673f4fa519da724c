"""matplotlib's SVG made fit to stand in a page: no address, no inline style, own ids, the ink of its surroundings."""

from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INK, FAINT = "#010203", "#040506"
"""Colours that stand for the page's text, and for lines that recede (drawn with an alpha)."""
_SCHEMES = (
    "svg{color:#1b1f24;background:#fff;font-family:system-ui,'DejaVu Sans',sans-serif}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e9ee;background:#14171c}}"
)
_NAMESPACE = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"^(?:(?P<style>italic|oblique) )?(?:(?P<weight>bold|\d+) )?(?P<size>[\d.]+px) ")


def to_svg(figure: Figure, key: str, words: str) -> str:
    """Return a figure as an `svg` element with the role of an image that `words` describe; ids begin with `key`."""
    buffer = BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    for name in ("metadata", "style"):
        for parent in list(root.iter()):
            for child in [child for child in parent if _tag(child) == name]:
                parent.remove(child)
    used = set(re.findall(rb'(?:url\(#|href="#)([^)"]+)', buffer.getvalue()))
    for element in root.iter():
        element.tag = _tag(element)
        _plain(element, key, {ident.decode() for ident in used})
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "role": "img",
        "aria-label": words,
        "class": "figure",
    }
    for text in root.iter():
        text.tail = None
        if text.tag not in ("text", "tspan"):
            text.text = None
    return _drop_empty(root)


def standalone(svg: str) -> str:
    """Return an `svg` element as a file of its own that follows the reader's light or dark scheme."""
    head, _, rest = svg.partition(">")
    head = head.replace("<svg", f'<svg xmlns="{_NAMESPACE}"', 1)
    return f"{head}><style>{_SCHEMES}</style>{rest}\n"


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _plain(element: ElementTree.Element, key: str, used: set[str]) -> None:
    """Turn an element's inline style into attributes, its links and ids into the figure's own."""
    attributes = dict(element.attrib)
    own_attributes: dict[str, str] = {}
    for name, value in attributes.items():
        if name == "style":
            own_attributes |= _declarations(value)
        elif name == "id":
            if value in used:
                own_attributes["id"] = f"{key}-{value}"
        elif name == _LINK or name == "href":
            own_attributes["href"] = f"#{key}-{value[1:]}"
        elif name == "clip-path":
            own_attributes[name] = value.replace("#", f"#{key}-")
        else:
            own_attributes[name] = value
    element.attrib = {name: _colour(value) for name, value in own_attributes.items()}


def _declarations(style: str) -> dict[str, str]:
    declarations = {}
    for declaration in filter(None, (part.strip() for part in style.split(";"))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "font":
            font = _FONT.match(value)
            if font:
                declarations["font-size"] = font["size"].removesuffix("px")
                if font["weight"] and font["weight"] != "400":
                    declarations["font-weight"] = font["weight"]
        else:
            declarations[name] = value
    return declarations


def _colour(value: str) -> str:
    return {INK: "currentColor", FAINT: "currentColor"}.get(value, value)


def _drop_empty(root: ElementTree.Element) -> str:
    """Return the text of an element without groups that hold nothing."""
    while True:
        empty = [
            (parent, child)
            for parent in root.iter()
            for child in parent
            if child.tag in ("g", "defs") and not len(child)
        ]
        if not empty:
            return ElementTree.tostring(root, encoding="unicode")
        for parent, child in empty:
            parent.remove(child)
