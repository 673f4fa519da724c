"""What mkdocs calls while it builds the manual: generated parts, pages for the source that is linked, links.

A page says `<!-- generated: NAME -->` where the part NAME of `parts.py` goes. A link to a file or folder outside
`docs/` leads to a page of its own that shows it, so that the site needs no code-hosting page beside it; on such a page
the same links lead to the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import parts
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[#)\s])")
MARKER = re.compile(r"<!-- generated: (\w+) -->")
FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".toml": "toml", ".sh": "bash"}
_generated: dict[str, str] = {}


def on_startup(**_: Any) -> None:
    """Lay out the folders as the package that they are, for mkdocstrings, which reads it without importing it."""
    package = ROOT / "build" / "package" / "unlearn_bench"
    package.mkdir(parents=True, exist_ok=True)
    for name in ("harness", "methods", "tasks"):
        if not (package / name).exists():
            (package / name).symlink_to(ROOT / name)


def on_files(files: Files, config: Any) -> Files:
    """Add a page for every file that a page links outside `docs/`, and for those that these link."""
    _generated.clear()
    pages = {f"docs/{file.src_uri}": file.content_string for file in files.documentation_pages()}
    asked = {target for page, text in pages.items() for target in _targets(page, _filled(text))}
    done: set[str] = set()
    while asked - done:
        target = min(asked - done)
        done.add(target)
        text = _shown(target)
        files.append(File.generated(config, _uri(target), content=text))
        if target.endswith(".md") or (ROOT / target).is_dir():
            asked |= set(_targets(target if target.endswith(".md") else f"{target}/index.md", text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in what is generated, and make links lead to pages of the site."""
    uri = page.file.src_uri
    here = uri.removeprefix("source/") if uri.startswith("source/") else f"docs/{uri}"
    return _outside_fences(_filled(markdown), lambda text: _list_apart(_linked(text, here, uri)))


def _filled(text: str) -> str:
    return MARKER.sub(lambda match: _part(match[1]), text)


def _part(name: str) -> str:
    if name not in _generated:
        _generated[name] = parts.PARTS[name]()
    return _generated[name]


def _targets(page: str, text: str) -> Iterator[str]:
    """Give what a page (its path in the project) links outside `docs/`, as paths in the project."""
    for piece in FENCE.split(text)[::2]:
        for link in LINK.findall(piece):
            target = _target(page, link)
            if target is not None and not target.startswith("docs/"):
                yield target


def _target(page: str, link: str) -> str | None:
    """Return where a relative link of a page leads in the project, None where there is nothing."""
    target = normpath(str(PurePosixPath(page).parent / link))
    return target if not link.startswith("/") and (ROOT / target).exists() else None


def _uri(target: str) -> str:
    """Return the page of the site for a path of the project."""
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    if (ROOT / target).is_dir():
        return f"source/{target}/index.md"
    return f"source/{target}" if target.endswith(".md") else f"source/{target}.md"


def _linked(text: str, here: str, uri: str) -> str:
    def lead(match: re.Match[str]) -> str:
        target = _target(here, match[1])
        return match[1] if target is None else relpath(_uri(target), str(PurePosixPath(uri).parent))

    return LINK.sub(lead, text)


def _shown(target: str) -> str:
    """Return the page that shows a file or folder of the project."""
    path = ROOT / target
    if path.is_dir():
        names = sorted(item.name for item in path.iterdir() if item.is_file() and item.suffix in {".py", ".md"})
        return f"# {target}/\n\n" + "\n".join(f"- [{name}]({name})" for name in names) + "\n"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    fence = "`" * 4
    head = f"---\ntitle: {target}\nsearch: {{exclude: true}}\n---\n\n# {target}\n\n"
    return f"{head}{fence}{LANGUAGES.get(path.suffix, 'text')}\n{text}\n{fence}\n"


def _outside_fences(text: str, change: Callable[[str], str]) -> str:
    pieces = FENCE.split(text)
    return "".join(piece if place % 2 else change(piece) for place, piece in enumerate(pieces))


def _list_apart(text: str) -> str:
    """Put a blank line before a list that follows a paragraph, which code-hosting pages do not need and mkdocs does."""
    return re.sub(r"^(?!- |\d+\. |\s|$)(.+)\n(?=(?:- |1\. ))", r"\1\n\n", text, flags=re.MULTILINE)
