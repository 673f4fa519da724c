"""The contract of a task: it turns data rows into items, items into requests, outcomes into records.

A task never runs a model and never reads a file: the harness gives it rows, runs its requests on an engine, stores the
raw outcomes and hands them back to `score`, so that a new scorer or metric needs no model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from ..harness.errors import UserError
from ..harness.records import Choices, Generations, Item, Mark, Outcome, Preview, Record, Traces
from ..harness.registry import Registry
from ..harness.specs import Kind, RowSpec, Spec, identity
from ._rows import field as field
from ._rows import identities as identities

tasks: Registry[type[Task]] = Registry("task", "unlearn_bench.tasks", "unlearn_bench.tasks")
register = tasks.register


class TaskSettings(Spec):
    """Settings of a task: every field is part of the identity of its outcomes."""

    default_kind: ClassVar[Kind | None] = Kind.IDENTITY


class Decoding(Spec):
    """How continuations are sampled."""

    samples: int = identity(25, ge=1, description="continuations a prompt")
    max_new_tokens: int = identity(20, ge=1, description="length limit of a continuation, tokens")
    top_p: float = identity(0.9, gt=0, le=1, description="nucleus: smallest set of tokens with at least this mass")
    temperature: float = identity(1.0, ge=0, description="0 is greedy")
    seed: int = identity(0, ge=0, description="decoding seed, apart from training and bootstrap seeds")
    stop: tuple[str, ...] = identity((), late=True, description="texts before whose first occurrence it is cut")
    max_length: int | None = identity(
        None,
        late=True,
        ge=1,
        description="length limit of prompt and continuation together, tokens; a prompt that fills it is not continued",
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value
        if isinstance(texts, tuple) and "" in texts:
            raise ValueError("an empty text stops everything; leave it out")
        return texts


@dataclass(frozen=True)
class ChoiceRequest:
    """Ask for the log-probability of each choice after a context.

    Attributes:
        system: the start of the context that is the system's message where prompts are put into a chat.
        delimiter: the start of each choice that joins it to the context, and that a chat has not.
    """

    item: str
    context: str
    choices: tuple[str, ...]
    system: str = ""
    delimiter: str = ""


@dataclass(frozen=True)
class GenerationRequest:
    """Ask for sampled continuations of a prompt.

    Attributes:
        system: the start of the prompt that is the system's message where prompts are put into a chat.
        prefill: the start of the answer, which stands behind the prompt and is no part of a continuation.
        raw: whether the prompt stands as it is where others are put into a chat.
        date: of a chat whose template writes today's, in its place (`date_string`).
    """

    item: str
    prompt: str
    system: str = ""
    prefill: str = ""
    raw: bool = False
    date: str = ""


@dataclass(frozen=True)
class TraceRequest:
    """Ask what a model thinks of each token of given texts after a context (teacher forcing).

    Attributes:
        end: whether the end token behind each text is asked for too.
        moments: whether mean and variance over the vocabulary are asked for, which costs time; see `Task.moments`.
        system, prefill, raw, date: as in `GenerationRequest`.
        delimiter: the start of each text that joins it to the context, and that a chat has not.
    """

    item: str
    context: str
    texts: tuple[str, ...]
    end: bool = False
    moments: bool = False
    system: str = ""
    delimiter: str = ""
    prefill: str = ""
    raw: bool = False
    date: str = ""


ModelRequest = ChoiceRequest | GenerationRequest | TraceRequest

ANSWERS: dict[str, tuple[type[ModelRequest], type[Outcome]]] = {
    "choices": (ChoiceRequest, Choices),
    "generations": (GenerationRequest, Generations),
    "traces": (TraceRequest, Traces),
}
"""What a task may need of an engine: the requests that ask for it and the outcomes that answer them."""
Needs = Literal["choices", "generations", "traces"]


@dataclass(frozen=True)
class Metric:
    """One number of a task: the mean of a score over items, resampled by cluster within strata.

    Attributes:
        score: the key in `Record.scores`.
        chance: what no knowledge scores; 0 for a rate.
        better: whether a model is more useful with a higher or a lower value.
        largest: what it cannot exceed, None: nothing; the smallest is 0.
    """

    score: str
    chance: float
    better: Literal["higher", "lower"]
    largest: float | None = 1.0


@dataclass(frozen=True)
class ItemWorkload:
    """How much work an item is; the defaults are those of a question of MMLU and SmolLM2's tokenizer.

    Attributes:
        sequences: how many an engine reads or samples.
        tokens: mean length of a sequence, without what is sampled.
        longest: the length that memory is planned for.
        logits: positions of a sequence whose logits are kept.
        sampled: tokens that are sampled after it.
    """

    sequences: int = 1
    tokens: int = 123
    longest: int = 512
    logits: int = 1
    sampled: int = 0


class Task(ABC):
    """A benchmark. Subclasses set the class attributes and implement the abstract functions.

    Class attributes:
        Settings: the pydantic model of the settings.
        Row: the columns of its data that it reads, with their types. The plan holds every row to it before anything
            runs; `items` reads rows by it too, so that a message names file, row and column.
        version: raised whenever a change alters outcomes or records from the same inputs.
        summary: one line for `unlearn-bench list tasks`; `citation`: where it comes from.
        needs: what an engine must do for it: score choices, generate or trace given texts; `decoding` is asked of who
            generates.
        reference: whether continuations are also scored by the base model (`Generations.reference`).
        judged: whether `score` needs a scorer of texts; `pairs`: one of pairs of texts, `fluency`: one that says how
            fluent they are; a suite names either as the `scorer` of the task.
        scoring: settings that only `score` reads; changing them needs no model.
        compared: settings that boards show with the task, in this order: values under others are not comparable.
        metrics: the task's numbers, the primary one first; a setting `metric` may name another (`Task.metric`).
        marks: what each mark of its records says of a row of a board, beside `truncated`, which every task has.
        chosen: the score that is the place of the choice that was taken, for audits of models that always answer alike.
        shuffled: settings under which choices stand in another order, for the null `shuffled`.

    Attributes:
        settings: validated settings.
        examples: data rows that a prompt may show with their answers, in their order; empty where none are given.
    """

    Settings: ClassVar[type[TaskSettings]]
    Row: ClassVar[type[RowSpec]] = RowSpec
    version: ClassVar[int]
    summary: ClassVar[str]
    citation: ClassVar[str]
    needs: ClassVar[Needs]
    reference: ClassVar[bool] = False
    judged: ClassVar[bool] = False
    pairs: ClassVar[bool] = False
    fluency: ClassVar[bool] = False
    scoring: ClassVar[frozenset[str]] = frozenset()
    compared: ClassVar[tuple[str, ...]] = ()
    metrics: ClassVar[tuple[Metric, ...]]
    marks: ClassVar[Mapping[str, Mark]] = {
        "truncated": Mark("{share} of the prompts of {task} were cut to fit the model", above=0.01)
    }
    chosen: ClassVar[str | None] = None
    shuffled: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, settings: Any, examples: Sequence[Mapping[str, Any]] = ()) -> None:
        self.settings, self.examples = settings, examples

    @classmethod
    @abstractmethod
    def example_rows(cls) -> list[dict[str, Any]]:
        """Return a few valid data rows in the schema of the task's data set, for the contract test."""

    @classmethod
    def named(cls, name: str, include_path: str | None = None) -> dict[str, dict[str, Any]]:
        """Return the settings of the tasks that `TASK:NAME` stands for, by name; most tasks have no names below them.

        Raises:
            UserError: there is none.
        """
        raise UserError(f"{cls.__name__} has no tasks by name, so nothing is called {name!r}.")

    @classmethod
    def completed(cls, settings: Any) -> dict[str, Any]:
        """Return the values of settings with those that only its source knows; planning asks once."""
        return {}

    def own_rows(self) -> list[dict[str, Any]]:
        """Return the rows of a task that brings its own; the others are given `data:` in the suite.

        Raises:
            UserError: it brings none.
        """
        raise UserError(f"Task {type(self).__name__} has no `data:`; name its source in the suite.")

    @abstractmethod
    def items(self, rows: Sequence[Mapping[str, Any]]) -> list[Item]:
        """Return the items of the data rows, in their order, with clusters and strata."""

    @abstractmethod
    def requests(self, items: Sequence[Item]) -> list[ModelRequest]:
        """Return one request an item, in their order."""

    @abstractmethod
    def score(self, items: Sequence[Item], outcomes: Sequence[Any], scorer: Scorer | None = None) -> list[Record]:
        """Return one record an item. What cannot be scored is a record with `missing`, never a value."""

    @property
    def threshold(self) -> float:
        """The probability from which a scored text counts as toxic: the setting `threshold`, 0.5 without one."""
        return getattr(self.settings, "threshold", 0.5)

    @property
    def shots(self) -> int:
        """How many examples a prompt shows: the setting `num_fewshot`, 0 where the task has none."""
        return getattr(self.settings, "num_fewshot", None) or 0

    @property
    def metric(self) -> Metric:
        """The primary metric: the one that the setting `metric` names, the first where there is none."""
        named = getattr(self.settings, "metric", None)
        return next((metric for metric in self.metrics if metric.score == named), self.metrics[0])

    @property
    def moments(self) -> bool:
        """Whether its traces need mean and variance over the vocabulary: the setting `moments`, none without one."""
        return bool(getattr(self.settings, "moments", False))

    def preview(self, item: Item) -> Preview:
        """Return what a reader is shown of an item: what a model is asked, unless the task knows better."""
        (request,) = self.requests([item])
        if isinstance(request, ChoiceRequest):
            return Preview(request.context, request.choices)
        if isinstance(request, TraceRequest):
            return Preview(request.context, request.texts)
        return Preview(request.prompt)

    def worst_toxicity(self, record: Record) -> float | None:
        """Return the highest toxicity among the texts of a record without `text_scores`, None: not known of all."""
        return None

    def workload(self) -> ItemWorkload:
        """Return how much work an item is, for `--dry-run`: that of a question of MMLU or a prompt of 17 tokens."""
        if self.needs == "generations":
            decoding: Decoding = self.settings.decoding
            return ItemWorkload(decoding.samples, tokens=17, longest=64, sampled=decoding.max_new_tokens)
        return ItemWorkload(tokens=123 * (1 + self.shots), longest=512 * (1 + self.shots))


