"""Scorers: the published layout, any classifier, and the stand-in; each says what is wrong with its folder."""

from __future__ import annotations

import json
import random
import sys
from importlib import util
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from unlearn_bench.harness.errors import UserError
from unlearn_bench.tasks.base import Scorer, load_scorer, scorers
from unlearn_bench.tasks.scorers import kinds

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "you", "are", "very", "kind", "awful", "fine", "the", "day"]
TEXTS = ["you are kind", "you are very very awful", "the day", "fine " * 20, "awful", "you " * 7]


def config():
    from transformers import BertConfig

    return BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=12,
        initializer_range=0.5,
        num_labels=2,
    )


def save_tokenizer(folder) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)


@pytest.fixture
def toy(tmp_path):
    """A folder in the layout of the TRuST classifier, its model and its layer."""
    from transformers import BertModel

    torch.manual_seed(0)
    embedder, dense = BertModel(config()).eval(), torch.nn.Linear(16, 2)
    state = {f"embedder.{key}": value for key, value in embedder.state_dict().items()}
    state |= {f"dense.{key}": value for key, value in dense.state_dict().items()}
    torch.save(state, tmp_path / "toxicity_classifier.pth")
    config().save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    return tmp_path, embedder, dense, state


def near(values):
    """What scorers say of the same texts in other batches."""
    return pytest.approx(values, abs=Scorer.tolerance)


def test_judges_are_registered():
    assert {"trust", "sequence_classifier", "ngram", "profanity_check"} <= set(scorers.names())
    with pytest.raises(UserError, match="Did you mean 'trust'"):
        load_scorer("trusty", "nowhere")


