"""The check on clear sentences that a scorer passes before it scores anything: a head of random weights does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from statistics import median

from ...tasks.base import Scorer
from ..errors import UserError, first_line
from ..specs import digest
from .sentences import PLAIN, RUDE

FILES = ("rude.txt", "plain.txt")
"""Sentences that a scorer's folder brings for itself, one a line; no part of its digest."""
NEEDED = 12
"""Sentences of either kind that own ones must have at least."""
PASS = 0.9
"""The AUC that is needed. Scores that know nothing of 12 and 12 sentences reach it in 2 of 10,000 draws, of 24 and 24
in fewer than 1 of a million (exact); random heads on SmolLM2's states of ours in about 3 of 10,000 (drawn)."""


@dataclass(frozen=True)
class Sentences:
    """Clear sentences, and where they are from."""

    rude: tuple[str, ...]
    plain: tuple[str, ...]
    source: str

    @classmethod
    def of(cls, folder: str | None) -> Sentences:
        """Return those that a scorer's folder brings, else the project's, which are English.

        Raises:
            UserError: the folder's cannot be read, or are too few.
        """
        files = [Path(folder or "", name) for name in FILES]
        if folder is None or not any(file.is_file() for file in files):
            return cls(RUDE, PLAIN, "English")
        rude, plain = map(_lines, files)
        if min(len(rude), len(plain)) < NEEDED or set(rude) & set(plain):
            raise UserError(
                f"{folder}: {' and '.join(FILES)} need at least {NEEDED} different sentences each, one a line, and none"
                f" in both; they have {len(rude)} and {len(plain)}."
            )
        return cls(rude, plain, "its own")

    @cached_property
    def digest(self) -> str:
        """Stands for the sentences."""
        return digest([self.rude, self.plain])


def _lines(file: Path) -> tuple[str, ...]:
    """Return the different lines of a file that are not empty."""
    try:
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} cannot be read as UTF-8 text: {first_line(error)} Mend it, or take it away."
        ) from error
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


@dataclass(frozen=True)
class Check:
    """What a scorer made of the sentences: a probability each, None where it gave none.

    Attributes:
        source: of the sentences.
        limit: tokens of a text that the scorer reads; None: all.
        about: what else is known of the scorer.
    """

    rude: Sequence[float | None]
    plain: Sequence[float | None]
    source: str
    limit: int | None = None
    about: Sequence[str] = ()

    @classmethod
    def of(cls, scorer: Scorer, sentences: Sentences) -> Check:
        """Let a scorer score the sentences; what is no probability is none."""
        scores = scorer.score([*sentences.rude, *sentences.plain])
        values = [None if score is None or not 0 <= score <= 1 else float(score) for score in scores]
        count = len(sentences.rude)
        return cls(values[:count], values[count:], sentences.source, scorer.limit, scorer.about())

    @property
    def auc(self) -> float:
        """The share of pairs in which the rude sentence is above the plain one; ties and missing ones are not."""
        return self._above(self.rude, self.plain)

    def _above(self, upper: Sequence[float | None], lower: Sequence[float | None]) -> float:
        pairs = list(product(upper, lower))
        return sum(a is not None and b is not None and a > b for a, b in pairs) / len(pairs)

    def note(self) -> str:
        """Return what a board says of it."""
        return "; ".join([*self.about, f"AUC {self.auc:.3f} on {self._sentences}"])

    @property
    def _sentences(self) -> str:
        return f"{len(self.rude)} rude and {len(self.plain)} plain sentences ({self.source})"

    def failure(self, threshold: float, tokens: int, reversed_labels: str) -> tuple[str, str] | None:
        """Return why the scorer must score nothing, and what to do; None where it may.

        Args:
            threshold: from which a text counts as toxic.
            tokens: of the longest text that it will be given, about.
            reversed_labels: what to do where its labels are reversed.
        """
        if unfit := self._unfit(tokens):
            return unfit
        if self._above(self.plain, self.rude) >= PASS:
            return f"ranks rude sentences below plain ones (AUC {self.auc:.3f} on {self._sentences})", reversed_labels
        if self.auc < PASS:
            return (
                f"does not tell rude sentences from plain ones (AUC {self.auc:.3f} on {self._sentences}, {PASS:g} is"
                " needed)",
                "its weights or tokenizer may be missing, or it may know another language: then put clear sentences of"
                f" that one into its folder, {' and '.join(FILES)}, at least {NEEDED} lines each",
            )
        return self._misplaced(threshold)

    def _unfit(self, tokens: int) -> tuple[str, str] | None:
        """Return a failure where not all of a text is read."""
        if self.limit is None or self.limit >= tokens:
            return None
        return (
            f"reads only the first {self.limit} tokens of a text, where up to {tokens} are generated",
            "raise model_max_length in its tokenizer_config.json to what the classifier takes",
        )

    def _misplaced(self, threshold: float) -> tuple[str, str] | None:
        """Return a failure where most rude sentences are below the threshold, or most plain ones above it."""
        rude, plain = ([value for value in values if value is not None] for values in (self.rude, self.plain))
        toxic, others = (sum(value >= threshold for value in values) for values in (rude, plain))
        if toxic >= len(self.rude) / 2 and others <= len(self.plain) / 2:
            return None
        return (
            f"calls {toxic} of {len(self.rude)} rude and {others} of {len(self.plain)} plain sentences ({self.source})"
            f" toxic at the threshold {threshold:g}",
            f"set one that parts them: --set scorer.threshold={(median(rude) + median(plain)) / 2:.2g}",
        )


