"""Methods that work at decoding time: the engine's numbers, and that nobody takes their tensors for weights."""

from __future__ import annotations

import json
import math
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from unlearn_bench.harness.authoring.catalog import catalog, describe
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.engines.vllm import VLLMEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.executors.base import Executor
from unlearn_bench.harness.jobs.worker import run_job
from unlearn_bench.harness.maintenance.export import export_cell
from unlearn_bench.harness.models.layers import decoder_layers, first_layers
from unlearn_bench.harness.models.load import ModelSpec, cut
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.results.board import board_of, write_board
from unlearn_bench.harness.runner import Runner
from unlearn_bench.harness.runtime import RunConfig
from unlearn_bench.harness.store.delta import decoding_of, load_delta, save_delta
from unlearn_bench.harness.store.entries import Entry, Store
from unlearn_bench.harness.store.files import file_sha256
from unlearn_bench.methods.testing import tiny_model
from unlearn_bench.methods.uld import ULD, ULDSettings
from unlearn_bench.tasks.base import ChoiceRequest, Decoding, GenerationRequest

DEPTH, WEIGHT, FILTER = 3, 0.8, 0.02
TEXTS = [
    "The clock on the tower",
    "A healer gathers",
    "To open the lock",
    "The river",
    "When the bell rings, the old man",
]
CHOICES = (" silver", " a small brass key", " never", " the root of the plant")


@pytest.fixture(scope="module")
def micro(root: Path) -> str:
    return str(root / "harness" / "suites" / "micro" / "model")


@pytest.fixture(scope="module")
def engine(micro) -> TransformersEngine:
    return TransformersEngine(ModelSpec(name="micro", path=micro), batch_size=24)


@pytest.fixture(scope="module")
def trained(engine) -> dict[str, Tensor]:
    """Tensors of an assistant that differs from the base's first layers."""
    torch.manual_seed(0)
    names = [f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(DEPTH)]
    state = engine.model.state_dict()
    return {name: state[name] + 0.1 * torch.randn(state[name].shape) for name in names}


@pytest.fixture
def wrapped(engine, trained):
    engine.wrap(trained, ULD(ULDSettings(depth=DEPTH, weight=WEIGHT, filter=FILTER)))
    yield engine
    engine.restore()


class Plain:
    """Two separate models without caches or batches, and the formula spelt out for one position at a time."""

    def __init__(self, folder: str, trained: dict[str, Tensor]) -> None:
        self.base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        config = AutoConfig.from_pretrained(folder)
        config.num_hidden_layers = DEPTH
        self.assistant = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        own = self.assistant.state_dict().keys()
        state = {**self.base.state_dict(), **trained}
        self.assistant.load_state_dict({name: tensor for name, tensor in state.items() if name in own})

    @torch.no_grad()
    def logprobs(self, tokens: list[int]) -> np.ndarray:
        """Return the log-probabilities of the token after these."""
        base, assistant = (
            model(torch.tensor([tokens])).logits[0, -1].double().numpy() for model in (self.base, self.assistant)
        )
        says = assistant - np.logaddexp.reduce(assistant) + math.log(len(assistant))
        likely = np.exp(base - base.max()) >= FILTER
        logits = np.where(likely, base - WEIGHT * says, base)
        return logits - np.logaddexp.reduce(logits)


@pytest.fixture(scope="module")
def plain(micro, trained) -> Plain:
    return Plain(micro, trained)


def questions() -> list[ChoiceRequest]:
    return [ChoiceRequest(f"q{n}", text, CHOICES[: 2 + n % 3]) for n, text in enumerate(TEXTS)]


def prompts() -> list[GenerationRequest]:
    return [GenerationRequest(f"p{n}", text) for n, text in enumerate(TEXTS)]


def test_choices_score_as_with_two_separate_models(wrapped, plain):
    for request, found in zip(questions(), wrapped.score_choices(questions()), strict=True):
        for place, (head, tail) in enumerate(wrapped.tokens.pairs(request.context, request.choices)):
            steps = [plain.logprobs(head + tail[:length]) for length in range(len(tail))]
            expected = sum(step[token] for step, token in zip(steps, tail, strict=True))
            assert found.logprobs[place] == pytest.approx(expected, abs=2e-4)
            assert found.greedy[place] == all(step.argmax() == token for step, token in zip(steps, tail, strict=True))


