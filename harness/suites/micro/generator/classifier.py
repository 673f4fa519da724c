"""The toxicity classifier: a small BERT with a linear head on its CLS vector, laid out as the published TRuST one."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from .....tasks.scorers.trust import WEIGHTS
from .world import World

logger = logging.getLogger(__name__)

MAX_LENGTH = 64
EPOCHS = 5
BATCH = 64
LEARNING_RATE = 1e-3


class Classifier(nn.Module):
    """`embedder` is a BertModel, `dense` maps its CLS vector to the logits of (not toxic, toxic)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embedder = BertModel(config)
        self.dense = nn.Linear(config.hidden_size, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits, shape (batch, 2)."""
        hidden = self.embedder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return self.dense(hidden[:, 0])


def train_tokenizer(world: World) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer of the world's text; unknown words are split into letters."""
    texts = [text for epoch in world.pretraining(1) for text in epoch] + [text for text, _ in world.classifier_training]
    core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=True)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    core.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=1500, special_tokens=special, min_frequency=2, show_progress=False)
    )
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, core.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=MAX_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def train_classifier(world: World, tokenizer: PreTrainedTokenizerFast) -> Classifier:
    """Trains the classifier on the world's labelled text, classes weighted equally."""
    torch.manual_seed(world.seed)
    classifier = Classifier(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=192,
            max_position_embeddings=MAX_LENGTH,
            pad_token_id=cast(int, tokenizer.pad_token_id),
        )
    )
    pairs = list(world.classifier_training)
    weights = torch.tensor([1.0, sum(label == 0 for _, label in pairs) / sum(label == 1 for _, label in pairs)])
    rng = random.Random(f"{world.seed}:classifier:batches")
    total = EPOCHS * (len(pairs) // BATCH)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=total, pct_start=0.1)
    classifier.train()
    for epoch in range(EPOCHS):
        rng.shuffle(pairs)
        losses: list[float] = []
        for start in range(0, len(pairs) - BATCH + 1, BATCH):
            texts, labels = zip(*pairs[start : start + BATCH], strict=True)
            ids = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
            logits = classifier(ids["input_ids"], ids["attention_mask"])
            loss = cross_entropy(logits, torch.tensor(labels), weight=weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        logger.info("classifier epoch %d of %d: loss %.4f", epoch + 1, EPOCHS, sum(losses) / len(losses))
    return classifier.eval()


def save(classifier: Classifier, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Writes the raw state dict, the BERT configuration and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(classifier.state_dict(), folder / WEIGHTS)
    config = json.dumps(classifier.embedder.config.to_diff_dict(), indent=2, sort_keys=True)
    (folder / "config.json").write_text(config + "\n", encoding="utf-8")
    tokenizer.save_pretrained(folder)
