"""The transformers engine: lm-eval's numbers, exact sampling, and outcomes that do not know their batch."""

from __future__ import annotations

import inspect
import random

import numpy as np
import pytest
import torch
from unlearn_bench.harness.engines import transformers
from unlearn_bench.harness.engines.base import engines
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.tasks.base import ChoiceRequest, Decoding, GenerationRequest, TraceRequest

WORDS = "the a cat dog sat ran on under mat tree and then it was red blue big small fast slow"
MAX_LENGTH = 64


def sentence(seed: int, length: int) -> str:
    return " ".join(random.Random(seed).choices(WORDS.split(), k=length))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    """A random Llama with a byte-level BPE that was trained on a few sentences, as saved folders are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator([sentence(seed, 12) + "\nAnswer: A B C D" for seed in range(50)], trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    path = tmp_path_factory.mktemp("model")
    PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>").save_pretrained(
        path
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=bpe.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=MAX_LENGTH,
        initializer_range=0.3,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def engine(folder) -> TransformersEngine:
    return TransformersEngine(ModelSpec(name="tiny", path=folder), batch_size=24)


@pytest.fixture
def sized(engine, monkeypatch):
    """Set the engine's batch size for one test; short sequences do not fill up its batches."""
    monkeypatch.setattr(transformers, "LEAST", {})

    def set_size(size: int) -> TransformersEngine:
        monkeypatch.setattr(engine, "batch_size", size)
        return engine

    return set_size


def letters(count: int) -> list[ChoiceRequest]:
    choices = (" A", " B", " C", " D")
    return [ChoiceRequest(f"q{n}", sentence(n, 3 + n % 9) + "\nAnswer:", choices) for n in range(count)]


def prompts(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"p{n}", sentence(n, 2 + n % 7)) for n in range(count)]


class Counted:
    """Counts the forward passes of a model and the rows in them."""

    def __init__(self, engine: TransformersEngine, monkeypatch) -> None:
        self.shapes: list[tuple[int, ...]] = []
        forward = engine.model.forward

        def counting(*args, **kwargs):
            self.shapes.append(tuple(kwargs["input_ids"].shape))
            return forward(*args, **kwargs)

        monkeypatch.setattr(engine.model, "forward", counting)


def test_it_is_registered():
    assert engines.get("transformers") is TransformersEngine


