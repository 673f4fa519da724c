"""The catalogue of errors: `python tests/errors_page.py` writes docs/errors.md from the code.

A message is what stands in `UserError(…)` and the like. Where it is made by a function or kept in a name, those
are followed; what is filled in stands in braces.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("harness", "methods", "tasks", "leaderboards", "reports")
ERRORS = {
    "UserError",
    "DataError",
    "CellError",
    "TrainingError",
    "UsageError",
    "BadParameter",
    "JobError",
    "WorkerLost",
}
HEAD = """# Errors

What unlearn-bench says where something is wrong that you can mend, by the file that says it. Every message says what
was asked or found, and what to do; in braces stands what is filled in. A cell's failure is told with the cell's name at
the end of the run, on the board, and in `failure.json` in the cell's folder, with its traceback. Anything else that
ends a run is a mistake of ours and shows its traceback.

Exit status: 0 all is well; 1 some cells failed, or a check found something; 2 wrong usage or environment; 130 stopped
by Ctrl-C. This page is written from the code: `python tests/errors_page.py`.
"""


class Messages:
    """The messages of the code, found in its syntax trees."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trees = {
            file.relative_to(root).as_posix(): ast.parse(file.read_text(encoding="utf-8"))
            for folder in FOLDERS
            for file in sorted((root / folder).rglob("*.py"))
            if file.name != "contract.py"
        }
        self.functions: dict[str, list[ast.FunctionDef]] = {}
        self.here: set[ast.FunctionDef] = set()
        self.sentences: dict[str, str] = {}
        for tree in self.trees.values():
            self.sentences |= dict(sentences(tree))
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    self.functions.setdefault(node.name, []).append(node)

    def by_file(self) -> dict[str, list[str]]:
        """Return the messages of each file that raises any, in the order of the file, each once."""
        found = {}
        for name, tree in self.trees.items():
            self.here = {node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            texts = [text for function in functions(tree) for text in self._made(function)]
            if texts:
                found[name] = list(dict.fromkeys(texts))
        return found

    def _made(self, function: ast.AST) -> Iterator[str]:
        for node in own(function):
            if isinstance(node, ast.Call) and called(node) in ERRORS:
                for text in self.texts(node.args[0], function, ()):
                    if " " in text:
                        yield text

    def texts(self, node: ast.expr, scope: ast.AST, seen: tuple[str, ...]) -> list[str]:
        """Return what an expression of a message may say."""
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=parts):
                return joined([self._part(part, scope, seen) for part in parts])
            case ast.BinOp(left=left, right=right, op=ast.Add()):
                return joined([self.texts(left, scope, seen), self.texts(right, scope, seen)])
            case ast.IfExp(body=body, orelse=other):
                return [*self.texts(body, scope, seen), *self.texts(other, scope, seen)]
            case ast.Name(id=name) if name not in seen:
                values = [each.value for each in own(scope) if isinstance(each, ast.Assign) and targets(each, name)]
                found = [text for value in values for text in self.texts(value, scope, (*seen, name))]
                return found or [f"{{{name}}}"]
            case ast.Call() if called(node) not in seen and len(makers := self._makers(called(node))) == 1:
                returned = [each.value for each in own(makers[0]) if isinstance(each, ast.Return) and each.value]
                deeper = (*seen, called(node))
                found = [text for value in returned for text in self.texts(value, makers[0], deeper)]
                return [text for text in found if " " in text] or [f"{{{called(node).strip('_')}}}"]
        return [f"{{{label(node)}}}"]

    def _makers(self, name: str) -> list[ast.FunctionDef]:
        """Return the functions of a name: those of the file that is looked at, else all."""
        known = self.functions.get(name, [])
        return [each for each in known if each in self.here] or known

    def _part(self, part: ast.expr, scope: ast.AST, seen: tuple[str, ...]) -> list[str]:
        if not isinstance(part, ast.FormattedValue):
            return self.texts(part, scope, seen)
        if isinstance(part.value, ast.IfExp | ast.Constant):
            return self.texts(part.value, scope, seen)
        if isinstance(part.value, ast.Name) and part.value.id in self.sentences:
            return [self.sentences[part.value.id]]
        return [f"{{{label(part.value)}}}"]


def sentences(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Give the texts of several words that a module keeps in a name in capitals."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                if name.isupper() and " " in text:
                    yield name, text


def functions(tree: ast.AST) -> list[ast.AST]:
    """Return the functions of a module in their order, and the module itself for what stands outside of them."""
    return [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]


def own(function: ast.AST) -> Iterator[ast.AST]:
    """Give the nodes of a function without those of functions inside it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from own(child)


def joined(parts: list[list[str]]) -> list[str]:
    """Return every way to put one alternative of each part together."""
    return ["".join(choice) for choice in product(*parts)]


def called(node: ast.Call) -> str:
    """Return the last part of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def targets(node: ast.Assign, name: str) -> bool:
    """Return whether an assignment is to a name."""
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def label(node: ast.expr) -> str:
    """Return a word for what is filled in."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(attr=attribute, value=ast.Name(id=name)) if name not in ("self", "cls"):
            return f"{name}.{attribute}"
        case ast.Attribute(attr=attribute):
            return attribute
        case ast.Call(func=ast.Attribute(attr="join"), args=[inner]):
            return f"{label(inner)}, …"
        case ast.Call(func=ast.Name(id="len"), args=[inner]):
            return f"number of {label(inner)}"
        case ast.Call(args=[first, *_]) if called(node) in ("sorted", "list", "repr", "str", "map", "tuple", "set"):
            return label(first) if called(node) != "map" else label(node.args[1])
        case ast.Call():
            return called(node).strip("_")
        case ast.Subscript(value=value):
            return label(value)
        case ast.BoolOp(values=[first, *_]):
            return label(first)
        case ast.GeneratorExp(generators=[first, *_]) | ast.ListComp(generators=[first, *_]):
            return label(first.iter)
    return "…"


def page(root: Path) -> str:
    """Return the page's text."""
    lines = [HEAD]
    for file, texts in Messages(root).by_file().items():
        lines.append(f"## [{file}](../{file})\n")
        lines += [f"- {shown(text)}" for text in texts]
        lines.append("")
    return "\n".join(lines)


def shown(text: str) -> str:
    """Return a message as markdown: as it is, nothing in it read as mark-up."""
    ticks = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{ticks}{space}{' '.join(text.split())}{space}{ticks}"


if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(page(ROOT), encoding="utf-8")
