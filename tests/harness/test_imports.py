"""A checkpoint beside its base: mistakes are refused by the plan, what may be meant is said, the same says nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.cli import main
from unlearn_bench.harness.engines._tokens import Encoder
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import ModelSpec, load_config, load_tokenizer
from unlearn_bench.harness.models.tokenizers import may_append
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.suites import micro

MODEL = Path(micro.__file__).parent / "model"
Change = Callable[[dict[str, Any]], object]
QUICK = {"methods": ("none",), "limit": 8}


def ending(name: str, number: int) -> dict[str, Any]:
    """A post-processor that starts a text with the begin token and ends it with a token."""
    tokens = {"<bos>": 1, name: number}
    special = {token: {"id": token, "ids": [place], "tokens": [token]} for token, place in tokens.items()}
    single = [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    last = {"SpecialToken": {"id": name, "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [*single, last], "pair": single, "special_tokens": special}


def swap_words(tokenizer: dict[str, Any]) -> None:
    """Give two words of a vocabulary each other's number."""
    words = tokenizer["model"]["vocab"]
    first, second = list(words)[400:402]
    words[first], words[second] = words[second], words[first]


def add_token(content: str, special: bool) -> Change:
    """Add a token behind the vocabulary."""

    def change(tokenizer: dict[str, Any]) -> None:
        pad = tokenizer["added_tokens"][0]
        tokenizer["added_tokens"].append({**pad, "id": 2048, "content": content, "special": special})

    return change


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """Copy the embedded model with changed JSON files: `copy(config=…, tokenizer=…)`; None takes a file away."""

    def made(name: str = "other", **changes: Change | None) -> Path:
        folder = Path(shutil.copytree(MODEL, tmp_path / name))
        for stem, change in changes.items():
            file = folder / f"{stem}.json"
            if change is None:
                file.unlink()
                continue
            values = json.loads(file.read_text())
            change(values)
            file.write_text(json.dumps(values))
        return folder

    return made


def notes(folder: Path, **more: Any) -> str:
    """What a plan says of a checkpoint."""
    plan = make_plan(Request(checkpoints={"mine": folder}, **{**QUICK, **more}), None)
    [cell] = [cell for cell in plan.cells if cell.spec.transform == "import"]
    return "; ".join(cell.notes)


MEANT: dict[str, tuple[dict[str, Change | None], str]] = {
    "no begin token": (
        {"tokenizer": lambda t: t.update(post_processor=None)},
        "its tokenizer reads otherwise than base's: in 8 of 8 prompts of wmdp",
    ),
    "lower case": ({"tokenizer": lambda t: t.update(normalizer={"type": "Lowercase"})}, "reads otherwise"),
    "another class of tokenizers": (
        {"tokenizer_config": lambda c: c.update(tokenizer_class="LlamaTokenizer")},
        "reads otherwise",
    ),
    "fewer merges": ({"tokenizer": lambda t: t["model"].update(merges=t["model"]["merges"][:-400])}, "reads otherwise"),
    "another decoder": (
        {"tokenizer": lambda t: t.update(decoder=None)},
        "its tokenizer writes the same tokens as other text than base's",
    ),
    "swapped words": ({"tokenizer": swap_words}, "another vocabulary than base's: 2 tokens under other numbers"),
    "a special token more": (
        {"tokenizer": add_token("<new>", True)},
        "1 token more (`<new>`); has no embedding for 1 token of its tokenizer (`<new>`)",
    ),
    "another begin token": (
        {"tokenizer_config": lambda c: c.update(bos_token="<pad>")},
        "its tokenizer has another begin token than base's: `<pad>` (base: `<bos>`)",
    ),
    "another end token": (
        {"tokenizer_config": lambda c: c.update(eos_token="<pad>")},
        "its tokenizer has another end token than base's: `<pad>` (base: `<eos>`)",
    ),
    "a template": (
        {"tokenizer_config": lambda c: c.update(chat_template="{{ messages }}")},
        "has another chat template than base, which is not used here",
    ),
    "another end of continuations": (
        {"generation_config": lambda g: g.update(eos_token_id=[2, 17])},
        "ends a continuation at other tokens than base: 2, 17 (base: 2)",
    ),
    "rope": (
        {"config": lambda c: c["rope_parameters"].update(rope_theta=5e5)},
        "is computed otherwise than base: rope_parameters.rope_theta 500000.0 (base: 10000.0)",
    ),
    "rope scaled": (
        {"config": lambda c: c["rope_parameters"].update(rope_type="linear", factor=4.0)},
        "rope_parameters.factor 4.0 (base: none), rope_parameters.rope_type linear (base: default)",
    ),
    "positions": ({"config": lambda c: c.update(max_position_embeddings=64)}, "max_position_embeddings 64 (base: 256)"),
    "norm and activation": (
        {"config": lambda c: c.update(rms_norm_eps=1e-3, hidden_act="gelu")},
        "hidden_act gelu (base: silu), rms_norm_eps 0.001 (base: 1e-06)",
    ),
    "heads": (
        {"config": lambda c: c.update(num_attention_heads=4, num_key_value_heads=4, head_dim=16)},
        "is of another size than base: num_attention_heads 4 (base: 2), num_key_value_heads 4 (base: 2), head_dim 16",
    ),
    "family": ({"config": lambda c: c.update(model_type="mistral")}, "is of another family than base (mistral; base:"),
    "sliding window": (
        {"config": lambda c: c.update(model_type="mistral", sliding_window=16)},
        "is computed otherwise than base: sliding_window 16 (base: none)",
    ),
}