def test_choices_score_as_with_lm_eval(engine):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    requests = [
        *letters(6),
        ChoiceRequest("words", "the cat", (" sat on the mat", " ran", " was under a tree and then", " zebra")),
        ChoiceRequest("space", "the cat ", ("sat", "dog", "x", "red dog")),
        ChoiceRequest("newline", "the cat\n", ("sat", " sat")),
        ChoiceRequest("empty", "", ("the cat", "dog", "<s>cat")),
        ChoiceRequest("bos", "<s>the cat", (" sat", " ran")),
        ChoiceRequest("long", sentence(3, 80), (" red", " slow and fast", " big dog")),
    ]
    pairs = [(request.context, choice) for request in requests for choice in request.choices]
    model = HFLM(pretrained=engine.model, tokenizer=engine.tokens.tokenizer, batch_size=4)
    asked = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
    expected = model.loglikelihood(asked, disable_tqdm=True)
    outcomes = engine.score_choices(requests)
    assert [outcome.item for outcome in outcomes] == [request.item for request in requests]
    found = [value for outcome in outcomes for value in zip(outcome.logprobs, outcome.greedy, strict=True)]
    np.testing.assert_allclose([value for value, _ in found], [value for value, _ in expected], atol=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


@pytest.mark.parametrize(
    ("context", "text", "own"),
    [("the cat\n\n", "sat", "sat"), ("the cat ", "sat", " sat"), ("the cat", " sat", " sat"), ("", "sat", "sat")],
)
def test_a_traced_text_has_no_token_of_its_context_alone(engine, context, text, own):
    [(head, tail)] = engine.tokens.given(TraceRequest("i", context, (text,)))
    assert engine.tokens.tokenizer.decode(tail) == own
    assert head[0] == engine.tokens.prefix
    [outcome] = engine.trace([TraceRequest("i", context, (text,))])
    assert len(outcome.traces[0].logprobs) == len(tail)


def test_greedy_says_what_the_model_would_say(engine):
    requests = prompts(40)
    said = engine.generate(requests, Decoding(samples=1, max_new_tokens=1, temperature=0))
    asked = [
        ChoiceRequest(request.item, request.prompt, (answer.texts[0], answer.texts[0] + "zzz"))
        for request, answer in zip(requests, said, strict=True)
        if answer.texts[0].isprintable() and len(engine.tokens.pairs(request.prompt, answer.texts)[0][1]) == 1
    ]
    assert asked
    assert all(outcome.greedy[0] for outcome in engine.score_choices(asked))


def test_four_letters_take_one_row_of_one_forward(sized, monkeypatch):
    engine = sized(8)
    counted = Counted(engine, monkeypatch)
    engine.score_choices(letters(8))
    assert [rows for rows, _ in counted.shapes] == [8]


def worded(count: int) -> list[ChoiceRequest]:
    """Questions with answers of several lengths, one of them a single token."""
    return [
        ChoiceRequest(
            f"t{n}", sentence(n, 3 + n % 9) + "\nAnswer:", (" A", *(f" {sentence(n + c, c)}" for c in (2, 3, 5)))
        )
        for n in range(count)
    ]


def test_choices_of_a_question_share_its_context(sized, monkeypatch):
    engine = sized(24)
    questions = worded(6)
    contexts = [len(engine.tokens.encode(question.context)) for question in questions]
    counted = Counted(engine, monkeypatch)
    engine.score_choices(questions)
    assert counted.shapes[0] == (6, max(contexts))
    [(rows, width)] = counted.shapes[1:]
    assert rows == 24
    assert width < min(contexts)


FAMILIES = {
    "LlamaConfig": {},
    "GPT2Config": {"n_embd": 32, "n_layer": 3, "n_head": 4},
    "MistralConfig": {"sliding_window": 6},
    "Gemma3TextConfig": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "Lfm2Config": {"layer_types": ["conv", "full_attention", "conv", "full_attention"]},
    "Mamba2Config": {"num_heads": 8, "n_groups": 1, "state_size": 8},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_shared_context_changes_nothing_in_any_family(sized, monkeypatch, family):
    """Windows shorter than the contexts, and states that cannot be gone on from: what is shared must be right."""
    import transformers

    engine = sized(24)
    common = {
        **{"vocab_size": 340, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "pad_token_id": 2},
    }
    drop = ("head_dim", "hidden_size", "num_hidden_layers", "num_attention_heads") if family == "GPT2Config" else ()
    config = getattr(transformers, family)(**{k: v for k, v in common.items() if k not in drop} | FAMILIES[family])
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    monkeypatch.setattr(engine, "model", model)
    monkeypatch.setattr(engine, "_repeats", True)
    monkeypatch.setattr(engine, "_accepts", set(inspect.signature(model.forward).parameters))
    questions = worded(6)
    shared = engine.score_choices(questions)
    assert engine._repeats == (family not in ("Lfm2Config", "Mamba2Config"))
    monkeypatch.setattr(engine, "batch_size", 1)
    for one, other in zip(shared, engine.score_choices(questions), strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=TransformersEngine.tolerance)
        assert one.greedy == other.greedy


def test_overlong_contexts_are_cut_from_the_left_and_counted(engine):
    text = sentence(5, 200)
    length = len(engine.tokens.encode(text + " red"))
    [long, short] = engine.score_choices([ChoiceRequest("l", text, (" red",)), ChoiceRequest("s", "the", (" red",))])
    assert (long.truncated, short.truncated) == (length - MAX_LENGTH - 1, 0)
    [long] = engine.generate([GenerationRequest("l", text)], Decoding(samples=2, max_new_tokens=4))
    assert long.truncated == len(engine.tokens.encode(text)) - (MAX_LENGTH - 4)


def test_what_cannot_be_asked_is_said(engine):
    with pytest.raises(UserError, match="more than the 64"):
        engine.score_choices([ChoiceRequest("q", "the", (sentence(1, 200),))])
    with pytest.raises(UserError, match="Lower max_new_tokens"):
        engine.generate(prompts(1), Decoding(max_new_tokens=MAX_LENGTH))
    assert engine.score_choices([ChoiceRequest("q", "the", ("", " red"))])[0].tokens[0] == 0
    assert engine.score_choices([]) == engine.generate([], Decoding()) == []


def test_outcomes_do_not_depend_on_the_batch(sized):
    decoding = Decoding(samples=6, max_new_tokens=12, seed=6)  # no draw lies within 1e-4 nats of an edge
    requests, questions = prompts(9), [*letters(9), *worded(5)]
    texts, scores = {}, {}
    for size in (1, 5, 24):
        texts[size] = sized(size).generate(requests, decoding)
        scores[size] = np.concatenate([outcome.logprobs for outcome in sized(size).score_choices(questions)])
    assert texts[1] == texts[5] == texts[24]
    np.testing.assert_allclose(scores[1], scores[24], atol=TransformersEngine.tolerance)
    np.testing.assert_allclose(scores[5], scores[24], atol=TransformersEngine.tolerance)
    alone = sized(24).generate(requests[4:5], decoding)
    assert alone == texts[24][4:5]


def test_samples_are_keyed_by_seed_item_and_number(engine):
    request = prompts(1)
    many = engine.generate(request, Decoding(samples=6))[0].texts
    assert engine.generate(request, Decoding(samples=3))[0].texts == many[:3]
    assert len(set(many)) > 1
    assert engine.generate(request, Decoding(samples=6, seed=1))[0].texts != many
    twin = engine.generate([GenerationRequest("other", request[0].prompt)], Decoding(samples=6))[0].texts
    assert twin != many


def test_greedy_generation_is_that_of_transformers_on_each_prompt_alone(engine):
    requests = prompts(7)
    answers = engine.generate(requests, Decoding(samples=2, max_new_tokens=15, temperature=0))
    for request, answer in zip(requests, answers, strict=True):
        ids = torch.tensor([engine.tokens.encode(request.prompt)])
        out = engine.model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=15)
        new = out[0, ids.shape[1] :].tolist()
        expected = new[: new.index(1)] if 1 in new else new
        assert answer.tokens == [len(expected)] * 2
        assert answer.stopped == [1 in new] * 2
        assert answer.texts == [engine.tokens.continuation(ids[0].tolist(), expected)] * 2


def test_continuations_stop_at_any_end_token_and_the_others_go_on(engine, monkeypatch):
    decoding = Decoding(samples=8, max_new_tokens=12, seed=38)  # no draw lies within 1e-4 nats of an edge
    free = engine.generate(prompts(6), decoding)
    ends = list(range(1, 340, 9))
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", ends)
    stopped = engine.generate(prompts(6), decoding)
    assert 0 < sum(sum(answer.stopped) for answer in stopped) < 48
    for before, after in zip(free, stopped, strict=True):
        for whole, part, ended, count in zip(before.texts, after.texts, after.stopped, after.tokens, strict=True):
            assert whole.startswith(part.rstrip("�"))
            assert (count < 12) or not ended


def test_texts_keep_the_space_after_the_prompt(engine):
    tokens = engine.tokens
    prompt, after = tokens.encode("the cat"), tokens.tokenizer.encode(" sat on", add_special_tokens=False)
    assert tokens.continuation(prompt, after) == " sat on"
    assert tokens.continuation(prompt, []) == ""


def test_logits_that_break_end_in_an_empty_text(engine):
    name = "model.norm.weight"
    engine.apply({name: torch.full_like(engine.model.state_dict()[name], float("nan"))})
    try:
        [answer] = engine.generate(prompts(1), Decoding(samples=3))
        [scored] = engine.score_choices(letters(1))
    finally:
        engine.restore()
    assert (answer.texts, answer.tokens, answer.stopped) == ([""] * 3, [0] * 3, [False] * 3)
    assert np.isnan(scored.logprobs).all()


def test_a_delta_is_applied_replaced_and_taken_out_bit_by_bit(engine):
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    first, second = "model.layers.1.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"
    base = engine.score_choices(letters(2))
    engine.apply({first: before[first] + 0.1})
    changed = engine.score_choices(letters(2))
    assert changed != base
    engine.apply({second: before[second] * 1.5})
    assert torch.equal(engine.model.state_dict()[first], before[first])
    assert torch.equal(engine.model.state_dict()[second], before[second] * 1.5)
    engine.restore()
    engine.restore()
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.model.state_dict().items())
    assert engine.score_choices(letters(2)) == base


