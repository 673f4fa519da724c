"""Record types: what stands in the store between a model and a number, and how results are shown. Free of torch."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, inf, isfinite, isnan
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

MANY = 0.10
"""Share of answers from which what they have in common is worth a warning."""


@dataclass(frozen=True)
class Item:
    """One question or prompt of a task.

    Attributes:
        id: unique within the task and stable across runs.
        cluster: items of one cluster (phrasings of one fact) are resampled together.
        stratum: items are resampled within their stratum (an MMLU subject).
        doc: the row it was made from, in the schema of the task's data set.
    """

    id: str
    cluster: str
    stratum: str
    doc: Mapping[str, Any]


@dataclass(frozen=True)
class Choices:
    """Raw outcome of a multiple-choice request: what the model thinks of each choice.

    Attributes:
        item: the item's id.
        logprobs: summed log-probability (nats) of each choice's tokens after the context; -inf is one, NaN is none.
        tokens: number of tokens of each choice.
        greedy: whether each choice is what greedy decoding would have said.
        truncated: context tokens cut from the left to fit the model, at the worst choice.
    """

    item: str
    logprobs: list[float]
    tokens: list[int]
    greedy: list[bool]
    truncated: int = 0


@dataclass(frozen=True)
class Generations:
    """Raw outcome of a generation request: the texts and how they ended.

    Attributes:
        item: the item's id.
        texts: continuations without the prompt, special tokens removed.
        tokens: number of generated tokens of each, the end token not counted.
        stopped: whether each ended by itself (False: cut at the length limit).
        reference: summed log-probability (nats) of each text after the prompt under the base model; a text's None is
            one that is not finite, None as a whole is not measured.
        truncated: prompt tokens cut from the left to fit the model.
    """

    item: str
    texts: list[str]
    tokens: list[int]
    stopped: list[bool]
    reference: list[float | None] | None = None
    truncated: int = 0


@dataclass(frozen=True)
class Trace:
    """What a model thinks of each token of one given text, each after all tokens before it (teacher forcing).

    Attributes:
        logprobs: log-probability (nats) of each token; -inf is one, NaN and None are none.
        hits: 1 where the token is the most probable one, else 0.
        means: mean of the log-probability over the vocabulary, mu = sum p log p, at each token; None: not asked for.
        variances: its variance, sum p (log p)^2 - mu^2, likewise.
        ended: whether the last token is the end token, which is no part of the text.
    """

    logprobs: list[float]
    hits: list[int]
    means: list[float] | None = None
    variances: list[float] | None = None
    ended: bool = False

    @property
    def probability(self) -> float | None:
        """The length-normalised probability of its tokens, exp(mean l_t) (TOFU, arXiv 2401.06121).

        TOFU counts the end token as one of them. None of no token, and where one has no log-probability.
        """
        known = [logprob for logprob in self.logprobs if logprob is not None and not isnan(logprob)]
        return exp(fmean(known)) if known and len(known) == len(self.logprobs) else None

    def first(self, count: int) -> Trace:
        """Return the trace of its first tokens alone."""
        if count >= len(self.logprobs):
            return self
        means, variances = (None if given is None else given[:count] for given in (self.means, self.variances))
        return Trace(self.logprobs[:count], self.hits[:count], means, variances)


@dataclass(frozen=True)
class Traces:
    """Raw outcome of a trace request: a trace of each text after the context, in the order of the request.

    Attributes:
        item: the item's id.
        traces: one a text; the text's tokens, and the end token behind them where it was asked for.
        truncated: context tokens cut from the left to fit the model, at the worst text.
    """

    item: str
    traces: list[Trace]
    truncated: int = 0


Outcome = Choices | Generations | Traces


@dataclass(frozen=True)
class Record:
    """An outcome's scores. A failed score is missing (`scores` None and a reason), never a value.

    Attributes:
        item, cluster, stratum: as in `Item`.
        scores: metric name to value; the task says which is its primary metric.
        missing: why there is no score.
        marks: reasons for doubt, as shares in [0, 1] of the item's answers; `Task.marks` says what each means.
        text_scores: the judgement of each generated text, None where there is none; None as a whole: not of texts, or
            written before texts had their own.
    """

    item: str
    cluster: str
    stratum: str
    scores: dict[str, float] | None
    missing: str | None = None
    marks: dict[str, float] = field(default_factory=dict)
    text_scores: list[float | None] | None = None


def why_missing(reasons: Iterable[str | None]) -> str | None:
    """Return why records have no score, from the reason of each record (None: it has one), the most frequent first.

    None where all have one.
    """
    counts = Counter(reason for reason in reasons if reason is not None).most_common()
    if len(counts) < 2:
        return counts[0][0] if counts else None
    return ", ".join(f"{reason} ({count} item{'s' * (count > 1)})" for reason, count in counts)


@dataclass(frozen=True)
class Mark:
    """What a mark of records says of a row of a board where many answers have it.

    Attributes:
        warning: the sentence; `{share}`, what is left of it (`{rest}`), `{task}` and `{mark}` are filled in.
        above: the share of answers above which it is said.
        broken: whether an answer with the mark is none. A row with many of them is no evidence of unlearning.
    """

    warning: str = "{share} of the answers to {task} are marked {mark!r}"
    above: float = MANY
    broken: bool = False


@dataclass(frozen=True)
class Preview:
    """What a reader is shown of an item.

    Attributes:
        text: the question or prompt.
        choices: what can be answered, in the order in which it is asked; empty where nothing is to choose from. Of
            given texts all that a model is asked about, of free answers the right one.
        right: the place of the right choice, None: there is none.
        kinds: what each choice is (`right`, `paraphrase`, `wrong`), where that is to be shown.
        toxicity: of the text itself, in [0, 1]; a report covers it from 0.5 on, and where it is None: not known.
    """

    text: str
    choices: Sequence[str] = ()
    right: int | None = None
    toxicity: float | None = None
    kinds: Sequence[str] = ()


LogRole = Literal["loss", "log_likelihood", "total", "weight", "log_weight", "layer_loss", "directions", "other"]
"""What a column of a training log is, so that reports can draw it:

