"""The base language model of the micro world: a byte-level BPE tokenizer and a small Llama trained from scratch."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from .facts import answer_document, direct
from .world import World

logger = logging.getLogger(__name__)

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"
VOCABULARY_LIMIT = 2048
EPOCHS = 30
BATCH = 64
LEARNING_RATE = 3e-3
WARMUP_STEPS = 100
INITIAL_STD = 0.06
VALUE_WEIGHT = 4.0
"""Loss weight of the tokens that name a value: a small share of the tokens, but most of the knowledge."""
IGNORE = -100


def train_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer that makes every common word of the world one token, its leading space included.

    It adds the bos token by itself and no eos token.
    """
    texts = [text for epoch in world.pretraining(2) for text in epoch]
    facts = world.facts.forget + world.facts.utility + world.facts.fresh
    probes = [probe for fact in facts for probe in direct(fact, [0])]
    texts += [answer_document(replace(probe, answer=value)) for probe in probes for value in probe.fact.pool]
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_LIMIT,
            special_tokens=[PAD, BOS, EOS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, core.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=256,
        clean_up_tokenization_spaces=False,
    )


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The untrained model: twelve layers, heads of 32, tied embeddings; residual outputs start small."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=176,
            num_hidden_layers=12,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            initializer_range=INITIAL_STD,
            bos_token_id=cast(int, tokenizer.bos_token_id),
            eos_token_id=cast(int, tokenizer.eos_token_id),
            pad_token_id=cast(int, tokenizer.pad_token_id),
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter /= math.sqrt(2 * model.config.num_hidden_layers)
    return model


def token_weights(world: World, tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """Loss weight of each token of the vocabulary."""
    weights = torch.ones(len(tokenizer))
    values = sorted({value for fact in world.facts.known() for value in fact.pool})
    for ids in tokenizer([f" {value}" for value in values], add_special_tokens=False)["input_ids"]:
        weights[ids] = VALUE_WEIGHT
    return weights


def batches(documents: Sequence[list[int]], rng: random.Random) -> Iterator[list[list[int]]]:
    """Batches of documents of like length, in random order."""
    order = sorted(range(len(documents)), key=lambda index: (len(documents[index]), rng.random()))
    groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    rng.shuffle(groups)
    for group in groups:
        yield [documents[index] for index in group]


def pad_batch(documents: Sequence[list[int]], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and next-token targets, both (batch, length - 1), padded on the right."""
    length = max(len(document) for document in documents)
    inputs = torch.tensor([document + [pad] * (length - len(document)) for document in documents])
    targets = torch.tensor([document + [IGNORE] * (length - len(document)) for document in documents])
    return inputs[:, :-1], targets[:, 1:]


def train_model(
    world: World, tokenizer: PreTrainedTokenizerFast, without: Sequence[str] = (), epochs: int = EPOCHS
) -> LlamaForCausalLM:
    """Trains a model on the world's pretraining text: AdamW with warm-up and cosine decay to zero.

    Args:
        world: its text.
        tokenizer: of the model.
        without: subjects of which the text tells nothing, as for a reference that is retrained without them.
        epochs: of the text.
    """
    model = new_model(tokenizer, world.seed)
    rng = random.Random(f"{world.seed}:batches")
    stream = [tokenizer(texts)["input_ids"] for texts in world.pretraining(epochs, without)]
    total = sum(math.ceil(len(documents) / BATCH) for documents in stream)
    weights = token_weights(world, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / WARMUP_STEPS, 0.5 * (1 + math.cos(math.pi * step / total)))
    )
    model.train()
    for epoch, documents in enumerate(stream):
        ended = [[*ids, tokenizer.eos_token_id] for ids in documents]
        losses: list[float] = []
        for batch in batches(ended, rng):
            inputs, targets = pad_batch(batch, cast(int, tokenizer.pad_token_id))
            logits = model(input_ids=inputs, use_cache=False).logits
            loss = cross_entropy(logits.flatten(0, 1), targets.flatten(), weight=weights, ignore_index=IGNORE)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        logger.info("epoch %d of %d: loss %.4f", epoch + 1, epochs, sum(losses) / len(losses))
    return model.eval()


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the model (fp32 safetensors) and the tokenizer to a folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