def test_a_delta_of_another_model_changes_nothing(engine):
    good, before = "model.norm.weight", engine.model.state_dict()["model.norm.weight"].clone()
    with pytest.raises(UserError, match=r"Did you mean 'model\.norm\.weight'"):
        engine.apply({good: before + 1, "model.norm.weigth": before})
    with pytest.raises(UserError, match="belongs to another model"):
        engine.apply({good: before[:3]})
    assert torch.equal(engine.model.state_dict()[good], before)


def test_a_batch_too_large_for_memory_is_halved(sized, monkeypatch):
    questions = [*letters(8), *worded(4)]
    expected = sized(16).generate(prompts(8), Decoding(samples=2)), sized(16).score_choices(questions)
    engine = sized(16)
    forward = engine.model.forward

    def limited(*args, **kwargs):
        if kwargs["input_ids"].shape[0] > 3:
            raise torch.OutOfMemoryError
        return forward(*args, **kwargs)

    monkeypatch.setattr(engine.model, "forward", limited)
    found = engine.generate(prompts(8), Decoding(samples=2)), engine.score_choices(questions)
    assert found[0] == expected[0]
    for ours, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=TransformersEngine.tolerance)
    assert engine.batch_size <= 3

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(engine.model, "forward", full)
    with pytest.raises(UserError, match="does not fit the memory"):
        engine.score_choices(letters(2))


