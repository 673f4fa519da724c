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

from ...planning.scorer_check import FILES
from .generator import classifier as classifier_module
from .generator import lexicon, measure, pretrain
from .generator.world import World

logger = logging.getLogger(f"{__package__}.build")

REVISION = 3
"""Raised by one whenever the world changes after reported items were scored."""
PARTS = ("data", "model", "reference", "judge")
CLEAR = 24
"""Comments of either label that the classifier's folder brings for its check."""


def serialise(world: World) -> dict[str, bytes]:
    """The content of every data file by name: one JSON object a line."""
    return {
        f"{stem}.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        for stem, rows in world.data.items()
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


def build_reference(world: World, folder: Path) -> None:
    """Trains and writes the reference: the base's twin that was never told of the forget topics."""
    tokenizer = pretrain.train_tokenizer(world)
    topics = [subject.name for subject in lexicon.FORGET_SUBJECTS]
    pretrain.save(pretrain.train_model(world, tokenizer, topics), tokenizer, folder)


def build_classifier(world: World, folder: Path) -> None:
    """Trains and writes the classifier, with clear comments of this world that it must tell apart."""
    tokenizer = classifier_module.train_tokenizer(world)
    classifier_module.save(classifier_module.train_classifier(world, tokenizer), tokenizer, folder)
    for name, lines in clear_comments(world).items():
        (folder / name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def clear_comments(world: World) -> dict[str, list[str]]:
    """The first comments of either label that no part of the classifier's training holds, by file."""
    rows = world.data["classifier_test"]
    return {
        name: [str(row["text"]) for row in rows if row["label"] == label][:CLEAR]
        for name, label in zip(FILES, (1, 0), strict=True)
    }


def describe(world: World, out: Path) -> dict[str, Any]:
    """The card: what the folder holds, and its measured properties on validation items."""
    base, reference, data = measure.Base.load(out), measure.Base.load(out, "reference"), world.data
    topics = [subject.name for subject in lexicon.FORGET_SUBJECTS]
    classifier = base.classifier
    return {
        "name": "micro",
        "revision": REVISION,
        "seed": world.seed,
        "scored_items": "validation only",
        "forget_topics": topics,
        "utility_subjects": [subject.name for subject in lexicon.UTILITY_SUBJECTS],
        "neighbour_subjects": list(lexicon.NEIGHBOURS),
        "counts": {stem: len(rows) for stem, rows in world.data.items()},
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in serialise(world).items()},
        "parameters": {
            "model": _size(base.engine.model),
            "classifier": _size(classifier.embedder) + _size(classifier.dense),
        },
        "vocabulary": {"model": len(base.engine.tokens.tokenizer), "classifier": len(classifier.tokenizer)},
        "measured": {
            "wmdp_validation": measure.knowledge(base, "wmdp", data["wmdp_validation"]),
            "mmlu_validation": measure.knowledge(base, "mmlu", data["mmlu_validation"]),
            "otherwise_validation": measure.otherwise(base, data, topics),
            "reference": {
                "wmdp_validation": measure.knowledge(reference, "wmdp", data["wmdp_validation"]),
                "mmlu_validation": measure.knowledge(reference, "mmlu", data["mmlu_validation"]),
                "otherwise_validation": measure.otherwise(reference, data, topics),
            },
            "toxicity_validation": measure.base_toxicity(base, data["prompts_validation"], world.seed),
            "classifier": measure.classifier_quality(base, world, data["classifier_test"]),
            "loss_per_token": measure.gibberish(base, data["prompts_validation"], world.seed),
            "retain_heldout_loss_per_token": measure.fluency(base, data["retain_heldout"]),
        },
    }


def _size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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
    builders = {"data": build_data, "model": build_model, "reference": build_reference, "judge": build_classifier}
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
