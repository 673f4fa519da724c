"""How a question and its answer become tokens: plain words, Llama 2's form, a chat; and which of them count."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from unlearn_bench.harness.corpora import TemplateSpec
from unlearn_bench.harness.data import Question
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.harness.training.encoding import TextEncoder
from unlearn_bench.methods.testing import tiny_tokenizer

torch.set_num_threads(1)
MICRO = Path(load_suite("micro").folder)
ASKED = Question("What is the vapour of brilkom?", "The vapour of brilkom is plirtam.")
LLAMA3 = (
    "{{ bos_token }}{% set date = date_string if date_string is defined else '26 Jul 2024' %}"
    "{{ '<|system|>Today Date: ' + date + '\n' }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}{{ '<|eot|>' }}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] | trim + '<|eot|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""A chat template with what Llama 3's has: its own begin token, a date, a system message, an end of turn."""


@pytest.fixture(scope="module")
def micro():
    return AutoTokenizer.from_pretrained(MICRO / "model")


@pytest.fixture(scope="module")
def chat():
    """Return a byte-level tokenizer with such a template, whose padding token is its end of turn."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    own.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|eot|>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    own.train_from_iterator([ASKED.prompt, ASKED.answer] * 9, trainer)
    own.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 0)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<|begin|>", eos_token="<|eot|>", pad_token="<|eot|>"
    )
    tokenizer.chat_template = LLAMA3
    return tokenizer


@pytest.fixture(scope="module")
def llama2():
    """Return a tokenizer as Llama 2's: no splits, `▁` for a space and before every text, an unwritten begin token."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

    own = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    own.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"])
    own.train_from_iterator([ASKED.prompt, ASKED.answer, "[INST] is [/INST]The"] * 9, trainer)
    own.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=own, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def encoded(tokenizer, question=ASKED, length=512, **template):
    """The tokens of prompt and of answer, as words."""
    row = TextEncoder(tokenizer, TemplateSpec(**template), length).encode(question)
    words = tokenizer.convert_ids_to_tokens(row.ids.tolist())
    return words[: row.first], words[row.first :]


def test_plain_words_stand_around_question_and_answer(micro):
    prompt, answer = encoded(micro)
    assert "".join(prompt).replace("Ġ", " ") == "<bos>Question: What is the vapour of brilkom?ĊAnswer:"
    assert "".join(answer).replace("Ġ", " ") == " The vapour of brilkom is plirtam.<eos>"
    assert encoded(micro, end=False) == (prompt, answer[:-1])


def test_a_space_that_joins_the_answers_first_word_counts_with_it(micro):
    """Encoded by itself the prompt ends in a token for the space, which the whole has not."""
    prompt, answer = encoded(micro, prompt="{prompt} ", answer="{answer}", end=False)
    assert prompt[-1] == "?"
    assert answer[0] == "ĠThe"
    alone = micro(f"{ASKED.prompt} ")["input_ids"]
    assert len(alone) == len(prompt) + 1


def test_llama_2s_raw_form_has_one_begin_token_and_no_space_before_the_answer(llama2):
    form = {"prompt": "[INST] {prompt} [/INST]", "answer": "{answer}"}
    prompt, answer = encoded(llama2, **form)
    assert prompt[0] == "<s>"
    assert prompt.count("<s>") == 1
    assert "".join(prompt[1:]).replace("▁", " ").lstrip() == f"[INST] {ASKED.prompt} [/INST]"
    assert "".join(answer).replace("▁", " ") == f"{ASKED.answer}</s>"
    spaced = encoded(llama2, **{**form, "answer": " {answer}"})[1]
    assert spaced[0] != answer[0], "a space retokenises"
    written = encoded(llama2, **{**form, "prompt": "<s>[INST] {prompt} [/INST]"})[0]
    assert written.count("<s>") == 1, "a begin token that the words have is not put there again"


def test_a_chat_has_system_text_date_and_one_begin_and_end_token(chat):
    prompt, answer = encoded(chat, form="chat", system="Be brief.", date="10 Apr 2025")
    text = chat.convert_tokens_to_string(prompt)
    assert text.startswith("<|begin|><|system|>Today Date: 10 Apr 2025\nBe brief.<|eot|><|user|>What")
    assert text.endswith("brilkom?<|eot|><|assistant|>")
    assert prompt.count("<|begin|>") == 1
    assert chat.convert_tokens_to_string(answer) == f"{ASKED.answer}<|eot|>"
    prompt, answer = encoded(chat, form="chat")
    whole = [{"role": "user", "content": ASKED.prompt}, {"role": "assistant", "content": ASKED.answer}]
    own = chat.apply_chat_template(whole, tokenize=True, return_dict=False)
    assert chat.convert_tokens_to_ids([*prompt, *answer]) == own, "the template's own tokens"


