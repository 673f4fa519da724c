"""What follows the batch size: nothing but last bits in float32, answers in half precision, and then boards say so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from unlearn_bench.harness import Request, evaluate
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.tasks.base import ChoiceRequest, Decoding, GenerationRequest

MICRO = Path(__file__).parents[2] / "harness" / "suites" / "micro" / "model"


@pytest.fixture(scope="module")
def sharp(tmp_path_factory) -> Path:
    """A random model whose logits are large, in bfloat16: rounding decides what it says."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(3)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
    folder = tmp_path_factory.mktemp("sharp")
    config = LlamaConfig(vocab_size=1936, **sizes, max_position_embeddings=128, initializer_range=0.3)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((MICRO / name).read_bytes())
    return folder


def answers(folder: Path, dtype: str, size: int) -> tuple[list, list, dict]:
    """Return log-probabilities of choices, sampled texts, and what was recorded beside them."""
    model = ModelSpec(name="sharp", path=str(folder), dtype=dtype, digest="0")
    engine = TransformersEngine(model, batch_size=size)
    words = ["the bridge", "my uncle near the old mill", "we", "a song about the harbour and the wind", "bread"]
    choices = [ChoiceRequest(str(n), f"{words[n % 5]} {n}", (" is red", " was here again")) for n in range(20)]
    prompts = [GenerationRequest(str(n), f"{words[n % 5]} {n}") for n in range(20)]
    scores = [value for outcome in engine.score_choices(choices) for value in outcome.logprobs]
    texts = [outcome.texts for outcome in engine.generate(prompts, Decoding(samples=2, max_new_tokens=10))]
    return scores, texts, engine.recorded()


def test_float32_moves_last_bits_and_half_precision_moves_answers(sharp):
    (alone, said_alone, recorded), (beside, said_beside, _) = (answers(sharp, "float32", size) for size in (1, 16))
    assert alone == pytest.approx(beside, abs=10 * TransformersEngine.tolerance)
    assert sum(a != b for a, b in zip(said_alone, said_beside, strict=True)) <= 1
    assert "batch_size" not in recorded
    (_, alone, first), (_, beside, second) = (answers(sharp, "bfloat16", size) for size in (1, 16))
    assert alone != beside, "where this fails, half precision follows the batch no more: docs may promise more"
    assert (first["batch_size"], second["batch_size"]) == ("1", "16")


def test_a_batch_that_memory_did_not_hold_is_recorded(sharp):
    engine = TransformersEngine(ModelSpec(name="sharp", path=str(sharp), dtype="bfloat16", digest="0"), batch_size=8)
    engine.batch_size = 2
    assert engine.recorded()["batch_size"] == "8 cut to 2"


def test_a_board_in_half_precision_names_the_batch_size_and_rows_of_another(tmp_path):
    asked = {"methods": ("none",), "tracks": ("knowledge",), "tasks": ("wmdp", "mmlu"), "limit": 4}
    whole = evaluate(Request(**asked), output=tmp_path / "whole", executor="inline", batch_size=7)
    assert "batch" not in json.dumps(whole.board.spec.facts)
    asked["dtype"] = "bfloat16"
    half = evaluate(Request(**asked), output=tmp_path / "half", executor="inline", batch_size=7)
    assert "batch_size 7" in half.board.spec.facts["measured with"]
    assert half.board.spec.facts["batches"].startswith(
        "in half precision answers follow the batch size; rows are made w"
    )
    mixed = evaluate(Request(**asked, nulls=("shuffled",)), output=tmp_path / "half", executor="inline", batch_size=3)
    notes = {row["variant"]: [text for text in row["warnings"] if "batch_size" in text] for row in mixed.board.rows}
    assert notes["base"] != notes["shuffled"]
    assert "batch_size" in mixed.board.to_markdown()
