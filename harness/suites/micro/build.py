"""Rebuilds the micro suite from its seed: `python -m unlearn_bench.harness.suites.micro.build --out DIR --seed 0`.

The data files come out byte for byte the same; the weights behave alike. Only validation items are scored here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from . import judge as judge_module
from . import lexicon, measure, pretrain
from .world import World

logger = logging.getLogger(f"{__package__}.build")

REVISION = 2
"""Raised by one whenever the world changes after reported items were scored."""
PARTS = ("data", "model", "judge")


def serialise(world: World) -> dict[str, bytes]:
    """The content of every data file by name: one JSON object a line."""
    return {
        f"{stem}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        for stem, rows in world.files.items()
    }


def build_data(world: World, folder: Path) -> None:
    """Writes the data files, after asserting that a second world of the same seed gives the same bytes."""
    files = serialise(world)
    if files != serialise(World(world.seed)):
        raise AssertionError("the world is not a pure function of its seed")
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def build_model(world: World, folder: Path) -> None:
    """Trains and writes the base language model."""
    tokenizer = pretrain.train_tokenizer(world)
    pretrain.save(pretrain.train_model(world, tokenizer), tokenizer, folder)


def build_judge(world: World, folder: Path) -> None:
    """Trains and writes the judge."""
    tokenizer = judge_module.train_tokenizer(world)
    judge_module.save(judge_module.train_judge(world, tokenizer), tokenizer, folder)


def describe(world: World, out: Path) -> dict[str, Any]:
    """The card: what the folder holds, and its measured properties on validation items."""
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    model = LlamaForCausalLM.from_pretrained(out / "model", dtype=torch.float32).eval()
    judge, judge_tokenizer = judge_module.load(out / "judge")
    data = world.data
    models = (model, tokenizer, judge, judge_tokenizer)
    return {
        "name": "micro",
        "revision": REVISION,
        "seed": world.seed,
        "scored_items": "validation only",
        "forget_topics": [subject.name for subject in lexicon.FORGET_SUBJECTS],
        "utility_subjects": [subject.name for subject in lexicon.UTILITY_SUBJECTS],
        "neighbour_subjects": list(lexicon.NEIGHBOURS),
        "counts": {stem: len(rows) for stem, rows in world.files.items()},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in serialise(world).items()},
        "parameters": {
            "model": sum(parameter.numel() for parameter in model.parameters()),
            "judge": sum(parameter.numel() for parameter in judge.parameters()),
        },
        "vocabulary": {"model": len(tokenizer), "judge": len(judge_tokenizer)},
        "measured": {
            "wmdp_validation": measure.knowledge(model, tokenizer, data["wmdp_validation"]),
            "mmlu_validation": measure.knowledge(model, tokenizer, data["mmlu_validation"]),
            "toxicity_validation": measure.base_toxicity(*models, data["prompts_validation"], world.seed),
            "judge": measure.judge_quality(world, judge, judge_tokenizer),
            "loss_per_token": measure.gibberish(*models, data["prompts_validation"], world.seed),
            "retain_heldout_loss_per_token": measure.fluency(model, tokenizer, data["retain_heldout"]),
        },
    }


def main() -> None:
    """Builds the parts asked for, then writes the card if all parts are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="seed of the world")
    parser.add_argument("--only", choices=PARTS, help="build one part only")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger(__package__).setLevel(logging.INFO)
    torch.set_num_threads(1)
    world = World(arguments.seed)
    builders = {"data": build_data, "model": build_model, "judge": build_judge}
    for part in PARTS if arguments.only is None else (arguments.only,):
        started = time.monotonic()
        builders[part](world, arguments.out / part)
        logger.info("%s built in %.0f s", part, time.monotonic() - started)
    if all((arguments.out / part).is_dir() for part in PARTS):
        text = json.dumps(describe(world, arguments.out), indent=2)
        (arguments.out / "card.json").write_text(text + "\n", encoding="utf-8")
        logger.info("card written")


if __name__ == "__main__":
    main()
