"""Specs: frozen, strict pydantic models whose every field says what it is for.

A field is *identity* (part of what a result is), *runtime* (how it is computed, without a say in the result) or
*recorded* (kept beside a result and shown). Digests read identity fields only.

A `RowSpec` says the same of a row of data: which columns are read, and as what.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, ClassVar, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import CellError, DataError, UserError, suggest


class Kind(StrEnum):
    """What a field of a spec is for."""

    IDENTITY = "identity"
    RUNTIME = "runtime"
    RECORDED = "recorded"


def identity(default: Any = ..., *, late: bool = False, **options: Any) -> Any:
    """Declare a field that is part of what a result is.

    One that came `late` is left out of identities while it has its default: ids of before it stay.
    """
    return Field(default, json_schema_extra={"kind": Kind.IDENTITY, **({"late": True} if late else {})}, **options)


def runtime(default: Any = ..., **options: Any) -> Any:
    """Declare a field that only says how a result is computed."""
    return Field(default, json_schema_extra={"kind": Kind.RUNTIME}, **options)


def recorded(default: Any = ..., **options: Any) -> Any:
    """Declare a field that is kept beside a result and shown."""
    return Field(default, json_schema_extra={"kind": Kind.RECORDED}, **options)


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys and numbers that are not finite are errors, every field has a kind.

    `default_kind` may name one kind for all fields of a class that do not say (settings of methods and tasks).
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    default_kind: ClassVar[Kind | None] = None

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    @classmethod
    def kind_of(cls, field: str) -> Kind | None:
        """Return the declared kind of a field, or None where it has none (a test fails for those)."""
        extra = cls.model_fields[field].json_schema_extra
        declared = extra.get("kind") if isinstance(extra, dict) else None
        return Kind(str(declared)) if declared else cls.default_kind

    def identity(self) -> dict[str, Any]:
        """Return the identity fields, nested specs included, as plain JSON types; late ones at their default not."""
        defaults = self._late_defaults()
        values = {name: getattr(self, name) for name in self._identity_fields()}
        return {name: _plain(it) for name, it in values.items() if name not in defaults or it != defaults[name]}

    @classmethod
    @cache
    def _identity_fields(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.model_fields if cls.kind_of(name) is Kind.IDENTITY)

    @classmethod
    @cache
    def _late_defaults(cls) -> dict[str, Any]:
        """Return the defaults of the identity fields that came late, by name."""
        extras = {name: field.json_schema_extra for name, field in cls.model_fields.items()}
        late = [name for name, extra in extras.items() if isinstance(extra, dict) and extra.get("late")]
        return {name: cls.model_fields[name].get_default(call_default_factory=True) for name in late}

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str) -> Self:
        """Validate `values`; raise a `UserError` that names each wrong key with the nearest known one."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError(_explain(error, cls, where)) from None


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Spec):
        return value.identity()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    lines = []
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{where}: unknown key {path!r}.{suggest(str(problem['loc'][-1]), _fields(model, problem))}")
        else:
            lines.append(f"{where}: {path or 'value'}: {problem['msg']} (got {problem['input']!r:.80}).")
    return "\n".join(lines)


def _fields(model: Any, problem: Any) -> list[str]:
    """Follow a problem's location down to the model that refused the key."""
    for part in problem["loc"][:-1]:
        field = getattr(model, "model_fields", {}).get(part)
        if field is not None:
            candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
            model = next((c for c in candidates if hasattr(c, "model_fields")), model)
    return list(getattr(model, "model_fields", {}))


class _OnceLoader(yaml.SafeLoader):
    """YAML in which no mapping has a key twice; what `<<` merges into it may be there too."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Compose a mapping; raise a `UserError` where a key stands in it twice."""
        node = super().compose_mapping_node(anchor)
        lines: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            name = key.value if key.tag in SPECIAL else self.construct_object(key)
            line = key.start_mark.line + 1
            if name in lines:
                where = f"lines {lines[name]} and {line}" if lines[name] != line else f"line {line}"
                raise UserError(f"the key {name!r} stands twice, in {where}; keep one of them.")
            lines[name] = line
        return node


