"""What a contract kit finds: a line a rule, kept or broken, in words."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from ..errors import UserError
from ..specs import Spec


class Checkable(Protocol):
    """What is held to rules; `file` is where its code stands."""

    file: str


T = TypeVar("T", bound=Checkable)
Rule = Callable[[T], None]
"""A rule's docstring says what is promised; it raises an AssertionError that says how that is broken and what to do."""


@dataclass(frozen=True)
class Finding:
    """One rule of a contract.

    Attributes:
        rule: what is promised.
        state: whether that was kept; `unchecked` where a rule before it had to be kept first.
        words: what is broken and what to do, else empty.
    """

    rule: str
    state: Literal["ok", "broken", "unchecked"]
    words: str = ""


def examine(subject: T, rules: Sequence[Rule[T]], gates: Sequence[Rule[T]]) -> Iterator[Finding]:
    """Hold a subject to rules in their order; after a broken one of the `gates` the rest is unchecked.

    An error that a rule did not foresee breaks it too, and is told with the place that raised it.
    """
    open_ = True
    for rule in rules:
        promise = inspect.cleandoc(rule.__doc__ or rule.__name__).replace("\n", " ").rstrip(".")
        if not open_:
            yield Finding(promise, "unchecked")
            continue
        try:
            rule(subject)
        except AssertionError as error:
            yield Finding(promise, "broken", str(error) or _place(error, subject.file))
        except Exception as error:
            yield Finding(promise, "broken", f"{type(error).__name__}: {error} ({_place(error, subject.file)})")
        else:
            yield Finding(promise, "ok")
            continue
        open_ = rule not in gates


def hold(promise: object, words: str) -> None:
    """Raise an AssertionError with `words` where a promise is not kept."""
    if not promise:
        raise AssertionError(words)


def insist(findings: Iterator[Finding]) -> None:
    """Raise an AssertionError with the words of the first broken rule, for a test."""
    for finding in findings:
        if finding.state == "broken":
            raise AssertionError(finding.words)


def validates(settings: type[Spec], name: str) -> None:
    """Hold settings to theirs: each has a kind, a default that it accepts itself, and refuses what is of no type.

    An unknown key is refused with the nearest known one.
    """
    fields = list(settings.model_fields)
    untyped = [field for field in fields if settings.kind_of(field) is None]
    hold(not untyped, f"{name}: settings without a kind: {untyped}.")
    for field, info in settings.model_fields.items():
        hold(not info.is_required(), f"{name}: the setting {field!r} has no default.")
        try:
            settings.parse({field: info.get_default(call_default_factory=True)}, name)
        except UserError as error:
            raise AssertionError(f"{name}: the setting {field!r} refuses its own default: {error}") from error
        hold(
            _refuses(settings, {field: object()}),
            f"{name}: the setting {field!r} takes anything at all; give it a type and, where it has any, limits:"
            f" `{field}: float = Field(1.0, gt=0)`.",
        )
    wrong = f"{fields[0] if fields else 'setting'}x"
    refusal = _refuses(settings, {wrong: 1})
    hold(refusal, f"{name}: the unknown setting {wrong!r} was accepted; do not change `extra` in model_config.")
    hold(repr(wrong) in refusal, f"{name}: the error for an unknown setting does not name it: {refusal}")
    hold(not fields or repr(fields[0]) in refusal, f"{name}: no suggestion for {wrong!r}: {refusal}")


def _refuses(settings: type[Spec], values: dict[str, object]) -> str:
    """Return what settings say against values, empty where they take them."""
    try:
        settings.parse(values, "settings")
    except UserError as error:
        return str(error)
    return ""


def _place(error: BaseException, file: str) -> str:
    """Name the last line of `file` on the way to an error, or the line that raised it."""
    lines = traceback.extract_tb(error.__traceback__)
    last = next((line for line in reversed(lines) if line.filename == file), lines[-1])
    return f"{Path(last.filename).name}, line {last.lineno}: {last.line}"
