"""Methods that train a model first and use it: what a stage made is asked, gone on from, resumed and given back."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.jobs.worker import build_checkpoint
from unlearn_bench.harness.models.patch import apply_delta
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.cost import CostEstimate
from unlearn_bench.harness.planning.estimate import estimates
from unlearn_bench.harness.planning.plan import Plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.runtime import Event, OnEvent, RunConfig
from unlearn_bench.harness.store.delta import load_delta
from unlearn_bench.harness.store.entries import Entry, Store
from unlearn_bench.harness.transforms import train
from unlearn_bench.harness.transforms.base import BuildJob
from unlearn_bench.methods.base import Stage, methods
from unlearn_bench.methods.likelihood import LanguageModelling, LikelihoodMethod, LikelihoodSettings, token_mean
from unlearn_bench.methods.testing import check_method, tiny_model, tiny_trainer

torch.set_num_threads(1)


def language(**settings) -> LanguageModelling:
    return LanguageModelling(LikelihoodSettings.model_validate(settings))


class ReinforcedSettings(LikelihoodSettings):
    alpha: float = 5.0
    reinforce: int = 3


class Reinforced(LikelihoodMethod):
    """Labels of a reinforced model, as Who's Harry Potter without a dictionary (arXiv 2310.02238)."""

    Settings = ReinforcedSettings
    version, citation, summary = 1, "arXiv 2310.02238", "labels of a reinforced model"

    def stages(self) -> Mapping[str, Stage]:
        return {"reinforced": Stage(language(), {"steps": self.settings.reinforce})}

    def losses(self, batch):
        base = self.context.frozen_logits(batch.forget)[:, :-1]
        reinforced = self.context.stage_logits("reinforced", batch.forget)[:, :-1]
        assert not reinforced.requires_grad
        labels = (base - self.settings.alpha * torch.relu(reinforced - base)).argmax(-1)
        logits = self.context.logits(batch.forget)[:, :-1]
        nll = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        return {"forget": token_mean(nll.view(labels.shape), batch.forget.mask[:, 1:])}


class Chained(LikelihoodMethod):
    """One stage goes on from another, and the method from the second; the first is asked too."""

    Settings = LikelihoodSettings
    version, citation, summary = 1, "none", "a chain"
    start: ClassVar[str | None] = "second"

    def stages(self) -> Mapping[str, Stage]:
        first, second = (Stage(language(layers=(layer,)), {"steps": 2}) for layer in (3, 5))
        return {"first": first, "second": replace(second, start="first")}

    def losses(self, batch):
        logits, wanted = self.context.logits(batch.forget), self.context.stage_logits("first", batch.forget)
        return {"forget": token_mean((logits - wanted).square().sum(-1), batch.forget.mask)}


@pytest.fixture(autouse=True)
def registered():
    with methods.temporary("reinforced", Reinforced), methods.temporary("chained", Chained):
        yield


def modelled(layers=None, steps=2, model=None):
    with methods.temporary("language", LanguageModelling):
        trainer = tiny_trainer("language", {"layers": layers}, steps=steps, model=model)
    trainer.run()
    return trainer


