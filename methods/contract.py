"""The test kit of a method: `check_method(name)` runs a registered method, built-in or plugin, on a tiny random model.

Nothing here needs pytest: a broken promise raises an AssertionError that says which. `tiny_model`, `tiny_tokenizer` and
`tiny_corpora` serve tests of one's own.
"""

from __future__ import annotations

import io
import json
import pickle
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..harness.errors import UserError
from .base import Method, MethodSettings, methods

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..harness.training import Corpora, Trainer

STEPS = 4
WORDS = [f"{stem}{ending}" for stem in ("ba", "de", "ki", "lo", "mu", "ra", "so", "ti") for ending in "bdgklmnprst"]


def tiny_model(family: str = "llama", layers: int = 9, seed: int = 0) -> PreTrainedModel:
    """Return a random model of a family of transformers (`llama`, `qwen2`, `gemma`, …): width 16, float32.

    Weights come from numpy, so that they are the same everywhere.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(
        family,
        vocab_size=len(WORDS) + 3,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=0,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.2, tuple(parameter.shape))))
    return model


def tiny_tokenizer() -> PreTrainedTokenizerBase:
    """Return a word-level tokenizer of `WORDS` with a beginning and a padding token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[BOS]", "[UNK]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 1)])  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", bos_token="[BOS]", unk_token="[UNK]")


def tiny_corpora(seed: int = 0) -> Corpora:
    """Return two forget topics and retain text, sentences of 4 to 11 words; each topic favours its own words."""
    from ..harness.training import Corpora

    rng = np.random.default_rng([seed, 7])

    def texts(words: list[str], count: int) -> list[str]:
        return [" ".join(rng.choice(words, size=rng.integers(4, 12))) for _ in range(count)]

    return Corpora(forget={"bio": texts(WORDS[:30], 9), "cyber": texts(WORDS[30:60], 12)}, retain=texts(WORDS[50:], 15))


def tiny_trainer(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    family: str = "llama",
    seed: int = 0,
    model: PreTrainedModel | None = None,
    **training: Any,
) -> Trainer:
    """Return a trainer of the method on the tiny model (or yours), text and batches of three."""
    from ..harness.suite import TrainingSpec
    from ..harness.training import Trainer

    kind = methods.get(name)
    method = kind(kind.Settings.parse(settings or {}, name))
    spec = TrainingSpec(**{"batch_size": 3, "max_length": 16, "steps": STEPS, "learning_rate": 1e-3, **training})
    return Trainer(model or tiny_model(family), tiny_tokenizer(), method, tiny_corpora(), spec, seed)


def check_method(name: str, settings: Mapping[str, Any] | None = None, *, family: str = "llama") -> None:
    """Hold a registered method to its contract on a tiny random model of nine layers.

    Args:
        name: the registered name.
        settings: settings to use where the defaults do not fit a model of nine layers and width 16.
        family: model family of the tiny model.

    Raises:
        AssertionError: saying which promise is broken, and how.
    """
    check_declaration(methods.get(name))
    state, first = _train(name, settings, family)
    _check_result(name, first)
    delta = first.delta()
    first.restore()
    changed = _differing(first.context.model, tiny_model(family))
    _hold(not changed, f"{name}: {changed} differ from the base after restore(); change trained parameters only.")
    _, again = _train(name, settings, family, disturb=True)
    _hold(_equal(delta, again.delta()), f"{name}: two runs with one seed differ; draw from context.rng only.")
    _hold(first.log == again.log, f"{name}: two runs with one seed log different rows.")
    _, other = _train(name, settings, family, seed=1)
    _hold(not _equal(delta, other.delta()), f"{name}: another seed gives the same result.")
    resumed = tiny_trainer(name, settings, family=family)
    resumed.load_state_dict(state)
    resumed.run()
    same = _equal(delta, resumed.delta()) and first.log == resumed.log
    _hold(same, f"{name}: a resumed run differs from an unbroken one; what is missing in state_dict()?")


def check_declaration(kind: type[Method]) -> None:
    """Check class attributes and settings: typed, with defaults, unknown keys refused with the nearest known one."""
    name = kind.__name__
    _hold(issubclass(kind.Settings, MethodSettings), f"{name}: Settings must derive from MethodSettings.")
    _hold(type(kind.version) is int and kind.version >= 1, f"{name}: version must be an integer from 1.")
    _hold(kind.citation and kind.summary, f"{name}: citation and summary must say something.")
    fields = list(kind.Settings.model_fields)
    untyped = [field for field in fields if kind.Settings.kind_of(field) is None]
    _hold(not untyped, f"{name}: settings without a kind: {untyped}.")
    wrong = f"{fields[0] if fields else 'setting'}x"
    try:
        kind.Settings.parse({wrong: 1}, name)
    except UserError as error:
        message = str(error)
    else:
        raise AssertionError(f"{name}: the unknown setting {wrong!r} was accepted.")
    _hold(repr(wrong) in message, f"{name}: the error for an unknown setting does not name it: {message}")
    _hold(not fields or repr(fields[0]) in message, f"{name}: no suggestion for {wrong!r}: {message}")


def _hold(promise: object, words: str) -> None:
    if not promise:
        raise AssertionError(words)


def _train(
    name: str, settings: Mapping[str, Any] | None, family: str, seed: int = 0, disturb: bool = False
) -> tuple[dict[str, Any], Trainer]:
    """Train to the end; return the state half-way, through a file as the harness keeps it, and the trainer."""
    random.seed(disturb)
    np.random.seed(int(disturb))
    torch.manual_seed(int(disturb))
    trainer = tiny_trainer(name, settings, family=family, seed=seed)
    file = io.BytesIO()
    try:
        trainer.run(until=STEPS // 2)
        torch.save(trainer.state_dict(), file)
        trainer.run()
    except UserError as error:
        raise AssertionError(f"{name}: training a tiny model failed: {error}") from error
    file.seek(0)
    try:
        return torch.load(file, weights_only=True), trainer
    except pickle.UnpicklingError as error:
        raise AssertionError(f"{name}: state_dict() must hold tensors and plain types only: {error}") from error


def _check_result(name: str, trainer: Trainer) -> None:
    """Check that rows are finite plain values and that the delta has the tensors' shapes and dtypes."""
    try:
        json.dumps(trainer.log, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}: the log holds something that is not plain, finite JSON: {error}") from error
    _hold([row["step"] for row in trainer.log] == [-1, *range(STEPS)], f"{name}: the log misses a step.")
    parameters = dict(trainer.context.model.named_parameters())
    delta = trainer.delta()
    _hold(delta, f"{name}: returned the base unchanged.")
    for key, tensor in delta.items():
        _hold(torch.isfinite(tensor).all(), f"{name}: {key} holds values that are not finite.")
        _hold(tensor.shape == parameters[key].shape, f"{name}: {key} changed its shape.")


def _differing(model: PreTrainedModel, base: PreTrainedModel) -> list[str]:
    originals = dict(base.named_parameters())
    return [key for key, parameter in model.named_parameters() if not torch.equal(parameter, originals[key])]


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
