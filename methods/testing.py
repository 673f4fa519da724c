"""The test kit of a method: `check_method(name)` runs a registered method, built-in or plugin, on a tiny random model.

`unlearn-bench check NAME` tells every rule and whether it is kept (`examine_method`). Nothing here needs pytest: a
broken promise raises an AssertionError that says which. `tiny_model`, `tiny_tokenizer` and `tiny_corpora` serve tests
of one's own.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import pickle
import random
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch
from torch import Tensor

from ..harness.authoring.rules import Finding, examine, hold, insist, validates
from ..harness.errors import UserError
from .base import Method, MethodSettings, Status, build_method, methods

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ..harness.training.batches import Corpora
    from ..harness.training.trainer import Trainer


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
    from ..harness.training.batches import Corpora

    rng = np.random.default_rng([seed, 7])

    def texts(words: list[str], count: int) -> list[str]:
        return [" ".join(rng.choice(words, size=rng.integers(4, 12))) for _ in range(count)]

    return Corpora(forget={"bio": texts(WORDS[:30], 9), "cyber": texts(WORDS[30:60], 12)}, retain=texts(WORDS[50:], 15))


def tiny_questions(seed: int = 0) -> Corpora:
    """Return the like as questions, answers of 1 to 5 words; the pad token ends them, the cut takes one away whole."""
    from ..harness.corpora import TemplateSpec
    from ..harness.data import Question
    from ..harness.training.batches import Corpora

    rng = np.random.default_rng([seed, 8])

    def words_of(words: list[str], size: int) -> str:
        return " ".join(rng.choice(words, size=size))

    def questions(words: list[str], count: int) -> list[Question]:
        sizes = zip(rng.integers(2, 7, count), rng.integers(1, 6, count), strict=True)
        return [Question(words_of(words, prompt), words_of(words, answer)) for prompt, answer in sizes]

    forget = {"bio": questions(WORDS[:30], 9), "cyber": questions(WORDS[30:60], 12)}
    forget["bio"][0] = Question(" ".join(WORDS[:20]), WORDS[20])
    template = TemplateSpec(prompt="{prompt}", end_token="[PAD]")
    return Corpora(forget, questions(WORDS[50:], 15), template=template)


def tiny_trainer(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    family: str = "llama",
    seed: int = 0,
    model: PreTrainedModel | None = None,
    replica: bool = False,
    corpora: Corpora | None = None,
    **training: Any,
) -> Trainer:
    """Return a trainer of the method, or of its replica, on the tiny model (or yours), text and batches of three.

    What the method asks for beside forget rows is drawn from a pool of lines.
    """
    from ..harness.suite import TrainingSpec
    from ..harness.training.stages import make_trainer

    method = build_method(name, settings or {})
    spec = TrainingSpec(**{"batch_size": 3, "max_length": 16, "steps": STEPS, "learning_rate": 1e-3, **training})
    model, corpora = model or tiny_model(family), corpora or tiny_corpora()
    corpora = replace(corpora, pools=dict.fromkeys(method.auxiliary, WORDS[:3]) | dict(corpora.pools))
    made = make_trainer(model, tiny_tokenizer(), method, corpora, spec, seed, replica=replica)
    return cast("Trainer", made)


def check_method(name: str, settings: Mapping[str, Any] | None = None, *, family: str = "llama") -> None:
    """Hold a registered method to its contract on a tiny random model of nine layers.

    Args:
        name: the registered name.
        settings: settings to use where the defaults do not fit a model of nine layers and width 16.
        family: model family of the tiny model.

    Raises:
        AssertionError: saying which promise is broken, and how.
    """
    insist(examine_method(name, settings, family=family))


def check_declaration(kind: type[Method]) -> None:
    """Check class attributes and settings: typed, with defaults, unknown keys refused with the nearest known one."""
    trial = MethodTrial(kind.__name__, kind)
    _declares(trial)
    _validates(trial)


def examine_method(name: str, settings: Mapping[str, Any] | None = None, *, family: str = "llama") -> Iterator[Finding]:
    """Give a finding for each rule of the contract; arguments as in `check_method`."""
    return examine(MethodTrial(name, methods.get(name), settings, family), RULES, gates=(_trains,))


class MethodTrial:
    """A method on trial: how it is trained here, and what its first run left for the rules to look at.

    Attributes:
        state: state of the run half-way, through a file as the harness keeps it.
        halfway: the method's own attributes at that time.
        delta, log, shapes: what it changed, the rows it logged, the shapes of the model's parameters.
        left: parameters that differ from the base after `restore()`.
    """

    state: dict[str, Any]
    halfway: dict[str, Any]
    delta: dict[str, Tensor]
    log: list[dict[str, Any]]
    shapes: dict[str, torch.Size]
    left: list[str]

    def __init__(
        self, name: str, kind: type[Method], settings: Mapping[str, Any] | None = None, family: str = "llama"
    ) -> None:
        self.name, self.kind, self.settings, self.family = name, kind, settings, family
        self.file = inspect.getfile(kind)

    def trainer(self, seed: int = 0, disturb: Collection[str] = (), corpora: Corpora | None = None) -> Trainer:
        """Return a trainer, global random states (`random`, `numpy.random`, `torch`) other than usual where asked."""
        for source, reseed in SOURCES.items():
            reseed(int(source in disturb))
        return tiny_trainer(self.name, self.settings, family=self.family, seed=seed, corpora=corpora)

    def repeats(self, trainer: Trainer) -> bool:
        """Train to the end and say whether the first run's result came out, bit for bit."""
        trainer.run()
        return _equal(self.delta, trainer.delta()) and self.log == trainer.log


