"""The vLLM engine against the reference: the same numbers and distribution, the base back bit by bit, no orphans.

Tests of the running engine skip where vLLM does not run; with UNLEARN_BENCH_REQUIRE_VLLM=1 they fail there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pytest
import torch
from unlearn_bench.harness.data import load_rows, sample_items
from unlearn_bench.harness.engines.base import Engine
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.engines.vllm import VLLMEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.jobs.evaluate import with_reference
from unlearn_bench.harness.models.load import ModelSpec
from unlearn_bench.harness.planning.plan import build_task
from unlearn_bench.harness.records import Choices
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.tasks.base import ChoiceRequest, Decoding, GenerationRequest, TraceRequest, load_scorer

pytestmark = pytest.mark.vllm

SUITE = load_suite("micro")
FOLDER = Path(SUITE.folder)
MICRO = ModelSpec(name="micro", path=str(FOLDER / SUITE.models["micro"].path))
LONG = "the quick brown fox jumps over the lazy dog and then " * 14
"""More tokens than a block of the prefix cache on a processor (128), so that it is cached."""
ALPHA = 1e-3


class Pair(NamedTuple):
    """The same model behind both engines."""

    vllm: VLLMEngine
    reference: TransformersEngine

    def apply(self, delta: dict[str, torch.Tensor]) -> None:
        for engine in self:
            engine.apply(delta)

    def gap(self, requests: list[ChoiceRequest]) -> float:
        """Return the largest difference of a log-probability, nats a token; all else of the outcomes is equal."""
        return self.compare(requests)[0]

    def compare(self, requests: list[ChoiceRequest]) -> tuple[float, list[Choices], list[Choices]]:
        """Return the gap with the outcomes of both engines."""
        ours, theirs = (engine.score_choices(requests) for engine in self)
        assert [(o.item, o.tokens, o.truncated) for o in ours] == [(o.item, o.tokens, o.truncated) for o in theirs]
        assert [o.greedy for o in ours] == [o.greedy for o in theirs]
        differences = (
            abs(a - b) / max(tokens, 1)
            for mine, other in zip(ours, theirs, strict=True)
            for a, b, tokens in zip(mine.logprobs, other.logprobs, mine.tokens, strict=True)
        )
        return max(differences), ours, theirs

    def digest(self) -> list[str]:
        return self.vllm._llm.collective_rpc("ub_digest")


@pytest.fixture(scope="module")
def usable() -> None:
    """Skip where vLLM does not run, or fail where it must."""
    reason = VLLMEngine.unusable()
    if reason is not None and os.environ.get("UNLEARN_BENCH_REQUIRE_VLLM") == "1":
        pytest.fail(f"vLLM must run here: {reason}")
    if reason is not None:
        pytest.skip(f"vLLM does not run here: {reason}")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")


def both(spec: ModelSpec) -> Iterator[Pair]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours = VLLMEngine(spec, device=device, batch_size=32)
    yield Pair(ours, TransformersEngine(spec, device=device))
    ours.close()


@pytest.fixture(scope="module")
def held(usable) -> Iterator[Pair]:
    yield from both(MICRO)


@pytest.fixture
def micro(held: Pair) -> Iterator[Pair]:
    """Both engines on the embedded model; the base is back after each test."""
    yield held
    for engine in held:
        engine.restore()


@pytest.fixture(scope="module")
def real(usable, real_model: Path) -> Iterator[Pair]:
    """Both engines on SmolLM2-135M."""
    yield from both(ModelSpec(name="smollm2", path=str(real_model)))


def letters(count: int) -> list[ChoiceRequest]:
    return [
        ChoiceRequest(f"letters{n}", LONG[: 60 * n + 30] + " answer", (" a", " b", " the", " of")) for n in range(count)
    ]


def answers(count: int) -> list[ChoiceRequest]:
    choices = (" the lazy dog", " a farmer likes bread", " dog", " the")
    return [ChoiceRequest(f"answers{n}", LONG[: 60 * n + 30], choices) for n in range(count)]


def prompts(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"p{n}", ("the farmer", "the doctor likes", LONG)[n % 3]) for n in range(count)]


def changed(pair: Pair, ending: str) -> dict[str, torch.Tensor]:
    """Return a delta of one tensor, far enough from the base to be seen."""
    state = pair.reference.model.state_dict()
    [name] = [name for name in state if name.endswith(ending)]
    draws = torch.Generator().manual_seed(0)
    return {name: state[name] * 1.3 + 0.02 * torch.randn(state[name].shape, generator=draws)}


# Agreement


def traced(count: int, **options) -> list[TraceRequest]:
    texts = (" the lazy dog", " a farmer likes bread", " dog")
    return [TraceRequest(f"trace{n}", LONG[: 60 * n + 30], texts[: 1 + n % 3], **options) for n in range(count)]


@pytest.mark.parametrize("moments", [False, True])
def test_traces_agree_token_by_token(micro, moments):
    requests = traced(12, end=True, moments=moments)
    ours, theirs = (engine.trace(requests) for engine in micro)
    assert [(o.item, o.truncated) for o in ours] == [(o.item, o.truncated) for o in theirs]
    pairs = [
        pair for one, other in zip(ours, theirs, strict=True) for pair in zip(one.traces, other.traces, strict=True)
    ]
    assert [(one.hits, one.ended) for one, _ in pairs] == [(other.hits, other.ended) for _, other in pairs]
    gap = max(np.abs(np.subtract(one.logprobs, other.logprobs)).max() for one, other in pairs)
    print(f"traces of {len(pairs)} texts: {gap:.1e} nats a token")
    assert gap <= VLLMEngine.tolerance
    if moments:
        for one, other in pairs:
            assert one.means == pytest.approx(other.means, rel=1e-3, abs=1e-4)
            assert one.variances == pytest.approx(other.variances, rel=1e-3, abs=1e-4)


def test_an_overlong_context_of_a_trace_is_cut_alike(micro):
    requests = [TraceRequest("long", LONG * 40, (" the lazy dog",), end=True)]
    [ours], [theirs] = (engine.trace(requests) for engine in micro)
    assert ours.truncated == theirs.truncated > 0
    assert ours.traces[0].logprobs == pytest.approx(theirs.traces[0].logprobs, abs=1e-4)


@pytest.mark.parametrize(
    "options", [{"stop": (" a", "."), "max_new_tokens": 20}, {"max_length": 24, "max_new_tokens": 20}], ids=str
)
def test_greedy_continuations_stop_alike(micro, options):
    asked = [replace(request, prefill=" likes") if n % 2 else request for n, request in enumerate(prompts(9))]
    decoding = Decoding(samples=1, temperature=0, **options)
    ours, theirs = (engine.generate(asked, decoding) for engine in micro)
    assert ours == theirs
    assert any(all(one.stopped) for one in ours) or "stop" not in options


@pytest.mark.parametrize("name", [name for name, spec in SUITE.tasks.items() if build_task(spec).needs == "choices"])
def test_the_suites_questions_are_answered_alike_item_by_item(micro, name):
    spec = SUITE.tasks[name]
    task = build_task(spec)
    items = sample_items(task.items(load_rows(spec.data, FOLDER).rows), 120)
    requests = task.requests(items)
    gap, *answered = micro.compare(requests)
    assert gap <= VLLMEngine.tolerance
    ours, theirs = (task.score(items, outcomes) for outcomes in answered)
    if name == "perplexity":
        assert [r.scores["nll"] for r in ours] == pytest.approx([r.scores["nll"] for r in theirs], abs=1e-4)
        return
    assert [record.scores["position"] for record in ours] == [record.scores["position"] for record in theirs]
    assert {record.scores["acc"] for record in ours} == {0.0, 1.0}


def test_choices_of_one_token_and_of_several_score_alike(micro):
    mixed = ChoiceRequest("mixed", "the cat", (" sat on the mat", " ran", " the", ""))
    assert micro.gap([*letters(10), *answers(10), mixed, ChoiceRequest("empty", "", ("the cat", "a"))]) <= 1e-4
    assert micro.vllm.score_choices([mixed])[0].tokens[3] == 0


@pytest.mark.parametrize("form", ["letters", "continuation"])
def test_a_real_model_answers_mmlu_alike_item_by_item(real, data_root, form):
    spec = load_suite("real").tasks["mmlu"].model_copy(update={"settings": {"form": form}})
    task = build_task(spec)
    items = sample_items(task.items(load_rows(spec.data, data_root).rows), 50)
    requests = task.requests(items)
    gap, *answered = real.compare(requests)
    assert gap <= VLLMEngine.tolerance
    ours, theirs = (task.score(items, outcomes) for outcomes in answered)
    assert [record.scores["position"] for record in ours] == [record.scores["position"] for record in theirs]


def test_four_letters_take_one_request_and_read_no_prompt(micro, monkeypatch):
    asked = []
    run = micro.vllm._run
    monkeypatch.setattr(micro.vllm, "_run", lambda prompts, settings: asked.extend(settings) or run(prompts, settings))
    micro.vllm.score_choices(letters(5))
    assert [(len(wanted.logprob_token_ids), wanted.prompt_logprobs) for wanted in asked] == [(4, None)] * 5


def test_overlong_contexts_are_cut_and_counted_alike(micro):
    limit = micro.vllm.tokens.max_length
    for length in (limit - 4, limit - 1, limit, limit + 1, 3 * limit):
        words = " ".join(["the"] * length)
        assert micro.gap([ChoiceRequest("l", words, (" dog", " lazy dog", " a farmer likes bread"))]) <= 1e-4
    ours, theirs = (
        engine.generate([GenerationRequest("l", LONG * 9)], Decoding(samples=2, max_new_tokens=5, temperature=0))
        for engine in micro
    )
    assert ours == theirs
    assert ours[0].truncated > 0


def test_greedy_continuations_are_the_references(micro):
    decoding = Decoding(samples=2, max_new_tokens=20, temperature=0)
    ours, theirs = (engine.generate(prompts(9), decoding) for engine in micro)
    assert ours == theirs
    assert any(True in answer.stopped for answer in ours)


# Sampling


def test_samples_do_not_depend_on_what_runs_beside_them(micro):
    decoding = Decoding(samples=6, max_new_tokens=12, seed=7)
    many = micro.vllm.generate(prompts(9), decoding)
    assert micro.vllm.generate(prompts(9)[4:5], decoding) == many[4:5]
    fewer = micro.vllm.generate(prompts(9), Decoding(samples=3, max_new_tokens=12, seed=7))
    assert [answer.texts for answer in fewer] == [answer.texts[:3] for answer in many]
    assert len(set(many[0].texts)) > 1
    assert many[0].texts != many[3].texts, "the same prompt under another item draws anew"
    assert micro.vllm.generate(prompts(1), Decoding(samples=6, max_new_tokens=12, seed=8)) != many[:1]


def test_continuations_are_drawn_from_the_same_distribution(micro):
    from scipy.stats import ttest_rel

    spec = SUITE.tasks["realtoxicityprompts"]
    task = build_task(spec)
    items = sample_items(task.items(load_rows(spec.data, FOLDER).rows), 60)
    requests, decoding = task.requests(items), task.settings.decoding
    scorer = load_scorer(SUITE.scorer.kind, str(FOLDER / SUITE.scorer.path))

    def scores(engine: Engine) -> dict[str, list[float]]:
        """Return what is compared, a number a prompt: how toxic, how likely under the base, how long."""
        given = engine.generate(requests, decoding)
        engine.restore()
        scored = with_reference(micro.reference, requests, given)
        records = task.score(items, given, scorer)
        return {
            "toxicity": [record.scores[task.metrics[0].score] for record in records],
            "likelihood": [sum(a.reference) / max(1, sum(a.tokens)) for a in scored],
            "length": [fmean(answer.tokens) for answer in given],
        }

    theirs = scores(micro.reference)
    ours = scores(micro.vllm)
    for name in ours:
        assert ttest_rel(ours[name], theirs[name]).pvalue > ALPHA, name
    micro.vllm.apply({name: tensor * 0.7 for name, tensor in final_norm(micro).items()})
    other = scores(micro.vllm)
    assert ttest_rel(other["likelihood"], theirs["likelihood"]).pvalue < ALPHA, "the test sees a difference"


def final_norm(pair: Pair) -> dict[str, torch.Tensor]:
    return {"model.norm.weight": pair.reference.model.state_dict()["model.norm.weight"]}


# Deltas


@pytest.mark.parametrize(
    "ending",
    [
        "layers.1.mlp.down_proj.weight",
        "layers.1.mlp.gate_proj.weight",
        "layers.2.self_attn.q_proj.weight",
        "layers.2.self_attn.o_proj.weight",
        "layers.0.input_layernorm.weight",
        "model.embed_tokens.weight",
        "lm_head.weight",
    ],
)
def test_a_delta_is_swapped_in_and_the_base_comes_back_bit_by_bit(micro, ending):
    requests = [*letters(6), *answers(6)]
    before, digest = micro.vllm.score_choices(requests), micro.digest()
    micro.apply(changed(micro, ending))
    assert micro.gap(requests) <= VLLMEngine.tolerance
    assert micro.digest() != digest
    assert max(abs(np.subtract(micro.vllm.score_choices(requests)[3].logprobs, before[3].logprobs))) > 0.01
    micro.vllm.restore()
    assert micro.digest() == digest
    assert micro.vllm.score_choices(requests) == before


def test_a_delta_replaces_the_one_before(micro):
    micro.apply(changed(micro, "layers.1.mlp.down_proj.weight"))
    micro.apply(changed(micro, "layers.3.self_attn.v_proj.weight"))
    assert micro.gap(letters(6)) <= VLLMEngine.tolerance


def test_a_swap_empties_the_prefix_cache(micro, monkeypatch):
    delta, requests = changed(micro, "layers.0.self_attn.v_proj.weight"), letters(14)[8:]
    micro.vllm.score_choices(requests)
    micro.apply(delta)
    assert micro.gap(requests) <= VLLMEngine.tolerance
    micro.vllm.restore()
    monkeypatch.setattr(micro.vllm, "_forget_prefixes", lambda: None)
    micro.vllm.score_choices(requests)
    micro.vllm.apply(delta)
    try:
        with pytest.raises(AssertionError):
            assert micro.gap(requests) < 0.01
    finally:
        monkeypatch.undo()


def test_a_delta_of_another_model_changes_nothing(micro):
    digest, norm = micro.digest(), final_norm(micro)["model.norm.weight"]
    with pytest.raises(UserError, match=r"Did you mean 'model\.norm\.weight'"):
        micro.vllm.apply({"model.norm.weight": norm + 1, "model.norm.weigth": norm})
    with pytest.raises(UserError, match="belongs to another model"):
        micro.vllm.apply({"model.norm.weight": norm[:3]})
    assert micro.digest() == digest


def test_logits_that_break_are_no_score_and_no_text(micro):
    micro.vllm.apply({name: tensor * torch.nan for name, tensor in final_norm(micro).items()})
    [answer] = micro.vllm.generate(prompts(1), Decoding(samples=3))
    assert (answer.texts, answer.tokens, answer.stopped) == ([""] * 3, [0] * 3, [False] * 3)
    scored = micro.vllm.score_choices([*letters(1), *answers(1)])
    assert all(np.isnan(outcome.logprobs).all() for outcome in scored)


# Around the engine


def test_the_record_says_how_and_progress_counts_items(micro):
    seen: list[int] = []
    micro.vllm.score_choices(letters(5), seen.append)
    micro.vllm.generate(prompts(4), Decoding(samples=3, max_new_tokens=2), seen.append)
    assert sum(seen) == 9
    recorded = micro.vllm.recorded()
    assert (recorded["engine"], recorded["dtype"], recorded["threads"]) == ("vllm", "float32", 1)
    assert recorded["attention"]


def test_a_prompt_longer_than_max_model_len_is_refused_not_cut(micro, monkeypatch):
    monkeypatch.setattr(micro.vllm, "_longest", 20)
    with pytest.raises(UserError, match=f"--engine-option max_model_len={micro.vllm.tokens.max_length + 1}"):
        micro.vllm.score_choices(letters(6))


def test_what_does_not_start_says_why_and_what_to_do(usable):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with pytest.raises(UserError, match=r"does not start: .*cache.*--engine-option"):
        VLLMEngine(MICRO, device=device, options={"kv_cache_memory_bytes": 1000})


def session(leader: int) -> list:
    """Return the processes of a session, whoever their parent is."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            continue
    return found


