"""Models by folder: what they are pinned to, how they are loaded, and what is said where they are not."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from unlearn_bench.harness.engines._tokens import Encoder
from unlearn_bench.harness.engines.transformers import TransformersEngine
from unlearn_bench.harness.errors import UserError
from unlearn_bench.harness.models.load import (
    ModelSpec,
    attention,
    find_device,
    load_model,
    load_tokenizer,
    named_dtype,
    resolve_models,
)
from unlearn_bench.harness.store.entries import Store
from unlearn_bench.harness.suite import load_suite
from unlearn_bench.methods.testing import tiny_model, tiny_tokenizer
from unlearn_bench.tasks.base import ChoiceRequest, Decoding, GenerationRequest

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def resolve(name: object, store: Store | None = None, **options) -> ModelSpec:
    [spec] = resolve_models([str(name)], load_suite("micro"), store, **options).values()
    return spec


def weights(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rewrite(file: Path, **values) -> None:
    known = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in {**known, **values}.items() if value is not None}))


class TestFolders:
    def test_a_folder_is_its_content(self, folder: Path, tmp_path: Path) -> None:
        spec = resolve(folder)
        assert (spec.name, spec.path, spec.hub) == ("tiny", str(folder), None)
        assert same(weights(load_model(spec)), weights(tiny_model(layers=2)))
        elsewhere = Path(shutil.copytree(folder, tmp_path / "other"))
        assert resolve(elsewhere).digest == spec.digest

    @pytest.mark.parametrize(
        "name",
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "tokenizer.model",
            "chat_template.jinja",
            "added_tokens.json",
        ],
    )
    def test_what_changes_answers_changes_the_digest(self, folder: Path, name: str) -> None:
        before = resolve(folder).digest
        file = folder / name
        if name == "model.safetensors.index.json":
            file.write_text(json.dumps({"weight_map": {"x": "model.safetensors"}}))
        elif name == "config.json":
            rewrite(file, rope_theta=1.0)
        else:
            file.write_bytes((file.read_bytes() if file.exists() else b"") + b" ")
        assert resolve(folder).digest != before

    def test_what_does_not_change_answers_does_not(self, folder: Path) -> None:
        before = resolve(folder).digest
        (folder / "README.md").write_text("words")
        (folder / "training_args.bin").write_bytes(b"0")
        assert resolve(folder).digest == before

    def test_shards_are_one_model_and_each_counts(self, save_tiny, tmp_path: Path) -> None:
        folder = save_tiny(tmp_path / "sharded", max_shard_size="3KB")
        shards = sorted(folder.glob("*.safetensors"))
        assert len(shards) > 2
        spec = resolve(folder)
        assert same(weights(load_model(spec)), weights(tiny_model(layers=2)))
        shards[1].write_bytes(shards[1].read_bytes()[:-1] + b"\1")
        assert resolve(folder).digest != spec.digest
        shards[1].unlink()
        with pytest.raises(UserError, match=f"lacks 1 of {len(shards)} weight files: {shards[1].name}"):
            resolve(folder)
        with pytest.raises(UserError, match="lacks 1 of"):
            load_model(spec)

    def test_tied_embeddings_stay_tied(self, saved: Path) -> None:
        model = load_model(resolve(saved))
        assert model.get_input_embeddings().weight is model.get_output_embeddings().weight

    def test_a_model_without_pad_and_begin_tokens_runs(self, folder: Path) -> None:
        rewrite(folder / "config.json", pad_token_id=None, bos_token_id=None)
        rewrite(folder / "tokenizer_config.json", pad_token=None, bos_token=None, eos_token="[PAD]")
        (folder / "generation_config.json").unlink()
        spec = resolve(folder)
        assert load_tokenizer(spec).pad_token == "[PAD]"
        engine = TransformersEngine(spec, batch_size=4)
        [answer, _] = engine.generate(
            [GenerationRequest("a", "bab"), GenerationRequest("b", "bad bag ban bap")],
            Decoding(samples=2, max_new_tokens=3, temperature=0),
        )
        assert len(answer.texts) == 2
        [scored] = engine.score_choices([ChoiceRequest("a", "bab bad", (" bag", " ban"))])
        assert all(value < 0 for value in scored.logprobs)

    def test_a_tokenizer_without_begin_and_end_is_refused(self, folder: Path) -> None:
        rewrite(folder / "tokenizer_config.json", pad_token=None, bos_token=None, eos_token=None)
        with pytest.raises(UserError, match="neither a begin nor an end token"):
            TransformersEngine(resolve(folder))

    def test_two_models_of_one_name_are_told_apart(self, folder: Path, tmp_path: Path) -> None:
        other = Path(shutil.copytree(folder, tmp_path / "more" / "tiny"))
        with pytest.raises(UserError, match="Two models are called 'tiny'") as error:
            resolve_models([str(folder), str(other)], load_suite("micro"), None)
        assert str(folder) in str(error.value)
        assert str(other) in str(error.value)

    @pytest.mark.parametrize(
        ("make", "words"),
        [
            (lambda f: (f / "config.json").unlink(), "has no config.json"),
            (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
            (lambda f: (f / "adapter_config.json").write_text("{}"), "holds a model and an adapter"),
            (lambda f: (f / "config.json").write_text("{"), "config.json is damaged"),
        ],
    )
    def test_a_folder_that_is_no_model_is_refused_before_anything_runs(self, folder: Path, make, words: str) -> None:
        make(folder)
        with pytest.raises(UserError, match=words):
            resolve(folder)

    def test_a_folder_that_went_away_is_named(self, folder: Path) -> None:
        spec = resolve(folder)
        shutil.rmtree(folder)
        for load in (load_model, load_tokenizer):
            with pytest.raises(UserError, match="does not exist"):
                load(spec)


class TestNothingForeignRuns:
    def test_code_of_a_model_is_never_executed(self, folder: Path, tmp_path: Path) -> None:
        trace = tmp_path / "executed"
        (folder / "modeling_own.py").write_text(f"open({str(trace)!r}, 'w')\nclass Own: pass\nclass OwnConfig: pass\n")
        spec = resolve(folder)
        own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.Own"}
        rewrite(folder / "config.json", model_type="own", auto_map=own)
        for act in (lambda: resolve(folder), lambda: load_model(spec)):
            with pytest.raises(UserError, match="never executed here"):
                act()
        assert not trace.exists()

    def test_a_known_architecture_with_code_beside_it_runs_as_transformers_has_it(self, folder: Path) -> None:
        rewrite(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_own.Own"})
        assert type(load_model(resolve(folder))).__module__.startswith("transformers.models.llama")

    def test_pickled_weights_load_where_there_is_nothing_else(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        torch.save(tiny_model(layers=2).state_dict(), folder / "pytorch_model.bin")
        assert same(weights(load_model(resolve(folder))), weights(tiny_model(layers=2)))

    def test_a_pickle_that_would_run_code_is_refused(self, folder: Path, tmp_path: Path) -> None:
        trace = tmp_path / "executed"

        class Evil:
            def __reduce__(self):
                return (Path.write_text, (trace, "here"))

        (folder / "model.safetensors").unlink()
        torch.save({"model.norm.weight": Evil()}, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match="cannot be loaded"):
            load_model(resolve(folder))
        assert not trace.exists()
        with pytest.raises(pickle.UnpicklingError):
            torch.load(folder / "pytorch_model.bin", weights_only=True)
        torch.load(folder / "pytorch_model.bin", weights_only=False)
        assert trace.exists(), "the file does run code where it is let"

    def test_safetensors_win_over_a_pickle(self, folder: Path) -> None:
        (folder / "pytorch_model.bin").write_bytes(b"no weights")
        assert same(weights(load_model(resolve(folder))), weights(tiny_model(layers=2)))


class TestDtypeAndDevice:
    @pytest.mark.parametrize(
        ("config", "found"),
        [
            ({}, "float32"),
            ({"dtype": "bfloat16"}, "bfloat16"),
            ({"torch_dtype": "float16"}, "float16"),
            ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
            ({"text_config": {}}, "float32"),
        ],
    )
    def test_auto_is_what_the_config_names(self, config: dict, found: str) -> None:
        assert named_dtype(config, "it") == found

    def test_a_dtype_that_is_not_evaluated_in_is_refused(self) -> None:
        with pytest.raises(UserError, match="it is stored in float8_e4m3fn; choose one of float32, bfloat16, float16"):
            named_dtype({"dtype": "float8_e4m3fn"}, "it")

    def test_a_named_model_runs_in_its_own_dtype_or_the_asked_one(self, folder: Path) -> None:
        rewrite(folder / "config.json", dtype="bfloat16")
        assert resolve(folder).dtype == "bfloat16"
        for dtype in ("float32", "bfloat16", "float16"):
            spec = resolve(folder, dtype=dtype)
            assert spec.dtype == dtype
            engine = TransformersEngine(spec)
            assert engine.recorded()["dtype"] == dtype
            [scored] = engine.score_choices([ChoiceRequest("a", "bab bad", (" bag", " ban"))])
            assert all(-50 < value < 0 for value in scored.logprobs)

    def test_a_suite_says_the_dtype_of_its_own_models(self) -> None:
        suite = load_suite("micro")
        [name] = suite.models
        listed = suite.models[name].model_copy(update={"dtype": "bfloat16"})
        changed = suite.model_copy(update={"models": {name: listed}})
        assert resolve_models(None, changed, None)[name].dtype == "bfloat16"
        assert resolve_models(None, changed, None, dtype="float16")[name].dtype == "float16"

    def test_the_device_is_the_one_that_is_there(self, monkeypatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert find_device("auto") == find_device("cpu") == "cpu"
        with pytest.raises(UserError, match=r"'cuda' is not there: torch finds 0 usable GPUs"):
            find_device("cuda")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert find_device("auto") == "cuda"
        assert find_device("cuda:1") == "cuda:1"
        with pytest.raises(UserError, match="finds 2 usable"):
            find_device("cuda:2")
        for wrong in ("gpu", "cuda:x", "cpu:0", "mps"):
            with pytest.raises(UserError, match="Unknown device"):
                find_device(wrong)

    def test_attention_is_sdpa_but_where_it_would_be_another_model(self) -> None:
        from transformers import Gemma2Config, GptOssConfig, LlamaConfig

        assert attention(LlamaConfig()) == "sdpa"
        assert attention(Gemma2Config()) == "eager"
        assert attention(Gemma2Config(attn_logit_softcapping=None)) == "sdpa"
        assert attention(GptOssConfig()) == "eager"


class TestChat:
    @pytest.fixture
    def instruct(self, folder: Path) -> Path:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
        return folder

    def tokens(self, folder: Path, chat: bool = True) -> Encoder:
        spec = resolve(folder)
        return Encoder.of(load_tokenizer(spec), load_model(spec).config, chat=chat)

    def test_a_prompt_is_the_users_message_with_one_begin_token(self, instruct: Path) -> None:
        tokens = self.tokens(instruct)
        assert tokens.chat("bab") == "[BOS]<user>bab<assistant>"
        assert tokens.chat("bab", "bad") == "[BOS]<system>bad<user>bab<assistant>"
        assert tokens.encode("bab").count(tokens.prefix) == 1
        assert tokens.encode("bab") == self.tokens(instruct, chat=False).encode("[BOS]<user>bab<assistant>")

    def test_a_context_is_split_into_system_and_user_and_choices_lose_the_delimiter(self, instruct: Path) -> None:
        pairs = self.tokens(instruct).pairs("bad bab", ("mud bag", "mud ban"), system="bad ", delimiter="mud ")
        plain = self.tokens(instruct, chat=False).pairs("[BOS]<system>bad <user>bab<assistant>", ("bag", "ban"))
        assert pairs == plain

    def test_plain_prompts_do_not_see_the_template(self, instruct: Path) -> None:
        tokens = self.tokens(instruct, chat=False)
        assert tokens.encode("bab") == tiny_tokenizer().encode("bab")
        assert tokens.pairs("bad bab", (" bag",), system="bad ", delimiter=" ") == tokens.pairs("bad bab", (" bag",))

    def test_a_template_without_a_system_message_goes_without_it(self, instruct: Path) -> None:
        refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        (instruct / "chat_template.jinja").write_text(refuse + TEMPLATE)
        assert self.tokens(instruct).chat("bab", "bad") == "[BOS]<user>bab<assistant>"
        (instruct / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
        with pytest.raises(UserError, match="cannot be applied: not today"):
            self.tokens(instruct).chat("bab")

    def test_a_model_without_a_template_is_refused_before_anything_runs(self, folder: Path) -> None:
        with pytest.raises(UserError, match="--chat-template only with instruct models"):
            resolve(folder, chat=True)
        with pytest.raises(UserError, match="--chat-template only with instruct models"):
            self.tokens(folder).chat("bab")

    def test_a_chat_is_part_of_what_answers_are_but_not_of_the_weights(self, instruct: Path) -> None:
        plain, chat = resolve(instruct), resolve(instruct, chat=True)
        assert (plain.chat, chat.chat) == (False, True)
        assert plain.identity() != chat.identity()
        assert plain.digest == chat.digest

    def test_the_engine_asks_in_the_chat(self, instruct: Path) -> None:
        engine = TransformersEngine(resolve(instruct, chat=True))
        plain = TransformersEngine(resolve(instruct))
        decoding = Decoding(samples=2, max_new_tokens=4, temperature=0)
        wrapped = [GenerationRequest("a", engine.tokens.chat("bab"))]
        assert engine.generate([GenerationRequest("a", "bab")], decoding) == plain.generate(wrapped, decoding)
        asked = ChoiceRequest("a", "bad bab", ("mud bag", "mud ban"), system="bad ", delimiter="mud ")
        spelled = ChoiceRequest("a", engine.tokens.chat("bab", "bad "), ("bag", "ban"))
        assert engine.score_choices([asked]) == plain.score_choices([spelled])
        assert engine.score_choices([asked]) != plain.score_choices([asked])


@pytest.mark.slow
@pytest.mark.parametrize("form", ["letters", "continuation"])
def test_a_chat_scores_as_lm_eval_scores_it(real_model: Path, form: str) -> None:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from unlearn_bench.tasks.mmlu import MMLU

    task = MMLU(MMLU.Settings.parse({"form": form, "describe": True}, "mmlu"))
    items = task.items(MMLU.example_rows())
    engine = TransformersEngine(resolve(real_model, chat=True))
    found = [value for outcome in engine.score_choices(task.requests(items)) for value in outcome.logprobs]
    theirs = HFLM(pretrained=engine.model, tokenizer=engine.tokens.tokenizer, batch_size=1)
    done = lm_eval.simple_evaluate(
        theirs, tasks=[task.lm_eval_task(items)], apply_chat_template=True, bootstrap_iters=0, limit=None
    )
    [samples] = done["samples"].values()
    expected = [pair[0][0] for sample in sorted(samples, key=lambda s: s["doc_id"]) for pair in sample["resps"]]
    assert found == pytest.approx(expected, abs=1e-4)