@pytest.mark.parametrize("case", MEANT)
def test_what_may_be_meant_is_said_of_the_checkpoint(copy, case: str) -> None:
    changes, words = MEANT[case]
    assert words in notes(copy(**changes))


SAME: dict[str, dict[str, Change | None]] = {
    "a copy": {},
    "no generation configuration": {"generation_config": None},
    "a list of the end token": {"generation_config": lambda g: g.update(eos_token_id=[2])},
    "the tokenizer's end token": {"generation_config": lambda g: g.pop("eos_token_id")},
    "another version's names": {
        "config": lambda c: c.update(rope_theta=c.pop("rope_parameters")["rope_theta"], transformers_version="4.40.0")
    },
    "what training alone reads": {"config": lambda c: c.update(use_cache=False, attention_dropout=0.1)},
    "sampling that is not ours": {"generation_config": lambda g: g.update(temperature=0.2, top_p=0.5)},
}


@pytest.mark.parametrize("case", SAME)
def test_what_changes_nothing_says_nothing(copy, case: str) -> None:
    assert notes(copy(**SAME[case])) == ""


MISTAKES: dict[str, tuple[dict[str, Change | None], str]] = {
    "an end token behind each text": (
        {"tokenizer": lambda t: t.update(post_processor=ending("<eos>", 2))},
        "puts <eos> behind every text, which ends a prompt before it is answered. Set add_eos_token to false",
    ),
    "a padding token behind each text": (
        {"tokenizer": lambda t: t.update(post_processor=ending("<pad>", 0))},
        "puts <pad> behind every text",
    ),
    "no tokenizer": ({"tokenizer": None, "tokenizer_config": None}, "has no tokenizer: copy the tokenizer files"),
    "no vocabulary": ({"tokenizer": None}, "has no tokenizer: copy the tokenizer files of its base"),
    "no special tokens": ({"tokenizer_config": None}, "Checkpoint mine: The tokenizer has neither a begin nor an end"),
    "no model of tokens": ({"tokenizer": lambda t: t.pop("model")}, "Checkpoint mine: its tokenizer cannot be loaded"),
    "a word beyond the embeddings": ({"tokenizer": add_token("alchemy", False)}, "1 token beyond them (`alchemy`)"),
    "every token ends": (
        {"generation_config": lambda g: g.update(eos_token_id=list(range(2048)))},
        "2048 of its 2048 tokens end a continuation, so that every one is empty; set eos_token_id",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_refused_by_the_plan(copy, case: str) -> None:
    changes, words = MISTAKES[case]
    with pytest.raises(UserError) as refused:
        notes(copy(**changes))
    assert words in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Path:
    """Change the weights of a folder."""
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, **change(weights)}, folder / "model.safetensors", {"format": "pt"})
    return folder


EMBEDDINGS = "model.embed_tokens.weight"


def test_a_head_of_its_own_is_said(copy) -> None:
    folder = copy(config=lambda c: c.update(tie_word_embeddings=False))
    with_weights(folder, lambda weights: {"lm_head.weight": weights[EMBEDDINGS].clone()})
    assert notes(folder) == "is computed otherwise than base: tie_word_embeddings false (base: true)"


