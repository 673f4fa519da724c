"""Every family of models: the engine, the hidden states and all methods, on tiny random ones of real architectures."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.layers import decoder_layers
from unlearn_bench.harness.models.load import CUT, ModelSpec, load_model, load_tokenizer
from unlearn_bench.harness.models.meta import meta_model
from unlearn_bench.harness.suite import TrainingSpec
from unlearn_bench.harness.training.batches import Batches
from unlearn_bench.harness.training.context import ModelContext
from unlearn_bench.harness.training.trace import trace_method
from unlearn_bench.harness.training.trainer import Trainer
from unlearn_bench.methods.base import methods
from unlearn_bench.methods.testing import WORDS, tiny_corpora
from unlearn_bench.tasks.base import ChoiceRequest, Decoding, GenerationRequest

LAYERS = 4
WINDOW = 5
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
HYBRID = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
GEMMA = {"sliding_window": WINDOW, "query_pre_attn_scalar": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW, "layer_types": HYBRID},
    "gemma2": {**GEMMA, "attn_logit_softcapping": 0.5},
    "gemma3_text": {**GEMMA, "layer_types": HYBRID},
    "gemma3": {},
    "phi3": {"pad_token_id": 0},
}
SLIDING = {"mistral", "olmo3", "gemma2", "gemma3_text", "gemma3"}
METHODS = {
    "rmu": {"layer": 2},
    "adap_rmu": {"layer": 2},
    "cosine_meta_rmu": {"layer": 2},
    "multi_layer_probe": {"layers": [0, 3]},
}
TRAINED = {"multi_layer_probe": (0, 3)}
ATOL = 2e-5


def config_of(family: str, **changes: Any) -> Any:
    from transformers import AutoConfig

    if family == "gemma3":
        vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
        text = {**SHAPE, **GEMMA, "layer_types": HYBRID}
        return AutoConfig.for_model(family, text_config=text, vision_config={**vision, "image_size": 14})
    return AutoConfig.for_model(family, **{**SHAPE, **FAMILIES.get(family, {}), **changes})


def tokenizer() -> Any:
    """Return a byte-level BPE, as these families have one, of the words of the tiny corpora."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe: Any = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = {"eos_token": "<end>", "bos_token": "<begin>"}
    bpe.train_from_iterator(
        [" " + word for word in WORDS],
        trainer(vocab_size=390, special_tokens=list(special.values()), initial_alphabet=alphabet, show_progress=False),
    )
    bpe.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **special)


def save(folder: Path, config: Any) -> ModelSpec:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.from_numpy(rng.normal(0, 0.4, tuple(parameter.shape))))
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return ModelSpec(name=folder.name, path=str(folder))


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")

    @cache
    def spec(family: str) -> ModelSpec:
        return save(root / family, config_of(family))

    return spec


@pytest.fixture(scope="module")
def engines(specs):
    return cache(lambda family: TransformersEngine(specs(family), batch_size=16))


@pytest.fixture(scope="module")
def references(specs):
    """The model as transformers loads it by itself, with the attention of its own equations."""
    from transformers import AutoModelForCausalLM

    @cache
    def reference(family: str):
        return AutoModelForCausalLM.from_pretrained(specs(family).path, attn_implementation="eager").eval()

    return reference


def texts(count: int) -> list[str]:
    rng = np.random.default_rng(5)
    return [" ".join(rng.choice(WORDS, size=1 + 3 * number)) for number in range(count)]


@torch.no_grad()
def logprobs(model, tokens: list[int]) -> torch.Tensor:
    return model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)


families = pytest.mark.parametrize("family", FAMILIES)


