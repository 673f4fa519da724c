"""Text of a suite: sources of rows, what makes a text of a question and its answer, the text of a track."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from .specs import QuestionRow, Spec, TextRow, identity, recorded, runtime

DATE = "26 Jul 2024"
"""The day that Llama 3's chat template names where it knows no other."""


def day(date: str) -> dict[str, Any]:
    """Return what a chat template is told of the day, so that no text depends on the one it is made on."""
    return {"date_string": date, "strftime_now": lambda _form: date}


class SourceSpec(Spec):
    """Where rows come from: files, a downloaded copy of a hub data set, or the hub; the first that is there.

    What identifies a source is the digest of its rows, which the loader computes; the place is runtime.
    Files are CSV, TSV, JSON (a list of rows, or a row a line), Parquet, Arrow and plain text (a row a line), by their
    suffix in any case, also compressed (`.gz`, `.bz2`, `.xz`, `.zst`), in UTF-8. Cells of CSV and TSV are text as they
    stand (1.50, 007, NA); only columns for which a task says another type get it. `where` compares with what stands.
    A column of the source is named `a`, or `a|b` (the first that it has), or `a,b,c` (joined to a list); `@file` is the
    name of the row's file without a final _test, _dev or _val, or the hub configuration.
    """

    path: str | list[str] | None = runtime(
        None, description="file or glob, relative to the suite's folder or --data-root; of several the first that is"
    )
    hub: str | None = runtime(None, description="hub id of the data set; DATA_ROOT/ID may hold a downloaded copy")
    format: Literal["csv", "tsv", "json", "jsonl", "parquet", "arrow", "txt"] | None = runtime(
        None, description="what its files hold, where their suffix says something else; txt: a row a line"
    )
    config: str | list[str] | None = runtime(None, description="hub configuration, or several to join")
    split: str = runtime("train", description="hub split")
    revision: str | None = runtime(None, description="hub revision (commit)")
    gated: bool = runtime(False, description="the hub gives it only to who was granted access")
    advice: str = runtime("", description="what to do where it cannot be reached")
    columns: dict[str, str] = runtime({}, description="our column name to the source's")
    where: dict[str, Any] = runtime({}, description="keep rows whose column equals the value")
    labels: dict[str, int] = runtime({}, description="text column to label: a row becomes one labelled text a column")
    min_characters: int = runtime(0, ge=0, description="leave out rows whose `text` is shorter")
    distinct: str | None = runtime(None, description="our column of whose equal values the first row is kept")
    part: str | None = runtime(
        None,
        pattern=r"^\d+(-\d+)?/\d+$",
        description="k/n: part k (from 0) of n, by hash of `group`; j-k/n: parts j to k",
    )
    group: str | None = runtime(None, description="column whose equal values stay in one part; None: the whole row")
    first: int | None = runtime(None, ge=1, description="the first so many rows, as TOFU's own code takes 300")
    rows: int | None = runtime(None, ge=1, description="at most this many rows, a seeded sample")
    expected: int | None = runtime(None, ge=1, description="rows that it has on the hub, for estimates without it")
    expected_length: int | None = runtime(None, ge=1, description="characters of a text, likewise")
    otherwise: SourceSpec | None = runtime(None, description="what stands in its place where it cannot be reached")
    note: str = recorded("", description="said on boards where this source was used")

    @property
    def paths(self) -> list[str]:
        """The globs that it is looked for at, in their order."""
        return [self.path] if isinstance(self.path, str) else self.path or []

    @property
    def text_row(self) -> type[TextRow] | type[QuestionRow]:
        """What its rows are as text to train on: questions where `columns` names `prompt` or `answer`, or documents."""
        return QuestionRow if {"prompt", "answer"} & self.columns.keys() else TextRow

    @model_validator(mode="after")
    def _is_somewhere(self) -> SourceSpec:
        if not self.path and not self.hub:
            raise ValueError("a source needs a path or a hub id")
        return self


class TemplateSpec(Spec):
    """How a question and its answer become one text: words around them, or the tokenizer's chat template.

    The answer follows what `prompt` makes of the question, without anything between; in a chat that is the user's
    message, and the answer follows the generation prompt. The begin token stands where the tokenizer puts one.
    """

    form: Literal["plain", "chat"] = identity("plain", description="the words alone, or the tokenizer's chat template")
    prompt: str = identity("Question: {prompt}\nAnswer:", description="what is made of the question; chat: `{prompt}`")
    answer: str = identity(" {answer}", description="what is made of the answer; chat: `{answer}`")
    system: str = identity("", description="system message of a chat")
    date: str = identity(
        DATE,
        late=True,
        description="a chat template's `date_string`, and what it has for today",
    )
    end: bool = identity(True, description="an end token follows the answer, and counts as a part of it")
    end_token: str | None = identity(None, description="the end token; None: the tokenizer's own")

    @model_validator(mode="before")
    @classmethod
    def _bare_in_a_chat(cls, values: Any) -> Any:
        chat = isinstance(values, Mapping) and values.get("form") == "chat"
        return {"prompt": "{prompt}", "answer": "{answer}", **values} if chat else values

    @model_validator(mode="after")
    def _fits_together(self) -> TemplateSpec:
        for field, text in (("prompt", self.prompt), ("answer", self.answer)):
            if text.count(f"{{{field}}}") != 1:
                raise ValueError(f"the template's {field} must hold {{{field}}} once")
        if self.form == "plain" and (self.system or self.date != DATE):
            raise ValueError("system and date are of a chat; add `form: chat`, or write them into `prompt`")
        return self


class CorporaSpec(Spec):
    """The text of a track: forget topics, retain text, labelled text for probes (none: forget against retain).

    A source whose `columns` name `prompt` and `answer` holds questions with answers; the template makes texts of them.
    """

    forget: dict[str, SourceSpec] = runtime(min_length=1)
    retain: SourceSpec = runtime()
    probe: SourceSpec | None = runtime(None)
    relearn: dict[str, SourceSpec] = runtime(
        {}, description="forget text of the stress `relearn`, by topic; no method sees it"
    )
    template: TemplateSpec = runtime(TemplateSpec())
    pools: dict[str, SourceSpec] = runtime(
        {}, description="by name, lines of which a method that asks for them gets one a forget row, as refusals"
    )

    @model_validator(mode="after")
    def _sources_hold_one_kind(self) -> CorporaSpec:
        for source in (*self.forget.values(), self.retain, *self.relearn.values()):
            questions = source.text_row is QuestionRow
            if questions and "text" in source.columns:
                raise ValueError("a source maps `text` beside `prompt` and `answer`; take either out of its `columns`")
            if source.otherwise is not None and (source.otherwise.text_row is QuestionRow) != questions:
                raise ValueError("a source holds questions, its stand-in `otherwise` does not, or the other way round")
        return self