SPECIAL = ("tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
"""Tags of keys that YAML itself has a meaning for: `<<` and `=`."""


def read_yaml(text: str, where: str) -> Any:
    """Return what a YAML text says, plain types only.

    Raises:
        UserError: a mapping has a key twice, with the lines of both.
        yaml.YAMLError: it is no YAML.
    """
    try:
        return yaml.load(text, Loader=_OnceLoader)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def canonical(value: Any) -> bytes:
    """Encode plain JSON types in one way only: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value)).hexdigest()[:16]


def shown(cell: Any) -> str:
    """Return a cell for messages: null, blank, or as Python writes it, cut."""
    blank = isinstance(cell, str) and not cell.strip()
    return "null" if cell is None else "blank" if blank else f"{cell!r:.60}"


def whole(cell: Any) -> int | None:
    """Return the whole number that a cell is, or that it writes out; None where it is another thing."""
    if isinstance(cell, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,18}(\.0*)?\s*", cell):
        return int(cell.split(".")[0])
    if isinstance(cell, bool) or not isinstance(cell, int | float) or cell != cell // 1:
        return None
    return int(cell)


def _passage(cell: Any) -> str:
    if cell is None:
        raise CellError("is null; write its text, or leave the row out")
    if isinstance(cell, bool) or not isinstance(cell, str | int):
        raise CellError(f"is {shown(cell)}, not text; write it in quotes as it is to be read, or leave the row out")
    return str(cell)


def _text(cell: Any) -> str:
    if shown(cell) == "blank":
        raise CellError("is blank; write its text, or leave the row out")
    return _passage(cell)


def _name(cell: Any) -> str | None:
    if shown(cell) in ("null", "blank"):
        return None
    if isinstance(cell, bool) or not isinstance(cell, str | int):
        raise CellError(f"is {shown(cell)}, which is no name; write text or a whole number, or leave the column out")
    return str(cell)


def _whole(cell: Any) -> int:
    value = whole(cell)
    if value is None:
        raise CellError(f"is {shown(cell)}, not a whole number; write one, or leave the row out")
    return value


def _flag(cell: Any) -> bool | None:
    if shown(cell) in ("null", "blank"):
        return None
    known = {"true": True, "1": True, "false": False, "0": False}
    if (text := str(cell).strip().lower()) not in known:
        raise CellError(f"is {shown(cell)}; write true or false")
    return known[text]


def _label(cell: Any) -> int:
    value = int(cell) if isinstance(cell, bool) else whole(cell)
    if value not in (0, 1):
        raise CellError(f"is {shown(cell)}; write 1 for what is to be recognised (toxic) and 0 for what is not")
    return value


Passage = Annotated[str, BeforeValidator(_passage)]
"""Text as it stands, a whole number as its digits; it may be blank. What can be written in several ways is none."""
Text = Annotated[str, BeforeValidator(_text)]
"""Text that is not blank."""
Name = Annotated[str | None, BeforeValidator(_name)]
"""What rows are called or grouped by: text or a whole number (0 is one); null and blank: none."""
Whole = Annotated[int, BeforeValidator(_whole)]
"""A whole number, also where it is written out or has an empty fraction (2, "2", 2.0); true is none."""
Flag = Annotated[bool | None, BeforeValidator(_flag)]
"""true or false, 1 or 0, in any case; null and blank: not said."""
Label = Annotated[int, BeforeValidator(_label)]
"""1 for what a classifier is to recognise, 0 for what it is not."""


class RowSpec(BaseModel):
    """The columns of a row of data that are read, with their types; others are carried along as they stand."""

    model_config = ConfigDict(frozen=True)

    id: Name = None

    @classmethod
    def read(cls, row: Mapping[str, Any], place: str) -> Self:
        """Return a row's columns; raise a `DataError` that names the place, the column and what to do."""
        try:
            return cls.model_validate(dict(row))
        except ValidationError as error:
            raise DataError(_misfit(error, row, place)) from None

    @classmethod
    def read_all(cls, rows: Iterable[Mapping[str, Any]], reader: str) -> list[Self]:
        """Return the columns of rows; a `DataError` says who reads them and which row is wrong."""
        return [cls.read(row, f"{reader}: {place_of(row, number)}") for number, row in enumerate(rows, start=1)]

    def typed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return the columns that the row writes out as text and that are none: numbers and truth values."""
        cells = {name: getattr(self, name) for name in self.model_fields_set if isinstance(row[name], str)}
        return {name: value for name, value in cells.items() if isinstance(value, bool | int)}


class TextRow(RowSpec):
    """A text to train on or to read; blank ones are left out by who uses them."""

    text: Passage


class QuestionRow(RowSpec):
    """A question and its answer to train on; neither may be blank."""

    prompt: Text
    answer: Text


class LabelledRow(TextRow):
    """A text with what a classifier is to say of it; texts of one `group` belong together."""

    label: Label
    group: Name = None


def place_of(row: Mapping[str, Any], number: int) -> str:
    """Return where a row stands, for messages: in its file where it was read from one, else its number, from 1."""
    return getattr(row, "place", "") or f"row {number}"


def _misfit(error: ValidationError, row: Mapping[str, Any], place: str) -> str:
    problem = error.errors()[0]
    cause = problem.get("ctx", {}).get("error")
    if not isinstance(cause, ValueError):
        cause = f"is {shown(problem['input'])}: {problem['msg']}; mend it, or leave the row out"
    if not problem["loc"]:
        return f"{place} {cause}."
    column, *entry = problem["loc"]
    if problem["type"] == "missing":
        has = ", ".join(map(repr, row)) or "nothing"
        return f"{place} has no {column!r}; it has {has}. Add it, or map another under `columns:`."
    where = f"entry {int(entry[0]) + 1} of {column!r}" if entry else repr(column)
    return f"{place}: {where} {cause}."