@families
def test_choices_score_as_an_unpadded_forward_of_each_alone(family, engines, references) -> None:
    engine, model = engines(family), references(family)
    requests = [
        ChoiceRequest(str(n), text, (f" {WORDS[n]}", f" {WORDS[n + 9]} {WORDS[n + 5]}"))
        for n, text in enumerate(texts(7))
    ]
    found = [value for outcome in engine.score_choices(requests) for value in outcome.logprobs]
    expected = []
    for request in requests:
        for head, tail in engine.tokens.pairs(request.context, request.choices):
            assert head
            assert tail
            rows = logprobs(model, head + tail)[len(head) - 1 : -1]
            expected.append(sum(rows[place, token].item() for place, token in enumerate(tail)))
    assert found == pytest.approx(expected, abs=ATOL)
    alone = [value for request in requests for value in engine.score_choices([request])[0].logprobs]
    assert found == pytest.approx(alone, abs=ATOL)


@families
def test_continuations_are_those_of_each_prompt_alone(family, engines, references) -> None:
    engine, model = engines(family), references(family)
    length = 2 * WINDOW
    requests = [GenerationRequest(str(n), text) for n, text in enumerate(texts(6))]
    greedy = engine.generate(requests, Decoding(samples=1, max_new_tokens=length, temperature=0))
    for request, answer in zip(requests, greedy, strict=True):
        prompt, said = engine.tokens.encode(request.prompt), []
        while len(said) < length:
            token = int(logprobs(model, prompt + said)[-1].argmax())
            if token == SHAPE["eos_token_id"]:
                break
            said.append(token)
        assert answer.tokens == [len(said)]
        assert answer.texts == [engine.tokens.continuation(prompt, said)]
    decoding = Decoding(samples=3, max_new_tokens=length, seed=0)  # no draw lies within 3e-5 nats of an edge
    assert engine.generate(requests, decoding) == [engine.generate([request], decoding)[0] for request in requests]


@pytest.mark.parametrize("family", sorted(SLIDING))
def test_the_window_is_narrower_than_the_texts(family, specs, references) -> None:
    """So that the tests above see the window: the model without one answers otherwise."""
    from transformers import AutoModelForCausalLM

    config = config_of(family)
    part = config.get_text_config()
    part.layer_types = ["full_attention"] * LAYERS if getattr(part, "layer_types", None) else None
    part.sliding_window = None if family == "mistral" else part.sliding_window
    wide = AutoModelForCausalLM.from_pretrained(specs(family).path, config=config, attn_implementation="eager").eval()
    tokens = tokenizer().encode(texts(7)[-1])
    assert (logprobs(wide, tokens) - logprobs(references(family), tokens)).abs().max() > 1e-3


@families
def test_hidden_states_are_those_of_the_model(family, specs, references) -> None:
    model = load_model(specs(family))
    training = TrainingSpec(batch_size=3, max_length=16, steps=1)
    batches = Batches(tiny_corpora(), load_tokenizer(specs(family)), training, 0, model.device)
    context = ModelContext(model, batches, 0, model.device)
    tokens = context.batch(0).forget
    with torch.no_grad():
        out = references(family)(input_ids=tokens.ids, attention_mask=tokens.mask, output_hidden_states=True)
        found = context.hidden(tokens, range(LAYERS))
    real = tokens.mask.bool()
    assert context.layers == LAYERS
    for layer in range(LAYERS - 1):  # the last one of output_hidden_states is normalised
        torch.testing.assert_close(found[layer][real], out.hidden_states[layer + 1][real], atol=ATOL, rtol=1e-4)


@families
@pytest.mark.parametrize("name", METHODS)
def test_a_method_changes_the_named_parameters_and_no_others(family, name, specs, engines) -> None:
    model = load_model(specs(family))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    kind = methods.get(name)
    method = kind(kind.Settings.parse(METHODS[name], name))
    training = TrainingSpec(batch_size=3, max_length=16, steps=3, learning_rate=1e-2)
    trainer = Trainer(model, load_tokenizer(specs(family)), method, tiny_corpora(), training, seed=0)
    trainer.run()
    delta = trainer.delta()
    layers = TRAINED.get(name, (0, 1, 2))
    prefix = "model.language_model" if family == "gemma3" else "model"
    assert set(delta) == {f"{prefix}.layers.{layer}.mlp.down_proj.weight" for layer in layers}
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert changed == set(delta)
    trainer.restore()
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())

    engine, request = engines(family), [ChoiceRequest("q", texts(3)[-1], (f" {WORDS[0]}", f" {WORDS[1]}"))]
    base = engine.score_choices(request)
    engine.apply(delta)
    assert engine.score_choices(request) != base
    engine.restore()
    assert all(torch.equal(tensor, before[key]) for key, tensor in engine.model.state_dict().items())
    assert engine.score_choices(request) == base


