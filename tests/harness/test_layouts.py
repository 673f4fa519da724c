"""Layouts of weights as other tools leave them: each is measured exactly as its source, or refused with what to do."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.fit import check_weights
from unlearn_bench.harness.models.load import ModelSpec, load_model
from unlearn_bench.harness.models.misfit import quiet
from unlearn_bench.methods.testing import WORDS, tiny_tokenizer
from unlearn_bench.tasks.base import ChoiceRequest
from unlearn_bench.tasks.scorers.sequence_classifier import SequenceClassifier

State = dict[str, Tensor]
SHAPE: dict[str, Any] = {
    "vocab_size": len(WORDS) + 3,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 0,
}
ASKED = [ChoiceRequest(f"q{n}", f"{WORDS[n]} {WORDS[2 * n]}", (f" {WORDS[5]}", f" {WORDS[9]}")) for n in range(4)]
HEAD, LAYER = "lm_head.weight", "model.layers.1.mlp.down_proj.weight"


def randomised(model: Any, seed: int = 3) -> Any:
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(rng.normal(0.1, 0.3, tuple(parameter.shape))))
    return model.eval()


def source(family: str = "llama", tied: bool = False, dtype: torch.dtype = torch.float32) -> Any:
    config = AutoConfig.for_model(family, **SHAPE, tie_word_embeddings=tied)
    return randomised(AutoModelForCausalLM.from_config(config, dtype=dtype))


def saved(model: Any, folder: Path, state: State | None = None, **options: Any) -> Path:
    """Save a model with a tokenizer; with `state` these tensors in place of its own, in one file."""
    model.save_pretrained(folder, **options)
    tiny_tokenizer().save_pretrained(folder)
    if state is not None:
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        write(folder, state)
    return folder


def write(folder: Path, state: Mapping[str, Tensor]) -> None:
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def spec(folder: Path, dtype: str = "float32") -> ModelSpec:
    return ModelSpec(name="tiny", path=str(folder), dtype=dtype)


def scores(folder: Path, dtype: str = "float32") -> list[Any]:
    return [answer.logprobs for answer in TransformersEngine(spec(folder, dtype)).score_choices(ASKED)]


def refusal(folder: Path) -> str:
    """Return what planning and loading both say against a folder."""
    with pytest.raises(UserError) as planned:
        check_weights(f"Model folder {folder}", folder)
    with pytest.raises(UserError) as loaded:
        load_model(spec(folder))
    assert str(planned.value) == str(loaded.value)
    text = str(planned.value)
    assert len(text) < 700
    assert "\n" not in text
    return text.replace(str(folder), "FOLDER")


def edit_config(folder: Path, **values: Any) -> None:
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, **values}))


def put(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def inside(part: str, after: str) -> Callable[[State], State]:
    return lambda state: {name.replace(after, after + part): tensor for name, tensor in state.items()}


def pickled(model: Any, folder: Path, **_: Any) -> None:
    torch.save(model.state_dict(), saved(model, folder) / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pickled_in_shards(model: Any, folder: Path) -> None:
    saved(model, folder)
    (folder / "model.safetensors").unlink()
    state = model.state_dict()
    where = {name: f"pytorch_model-0000{1 + at % 2}-of-00002.bin" for at, name in enumerate(state)}
    for file in set(where.values()):
        torch.save({name: state[name] for name in state if where[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


WHOLE: dict[str, Callable[[Any, Path], Any]] = {
    "one file": lambda model, folder: saved(model, folder),
    "shards": lambda model, folder: saved(model, folder, max_shard_size="3KB"),
    "pickle": pickled,
    "pickles": pickled_in_shards,
    "without the body's prefix": lambda model, folder: saved(
        model, folder, {name.removeprefix("model."): tensor for name, tensor in model.state_dict().items()}
    ),
    "all names, ties twice": lambda model, folder: saved(model, folder, model.state_dict()),
    "old buffers": lambda model, folder: saved(
        model,
        folder,
        {
            **model.state_dict(),
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
            "model.layers.0.self_attn.bias": torch.ones(1, 1, 64, 64),
            "model.layers.0.self_attn.masked_bias": torch.tensor(-1e4),
        },
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layout", WHOLE)
def test_a_whole_layout_is_measured_as_its_source(layout: str, tied: bool, dtype: str, tmp_path: Path) -> None:
    model = source(tied=tied, dtype=getattr(torch, dtype))
    WHOLE[layout](model, tmp_path / "other")
    check_weights("It", tmp_path / "other")
    expected = scores(saved(model, tmp_path / "own"), dtype)
    assert scores(tmp_path / "other", dtype) == expected
    assert len({value for answer in expected for value in answer}) == 8


@pytest.mark.parametrize("family", ["qwen2", "gemma", "mixtral", "gpt2", "gpt_neox"])
def test_families_that_transformers_renames_and_fuses_fit(family: str, tmp_path: Path) -> None:
    model = source(family) if family not in ("gpt2", "gpt_neox") else small(family)
    folder = saved(model, tmp_path / "own")
    check_weights("It", folder)
    assert all(
        torch.equal(model.state_dict()[name], own) for name, own in load_model(spec(folder)).state_dict().items()
    )
    state = load_file(folder / "model.safetensors")
    write(folder, put("module.")(state))
    assert '.replace("module.", "")' in refusal(folder)
    write(folder, dict(list(state.items())[:-1]))
    assert "lacks 1 of" in refusal(folder)


def small(family: str) -> Any:
    sizes = {"gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2}, "gpt_neox": {"num_key_value_heads": 2}}
    config = AutoConfig.for_model(family, **{**SHAPE, **sizes[family]}, tie_word_embeddings=False)
    return randomised(AutoModelForCausalLM.from_config(config))


RENAMED: dict[str, tuple[Callable[[State], State], str]] = {
    "DataParallel": (put("module."), "DistributedDataParallel"),
    "torch.compile": (put("_orig_mod."), "torch.compile"),
    "compiled, then parallel": (put("module._orig_mod."), "torch.compile"),
    "PeftModel": (put("base_model.model."), "peft"),
    "FSDP": (inside("_fsdp_wrapped_module.", "model.layers.1."), "FSDP"),
    "FSDP at the root": (put("_fsdp_wrapped_module."), "FSDP"),
    "checkpointed layers": (inside("_checkpoint_wrapped_module.", "model.layers.0."), "activation checkpointing"),
    "base layers": (inside("base_layer.", "q_proj."), "peft"),
    "some own wrapper": (put("student."), ""),
    "own wrapper of each layer": (inside("inner.", "self_attn."), ""),
    "Lightning": (put("model.net."), ""),
    "another family's": (
        lambda state: {name.replace("model.", "backbone.decoder."): tensor for name, tensor in state.items()},
        "",
    ),
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("wrapper", RENAMED)
def test_a_wrappers_names_are_refused_with_the_exact_renaming(wrapper: str, tied: bool, tmp_path: Path) -> None:
    rename, maker = RENAMED[wrapper]
    model = source(tied=tied)
    own = saved(model, tmp_path / "own")
    state = load_file(own / "model.safetensors")
    folder = saved(model, tmp_path / "renamed", rename(state))
    said = refusal(folder)
    assert maker in said
    code = re.search(r"Save them under (.+), as model\.|Save them under (.+), as lm_head", said)
    assert code, said
    rule = code[1] or code[2]
    write(folder, {eval(rule, {"name": name}): tensor for name, tensor in rename(state).items()})
    assert scores(folder) == scores(own)


def without(*parts: str) -> Callable[[State], State]:
    return lambda state: {name: tensor for name, tensor in state.items() if not any(part in name for part in parts)}


def with_lora(state: State) -> State:
    return {**state, **lora("model.layers.0.self_attn.q_proj")}


def lora(module: str) -> State:
    return {f"{module}.lora_A.weight": torch.ones(2, 16), f"{module}.lora_B.weight": torch.ones(16, 2)}


def peft_state(state: State) -> State:
    named = {name.replace("q_proj.", "q_proj.base_layer."): tensor for name, tensor in state.items()}
    factors = {name.replace("lora_A", "lora_A.default"): value for name, value in lora("model.layers.0.x").items()}
    return put("base_model.model.")({**named, **factors})


def shaped(name: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, name: torch.ones(shape)}


def added(name: str, tensor: Tensor) -> Callable[[State], State]:
    return lambda state: {**state, name: tensor}


WRONG: dict[str, tuple[Callable[[State], State], dict[str, Any], str]] = {
    "a lost matrix": (without(LAYER), {}, rf"lacks 1 of 21 weights: {re.escape(LAYER)}\. Save the whole model"),
    "a lost norm": (without("model.norm"), {}, r"lacks 1 of 21 weights: model\.norm\.weight"),
    "a lost layer": (without("layers.0."), {}, r"lacks layers 0 of LlamaForCausalLM"),
    "both layers lost": (without("layers."), {}, r"lacks layers 0, 1 of LlamaForCausalLM"),
    "lost embeddings": (without("embed_tokens"), {}, r"lacks 1 of 21 weights: model\.embed_tokens\.weight"),
    "a lost head": (without(HEAD), {}, r"has no head: it lacks lm_head\.weight.*tie_word_embeddings: false"),
    "nothing": (lambda state: {}, {}, "lacks 21 of 21 weights"),
    "more layers": (lambda state: state, {"num_hidden_layers": 1}, r"holds layers 1, which by its config\.json"),
    "fewer layers": (lambda state: state, {"num_hidden_layers": 3}, r"lacks layers 2 of .*num_hidden_layers"),
    "other width": (lambda state: state, {"intermediate_size": 48}, r"differ in the shape of 6 weights: .*\(16, 24\)"),
    "fewer tokens": (shaped(HEAD, 20, 16), {}, r"shape of 1 weight: lm_head\.weight is \(20, 16\)"),
    "a scalar": (shaped("model.norm.weight"), {}, r"model\.norm\.weight is \(\) in the files"),
    "transposed": (shaped(LAYER, 24, 16), {}, r"is \(24, 16\) in the files and \(16, 24\) in LlamaForCausalLM"),
    "an unknown bias": (added("model.layers.0.mlp.up_proj.bias", torch.ones(24)), {}, "does not take.*up_proj.bias"),
    "a value head": (added("v_head.summary.weight", torch.ones(1, 16)), {}, "does not take: v_head.summary.weight"),
    "another model beside it": (added("critic.norm.weight", torch.ones(16)), {}, "which would be ignored"),
    "LoRA beside its matrix": (with_lora, {}, r"never merged .* q_proj\.lora_A|never merged"),
    "a PeftModel's": (peft_state, {}, "never merged and would be ignored.*merge_and_unload"),
    "LoRA of embeddings": (added("model.embed_tokens.lora_embedding_A", torch.ones(2, 99)), {}, "never merged"),
    "DoRA": (added("model.layers.0.mlp.up_proj.lora_magnitude_vector", torch.ones(24)), {}, "never merged"),
    "DoRA's newer name": (added("model.layers.0.x.lora_magnitude_vector.default.weight", torch.ones(4)), {}, "merged"),
    "IA3": (added("model.layers.0.mlp.up_proj.ia3_l.default", torch.ones(24, 1)), {}, "never merged"),
    "LoHa": (added("model.layers.0.mlp.up_proj.hada_w1_a", torch.ones(24, 1)), {}, "never merged"),
    "a module to save": (added("lm_head.modules_to_save.default.weight", torch.ones(2, 2)), {}, "never merged"),
    "GPTQ": (added("model.layers.0.mlp.up_proj.qweight", torch.ones(2, 2).int()), {}, "holds quantised weights"),
    "bitsandbytes": (added("model.layers.0.mlp.up_proj.weight.absmax", torch.ones(2)), {}, "holds quantised weights"),
    "FP8 scales": (added("model.layers.0.mlp.up_proj.weight_scale_inv", torch.ones(1)), {}, "holds quantised weights"),
    "integers": (shaped("model.norm.weight", 16), {"_int": "model.norm.weight"}, "as I32: it is quantised"),
    "twice": (added("norm.weight", torch.ones(16)), {}, r"holds model\.norm\.weight twice, as"),
    "twice, doubled prefix": (added("model.model.norm.weight", torch.ones(16)), {}, "twice, as"),
    "tied that differ": (
        lambda state: state,
        {"tie_word_embeddings": True},
        r"ties lm_head\.weight to .*but they differ",
    ),
    "prefix and a lost matrix": (
        lambda state: put("module.")(without(LAYER)(state)),
        {},
        r'Save them under name\.replace\("module\.", ""\).*even then it lacks 1 of',
    ),
}


@pytest.mark.parametrize("container", ["safetensors", "pickle"])
@pytest.mark.parametrize("case", WRONG)
def test_weights_that_do_not_fit_are_refused_planned_and_loaded(case: str, container: str, tmp_path: Path) -> None:
    change, config, words = WRONG[case]
    config = dict(config)
    model = source()
    state = {name: tensor.clone() for name, tensor in change(dict(model.state_dict())).items()}
    if name := config.pop("_int", None):
        state[name] = state[name].int()
    folder = saved(model, tmp_path / "wrong", state)
    edit_config(folder, **config)
    if container == "pickle":
        (folder / "model.safetensors").unlink()
        torch.save(state, folder / "pytorch_model.bin")
    if container == "pickle" and case == "tied that differ":  # values of a pickle are read when it is loaded
        with pytest.raises(UserError, match=words):
            load_model(spec(folder))
        return
    assert re.search(words, refusal(folder))


def test_files_that_are_damaged_or_disagree_are_refused(tmp_path: Path) -> None:
    model = source()
    one, many = saved(model, tmp_path / "one"), saved(model, tmp_path / "many", max_shard_size="3KB")
    whole = (one / "model.safetensors").read_bytes()
    for damage in (whole[:-7], whole[:40], b"", b"not weights at all", whole + b"more"):
        (one / "model.safetensors").write_bytes(damage)
        assert "model.safetensors is cut off or damaged" in refusal(one)
    index = many / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    first, second = sorted(set(listed["weight_map"].values()))[:2]
    where = listed["weight_map"]
    index.write_text(json.dumps({**listed, "weight_map": {**where, "model.extra.weight": first}}))
    assert "its index lists model.extra.weight, which no file of it holds" in refusal(many)
    index.write_text(json.dumps({**listed, "weight_map": {**where, "model.norm.weight": "gone.safetensors"}}))
    assert "lacks 1 of" in refusal(many)
    index.write_text(json.dumps({"weights": {}}))
    assert "is no index of weights" in refusal(many)
    index.write_text(json.dumps({"weight_map": where}))
    assert "has no `metadata`" in refusal(many)
    index.write_text(json.dumps(listed))
    tensors = load_file(many / second)
    save_file({**tensors, **dict(list(load_file(many / first).items())[:1])}, many / second, {"format": "pt"})
    assert f"{first} and {second} both hold" in refusal(many)


EIGHT = {"quant_method": "fp8", "weight_block_size": [128, 128]}


def test_weights_of_8_bits_need_their_scales(tmp_path: Path) -> None:
    model = source()
    state = {
        name: value.to(torch.float8_e4m3fn) if "proj" in name else value for name, value in model.state_dict().items()
    }
    scales = {name.replace("weight", "weight_scale_inv"): torch.ones(1, 1) for name in state if "proj" in name}
    folder = saved(model, tmp_path / "eight", {**state, **scales})
    assert "holds quantised weights" in refusal(folder)
    edit_config(folder, quantization_config=EIGHT)
    rounded = {name: value.float() for name, value in state.items()}
    assert scores(folder) == scores(saved(model, tmp_path / "rounded", rounded))
    write(folder, state)
    assert "in 8 bits without a scale" in refusal(folder)
    edit_config(folder, quantization_config=None)
    assert "as F8_E4M3: it is quantised" in refusal(folder)
    edit_config(folder, quantization_config={"quant_method": "magic"})
    assert "as F8_E4M3: it is quantised" in refusal(folder)


OTHER_LAYOUTS = {
    "FSDP": ("pytorch_model_fsdp_0/__0_0.distcp", "accelerate merge-weights"),
    "DeepSpeed": ("global_step100/mp_rank_00_model_states.pt", "zero_to_fp32.py"),
    "a step of a trainer": ("checkpoint-100/config.json", "a model may lie in a folder of it"),
    "a named adapter": ("default/adapter_config.json", "an adapter lies in a folder of it"),
    "GGUF": ("model-q4.gguf", "GGUF is not read"),
    "another name": ("weights.safetensors", "call the file model.safetensors"),
    "another pickle": ("consolidated.bin", "call the file pytorch_model.bin"),
}


@pytest.mark.parametrize("layout", OTHER_LAYOUTS)
def test_folders_of_other_layouts_are_refused_with_the_way_out(layout: str, tmp_path: Path) -> None:
    name, words = OTHER_LAYOUTS[layout]
    folder = saved(source(), tmp_path / "other")
    (folder / "model.safetensors").unlink()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(UserError, match=words):
        check_weights("It", folder)


def test_one_of_two_models_in_a_folder_is_not_chosen(tmp_path: Path) -> None:
    folder = saved(source(), tmp_path / "both", max_shard_size="3KB")
    write(folder, source(tied=True).state_dict())
    assert "holds model.safetensors and the shards of model.safetensors.index.json" in refusal(folder)


def test_a_pointer_of_git_lfs_and_a_list_are_named(tmp_path: Path) -> None:
    folder = saved(source(), tmp_path / "clone")
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    assert "run `git lfs pull` there" in refusal(folder)
    (folder / "config.json").write_text("[]")
    with pytest.raises(UserError, match="is no configuration of a model"):
        check_weights("It", folder)


def test_a_training_checkpoint_is_no_state_dict(tmp_path: Path) -> None:
    model = source()
    folder = saved(model, tmp_path / "wrong")
    (folder / "model.safetensors").unlink()
    torch.save({"model": dict(model.state_dict()), "step": 3}, folder / "pytorch_model.bin")
    assert "is no state dict but model, step; save the model's `state_dict()` alone" in refusal(folder)


def test_another_file_named_by_the_configuration_is_refused(tmp_path: Path) -> None:
    folder = saved(source(), tmp_path / "other")
    edit_config(folder, transformers_weights="other.safetensors")
    with pytest.raises(UserError, match="names other weights"):
        check_weights("It", folder)


@cache
def original(tied: bool) -> tuple[Any, State, Tensor]:
    model = source(tied=tied)
    tokens = torch.arange(1, 13)[None]
    with torch.inference_mode():
        return model, {name: value.clone() for name, value in model.state_dict().items()}, model(tokens).logits


EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("prefix"), st.sampled_from(["model.", "module.", "x.", "base_model.model.", "_orig_mod."])),
        st.tuples(st.just("bare"), st.just("model.")),
        st.tuples(st.just("inside"), st.sampled_from(["layers.", "layers.0.", "mlp.", "self_attn.q_proj."])),
        st.tuples(st.just("lose"), st.integers(0, 30)),
        st.tuples(st.just("reshape"), st.integers(0, 30)),
        st.tuples(
            st.just("add"),
            st.sampled_from(
                ["y.weight", "model.norm.bias", "model.layers.7.mlp.up_proj.weight", "model.rotary_emb.inv_freq"]
            ),
        ),
    ),
    max_size=2,
)
BUFFER = "rotary_emb.inv_freq"


def runs_alike(folder: Path, logits: Tensor) -> bool:
    """Whether transformers, left to itself, loads a folder, takes all its weights and computes these logits."""
    with quiet(), torch.inference_mode():
        try:
            loaded, info = AutoModelForCausalLM.from_pretrained(
                folder, ignore_mismatched_sizes=True, output_loading_info=True
            )
        except Exception:
            return False
        ignored = [name for name in info["unexpected_keys"] if not name.endswith(BUFFER)]
        return not ignored and torch.equal(loaded(torch.arange(1, 13)[None]).logits, logits)


def edited(state: State, edits: list[tuple[str, Any]]) -> State:
    for edit, value in edits:
        names = sorted(state)
        if edit == "prefix":
            state = {value + name: tensor for name, tensor in state.items()}
        elif edit == "bare":
            state = {name.removeprefix(value): tensor for name, tensor in state.items()}
        elif edit == "inside":
            state = {name.replace(value, f"{value}wrapped."): tensor for name, tensor in state.items()}
        elif edit == "lose":
            state = {name: tensor for name, tensor in state.items() if name != names[value % len(names)]}
        elif edit == "reshape":
            name = names[value % len(names)]
            state = {**state, name: torch.cat([state[name], state[name]])}
        else:
            state = {**state, value: torch.ones(3)}
    return state


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(edits=EDITS, tied=st.booleans())
@example(edits=[("reshape", 0)], tied=True)
def test_a_change_of_tensors_is_refused_exactly_where_the_model_is_another(
    edits: list[tuple[str, Any]], tied: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The oracle is transformers itself: another function than the source's, or weights of a name that it ignores."""
    model, state, logits = original(tied)
    folder = tmp_path_factory.mktemp("edited")
    saved(model, folder, edited(state, edits))
    if runs_alike(folder, logits):
        check_weights("It", folder)
        assert torch.equal(load_model(spec(folder))(torch.arange(1, 13)[None]).logits, logits)
    else:
        refusal(folder)
    shutil.rmtree(folder)