SOURCES: dict[str, Callable[[int], object]] = {
    "random": random.seed,
    "numpy.random": np.random.seed,
    "torch": torch.manual_seed,
}


def _declares(trial: MethodTrial) -> None:
    """It says what it is: a version, a citation, a summary."""
    name, kind = trial.name, trial.kind
    for attribute in ("Settings", "version", "citation", "summary"):
        hold(hasattr(kind, attribute), f"{name}: the class attribute {attribute!r} is missing.")
    hold(type(kind.version) is int and kind.version >= 1, f"{name}: version must be an integer from 1.")
    hold(kind.citation and kind.summary, f"{name}: citation and summary must say something.")
    hold(re.fullmatch(r"\w+", kind.family), f"{name}: family must be one word, as 'preference', not {kind.family!r}.")
    hold(kind.status in get_args(Status), f"{name}: status must be one of {', '.join(get_args(Status))}.")
    hold(isinstance(kind.auxiliary, tuple), f"{name}: auxiliary must be a tuple of names, as ('refusal',).")


def _validates(trial: MethodTrial) -> None:
    """Settings are typed, with defaults that fit; a wrong value or an unknown name is refused."""
    hold(issubclass(trial.kind.Settings, MethodSettings), f"{trial.name}: Settings must derive from MethodSettings.")
    validates(trial.kind.Settings, trial.name)