def test_trust_is_the_published_computation(toy):
    folder, embedder, dense, _ = toy
    scorer = load_scorer("trust", str(folder))
    tokens = scorer.tokenizer(TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        hidden = embedder(tokens["input_ids"], tokens["attention_mask"]).last_hidden_state[:, 0]
        expected = dense(hidden).softmax(-1)[:, 1].tolist()
    assert scorer.score(TEXTS) == near(expected)
    assert len(set(expected)) == len(TEXTS)
    assert scorer.score([]) == []


def test_trust_does_not_depend_on_the_batch_beyond_the_tolerance(toy):
    scorer = load_scorer("trust", str(toy[0]))
    together = scorer.score(TEXTS * 30)
    assert together == near([scorer.score([text])[0] for text in TEXTS] * 30)
    assert together == scorer.score(TEXTS * 30), "the same batches"


def test_other_judges_do_not_depend_on_the_batch_beyond_it_either(tmp_path):
    scorers = [load_scorer("sequence_classifier", classifier(tmp_path, {0: "neutral", 1: "toxic"}))]
    if util.find_spec("profanity_check"):
        scorers.append(load_scorer("profanity_check", ""))
    for scorer in scorers:
        together = scorer.score(TEXTS * 30)
        assert together == near([scorer.score([text])[0] for text in TEXTS] * 30)
        assert together == near(scorer.score(TEXTS * 7) + scorer.score(TEXTS * 23))
        assert together == scorer.score(TEXTS * 30), "the same batches"


def test_trust_takes_a_tokenizer_without_its_config_and_no_pooler(toy):
    folder, *_, state = toy
    expected = load_scorer("trust", str(folder)).score(TEXTS)
    (folder / "tokenizer_config.json").unlink()
    slim = {key: value for key, value in state.items() if "pooler" not in key}
    slim["embedder.embeddings.position_ids"] = torch.arange(12)[None]
    torch.save(slim, folder / "toxicity_classifier.pth")
    assert load_scorer("trust", str(folder)).score(TEXTS) == expected


def test_a_text_that_cannot_be_judged_is_missing_and_the_others_are_not(toy, monkeypatch, caplog):
    scorer = load_scorer("trust", str(toy[0]))
    expected = scorer.score(TEXTS)
    awful, toxic = WORDS.index("awful"), scorer._toxic

    def fails_on_awful(inputs):
        if (inputs["input_ids"] == awful).any():
            raise IndexError("no such word")
        return toxic(inputs)

    monkeypatch.setattr(scorer, "_toxic", fails_on_awful)
    kept = [None if "awful" in text else near(value) for text, value in zip(TEXTS, expected, strict=True)]
    assert scorer.score([*TEXTS, "\ud800"]) == [*kept, None]
    assert "3 of 7 texts could not be judged" in caplog.text


def test_a_judge_that_can_judge_nothing_raises_its_error(toy, monkeypatch):
    def broken(inputs):
        raise RuntimeError("device lost")

    scorer = load_scorer("trust", str(toy[0]))
    monkeypatch.setattr(scorer, "_toxic", broken)
    with pytest.raises(RuntimeError, match="device lost"):
        scorer.score(TEXTS)


def drop(key):
    return lambda state: state.pop(key)


def put(key, *shape):
    return lambda state: state.update({key: torch.zeros(*shape)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("dense.bias"), "no dense.weight and dense.bias"),
        (put("dense.weight", 3, 16), "two labels on 16 hidden units"),
        (put("classifier.weight", 2, 16), r"state dict of embedder\.\* and dense\.\*"),
        (drop("embedder.encoder.layer.1.output.dense.weight"), "lacks embedder.encoder.layer.1.output.dense.weight"),
        (put("embedder.encoder.layer.7.output.dense.weight", 16, 32), "unknown embedder.encoder.layer.7"),
        (put("embedder.embeddings.word_embeddings.weight", 5, 16), r"is \(5, 16\), but \(12, 16\) by config"),
    ],
)
def test_trust_names_what_is_wrong_with_the_weights(toy, change, message):
    folder, *_, state = toy
    change(state)
    torch.save(state, folder / "toxicity_classifier.pth")
    with pytest.raises(UserError, match=message):
        load_scorer("trust", str(folder))


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def test_trust_executes_nothing_and_names_missing_files(toy, capsys):
    folder = toy[0]
    torch.save({"embedder.x": Payload()}, folder / "toxicity_classifier.pth")
    with pytest.raises(UserError, match="loaded with weights only"):
        load_scorer("trust", str(folder))
    assert "executed" not in capsys.readouterr().out
    (folder / "toxicity_classifier.pth").unlink()
    with pytest.raises(UserError, match=r"has no toxicity_classifier\.pth; it holds config\.json"):
        load_scorer("trust", str(folder))
    with pytest.raises(UserError, match="does not exist"):
        load_scorer("trust", str(folder / "nowhere"))


def test_trust_says_that_a_tokenizer_is_missing(toy, monkeypatch):
    folder = toy[0]
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(UserError, match="bert-base-uncased of the hub"):
        load_scorer("trust", str(folder))


def classifier(folder, labels: dict[int, str], **options) -> str:
    from transformers import BertForSequenceClassification

    torch.manual_seed(1)
    settings = config()
    settings.id2label = labels
    settings.label2id = {label: index for index, label in labels.items()}
    for name, value in options.items():
        setattr(settings, name, value)
    BertForSequenceClassification(settings).save_pretrained(folder)
    save_tokenizer(folder)
    return str(folder)


def test_a_classifier_whose_first_positions_hold_no_text_takes_long_texts(tmp_path):
    from transformers import RobertaConfig, RobertaForSequenceClassification

    named = {"id2label": {0: "neutral", 1: "toxic"}, "label2id": {"neutral": 0, "toxic": 1}}
    settings = RobertaConfig(**{**config().to_dict(), **named, "model_type": "roberta", "pad_token_id": 0})
    RobertaForSequenceClassification(settings).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    scorer = load_scorer("sequence_classifier", str(tmp_path))
    assert scorer.limit == 11
    assert scorer.score(["you " * 40]) == scorer.score(["you " * 9])