def scorer(folder: Path, family: str = "llama", labels: int = 2, **options: Any) -> Path:
    names = {0: "toxic", 1: "neutral", 2: "normal"}
    config = AutoConfig.for_model(
        family,
        **SHAPE,
        num_labels=labels,
        id2label={index: names[index] for index in range(labels)},
        label2id={names[index]: index for index in range(labels)},
    )
    return saved(randomised(AutoModelForSequenceClassification.from_config(config)), folder, **options)


TEXTS = [" ".join(WORDS[:4]), " ".join(WORDS[9:12])]


@pytest.mark.parametrize("family", ["llama", "bert", "distilbert", "roberta"])
def test_a_judge_in_any_layout_judges_alike(family: str, tmp_path: Path) -> None:
    own, shards = scorer(tmp_path / "own", family), scorer(tmp_path / "shards", family, max_shard_size="3KB")
    state = load_file(own / "model.safetensors")
    pickle = Path(shutil.copytree(own, tmp_path / "pickle"))
    (pickle / "model.safetensors").unlink()
    torch.save(state, pickle / "pytorch_model.bin")
    expected = SequenceClassifier(str(own)).score(TEXTS)
    assert None not in expected
    for folder in (own, shards, pickle):
        SequenceClassifier.check(str(folder))
        assert SequenceClassifier(str(folder)).score(TEXTS) == expected


