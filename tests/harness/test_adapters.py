"""Adapters as checkpoints: each is measured exactly as the merged model, or refused by the plan with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoHaConfig, LoKrConfig, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM
from unlearn_bench.harness.api import evaluate, load_records
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.maintenance.export import export_cell
from unlearn_bench.harness.models.adapter import check_adapter, merged
from unlearn_bench.harness.models.load import ModelSpec, load_model, resolve_models
from unlearn_bench.harness.planning.build import make_plan
from unlearn_bench.harness.planning.request import Request
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.harness.suites import micro
from unlearn_bench.methods.testing import WORDS, tiny_model, tiny_tokenizer
from unlearn_bench.tasks.base import ChoiceRequest

ASKED = [ChoiceRequest(f"q{n}", f"{WORDS[n]} {WORDS[2 * n]}", (f" {WORDS[5]}", f" {WORDS[9]}")) for n in range(4)]
MICRO = Path(micro.__file__).parent / "model"
LINEAR = ["q_proj", "v_proj", "down_proj"]
KINDS: dict[str, Any] = {
    "lora": LoraConfig(r=2, lora_alpha=8, target_modules=LINEAR, init_lora_weights=False),
    "all linear": LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False),
    "rank-stabilised": LoraConfig(r=3, lora_alpha=6, use_rslora=True, target_modules=LINEAR, init_lora_weights=False),
    "ranks by layer": LoraConfig(r=2, rank_pattern={"q_proj": 5}, target_modules=LINEAR, init_lora_weights=False),
    "some layers": LoraConfig(r=2, target_modules=LINEAR, layers_to_transform=[1], init_lora_weights=False),
    "a pattern": LoraConfig(r=2, target_modules=r".*layers\.0\..*_proj", init_lora_weights=False),
    "dora": LoraConfig(r=2, use_dora=True, target_modules=LINEAR, init_lora_weights=False),
    "a norm saved": LoraConfig(r=2, target_modules=LINEAR, modules_to_save=["norm"], init_lora_weights=False),
    "ia3": IA3Config(target_modules=LINEAR, feedforward_modules=["down_proj"], init_ia3_weights=False),
    "loha": LoHaConfig(r=2, target_modules=LINEAR, init_weights=False),
    "lokr": LoKrConfig(r=2, target_modules=LINEAR, init_weights=False),
}


def base_folder(folder: Path, tied: bool = False, seed: int = 0) -> Path:
    config = AutoConfig.for_model(**{**tiny_model(layers=2).config.to_dict(), "tie_word_embeddings": tied})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0.1, 0.3, tuple(parameter.shape))))
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return base_folder(tmp_path / "base")


def spec(folder: Path, dtype: str = "float32") -> ModelSpec:
    [known] = resolve_models([str(folder)], load_suite("micro"), None, dtype).values()
    return known


def wrapped(base: Path, config: Any, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(1)
    return get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), config)


def adapter(base: Path, folder: Path, config: Any = None, **options: Any) -> Path:
    model = wrapped(base, config or KINDS["lora"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name:
                parameter.mul_(1.5)
    model.save_pretrained(folder, **options)
    return folder


def merged_folder(base: Path, adapter: Path, folder: Path, dtype: torch.dtype) -> Path:
    """Merge as the documentation of peft has it."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), str(adapter))
    model.merge_and_unload().save_pretrained(folder)  # pyright: ignore
    tiny_tokenizer().save_pretrained(folder)
    return folder


