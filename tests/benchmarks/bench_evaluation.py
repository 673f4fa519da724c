"""Evaluation against plainer ways of doing the same, side by side in one run.

    python tests/benchmarks/bench_evaluation.py --model FOLDER --data FOLDER --questions 200

Rows: choice questions against lm-eval's HFLM on the same prompts and model, a checkpoint's weights swapped in against a
model loaded from its folder, continuations against transformers' own `generate` on batches as they come. Both sides
take the same weights, dtype and threads; they take turns, and the best of the repeats of each counts, for the other
side the best of several batch sizes. Times are processor seconds, so that other work on the machine counts little; on a
machine with a GPU the same runs there in bfloat16, by the clock.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from safetensors.torch import load_file
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.maintenance.export import export_checkpoint
from unlearn_bench.harness.models.load import ModelSpec, find_device, load_model
from unlearn_bench.harness.planning.plan import build_task, chosen_items
from unlearn_bench.harness.records import Choices
from unlearn_bench.harness.store.delta import save_delta
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.tasks.base import ChoiceRequest, Decoding, GenerationRequest

SIZES = 8, 32, 128
"""Batch sizes of the other side, of which its best counts."""
LINE = "{:32}{:>6}{:>10}{:>10}{:>8}  {}"
NEAR = {"float32": 1e-3, "bfloat16": 0.5, "float16": 0.1}
"""Nats that log-probabilities may differ by: both sides pad and batch in their own way."""


@dataclass
class Row:
    """One comparison: items, seconds of either side, and whether their answers are the same (empty: not comparable)."""

    count: int
    ours: float
    theirs: float
    equal: str


def side_by_side(
    ours: Callable[[], Any], theirs: Sequence[Callable[[], Any]], repeats: int
) -> tuple[float, float, Any, Any]:
    """Return the best seconds of ours and of any of theirs, taking turns, and the last answers of both."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    sides = [ours, *theirs]
    seconds: list[list[float]] = [[] for _ in sides]
    answers: dict[int, Any] = {}
    for repeat in range(repeats):
        for side in range(len(sides))[:: 1 if repeat % 2 == 0 else -1]:
            started = clock()
            answers[side] = sides[side]()
            seconds[side].append(clock() - started)
    return min(seconds[0]), min(map(min, seconds[1:])), answers[0], answers[1]


def requests_of(name: str, data: Path, limit: int, settings: dict[str, Any]) -> list[Any]:
    """Return the requests of a seeded sample of a task of the suite `paper`."""
    spec = load_suite("paper").tasks[name].model_copy(update={"settings": settings})
    task = build_task(spec, data)
    return list(task.requests(chosen_items(task, spec, data, limit)))