@families
def test_the_first_layers_alone_train_as_in_the_whole_model(family, specs) -> None:
    """Sliding windows, norms and positions of the layers that are left out must not matter, bit by bit."""
    kind = methods.get("rmu")
    settings = kind.Settings(layer=2, offsets=(0,))
    work = trace_method(kind(settings), meta_model(config_of(family).to_dict()))
    found = []
    for layers in (None, work.layers):
        model = load_model(specs(family), layers=layers)
        training = TrainingSpec(batch_size=3, max_length=16, steps=3, learning_rate=1e-2)
        tokens = load_tokenizer(specs(family))
        trainer = Trainer(model, tokens, kind(settings), tiny_corpora(), training, 0, depth=LAYERS)
        trainer.run()
        found.append(trainer)
    whole, part = found
    assert len(decoder_layers(part.context.model)[1]) == work.layers == 3
    assert part.context.layers == whole.context.layers == LAYERS
    assert part.context.shared == whole.context.shared == 2
    parameters = dict(part.context.model.named_parameters())
    assert not any("lm_head" in name for name in parameters)
    assert whole.delta().keys() == part.delta().keys()
    assert all(torch.equal(tensor, part.delta()[name]) for name, tensor in whole.delta().items())


def test_a_family_that_no_test_holds_is_loaded_whole(tmp_path: Path) -> None:
    assert set(FAMILIES) == CUT
    spec = save(tmp_path / "gpt_neox", config_of("gpt_neox", num_key_value_heads=2))
    assert len(decoder_layers(load_model(spec, layers=1))[1]) == LAYERS


def test_first_layers_that_the_files_lack_are_not_made_up(specs, tmp_path: Path) -> None:
    folder = shutil.copytree(str(specs("llama").path), tmp_path / "holed")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 of 39 weights: model\.layers\.1\.mlp\.down_proj\.weight"):
        load_model(ModelSpec(name="holed", path=str(folder)), layers=2)


@pytest.mark.parametrize(("family", "own"), [("gpt_neox", "mlp.dense_4h_to_h.weight"), ("phi", "mlp.fc2.weight")])
def test_a_model_without_the_parameter_says_which_it_has(family, own, tmp_path: Path) -> None:
    spec = save(tmp_path / family, config_of(family, num_key_value_heads=2))
    kind = methods.get("rmu")

    def train(**settings: Any) -> Trainer:
        method = kind(kind.Settings.parse({"layer": 2, **settings}, "rmu"))
        training = TrainingSpec(batch_size=3, max_length=16, steps=2, learning_rate=1e-2)
        trainer = Trainer(load_model(spec), load_tokenizer(spec), method, tiny_corpora(), training, seed=0)
        trainer.run()
        return trainer

    with pytest.raises(UserError, match=r"has no parameter 'mlp\.down_proj\.weight'") as error:
        train()
    assert own in str(error.value)
    assert {name.split(".", 3)[-1] for name in train(parameters=[own]).delta()} == {own}


def test_sharp_attention_logits_are_capped_as_gemma_2_caps_them(specs, references) -> None:
    """The kernel that leaves the cap out gives another model, so it must not be the one that is loaded."""
    from transformers import AutoModelForCausalLM

    folder, tokens = specs("gemma2").path, tokenizer().encode(texts(5)[-1])
    uncapped = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    expected = logprobs(references("gemma2"), tokens)
    assert (logprobs(uncapped, tokens) - expected).abs().max() > 0.1
    torch.testing.assert_close(logprobs(load_model(specs("gemma2")), tokens), expected, atol=ATOL, rtol=0)