def test_batches_hold_as_many_tokens_as_the_first(sized, monkeypatch):
    """Memory is asked for by the longest prompts; of the shorter ones more run together."""
    engine = sized(2)
    long, short = sentence(1, 30), "the cat"
    requests = [GenerationRequest(f"p{n}", long if n < 2 else short) for n in range(20)]
    decoding = Decoding(samples=1, max_new_tokens=4, temperature=0)
    expected = [engine.generate([request], decoding)[0] for request in requests]
    counted = Counted(engine, monkeypatch)
    ran: list[int] = []
    generate = engine._generate
    monkeypatch.setattr(engine, "_generate", lambda batch, *rest: ran.append(len(batch)) or generate(batch, *rest))
    assert engine.generate(requests, decoding) == expected
    assert (ran[0], sum(ran)) == (2, 20)
    assert all(2 < rows <= 16 for rows in ran[1:-1])
    sizes = [len(engine.tokens.encode(text)) + 4 for text in (long, short)]
    assert ran[1] == min(16, 2 * sizes[0] // sizes[1])
    assert counted.shapes[0][0] == 1


def test_a_batch_of_short_prompts_is_filled_up_on_a_cpu(sized, monkeypatch):
    engine = sized(2)
    monkeypatch.setattr(transformers, "LEAST", {"cpu": 60})
    counted = Counted(engine, monkeypatch)
    decoding = Decoding(samples=1, max_new_tokens=4, temperature=0)
    engine.generate([GenerationRequest(f"p{n}", "the cat") for n in range(30)], decoding)
    engine.generate([GenerationRequest(f"p{n}", f"the cat {n}") for n in range(10, 30)], decoding)
    length = len(engine.tokens.encode("the cat 10"))
    first = next(rows for rows, width in counted.shapes if width == length)
    assert first == min(16, 2 * 60 // (length + 4)) > 2


def test_keys_and_values_of_continuations_are_not_copied_each_step(engine, monkeypatch):
    """Where they lie changes once in many steps, and other families' caches are left as they are."""
    places: list[int] = []
    forward = engine.model.forward

    def watched(**given):
        out = forward(**given)
        places.append(out.past_key_values.layers[0].keys.data_ptr())
        return out

    monkeypatch.setattr(engine.model, "forward", watched)
    engine.generate(prompts(3), Decoding(samples=2, max_new_tokens=12, temperature=0))
    assert len(places) == 12
    assert len(set(places[1:])) == 1


def test_a_batch_that_keeps_the_device_busy_is_closed_rather_than_padded(sized, monkeypatch):
    engine = sized(24)
    monkeypatch.setitem(transformers.BUSY, "cpu", 60)
    counted = Counted(engine, monkeypatch)
    questions = letters(24)
    engine.score_choices(questions)
    lengths = [len(engine.tokens.encode(question.context)) for question in questions]
    assert sum(rows for rows, _ in counted.shapes) == 24
    assert len(counted.shapes) > 2
    assert all(rows * width >= 60 for rows, width in counted.shapes[:-1])
    assert sum(rows * width for rows, width in counted.shapes) < 1.2 * sum(lengths) < 24 * max(lengths)


def test_rows_run_without_a_mask_and_logits_only_where_they_are_read(sized, monkeypatch):
    engine = sized(8)
    seen: list[dict] = []
    forward = engine.model.forward
    monkeypatch.setattr(engine.model, "forward", lambda **given: seen.append(given) or forward(**given))
    engine.score_choices(letters(8))
    [given] = seen
    lengths = [len(engine.tokens.encode(question.context)) for question in letters(8)]
    assert given["attention_mask"] is None
    assert given["logits_to_keep"] == max(lengths) - min(lengths) + 1


def test_progress_counts_items_and_the_record_says_how(engine):
    seen: list[int] = []
    engine.score_choices(letters(5), seen.append)
    engine.generate(prompts(4), Decoding(samples=3, max_new_tokens=2), seen.append)
    assert sum(seen) == 9
    recorded = engine.recorded()
    assert (recorded["device"], recorded["dtype"], recorded["attention"]) == ("cpu", "float32", "sdpa")
    assert recorded["threads"] == 1