def _trains(trial: MethodTrial) -> None:
    """It trains a tiny model: every loss finite, every step of use, the state plain enough to be kept."""
    trainer, file = trial.trainer(), io.BytesIO()
    try:
        trainer.run(until=STEPS // 2)
        trial.halfway = _attributes(trainer.method)
        torch.save(trainer.state_dict(), file)
        trainer.run()
    except UserError as error:
        raise AssertionError(f"{trial.name}: training a tiny model failed: {error}") from error
    file.seek(0)
    try:
        trial.state = torch.load(file, weights_only=True)
    except pickle.UnpicklingError as error:
        raise AssertionError(f"{trial.name}: state_dict() must hold tensors and plain types only: {error}") from error
    model = trainer.context.model
    trial.delta, trial.log = trainer.delta(), trainer.log
    trainer.restore()
    trial.shapes = {key: parameter.shape for key, parameter in model.named_parameters()}
    trial.left = _differing(model, tiny_model(trial.family))


def _logs(trial: MethodTrial) -> None:
    """It logs a row a step, of finite plain values."""
    try:
        json.dumps(trial.log, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(
            f"{trial.name}: the log holds something that is not plain, finite JSON: {error}; give floats."
        ) from error
    steps = len(trial.log) - 1 if "stopped" in trial.log[-1] else STEPS
    hold([row["step"] for row in trial.log] == [-1, *range(steps)], f"{trial.name}: the log misses a step.")


def _changes(trial: MethodTrial) -> None:
    """It changes the base, to finite values of the same shapes."""
    hold(trial.delta, f"{trial.name}: returned the base unchanged.")
    for key, tensor in trial.delta.items():
        hold(torch.isfinite(tensor).all(), f"{trial.name}: {key} holds values that are not finite.")
        hold(tensor.shape == trial.shapes[key], f"{trial.name}: {key} changed its shape.")


def _restores(trial: MethodTrial) -> None:
    """It changes nothing but the parameters that it says it trains."""
    hold(
        not trial.left,
        f"{trial.name}: {trial.left} differ from the base after restore(); change trained parameters only.",
    )


def _is_seeded(trial: MethodTrial) -> None:
    """One seed gives one result, whatever ran before."""
    if trial.repeats(trial.trainer(disturb=SOURCES)):
        return
    seedable = trial.repeats(trial.trainer())
    drawn = [source for source in SOURCES if seedable and not trial.repeats(trial.trainer(disturb=[source]))]
    raise AssertionError(
        f"{trial.name}: two runs with one seed differ; it draws from"
        f" {' and '.join(drawn) or 'something that no seed reaches'}: draw from context.rng only."
    )


def _heeds_the_seed(trial: MethodTrial) -> None:
    """Another seed gives another result."""
    other = trial.trainer(seed=1)
    other.run()
    hold(not _equal(trial.delta, other.delta()), f"{trial.name}: another seed gives the same result.")


def _resumes(trial: MethodTrial) -> None:
    """A run that was interrupted and resumed gives what an unbroken one gives."""
    resumed = trial.trainer()
    resumed.load_state_dict(trial.state)
    now = _attributes(resumed.method)
    lost = [key for key, value in trial.halfway.items() if key not in now or not _alike(value, now[key])]
    hold(
        trial.repeats(resumed),
        f"{trial.name}: a resumed run differs from an unbroken one:"
        f" {'what is' if not lost else ', '.join(f'self.{key}' for key in lost)} missing in state_dict() or"
        " load_state_dict().",
    )


def _takes_questions(trial: MethodTrial) -> None:
    """It trains on questions too, of which only answers count, and one is cut away."""
    trainer = trial.trainer(corpora=tiny_questions())
    try:
        trainer.run()
    except UserError as error:
        raise AssertionError(
            f"{trial.name}: training on questions and answers failed: {error} Count by `tokens.counted`, and expect a"
            " text without a token that counts."
        ) from error


RULES = (
    _declares,
    _validates,
    _trains,
    _logs,
    _changes,
    _restores,
    _is_seeded,
    _heeds_the_seed,
    _resumes,
    _takes_questions,
)


def _attributes(method: Method) -> dict[str, Any]:
    """Return copies of what a method keeps on itself, where it can be copied."""
    attributes = {}
    for key, value in vars(method).items():
        if key not in ("context", "settings"):
            with suppress(Exception):
                attributes[key] = copy.deepcopy(value)
    return attributes


def _alike(one: Any, other: Any) -> bool:
    """Say whether two attributes are equal; what cannot be compared counts as equal."""
    try:
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    except AssertionError:
        return False
    except Exception:
        return True
    return True


def _differing(model: PreTrainedModel, base: PreTrainedModel) -> list[str]:
    originals = dict(base.named_parameters())
    return [key for key, parameter in model.named_parameters() if not torch.equal(parameter, originals[key])]


def _equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[key]) for key, tensor in one.items())