def state_of(trainer) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(trainer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def logits_of(model, tokens):
    with torch.no_grad():
        return model(input_ids=tokens.ids, attention_mask=tokens.mask).logits


@pytest.mark.parametrize("settings", [{}, {"parameters": "lora", "lora_rank": 2}])
def test_a_stage_is_a_training_of_its_own_and_is_asked_beside_the_frozen_model(settings):
    trainer = tiny_trainer("reinforced", settings, steps=3)
    assert trainer.steps == 6
    trainer.run(until=4)
    apart = modelled(steps=3)
    reinforced = tiny_model()
    apply_delta(reinforced, "tiny", apart.delta())
    text = trainer.context.batch(2).forget
    torch.testing.assert_close(trainer.context.stage_logits("reinforced", text), logits_of(reinforced, text))
    torch.testing.assert_close(trainer.context.frozen_logits(text), logits_of(tiny_model(), text))
    trainer.run()
    assert [row["step"] for row in trainer.log] == [-1, 0, 1, 2]
    assert trainer.log[0]["stages"] == {"reinforced": apart.log}
    assert trainer.done
    with pytest.raises(UserError, match=r"No stage 'reinforce' came before. Did you mean 'reinforced'"):
        trainer.context.stage_logits("reinforce", text)


def test_a_chain_goes_on_from_stages_and_is_told_from_the_model_as_it_was():
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = tiny_trainer("chained", model=model, steps=2)
    trainer.run(until=5)
    first = modelled((3,)).delta()
    onto = tiny_model()
    apply_delta(onto, "tiny", first)
    second = first | modelled((5,), model=onto).delta()
    start, stage = tiny_model(), tiny_model()
    apply_delta(start, "tiny", second)
    apply_delta(stage, "tiny", first)
    text = trainer.context.batch(2).forget
    torch.testing.assert_close(trainer.context.frozen_logits(text), logits_of(start, text))
    torch.testing.assert_close(trainer.context.stage_logits("first", text), logits_of(stage, text))
    trainer.run()
    now = logits_of(model, text)
    delta = trainer.delta()
    trainer.restore()
    assert same(before, model.state_dict())
    apply_delta(model, "tiny", delta)
    assert torch.equal(logits_of(model, text), now), "evaluation sees what was trained"


@pytest.mark.parametrize("name", ["reinforced", "chained"])
def test_it_resumes_bit_for_bit_within_and_between_stages(name):
    unbroken = tiny_trainer(name, steps=3)
    unbroken.run()
    for stop in (1, 2, 3, 4, 5, 6):
        first, second = tiny_trainer(name, steps=3), tiny_trainer(name, steps=3)
        first.run(until=stop)
        second.load_state_dict(state_of(first))
        assert second.step == stop
        second.run()
        assert second.log == unbroken.log
        assert same(second.delta(), unbroken.delta())


def test_training_settings_of_a_stage_and_stages_that_come_later_are_told():
    class Wrong(Chained):
        def stages(self):
            return {"first": Stage(language(), {"step": 2})}

    class Later(Chained):
        start = "third"

    for kind, words in ((Wrong, "stage first: unknown key 'step'"), (Later, "no earlier stage")):
        with methods.temporary("wrong", kind), pytest.raises(UserError, match=words):
            tiny_trainer("wrong")


@pytest.mark.parametrize("name", ["reinforced", "chained"])
def test_both_keep_the_contract(name):
    check_method(name)


class Killed(BaseException):
    """What ends a job as a signal does: no handler of errors sees it."""


def test_a_cell_of_stages_is_made_and_goes_on_where_it_was(tmp_path, monkeypatch):
    plan = planned(2, "training.batch_size=2", "reinforced.layers=[1]")
    (cell,) = (cell.spec for cell in plan.cells if cell.spec.method == "reinforced")

    def make(name: str, report: OnEvent = lambda event: None) -> Entry:
        place = RunConfig(store=Store.create(tmp_path / name).root, device="cpu", threads=1)
        corpora = plan.suite.tracks["knowledge"].corpora
        job = BuildJob(place, plan.models["micro"], cell, corpora, Path(plan.data_folder or ""))
        build_checkpoint(job, report)
        return Store.open(tmp_path / name).entry("cells", cell.id)

    def kill(event: Event) -> None:
        assert event.total == 5
        if event.done == 4:
            raise Killed

    calm = make("calm")
    monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    with pytest.raises(Killed):
        make("killed", kill)
    killed = make("killed")
    for file in ("delta.safetensors", "training.jsonl"):
        assert killed.file(file).read_bytes() == calm.file(file).read_bytes()
    assert {name.split(".")[2] for name in load_delta(calm)} == {"1"}, "the stage's own change is thrown away"


def test_an_estimate_counts_the_stages():
    short, long = (estimated(steps) for steps in (3, 300))
    assert long.seconds > short.seconds
    assert long.memory_bytes == short.memory_bytes


def planned(reinforce: int, *settings: str) -> Plan:
    settings = ("training.steps=3", f"reinforced.reinforce={reinforce}", *settings)
    asked = Request(methods=("reinforced",), tracks=("knowledge",), limit=16, noise=False, settings=settings)
    return make_plan(asked, None)


def estimated(steps: int) -> CostEstimate:
    estimate = estimates(planned(steps), 16).rows[-1].estimate
    assert estimate is not None
    return estimate
