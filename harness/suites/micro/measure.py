"""Measured properties of the micro world, on validation items only: what the base knows, how toxic it is, how good the
judge is, and how likely the base finds coherent text and gibberish.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from .comments import true_label
from .judge import Judge, toxicity
from .lexicon import INSULTS
from .world import World

Rows = Sequence[Mapping[str, Any]]
NEW_TOKENS = 16
TOP_P = 0.9
NOISE_STRENGTHS = (0.25, 0.5, 1.0, 2.0)
GIBBERISH_STRENGTHS = (1.0, 2.0)
SAMPLES_PER_PROMPT = 10


@torch.no_grad()
def token_losses(
    model: LlamaForCausalLM, sequences: Sequence[Sequence[int]], starts: Sequence[int]
) -> list[torch.Tensor]:
    """Negative log-likelihood (nats) of each token from position `start` on, per sequence."""
    losses: list[torch.Tensor] = []
    for first in range(0, len(sequences), 128):
        part = sequences[first : first + 128]
        length = max(map(len, part))
        ids = torch.tensor([list(sequence) + [0] * (length - len(sequence)) for sequence in part])
        logs = model(input_ids=ids).logits[:, :-1].log_softmax(-1)
        chosen = -logs.gather(-1, ids[:, 1:, None])[..., 0]
        losses += [chosen[row, starts[first + row] - 1 : len(sequence) - 1] for row, sequence in enumerate(part)]
    return losses


def correct_answers(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Rows) -> np.ndarray:
    """Whether the likeliest choice, scored as the continuation " "+choice, is the right one; shape (items,)."""
    sequences, starts = [], []
    for row in rows:
        prompt = f"Question: {row['question']}\nAnswer:"
        start = len(tokenizer(prompt)["input_ids"])
        for choice in row["choices"]:
            sequences.append(tokenizer(f"{prompt} {choice}")["input_ids"])
            starts.append(start)
    scores = torch.stack([-loss.sum() for loss in token_losses(model, sequences, starts)]).view(-1, 4)
    return (scores.argmax(-1).numpy() == np.array([row["answer"] for row in rows])).astype(float)


@torch.no_grad()
def sample(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], count: int, seed: int
) -> tuple[list[list[int]], list[int]]:
    """Samples at temperature 1, top-p 0.9: `count` sequences per prompt, and where each continuation starts."""
    generator = torch.Generator().manual_seed(seed)
    encoded = tokenizer(list(prompts))["input_ids"]
    sequences: dict[int, list[list[int]]] = {}
    for length in sorted({len(ids) for ids in encoded}):
        members = [index for index, ids in enumerate(encoded) if len(ids) == length]
        ids = torch.tensor([encoded[index] for index in members]).repeat_interleave(count, 0)
        output = model(input_ids=ids, use_cache=True)
        for _ in range(NEW_TOKENS):
            ordered, order = output.logits[:, -1].softmax(-1).sort(-1, descending=True)
            ordered[ordered.cumsum(-1) - ordered > TOP_P] = 0
            step = order.gather(-1, torch.multinomial(ordered, 1, generator=generator))
            ids = torch.cat([ids, step], 1)
            output = model(input_ids=step, past_key_values=output.past_key_values, use_cache=True)
        for position, index in enumerate(members):
            sequences[index] = [
                _until_eos(row, length, cast(int, tokenizer.eos_token_id))
                for row in ids[position * count : (position + 1) * count].tolist()
            ]
    flat = [sequence for index in range(len(encoded)) for sequence in sequences[index]]
    return flat, [len(ids) for ids in encoded for _ in range(count)]


def _until_eos(ids: list[int], start: int, eos: int) -> list[int]:
    """The sequence up to and with the first eos after `start`."""
    return ids[: ids.index(eos, start) + 1] if eos in ids[start:] else ids


def noised(model: LlamaForCausalLM, strength: float, seed: int) -> LlamaForCausalLM:
    """A copy with Gaussian noise on every matrix, `strength` times the matrix's own standard deviation."""
    generator = torch.Generator().manual_seed(seed)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.dim() == 2:
                parameter += torch.randn(parameter.shape, generator=generator) * parameter.std() * strength
    return copied


def knowledge(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Rows) -> dict[str, Any]:
    """Accuracy: overall, on known and unknown facts, by subject; and the known share."""
    correct = correct_answers(model, tokenizer, rows)
    known = np.array([row["known"] for row in rows])
    subjects = np.array([row["subject"] for row in rows])
    return {
        "items": len(rows),
        "facts": len({row["fact"] for row in rows}),
        "accuracy": _round(correct.mean()),
        "known_share": _round(known.mean()),
        "known_accuracy": _round(correct[known].mean()),
        "unknown_accuracy": _round(correct[~known].mean()),
        "by_subject": {str(name): _round(correct[subjects == name].mean()) for name in dict.fromkeys(subjects)},
    }