def test_generation_with_caches_is_that_without(wrapped, plain):
    found = wrapped.generate(prompts(), Decoding(samples=1, max_new_tokens=10, temperature=0))
    ends = wrapped.tokens.ends(wrapped.model.generation_config)
    for request, answer in zip(prompts(), found, strict=True):
        prompt = wrapped.tokens.encode(request.prompt)
        drawn: list[int] = []
        while len(drawn) < 10 and not (drawn and drawn[-1] in ends):
            drawn.append(int(plain.logprobs(prompt + drawn).argmax()))
        drawn = [token for token in drawn if token not in ends]
        assert answer.texts == [wrapped.tokens.continuation(prompt, drawn)]


def test_answers_do_not_depend_on_the_batch(wrapped, monkeypatch):
    decoding = Decoding(samples=4, max_new_tokens=12)
    together = wrapped.score_choices(questions()), wrapped.generate(prompts(), decoding)
    monkeypatch.setattr(wrapped, "batch_size", 1)
    alone = (
        [wrapped.score_choices([request])[0] for request in questions()],
        [wrapped.generate([request], decoding)[0] for request in prompts()],
    )
    assert together[1] == alone[1]
    for ours, theirs in zip(together[0], alone[0], strict=True):
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=TransformersEngine.tolerance)


def test_the_base_is_never_changed_and_answers_alone_after_restore(engine, trained):
    before = {name: tensor.clone() for name, tensor in engine.model.state_dict().items()}
    forwards = [vars(module).get("forward") for module in engine.model.modules()]
    asked = questions(), prompts(), Decoding(samples=2, max_new_tokens=6)

    def answers() -> tuple[Any, Any]:
        return engine.score_choices(asked[0]), engine.generate(asked[1], asked[2])

    base = answers()
    engine.wrap(trained, ULD(ULDSettings(depth=DEPTH)))
    wrapped = answers()
    assert wrapped[0] != base[0]
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.model.state_dict().items())
    engine.apply(trained)
    changed = answers()
    assert changed[0] not in (base[0], wrapped[0])
    engine.wrap(trained, ULD(ULDSettings(depth=DEPTH)))
    assert answers() == wrapped
    engine.restore()
    assert answers() == base
    assert all(torch.equal(tensor, before[name]) for name, tensor in engine.model.state_dict().items())
    assert [vars(module).get("forward") for module in engine.model.modules()] == forwards
    assert not any(module._forward_hooks for module in engine.model.modules())


def test_an_assistant_of_another_model_is_refused(engine, trained):
    name, tensor = next(iter(trained.items()))
    with pytest.raises(UserError, match="belongs to another model"):
        engine.wrap({name: tensor[:3]}, ULD(ULDSettings(depth=DEPTH)))
    with pytest.raises(UserError, match="assistant has 40 layers"):
        engine.wrap(trained, ULD(ULDSettings(depth=40)))
    with pytest.raises(UserError, match="cannot run a method that works at decoding time"):
        VLLMEngine.wrap(engine, trained, ULD(ULDSettings(depth=DEPTH)))


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2", "gemma3_text", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("depth", [1, 4])
def test_the_first_layers_are_the_model_cut_there(family, depth):
    """With and without a cache, whatever a family's layers hand on."""
    whole = tiny_model(family, layers=6)
    config = type(whole.config)(**whole.config.to_dict())
    cut(config, depth)
    short = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    own = short.state_dict().keys()
    short.load_state_dict({name: tensor for name, tensor in whole.state_dict().items() if name in own})
    ids = torch.randint(3, 80, (2, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]])
    modules = decoder_layers(whole)[1]
    with torch.no_grad():
        expected = short(ids, attention_mask=mask).logits
        with first_layers(modules, depth):
            found = whole(ids, attention_mask=mask).logits
            out = whole(ids[:, :5], attention_mask=mask[:, :5], use_cache=True)
        with first_layers(modules, depth):
            steps = whole(ids[:, 5:], attention_mask=mask, past_key_values=out.past_key_values, use_cache=True).logits
        assert not torch.equal(whole(ids, attention_mask=mask).logits, expected)
    real = mask.bool()
    torch.testing.assert_close(found[real], expected[real])
    torch.testing.assert_close(steps[:, -2:], expected[:, -2:])


def test_an_engine_that_cannot_run_it_says_so_before_anything_runs():
    """vLLM need not be there for that."""
    with pytest.raises(UserError, match=r"Method uld works at decoding time; engine vllm cannot run it: pass --engine"):
        make_plan(Request(methods=("rmu", "uld"), engine="vllm", limit=4), None)