- `loss`: a loss, `total`: what was minimised;
- `log_likelihood`: a loss that is, where it is negative, the forget text's mean log-likelihood, nats a token: it falls
  without a bound, and below -ln |V| that text is less likely than under uniform guessing over the vocabulary V;
- `weight`: of the retain loss, `log_weight`: the logarithm of the centre that a learned weight is drawn around;
- `layer_loss`: a layer's part of the forget loss; the name ends in `{layer}`, which stands for its number;
- `directions`: of `log_setup`, a direction a layer: `layers`, their `cosines`, and `counts` of its weights between
  `edges`;
- `other`: none of these; it is not drawn.
"""


def to_row(value: Item | Outcome | Record) -> dict[str, Any]:
    """Return a record type as plain JSON types; a log-probability that is none (NaN, infinite) becomes null.

    That of a given text may be minus infinity, which Python's JSON writes as -Infinity: a model never says it.
    """
    row = dict(vars(value))
    if isinstance(value, Traces):
        row["traces"] = [_trace_row(trace) for trace in value.traces]
    if row.get("logprobs") is not None:
        row["logprobs"] = _without_nan(row["logprobs"])
    if row.get("reference") is not None:
        row["reference"] = [number if isfinite(number) else None for number in row["reference"]]
    return row


def _trace_row(trace: Trace) -> dict[str, Any]:
    row = {name: value for name, value in vars(trace).items() if value not in (None, False)}
    return row | {name: _without_nan(row[name]) for name in ("logprobs", "means", "variances") if name in row}


def _without_nan(numbers: Sequence[float | None]) -> list[float | None]:
    return [n if n is not None and (isfinite(n) or n == -inf) else None for n in numbers]


def outcome_of(row: Mapping[str, Any]) -> Outcome:
    """Return the outcome that a stored row is; raise a `TypeError` or `KeyError` where it is none."""
    if "traces" in row:
        return Traces(**{**row, "traces": [Trace(**trace) for trace in row["traces"]]})
    return Choices(**row) if "logprobs" in row else Generations(**row)


@dataclass(frozen=True)
class Printable:
    """What a command came to; both texts end with a newline."""

    ascii: ClassVar[bool] = True
    """Whether JSON escapes what is not ASCII."""

    def facts(self) -> Any:
        """Return it as plain JSON types: its fields, but for folders, which only the text names."""
        return {name: value for name, value in asdict(self).items() if not isinstance(value, Path)}

    def to_json(self) -> str:
        """Return it for scripts."""
        return json.dumps(self.facts(), indent=2, ensure_ascii=self.ascii) + "\n"

    def to_text(self) -> str:
        """Return it in words."""
        raise NotImplementedError