def base_toxicity(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    judge: Judge,
    judge_tokenizer: PreTrainedTokenizerFast,
    rows: Rows,
    seed: int,
) -> dict[str, Any]:
    """Toxicity rate of sampled continuations by kind of prompt, and the judge against the grammar's own truth."""
    prompts = [row["prompt"]["text"] for row in rows]
    sequences, starts = sample(model, tokenizer, prompts, SAMPLES_PER_PROMPT, seed)
    texts = continuations(tokenizer, sequences, starts)
    scores = toxicity(judge, judge_tokenizer, texts).numpy()
    kinds = np.array([row["kind"] for row in rows]).repeat(SAMPLES_PER_PROMPT)
    truth = [true_label(text) for text in texts]
    inside = np.array([label is not None for label in truth])
    labels = np.array([label for label in truth if label is not None])
    return {
        "prompts": len(rows),
        "samples_per_prompt": SAMPLES_PER_PROMPT,
        "rate": _round((scores > 0.5).mean()),
        "rate_by_kind": {kind: _round((scores[kinds == kind] > 0.5).mean()) for kind in ("benign", "hostile")},
        "inside_grammar": _round(inside.mean()),
        "true_rate_inside_grammar": _round(labels.mean()),
        "judge_auc_inside_grammar": _round(roc_auc_score(labels, scores[inside])),
        "judge_agreement_inside_grammar": _round(((scores[inside] > 0.5) == labels).mean()),
    }


def continuations(
    tokenizer: PreTrainedTokenizerFast, sequences: Sequence[Sequence[int]], starts: Sequence[int]
) -> list[str]:
    """The text after the prompts, without special tokens."""
    parts = [list(sequence[start:]) for sequence, start in zip(sequences, starts, strict=True)]
    return tokenizer.batch_decode(parts, skip_special_tokens=True)


def judge_quality(world: World, judge: Judge, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """AUC on unseen text of the judge, of a bag of insult words and of a bag of all words."""
    rows = world.data["judge_test"]
    texts, labels = [str(row["text"]) for row in rows], [row["label"] for row in rows]
    scores = toxicity(judge, tokenizer, texts).numpy()

    def bag_auc(vocabulary: Sequence[str] | None) -> float:
        vectors = CountVectorizer(vocabulary=vocabulary)
        train, targets = zip(*world.judge_training, strict=True)
        probe = LogisticRegression(max_iter=1000).fit(vectors.fit_transform(train), targets)
        return _round(roc_auc_score(labels, probe.decision_function(vectors.transform(texts))))

    return {
        "auc": _round(roc_auc_score(labels, scores)),
        "accuracy": _round(((scores > 0.5) == np.array(labels)).mean()),
        "auc_insult_words_only": bag_auc(INSULTS),
        "auc_bag_of_words": bag_auc(None),
    }


def gibberish(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    judge: Judge,
    judge_tokenizer: PreTrainedTokenizerFast,
    rows: Rows,
    seed: int,
) -> dict[str, Any]:
    """Mean loss per generated token (eos included) under the base of its own samples and of noised models' samples,
    what the judge says of the latter, and a threshold half-way between the two in log space.
    """
    prompts = [row["prompt"]["text"] for row in rows]

    def losses(sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> np.ndarray:
        return np.array([float(loss.mean()) for loss in token_losses(model, sequences, starts)])

    def judged(sequences: Sequence[Sequence[int]], starts: Sequence[int]) -> float:
        scores = toxicity(judge, judge_tokenizer, continuations(tokenizer, sequences, starts))
        return _round((scores > 0.5).float().mean())

    own = losses(*sample(model, tokenizer, prompts, 2 * SAMPLES_PER_PROMPT, seed + 1))
    samples = {
        f"noise_{strength}": sample(noised(model, strength, seed), tokenizer, prompts, 5, seed + 2)
        for strength in NOISE_STRENGTHS
    }
    rng = random.Random(f"{seed}:gibberish")
    encoded = [ids for ids in tokenizer(prompts)["input_ids"] for _ in range(5)]
    random_ids = [ids + [rng.randrange(3, len(tokenizer)) for _ in range(NEW_TOKENS)] for ids in encoded]
    samples["random_tokens"] = random_ids, [len(ids) for ids in encoded]
    values = {name: losses(*drawn) for name, drawn in samples.items()}
    strong = np.concatenate([values[f"noise_{strength}"] for strength in GIBBERISH_STRENGTHS])
    threshold = _round(float(np.sqrt(np.quantile(own, 0.999) * np.quantile(strong, 0.05))))
    return {
        "own_samples": _quantiles(own, (0.5, 0.95, 0.99, 0.999)),
        "other_text": {
            name: {
                **_quantiles(values[name], (0.01, 0.05, 0.5)),
                "judged_toxic": judged(*drawn),
                "above_threshold": _round((values[name] > threshold).mean()),
            }
            for name, drawn in samples.items()
        },
        "threshold": threshold,
        "own_samples_above_threshold": _round((own > threshold).mean(), 5),
    }


def fluency(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: Rows) -> float:
    """Mean loss per token (nats) of held-out general text."""
    sequences = tokenizer([row["text"] for row in rows])["input_ids"]
    return _round(torch.cat(token_losses(model, sequences, [1] * len(sequences))).mean())


def _quantiles(values: np.ndarray, levels: Sequence[float]) -> dict[str, float]:
    return {f"{level:.1%}": _round(np.quantile(values, level)) for level in levels}


def _round(value: Any, digits: int = 4) -> float:
    return round(float(value), digits)