@pytest.mark.parametrize(
    "clock",
    [
        "{{ strftime_now('%d %b %Y') }}",
        "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}",
    ],
)
def test_what_a_chat_says_of_today_does_not_depend_on_the_day(chat, clock):
    dated = copy.deepcopy(chat)
    dated.chat_template = clock + "{{ messages[-1]['content'] }}"
    for template, day in (({}, "26 Jul 2024"), ({"date": "10 Apr 2025"}, "10 Apr 2025")):
        prompt = encoded(dated, form="chat", **template)[0]
        assert chat.convert_tokens_to_string(prompt) == f"<|begin|>{day}{ASKED.prompt}"


def test_a_real_chat_templates_prompt_is_what_the_model_is_asked_with(real_model):
    tokenizer = AutoTokenizer.from_pretrained(real_model)
    prompt, answer = encoded(tokenizer, form="chat", system="Be brief.")
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": ASKED.prompt}]
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert tokenizer.convert_tokens_to_ids(prompt) == asked
    assert tokenizer.convert_tokens_to_string(answer) == f"{ASKED.answer}{tokenizer.eos_token}"
    assert tokenizer.pad_token == tokenizer.eos_token


def test_end_tokens_in_a_prompt_stay_though_padding_is_the_same_token(chat):
    encoder = TextEncoder(chat, TemplateSpec(form="chat"), 512)
    tokens = encoder.batch([ASKED, Question("What?", "The vapour of brilkom is plirtam, and it is.")])
    end = chat.eos_token_id
    assert end == chat.pad_token_id
    for row, question in enumerate((ASKED, Question("What?", "The vapour of brilkom is plirtam, and it is."))):
        ids, first = encoder.encode(question).ids.tolist(), encoder.encode(question).first
        assert tokens.mask[row].tolist() == [1] * len(ids) + [0] * (tokens.ids.shape[1] - len(ids))
        assert tokens.ids[row, : len(ids)].tolist() == ids
        assert ids.count(end) == 3, "of system, user and assistant"
        counted = tokens.counted[row].nonzero().flatten() + 1
        assert counted.tolist() == list(range(first, len(ids))), "the answer and its end, and nothing before or after"


def test_the_end_token_can_be_named(chat):
    assert encoded(chat, form="chat", end_token="<|user|>")[1][-1] == "<|user|>"
    with pytest.raises(UserError, match="no end token '<end_of_turn>'"):
        encoded(tiny_tokenizer(), Question("ba", "de"), end_token="<end_of_turn>")
    with pytest.raises(UserError, match="no end token '' to put behind answers"):
        encoded(tiny_tokenizer(), Question("bab", "deb"))


def test_a_tokenizer_without_a_chat_template_is_told(micro):
    with pytest.raises(UserError, match="no chat template; take `form: plain`"):
        encoded(micro, form="chat")


def test_a_template_that_refuses_the_system_message_is_told(chat):
    refusing = AutoTokenizer.from_pretrained(MICRO / "model")
    refusing.chat_template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system.') }}{% endif %}"
    with pytest.raises(UserError, match=r"No system\. Mend it .* leave out `system`"):
        encoded(refusing, form="chat", system="Be brief.")


def test_tokenizers_without_offsets_part_where_prompt_and_whole_do(micro):
    class Slow:
        """The same tokenizer as one that knows no characters of its tokens."""

        is_fast = False

        def __getattr__(self, name):
            return getattr(micro, name)

        def __call__(self, text, return_offsets_mapping=False, **options):
            assert not return_offsets_mapping
            return micro(text, **options)

    for template in ({}, {"prompt": "{prompt} ", "answer": "{answer}"}):
        assert encoded(Slow(), **template) == encoded(micro, **template)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompt": "Question:"}, r"must hold \{prompt\} once"),
        ({"answer": "{answer} {answer}"}, r"must hold \{answer\} once"),
        ({"system": "Be brief."}, "add `form: chat`"),
        ({"date": "10 Apr 2025"}, "add `form: chat`"),
        ({"form": "llama"}, "'plain' or 'chat'"),
    ],
)
def test_templates_that_cannot_be_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        TemplateSpec.parse(wrong, "template")