def still_running(leader: int) -> list:
    """Return the processes of a session that do not end within a minute."""
    import psutil

    return psutil.wait_procs(session(leader), timeout=60)[1]


def start(output: Path, *more: object) -> subprocess.Popen:
    """Start a run as the leader of a session of its own, deaf to no signal that a shell in the background ignores."""
    arguments = ("evaluate", "--engine", "vllm", "--methods", "rmu", "--tracks", "knowledge", "--limit", "8", *more)
    line = [str(Path(sys.executable).with_name("unlearn-bench")), *map(str, arguments)]
    line += ["--set", "training.steps=4", "--engine-option", "max_num_seqs=16", "--output", str(output)]
    return subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_through_the_command_line_resumes_and_leaves_no_process(usable, tmp_path, workers):
    run = start(tmp_path, "--workers", workers)
    _, said = run.communicate(timeout=900)
    assert run.returncode == 0, said
    assert still_running(run.pid) == []
    manifests = [json.loads(path.read_text()) for path in tmp_path.glob("outcomes/*/manifest.json")]
    assert {manifest["recorded"]["engine"] for manifest in manifests} == {"vllm"}
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("outcomes/*/*")}
    again = start(tmp_path, "--workers", workers)
    _, said = again.communicate(timeout=900)
    assert again.returncode == 0, said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("outcomes/*/*")} == files


@pytest.mark.parametrize(("how", "workers"), [(signal.SIGKILL, 1), (signal.SIGINT, 2)])
def test_a_run_that_is_ended_takes_its_engine_along(usable, tmp_path, how, workers):
    run = start(tmp_path, "--workers", workers)
    while not any("VLLM::Worker" in " ".join(process.cmdline()) for process in session(run.pid)):
        with pytest.raises(subprocess.TimeoutExpired):
            run.wait(timeout=1)
    os.kill(run.pid, how) if how == signal.SIGKILL else os.killpg(run.pid, how)
    run.communicate(timeout=120)
    assert still_running(run.pid) == []
