"""Generation as asked: stop texts, a start of the answer, prompts as they stand, a limit on the whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from unlearn_bench.harness.engines._requests import Generation
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.tasks.base import Decoding, GenerationRequest

PROMPTS = ("the farmer", "the doctor likes", "the quick brown fox jumps over", "my neighbour told me that")
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def requests(**options) -> list[GenerationRequest]:
    return [GenerationRequest(f"p{n}", prompt, **options) for n, prompt in enumerate(PROMPTS)]


def greedy(**options) -> Decoding:
    return Decoding(**{"samples": 1, "temperature": 0, "max_new_tokens": 16, **options})


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    suite = load_suite("micro")
    path = Path(suite.folder) / (suite.models["micro"].path or "")
    return TransformersEngine(ModelSpec(name="micro", path=str(path)))


def test_what_is_left_at_its_default_is_no_part_of_what_a_task_is():
    assert set(Decoding().identity()) == {"samples", "max_new_tokens", "top_p", "temperature", "seed"}
    assert Decoding(stop=("\n",)).identity()["stop"] == ["\n"]
    assert Decoding.parse({"stop": "\n"}, "decoding").stop == ("\n",)
    with pytest.raises(UserError, match="an empty text stops everything"):
        Decoding.parse({"stop": ["a", ""]}, "decoding")


def test_a_continuation_is_cut_before_the_first_of_its_stop_texts(engine):
    whole = engine.generate(requests(), greedy())
    stop = whole[0].texts[0].split()[1], " zzz"
    for long, cut in zip(whole, engine.generate(requests(), greedy(stop=stop)), strict=True):
        expected = long.texts[0].split(stop[0])[0]
        assert cut.texts == [expected]
        if stop[0] in long.texts[0]:
            assert cut.stopped == [True]
            assert cut.tokens[0] < long.tokens[0]


@pytest.mark.parametrize("samples", [1, 3])
def test_stopping_early_gives_what_cutting_afterwards_does(engine, monkeypatch, samples):
    decoding = Decoding(samples=samples, temperature=float(samples > 1), max_new_tokens=16, stop=("a", "."))
    early = engine.generate(requests(), decoding)
    generate = engine._generate
    monkeypatch.setattr(engine, "_generate", lambda batch, decoding, stop_at: generate(batch, decoding, None))
    assert engine.generate(requests(), decoding) == early
    assert any(any(outcome.stopped) for outcome in early)


def test_drawing_ends_where_all_have_stopped(engine, monkeypatch):
    steps = []
    forward = engine._forward
    monkeypatch.setattr(engine, "_forward", lambda *args, **more: (steps.append(1), forward(*args, **more))[1])
    [whole] = engine.generate(requests()[:1], greedy())
    long = len(steps)
    steps.clear()
    engine.generate(requests()[:1], greedy(stop=(whole.texts[0].split()[1],)))
    assert len(steps) < long


def test_prompt_and_continuation_stay_below_their_limit_together(engine):
    lengths = [len(engine.tokens.encode(prompt)) for prompt in PROMPTS]
    limit = min(lengths) + 3
    whole = engine.generate(requests(), greedy())
    for length, long, cut in zip(lengths, whole, engine.generate(requests(), greedy(max_length=limit)), strict=True):
        assert cut.tokens[0] <= max(0, limit - length)
        assert long.texts[0].startswith(cut.texts[0])
        if length >= limit:
            assert (cut.texts, cut.tokens, cut.stopped) == ([""], [0], [False])


def test_a_start_of_the_answer_stands_behind_the_prompt(engine):
    filled = engine.generate([GenerationRequest("p", "the farmer", prefill=" likes")], greedy())
    plain = engine.generate([GenerationRequest("p", "the farmer likes")], greedy())
    assert filled == plain


def test_a_raw_prompt_goes_into_no_chat(engine, monkeypatch):
    monkeypatch.setattr(engine.tokens.tokenizer, "chat_template", TEMPLATE)
    plain = engine.tokens
    chat = type(plain)(plain.tokenizer, plain.max_length, plain.prefix, wrapped=True, embeddings=plain.embeddings)
    request = GenerationRequest("p", "be kind. the farmer", system="be kind. ", prefill=" he")
    assert chat.asked(request) == plain.encode("<system>be kind. <user>the farmer<assistant> he")
    dated = GenerationRequest("p", "the farmer", date="10 Apr 2025")
    monkeypatch.setattr(engine.tokens.tokenizer, "chat_template", "{{ date_string }} " + TEMPLATE)
    assert chat.asked(dated) == plain.encode("10 Apr 2025 <user>the farmer<assistant>")
    undated = GenerationRequest("p", "the farmer")
    for today in ("{{ date_string }} ", "{{ strftime_now('%d %b %Y') }} "):
        monkeypatch.setattr(engine.tokens.tokenizer, "chat_template", today + TEMPLATE)
        assert chat.asked(undated) == plain.encode("26 Jul 2024 <user>the farmer<assistant>"), "never today's date"
    raw = GenerationRequest("p", "be kind. the farmer", system="be kind. ", prefill=" he", raw=True)
    assert chat.asked(raw) == plain.encode("be kind. the farmer he")


def test_a_request_that_leaves_no_room_is_finished_at_once(engine):
    done: list[int] = []
    generation = Generation(engine.tokens, requests(), greedy(max_length=1), done.append)
    assert generation.samples == []
    assert sum(done) == len(PROMPTS)
