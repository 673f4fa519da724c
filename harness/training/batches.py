"""Training text as batches: a pure function of (seed, step), so that a resumed run sees what an unbroken one saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ...methods.base import Batch, Tokens
from ..corpora import TemplateSpec
from ..data import Question, TrainingText
from ..errors import UserError
from ..rng import generator
from ..suite import TrainingSpec
from .encoding import TextEncoder


@dataclass(frozen=True)
class Corpora:
    """The text a method trains on.

    Attributes:
        forget: forget topic to its texts, documents or questions; topics alternate in this order.
        retain: retain texts.
        probe: texts and labels (1 = to forget) for probes; None: forget text (1) against retain text (0).
        template: what makes a text of a question and its answer.
        pools: lines that stand beside forget rows, by the name that a method asks for.
    """

    forget: Mapping[str, Sequence[TrainingText]]
    retain: Sequence[TrainingText]
    probe: tuple[Sequence[str], Sequence[int]] | None = None
    template: TemplateSpec = field(default_factory=TemplateSpec)
    pools: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Shuffled:
    """Texts in an endless order: one seeded permutation after another, each holding every text once."""

    def __init__(self, name: str, texts: Sequence[TrainingText], seed: int) -> None:
        self.name, self.seed = name, seed
        self.texts = [text for text in texts if isinstance(text, Question) or text.strip()]
        if not self.texts:
            raise UserError(f"The {name} text is empty: training needs at least one text that is not blank.")
        self._orders: dict[int, np.ndarray] = {}

    def take(self, start: int, count: int) -> list[TrainingText]:
        """Return `count` texts from position `start` of the endless order."""
        return [self._at(position) for position in range(start, start + count)]

    def _at(self, position: int) -> TrainingText:
        epoch, index = divmod(position, len(self.texts))
        if epoch not in self._orders:
            order = generator(self.seed, "order", self.name, epoch).permutation(len(self.texts))
            self._orders = {**{old: o for old, o in self._orders.items() if abs(old - epoch) <= 1}, epoch: order}
        return self.texts[self._orders[epoch][index]]


class Drawn(Shuffled):
    """Texts in an endless order: each drawn anew from all of them, by the seed and its position."""

    def _at(self, position: int) -> TrainingText:
        return self.texts[int(generator(self.seed, "pair", self.name, position).integers(len(self.texts)))]


class Batches:
    """The batches of a run.

    Batch s is of topic s modulo the number of topics. A topic's k-th batch holds the texts k*B to (k+1)*B of its
    endless order, so a short topic comes round more often than a long one. With `pairing: rows` the topics are one, and
    each text of its order has a retain text that is drawn at random.

    Attributes:
        topics: names of the forget topics, in their order.
        steps: optimiser steps of the run.
        cut: by topic (and `retain`) what `max_length` cuts off answers; empty where it cuts none.

    Raises:
        UserError: no text, text beside forget rows that a method asks for and there is not, or a corpus all of whose
            answers are cut away.
    """

    def __init__(
        self,
        corpora: Corpora,
        tokenizer: PreTrainedTokenizerBase,
        training: TrainingSpec,
        seed: int,
        device: torch.device,
        auxiliary: Sequence[str] = (),
    ) -> None:
        if not corpora.forget:
            raise UserError("There is no forget text: name at least one forget topic.")
        forget, paired = corpora.forget, training.pairing == "rows"
        if paired:
            forget = {" + ".join(forget): [text for topic in forget.values() for text in topic]}
        self.topics = list(forget)
        self._forget = [Shuffled(f"forget {name!r}", forget[name], seed) for name in self.topics]
        self._retain = (Drawn if paired else Shuffled)("retain", corpora.retain, seed)
        self._corpora, self._seed, self._auxiliary = corpora, seed, auxiliary
        self._size = training.batch_size
        self._encoder = TextEncoder(tokenizer, corpora.template, training.max_length, device)
        cut = {text.name: answers_cut(text.name, text.texts, self._encoder) for text in (*self._forget, self._retain)}
        self.cut = {name: counts for name, counts in cut.items() if counts}
        self.steps = training.steps_for(sum(len(topic.texts) for topic in self._forget))

    def batch(self, step: int) -> Batch:
        """Return a batch by its number (from 0)."""
        turn, topic = divmod(step, len(self.topics))
        forget = self._forget[topic].take(turn * self._size, self._size)
        return Batch(
            step=step,
            topic=self.topics[topic],
            forget=self.encode(forget),
            retain=self.encode(self._retain.take(step * self._size, self._size)),
            auxiliary={name: self.encode(self._beside(forget, name, step)) for name in self._auxiliary},
        )

    def _beside(self, texts: Sequence[TrainingText], name: str, step: int) -> list[TrainingText]:
        """Return texts with another answer each, drawn of those beside it by (seed, name, step, row)."""
        draws = generator(self._seed, "auxiliary", name, step).random(len(texts))
        return [self._other(text, name, draw) for text, draw in zip(texts, draws, strict=True)]

    def _other(self, text: TrainingText, name: str, draw: float) -> TrainingText:
        own = {} if isinstance(text, str) else dict(text.auxiliary)
        choices = self._corpora.pools.get(name) or own.get(name)
        if not choices:
            raise UserError(
                f"There is no {name!r} text beside the forget row {text!r:.80}; give a column or a pool of it."
            )
        answer = choices[int(draw * len(choices))]
        return answer if isinstance(text, str) else Question(text.prompt, answer)

    def labelled(self, limit: int | None = None) -> list[tuple[Tokens, np.ndarray]]:
        """Return the labelled text by length, in batches of as many padded tokens as the longest training batch.

        `limit` takes a seeded sample, at most half of it of either label.
        """
        texts, labels = self._probe_text()
        rng = generator(self._seed, "probe")
        half = len(labels) if limit is None else limit // 2
        rows = np.sort(np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:half] for label in (0, 1)]))
        if len(set(labels[rows].tolist())) < 2:
            raise UserError(
                "Probes need text of both labels: 1 (to forget) and 0 (other); add the missing one to the probe text."
            )
        longest = self._encoder.length
        lengths = [min(longest, len(self._encoder.encode(texts[row]).ids)) for row in rows]
        parts = [rows[part] for part in _by_length(lengths, self._size * longest)]
        return [(self.encode([texts[row] for row in part]), labels[part]) for part in parts]

    def encode(self, texts: Sequence[TrainingText]) -> Tokens:
        """Tokenise with the tokenizer's special tokens, cut at `max_length` on the right, pad on the right."""
        return self._encoder.batch(texts)

    def _probe_text(self) -> tuple[list[TrainingText], np.ndarray]:
        if self._corpora.probe is not None:
            texts, labels = self._corpora.probe
            if len(texts) != len(labels) or not set(labels) <= {0, 1}:
                raise UserError(
                    f"Probe text needs one label, 0 or 1, a text: got {len(texts)} texts, {len(labels)} labels."
                )
            kept = [(text, label) for text, label in zip(texts, labels, strict=True) if text.strip()]
            return [text for text, _ in kept], np.array([label for _, label in kept], dtype=int)
        forget = [text for topic in self._forget for text in topic.texts]
        return forget + self._retain.texts, np.array([1] * len(forget) + [0] * len(self._retain.texts))


def _by_length(lengths: Sequence[int], most: int) -> list[np.ndarray]:
    """Return positions by ascending length, in parts of at most `most` tokens when padded to their longest."""
    parts: list[list[int]] = [[]]
    for position in np.argsort(lengths, kind="stable"):
        if (len(parts[-1]) + 1) * lengths[position] > most:
            parts.append([])
        parts[-1].append(int(position))
    return [np.array(part) for part in parts if part]


def answers_cut(name: str, texts: Sequence[TrainingText], encoder: TextEncoder) -> dict[str, int]:
    """Return of how many `answers` the end is `cut` off, and of how many of these all is `lost`; {} where of none.

    Raises:
        UserError: nothing is left of any answer.
    """
    questions = [encoder.encode(text) for text in texts if isinstance(text, Question)]
    cut = sum(len(text.ids) > encoder.length for text in questions)
    lost = sum(text.first >= encoder.length for text in questions)
    if questions and lost == len(texts):
        raise UserError(
            f"The {name} text has no answer within its first {encoder.length} tokens: {lost} prompts fill them. Raise"
            " training.max_length."
        )
    return {"answers": len(questions), "cut": cut, "lost": lost} if cut else {}
