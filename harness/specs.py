"""Specs: frozen, strict pydantic models whose every field says what it is for.

A field is *identity* (part of what a result is), *runtime* (how it is computed, without a say in the result) or
*recorded* (kept beside a result and shown). Digests read identity fields only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .errors import UserError, suggest


class Kind(StrEnum):
    """What a field of a spec is for."""

    IDENTITY = "identity"
    RUNTIME = "runtime"
    RECORDED = "recorded"


def identity(default: Any = ..., **options: Any) -> Any:
    """Declare a field that is part of what a result is."""
    return Field(default, json_schema_extra={"kind": Kind.IDENTITY}, **options)


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
        """Return the identity fields, nested specs included, as plain JSON types."""
        return {name: _plain(getattr(self, name)) for name in self._identity_fields()}

    @classmethod
    @cache
    def _identity_fields(cls) -> tuple[str, ...]:
        return tuple(name for name in cls.model_fields if cls.kind_of(name) is Kind.IDENTITY)

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


def canonical(value: Any) -> bytes:
    """Encode plain JSON types in one way only: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the first 16 hexadecimal digits of the sha256 of `canonical(value)`."""
    return hashlib.sha256(canonical(value)).hexdigest()[:16]
