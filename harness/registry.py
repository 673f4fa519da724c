"""One registry for everything that can be added: methods, tasks, scorers, suites, engines, executors, transforms.

Built-ins are found by scanning their folder, plugins by their entry-point group; a module is imported when it is first
needed. A plugin that cannot be imported is named in `broken` and does not take the rest down.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from .errors import UserError, suggest

T = TypeVar("T")
Registration = TypeVar("Registration")


def check_name(kind: str, name: str) -> None:
    """Raise a `UserError` where a name is not one that boards, files and command lines can carry as it is."""
    if not re.fullmatch(r"\w[\w .:+@=,()\[\]-]{0,79}", name):
        raise UserError(
            f"{name!r} cannot be the name of a {kind}: use at most 80 letters, digits, spaces and .:+@=,()[]-_, a"
            " letter or digit first."
        )


def folded(name: str) -> str:
    """Return what people and file systems that ignore case and spelling of characters take a name for."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def check_alike(kind: str, names: Iterable[str], where: str) -> None:
    """Raise a `UserError` where two names of a kind differ in case or spelling of characters only."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(folded(name), name)
        if other != name:
            raise UserError(f"The {kind}s {other!r} and {name!r} of {where} are too much alike; rename one of them.")


class Registry(Generic[T]):
    """Named things of one kind.

    Args:
        kind: the word for one of them, used in messages (`method`).
        package: the package whose modules hold the built-ins; names starting with `_` are passed over.
        group: the entry-point group of plugins; an entry point names a module or the object itself.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self.package, self.group = kind, package, group
        self._found: dict[str, T] = {}
        self._sent: set[str] = set()
        self._scanned = False
        self.broken: dict[str, str] = {}

    def register(self, name: str) -> Callable[[Registration], Registration]:
        """Return a decorator that puts a class or function under `name`; a second owner of a name is an error.

        A name that `put` filled keeps what it has: the module of a class that was sent may be imported afterwards.
        """

        check_name(self.kind, name)

        def decorate(thing: Registration) -> Registration:
            if name in self._sent:
                return thing
            taken = _path(self._found.get(name, thing))
            if taken != _path(thing):
                raise UserError(f"The {self.kind} name {name!r} is taken by {taken}; rename {_path(thing)}.")
            self._found[name] = thing  # pyright: ignore[reportArgumentType]
            return thing

        return decorate

    def put(self, name: str, thing: T) -> None:
        """Put a thing that another process sent under a name, whatever stands there or is registered later."""
        self._sent.add(name)
        self._found[name] = thing

    def name_of(self, thing: T) -> str:
        """Return the name that a class stands under; one that stands under none is registered for this process.

        Its name is its own `name`, else that of the class in small letters: `SignFlip` is `sign_flip`.

        Raises:
            UserError: another class has that name.
        """
        self._scan()
        known = next((name for name, other in self._found.items() if other is thing), None)
        if known is not None:
            return known
        words = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z0-9]+|\d+", thing.__name__)  # pyright: ignore
        name = vars(thing).get("name") or "_".join(words).lower()
        self.register(name)(thing)
        return name

    @contextmanager
    def temporary(self, name: str, thing: T) -> Iterator[str]:
        """Let a thing stand under a name for the length of a block, in place of what stands there."""
        check_name(self.kind, name)
        self._scan()
        before = {name: self._found[name]} if name in self._found else {}
        self._found[name] = thing
        try:
            yield name
        finally:
            del self._found[name]
            self._found |= before

    def names(self) -> list[str]:
        """Return all names, sorted, plugins included."""
        self._scan()
        return sorted(self._found)

    def get(self, name: str) -> T:
        """Return the thing called `name`; raise a `UserError` with suggestions where there is none."""
        if name not in self._found:
            self._scan()
        if name not in self._found:
            for source, cause in self.broken.items():
                if name in source:
                    raise UserError(f"The {self.kind} {name!r} comes from {source}, which cannot be loaded: {cause}")
            raise UserError(f"Unknown {self.kind} {name!r}.{suggest(name, self._found)}")
        return self._found[name]

    def origin(self, name: str) -> str:
        """Return the dotted path of the thing called `name`."""
        return _path(self.get(name))

    def is_own(self, name: str) -> bool:
        """Tell whether the thing called `name` is of this package, and not of a plugin or of a caller's code."""
        return self.origin(name).startswith(f"{self.package}.")

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            if not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=self.group):
            self._load(point)

    def _load(self, point: EntryPoint) -> None:
        source = f"plugin {point.name!r} ({point.value})"
        try:
            thing = point.load()
            if isinstance(thing, type) or callable(thing):
                self.register(point.name)(thing)
        except UserError as error:
            self.broken[source] = str(error)
        except Exception as error:
            self.broken[source] = f"{type(error).__name__}: {error}"


def _path(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"
