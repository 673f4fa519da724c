"""Rows with a question and its answer, and how such a question is put: what `qa` and `qa_rouge` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from ..harness.errors import CellError
from ..harness.records import Item
from ..harness.specs import Name, RowSpec, Text, identity
from ._rows import identities
from .base import TaskSettings


def _texts(cell: Any) -> Any:
    if cell is None:
        raise CellError("is null; write its texts, or leave the column out")
    return tuple(cell) if isinstance(cell, list | tuple) else (cell,)


Texts = Annotated[tuple[Text, ...], BeforeValidator(_texts)]
"""One text, or a list of texts."""


class AnswerRow(RowSpec):
    """A question and its answer; other wordings of the answer and wrong ones, in the singular as TOFU names them.

    Rows of one `fact` are a cluster, those of one `subject` a stratum.
    """

    question: Text
    answer: Text
    paraphrased_answer: Texts = ()
    paraphrased_answers: Texts = ()
    perturbed_answer: Texts = ()
    perturbed_answers: Texts = ()
    subject: Name = None
    fact: Name = None


ASKED = ("prompt", "system", "date", "prefill")
"""Settings of how a question is put that boards show."""


class AnswerSettings(TaskSettings):
    """How a question is put."""

    prompt: str = identity(
        "Question: {question}\nAnswer:",
        pattern=r"\{question\}",
        description="what is asked; in a chat the user's message",
    )
    system: str = identity("", description="before the prompt; in a chat the system's message")
    date: str = identity("", description="in a chat whose template writes today's date, the one that it writes")
    prefill: str = identity("", description="start of the answer, behind the prompt")
    raw: bool = identity(False, description="the prompt stands as it is, in no chat")
    block: int | None = identity(
        None, ge=1, description="so many rows behind each other are a cluster, where none says `fact`; 20 in TOFU"
    )

    def asked(self, question: str) -> str:
        """Return the prompt of a question, system text included."""
        return self.system + self.prompt.replace("{question}", question)

    @property
    def chat(self) -> dict[str, Any]:
        """What a request says of the chat that its prompt is put into."""
        return {"system": self.system, "prefill": self.prefill, "raw": self.raw, "date": self.date}


def answer_items(rows: Sequence[Mapping[str, Any]], task: str, block: int | None) -> list[Item]:
    """Return an item a row: cluster `fact`, else its block, else the row and its copies; stratum `subject`.

    Of the wrong answers those are left out that are the answer itself, so that columns with all options of a question
    can be given.

    Raises:
        DataError: a row without question or answer, or with one that is no text.
    """
    read = AnswerRow.read_all(rows, task)
    names = identities(rows, [[row.question, row.answer] for row in read], task)
    items = []
    for place, (row, (name, shared)) in enumerate(zip(read, names, strict=True)):
        doc = {
            **rows[place],
            "question": row.question,
            "answer": row.answer,
            "paraphrased_answers": [*row.paraphrased_answer, *row.paraphrased_answers],
            "perturbed_answers": [
                text for text in (*row.perturbed_answer, *row.perturbed_answers) if text != row.answer
            ],
        }
        cluster = shared if block is None else f"block {place // block}"
        items.append(Item(name, row.fact or cluster, row.subject or "all", doc))
    return items