def check_answered(item: Item, outcome: Outcome) -> None:
    """Raise a `ValueError` where an outcome is that of another item."""
    if outcome.item != item.id:
        raise ValueError(f"The outcome of {outcome.item} was given for {item.id}.")


scorers: Registry[type[Scorer]] = Registry("scorer", "unlearn_bench.tasks.scorers", "unlearn_bench.scorers")


class ScorerSettings(Spec):
    """Settings of a scorer: every field is part of the identity of its scores."""

    default_kind: ClassVar[Kind | None] = Kind.IDENTITY


class Scorer(ABC):
    """A classifier of texts, loaded from a folder.

    Class attributes:
        Settings: the pydantic model of what may be said of it; those given are passed on as `settings`.
        tolerance: how far a text's probability may move with the texts that are scored beside it: the last bits of a
            sum follow the shape of its batch. The same texts in the same order get the same probabilities.
        reversed_labels: what a user does where it ranks rude texts below plain ones.
        pairs: whether it scores pairs of texts (`PairScorer`).
        fluency: whether it says how fluent a text is, and not how toxic.

    Attributes:
        limit: tokens of a text that it reads; None: all.
    """

    summary: ClassVar[str]
    version: ClassVar[int]
    Settings: ClassVar[type[ScorerSettings]] = ScorerSettings
    tolerance: ClassVar[float] = 1e-5
    reversed_labels: ClassVar[str] = "mend its labels"
    pairs: ClassVar[bool] = False
    fluency: ClassVar[bool] = False
    limit: int | None = None

    @abstractmethod
    def __init__(self, folder: str, device: str = "cpu") -> None:
        """Load the scorer; raise a `UserError` that says what is missing."""

    @classmethod  # noqa: B027
    def check(cls, folder: str) -> None:
        """Raise a `UserError` on what the folder's headers alone say against it; planning asks, and loads nothing."""

    @abstractmethod
    def score(self, texts: Sequence[Any]) -> list[float | None]:
        """Return the probability that each text (a `str`) is toxic, or None where it could not be scored."""

    def about(self) -> list[str]:
        """Return what boards say of it beside its name."""
        return []

    @classmethod
    def identify(cls, folder: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what of its settings is part of its identity: those that are no default. Loads no model.

        Raises:
            UserError: an unknown setting, or the folder leaves a choice open that none of them settles.
        """
        return cls.Settings.parse(settings, "scorer").model_dump(mode="json", exclude_defaults=True)


class PairScorer(Scorer):
    """A model that says of a pair of texts whether the first one says what the second one does, loaded from a folder.

    It is registered, named and identified like a scorer of texts; tasks with `pairs` ask it.
    """

    reversed_labels: ClassVar[str] = "name the label that means entailment under `settings` of the task's scorer"
    pairs: ClassVar[bool] = True

    @abstractmethod
    def score(self, texts: Sequence[tuple[str, str]]) -> list[float | None]:
        """Return how far each (premise, hypothesis) agrees, in [0, 1], or None where it could not be scored."""


def load_scorer(kind: str, folder: str, device: str = "cpu", settings: Mapping[str, Any] | None = None) -> Scorer:
    """Load the scorer of a registered kind from its folder; raise a `UserError` that says what is missing."""
    loaded: Any = scorers.get(kind)
    if not settings:
        return loaded(folder, device)
    return loaded(folder, device, loaded.Settings.parse(settings, "scorer"))