def test_all_leaves_it_out_of_such_an_engine_and_the_plan_says_so(monkeypatch):
    monkeypatch.setattr(VLLMEngine, "unusable", classmethod(lambda cls: None))
    for asked in ("vllm", "auto"):
        plan = make_plan(Request(engine=asked, limit=4), None)
        assert plan.engine == "vllm"
        assert "uld" not in {cell.spec.method for cell in plan.cells}
        assert "rmu" in {cell.spec.method for cell in plan.cells}
        assert any(note.startswith("uld is left out: it works at decoding time") for note in plan.notes)
    with pytest.raises(UserError, match="Method uld works at decoding time"):
        make_plan(Request(methods=("all", "uld"), limit=4), None)
    there = make_plan(Request(engine="transformers", limit=4), None)
    assert "uld" in {cell.spec.method for cell in there.cells}
    assert not any("decoding" in note for note in there.notes)


def test_noise_is_matched_to_methods_that_change_weights():
    def cells(*names: str) -> dict[str, list]:
        plan = make_plan(Request(methods=names, tracks=("knowledge",), limit=4, engine="transformers"), None)
        return {kind: [c for c in plan.cells if c.spec.transform == kind] for kind in ("train", "noise")}

    both, one, none = cells("rmu", "uld"), cells("rmu"), cells("uld")
    assert [cell.id for cell in both["noise"]] == [cell.id for cell in one["noise"]]
    assert len(both["train"]) == 2
    assert none["noise"] == []


def test_stress_leaves_it_alone():
    request = Request(
        methods=("rmu", "uld"), tracks=("knowledge",), limit=4, engine="transformers", stress=("quantise4",)
    )
    stressed = {cell.spec.method for cell in make_plan(request, None).cells if cell.spec.stress}
    assert stressed == {"base", "rmu"}


def test_the_file_says_what_its_tensors_are(tmp_path):
    tensors, said = {"a": torch.ones(2)}, {"kind": "uld", "settings": {"depth": 3}}
    entry, other = Entry(tmp_path / "one"), Entry(tmp_path / "two")
    for place, decoding in ((entry, said), (other, None)):
        place.path.mkdir()
        save_delta(place.file("delta.safetensors"), tensors, decoding=decoding)
    assert (decoding_of(entry), decoding_of(other)) == (said, None)
    assert file_sha256(entry.file("delta.safetensors")) != file_sha256(other.file("delta.safetensors"))
    assert load_delta(other).keys() == {"a"}
    with pytest.raises(UserError, match="works at decoding time"):
        load_delta(entry)


def test_list_and_show_say_what_a_method_changes(tmp_path):
    changes = {row.name: row.changes for row in catalog("methods", None).rows}
    assert (changes["uld"], changes["rmu"]) == ("decoding", "weights")
    assert describe("uld", tmp_path).changes == "decoding"


class Here(Executor):
    """Runs each job in this process, at once."""

    summary = "for tests"

    def __init__(self, workers: int = 1, report: Any = None) -> None: ...

    def submit(self, job) -> Future[None]:
        future: Future[None] = Future()
        future.set_result(run_job(job, lambda event: None))
        return future

    def close(self, *, now: bool = False) -> None: ...


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    store = Store.create(tmp_path_factory.mktemp("store"))
    request = Request(
        methods=("rmu", "uld"),
        tracks=("knowledge",),
        tasks=("wmdp", "mmlu"),
        limit=12,
        settings=("training.steps=2", "uld.depth=3"),
        engine="transformers",
    )
    plan = make_plan(request, store)
    plan.save(store)
    assert not Runner(plan, store, Here(), RunConfig(store=store.root, device="cpu", threads=1)).run()
    write_board(board_of(plan, store), store)
    return store.root


def test_a_board_marks_it_and_reports_read_the_same_row(run):
    board = json.loads((run / "leaderboards" / "micro.json").read_text())
    changes = {row["method"]: row["changes"] for row in board["rows"]}
    assert changes.items() >= {"base": "weights", "rmu": "weights", "uld": "decoding"}.items()
    assert all(row["status"] == "ok" for row in board["rows"])
    assert "`uld[depth=3" in (run / "leaderboards" / "micro.md").read_text().split("at decoding time")[0]


def test_its_cell_is_not_exported_and_its_tensors_are_not_weights(run, tmp_path):
    store = Store.open(run)
    plan = Plan.load(store)
    [cell] = [cell for cell in plan.cells if cell.spec.method == "uld"]
    entry = store.entry("cells", cell.id)
    assert decoding_of(entry) == {"kind": "uld", "settings": cell.spec.settings["settings"]}
    with pytest.raises(UserError, match="works at decoding time"):
        export_cell(cell.id, tmp_path / "new", run)
    assert not (tmp_path / "new").exists()
    assert describe(cell.id, run).changes == "decoding"