def scores(engine: TransformersEngine) -> list[Any]:
    return [answer.logprobs for answer in engine.score_choices(ASKED)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_measured_as_the_model_that_peft_merges(kind: str, dtype: str, tied: bool, tmp_path: Path):
    if kind == "all linear" and tied:
        pytest.skip("the head is no target then")
    own = base_folder(tmp_path / "base", tied)
    folder = adapter(own, tmp_path / "adapter", KINDS[kind])
    assert check_adapter("It", folder, spec(own)) is None
    model = spec(own, dtype)
    engine = TransformersEngine(model)
    before = scores(engine)
    engine.apply(merged("It", folder, model))
    other = merged_folder(own, folder, tmp_path / "merged", getattr(torch, dtype))
    assert scores(engine) == scores(TransformersEngine(model.model_copy(update={"path": str(other)}))) != before


def test_a_pickled_adapter_is_read_and_runs_no_code(base: Path, tmp_path: Path):
    folder = adapter(base, tmp_path / "adapter", safe_serialization=False)
    plain = adapter(base, tmp_path / "plain")
    assert (folder / "adapter_model.bin").is_file()
    check_adapter("It", folder, spec(base))
    one, other = merged("It", folder, spec(base)), merged("It", plain, spec(base))
    assert all(torch.equal(one[name], other[name]) for name in other)
    trace = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return (Path.write_text, (trace, "here"))

    torch.save({"base_model.model.x": Evil()}, folder / "adapter_model.bin")
    with pytest.raises(UserError, match="does not fit"):
        check_adapter("It", folder, spec(base))
    assert not trace.exists()


def edit(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def tensors(folder: Path, change: Any) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({name: value.contiguous() for name, value in change(load_file(file)).items()}, file, {"format": "pt"})


def first(state: dict[str, Any]) -> str:
    return sorted(state)[0]


REFUSED: dict[str, tuple[Any, str]] = {
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "has adapter_config.json but no weights"),
    "cut off": (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 30), "does not fit"),
    "damaged configuration": (lambda f: (f / "adapter_config.json").write_text("{"), "is damaged"),
    "no kind": (lambda f: (f / "adapter_config.json").write_text("{}"), "of the kind None, which cannot be merged"),
    "unknown kind": (lambda f: edit(f, peft_type="MAGIC"), "of the kind MAGIC, which cannot be merged"),
    "unknown targets": (lambda f: edit(f, target_modules=["c_attn"]), "does not fit base: .*c_attn"),
    "fewer targets": (lambda f: edit(f, target_modules=["q_proj", "v_proj"]), "holds .*down_proj.*would be ignored"),
    "more targets": (lambda f: edit(f, target_modules=[*LINEAR, "k_proj"]), "lacks .*k_proj"),
    "another rank": (lambda f: edit(f, r=7), "does not fit base: .*size mismatch"),
    "a setting of a newer peft": (lambda f: edit(f, use_magic=True), "does not know use_magic"),
    "replicated layers": (lambda f: edit(f, layer_replication=[[0, 2], [0, 2]]), "cannot be merged into weights"),
    "a lost matrix": (lambda f: tensors(f, lambda s: {k: s[k] for k in s if k != first(s)}), "lacks .*lora_A"),
    "a matrix more": (lambda f: tensors(f, lambda s: {**s, "base_model.model.y": torch.ones(2)}), "holds .*ignored"),
    "other names": (lambda f: tensors(f, lambda s: {f"module.{k}": s[k] for k in s}), "lacks .* and holds"),
    "another shape": (lambda f: tensors(f, lambda s: {**s, first(s): torch.ones(2, 9)}), "size mismatch"),
    "a lost module": (lambda f: edit(f, modules_to_save=["norm"]), "it lacks .*norm.weight"),
    "empty": (lambda f: tensors(f, lambda s: {}), "lacks "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_adapter_that_does_not_fit_is_refused_by_the_plan(case: str, base: Path, tmp_path: Path):
    folder = adapter(base, tmp_path / "adapter")
    change, words = REFUSED[case]
    change(folder)
    with pytest.raises(UserError, match=words) as planned:
        make_plan(Request(models=(str(base),), methods=("none",), checkpoints={"it": folder}), None)
    assert len(str(planned.value)) < 700
    with pytest.raises(UserError, match=words):
        merged("It", folder, spec(base))


def test_an_adapter_that_is_no_change_of_weights_is_refused(base: Path, tmp_path: Path):
    folder = adapter(base, tmp_path / "prompt", PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(UserError, match="of the kind PROMPT_TUNING, which cannot be merged"):
        check_adapter("It", folder, spec(base))


@pytest.mark.parametrize("module", ["lm_head", "embed_tokens"])
@pytest.mark.parametrize("saved", [True, False])
def test_an_adapter_on_tied_tensors_is_refused_as_merging_changes_both(module: str, saved: bool, tmp_path: Path):
    own = base_folder(tmp_path / "base", tied=True)
    targets = LINEAR if saved else [*LINEAR, module]
    config = LoraConfig(r=2, target_modules=targets, modules_to_save=[module] if saved else None)
    folder = adapter(own, tmp_path / "adapter", config)
    with pytest.raises(UserError, match=f"changes (model.)?{module}, which base ties to another tensor"):
        check_adapter("It", folder, spec(own))


def test_the_base_that_an_adapter_names_is_held_against_ours(base: Path, tmp_path: Path):
    folder = adapter(base, tmp_path / "adapter")
    ours = spec(base)
    assert check_adapter("It", folder, ours) is None
    copy = spec(Path(shutil.copytree(base, tmp_path / "copy" / "tiny")))
    assert check_adapter("It", folder, copy) is None
    other = spec(base_folder(tmp_path / "other", seed=5))
    with pytest.raises(UserError, match=f"was trained on {base}, which holds another model than other") as error:
        check_adapter("It", folder, other)
    assert f"pass --models {base}" in str(error.value)
    edit(folder, base_model_name_or_path="someone/model")
    assert "names someone/model as its base and is merged into base" in str(check_adapter("It", folder, ours))
    assert check_adapter("It", folder, ours.model_copy(update={"hub": "someone/model"})) is None
    edit(folder, base_model_name_or_path=None)
    assert check_adapter("It", folder, ours) is None


def test_a_tokenizer_beside_an_adapter_must_be_the_bases(base: Path, tmp_path: Path):
    folder = adapter(base, tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(folder)
    check_adapter("It", folder, spec(base))
    more = tiny_tokenizer()
    more.add_tokens(["<new>"])
    more.save_pretrained(folder)
    with pytest.raises(UserError, match="holds another tokenizer than base"):
        check_adapter("It", folder, spec(base))


def test_a_model_and_an_adapter_in_one_folder_are_refused(base: Path, tmp_path: Path):
    folder = adapter(base, tmp_path / "adapter")
    for file in base.iterdir():
        shutil.copyfile(file, folder / file.name)
    for request in (Request(models=(str(folder),)), Request(models=(str(base),), checkpoints={"it": folder})):
        with pytest.raises(UserError, match="holds a model and an adapter"):
            make_plan(request, None)
    with pytest.raises(UserError, match="holds an adapter: pass it with --checkpoint"):
        make_plan(Request(models=(str(adapter(base, tmp_path / "alone")),)), None)


def test_an_adapters_cell_is_its_content_the_base_and_the_dtype(base: Path, tmp_path: Path):
    folder = adapter(base, tmp_path / "adapter")

    def cell(**options: Any) -> str:
        request = Request(models=(str(base),), methods=("none",), checkpoints={"it": folder}, **options)
        [found] = [cell for cell in make_plan(request, None).cells if cell.spec.method == "import"]
        return found.id

    before = cell()
    (folder / "README.md").write_text("words")
    assert cell() == before
    assert cell(dtype="bfloat16") != before
    tensors(folder, lambda state: {name: 2 * value for name, value in state.items()})
    assert cell() != before


def test_an_adapter_runs_as_the_merged_model_with_stress_and_export(tmp_path: Path):
    folder = adapter(MICRO, tmp_path / "adapter", LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    whole = merged_folder(MICRO, folder, tmp_path / "merged", torch.float32)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(MICRO / name, whole / name)
    request = Request(
        methods=("none",),
        tracks=("knowledge",),
        tasks=("wmdp", "mmlu"),
        limit=12,
        stress=("quantise8",),
        checkpoints={"adapter": folder, "whole": whole},
    )
    result = evaluate(request, output=tmp_path / "out", executor="inline")
    assert not result.failures
    rows = load_records(tmp_path / "out").drop(columns="cell")
    for end in ("", "+quantise8"):
        one, other = (
            rows[rows.variant == f"{name}{end}"].drop(columns="variant").reset_index(drop=True)
            for name in ("adapter", "whole")
        )
        assert len(one) == 24
        assert one.equals(other)
    export_cell("adapter", tmp_path / "exported", tmp_path / "out")
    exported = load_model(spec(tmp_path / "exported")).state_dict()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in load_model(spec(whole)).state_dict().items())
    shutil.copyfile(folder / "adapter_config.json", tmp_path / "adapter_config.json")
    tensors(folder, lambda state: {name: 2 * value for name, value in state.items()})
    again = evaluate(request, output=tmp_path / "out", executor="local", workers=1)
    assert not again.failures
    after = load_records(tmp_path / "out")
    assert not after[after.variant == "adapter"].drop(columns=["cell", "variant"]).equals(one)