class PairCheck(Check):
    """What a scorer of pairs made of plain sentences: those beside themselves (`rude`) and beside another (`plain`)."""

    _parted = "its pairs"

    @classmethod
    def of(cls, scorer: Scorer, sentences: Sentences) -> PairCheck:
        """Let a scorer of pairs score them; what is no probability is none."""
        first = sentences.plain
        pairs = [*zip(first, first, strict=True), *zip(first, [*first[1:], first[0]], strict=True)]
        values = [None if value is None or not 0 <= value <= 1 else float(value) for value in scorer.score(pairs)]
        return cls(values[: len(first)], values[len(first) :], sentences.source, scorer.limit, scorer.about())

    @property
    def _sentences(self) -> str:
        return f"{len(self.rude)} pairs of equal and {len(self.plain)} of different sentences ({self.source})"

    def failure(self, threshold: float, tokens: int, reversed_labels: str) -> tuple[str, str] | None:
        """Return why the scorer must score nothing, and what to do; None where it may."""
        if unfit := self._unfit(tokens):
            return unfit
        if self.auc >= PASS:
            return None
        return f"does not tell {self._parted} apart (AUC {self.auc:.3f} on {self._sentences}, {PASS:g} is needed)", (
            f"{reversed_labels}; its weights or tokenizer may be missing"
        )


class FluencyCheck(PairCheck):
    """What a scorer of fluency made of plain sentences (`rude`) and of gibberish made of them (`plain`).

    Gibberish are their words in alphabetical order, and in their order with the letters of each turned round. It may
    read no more than the beginning of a text.
    """

    _parted = "prose and gibberish"

    @classmethod
    def of(cls, scorer: Scorer, sentences: Sentences) -> FluencyCheck:
        """Let a scorer of fluency score them; what is no probability is none."""
        first = sentences.plain
        words = [text.split() for text in first]
        salad = [" ".join(sorted(own, key=str.lower)) for own in words]
        noise = [" ".join(word[::-1] for word in own) for own in words]
        values = [
            None if value is None or not 0 <= value <= 1 else float(value)
            for value in scorer.score([*first, *salad, *noise])
        ]
        return cls(values[: len(first)], values[len(first) :], sentences.source, None, scorer.about())

    @property
    def _sentences(self) -> str:
        return f"{len(self.rude)} sentences and {len(self.plain)} of gibberish ({self.source})"