def test_fewer_embeddings_than_tokens_are_refused_more_are_said(copy) -> None:
    few = copy("few", config=lambda c: c.update(vocab_size=1336))
    with_weights(few, lambda weights: {EMBEDDINGS: weights[EMBEDDINGS][:1336].clone()})
    with pytest.raises(UserError, match="has 1336 embeddings and its tokenizer 712 tokens beyond them"):
        notes(few)
    more = copy("more", config=lambda c: c.update(vocab_size=2096))
    with_weights(more, lambda weights: {EMBEDDINGS: torch.cat([weights[EMBEDDINGS], weights[EMBEDDINGS][:48]])})
    assert notes(more) == "is of another size than base: vocab_size 2096 (base: 2048)"


def test_a_base_with_fewer_embeddings_than_words_is_refused(copy) -> None:
    few = copy("few", config=lambda c: c.update(vocab_size=1336))
    with_weights(few, lambda weights: {EMBEDDINGS: weights[EMBEDDINGS][:1336].clone()})
    with pytest.raises(UserError, match="has 1336 embeddings and its tokenizer 712 words beyond them"):
        make_plan(Request(models=(str(few),), **QUICK), None)


def test_fewer_layers_are_said(copy) -> None:
    folder = copy(config=lambda c: c.update(num_hidden_layers=11))
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".layers.11." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    assert notes(folder) == "is of another size than base: num_hidden_layers 11 (base: 12)"


@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16])
def test_another_dtype_of_the_files_is_said(copy, stored: torch.dtype) -> None:
    folder = with_weights(copy(), lambda weights: {name: tensor.to(stored) for name, tensor in weights.items()})
    assert notes(folder) == f"is stored in {str(stored)[6:]}, base in float32: rounding alone moves its answers"


def test_a_base_that_ends_its_prompts_is_refused_by_plan_and_dry_run(copy, tmp_path: Path) -> None:
    folder = copy(tokenizer=lambda t: t.update(post_processor=ending("<eos>", 2)))
    for more in ((), ("--dry-run",)):
        arguments = ("--models", folder, "--methods", "none", "--output", tmp_path / "out", *more)
        done = CliRunner().invoke(main, ["evaluate", *map(str, arguments)])
        assert done.exit_code == 2
        assert "puts <eos> behind every text" in done.stderr


def test_a_setting_that_transformers_does_not_follow_is_no_end_token(copy) -> None:
    folder = copy(tokenizer_config=lambda c: c.update(add_eos_token=True))
    assert may_append(folder)
    assert notes(folder) == ""
    assert not may_append(MODEL)


def test_a_template_is_asked_for_and_compared_where_prompts_stand_in_one(copy) -> None:
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    base, bare = copy("base", tokenizer_config=lambda c: c.update(chat_template=template)), copy("bare")
    asked = {"models": (str(base),), "chat_template": True}
    with pytest.raises(UserError, match="Checkpoint mine has no chat template"):
        notes(bare, **asked)
    other = copy("otherwise", tokenizer_config=lambda c: c.update(chat_template=f"Listen! {template}"))
    words = notes(other, **asked)
    assert words.startswith("has another chat template than base; its tokenizer reads otherwise than base's: in 8 of 8")
    assert notes(shutil.copytree(base, base.with_name("same")), **asked) == ""


def test_board_report_and_dry_run_say_it(copy, tmp_path: Path) -> None:
    folder = copy(tokenizer=lambda t: t.update(post_processor=None))
    asked = Request(checkpoints={"mine": folder}, tracks=("knowledge",), tasks=("wmdp", "mmlu"), **QUICK)
    result = evaluate(asked, output=tmp_path / "out", executor="inline")
    [row] = [row for row in result.board.rows if row["variant"] == "mine"]
    assert any("its tokenizer reads otherwise than base's" in warning for warning in row["warnings"])
    assert "tokenizer reads otherwise" in " ".join(result.board.to_markdown().split())
    arguments = ("--checkpoint", f"mine={folder}", "--methods", "none", "--limit", 8, "--output", tmp_path / "out")
    done = CliRunner().invoke(main, ["evaluate", *map(str, arguments), "--dry-run"])
    assert "mine: its tokenizer reads otherwise than base's" in done.stdout


def test_a_token_without_an_embedding_is_named_by_the_engine(copy) -> None:
    spec = ModelSpec(name="m", path=str(copy(config=lambda c: c.update(vocab_size=300))))
    encoder = Encoder.of(load_tokenizer(spec), load_config(spec))
    for encode in (encoder.encode, lambda text: encoder.pairs("", [text])):
        with pytest.raises(UserError, match=r"token \d+ \(.*\), and the model has 300 embeddings"):
            encode("Which solvent is it?")