def test_a_folder_that_is_no_classifier_is_named(tmp_path):
    with pytest.raises(UserError, match=r"has no config\.json; it holds nothing"):
        load_scorer("sequence_classifier", str(tmp_path))
    (tmp_path / "config.json").write_text('{"id2label": {"0": "neutral", "1": "toxic"}}')
    with pytest.raises(UserError, match="holds no weights"):
        load_scorer("sequence_classifier", str(tmp_path))


@pytest.fixture
def labelled(tmp_path):
    """A folder of texts in which one word family is toxic."""
    rows = [
        {"text": f"the {kind} day {n} is {word}", "label": label}
        for n in range(15)
        for kind in ("long", "short")
        for word, label in (("awful", 1), ("lovely", 0))
    ]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_the_stand_in_is_fitted_the_same_way_each_time(labelled):
    first, second = load_scorer("ngram", str(labelled)), load_scorer("ngram", str(labelled))
    texts = ["an awful thing", "a lovely thing", ""]
    scores = first.score(texts)
    assert scores == second.score(texts)
    assert scores == near([first.score([text])[0] for text in texts])
    assert scores[0] > 0.6 > 0.4 > scores[1]
    assert first.auc == second.auc == 1.0
    assert first.score([]) == []


def test_the_stand_ins_auc_never_splits_a_group(tmp_path):
    """Texts of a group share a word and a label, and no word means anything: only a split group tells the label."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=8)) for _ in range(40)]
    rows = [
        {"text": f"the {word} is {end}", "label": number % 2, "group": word}
        for number, word in enumerate(words)
        for end in ("here", "there", "gone")
    ]

    def fitted(rows):
        (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load_scorer("ngram", str(tmp_path))

    whole = fitted(rows)
    assert whole.auc < 0.7
    assert whole.held_out() == f"held-out AUC {whole.auc:.3f} over 120 texts in 40 groups"
    split = fitted([{"text": row["text"], "label": row["label"]} for row in rows])
    assert split.held_out() == "held-out AUC 1.000 over 120 texts"
    with pytest.raises(UserError, match="in 1 groups"):
        fitted([{**row, "group": "all"} for row in rows])


def test_a_packaged_judge_says_how_to_install_it(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(kinds, "version", absent)
    with pytest.raises(UserError, match=r"alt-profanity-check, which is not installed: pip install .*\[judges\]"):
        load_scorer("profanity_check", "")


def test_weights_of_another_scikit_learn_are_refused(tmp_path, monkeypatch):
    (tmp_path / "profanity_check.py").write_text(
        "import warnings\n"
        "from sklearn.exceptions import InconsistentVersionWarning\n"
        "versions = {'current_sklearn_version': '9.9', 'original_sklearn_version': '0.1'}\n"
        "warnings.warn(InconsistentVersionWarning(estimator_name='LinearSVC', **versions))\n"
        "predict_prob = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "profanity_check", raising=False)
    monkeypatch.setattr(kinds, "version", lambda name: "0.1")
    with pytest.raises(UserError, match=r"written by scikit-learn 0\.1, but 9\.9 is installed"):
        load_scorer("profanity_check", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n', "line 1 has no 'label'; it has 'text'"),
        ('{"text": "a", "label": 1}\nnonsense\n', "line 2 is no"),
        ('{"text": "a", "label": 3}\n', "line 1: 'label' is 3; write 1 for what is to be recognised"),
        ('{"text": null, "label": 1}\n', "line 1: 'text' is null"),
        ('{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n', "at least two texts of each label"),
    ],
)
def test_the_stand_in_names_wrong_rows(tmp_path, content, message):
    with pytest.raises(UserError, match="no labelled"):
        load_scorer("ngram", str(tmp_path))
    (tmp_path / "labelled.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        load_scorer("ngram", str(tmp_path))