def judge_refusal(folder: Path) -> str:
    with pytest.raises(UserError) as planned:
        SequenceClassifier.check(str(folder))
    with pytest.raises(UserError) as loaded:
        SequenceClassifier(str(folder))
    assert str(planned.value) == str(loaded.value)
    return str(planned.value)


@pytest.mark.parametrize("family", ["llama", "bert", "distilbert", "roberta"])
def test_a_judge_whose_weights_do_not_fit_judges_nothing(family: str, tmp_path: Path) -> None:
    folder = scorer(tmp_path / "scorer", family)
    state = load_file(folder / "model.safetensors")
    head = {
        name: tensor for name, tensor in state.items() if name.startswith(("score", "classifier", "pre_classifier"))
    }
    body = {name: tensor for name, tensor in state.items() if name not in head}
    write(folder, body)
    assert "has no head of" in judge_refusal(folder)
    write(folder, put("module.")(state))
    assert '.replace("module.", "")' in judge_refusal(folder)
    write(folder, {**state, **{name: torch.cat([head[name]] * 2) for name in head}})
    assert "differ in the shape of" in judge_refusal(folder)
    write(folder, {**state, "lm_head.weight": torch.ones(3, 16)})
    assert "does not take: lm_head.weight" in judge_refusal(folder)
    write(folder, {**state, **lora("x")})
    assert "never merged" in judge_refusal(folder)
    write(folder, {name: state[name] for name in [*head, *list(body)[1:]]})
    assert "lacks 1 of" in judge_refusal(folder)


def test_a_language_model_is_no_judge(tmp_path: Path) -> None:
    folder = saved(source(tied=True), tmp_path / "model")
    assert "has no head of LlamaForSequenceClassification: it lacks score.weight" in judge_refusal(folder)
    untied = saved(source(), tmp_path / "untied")
    assert "score.weight" in judge_refusal(untied)
