"""Training text as batches: a pure function of (seed, step), so that a resumed run sees what an unbroken one saw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from ...methods.base import Batch, Tokens
from ..errors import UserError
from ..rng import generator
from ..suite import TrainingSpec


@dataclass(frozen=True)
class Corpora:
    """The text a method trains on.

    Attributes:
        forget: forget topic to its texts; topics alternate in this order.
        retain: retain texts.
        probe: texts and labels (1 = to forget) for probes; None: forget text (1) against retain text (0).
    """

    forget: Mapping[str, Sequence[str]]
    retain: Sequence[str]
    probe: tuple[Sequence[str], Sequence[int]] | None = None


class Shuffled:
    """Texts in an endless order: one seeded permutation after another, each holding every text once."""

    def __init__(self, name: str, texts: Sequence[str], seed: int) -> None:
        self.name, self.seed = name, seed
        self.texts = [text for text in texts if text.strip()]
        if not self.texts:
            raise UserError(f"The {name} text is empty: training needs at least one text that is not blank.")
        self._orders: dict[int, np.ndarray] = {}

    def take(self, start: int, count: int) -> list[str]:
        """Return `count` texts from position `start` of the endless order."""
        return [self._at(position) for position in range(start, start + count)]

    def _at(self, position: int) -> str:
        epoch, index = divmod(position, len(self.texts))
        if epoch not in self._orders:
            order = generator(self.seed, "order", self.name, epoch).permutation(len(self.texts))
            self._orders = {**{old: o for old, o in self._orders.items() if abs(old - epoch) <= 1}, epoch: order}
        return self.texts[self._orders[epoch][index]]


class Drawn(Shuffled):
    """Texts in an endless order: each drawn anew from all of them, by the seed and its position."""

    def _at(self, position: int) -> str:
        return self.texts[int(generator(self.seed, "pair", self.name, position).integers(len(self.texts)))]


class Batches:
    """The batches of a run.

    Batch s is of topic s modulo the number of topics. A topic's k-th batch holds the texts k*B to (k+1)*B of its
    endless order, so a short topic comes round more often than a long one. With `pairing: rows` the topics are one, and
    each text of its order has a retain text that is drawn at random.
    """

    def __init__(
        self,
        corpora: Corpora,
        tokenizer: PreTrainedTokenizerBase,
        training: TrainingSpec,
        seed: int,
        device: torch.device,
    ) -> None:
        if not corpora.forget:
            raise UserError("There is no forget text: name at least one forget topic.")
        forget, paired = corpora.forget, training.pairing == "rows"
        if paired:
            forget = {" + ".join(forget): [text for topic in forget.values() for text in topic]}
        self.topics = list(forget)
        self._forget = [Shuffled(f"forget {name!r}", forget[name], seed) for name in self.topics]
        self._retain = (Drawn if paired else Shuffled)("retain", corpora.retain, seed)
        self._corpora, self._tokenizer, self._seed, self._device = corpora, tokenizer, seed, device
        self._size, self._length = training.batch_size, training.max_length
        self.steps = training.steps_for(sum(len(topic.texts) for topic in self._forget))

    def batch(self, step: int) -> Batch:
        """Return a batch by its number (from 0)."""
        turn, topic = divmod(step, len(self.topics))
        return Batch(
            step=step,
            topic=self.topics[topic],
            forget=self.encode(self._forget[topic].take(turn * self._size, self._size)),
            retain=self.encode(self._retain.take(step * self._size, self._size)),
        )

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
        lengths = [len(self._tokens(texts[row])) for row in rows]
        parts = [rows[part] for part in _by_length(lengths, self._size * self._length)]
        return [(self.encode([texts[row] for row in part]), labels[part]) for part in parts]

    def encode(self, texts: Sequence[str]) -> Tokens:
        """Tokenise with the tokenizer's special tokens, cut at `max_length` on the right, pad on the right."""
        rows = [self._tokens(text) for text in texts]
        pad = self._tokenizer.pad_token_id or 0
        ids = torch.full((len(rows), max(map(len, rows))), int(pad))  # pyright: ignore[reportArgumentType]
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.from_numpy(row)
            mask[index, : len(row)] = 1
        return Tokens(ids.to(self._device), mask.to(self._device))

    def _tokens(self, text: str) -> np.ndarray:
        return _tokenised(self._tokenizer, text, self._length)

    def _probe_text(self) -> tuple[list[str], np.ndarray]:
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


@lru_cache(maxsize=1 << 14)
def _tokenised(tokenizer: PreTrainedTokenizerBase, text: str, length: int) -> np.ndarray:
    """Return a text's tokens; they are kept for the next epoch, and for the next method on the same text."""
    row = np.array(tokenizer(text, verbose=False)["input_ids"], dtype=np.int32)[:length]
    if not len(row):
        raise UserError(f"The tokenizer gives no token for the training text {text!r:.80}; remove that text.")
    return row