def choices(engine: TransformersEngine, plain: Any, asked: Sequence[ChoiceRequest], repeats: int) -> Row:
    """Compare with lm-eval: the same answer chosen, log-probabilities near."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model: Any = HFLM(pretrained=plain, tokenizer=engine.tokens.tokenizer)
    pairs = [(request.context, choice) for request in asked for choice in request.choices]

    def theirs(size: int) -> list[list[float]]:
        model.batch_size_per_gpu = size
        answers = model.loglikelihood(
            [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)], disable_tqdm=True
        )
        values = iter(value for value, _ in answers)
        return [[next(values) for _ in request.choices] for request in asked]

    def ours() -> list[Choices]:
        return engine.score_choices(asked)

    mine, other, found, expected = side_by_side(ours, [partial(theirs, size) for size in SIZES], repeats)
    near = NEAR[str(engine.model.dtype).removeprefix("torch.")]
    gaps = [
        abs(a - b) for one, two in zip(found, expected, strict=True) for a, b in zip(one.logprobs, two, strict=True)
    ]
    same = sum(
        one.logprobs.index(max(one.logprobs)) == two.index(max(two)) for one, two in zip(found, expected, strict=True)
    )
    word = "yes" if same == len(asked) and max(gaps) <= near else "NO"
    return Row(len(asked), mine, other, f"{word}: {same} of {len(asked)}, {max(gaps):.1e} nats")


def swap(engine: TransformersEngine, asked: Sequence[ChoiceRequest], repeats: int) -> Row:
    """Compare a changed tensor a layer swapped in and out with a new engine on the exported checkpoint."""
    torch.manual_seed(0)
    names = [name for name, _ in engine.model.named_parameters() if name.endswith("mlp.down_proj.weight")][5:8]
    own = engine.model.state_dict()
    delta = {name: (own[name] + 0.01 * torch.randn_like(own[name])).cpu() for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        file, folder = Path(temporary, "delta.safetensors"), Path(temporary, "checkpoint")
        save_delta(file, delta)
        export_checkpoint(engine.spec, file, folder)
        spec = engine.spec.model_copy(update={"path": str(folder)})

        def ours() -> None:
            engine.apply(load_file(file))
            engine.restore()

        def theirs() -> TransformersEngine:
            return TransformersEngine(spec, device=str(engine.device), batch_size=engine.batch_size)

        mine, other, _, loaded = side_by_side(ours, [theirs], repeats)
        engine.apply(delta)
        same = engine.score_choices(asked) == loaded.score_choices(asked)
        engine.restore()
    return Row(1, mine, other, "yes" if same else "NO")


def generate(
    engine: TransformersEngine, plain: Any, asked: Sequence[GenerationRequest], decoding: Decoding, repeats: int
) -> Row:
    """Compare with transformers' `generate` on batches as they come, padded; sampled texts cannot be compared."""
    sampled = decoding.temperature > 0
    options: dict[str, Any] = {"do_sample": False}
    if sampled:
        options = {"do_sample": True, "top_p": decoding.top_p, "top_k": 0, "temperature": decoding.temperature}
        options["num_return_sequences"] = decoding.samples

    def theirs(size: int) -> list[list[int]]:
        found, at_once = [], max(1, size // (decoding.samples if sampled else 1))
        for start in range(0, len(asked), at_once):
            prompts = [engine.tokens.encode(request.prompt) for request in asked[start : start + at_once]]
            ids, mask = engine._padded(prompts)
            with torch.inference_mode():
                out = plain.generate(ids, attention_mask=mask, max_new_tokens=decoding.max_new_tokens, **options)
            found += out[:, ids.shape[1] :].tolist()
        return found

    others = [partial(theirs, size) for size in SIZES]
    mine, other, texts, tokens = side_by_side(lambda: engine.generate(asked, decoding), others, repeats)
    if sampled:
        return Row(len(asked), mine, other, "")
    ends = set(engine.tokens.ends(plain.generation_config))
    same = 0
    for request, answer, drawn in zip(asked, texts, tokens, strict=True):
        kept = drawn[: next((place for place, token in enumerate(drawn) if token in ends), len(drawn))]
        same += answer.texts[0] == engine.tokens.continuation(engine.tokens.encode(request.prompt), kept)
    return Row(len(asked), mine, other, f"{'yes' if same == len(asked) else 'NO'}: {same} of {len(asked)}")


def main(arguments: Sequence[str] | None = None) -> dict[str, Row]:
    """Run the comparisons, print the table and return its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="folder in Hugging Face layout")
    parser.add_argument("--data", type=Path, required=True, help="folder with mmlu/ and realtoxicityprompts/")
    parser.add_argument("--questions", type=int, default=100, help="questions a form; five shots take a fifth")
    parser.add_argument("--prompts", type=int, default=32, help="prompts that are continued")
    parser.add_argument("--batch-size", type=int, default=64, help="of ours")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", default="", help="run rows whose name holds this")
    options = parser.parse_args(arguments)
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    device = find_device("auto")
    dtype = "float32" if device == "cpu" else "bfloat16"
    spec = ModelSpec(name="model", path=str(options.model), dtype=dtype)
    engine = TransformersEngine(spec, device=device, batch_size=options.batch_size)
    plain = load_model(spec, device)
    few, data, repeats = max(1, options.questions // 5), options.data, options.repeats

    def asked(count: int, **settings: Any) -> list[Any]:
        return requests_of("mmlu", data, count, settings)

    def prompts(count: int) -> list[Any]:
        return requests_of("realtoxicityprompts", data, count, {})

    def continued(decoding: Decoding) -> Row:
        return generate(engine, plain, prompts(options.prompts), decoding, repeats)

    runs: dict[str, Callable[[], Row]] = {
        "letters / HFLM": lambda: choices(engine, plain, asked(options.questions, form="letters"), repeats),
        "letters, 5 shots / HFLM": lambda: choices(engine, plain, asked(few, form="letters", num_fewshot=5), repeats),
        "continuation / HFLM": lambda: choices(engine, plain, asked(options.questions, form="continuation"), repeats),
        "weights swapped / reloaded": lambda: swap(engine, asked(4, form="letters"), repeats),
        "greedy texts / generate": lambda: continued(Decoding(samples=1, temperature=0)),
        "5 samples a prompt / generate": lambda: continued(Decoding(samples=5)),
    }
    place = f"{dtype} on {device}, {options.threads} threads"
    print(f"{options.model.name}, {place}, batches of {options.batch_size}, best of {repeats}")
    print(LINE.format("ours / theirs", "items", "ours s", "theirs s", "faster", "same answers"))
    rows = {}
    for name, run in runs.items():
        if options.only in name:
            row = rows[name] = run()
            numbers = (f"{value:.3f}" for value in (row.ours, row.theirs, row.theirs / row.ours))
            print(LINE.format(name, row.count, *numbers, row.equal), flush=True)
    return rows


if __name__ == "__main__":
    main()
